"""State dicts in ``.pt`` files, read without torch and without running anything that is in them.

A ``.pt`` file is a zip: ``NAME/data.pkl`` describes the tensors, ``NAME/data/KEY`` holds the elements of one
storage, and ``NAME/byteorder`` says how they are laid out.
"""

from __future__ import annotations

import os
import struct
import zipfile
import zlib
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lewm.checkpoint import pickle_machine
from lewm.checkpoint.safetensors import bfloat16_to_float32
from lewm.errors import Error

__all__ = ["read_state_dict"]

# Storage class -> element type. numpy has no bfloat16: its bits are read and handed out as float32.
STORAGES = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "BFloat16Storage": "<u2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "|i1",
    "ByteStorage": "|u1",
    "BoolStorage": "|b1",
}
_DTYPES = ("float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool")

_MAX_PICKLE = 16 << 20  # bytes
_MAX_EXPANSION = 64  # bytes unpacked per byte on disk; torch itself never compresses
_MAX_DIMENSIONS = 32  # of an array in every numpy
_SLACK = 1 << 20  # bytes that any file may unpack to
_OF_A_TRAINING = {"version", "model", "action_scaling"}  # keys of what lewm.training saves
_WAY_OUT = "re-save the weights alone: torch.save(model.state_dict(), 'weights.pt')"


@dataclass(frozen=True)
class _Name:
    """A global name that a state dict may hold."""

    module: str
    name: str


@dataclass(frozen=True)
class _Storage:
    """One storage of the file: its elements, and whether they are bfloat16 bit patterns."""

    elements: NDArray[Any]
    is_bfloat16: bool


_CALLABLE = {
    ("collections", "OrderedDict"),
    ("torch", "Size"),
    ("torch._utils", "_rebuild_tensor_v2"),
    ("torch._utils", "_rebuild_parameter"),
}
_NAMES = (
    _CALLABLE
    | {("torch", storage) for storage in STORAGES}
    | {("torch", dtype) for dtype in _DTYPES}
    | {("torch.storage", "UntypedStorage")}
)


def read_state_dict(path: str | os.PathLike[str]) -> dict[str, NDArray[Any]]:
    """The tensors of a ``.pt`` file that holds a state dict, by name; bfloat16 comes as float32.

    Raises:
        FileNotFoundError: there is no such file.
        lewm.Error: the file is truncated, contradicts itself, is of torch's old format, or holds anything but
            a dict of tensors. The message names what was found and how to re-save.
    """
    path = Path(path)
    with path.open("rb") as file:
        magic = file.read(4)
    if magic[:2] != b"PK":
        raise Error(_not_a_zip(path.name, magic))
    try:
        with zipfile.ZipFile(path) as archive:
            state = _Archive(archive, path).state()
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        OSError,
        struct.error,
        NotImplementedError,
        RuntimeError,
    ) as error:
        if isinstance(error, Error):
            raise
        raise Error(f"{path.name}: the zip is truncated or damaged ({error})") from None
    return _tensors_of(state, path.name)


def _not_a_zip(file: str, magic: bytes) -> str:
    if magic[:1] == b"\x80":
        return f"{file}: a plain pickle (torch's format before 1.6, or a pickled object); {_WAY_OUT}"
    return f"{file}: expected a zip written by torch.save, got a file that begins with {magic!r}"


def _tensors_of(state: Any, file: str) -> dict[str, NDArray[Any]]:
    if not isinstance(state, dict):
        raise Error(f"{file}: expected a state dict, got a {type(state).__name__}; {_WAY_OUT}")
    if state.keys() >= _OF_A_TRAINING:
        raise Error(
            f"{file}: expected weights alone, got a training's own file; give the run's model.safetensors, "
            "or a cloned policy's folder to lewm eval --agent gcbc"
        )
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, np.ndarray):
            found = "a tensor" if isinstance(value, np.ndarray) else f"a {type(value).__name__}"
            raise Error(
                f"{file}: expected a state dict (name -> tensor), got {found} under {name!r:.80}; {_WAY_OUT}"
            )
    return state


