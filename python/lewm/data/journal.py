"""A file that moves from one consistent state to the next: a write-ahead journal under an HDF5 file.

HDF5 overwrites its own metadata in place, so a process killed while writing can leave a file that no longer
opens. `JournaledFile` is handed to h5py as a file object and keeps the last committed state intact: space
beyond the committed end is written directly (nothing refers to it yet), changes before it are held back in
memory. `commit` writes them to ``<path>.journal``, applies them, and removes the journal. A process killed
before the journal stands loses what came after the last commit; one killed later leaves a journal that
`recover` applies. A journal says what it replaces, and is applied to no other file. A lock on ``<path>.lock``
keeps a second writer out and tells `recover` that a writer is alive; the kernel drops it with its process.
"""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from lewm.errors import Error
from lewm.lock import WriterLock

__all__ = ["JournaledFile", "apply_journal", "journal_path", "recover", "writer_lock"]

_MAGIC = b"lewmjrn2"
_HEADER = struct.Struct("<8sQQQI")  # magic, file size before and after, size and CRC-32 of the records
_RECORD = struct.Struct("<QQI")  # offset, length, CRC-32 of the bytes that are replaced; the new ones follow


def journal_path(path: Path) -> Path:
    """Where the journal of ``path`` stands while it is applied."""
    return path.with_name(path.name + ".journal")


def writer_lock(path: Path) -> WriterLock:
    """The right to write ``path``. Raises lewm.Error where another process has it."""
    return WriterLock(path.with_name(path.name + ".lock"), f"{path}: another process is writing this file")


def recover(path: Path) -> bool:
    """Completes an interrupted commit of ``path``; whether there was one. A file with a live writer is left alone.

    So is what stands in the journal's place and was not written for the file as it is.

    Raises:
        OSError: the file needs recovery and cannot be written.
    """
    path = path.resolve()
    if _interrupted_commit(path) is None:
        return False
    try:
        lock = writer_lock(path)
    except Error:
        return False
    try:
        return apply_journal(path)
    finally:
        lock.release()


def apply_journal(path: Path) -> bool:
    """`recover` for a caller that holds the lock."""
    commit = _interrupted_commit(path)
    if commit is None:
        return False
    if not commit.damaged:
        descriptor = os.open(path, os.O_WRONLY)
        try:
            _apply(descriptor, ((record.offset, record.content) for record in commit.records), commit.after)
        finally:
            os.close(descriptor)
    journal_path(path).unlink()
    return True


class _Record(NamedTuple):
    offset: int
    replaced: int  # CRC-32
    content: memoryview


class _Commit(NamedTuple):
    damaged: bool
    before: int = 0  # size of the file, bytes
    after: int = 0
    records: Sequence[_Record] = ()

    def is_of(self, path: Path) -> bool:
        """Whether ``path`` is as it was before this commit, or as this commit leaves it when it is interrupted."""
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            return False
        try:
            if os.fstat(descriptor).st_size not in (self.before, self.after):
                return False
            for offset, replaced, content in self.records:
                found = os.pread(descriptor, len(content), offset)  # shorter where the file has been cut
                if found != content[: len(found)] and zlib.crc32(found) != replaced:
                    return False
            return True
        finally:
            os.close(descriptor)


def _interrupted_commit(path: Path) -> _Commit | None:
    """What the journal of ``path`` holds; None if there is none, or what stands there does not belong to the file."""
    try:
        with journal_path(path).open("rb") as file:
            header = file.read(_HEADER.size)
            if not _MAGIC.startswith(header[: len(_MAGIC)]):
                return None
            data = memoryview(file.read())
    except (FileNotFoundError, IsADirectoryError):
        return None
    if len(header) < _HEADER.size:
        return _Commit(damaged=True)
    _, before, after, length, checksum = _HEADER.unpack(header)
    if len(data) != length or zlib.crc32(data) != checksum:
        return _Commit(damaged=True)
    records, at = [], 0
    while at < len(data):
        offset, length, replaced = _RECORD.unpack_from(data, at)
        at += _RECORD.size
        records.append(_Record(offset, replaced, data[at : at + length]))
        at += length
    commit = _Commit(False, before, after, records)
    return commit if commit.is_of(path) else None


def _apply(descriptor: int, changes: Iterable[tuple[int, memoryview]], size: int) -> None:
    """Writes each (offset, bytes), then cuts the file to ``size``."""
    for offset, content in changes:
        _write_all(descriptor, content, offset)
    os.ftruncate(descriptor, size)


def _write_all(descriptor: int, data: memoryview, offset: int) -> None:
    while data:
        written = os.pwrite(descriptor, data, offset)
        data, offset = data[written:], offset + written


