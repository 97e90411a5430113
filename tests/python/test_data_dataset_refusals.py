"""TrajectoryDataset: what it says about files and arguments that are wrong."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

torch = pytest.importorskip("torch")

import lewm
from dataset_helpers import FRAME, FRAMES, ROWS, SIZE, SKIP, columns_of, write
from lewm.data import EpisodeFile, TrajectoryDataset


def test_indices_are_integers(tmp_path: Path) -> None:
    data = TrajectoryDataset(write(tmp_path / "a.h5", columns_of()), FRAMES, SKIP)
    torch.testing.assert_close(data[2:7:2]["action"], data[[2, 4, 6]]["action"])
    assert data[[]]["pixels"].shape == (0, FRAMES, *FRAME)
    for wrong in ([True, False], [0.5], np.zeros(len(data), bool), np.array(1.0), [2**70]):
        with pytest.raises(TypeError, match="indices: expected integers, got"):
            data[wrong]
    for wrong in ([[0, 1]], np.zeros((2, 2), int), [[0], [1, 2]], "0", 1.0, None):
        with pytest.raises(TypeError, match="indices: expected a list of integers"):
            data[wrong]
    for one in (np.int32(3), np.array(3), torch.tensor(3)):
        assert torch.equal(data[one]["pixels"], data[3]["pixels"])


def test_episodes_are_integers(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5", columns_of())
    data = TrajectoryDataset(path, FRAMES, SKIP, episodes=np.array([3, 0], np.uint8))
    assert data.episodes.tolist() == [3, 0]
    for wrong in (np.array([True, False, True, False]), [0.9], ["0"]):
        with pytest.raises(TypeError, match="episodes: expected integers, got"):
            TrajectoryDataset(path, FRAMES, SKIP, episodes=wrong)
        with pytest.raises(TypeError, match="episodes: expected integers, got"):
            data.subset(wrong)


def test_a_file_without_an_action_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5", columns_of((1, 1, 1)))  # the action of a last row is NaN
    with pytest.raises(lewm.Error, match=r"a\.h5: actions: no row of 3 is free of NaN"):
        TrajectoryDataset(path, 1, 1)


def test_one_name_is_no_sequence_of_columns(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="columns: expected a sequence of names, got 'state'"):
        TrajectoryDataset(write(tmp_path / "a.h5", columns_of()), FRAMES, SKIP, columns="state")


@pytest.mark.parametrize("name", ["pixels", "action"])
def test_further_columns_do_not_replace_those_of_every_window(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=f"columns: '{name}' is in every window already"):
        TrajectoryDataset(write(tmp_path / "a.h5", columns_of()), FRAMES, SKIP, columns=["state", name])


@pytest.mark.parametrize("name", ["pixels", "action"])
def test_a_missing_column_is_named(tmp_path: Path, name: str) -> None:
    columns = columns_of()
    del columns[name]
    left = sorted(set(columns) - {"ep_len", "ep_offset"})
    with pytest.raises(lewm.Error, match=rf"no column '{name}', there are {left}".replace("[", r"\[")):
        TrajectoryDataset(write(tmp_path / "a.h5", columns), FRAMES, SKIP)


def test_a_missing_extra_column_is_named(tmp_path: Path) -> None:
    with pytest.raises(lewm.Error, match="no column 'velocity'"):
        TrajectoryDataset(write(tmp_path / "a.h5", columns_of()), FRAMES, SKIP, columns=("velocity",))


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("ep_len", None, "no 'ep_len'"),
        ("ep_len", np.array([9, 5, 6]), "ep_len has 3 entries, ep_offset has 4"),
        ("ep_len", np.array([9, 5, 0, 14]), "episode 2 has length 0"),
        ("ep_len", np.array([9.0, 5.0, 6.0, 14.0]), "expected \\(E,\\) integers"),
        ("ep_len", np.array([9, 5, 7, 14]), "episodes 2 and 3 of ep_offset overlap"),
        ("ep_len", np.array([9, 5, 6, 15]), "has 34 rows, the episodes need 35"),
        ("ep_offset", np.array([-1, 9, 14, 20]), "episode 0 has length 9 and offset -1"),
        (
            "ep_offset",
            np.array([0, 9, 14, 2**63 - 5]),
            "episode 3 has length 14 and offset 9223372036854775803",
        ),
        ("ep_len", np.array([9, 5, 6, 2**63 - 5]), "episode 3 has length 9223372036854775803 and offset 20"),
        ("pixels", np.zeros((34, SIZE, SIZE, 3), np.float32), "pixels: expected \\(N, H, W, 3\\) uint8"),
        ("pixels", np.zeros((34, 3, SIZE, SIZE), np.uint8), "pixels: expected \\(N, H, W, 3\\) uint8"),
        ("pixels", np.zeros((30, SIZE, SIZE, 3), np.uint8), "pixels has 30 rows, the episodes need 34"),
        ("action", np.zeros((34, 2), np.int32), "action: expected \\(N, A\\) floats"),
        ("action", np.zeros(34, np.float32), "action: expected \\(N, A\\) floats"),
        ("action", np.zeros((34, 0), np.float32), "action: expected \\(N, A\\) floats, got \\(34, 0\\)"),
        ("action", np.full((34, 2), b"1"), "action: expected \\(N, A\\) floats, got \\(34, 2\\) \\|S1"),
        ("pixels", np.zeros((34, 0, SIZE, 3), np.uint8), "pixels: expected \\(N, H, W, 3\\) uint8"),
        ("action", np.full((34, 2), np.inf, np.float32), "action: step 0 of episode 0"),
    ],
)
def test_an_inconsistent_file_is_refused(
    tmp_path: Path, name: str, values: np.ndarray | None, message: str
) -> None:
    columns = columns_of()
    if values is None:
        del columns[name]
    else:
        columns[name] = values
    with pytest.raises(lewm.Error, match=message):
        TrajectoryDataset(write(tmp_path / "a.h5", columns), FRAMES, SKIP)


@pytest.mark.parametrize(
    ("values", "got"),
    [
        (np.array([b"ab"] * ROWS), "text"),
        (np.array(["ab"] * ROWS, object), "text"),
        (np.zeros(ROWS, [("x", "f4"), ("y", "i4")]), r"\[\('x', '<f4'\), \('y', '<i4'\)\]"),
        (np.zeros(ROWS, "V3"), r"\|V3"),
    ],
)
def test_a_column_without_numbers_is_named(tmp_path: Path, values: np.ndarray, got: str) -> None:
    path = write(tmp_path / "a.h5", {**columns_of(), "note": values})
    assert len(TrajectoryDataset(path, FRAMES, SKIP)) == 14
    with pytest.raises(lewm.Error, match=rf"a\.h5: note: expected numbers, got {got}"):
        TrajectoryDataset(path, FRAMES, SKIP, columns=["note"])


def test_nan_before_the_last_row_of_an_episode_is_refused(tmp_path: Path) -> None:
    columns = columns_of()
    columns["action"][16, 1] = np.nan
    with pytest.raises(lewm.Error, match=r"step 2 of episode 2 .* only the last row"):
        TrajectoryDataset(write(tmp_path / "a.h5", columns), FRAMES, SKIP)


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no file"):
        TrajectoryDataset(tmp_path / "a.h5")
    (tmp_path / "text.h5").write_text("text")
    with pytest.raises(lewm.Error, match="not a readable HDF5 file"):
        TrajectoryDataset(tmp_path / "text.h5")
    whole = write(tmp_path / "whole.h5", columns_of()).read_bytes()
    (tmp_path / "cut.h5").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(lewm.Error, match="not a readable HDF5 file"):
        TrajectoryDataset(tmp_path / "cut.h5")


@pytest.mark.parametrize("in_memory", [False, True])
@pytest.mark.parametrize("structure", [b"SNOD", b"HEAP", b"TREE"])
def test_a_damaged_file_is_named(tmp_path: Path, structure: bytes, in_memory: bool) -> None:
    """Each of the places at which HDF5's structures begin, which it marks by a word."""
    path = write(tmp_path / "a.h5", columns_of(), chunks=(2, *FRAME))
    whole, place, places = path.read_bytes(), -1, 0
    while (place := whole.find(structure, place + 1)) >= 0:
        path.write_bytes(whole[:place] + b"XXXX" + whole[place + 4 :])
        with pytest.raises(lewm.Error, match=r"a\.h5: (not a readable HDF5 file|\w+ cannot be read)"):
            TrajectoryDataset(path, FRAMES, SKIP, in_memory=in_memory)
        places += 1
    assert places >= 1


def test_damaged_attributes_are_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5", columns_of())
    with h5py.File(path, "r+") as file:
        file.attrs["env"] = "x"
    path.write_bytes(path.read_bytes().replace(b"GCOL", b"XXXX"))
    with pytest.raises(lewm.Error, match=r"a\.h5: the attributes cannot be read"):
        _ = EpisodeFile(path).attributes


@pytest.mark.parametrize(
    "options", [{"frames": 0}, {"frame_skip": 0}, {"frames": 2.5}, {"frames": True}, {"in_memory": "yes"}]
)
def test_bad_arguments_are_named(tmp_path: Path, options: dict) -> None:
    path = write(tmp_path / "a.h5", columns_of())
    with pytest.raises(ValueError, match=next(iter(options))):
        TrajectoryDataset(path, **options)
    with pytest.raises(ValueError, match="episodes: expected indices below 4"):
        TrajectoryDataset(path, FRAMES, SKIP, episodes=[4])
