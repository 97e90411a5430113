"""Episodes to write, and whether a file holds them."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np


def episode(length: int, seed: int = 0, size: int = 16) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    action = rng.normal(size=(length, 2)).astype(np.float32)
    action[-1] = np.nan
    return {
        "pixels": rng.integers(0, 256, (length, size, size, 3), dtype=np.uint8),
        "action": action,
        "state": rng.normal(size=(length, 3)),
    }


def assert_holds(path: Path, episodes: list[dict[str, np.ndarray]]) -> None:
    """The file, read by plain h5py, holds exactly these episodes end to end."""
    with h5py.File(path, "r") as file:
        lengths = [len(columns["action"]) for columns in episodes]
        assert file["ep_len"][:].tolist() == lengths
        assert file["ep_offset"][:].tolist() == np.concatenate([[0], np.cumsum(lengths)[:-1]]).tolist()
        for name in episodes[0]:
            np.testing.assert_array_equal(
                file[name][:], np.concatenate([columns[name] for columns in episodes])
            )
