"""Writing episodes into one HDF5 file that stays readable whatever happens to the writer."""

from __future__ import annotations

import io
import math
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np
from numpy.typing import ArrayLike, NDArray

from lewm.checkpoint.atomic import replace_file
from lewm.checkpoint.safetensors import is_unicode
from lewm.data.episode_file import hdf5_errors, register_filters
from lewm.data.journal import JournaledFile, apply_journal, journal_path, writer_lock
from lewm.errors import Error
from lewm.lock import WriterLock

__all__ = ["COMPRESSIONS", "EpisodeWriter"]

COMPRESSIONS = ("none", "gzip", "lzf", "blosc")
_FILTERS = {1: "gzip", 32000: "lzf", 32001: "blosc"}  # HDF5's registered numbers
_NO_COMPRESSION = (2, 3)  # shuffling bytes, checksums
_BOOKKEEPING = {"ep_len": np.int32, "ep_offset": np.int64}
_NUMBERS = "fiub"  # kinds of dtypes that a column may have
_ROWS_PER_CHUNK = 1024  # of columns other than images
_IMAGE_CHUNK_BYTES = 65536  # small frames share a chunk, large ones have one each


class EpisodeWriter:
    """Appends episodes to an HDF5 file: a data set per column, rows end to end, ``ep_len`` and ``ep_offset``.

    Each episode is committed as a whole: a reader, or a writer that goes on later, finds every episode that
    `write_episode` returned from, also after SIGKILL. An existing file is continued; its columns and
    attributes must agree with what comes. Threads may share a writer: one episode is written at a time.

    Args:
        path: the file; its folder must exist.
        compression: of the images: "none", "gzip", "lzf" or "blosc" (LZ4, by hdf5plugin). Other columns are small and
            stay as they are. None: the existing file's, and "none" for a new one.
        attributes: of the file, such as the environment's id, the frame size and the seed: numbers and strings.
        overwrite: replace an existing file instead of continuing it; it stays until the first episode is written.

    Raises:
        ValueError: ``compression`` is unknown, an attribute cannot be stored, or an existing file has another
            compression or other attributes.
        TypeError: an attribute is no number or string.
        FileNotFoundError: the folder does not exist.
        lewm.Error: the existing file is not one of episodes, another process is writing it, or something else stands in
            the place of its journal.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        compression: str | None = None,
        attributes: Mapping[str, Any] | None = None,
        overwrite: bool = False,
    ) -> None:
        if compression is not None and compression not in COMPRESSIONS:
            raise ValueError(f"compression: expected one of {COMPRESSIONS}, got {compression!r}")
        self.path = Path(path).resolve()  # a link's target has one lock and one journal
        if not self.path.parent.is_dir():
            raise FileNotFoundError(f"path: the folder {self.path.parent} does not exist")
        self._compression = compression
        self._attributes = _checked_attributes(attributes or {})
        self._journal: JournaledFile | None = None
        self._file: h5py.File | None = None
        self._datasets: dict[str, h5py.Dataset] = {}
        self._columns: dict[str, tuple[tuple[int, ...], np.dtype[Any]]] = {}
        self._episodes = 0
        self._rows = 0
        self._most = {name: int(np.iinfo(dtype).max) for name, dtype in _BOOKKEEPING.items()}
        self._half_written = False  # an episode: the file's state is not to be committed
        self._process = os.getpid()
        self._one_at_a_time = threading.RLock()
        self._lock: WriterLock | None = writer_lock(self.path)
        try:
            apply_journal(self.path)
            journal = journal_path(self.path)
            if journal.exists():
                raise Error(f"{journal}: not the journal of {self.path}, which cannot be written beside it")
            if self.path.exists() and not overwrite:
                self._read_existing()
        except BaseException:
            self.close()
            raise

    @property
    def episodes(self) -> int:
        """Episodes in the file."""
        return self._episodes

    @property
    def rows(self) -> int:
        """Rows in the file, over all episodes."""
        return self._rows

    def write_episode(self, columns: Mapping[str, ArrayLike]) -> int:
        """Appends one episode and returns its index.

        Args:
            columns: name -> rows (T, ...). Needed: ``pixels`` (T, H, W, 3) uint8 and ``action`` (T, A) or (T - 1, A):
                row t of ``action`` is the one that leaves frame t, so that the last row has no meaning and is written
                as NaN if it is left out. Further columns are numbers.

        Raises:
            ValueError: lengths differ, a column is missing, new, empty or of another shape, its name is none of HDF5,
                an action is not finite, or a number does not fit the file's type.
            TypeError: pixels are not uint8, or a column does not hold numbers.
            OSError: the disk is full, or another reason not to write: this and all later episodes are left out.
            lewm.Error: the file was removed or replaced since the last episode.
        """
        arrays = _checked_episode(columns)
        with self._one_at_a_time, _interrupts_held_back():
            if self._lock is None:
                raise ValueError("write_episode: the writer is closed")
            if not self._columns:
                self._create(arrays)
            else:
                self._require_same_columns(arrays)
                self._require_countable(len(arrays["action"]))
                self._open_file()
                self._half_written = True
                self._append_episode(arrays)
                self._commit()
            self._rows += len(arrays["action"])
            self._episodes += 1
            self._half_written = False
            return self._episodes - 1

    def write_episodes(self, episodes: Iterable[Mapping[str, ArrayLike]]) -> None:
        """`write_episode` for each."""
        for columns in episodes:
            self.write_episode(columns)

    def close(self) -> None:
        """Finishes the file and waits for the disk; an episode that failed half-way is left out. Twice is fine."""
        with self._one_at_a_time, _interrupts_held_back():
            self._close()

    def _close(self) -> None:
        try:
            if self._file is not None and self._journal is not None:
                self._file.close()
                if self._half_written:
                    self._journal.sync()
                else:
                    self._journal.commit(durable=True)
        finally:
            self._file, self._datasets = None, {}
            if self._journal is not None:
                self._journal.close()
                self._journal = None
            if self._lock is not None:
                self._lock.release()
                self._lock = None

    def __del__(self) -> None:
        """Closes what was dropped without `close`, and says so. A forked child, or a process that ends, leaves it."""
        if getattr(self, "_lock", None) is None or self._process != os.getpid() or sys.is_finalizing():
            return
        try:
            self.close()
        finally:
            warnings.warn(f"{self.path}: the EpisodeWriter was not closed", ResourceWarning, 2, source=self)

    def __enter__(self) -> EpisodeWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ---- files ---------------------------------------------------------------------------------------------

    def _open_file(self) -> h5py.File:
        if self._file is None:
            self._journal = JournaledFile(self.path)
            self._file = h5py.File(self._journal, "r+")
            self._datasets = dict(self._file.items())
            register_filters(self._datasets.values())
        return self._file

    def _append_episode(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        length = len(arrays["action"])
        for name, array in arrays.items():
            self._append(name, array, self._rows + length)
        self._append("ep_len", np.array([length]), self._episodes + 1)
        self._append("ep_offset", np.array([self._rows]), self._episodes + 1)

    def _append(self, name: str, rows: NDArray[Any], end: int) -> None:
        dataset = self._datasets[name]
        dataset.resize(end, axis=0)
        dataset[end - len(rows) :] = rows

    def _commit(self) -> None:
        assert self._file is not None and self._journal is not None
        if not self._journal.in_place():
            raise Error(f"{self.path}: the file was removed or replaced while it was being written")
        self._file.flush()
        self._journal.commit()

    def _create(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """A file of this episode alone, made in memory: HDF5 does not survive a disk that is full."""
        content = io.BytesIO()
        with h5py.File(content, "w") as file:
            for name, value in self._attributes.items():
                file.attrs[name] = value
            for name, array in arrays.items():
                self._create_column(file, name, array.shape[1:], array.dtype)
            for name, dtype in _BOOKKEEPING.items():
                self._create_column(file, name, (), np.dtype(dtype))
            self._datasets = dict(file.items())
            self._append_episode(arrays)
        with replace_file(self.path) as target:
            target.write(content.getbuffer())
        self._columns = {name: (array.shape[1:], array.dtype) for name, array in arrays.items()}

    def _create_column(
        self, file: h5py.File, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]
    ) -> None:
        is_image = len(shape) == 3
        file.create_dataset(
            name,
            shape=(0, *shape),
            maxshape=(None, *shape),
            dtype=dtype,
            chunks=(max(1, _IMAGE_CHUNK_BYTES // math.prod(shape)) if is_image else _ROWS_PER_CHUNK, *shape),
            **(_filter_options(self._compression) if is_image else {}),
        )

    def _read_existing(self) -> None:
        """Takes over columns and counts of the file; it is opened for writing by the first episode."""
        with (
            hdf5_errors(f"{self.path}: not an HDF5 file that can be continued"),
            h5py.File(self.path, "r") as file,
        ):
            missing = [name for name in ("pixels", "action", *_BOOKKEEPING) if name not in file]
            if missing:
                raise Error(f"{self.path}: no column {missing[0]!r}, there are {sorted(file)}")
            self._require_same_attributes(file)
            self._require_same_compression(file["pixels"])
            for name in _BOOKKEEPING:
                kept = file[name]
                if kept.ndim != 1 or kept.dtype.kind not in "iu" or kept.maxshape[0] is not None:
                    raise Error(
                        f"{self.path}: {name}: expected (E,) integers made to grow, got {kept.shape} {kept.dtype}"
                    )
            lengths, offsets = file["ep_len"][:], file["ep_offset"][:]
            self._most = {name: int(np.iinfo(file[name].dtype).max) for name in _BOOKKEEPING}
            ends = np.concatenate([[0], np.cumsum(lengths)])
            if not np.array_equal(offsets, ends[:-1]):
                raise Error(f"{self.path}: ep_len and ep_offset do not describe episodes laid end to end")
            self._episodes, self._rows = len(lengths), int(ends[-1])
            for name, item in file.items():
                if name in _BOOKKEEPING or not isinstance(item, h5py.Dataset) or item.ndim == 0:
                    continue
                if len(item) >= self._rows:
                    if item.maxshape[0] is not None:
                        raise Error(f"{self.path}: {name} was not made to grow, the file cannot be continued")
                    if item.dtype.kind not in _NUMBERS:
                        raise Error(
                            f"{self.path}: {name}: expected numbers, got {item.dtype}; the file cannot be continued"
                        )
                    self._columns[name] = (item.shape[1:], item.dtype)
                elif name in ("pixels", "action"):
                    raise Error(f"{self.path}: {name} has {len(item)} rows, its episodes need {self._rows}")

    def _require_same_attributes(self, file: h5py.File) -> None:
        for name, value in self._attributes.items():
            if name not in file.attrs:
                raise ValueError(f"{name}: expected {value!r}, {self.path} does not say")
            held = file.attrs[name]
            held = held.item() if isinstance(held, np.generic) else held
            if held != value:
                raise ValueError(f"{name}: {self.path} was written with {held!r}, got {value!r}")

    def _require_same_compression(self, pixels: h5py.Dataset) -> None:
        if self._compression is None:
            return
        settings = pixels.id.get_create_plist()
        filters = [settings.get_filter(i)[0] for i in range(settings.get_nfilters())]
        held = [_FILTERS.get(f, f"HDF5 filter {f}") for f in filters if f not in _NO_COMPRESSION] or ["none"]
        if held != [self._compression]:
            raise ValueError(
                f"compression: {self.path} was written with {', '.join(held)}, got {self._compression}"
            )

    def _require_countable(self, length: int) -> None:
        for name, number in (("ep_len", length), ("ep_offset", self._rows)):
            if number > self._most[name]:
                raise ValueError(f"{name}: {self.path} holds numbers up to {self._most[name]}, got {number}")

    def _require_same_columns(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        if set(arrays) != set(self._columns):
            raise ValueError(f"columns: expected {sorted(self._columns)}, got {sorted(arrays)}")
        for name, array in arrays.items():
            shape, dtype = self._columns[name]
            if array.shape[1:] != shape:
                raise ValueError(f"{name}: expected (T, {', '.join(map(str, shape))}), got {array.shape}")
            if not np.can_cast(array.dtype, dtype, "same_kind"):
                raise TypeError(f"{name}: expected {dtype}, got {array.dtype}")
            outside = _outside(array, dtype)
            if outside.size:
                raise ValueError(f"{name}: expected numbers that fit {dtype}, got {outside[0]}")


@contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """Ctrl-C counts when the block has ended: HDF5 does not survive an exception in a file object that it calls."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came = threading.Event()
    before = signal.signal(signal.SIGINT, lambda *_: came.set())
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL if before is None else before)
        if came.is_set():
            signal.raise_signal(signal.SIGINT)


