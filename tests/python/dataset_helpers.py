"""A file of episodes to read windows from."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np

FRAMES, SKIP, SIZE = 3, 2, 8
LENGTHS = (9, 5, 6, 14)  # a window spans 6 rows: 4, 0, 1 and 9 of them
ROWS = sum(LENGTHS)
FRAME = (SIZE, SIZE, 3)


def columns_of(lengths: tuple[int, ...] = LENGTHS) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    rows = sum(lengths)
    action = rng.normal(2.0, 3.0, (rows, 2)).astype(np.float32)
    action[np.cumsum(lengths) - 1] = np.nan
    return {
        "pixels": rng.integers(0, 256, (rows, SIZE, SIZE, 3), dtype=np.uint8),
        "action": action,
        "state": rng.normal(size=(rows, 4)),
        "ep_len": np.array(lengths, np.int32),
        "ep_offset": np.concatenate([[0], np.cumsum(lengths)[:-1]]).astype(np.int64),
    }


def write(path: Path, columns: dict[str, np.ndarray], **pixel_options: object) -> Path:
    with h5py.File(path, "w") as file:
        for name, values in columns.items():
            file.create_dataset(name, data=values, **(pixel_options if name == "pixels" else {}))
    return path
