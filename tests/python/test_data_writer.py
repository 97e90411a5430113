"""EpisodeWriter: what it writes, who may, and that a killed writer costs at most the episode in progress."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest

import lewm
from lewm.data import EpisodeFile, EpisodeWriter
from lewm.data.journal import JournaledFile, journal_path, recover
from lewm.data.writer import COMPRESSIONS
from processes import environment
from test_atomic import largest_file
from test_data_journal import interrupted_commit
from writer_helpers import assert_holds, episode


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_rows_come_back_whatever_the_compression(tmp_path: Path, compression: str) -> None:
    episodes = [episode(length, seed) for seed, length in enumerate((7, 1, 12))]
    with EpisodeWriter(
        tmp_path / "a.h5", compression=compression, attributes={"env": "x", "seed": 3}
    ) as writer:
        writer.write_episodes(episodes)
        assert (writer.episodes, writer.rows) == (3, 20)
    if compression == "blosc":
        import hdf5plugin  # noqa: F401
    assert_holds(tmp_path / "a.h5", episodes)
    assert EpisodeFile(tmp_path / "a.h5").attributes == {"env": "x", "seed": 3}


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_a_file_keeps_its_compression(tmp_path: Path, compression: str) -> None:
    path = tmp_path / "a.h5"
    for seed, given in enumerate((compression, None, compression)):
        with EpisodeWriter(path, compression=given) as writer:
            writer.write_episode(episode(3, seed))
    for other in set(COMPRESSIONS) - {compression}:
        with pytest.raises(ValueError, match=f"compression: .* was written with {compression}, got {other}"):
            EpisodeWriter(path, compression=other)
    assert EpisodeFile(path).episodes == 3


def test_another_process_continues_whatever_the_compression(tmp_path: Path) -> None:
    code = """
        import sys
        from lewm.data import EpisodeWriter
        from writer_helpers import episode
        for path in sys.argv[1:]:
            with EpisodeWriter(path) as writer:
                writer.write_episode(episode(5, 1))
    """
    paths = [tmp_path / f"{compression}.h5" for compression in COMPRESSIONS]
    for path in paths:
        with EpisodeWriter(path, compression=path.stem) as writer:
            writer.write_episode(episode(3))
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, paths)]
    subprocess.run(command, env=environment(), check=True)
    for path in paths:
        assert_holds(path, [episode(3), episode(5, 1)])


def test_a_foreign_files_compression_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with EpisodeWriter(path) as writer:
        writer.write_episode(episode(3))
    with h5py.File(path, "r+") as file:
        pixels = file["pixels"][:]
        del file["pixels"]
        file.create_dataset(
            "pixels", data=pixels, maxshape=(None, *pixels.shape[1:]), shuffle=True, scaleoffset=0
        )
    with pytest.raises(ValueError, match="was written with HDF5 filter 6, got gzip"):
        EpisodeWriter(path, compression="gzip")
    EpisodeWriter(path).close()


def test_columns_have_the_documented_types(tmp_path: Path) -> None:
    with EpisodeWriter(tmp_path / "a.h5") as writer:
        writer.write_episode(episode(4))
    with h5py.File(tmp_path / "a.h5") as file:
        assert file["pixels"].dtype == np.uint8 and file["pixels"].shape == (4, 16, 16, 3)
        assert file["action"].dtype == np.float32


def test_a_missing_last_action_is_written_as_nan(tmp_path: Path) -> None:
    columns = episode(5)
    with EpisodeWriter(tmp_path / "a.h5") as writer:
        writer.write_episode({**columns, "action": columns["action"][:-1].astype(np.float64)})
    assert_holds(tmp_path / "a.h5", [columns])


def test_a_second_writer_continues_the_file(tmp_path: Path) -> None:
    episodes = [episode(5, seed) for seed in range(4)]
    for part in (episodes[:2], episodes[2:]):
        with EpisodeWriter(tmp_path / "a.h5", attributes={"seed": 1}) as writer:
            writer.write_episodes(part)
    assert_holds(tmp_path / "a.h5", episodes)


def test_a_continued_file_equals_one_written_in_one_go(tmp_path: Path) -> None:
    episodes = [episode(5 + seed, seed) for seed in range(6)]
    with EpisodeWriter(tmp_path / "whole.h5") as writer:
        writer.write_episodes(episodes)
    for columns in episodes:
        with EpisodeWriter(tmp_path / "parts.h5") as writer:
            writer.write_episode(columns)
    with h5py.File(tmp_path / "whole.h5") as whole, h5py.File(tmp_path / "parts.h5") as parts:
        assert set(whole) == set(parts)
        for name in whole:
            np.testing.assert_array_equal(whole[name][:], parts[name][:])


def test_overwrite_starts_anew(tmp_path: Path) -> None:
    with EpisodeWriter(tmp_path / "a.h5") as writer:
        writer.write_episode(episode(5, 0))
    with EpisodeWriter(tmp_path / "a.h5", overwrite=True) as writer:
        assert writer.episodes == 0
        writer.write_episode(episode(5, 1))
    assert_holds(tmp_path / "a.h5", [episode(5, 1)])


@pytest.mark.parametrize("folder", [".", "elsewhere"])
def test_a_file_stays_until_an_episode_replaces_it(tmp_path: Path, folder: str) -> None:
    """Overwriting, whatever is refused, fails or never comes; links lead to the file itself."""
    path = tmp_path / folder / "a.h5"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"something else")
    (tmp_path / "link.h5").symlink_to(path)
    (path.parent / "a.h5.new").write_bytes(b"mine")
    before = sorted(tmp_path.rglob("*"))
    EpisodeWriter(tmp_path / "link.h5", overwrite=True).close()
    for columns, attributes in (
        ({**episode(5), "state": np.zeros(3)}, {}),
        ({**episode(5), "state/more": np.zeros(5)}, {}),
        (episode(5), {"seed": 10**30}),
    ):
        with (
            pytest.raises((ValueError, TypeError)),
            EpisodeWriter(tmp_path / "link.h5", overwrite=True, attributes=attributes) as writer,
        ):
            writer.write_episode(columns)
        assert path.read_bytes() == b"something else"
    with EpisodeWriter(tmp_path / "link.h5", overwrite=True) as writer:
        writer.write_episode(episode(5))
    assert_holds(path, [episode(5)])
    assert sorted(tmp_path.rglob("*")) == before and (path.parent / "a.h5.new").read_bytes() == b"mine"


def test_an_interrupted_first_episode_leaves_the_old_file(tmp_path: Path, monkeypatch) -> None:
    path, append = tmp_path / "a.h5", EpisodeWriter._append
    with EpisodeWriter(path) as writer:
        writer.write_episode(episode(5, 0))

    def interrupted(self, name: str, rows: np.ndarray, end: int) -> None:
        append(self, name, rows, end)
        if name == "ep_len":
            raise KeyboardInterrupt

    monkeypatch.setattr(EpisodeWriter, "_append", interrupted)
    with pytest.raises(KeyboardInterrupt), EpisodeWriter(path, overwrite=True) as writer:
        writer.write_episode(episode(5, 1))
    assert_holds(path, [episode(5, 0)])
    assert list(tmp_path.iterdir()) == [path]


def test_a_second_writer_at_the_same_time_is_refused(tmp_path: Path) -> None:
    with EpisodeWriter(tmp_path / "a.h5") as writer:
        writer.write_episode(episode(5))
        with pytest.raises(lewm.Error, match="another process is writing"):
            EpisodeWriter(tmp_path / "a.h5")
    EpisodeWriter(tmp_path / "a.h5").close()
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.h5"]


@pytest.mark.parametrize("episodes", [0, 1, 3])
def test_a_writer_that_is_dropped_leaves_the_file_to_others_and_warns(tmp_path: Path, episodes: int) -> None:
    path = tmp_path / "a.h5"
    writer = EpisodeWriter(path)
    for seed in range(episodes):
        writer.write_episode(episode(5, seed))
    with pytest.warns(ResourceWarning, match=r"a\.h5: the EpisodeWriter was not closed"):
        del writer
    assert not list(tmp_path.glob("*.lock"))
    with EpisodeWriter(path) as writer:
        assert writer.episodes == episodes
        writer.write_episode(episode(6, 9))
    assert_holds(path, [*(episode(5, seed) for seed in range(episodes)), episode(6, 9)])


def test_a_closed_or_refused_writer_is_dropped_in_silence(tmp_path: Path) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        EpisodeWriter(tmp_path / "a.h5").close()
        for place, options in ((tmp_path / "no" / "a.h5", {}), (tmp_path / "a.h5", {"compression": "zip"})):
            with pytest.raises((FileNotFoundError, ValueError)):
                EpisodeWriter(place, **options)
        gc.collect()
    assert not caught


def test_a_forked_child_neither_ends_nor_keeps_the_right_to_write(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    writer = EpisodeWriter(path)
    writer.write_episodes([episode(5), episode(5, 3)])
    done, go_on = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(go_on)
            del writer
            os.read(done, 1)  # outlives the parent's writer
            status = 0
        finally:
            os._exit(status)
    os.close(done)
    try:
        with pytest.raises(lewm.Error, match="another process is writing"):
            EpisodeWriter(path)
        writer.write_episode(episode(6, 1))
        writer.close()
        EpisodeWriter(path).close()
    finally:
        os.close(go_on)
        assert os.waitpid(child, 0)[1] == 0
    assert_holds(path, [episode(5), episode(5, 3), episode(6, 1)])


def test_a_link_is_the_file_it_leads_to(tmp_path: Path) -> None:
    path, link = tmp_path / "a.h5", tmp_path / "link.h5"
    link.symlink_to("a.h5")
    with EpisodeWriter(link) as writer:
        writer.write_episode(episode(5))
        with pytest.raises(lewm.Error, match="another process is writing"):
            EpisodeWriter(path)
    assert_holds(path, [episode(5)])
    intended = interrupted_commit(path)
    assert recover(link) and path.read_bytes() == intended
    assert sorted(tmp_path.iterdir()) == [path, link] and link.is_symlink()


def test_threads_may_share_a_writer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, append = tmp_path / "a.h5", EpisodeWriter._append

    def slow(self, name: str, rows: np.ndarray, end: int) -> None:
        time.sleep(0.001)  # lets another thread in
        append(self, name, rows, end)

    monkeypatch.setattr(EpisodeWriter, "_append", slow)
    with EpisodeWriter(path) as writer:
        parts = [[episode(length, length) for length in range(first, 27, 4)] for first in range(3, 7)]
        threads = [threading.Thread(target=writer.write_episodes, args=(part,)) for part in parts]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    lengths = EpisodeFile(path).lengths.tolist()
    assert sorted(lengths) == list(range(3, 27))
    assert_holds(path, [episode(length, length) for length in lengths])


def test_writing_after_close_is_refused(tmp_path: Path) -> None:
    writer = EpisodeWriter(tmp_path / "a.h5")
    writer.close()
    writer.close()
    with pytest.raises(ValueError, match="closed"):
        writer.write_episode(episode(5))


def test_every_episode_is_readable_by_plain_hdf5_before_close(tmp_path: Path) -> None:
    """What write_episode returned from is on disk, complete: a copy made at that moment opens and holds it."""
    episodes = [episode(3 + seed, seed) for seed in range(5)]
    with EpisodeWriter(tmp_path / "a.h5", compression="gzip") as writer:
        for count, columns in enumerate(episodes, 1):
            writer.write_episode(columns)
            (tmp_path / "copy.h5").write_bytes((tmp_path / "a.h5").read_bytes())
            assert_holds(tmp_path / "copy.h5", episodes[:count])


def test_what_is_not_a_journal_stays(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with EpisodeWriter(path) as writer:
        writer.write_episode(episode(5))
    journal_path(path).write_text("a diary")
    assert EpisodeFile(path).episodes == 1
    with pytest.raises(lewm.Error, match=r"a\.h5\.journal: not the journal of "):
        EpisodeWriter(path, overwrite=True)
    assert journal_path(path).read_text() == "a diary"
    assert sorted(tmp_path.iterdir()) == [path, journal_path(path)]


@pytest.mark.parametrize("column", ["action", "ep_len", "ep_offset"])
def test_an_interrupted_episode_is_left_out(tmp_path: Path, column: str, monkeypatch) -> None:
    """Ctrl-C while an episode is being written, wherever it comes: the file has those before it, and goes on."""
    path, append = tmp_path / "a.h5", EpisodeWriter._append
    episodes = [episode(7, seed) for seed in range(3)]

    def interrupted(self, name: str, rows: np.ndarray, end: int) -> None:
        if name == column:
            raise KeyboardInterrupt
        append(self, name, rows, end)

    with pytest.raises(KeyboardInterrupt), EpisodeWriter(path) as writer:
        writer.write_episodes(episodes[:2])
        monkeypatch.setattr(EpisodeWriter, "_append", interrupted)
        writer.write_episode(episodes[2])
    monkeypatch.undo()
    assert_holds(path, episodes[:2])
    with EpisodeWriter(path) as writer:
        assert writer.episodes == 2
        writer.write_episode(episodes[2])
    assert_holds(path, episodes)


def test_other_data_sets_are_left_alone(tmp_path: Path) -> None:
    """A value per episode, or one of the file, is no column."""
    path = tmp_path / "a.h5"
    with EpisodeWriter(path) as writer:
        writer.write_episode(episode(7))
    with h5py.File(path, "r+") as file:
        file["ep_seed"], file["version"] = np.arange(1), 3
        file.create_group("more")
    with EpisodeWriter(path) as writer:
        writer.write_episode(episode(5, 1))
    assert EpisodeFile(path).columns == ["action", "pixels", "state"]


def test_a_file_that_cannot_grow_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        for name, values in episode(7).items():
            file[name] = values
        file["ep_len"], file["ep_offset"] = np.array([7]), np.array([0])
    with pytest.raises(lewm.Error, match=r"ep_len: expected \(E,\) integers made to grow, got \(1,\) int64"):
        EpisodeWriter(path)
    with h5py.File(path, "r+") as file:
        del file["ep_len"], file["ep_offset"]
        for name, value in (("ep_len", 7), ("ep_offset", 0)):
            file.create_dataset(name, data=np.array([value], np.uint8), maxshape=(None,))
    with pytest.raises(lewm.Error, match="was not made to grow, the file cannot be continued"):
        EpisodeWriter(path)


@pytest.mark.parametrize("values", [np.array([b"ab"] * 7), np.array(["ab"] * 7, object), np.zeros(7, "c8")])
def test_a_file_with_a_column_that_cannot_be_written_is_refused(tmp_path: Path, values: np.ndarray) -> None:
    path = tmp_path / "a.h5"
    with EpisodeWriter(path) as writer:
        writer.write_episode(episode(7))
    with h5py.File(path, "r+") as file:
        file.create_dataset("note", data=values, maxshape=(None,))
    with pytest.raises(
        lewm.Error, match=r"a\.h5: note: expected numbers, got .*; the file cannot be continued"
    ):
        EpisodeWriter(path)


def test_numbers_beyond_the_types_of_lengths_and_offsets_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        for name, values in episode(7).items():
            file.create_dataset(name, data=values, maxshape=(None, *values.shape[1:]))
        for name, value in (("ep_len", 7), ("ep_offset", 0)):
            file.create_dataset(name, data=np.array([value], np.uint8), maxshape=(None,))
    with EpisodeWriter(path) as writer:
        with pytest.raises(ValueError, match=r"ep_len: .* holds numbers up to 255, got 300"):
            writer.write_episode(episode(300, 1))
        writer.write_episode(episode(250, 2))
        with pytest.raises(ValueError, match=r"ep_offset: .* holds numbers up to 255, got 257"):
            writer.write_episode(episode(5, 3))
    assert_holds(path, [episode(7), episode(250, 2)])


@pytest.mark.parametrize("size", [40_000, 200_000])
def test_a_full_disk_is_an_error_and_costs_no_finished_episode(tmp_path: Path, size: int) -> None:
    path, written = tmp_path / "a.h5", []
    with pytest.raises(OSError, match="too large"), EpisodeWriter(path) as writer, largest_file(size):
        for seed in range(20):
            columns = episode(40, seed)
            writer.write_episode(columns)
            written.append(columns)
    assert path.exists() == bool(written) and (size < 100_000) == (not written)
    if written:
        assert_holds(path, written)
    with EpisodeWriter(path) as writer:
        writer.write_episode(episode(5, 99))
    assert_holds(path, [*written, episode(5, 99)])


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Ctrl-C raises KeyboardInterrupt, also in a process that a shell started in the background, without it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_waits_for_the_end_of_an_episode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.h5"
    with EpisodeWriter(path) as writer:
        writer.write_episode(episode(5))
        write = JournaledFile.write

        def interrupted(file: JournaledFile, data: object) -> int:
            signal.raise_signal(signal.SIGINT)
            return write(file, data)

        monkeypatch.setattr(JournaledFile, "write", interrupted)
        with pytest.raises(KeyboardInterrupt):
            writer.write_episode(episode(7, 1))
        monkeypatch.undo()
    assert_holds(path, [episode(5), episode(7, 1)])


_ENDLESS_WRITER = textwrap.dedent(
    """
    import sys
    from lewm.data import EpisodeWriter
    from writer_helpers import episode
    with EpisodeWriter(sys.argv[1], compression="lzf") as writer:
        for seed in range(writer.episodes, 100000):
            writer.write_episode(episode(20, seed))
            print(seed, flush=True)
    """
)


def test_a_killed_writer_loses_at_most_the_episode_in_progress(tmp_path: Path) -> None:
    """SIGKILL at random moments, each time continuing: all episodes reported as written are there, intact."""
    path = tmp_path / "a.h5"
    rng = np.random.default_rng(0)
    for _ in range(4):
        process = subprocess.Popen(
            [sys.executable, "-c", _ENDLESS_WRITER, str(path)],
            stdout=subprocess.PIPE,
            text=True,
            env=environment(),
        )
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(rng.uniform(0.0, 0.3))
        process.send_signal(signal.SIGKILL)
        reported = [int(line) for line in process.stdout.read().split()]
        process.wait()
        with h5py.File(path, "r") as file:  # without any help of ours
            plainly_readable = len(file["ep_len"])
        held = EpisodeFile(path).episodes
        assert held >= plainly_readable
        assert held >= max(reported, default=0) + 1
    assert_holds(path, [episode(20, seed) for seed in range(held)])
