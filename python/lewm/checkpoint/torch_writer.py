"""State dicts written without torch as ``.pt`` files that ``torch.load(..., weights_only=True)`` opens."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Mapping
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from lewm.checkpoint.torch_reader import STORAGES

__all__ = ["write_state_dict"]

_ROOT = "weights"
_ALIGNMENT = 64  # bytes; torch.load(mmap=True) maps storages in place
_STORAGE_OF = {np.dtype(code): name for name, code in STORAGES.items() if name != "BFloat16Storage"}

_ORDERED_DICT = b"ccollections\nOrderedDict\n)R"  # GLOBAL, EMPTY_TUPLE, REDUCE
_REBUILD = b"ctorch._utils\n_rebuild_tensor_v2\n"


def write_state_dict(file: BinaryIO, tensors: Mapping[str, NDArray[Any]]) -> None:
    """Writes arrays into a file as the state dict that a ``.pt`` file is.

    Raises:
        ValueError: an array's dtype has no torch storage here.
        OSError: the file cannot be written.
    """
    arrays = {
        name: np.asarray(tensor, tensor.dtype.newbyteorder("<"), order="C")
        for name, tensor in tensors.items()
    }
    description = _pickle(arrays)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        _add(archive, file, "data.pkl", description)
        _add(archive, file, "byteorder", b"little")
        for key, array in enumerate(arrays.values()):
            _add(archive, file, f"data/{key}", array.tobytes())
        _add(archive, file, "version", b"3\n")


def _add(archive: zipfile.ZipFile, file: BinaryIO, name: str, data: bytes) -> None:
    """Adds an entry whose data starts on an aligned offset; an extra field of its header fills the gap."""
    entry = zipfile.ZipInfo(f"{_ROOT}/{name}", date_time=(1980, 1, 1, 0, 0, 0))
    header = 30 + len(entry.filename) + 4  # bytes before the padding
    padding = -(file.tell() + header) % _ALIGNMENT
    entry.extra = b"FB" + struct.pack("<H", padding) + b"Z" * padding
    archive.writestr(entry, data)


def _pickle(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """The pickle (protocol 2) of an OrderedDict of tensors, one storage each, numbered in order."""
    parts = [b"\x80\x02", _ORDERED_DICT, b"("]
    for key, (name, array) in enumerate(arrays.items()):
        parts += [_string(name), _tensor(name, array, key)]
    return b"".join([*parts, b"u."])  # SETITEMS, STOP


def _tensor(name: str, array: NDArray[Any], key: int) -> bytes:
    storage = _STORAGE_OF.get(array.dtype)
    if storage is None:
        raise ValueError(f"{name}: dtype {array.dtype} has no torch storage")
    strides = tuple(step // array.itemsize for step in np.empty(array.shape, array.dtype).strides)
    identifier = (
        b"(" + _string("storage") + f"ctorch\n{storage}\n".encode() + _string(str(key)) + _string("cpu")
        + _integer(array.size) + b"tQ"
    )  # fmt: skip
    # (storage, offset, size, stride, requires_grad False, backward hooks {})
    arguments = (
        b"("
        + identifier
        + _integer(0)
        + _tuple(array.shape)
        + _tuple(strides)
        + b"\x89"
        + _ORDERED_DICT
        + b"t"
    )
    return _REBUILD + arguments + b"R"


def _string(text: str) -> bytes:
    data = text.encode("utf-8")
    return b"X" + struct.pack("<I", len(data)) + data


def _integer(value: int) -> bytes:
    if value < 2**31:
        return b"J" + struct.pack("<i", value)
    data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(data)]) + data


def _tuple(values: tuple[int, ...]) -> bytes:
    return b"(" + b"".join(map(_integer, values)) + b"t"
