"""The right to write a file or a folder, which one process at a time holds."""

from __future__ import annotations

import fcntl
import os
import weakref
from pathlib import Path

from lewm.errors import Error

__all__ = ["WriterLock"]


class WriterLock:
    """A lock on the file ``path``, held until `release` or the end of the process, however it ends.

    A forked child does not hold it: it may outlive its parent.

    Raises:
        lewm.Error: somebody else holds it; the message is ``refusal``.
        OSError: the file system has no locks, or the file cannot be made.
    """

    def __init__(self, path: Path, refusal: str) -> None:
        self._path = path
        self._descriptor = -1
        while self._descriptor < 0:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                raise Error(refusal) from None
            except OSError:
                os.close(descriptor)
                raise
            if self._is_current(descriptor):
                self._descriptor = descriptor
            else:
                os.close(descriptor)  # its last holder removed it in the meantime
        _held.add(self)

    def _is_current(self, descriptor: int) -> bool:
        """Whether the locked file is still the one that others will find."""
        try:
            found = self._path.stat()
        except FileNotFoundError:
            return False
        return os.path.samestat(found, os.fstat(descriptor))

    def release(self) -> None:
        """Gives the right back. Twice is fine."""
        if self._descriptor < 0:
            return
        self._path.unlink(missing_ok=True)
        self.forget()

    def forget(self) -> None:
        """Closes this process's handle alone: what a child does."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1


_held: weakref.WeakSet[WriterLock] = weakref.WeakSet()


def _forget_all() -> None:
    for lock in list(_held):
        lock.forget()


os.register_at_fork(after_in_child=_forget_all)
