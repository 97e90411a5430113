"""TrajectoryDataset: the windows of a file, from any storage."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import pickle
import signal
from pathlib import Path

import h5py
import numpy as np
import pytest

torch = pytest.importorskip("torch")

import lewm
from dataset_helpers import FRAME, FRAMES, ROWS, SIZE, SKIP, columns_of, write
from lewm.data import EpisodeFile, TrajectoryDataset, read_batches


def expected_window(columns: dict[str, np.ndarray], start: int) -> dict[str, np.ndarray]:
    """The definition, spelled out: frames SKIP apart, and the actions from each of them to the next."""
    action = columns["action"].astype(np.float64)
    kept = action[~np.isnan(action).any(axis=1)]
    standard = np.nan_to_num((action - kept.mean(axis=0)) / kept.std(axis=0), nan=0.0)
    rows = [start + t * SKIP for t in range(FRAMES)]
    return {
        "pixels": columns["pixels"][rows],
        "action": np.stack([standard[row : row + SKIP].ravel() for row in rows]),
        "state": columns["state"][rows],
    }


STORAGES: dict[str, dict[str, object]] = {
    "contiguous": {},
    "chunk of one": {"chunks": (1, *FRAME)},
    "chunk of five": {"chunks": (5, *FRAME)},
    "split frames": {"chunks": (4, 4, SIZE, 3)},
    "gzip": {"chunks": (3, *FRAME), "compression": "gzip"},
    "lzf": {"chunks": (1, *FRAME), "compression": "lzf", "shuffle": True},
    "blosc": {"chunks": (2, *FRAME)},
    "checksummed": {"chunks": (1, *FRAME), "fletcher32": True},
}


def storage_options(storage: str) -> dict[str, object]:
    """How h5py makes the pixels' data set."""
    if storage != "blosc":
        return STORAGES[storage]
    return {**STORAGES[storage], **pytest.importorskip("hdf5plugin").Blosc(cname="zstd")}


@pytest.mark.parametrize("in_memory", [False, True])
@pytest.mark.parametrize("storage", list(STORAGES))
def test_windows_follow_the_definition_from_any_storage(
    tmp_path: Path, storage: str, in_memory: bool
) -> None:
    columns = columns_of()
    path = write(tmp_path / "a.h5", columns, **storage_options(storage))
    data = TrajectoryDataset(path, FRAMES, SKIP, columns=("state",), in_memory=in_memory)
    starts = [*range(0, 4), 14, *range(20, 29)]
    assert len(data) == data.num_windows == len(starts)
    for index, start in enumerate(starts):
        window, expected = data[index], expected_window(columns, start)
        assert window.keys() == expected.keys()
        np.testing.assert_array_equal(window["pixels"], expected["pixels"])
        np.testing.assert_array_equal(window["state"], expected["state"])
        np.testing.assert_allclose(window["action"], expected["action"], atol=1e-6)
    assert window["pixels"].dtype == torch.uint8 and window["action"].dtype == torch.float32


