"""A GPU for tests without one: the CUDA module that runs on the CPU (target lewm_cuda_host_module), its device memory
as DLPack arrays, and a stand-in for CuPy that hands them out.

The module runs what the real one runs, as late as streams allow, with device memory apart from the host's; set
LEWM_CUDA_HOST_MODULE to it. `install()` must come before the core looks for its module, so tests run in processes of
their own.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
import types
from typing import Any

import numpy as np

_CUDA = 2  # DLPack's device type
_KINDS = {"i": 0, "u": 1, "f": 2}


class _Tensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


class _Managed(ctypes.Structure):
    pass


_Managed._fields_ = (
    ("tensor", _Tensor),
    ("context", ctypes.c_void_p),
    ("deleter", ctypes.CFUNCTYPE(None, ctypes.POINTER(_Managed))),
)
_new_capsule = ctypes.pythonapi.PyCapsule_New
_new_capsule.restype = ctypes.py_object
_new_capsule.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)


class Gpu:
    """The module's memory and its one stream."""

    def __init__(self, module: str) -> None:
        self._library = ctypes.CDLL(module)
        self._library.lewm_host_malloc.restype = ctypes.c_void_p
        self._library.lewm_host_malloc.argtypes = (ctypes.c_size_t,)
        self._library.lewm_host_stream.restype = ctypes.c_void_p
        self._library.lewm_host_copy.argtypes = (
            ctypes.c_void_p,
            ctypes.c_void_p,
            ctypes.c_size_t,
            ctypes.c_void_p,
            ctypes.c_int,
        )
        self.stream = self._library.lewm_host_stream()
        self.Array = GpuArray
        self.streams_asked_for: list[int] = []
        self._kept: list[Any] = []  # until the process ends: memory is small here, and copies are late

    def empty(self, shape: tuple[int, ...], dtype: str = "float32") -> GpuArray:
        """As cupy.empty."""
        nbytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
        return GpuArray(self, self._library.lewm_host_malloc(max(nbytes, 1)), tuple(shape), np.dtype(dtype))

    def array(self, values: Any) -> GpuArray:
        """A copy of a numpy array, which arrives when the stream comes to it."""
        values = np.ascontiguousarray(values)
        self._kept.append(values)
        made = self.empty(values.shape, str(values.dtype))
        self._library.lewm_host_copy(made.address, values.ctypes.data, values.nbytes, self.stream, 0)
        return made

    def fetch(self, array: GpuArray) -> np.ndarray:
        """A copy on the host, of when the stream has come here."""
        values = np.empty(array.shape, array.dtype)
        self._library.lewm_host_copy(values.ctypes.data, array.address, values.nbytes, self.stream, 1)
        return values


class GpuArray:
    """As much of cupy.ndarray as lewm uses."""

    def __init__(self, gpu: Gpu, address: int, shape: tuple[int, ...], dtype: np.dtype) -> None:
        self.gpu, self.address, self.shape, self.dtype = gpu, address, shape, dtype

    def __getitem__(self, index: Any) -> GpuArray:
        if index is None:
            return GpuArray(self.gpu, self.address, (1, *self.shape), self.dtype)
        if index == 0:
            return GpuArray(self.gpu, self.address, self.shape[1:], self.dtype)
        assert index == (slice(None), None)
        return GpuArray(self.gpu, self.address, (self.shape[0], 1, *self.shape[1:]), self.dtype)

    def get(self) -> np.ndarray:
        """As cupy's: a copy on the host."""
        return self.gpu.fetch(self)

    def __dlpack_device__(self) -> tuple[int, int]:
        return _CUDA, 0

    def __dlpack__(self, *, stream: int | None = None) -> Any:
        self.gpu.streams_asked_for.append(stream or 0)
        shape = (ctypes.c_int64 * len(self.shape))(*self.shape)
        tensor = _Tensor(
            self.address,
            _CUDA,
            0,
            len(self.shape),
            _KINDS[self.dtype.kind],
            8 * self.dtype.itemsize,
            1,
            shape,
            None,
            0,
        )
        managed = _Managed(tensor, None, _Managed._fields_[2][1]())
        self.gpu._kept += [shape, managed]
        return _new_capsule(ctypes.addressof(managed), b"dltensor", None)


def install() -> Gpu:
    """Makes lewm load the module of the host run, and `import cupy` its memory."""
    module = os.environ["LEWM_CUDA_HOST_MODULE"]
    os.environ["LEWM_CUDA_MODULE"] = module
    gpu = Gpu(module)
    cupy: Any = types.ModuleType("cupy")
    cupy.empty, cupy.ndarray = gpu.empty, GpuArray
    stream = types.SimpleNamespace(ptr=gpu.stream)
    cupy.cuda = types.SimpleNamespace(
        get_current_stream=lambda: stream, Device=lambda number: contextlib.nullcontext()
    )
    sys.modules["cupy"] = cupy
    return gpu
