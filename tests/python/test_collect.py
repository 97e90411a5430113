"""Collecting: the same content however it comes about, and after being killed."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import h5py
import numpy as np
import pytest

pytest.importorskip("gymnasium")

from lewm.cli import main
from lewm.data import EpisodeFile
from lewm.data.collection import collect
from lewm.envs import base, two_room
from processes import environment

ENV = "lewm/TwoRoom-v0"


def content(path: Path) -> dict[str, np.ndarray]:
    with h5py.File(path, "r") as file:
        return {name: item[:] for name, item in file.items()}


def assert_same_content(one: Path, other: Path) -> None:
    first, second = content(one), content(other)
    assert first.keys() == second.keys()
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])


def test_a_collection_says_how_it_was_made(tmp_path: Path) -> None:
    calls = []
    new = collect(
        ENV, tmp_path / "sub" / "a.h5", episodes=5, image_size=16, seed=3, progress=lambda *x: calls.append(x)
    )
    file = EpisodeFile(tmp_path / "sub" / "a.h5")
    assert new == file.episodes == 5 and calls == [(k, 5) for k in range(1, 6)]
    assert file.attributes == {"env": ENV, "image_size": 16, "policy": "noisy-expert", "seed": 3}
    assert file.columns == ["action", "pixels", "state"]


def test_growing_a_collection_gives_what_collecting_at_once_gives(tmp_path: Path) -> None:
    collect(ENV, tmp_path / "whole.h5", episodes=9, image_size=16, seed=1)
    for episodes in (2, 3, 9):
        collect("two_room", tmp_path / "grown.h5", episodes=episodes, image_size=16, seed=1)
    assert_same_content(tmp_path / "whole.h5", tmp_path / "grown.h5")
    assert collect(ENV, tmp_path / "grown.h5", episodes=9, image_size=16, seed=1) == 0


def test_several_processes_give_what_one_gives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"episodes": 5, "image_size": 16, "policy": "random"}
    collect(ENV, tmp_path / "one.h5", workers=1, **options)
    monkeypatch.setattr(two_room.TwoRoomEnv, "records_in_batches", False)
    monkeypatch.setattr("lewm.data.collection._episodes_per_task", lambda size, steps: 2)
    collect(ENV, tmp_path / "two.h5", workers=2, **options)
    assert_same_content(tmp_path / "one.h5", tmp_path / "two.h5")


def test_seeds_differ(tmp_path: Path) -> None:
    for seed in (0, 1):
        collect(ENV, tmp_path / f"{seed}.h5", episodes=2, image_size=16, seed=seed)
    assert not np.array_equal(content(tmp_path / "0.h5")["state"][0], content(tmp_path / "1.h5")["state"][0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_size": 32}, "image_size: .* was written with 16, got 32"),
        ({"seed": 7}, "seed: .* was written with 0, got 7"),
        ({"policy": "random"}, "policy: .* was written with 'noisy-expert', got 'random'"),
        ({"compression": "gzip"}, r"compression: .*a\.h5 was written with none, got gzip"),
    ],
)
def test_a_file_made_otherwise_is_not_continued(tmp_path: Path, change: dict, message: str) -> None:
    options = {"episodes": 2, "image_size": 16, "seed": 0}
    collect(ENV, tmp_path / "a.h5", **options)
    before = content(tmp_path / "a.h5")
    with pytest.raises(ValueError, match=message):
        collect(ENV, tmp_path / "a.h5", **{**options, **change, "episodes": 3})
    np.testing.assert_array_equal(content(tmp_path / "a.h5")["action"], before["action"])
    collect(ENV, tmp_path / "a.h5", **{**options, **change}, overwrite=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"episodes": 0}, "episodes: expected an int of at least 1"),
        ({"workers": 0}, "workers"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**64}, "seed: expected an int below 2\\^64, got 18446744073709551616"),
        ({"policy": "clever"}, "policy: expected one of .* got 'clever'"),
        ({"env": "maze"}, "env: expected one of"),
        ({"image_size": 4}, "image_size"),
        ({"image_size": 10**8}, "image_size: an episode of 101 frames with 100000000 pixels a side takes"),
        ({"image_size": 10**400}, "image_size: an episode of 101 frames"),
        ({"compression": "zip"}, "compression"),
    ],
)
def test_bad_arguments_leave_nothing_behind(tmp_path: Path, options: dict, message: str) -> None:
    arguments = {"env": ENV, "episodes": 2, "image_size": 16, **options}
    with pytest.raises(ValueError, match=message):
        collect(out=tmp_path / "a.h5", **arguments)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("options", [["--seed", str(10**26)], ["--seed", "-1"], ["--size", "99999999"]])
def test_a_refused_command_leaves_the_file_it_was_to_overwrite(
    tmp_path: Path, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.h5").write_text("an older recording")
    words = ["collect", "two_room", str(tmp_path / "a.h5"), "--episodes", "2", "--overwrite", "--quiet"]
    assert main([*words, *options]) == 1
    assert f"lewm collect: {options[0][2:]}" in capsys.readouterr().err.replace("image_size", "size")
    assert (tmp_path / "a.h5").read_text() == "an older recording"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.h5"]


def test_the_largest_seed_is_kept(tmp_path: Path) -> None:
    collect(ENV, tmp_path / "a.h5", episodes=1, image_size=16, seed=2**64 - 1)
    assert collect(ENV, tmp_path / "a.h5", episodes=2, image_size=16, seed=2**64 - 1) == 1


def test_the_default_recording_of_an_environment(tmp_path: Path) -> None:
    """What environments without a batch of their own inherit: the same columns, ended by success."""
    recorded = base.GoalEnv.record_episodes.__func__(
        two_room.TwoRoomEnv, "expert", [np.random.default_rng(0)], 16
    )
    episode = next(iter(recorded))
    assert set(episode) == {"pixels", "action", "state"}
    assert np.isnan(episode["action"][-1]).all()


def run_collect(path: Path, episodes: int) -> subprocess.Popen[bytes]:
    words = ["collect", ENV, str(path), "--episodes", str(episodes), "--size", "64", "--quiet"]
    return subprocess.Popen([sys.executable, "-m", "lewm", *words], env=environment())


def test_a_killed_collection_is_readable_and_is_completed(tmp_path: Path) -> None:
    path, episodes = tmp_path / "a.h5", 120
    process = run_collect(path, episodes)
    while not path.exists() and process.poll() is None:
        time.sleep(0.01)
    time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    held = EpisodeFile(path).episodes
    assert held >= 1
    assert run_collect(path, episodes).wait() == 0
    collect(ENV, tmp_path / "whole.h5", episodes=episodes, image_size=64)
    assert_same_content(path, tmp_path / "whole.h5")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a.h5", "whole.h5"]


@pytest.fixture
def recording(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A collection by two processes, in a session of its own, that began a while ago and has long to go."""
    pytest.importorskip("pymunk")
    words = [
        "collect",
        "push_t",
        str(tmp_path / "a.h5"),
        "--episodes",
        "100000",
        "--size",
        "64",
        "--quiet",
    ]
    process = subprocess.Popen(
        [sys.executable, "-c", CALLED, *words],
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while (
        len(children(process.pid)) < 3 and process.poll() is None
    ):  # multiprocessing has one of its own, too
        time.sleep(0.01)
    yield process
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


CALLED = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's job in the background does not have
from lewm.cli import main
sys.exit(main(sys.argv[1:]))
"""


def children(process: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


@pytest.mark.parametrize("seconds", [0.1, 0.5, 2.0])
def test_ctrl_c_ends_all_processes_at_once(recording: subprocess.Popen[str], seconds: float) -> None:
    """While they start, and while they record; also when it comes twice. Workers say nothing."""
    time.sleep(seconds)
    os.killpg(recording.pid, signal.SIGINT)
    time.sleep(0.2)
    if recording.poll() is None:
        os.killpg(recording.pid, signal.SIGINT)
    message = recording.communicate(timeout=60)[1]
    assert "interrupted\n" in message and "SpawnProcess" not in message
    assert recording.returncode == 130


def test_the_end_of_a_process_that_records_is_an_error(recording: subprocess.Popen[str]) -> None:
    os.kill(children(recording.pid)[-1], signal.SIGKILL)
    message = recording.communicate(timeout=60)[1]
    assert message == "lewm collect: a process that records ended by itself; was there too little memory?\n"
    assert recording.returncode == 1


def test_a_collection_without_end_takes_no_memory_for_what_is_to_come(tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    tracemalloc.start()
    with pytest.raises(KeyboardInterrupt):
        collect(ENV, tmp_path / "a.h5", episodes=10_000_000, image_size=8, progress=stop)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 16 << 20


def test_a_collection_needs_no_standard_streams(tmp_path: Path) -> None:
    words = [
        sys.executable,
        "-m",
        "lewm",
        "collect",
        ENV,
        str(tmp_path / "a.h5"),
        "--episodes",
        "2",
        "--size",
        "16",
    ]
    line = shlex.join(words) + " <&- >&- 2>&-"
    assert subprocess.run(["sh", "-c", line], env=environment()).returncode == 0
    assert EpisodeFile(tmp_path / "a.h5").episodes == 2


def test_the_command_reports_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(["collect", "two_room", str(tmp_path / "a.h5"), "--episodes", "2", "--size", "16", "--quiet"])
        == 0
    )
    assert "2 new episodes" in capsys.readouterr().out
    assert (
        main(["collect", "two_room", str(tmp_path / "a.h5"), "--episodes", "2", "--size", "32", "--quiet"])
        == 1
    )
    assert "image_size" in capsys.readouterr().err
    (tmp_path / "text.h5").write_text("text")
    assert main(["collect", "two_room", str(tmp_path / "text.h5"), "--episodes", "2", "--quiet"]) == 1
    assert "not an HDF5 file" in capsys.readouterr().err