def test_sizes_and_scaling(tmp_path: Path) -> None:
    columns = columns_of()
    data = TrajectoryDataset(write(tmp_path / "a.h5", columns), FRAMES, SKIP)
    assert (data.image_size, data.action_dim, data.span) == (SIZE, 2, FRAMES * SKIP)
    kept = columns["action"][~np.isnan(columns["action"]).any(axis=1)].astype(np.float64)
    np.testing.assert_allclose(data.action_scaling["mean"], kept.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(data.action_scaling["std"], kept.std(axis=0), rtol=1e-6)


def test_an_action_that_never_changes_standardises_to_zero(tmp_path: Path) -> None:
    columns = columns_of()
    columns["action"][:, 1] = np.where(np.isnan(columns["action"][:, 1]), np.nan, 7.0)
    data = TrajectoryDataset(write(tmp_path / "a.h5", columns), FRAMES, SKIP)
    batch = data[list(range(len(data)))]
    assert torch.isfinite(batch["action"]).all()
    assert (batch["action"][..., 1::2] == 0).all()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_gives_the_same_windows(tmp_path: Path, workers: int) -> None:
    path = write(tmp_path / "a.h5", columns_of(), chunks=(1, SIZE, SIZE, 3), compression="gzip")
    data = TrajectoryDataset(path, FRAMES, SKIP, in_memory=False)
    data[0]  # an open handle in the parent must not be used by its children
    loader = torch.utils.data.DataLoader(data, batch_size=5, num_workers=workers)
    pixels = torch.cat([batch["pixels"] for batch in loader])
    action = torch.cat([batch["action"] for batch in loader])
    whole = data[list(range(len(data)))]
    assert torch.equal(pixels, whole["pixels"]) and torch.equal(action, whole["action"])


def test_batches_keep_the_order_asked_for(tmp_path: Path) -> None:
    data = TrajectoryDataset(write(tmp_path / "a.h5", columns_of()), FRAMES, SKIP, in_memory=False)
    order = [11, 0, 7, 7, -1]
    batch = data[order]
    for row, index in enumerate(order):
        assert torch.equal(batch["pixels"][row], data[index]["pixels"])
    assert torch.equal(data[-1]["pixels"], data[len(data) - 1]["pixels"])
    for outside in (len(data), -len(data) - 1):
        with pytest.raises(IndexError, match="of 14"):
            data[outside]


def test_rows_of_no_episode_do_not_count(tmp_path: Path) -> None:
    columns = columns_of()
    unused = {
        name: np.concatenate([values[:3], values]) for name, values in columns.items() if name[:3] != "ep_"
    }
    unused["action"][:3] = np.inf
    offsets = columns["ep_offset"] + 3
    path = write(tmp_path / "a.h5", {**columns, **unused, "ep_offset": offsets})
    whole = TrajectoryDataset(write(tmp_path / "b.h5", columns), FRAMES, SKIP)
    torch.testing.assert_close(TrajectoryDataset(path, FRAMES, SKIP)[5], whole[5])


def test_a_file_let_go_of_is_closed(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5", columns_of())
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        data = TrajectoryDataset(path, FRAMES, SKIP, in_memory=False)
        data[0]
        del data
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_split_is_by_episode_disjoint_and_repeatable(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5", columns_of((8,) * 20))
    data = TrajectoryDataset(path, FRAMES, SKIP)
    train, val = data.split(0.2, seed=3)
    assert len(val.episodes) == 4
    assert sorted([*train.episodes, *val.episodes]) == list(range(20))
    assert len(train) + len(val) == len(data)
    again = TrajectoryDataset(path, FRAMES, SKIP).split(0.2, seed=3)[1]
    assert again.episodes.tolist() == val.episodes.tolist()
    assert data.split(0.2, seed=4)[1].episodes.tolist() != val.episodes.tolist()
    assert val.action_scaling == data.action_scaling
    starts = {int(row) // 8 for row in val.window_starts(range(len(val)))}
    assert starts == set(val.episodes.tolist())
    for fraction in (0.0, "0.1"):
        with pytest.raises(ValueError, match="fraction: expected a number between 0 and 1"):
            data.split(fraction)
    for seed in (-1, 0.5):
        with pytest.raises(ValueError, match="seed: expected an int of at least 0"):
            data.split(0.2, seed=seed)
    with pytest.raises(ValueError, match="none to train on"):
        data.subset([0]).split(0.5)


def test_short_episodes_are_left_out_and_only_short_ones_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5", columns_of())
    assert TrajectoryDataset(path, FRAMES, SKIP).episodes.tolist() == [0, 2, 3]
    with pytest.raises(ValueError, match=r"a window needs 30 rows .* has 14"):
        TrajectoryDataset(path, 15, 2)
    with pytest.raises(ValueError, match=rf"a window needs {2**64} rows .* has 14"):
        TrajectoryDataset(path, 1, 2**64)
    with pytest.raises(ValueError, match="a window needs 6 rows"):
        TrajectoryDataset(path, FRAMES, SKIP, episodes=[1])
    none = {name: np.zeros(0, np.int64) for name in ("ep_len", "ep_offset")}
    with pytest.raises(lewm.Error, match="expected episodes, it holds none"):
        TrajectoryDataset(write(tmp_path / "none.h5", {**columns_of(), **none}))


@pytest.mark.parametrize(
    ("options", "pickled"),
    [({}, False), ({}, True), ({"chunks": (1, *FRAME), "compression": "gzip"}, True)],
    ids=["raw", "raw, pickled", "gzip, pickled"],
)
def test_frames_of_another_file_are_not_taken_for_its_own(
    tmp_path: Path, options: dict[str, object], pickled: bool
) -> None:
    path = write(tmp_path / "data.h5", columns_of(), **options)
    data = TrajectoryDataset(path, FRAMES, SKIP, in_memory=False)
    write(tmp_path / "other.h5", columns_of((14, 6, 5, 9)), **options).replace(path)
    if pickled:
        data = pickle.loads(pickle.dumps(data))
    with pytest.raises(lewm.Error, match="has been replaced"):
        data[0]


def test_a_pickled_data_set_reads_on(tmp_path: Path) -> None:
    data = TrajectoryDataset(write(tmp_path / "a.h5", columns_of()), FRAMES, SKIP, in_memory=False)
    first = data[3]
    copy = pickle.loads(pickle.dumps(data))
    assert torch.equal(copy[3]["pixels"], first["pixels"])


def test_a_given_scaling_is_used(tmp_path: Path) -> None:
    columns = columns_of()
    path = write(tmp_path / "a.h5", columns)
    data = TrajectoryDataset(path, FRAMES, SKIP, action_scaling={"mean": [1.0, -1.0], "std": [2.0, 4.0]})
    np.testing.assert_allclose(data[0]["action"][0, :2], (columns["action"][0] - [1, -1]) / [2, 4], rtol=1e-6)
    with pytest.raises(ValueError, match=r"action_scaling.mean: expected 2 numbers"):
        TrajectoryDataset(path, FRAMES, SKIP, action_scaling={"mean": [1.0], "std": [2.0]})


@pytest.mark.parametrize(
    ("stored", "read"),
    [
        ("?", torch.bool),
        ("<f2", torch.float16),
        (">f8", torch.float64),
        (">i2", torch.int16),
        (np.longdouble, torch.float64),
        ("<u4", torch.uint32),
        ("<c8", torch.complex64),
    ],
)
def test_a_column_of_any_numbers_is_read(tmp_path: Path, stored: str, read: torch.dtype) -> None:
    values = (np.arange(2 * ROWS) % 2).reshape(ROWS, 2).astype(stored)
    path = write(tmp_path / "a.h5", {**columns_of(), "x": values})
    window = TrajectoryDataset(path, FRAMES, SKIP, columns=["x"])[1]["x"]
    assert window.dtype == read
    np.testing.assert_array_equal(
        window.numpy(), values[1 : 1 + FRAMES * SKIP : SKIP].astype(window.numpy().dtype)
    )


@pytest.mark.parametrize("stored", ["<f2", ">f4", "<f8", np.longdouble])
def test_actions_of_any_floats_are_read(tmp_path: Path, stored: str) -> None:
    columns = columns_of()
    columns["action"] = columns["action"].astype(np.float16).astype(np.float32)
    expected = TrajectoryDataset(write(tmp_path / "a.h5", columns), FRAMES, SKIP)
    columns["action"] = columns["action"].astype(stored)
    data = TrajectoryDataset(write(tmp_path / "b.h5", columns), FRAMES, SKIP)
    assert torch.equal(data[3]["action"], expected[3]["action"])


def test_a_file_left_open_by_an_swmr_writer_is_read(tmp_path: Path) -> None:
    """stable-worldmodel reads with SWMR; a file whose SWMR writer was killed opens in no other way."""
    path = tmp_path / "a.h5"
    child = os.fork()
    if child == 0:
        file = h5py.File(path, "w", libver="latest")
        for name, values in columns_of().items():
            file.create_dataset(name, data=values)
        file.swmr_mode = True
        file.flush()
        os._exit(0)
    os.waitpid(child, 0)
    with pytest.raises(OSError):
        h5py.File(path, "r")
    assert len(TrajectoryDataset(path, FRAMES, SKIP)) == 14


def test_the_file_says_what_is_in_it(tmp_path: Path) -> None:
    file = EpisodeFile(write(tmp_path / "a.h5", columns_of()))
    assert file.columns == ["action", "pixels", "state"] and file.episodes == 4
    np.testing.assert_array_equal(file.read("state", 2, 8, 3), columns_of()["state"][2:8:3])
    file.close()
    assert file.columns == ["action", "pixels", "state"]


@pytest.mark.parametrize(("workers", "reuse"), [(0, False), (2, False), (2, True)])
def test_batches_are_what_the_dataset_holds(tmp_path: Path, workers: int, reuse: bool) -> None:
    path = write(tmp_path / "a.h5", columns_of())
    data = TrajectoryDataset(path, FRAMES, SKIP, columns=["state"], in_memory=False)
    order = np.random.default_rng(0).integers(0, len(data), 45).tolist()
    batches = [order[first : first + 4] for first in range(0, len(order), 4)]  # the last has one window
    batches.append(order[:7])  # larger than the first
    seen = 0
    for windows, batch in zip(
        batches, read_batches(data, batches, workers=workers, reuse=reuse), strict=True
    ):
        for name, values in data[windows].items():
            assert torch.equal(batch[name], values), name
        seen += len(windows)
    assert seen == len(order) + 7


def test_batches_are_asked_for_as_they_are_read(tmp_path: Path) -> None:
    data = TrajectoryDataset(write(tmp_path / "a.h5", columns_of()), FRAMES, SKIP)
    for workers, reuse in ((0, False), (1, False), (1, True)):
        endless = ([index % len(data)] for index in itertools.count())
        read = read_batches(data, endless, workers=workers, reuse=reuse)
        assert torch.equal(next(read)["pixels"], data[[0]]["pixels"])
        assert torch.equal(next(read)["pixels"], data[[1]]["pixels"])
        assert next(endless)[0] < 20
        del read
    assert not list(read_batches(data, [], workers=1, reuse=True))


def test_a_batch_stays_while_the_next_is_asked_for(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5", columns_of())
    data = TrajectoryDataset(path, FRAMES, SKIP, in_memory=False)
    batches = [[index % len(data)] for index in range(40)]
    before, addresses = None, set()
    for windows, batch in zip(batches, read_batches(data, batches, workers=1, reuse=True), strict=True):
        if before is not None:
            assert torch.equal(before[1]["pixels"], data[before[0]]["pixels"])
        before = windows, batch
        addresses.add(batch["pixels"].data_ptr())
    assert len(addresses) < 10  # the same memory again


def test_a_signal_to_all_processes_of_a_job_leaves_its_readers_alone(tmp_path: Path) -> None:
    data = TrajectoryDataset(write(tmp_path / "a.h5", columns_of()), FRAMES, SKIP, in_memory=False)
    batches = [[index % len(data)] for index in range(40)]
    read = 0
    for windows, batch in zip(batches, read_batches(data, batches, workers=2), strict=True):
        if read == 5:
            workers = multiprocessing.active_children()
            assert len(workers) >= 2
            for worker in workers:
                os.kill(worker.pid, signal.SIGTERM)
        assert torch.equal(batch["pixels"], data[windows]["pixels"])
        read += 1
    assert read == len(batches)


@pytest.mark.parametrize("in_memory", [False, True])
def test_frames_behind_an_external_link_are_those_of_the_other_file(tmp_path: Path, in_memory: bool) -> None:
    whole = write(tmp_path / "whole.h5", columns_of())
    path = write(tmp_path / "a.h5", {name: rows for name, rows in columns_of().items() if name != "pixels"})
    with h5py.File(path, "r+") as file:
        file["pixels"] = h5py.ExternalLink("whole.h5", "/pixels")
    linked, own = (
        TrajectoryDataset(each, FRAMES, SKIP, in_memory=in_memory or each == whole) for each in (path, whole)
    )
    for index in range(len(own)):
        assert torch.equal(linked[index]["pixels"], own[index]["pixels"])


def test_frames_go_only_where_they_fit(tmp_path: Path) -> None:
    data = TrajectoryDataset(write(tmp_path / "a.h5", columns_of()), FRAMES, SKIP)
    with pytest.raises(ValueError, match=r"pixels: expected contiguous \(2, 3, 8, 8, 3\) uint8, got \(1, 3,"):
        data.batch([0, 1], torch.empty(1, FRAMES, SIZE, SIZE, 3, dtype=torch.uint8))
    with pytest.raises(ValueError, match="workers: expected an int of at least 0, got -1"):
        read_batches(data, [[0]], workers=-1)


@pytest.mark.parametrize("storage", ["contiguous", "gzip"])
@pytest.mark.parametrize(
    "out",
    [
        np.zeros((2, 2, *FRAME), np.uint8),
        np.zeros((1, FRAMES, *FRAME), np.uint8),
        np.zeros((2, FRAMES, SIZE, SIZE, 1), np.uint8),
        np.zeros((2, FRAMES, *FRAME), np.uint16),
        np.zeros((2, FRAMES, *FRAME), np.uint8, order="F"),
    ],
    ids=lambda out: f"{out.shape} {out.dtype}",
)
def test_frames_are_read_only_into_what_holds_them(tmp_path: Path, storage: str, out: np.ndarray) -> None:
    file = EpisodeFile(write(tmp_path / "a.h5", columns_of(), **storage_options(storage)))
    with pytest.raises(ValueError, match=r"out: expected C-contiguous \(2, 3, 8, 8, 3\) uint8, got"):
        file.read_frames("pixels", np.array([0, 14]), FRAMES, SKIP, out)
    assert not out.any()
