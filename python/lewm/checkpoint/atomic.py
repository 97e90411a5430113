"""Files that appear whole or not at all: written beside their target, synced, then renamed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

__all__ = ["replace_file", "write_file"]


@contextmanager
def replace_file(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Yields a binary file that becomes ``path`` when the block ends without an exception.

    Until then ``path`` keeps its former contents, also when the process is killed. The folder must exist.

    Raises:
        OSError: the folder is missing or not writable, or the disk is full.
    """
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{os.urandom(4).hex()}.tmp")
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(target.parent)


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
