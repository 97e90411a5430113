"""Checks of what users hand in: arrays, any object of the DLPack or the buffer protocol on the CPU, and counts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["as_array", "at_least", "finite"]


def as_array(name: str, value: Any, dtype: type[np.generic], shape: Sequence[int | str]) -> NDArray[Any]:
    """``value`` as a contiguous numpy array, copied only where it is not contiguous already.

    Args:
        name: of the argument, for the message.
        value: a numpy array, or anything with ``__dlpack__`` (torch, JAX, CuPy on the host) or a buffer.
        dtype: the element type that is expected.
        shape: an entry is a size, or the letter of a size that is free but at least 1.

    Raises:
        TypeError: no array, not on the CPU, or of another element type.
        ValueError: another shape, or empty.
    """
    array = _import(name, value)
    if array.dtype != dtype:
        raise TypeError(f"{name}: expected {np.dtype(dtype)}, got {array.dtype}")
    fits = array.ndim == len(shape) and all(
        size >= 1 if isinstance(wanted, str) else size == wanted
        for size, wanted in zip(array.shape, shape, strict=True)
    )
    if not fits:
        expected = ", ".join(map(str, shape)) + ("," if len(shape) == 1 else "")
        raise ValueError(f"{name}: expected ({expected}), got {array.shape}")
    return np.ascontiguousarray(array)


def _import(name: str, value: Any) -> NDArray[Any]:
    if isinstance(value, np.ndarray):
        return value
    if hasattr(value, "detach"):  # DLPack refuses tensors that autograd follows
        value = value.detach()
    if hasattr(value, "resolve_neg"):  # and drops torch's lazy sign
        value = value.resolve_neg()
    try:
        if hasattr(value, "__dlpack__"):
            return np.from_dlpack(value)
        return np.asarray(memoryview(value))
    except (TypeError, RuntimeError, BufferError, ValueError) as error:
        raise TypeError(
            f"{name}: expected an array on the CPU, got {type(value).__name__} ({error})"
        ) from None


def finite(name: str, array: NDArray[Any]) -> NDArray[Any]:
    """The array; raises ValueError naming the first element that is NaN or infinite."""
    if not np.isfinite(array).all():
        place = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise ValueError(f"{name}: expected finite numbers, got {array[place]} at {place}")
    return array


def at_least(name: str, value: Any, least: int = 1) -> int:
    """A count; raises ValueError naming it if it is no int, or less than ``least``."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise ValueError(f"{name}: expected an int of at least {least}, got {value!r}")
    return int(value)
