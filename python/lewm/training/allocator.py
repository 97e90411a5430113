"""Keeping the C library's allocator from giving memory back between training steps."""

from __future__ import annotations

import ctypes
import platform

__all__ = ["keep_freed_memory"]

# Parameters of mallopt(3), as glibc's malloc.h numbers them.
_TRIM_THRESHOLD = -1
_MMAP_THRESHOLD = -3
_LIMIT = 1 << 30  # bytes
_LARGEST_OF_OLD_GLIBC = 32 << 20  # bytes; releases before 2.35 refuse a larger mmap threshold


def keep_freed_memory() -> bool:
    """Lets tensors of up to 1 GiB come from memory that the process holds already; whether that was possible.

    By default glibc maps every large array afresh and unmaps it when it is freed. Each training step then pays for the
    same page faults again: a quarter of the tiny preset's step. Keeping freed pages costs nothing while training, as
    the next step needs as much. Other C libraries (musl, macOS, Windows) are left as they are.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    mmap = mallopt(_MMAP_THRESHOLD, _LIMIT) or mallopt(_MMAP_THRESHOLD, _LARGEST_OF_OLD_GLIBC)
    return bool(mmap and mallopt(_TRIM_THRESHOLD, _LIMIT))