def _outside(array: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """The numbers of ``array`` beyond the range of ``dtype``."""
    if np.can_cast(array.dtype, dtype):
        return array[:0]
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        return array[(array < limits.min) | (array > limits.max)]
    with np.errstate(over="ignore"):
        return array[np.isinf(array.astype(dtype)) & ~np.isinf(array)]


def _checked_attributes(attributes: Mapping[str, Any]) -> dict[str, Any]:
    for name, value in attributes.items():
        if not isinstance(name, str) or not name or not _is_text(name):
            raise ValueError(f"attributes: expected names, got {name!r}")
        if not isinstance(value, (str, bool, int, float, np.number, np.bool_)):
            raise TypeError(f"attributes: {name}: expected a number or a string, got {type(value).__name__}")
        if isinstance(value, str) and not _is_text(value):
            raise ValueError(
                f"attributes: {name}: expected text that UTF-8 holds, without NUL, got {value!r:.80}"
            )
        if isinstance(value, int) and not -(2**63) <= value < 2**64:
            raise ValueError(f"attributes: {name}: expected an integer of 64 bits, got {value!r:.80}")
    # h5py has no type for numpy's text, which is a str.
    return {name: str(value) if isinstance(value, str) else value for name, value in attributes.items()}


def _is_text(value: str) -> bool:
    """Whether HDF5 holds it."""
    return is_unicode(value) and "\0" not in value


def _checked_episode(columns: Mapping[str, ArrayLike]) -> dict[str, NDArray[Any]]:
    """The columns as arrays of one length, ``action`` with its last row."""
    for name in ("pixels", "action"):
        if name not in columns:
            raise ValueError(f"columns: expected 'pixels' and 'action', got {sorted(columns)}")
    reserved = sorted(set(columns) & set(_BOOKKEEPING))
    if reserved:
        raise ValueError(f"columns: {reserved[0]!r} is kept by the writer")
    arrays = {name: _as_column(name, values) for name, values in columns.items()}
    pixels = arrays["pixels"]
    if pixels.dtype != np.uint8:
        raise TypeError(f"pixels: expected uint8, got {pixels.dtype}")
    if pixels.ndim != 4 or pixels.shape[-1] != 3 or 0 in pixels.shape:
        raise ValueError(f"pixels: expected (T, H, W, 3) with T >= 1, got {pixels.shape}")
    arrays["action"] = _checked_actions(arrays["action"], len(pixels))
    for name, array in arrays.items():
        if array.dtype.kind not in _NUMBERS:
            raise TypeError(f"{name}: expected numbers, got {array.dtype}")
        if array.ndim == 0 or len(array) != len(pixels):
            raise ValueError(f"{name}: expected {len(pixels)} rows as in pixels, got {array.shape}")
        if not array.size:
            raise ValueError(f"{name}: expected rows that hold something, got {array.shape}")
    return arrays


def _as_column(name: str, values: ArrayLike) -> NDArray[Any]:
    if not isinstance(name, str) or not name.strip(".") or "/" in name or not _is_text(name):
        raise ValueError(f"columns: expected names without '/', got {name!r}")
    try:
        return np.asarray(values)
    except (ValueError, TypeError, RuntimeError) as error:  # rows of several lengths, a tensor on a GPU
        raise ValueError(
            f"{name}: expected an array of numbers, got {type(values).__name__} ({error})"
        ) from None


def _checked_actions(actions: NDArray[Any], length: int) -> NDArray[np.float32]:
    if actions.dtype.kind not in "fiu":
        raise TypeError(f"action: expected numbers, got {actions.dtype}")
    if actions.ndim != 2 or len(actions) not in (length, length - 1) or not actions.shape[1]:
        raise ValueError(f"action: expected ({length}, A) or ({length - 1}, A), got {actions.shape}")
    rows = np.full((length, actions.shape[1]), np.nan, dtype=np.float32)
    rows[: len(actions)] = actions
    if not np.isfinite(rows[:-1]).all():
        row = int(np.flatnonzero(~np.isfinite(rows[:-1]).all(axis=1))[0])
        raise ValueError(
            f"action: expected finite numbers before the last row, row {row} is {rows[row].tolist()}"
        )
    if np.isinf(rows[-1]).any():
        raise ValueError(f"action: expected a finite or NaN last row, got {rows[-1].tolist()}")
    return rows


def _filter_options(compression: str | None) -> dict[str, Any]:
    if compression == "blosc":
        import hdf5plugin

        return dict(hdf5plugin.Blosc(cname="lz4", clevel=5, shuffle=hdf5plugin.Blosc.NOSHUFFLE))
    if compression == "gzip":
        return {"compression": "gzip", "compression_opts": 4}
    return {} if compression in (None, "none") else {"compression": compression}
