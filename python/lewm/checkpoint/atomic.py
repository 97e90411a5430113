"""Files that appear whole or not at all: written beside their target, synced, then renamed."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

__all__ = ["replace_file", "replace_files", "write_file"]


@contextmanager
def replace_file(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Yields a binary file that becomes ``path`` when the block ends without an exception.

    Until then ``path`` keeps its former contents, also when the process is killed. The folder must exist.

    Raises:
        OSError: the folder is missing or not writable, or the disk is full.
    """
    with replace_files(path) as (file,):
        yield file


@contextmanager
def replace_files(*paths: str | os.PathLike[str]) -> Iterator[Sequence[BinaryIO]]:
    """`replace_file` of several files: none is replaced before all are written.

    Raises:
        OSError: a folder is missing or not writable, a path is a folder, or the disk is full.
    """
    targets = [Path(path) for path in paths]
    temporaries = [target.with_name(f".{target.name}.{os.urandom(4).hex()}.tmp") for target in targets]
    for target in targets:
        if target.is_dir():
            raise IsADirectoryError(f"{target}: expected a file, got a folder")
        if not target.parent.is_dir():
            raise FileNotFoundError(f"{target}: there is no folder {target.parent}")
    try:
        with ExitStack() as opened:
            files = [opened.enter_context(temporary.open("xb")) for temporary in temporaries]
            yield files
            for file in files:
                file.flush()
                os.fsync(file.fileno())
        for temporary, target in zip(temporaries, targets, strict=True):
            temporary.replace(target)
    except BaseException:
        for temporary in temporaries:
            temporary.unlink(missing_ok=True)
        raise
    for folder in {target.parent for target in targets}:
        _sync_folder(folder)


def write_file(path: str | os.PathLike[str], data: bytes) -> None:
    """Writes ``data`` as the whole of ``path``, by `replace_file`; the folder must exist.

    Raises:
        OSError: the folder is missing or not writable, or the disk is full.
    """
    with replace_file(path) as file:
        file.write(data)


def _sync_folder(folder: Path) -> None:
    """Makes a rename durable; file systems that cannot sync a folder are left alone."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError:
        pass
    finally:
        os.close(descriptor)