class _Archive:
    """The zip of a ``.pt`` file, and the meaning of what its pickle asks for (a pickle_machine.Resolver)."""

    def __init__(self, archive: zipfile.ZipFile, path: Path) -> None:
        self._archive = archive
        self._file = path.name
        self._budget = path.stat().st_size * _MAX_EXPANSION + _SLACK  # bytes that may still be unpacked
        self._elements_left = self._budget  # and bytes that tensors may still refer to
        self._storages: dict[str, tuple[str, _Storage]] = {}
        self._entries = self._checked_entries()
        self._prefix = self._find_prefix()

    def _checked_entries(self) -> dict[str, zipfile.ZipInfo]:
        entries: dict[str, zipfile.ZipInfo] = {}
        for entry in self._archive.infolist():
            name = entry.filename
            if name.startswith("/") or "\\" in name or ".." in name.split("/"):
                raise Error(f"{self._file}: {name!r}: not a name inside an archive")
            if name in entries:
                raise Error(f"{self._file}: {name!r} occurs twice in the zip")
            if entry.flag_bits & 1:
                raise Error(f"{self._file}: {name!r} is encrypted")
            entries[name] = entry
        return entries

    def _find_prefix(self) -> str:
        pickles = [name for name in self._entries if name.count("/") == 1 and name.endswith("/data.pkl")]
        if any(name.split("/")[1:2] == ["code"] for name in self._entries):
            raise Error(f"{self._file}: a TorchScript archive; {_WAY_OUT}")
        if len(pickles) != 1:
            raise Error(
                f"{self._file}: expected one NAME/data.pkl in the zip, got {len(pickles)}; {_WAY_OUT}"
            )
        return pickles[0].removesuffix("data.pkl")

    def state(self) -> Any:
        """The object that the file holds."""
        if f"{self._prefix}byteorder" in self._entries:
            order = self._read(f"{self._prefix}byteorder", limit=16)
            if order != b"little":
                raise Error(
                    f"{self._file}: byteorder: expected little, got {order.decode('ascii', 'replace')!r}"
                )
        data = self._read(f"{self._prefix}data.pkl", limit=_MAX_PICKLE)
        return pickle_machine.run(data, self, self._file)

    def _read(self, name: str, limit: int) -> bytes:
        """The bytes of an entry, at most ``limit``; what the zip's directory claims is never trusted."""
        entry = self._entries.get(name)
        if entry is None:
            raise Error(f"{self._file}: {name!r} is missing from the zip")
        limit = min(limit, self._budget)
        with self._archive.open(entry) as stream:
            data = stream.read(limit + 1)
        if len(data) > limit:
            raise Error(f"{self._file}: {name!r}: expected at most {limit} bytes, got more")
        self._budget -= len(data)
        return data

    # What the pickle asks for.

    def find(self, module: str, name: str) -> _Name:
        if (module, name) not in _NAMES:
            asked = repr(f"{module}.{name}")[:120]
            raise Error(
                f"{self._file}: its pickle asks for {asked}; only tensors, numbers, strings and containers are "
                f"read. If you trust its origin, load it with torch and {_WAY_OUT}"
            )
        return _Name(module, name)

    def persistent(self, identifier: Any) -> _Storage:
        match identifier:
            case ("storage", _Name() as kind, str(key), str(), int(count)):
                return self._storage(kind, key, count)
        raise Error(f"{self._file}: a persistent id does not name a storage")

    def call(self, function: Any, arguments: tuple[Any, ...]) -> Any:
        if not isinstance(function, _Name) or (function.module, function.name) not in _CALLABLE:
            called = (
                f"{function.module}.{function.name}"
                if isinstance(function, _Name)
                else type(function).__name__
            )
            raise Error(f"{self._file}: its pickle calls {called!r}, which no state dict needs")
        if function.name == "OrderedDict":
            if arguments:
                raise Error(f"{self._file}: an OrderedDict is called with arguments")
            return {}
        if function.name == "Size":
            return self._sizes(arguments[0] if len(arguments) == 1 else None, "torch.Size")
        if function.name == "_rebuild_parameter":
            return self._parameter(arguments)
        return self._tensor(arguments)

    def _parameter(self, arguments: tuple[Any, ...]) -> NDArray[Any]:
        match arguments:
            case (np.ndarray() as tensor, *_):
                return tensor
        raise Error(f"{self._file}: a parameter is built from something other than a tensor")

    def _storage(self, kind: _Name, key: str, count: int) -> _Storage:
        """Reads a storage of ``count`` elements, once."""
        dtype = "|u1" if kind.name == "UntypedStorage" else STORAGES.get(kind.name)
        if dtype is None:
            raise Error(f"{self._file}: a storage is of type {kind.name!r}")
        if key in self._storages:
            known, storage = self._storages[key]
            if known != kind.name or len(storage.elements) != count:
                raise Error(f"{self._file}: storage {key!r} is described in two ways")
            return storage
        size = count * np.dtype(dtype).itemsize
        if count < 0 or size > self._budget:
            raise Error(f"{self._file}: storage {key!r} claims {count} elements, more than the file can hold")
        data = self._read(f"{self._prefix}data/{key}", limit=size)
        if len(data) != size:
            raise Error(f"{self._file}: storage {key!r}: expected {size} bytes, got {len(data)}")
        storage = _Storage(np.frombuffer(data, dtype), is_bfloat16=kind.name == "BFloat16Storage")
        self._storages[key] = (kind.name, storage)
        return storage

    def _tensor(self, arguments: tuple[Any, ...]) -> NDArray[Any]:
        """The tensor of ``_rebuild_tensor_v2(storage, offset, size, stride, requires_grad, hooks, ...)``."""
        match arguments:
            case (_Storage() as storage, int(offset), size, stride, *_):
                shape = self._sizes(size, "a tensor's size")
                steps = self._sizes(stride, "a tensor's stride")
            case _:
                raise Error(f"{self._file}: a tensor is built from something other than a storage")
        elements, count = storage.elements, prod(shape)
        if len(shape) != len(steps):
            raise Error(f"{self._file}: a tensor has {len(shape)} sizes and {len(steps)} strides")
        last = offset + sum((n - 1) * step for n, step in zip(shape, steps, strict=True)) if count else 0
        if offset < 0 or last >= max(len(elements), 1) or count > len(elements):
            raise Error(
                f"{self._file}: a tensor of size {shape}, stride {steps} and offset {offset} reaches beyond "
                f"its storage of {len(elements)} elements"
            )
        self._elements_left -= count * max(elements.itemsize, 4)
        if self._elements_left < 0:
            raise Error(f"{self._file}: its tensors claim more elements than the file can hold")
        if not count:
            return np.empty(shape, np.float32 if storage.is_bfloat16 else elements.dtype)
        byte_steps = tuple(step * elements.itemsize for step in steps)
        view = np.lib.stride_tricks.as_strided(elements[offset:], shape, byte_steps, writeable=False)
        return bfloat16_to_float32(view) if storage.is_bfloat16 else np.array(view)

    def _sizes(self, values: Any, what: str) -> tuple[int, ...]:
        is_list = isinstance(values, (tuple, list)) and len(values) <= _MAX_DIMENSIONS
        if not is_list or not all(type(n) is int and 0 <= n < 2**62 for n in values):
            raise Error(f"{self._file}: {what}: expected at most {_MAX_DIMENSIONS} sizes of at least 0")
        return tuple(values)
