"""The published reader and writer and ours agree, file by file (marker ``peer``).

Run where the published package is installed: ``python -m pytest -m peer tests/python/test_data_peer.py``.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.peer

FRAMES, SKIP = 4, 5


@pytest.fixture(scope="module")
def hdf5():
    pytest.importorskip("stable_worldmodel")
    return pytest.importorskip("stable_worldmodel.data.formats.hdf5")


def episodes() -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    result = []
    for length in (45, 12, 20, 33):
        action = rng.normal(1.0, 2.0, (length, 2)).astype(np.float32)
        action[-1] = np.nan
        pixels = rng.integers(0, 256, (length, 16, 16, 3), dtype=np.uint8)
        result.append({"pixels": pixels, "action": action, "state": rng.normal(size=(length, 3))})
    return result


def write_theirs(hdf5, path: Path) -> None:
    with hdf5.HDF5Writer(path) as writer:
        writer.write_episodes(episodes())


def write_ours(path: Path, compression: str = "none") -> None:
    from lewm.data import EpisodeWriter

    with EpisodeWriter(path, compression=compression) as writer:
        writer.write_episodes(episodes())


@pytest.mark.parametrize("writer", ["theirs", "none", "gzip", "lzf", "blosc"])
def test_both_readers_give_the_same_windows(hdf5, tmp_path: Path, writer: str) -> None:
    from stable_worldmodel.data.normalization import ZScoreScaler

    from lewm.data import TrajectoryDataset

    path = tmp_path / "a.h5"
    write_theirs(hdf5, path) if writer == "theirs" else write_ours(path, writer)
    ours = TrajectoryDataset(path, FRAMES, SKIP, columns=("state",), in_memory=False)
    windows = [ours[index] for index in range(len(ours))]
    ours.file.close()
    theirs = hdf5.HDF5Dataset(path=path, frameskip=SKIP, num_steps=FRAMES)
    scaler = ZScoreScaler().fit(theirs.get_col_data("action"))
    np.testing.assert_allclose(ours.action_scaling["mean"], scaler.mean[0], rtol=1e-5)
    np.testing.assert_allclose(ours.action_scaling["std"], scaler.std[0], rtol=1e-5)
    assert len(theirs) == len(windows) > 0
    for index, window in enumerate(windows):
        expected = theirs[index]
        np.testing.assert_array_equal(window["pixels"].permute(0, 3, 1, 2), expected["pixels"])
        np.testing.assert_array_equal(window["state"], expected["state"])
        actions = expected["action"].reshape(FRAMES, SKIP, 2).numpy()
        standard = np.nan_to_num(scaler.transform(actions), nan=0.0).reshape(FRAMES, -1)
        np.testing.assert_allclose(window["action"], standard, atol=1e-5)


def test_our_writer_continues_their_file_and_theirs_ours(hdf5, tmp_path: Path) -> None:
    from lewm.data import EpisodeFile

    write_theirs(hdf5, tmp_path / "a.h5")
    write_ours(tmp_path / "a.h5")
    write_ours(tmp_path / "b.h5")
    write_theirs(hdf5, tmp_path / "b.h5")
    for name in ("a.h5", "b.h5"):
        file = EpisodeFile(tmp_path / name)
        assert file.lengths.tolist() == [45, 12, 20, 33] * 2
        rows = file.read("state", 0, 220)
        np.testing.assert_array_equal(rows[:110], rows[110:])
        np.testing.assert_array_equal(rows[:45], episodes()[0]["state"])
