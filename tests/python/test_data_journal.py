"""The journal of episode files: a commit stands as a whole or not at all, and is of the file that it was made for."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from lewm.data.journal import JournaledFile, journal_path, recover


def test_the_committed_state_stays_until_the_next_commit(tmp_path: Path) -> None:
    path = tmp_path / "file"
    before = bytes(range(256)) * 40
    path.write_bytes(before)
    file = JournaledFile(path)
    file.seek(4090)
    file.write(b"across two pages")
    file.seek(len(before) - 3)
    file.write(b"past the end")
    assert path.read_bytes()[: len(before)] == before
    file.seek(0)
    seen = file.read()
    assert seen[4090:4106] == b"across two pages" and seen.endswith(b"past the end")
    file.commit()
    assert path.read_bytes() == seen
    file.close()


def test_cutting_the_file_waits_for_the_commit(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    file = JournaledFile(path)
    file.truncate(4)
    assert path.read_bytes() == b"0123456789"
    file.commit()
    assert path.read_bytes() == b"0123"
    file.close()


def interrupted_commit(path: Path) -> bytes:
    """Leaves ``path`` as a process killed between journal and file does; returns what the commit meant to write."""
    path.write_bytes(b"old" * 5000)
    file = JournaledFile(path)
    file.seek(5)
    file.write(b"new state")
    file.seek(0)
    intended = file.read()
    file._write_journal(durable=False)
    file.close()
    return intended


def test_an_interrupted_commit_is_completed(tmp_path: Path) -> None:
    path = tmp_path / "file"
    intended = interrupted_commit(path)
    assert path.read_bytes() != intended
    assert recover(path)
    assert path.read_bytes() == intended and not journal_path(path).exists()
    assert not recover(path)


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-1], lambda data: data[:10], lambda data: data[:-1] + b"\0"]
)
def test_a_damaged_journal_changes_nothing(tmp_path: Path, damage) -> None:
    path = tmp_path / "file"
    interrupted_commit(path)
    before = path.read_bytes()
    journal = journal_path(path)
    journal.write_bytes(damage(journal.read_bytes()))
    assert recover(path)
    assert path.read_bytes() == before and not journal.exists()


@pytest.mark.parametrize("killed_at", ["first page", "second page", "cut", "removal"])
def test_a_commit_interrupted_anywhere_is_completed(
    tmp_path: Path, killed_at: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old" * 5000)
    file = JournaledFile(path)
    for place in (5, 9000):
        file.seek(place)
        file.write(b"new state")
    file.truncate(9004)
    file.seek(0)
    intended = file.read()
    steps = iter(["first page", "second page", "cut", "removal"])

    def until_killed(step: Callable[..., object]) -> Callable[..., object]:
        def run(*args: object) -> object:
            if next(steps) == killed_at:
                raise KeyboardInterrupt
            return step(*args)

        return run

    monkeypatch.setattr(os, "pwrite", until_killed(os.pwrite))
    monkeypatch.setattr(os, "ftruncate", until_killed(os.ftruncate))
    monkeypatch.setattr(Path, "unlink", until_killed(Path.unlink))
    with pytest.raises(KeyboardInterrupt):
        file.commit()
    monkeypatch.undo()
    file.close()
    assert recover(path)
    assert path.read_bytes() == intended and not journal_path(path).exists()


@pytest.mark.parametrize("other", [b"a diary", b"OLD" * 5000, b"old" * 5000 + b" and more", b"new" * 5000])
def test_a_journal_changes_no_other_file(tmp_path: Path, other: bytes) -> None:
    """As when the file was replaced after its writer had been killed."""
    path = tmp_path / "file"
    interrupted_commit(path)
    left = journal_path(path).read_bytes()
    path.write_bytes(other)
    assert not recover(path)
    assert path.read_bytes() == other and journal_path(path).read_bytes() == left
