"""Files appear whole or not at all: a write that fails leaves what was there, and nothing beside it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

import lewm
import synthetic
from lewm.checkpoint.atomic import replace_file, replace_files

CONFIG = synthetic.TINY


def contents(folder: Path) -> dict[str, bytes]:
    """Relative path -> bytes of every file below."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Within it this process cannot write a file beyond so many bytes."""
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_file_is_replaced_when_the_block_ends(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"old")
    with replace_file(tmp_path / "file") as file:
        file.write(b"new")
        file.flush()
        assert (tmp_path / "file").read_bytes() == b"old"
    assert contents(tmp_path) == {"file": b"new"}


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_exception_in_the_block_leaves_the_old_file(tmp_path: Path, error: type[BaseException]) -> None:
    (tmp_path / "file").write_bytes(b"old")
    with pytest.raises(error), replace_file(tmp_path / "file") as file:
        file.write(b"half of the n")
        raise error
    assert contents(tmp_path) == {"file": b"old"}


@pytest.mark.parametrize("target", ["model.safetensors", "folder"])
def test_a_model_that_cannot_be_written_leaves_the_old_one(tmp_path: Path, target: str) -> None:
    lewm.save(synthetic.state(CONFIG), tmp_path / target, config=CONFIG)
    other = replace(CONFIG, encoder_heads=4, frame_skip=2, action_dim=5)
    before = contents(tmp_path)
    # The weights are larger, the folder's other files smaller.
    with largest_file(16384), pytest.raises(OSError):
        lewm.save(synthetic.state(other, seed=1), tmp_path / target, config=other)
    assert contents(tmp_path) == before
    lewm.save(synthetic.state(other, seed=1), tmp_path / target, config=other)
    assert not contents(tmp_path).items() & before.items()  # every file is another


def test_files_are_replaced_together(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in "ab"]
    for path in paths:
        path.write_bytes(b"old")
    before = contents(tmp_path)
    with pytest.raises(OSError), replace_files(*paths) as files, largest_file(16384):
        files[0].write(b"new")
        files[1].write(bytes(16385))
        files[1].flush()
    assert contents(tmp_path) == before
    with pytest.raises(IsADirectoryError, match="folder"), replace_files(*paths, tmp_path):
        pass
    nowhere = tmp_path / "missing" / "c"
    with pytest.raises(FileNotFoundError, match="c: there is no folder"), replace_files(*paths, nowhere):
        pass
    assert contents(tmp_path) == before
    with replace_files(*paths) as files:
        for file in files:
            file.write(b"new")
    assert contents(tmp_path) == {"a": b"new", "b": b"new"}
