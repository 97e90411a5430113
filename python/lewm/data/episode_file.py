"""Reading episode files: what is in them, whether it is consistent, and single rows of them fast.

Files of this package, of stable-worldmodel and of others that keep one data set per column are read, whatever their
chunks and filters are. Frames of unfiltered columns are read straight from their place in the file; others go through
HDF5, frame by frame.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from lewm.data.journal import recover
from lewm.errors import Error

__all__ = ["EpisodeFile", "hdf5_errors", "register_filters"]

_BOOKKEEPING = ("ep_len", "ep_offset")
_MOST_ROWS = 2**62  # of an offset or a length, so that their sum is an int64
_CACHE_BYTES = 16 << 20  # of HDF5's chunk cache, where chunks hold several frames or parts of them


@contextmanager
def hdf5_errors(message: str) -> Iterator[None]:
    """Within it what h5py raises for a damaged file is a `lewm.Error` that begins with ``message``."""
    try:
        yield
    except Error:
        raise
    except (OSError, RuntimeError, LookupError, OverflowError) as error:
        raise Error(f"{message} ({error})") from None


class EpisodeFile:
    """An HDF5 file of episodes, open for reading; `lengths` and `offsets` are (E,) int64.

    Handles are opened when they are first needed, once per process, so that an instance may be pickled or
    inherited by the workers of a loader. The file may grow in the meantime, but not be replaced.

    Args:
        path: the file. An interrupted commit of `EpisodeWriter` is completed first.

    Raises:
        FileNotFoundError: there is no such file.
        lewm.Error: it is not HDF5 or damaged, or ``ep_len`` and ``ep_offset`` are missing or inconsistent.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise FileNotFoundError(f"path: no file {self.path}")
        recover(self.path)
        self._handle: h5py.File | None = None
        self._descriptor = -1
        self._process = -1
        self._identity: tuple[int, int] | None = None  # device and inode of the file that was opened first
        self._layouts: dict[str, tuple[tuple[int, ...], np.dtype[Any], _RawPlaces | None]] = {}
        self.lengths, self.offsets = self._read_bookkeeping()

    # ---- what is in it -------------------------------------------------------------------------------------

    @property
    def columns(self) -> list[str]:
        """Names of the columns: data sets that have a row for every step."""
        return sorted(
            name
            for name, item in self.handle.items()
            if _is_column(name, item) and item.ndim and len(item) >= self._rows
        )

    @property
    def attributes(self) -> dict[str, Any]:
        """The file's attributes: numbers and strings; a `lewm.Error` if they cannot be read."""
        with hdf5_errors(f"{self.path}: the attributes cannot be read"):
            return {name: _plain(value) for name, value in self.handle.attrs.items()}

    @property
    def episodes(self) -> int:
        """E, the number of episodes."""
        return len(self.lengths)

    def column(self, name: str) -> h5py.Dataset:
        """A column, (N, ...).

        Raises:
            lewm.Error: there is none of this name (the message lists those there are), or it is too short.
        """
        item = self.handle.get(name)
        if not _is_column(name, item):
            raise Error(f"{self.path}: no column {name!r}, there are {self.columns}")
        if item.ndim == 0 or len(item) < self._rows:
            raise Error(
                f"{self.path}: {name} has {len(item) if item.ndim else 0} rows, the episodes need {self._rows}"
            )
        return item

    @property
    def _rows(self) -> int:
        """Rows that the episodes take."""
        return int((self.offsets + self.lengths).max(initial=0))

    # ---- rows ----------------------------------------------------------------------------------------------

    def read(self, name: str, start: int, stop: int | None, step: int = 1) -> NDArray[Any]:
        """Rows start, start + step, ... before stop (None: to the end), of a column.

        Raises:
            lewm.Error: there is no such column, or it cannot be read.
        """
        with hdf5_errors(f"{self.path}: {name} cannot be read"):
            return self.column(name)[start:stop:step]

    def read_numbers(self, name: str, start: int, stop: int | None, step: int = 1) -> NDArray[Any]:
        """`read` of a column of numbers, in the machine's byte order; what is wider than float64 comes as float64.

        Raises:
            lewm.Error: also where it holds something else than numbers.
        """
        dtype = self.column(name).dtype
        if dtype.base.kind not in "fiubc":
            raise Error(f"{self.path}: {name}: expected numbers, got {_type_name(dtype)}")
        values = self.read(name, start, stop, step)
        widest = {"f": np.dtype(np.float64), "c": np.dtype(np.complex128)}.get(values.dtype.kind)
        native = values.dtype.newbyteorder("=")
        if widest is not None and native.itemsize > widest.itemsize:
            native = widest
        return values.astype(native, copy=False)

    def read_frames(
        self, name: str, starts: NDArray[np.int64], frames: int, step: int, out: NDArray[Any]
    ) -> None:
        """Rows ``starts[b] + t * step`` for t < ``frames`` of an image column, into ``out`` (B, frames, H, W,
        C).

        ``out`` is C-contiguous and of the column's dtype. Reads in the order of the file.

        Raises:
            ValueError: ``out`` is something else.
            lewm.Error: the file ends before a frame, or a chunk cannot be decoded.
        """
        self.locate(name)
        row_shape, dtype, places = self._layouts[name]
        shape = (len(starts), frames, *row_shape)
        if out.shape != shape or out.dtype != dtype or not out.flags.c_contiguous:
            raise ValueError(f"out: expected C-contiguous {shape} {dtype}, got {out.shape} {out.dtype}")
        order = np.argsort(starts, kind="stable")
        if places is not None:
            rows = starts[order, None] + np.arange(frames) * step
            places.read(self._raw_descriptor(), rows, out, order)
            return
        dataset = self.handle[name]
        memory = h5py.h5s.create_simple((1, *row_shape))
        space = dataset.id.get_space()
        origin = (0,) * len(row_shape)
        for window in order:
            for frame in range(frames):  # a strided selection over the window takes HDF5 50 times as long
                row = int(starts[window]) + frame * step
                space.select_hyperslab((row, *origin), (1, *row_shape))
                try:
                    dataset.id.read(memory, space, out[window, frame])
                except OSError as error:
                    raise Error(f"{self.path}: {name} cannot be read at row {row} ({error})") from None

    def locate(self, name: str) -> None:
        """Finds out where the rows of a column lie, which `read_frames` otherwise does at its first call."""
        if name not in self._layouts:
            with hdf5_errors(f"{self.path}: {name} cannot be read"):
                column = self.column(name)
                file, at = (h5py.h5o.get_info(item.id).fileno for item in (self.handle, column))
                here = file == at  # not behind an external link
                self._layouts[name] = column.shape[1:], column.dtype, _RawPlaces.of(column) if here else None

    # ---- handles -------------------------------------------------------------------------------------------

    @property
    def handle(self) -> h5py.File:
        """The open HDF5 file of this process."""
        self._leave_parents_handles()
        if self._handle is None:
            self._handle = self._open()
        return self._handle

    def _raw_descriptor(self) -> int:
        self._leave_parents_handles()
        if self._descriptor < 0:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                self._require_same(descriptor)
            except Error:
                os.close(descriptor)
                raise
            self._descriptor = descriptor
        return self._descriptor

    def _require_same(self, descriptor: int) -> None:
        """Raises lewm.Error unless the descriptor is of the file that was opened first, whose rows are known."""
        status = os.fstat(descriptor)
        found = status.st_dev, status.st_ino
        if self._identity is None:
            self._identity = found
        elif self._identity != found:
            raise Error(f"{self.path}: the file has been replaced since it was opened; open it again")

    def _leave_parents_handles(self) -> None:
        """After a fork the handles belong to the parent; this process opens its own."""
        if self._process != os.getpid():
            self._process, self._handle, self._descriptor = os.getpid(), None, -1

    def _open(self) -> h5py.File:
        with hdf5_errors(f"{self.path}: not a readable HDF5 file"):
            file = self._open_with(cache_bytes=0)  # a chunk of one frame is decoded faster past the cache
            if any(_shares_chunks(item) for item in file.values()):
                file.close()
                file = self._open_with(_CACHE_BYTES)
            self._require_same(file.id.get_vfd_handle())
            register_filters(file.values())
            return file

    def _open_with(self, cache_bytes: int) -> h5py.File:
        options = {"rdcc_nbytes": cache_bytes, "rdcc_nslots": 10007}
        try:
            return h5py.File(self.path, "r", **options)
        except OSError:  # a file left behind by an SWMR writer opens as SWMR only
            return h5py.File(self.path, "r", swmr=True, **options)

    def close(self) -> None:
        """Closes this process's handles; they open again when needed."""
        if self._process == os.getpid():
            if self._handle is not None:
                self._handle.close()
            if self._descriptor >= 0:
                os.close(self._descriptor)
        self._handle, self._descriptor = None, -1

    def __del__(self) -> None:
        if getattr(self, "_descriptor", -1) >= 0 and self._process == os.getpid():
            os.close(self._descriptor)  # h5py's handle closes itself

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_handle": None, "_descriptor": -1, "_process": -1}

    def _read_bookkeeping(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        arrays = []
        for name in _BOOKKEEPING:
            item = self.handle.get(name)
            if not isinstance(item, h5py.Dataset):
                raise Error(f"{self.path}: no {name!r}, there are {sorted(self.handle)}")
            if item.ndim != 1 or item.dtype.kind not in "iu":
                raise Error(f"{self.path}: {name}: expected (E,) integers, got {item.shape} {item.dtype}")
            with hdf5_errors(f"{self.path}: {name} cannot be read"):
                arrays.append(item[:].astype(np.int64))
        lengths, offsets = arrays
        if len(lengths) != len(offsets):
            raise Error(f"{self.path}: ep_len has {len(lengths)} entries, ep_offset has {len(offsets)}")
        bad = np.flatnonzero((lengths < 1) | (offsets < 0) | (np.maximum(lengths, offsets) >= _MOST_ROWS))
        if len(bad):
            raise Error(
                f"{self.path}: episode {bad[0]} has length {lengths[bad[0]]} and offset {offsets[bad[0]]}"
            )
        order = np.argsort(offsets)
        overlaps = np.flatnonzero((offsets + lengths)[order][:-1] > offsets[order][1:])
        if len(overlaps):
            raise Error(
                f"{self.path}: episodes {order[overlaps[0]]} and {order[overlaps[0] + 1]} of ep_offset overlap"
            )
        return lengths, offsets


class _RawPlaces:
    """Where each row of an unfiltered column lies in the file."""

    def __init__(self, rows_per_chunk: int, offsets: NDArray[np.int64], row_bytes: int) -> None:
        self._rows_per_chunk = rows_per_chunk
        self._offsets = offsets  # [chunks], bytes
        self._row_bytes = row_bytes

    @classmethod
    def of(cls, dataset: h5py.Dataset) -> _RawPlaces | None:
        """None if rows are filtered, converted, never written, or not in this file in one piece."""
        if dataset.id.get_create_plist().get_nfilters() or dataset.is_virtual or dataset.external:
            return None
        row_bytes = int(np.prod(dataset.shape[1:])) * dataset.dtype.itemsize
        if not dataset.dtype.isnative:
            return None
        if dataset.chunks is None:
            offset = dataset.id.get_offset()
            return None if offset is None else cls(max(1, len(dataset)), np.array([offset]), row_bytes)
        if dataset.chunks[1:] != dataset.shape[1:]:
            return None
        offsets = np.full(-(-len(dataset) // dataset.chunks[0]), -1, dtype=np.int64)

        def note(chunk: Any) -> None:
            offsets[chunk.chunk_offset[0] // dataset.chunks[0]] = chunk.byte_offset

        dataset.id.chunk_iter(note)
        return None if (offsets < 0).any() else cls(dataset.chunks[0], offsets, row_bytes)

    def read(
        self, descriptor: int, rows: NDArray[np.int64], out: NDArray[Any], order: NDArray[np.intp]
    ) -> None:
        """Rows (B, T) into ``out[order]`` (B, T, ...); the kernel is told of all of them before the first is read."""
        chunk, within = np.divmod(rows, self._rows_per_chunk)
        places = (self._offsets[chunk] + within * self._row_bytes).tolist()
        for window_places in places:
            for place in window_places:
                os.posix_fadvise(descriptor, place, self._row_bytes, os.POSIX_FADV_WILLNEED)
        for window, window_places in zip(order.tolist(), places, strict=True):
            for frame, place in enumerate(window_places):
                if os.preadv(descriptor, [out[window, frame]], place) != self._row_bytes:
                    raise Error(f"the file ends within a frame, at byte {place}")


def _type_name(dtype: np.dtype[Any]) -> str:
    text = h5py.check_string_dtype(dtype)
    return "text" if text is not None else str(dtype)


def _is_column(name: str, item: Any) -> bool:
    return isinstance(item, h5py.Dataset) and name not in _BOOKKEEPING


def _shares_chunks(item: Any) -> bool:
    """Whether images are filtered in chunks that are not exactly one of them."""
    if not isinstance(item, h5py.Dataset) or item.ndim != 4 or item.chunks is None:
        return False
    return item.chunks != (1, *item.shape[1:]) and item.id.get_create_plist().get_nfilters() > 0


def register_filters(items: Iterable[Any]) -> None:
    """Lets HDF5 read and write these columns, whatever compressed them."""
    if any(_needs_plugin(item) for item in items):
        import hdf5plugin  # noqa: F401 - registers its filters


def _needs_plugin(item: Any) -> bool:
    """Whether a column uses a filter that HDF5 does not bring along."""
    if not isinstance(item, h5py.Dataset):
        return False
    settings = item.id.get_create_plist()
    return any(settings.get_filter(k)[0] > 32000 for k in range(settings.get_nfilters()))


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    return value.decode() if isinstance(value, bytes) else value