class JournaledFile(io.RawIOBase):
    """A read-write file object whose changes before the committed end wait in memory for `commit`.

    Args:
        path: an existing file; what it holds counts as committed.
    """

    _PAGE = 4096

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self._descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        self._committed = os.fstat(self._descriptor).st_size
        self._size = self._committed
        self._position = 0
        self._pages: dict[int, bytearray] = {}  # changed pages of the committed part
        self._failed: OSError | None = None

    # ---- the file object that h5py calls -----------------------------------------------------------------
    # HDF5 does not survive a write that fails, of a full disk say: it is told that all went well, and the next commit
    # raises what happened.

    def readable(self) -> bool:
        """True."""
        return True

    def writable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """See io.RawIOBase."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        """See io.RawIOBase."""
        return self._position

    def truncate(self, size: int | None = None) -> int:
        """See io.RawIOBase. The committed part is cut at the next commit only."""
        self._size = self._position if size is None else size
        with self._failures_kept():
            os.ftruncate(self._descriptor, max(self._size, self._committed))
        return self._size

    def readinto(self, buffer: Any) -> int:
        """See io.RawIOBase; sees what waits for the commit."""
        view = memoryview(buffer).cast("B")
        wanted = max(0, min(len(view), self._size - self._position))
        done = 0
        while done < wanted:
            count = os.preadv(self._descriptor, [view[done:wanted]], self._position + done)
            if count == 0 and self._failed is not None:  # it never got there
                view[done:wanted] = bytes(wanted - done)
                break
            if count == 0:
                raise Error(f"{self.path}: the file was cut while it was being written")
            done += count
        held = max(0, min(wanted, self._committed - self._position))
        for page in self._pages_in(self._position, held):
            if page in self._pages:
                start = max(page * self._PAGE, self._position)
                end = min((page + 1) * self._PAGE, self._position + held)
                content = memoryview(self._pages[page])[start - page * self._PAGE :]
                view[start - self._position : end - self._position] = content[: end - start]
        self._position += wanted
        return wanted

    def write(self, data: Any) -> int:
        """See io.RawIOBase."""
        view = memoryview(data).cast("B")
        held = max(0, min(len(view), self._committed - self._position))
        for page in self._pages_in(self._position, held):
            start = max(page * self._PAGE, self._position)
            end = min((page + 1) * self._PAGE, self._position + held)
            within = start - page * self._PAGE
            content = self._page(page)
            content[within : within + end - start] = view[start - self._position : end - self._position]
        with self._failures_kept():
            _write_all(self._descriptor, view[held:], self._position + held)
        self._position += len(view)
        self._size = max(self._size, self._position)
        return len(view)

    @contextmanager
    def _failures_kept(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._failed = self._failed or error

    def _pages_in(self, offset: int, length: int) -> range:
        return range(offset // self._PAGE, -(-(offset + length) // self._PAGE)) if length else range(0)

    def _page(self, page: int) -> bytearray:
        """A changed page, created from what is committed; the last one may be short."""
        if page not in self._pages:
            self._pages[page] = bytearray(self._committed_page(page))
        return self._pages[page]

    def _committed_page(self, page: int) -> bytes:
        length = min(self._PAGE, self._committed - page * self._PAGE)
        return os.pread(self._descriptor, length, page * self._PAGE)

    # ---- commit ------------------------------------------------------------------------------------------

    def commit(self, durable: bool = False) -> None:
        """Makes everything written so far the committed state.

        Args:
            durable: also wait for the disk, so that the state outlives a power failure, not just this process.

        Raises:
            OSError: something could not be written since the last commit, which stays the committed state for good.
        """
        if self._failed is not None:
            raise self._failed
        if durable:
            os.fsync(self._descriptor)
        if self._pages or self._size < self._committed:
            self._write_journal(durable)
            changes = ((page * self._PAGE, memoryview(content)) for page, content in self._pages.items())
            _apply(self._descriptor, changes, self._size)
            if durable:
                os.fsync(self._descriptor)
            journal_path(self.path).unlink()
        self._pages.clear()
        self._committed = self._size

    def in_place(self) -> bool:
        """Whether the path still names this file."""
        try:
            return os.path.samestat(self.path.stat(), os.fstat(self._descriptor))
        except FileNotFoundError:
            return False

    def sync(self) -> None:
        """Waits until the committed state is on the disk; what was written since is not committed."""
        os.fsync(self._descriptor)

    def _write_journal(self, durable: bool) -> None:
        records = b"".join(
            _RECORD.pack(page * self._PAGE, len(content), zlib.crc32(self._committed_page(page))) + content
            for page, content in sorted(self._pages.items())
        )
        before = os.fstat(self._descriptor).st_size
        target = journal_path(self.path)
        temporary = target.with_name(target.name + ".tmp")
        with temporary.open("wb") as file:
            file.write(_HEADER.pack(_MAGIC, before, self._size, len(records), zlib.crc32(records)))
            file.write(records)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        temporary.replace(target)

    def close(self) -> None:
        """Closes the file without committing."""
        if not self.closed:
            os.close(self._descriptor)
        super().close()
