"""Reading and writing ``.safetensors`` files with numpy alone.

The layout: an unsigned 64-bit little-endian header length, a JSON header (tensor name -> dtype, shape,
data_offsets, and ``__metadata__``, strings to strings), then the tensors' bytes without gaps. Every field of
the header is checked before any of it is used.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lewm.checkpoint.atomic import replace_file
from lewm.errors import Error

__all__ = ["bfloat16_to_float32", "is_unicode", "read", "unique", "write"]

_MAX_HEADER = 100_000_000  # bytes
_ALIGNMENT = 64  # bytes; the first tensor starts here, so that a mapped file can be read with vector loads
_DTYPES = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "BF16": "<u2",  # numpy has no bfloat16: read as its bits, handed out as float32
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "|i1",
    "U8": "|u1",
    "BOOL": "|b1",
}
_NAMES = {np.dtype(code): name for name, code in _DTYPES.items() if name != "BF16"}


def read(path: str | os.PathLike[str]) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """The tensors and the metadata of a ``.safetensors`` file; bfloat16 comes as float32.

    Raises:
        FileNotFoundError: there is no such file.
        lewm.Error: the file is truncated, or its header contradicts itself or the file's size.
    """
    data = Path(path).read_bytes()
    header, start = _read_header(data, Path(path).name)
    metadata = _read_metadata(header.pop("__metadata__", {}), Path(path).name)
    buffer = memoryview(data)[start:]
    return _read_tensors(header, buffer, Path(path).name), metadata


def _read_header(data: bytes, file: str) -> tuple[dict[str, Any], int]:
    if len(data) < 8:
        raise Error(f"{file}: expected at least 8 bytes, got {len(data)}")
    length = int.from_bytes(data[:8], "little")
    if length > _MAX_HEADER or 8 + length > len(data):
        raise Error(
            f"{file}: a header of {length} bytes in a file of {len(data)}: truncated, or not safetensors"
        )
    text = data[8 : 8 + length]
    if not text.startswith(b"{"):
        raise Error(f"{file}: its header does not start with '{{'")
    try:
        header = json.loads(text.decode("utf-8"), object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise Error(f"{file}: its header is not valid JSON: {error}") from None
    if not is_unicode(json.dumps(header, ensure_ascii=False)):
        raise Error(f"{file}: its header is not valid JSON: half of a surrogate pair")
    return header, 8 + length


def is_unicode(text: str) -> bool:
    """Whether UTF-8 holds the text: it has no lone surrogates."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The members of a JSON object (an ``object_pairs_hook``). Raises ValueError where two have one name."""
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a name occurs twice")
    return result


def _read_metadata(metadata: Any, file: str) -> dict[str, str]:
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise Error(f"{file}: __metadata__: expected an object of strings")
    return metadata


def _read_tensors(header: dict[str, Any], buffer: memoryview, file: str) -> dict[str, NDArray[Any]]:
    entries = sorted(
        (_checked_entry(name, entry, file) for name, entry in header.items()), key=lambda entry: entry[3]
    )
    tensors: dict[str, NDArray[Any]] = {}
    position = 0
    for name, dtype, shape, (begin, end) in entries:
        if begin != position:
            raise Error(f"{file}: {name}: expected data_offsets to begin at {position}, got {begin}")
        if end > len(buffer):
            raise Error(
                f"{file}: {name}: data_offsets end at {end}, the file holds {len(buffer)} bytes of tensors"
            )
        flat = np.frombuffer(buffer[begin:end], dtype=_DTYPES[dtype])
        try:
            array = flat.reshape(shape)
        except ValueError as error:  # more dimensions than numpy has, or without elements but endless
            raise Error(f"{file}: {name}: shape: {error}") from None
        tensors[name] = bfloat16_to_float32(array) if dtype == "BF16" else array
        position = end
    if position != len(buffer):
        raise Error(f"{file}: {len(buffer) - position} bytes after the last tensor belong to none")
    return {name: tensors[name] for name in header}


def _checked_entry(name: str, entry: Any, file: str) -> tuple[str, str, list[int], list[int]]:
    """(name, dtype, shape, data_offsets) of one header entry whose fields agree with each other."""
    if not isinstance(entry, dict) or not {"dtype", "shape", "data_offsets"} <= set(entry):
        raise Error(f"{file}: {name}: expected dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _DTYPES:
        raise Error(f"{file}: {name}: dtype: expected one of {', '.join(_DTYPES)}, got {dtype!r}")
    if not _are_sizes(shape):
        raise Error(f"{file}: {name}: shape: expected a list of sizes, got {shape!r}")
    if not _are_sizes(offsets) or len(offsets) != 2:
        raise Error(f"{file}: {name}: data_offsets: expected two sizes, got {offsets!r}")
    size = prod(shape) * np.dtype(_DTYPES[dtype]).itemsize
    given = offsets[1] - offsets[0]
    if given != size:
        raise Error(f"{file}: {name}: {dtype} {shape} needs {size} bytes, data_offsets give {given}")
    return name, dtype, shape, offsets


def _are_sizes(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int and 0 <= value < 2**63 for value in values)


def bfloat16_to_float32(bits: NDArray[np.uint16]) -> NDArray[np.float32]:
    """float32 values of bfloat16 bit patterns (exact: a bfloat16 is the upper half of a float32)."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def write(
    path: str | os.PathLike[str],
    tensors: Mapping[str, NDArray[Any]],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Writes a ``.safetensors`` file, whole or not at all.

    Raises:
        ValueError: a tensor's dtype has no safetensors name.
        OSError: the file cannot be written.
    """
    # Wide elements first keeps every tensor aligned to its own element size.
    arrays = {name: np.ascontiguousarray(tensor).reshape(tensor.shape) for name, tensor in tensors.items()}
    order = sorted(arrays, key=lambda name: (-arrays[name].itemsize, name))
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    position = 0
    for name in order:
        array = arrays[name]
        dtype = _NAMES.get(array.dtype.newbyteorder("<"))
        if dtype is None:
            raise ValueError(f"{name}: dtype {array.dtype} has no safetensors name")
        header[name] = {
            "dtype": dtype,
            "shape": list(array.shape),
            "data_offsets": [position, position + array.nbytes],
        }
        position += array.nbytes
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    text += b" " * (-(8 + len(text)) % _ALIGNMENT)
    with replace_file(path) as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for name in order:
            array = arrays[name]
            file.write(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes())
