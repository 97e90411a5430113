"""Windows of frames and action blocks for training (the published stack cuts episodes into the same ones)."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, cast, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from lewm.arrays import at_least
from lewm.checkpoint.contents import Scaling, scaling
from lewm.data.episode_file import EpisodeFile, hdf5_errors
from lewm.errors import Error

__all__ = ["TrajectoryDataset", "fit_scaling"]

_LEAST_STD = 1e-8
_IN_MEMORY_SHARE = 0.3  # of the memory that is free, for in_memory="auto"
_BLOCK_ROWS = 1024


class TrajectoryDataset(Dataset[dict[str, Tensor]]):
    """Windows of recorded episodes: ``dataset[i]`` is one, ``dataset[[i, j, ...]]`` a batch.

    A window is T = ``frames`` frames, ``frame_skip`` rows apart, with the block of actions that leaves each of them. It
    starts at row s of an episode and spans T * frame_skip rows: frame t is row s + t * frame_skip, block t the actions
    of rows s + t * frame_skip to s + (t + 1) * frame_skip - 1. Every s at which the span fits is a window, so an
    episode of L rows has L - T * frame_skip + 1 of them, and a shorter one has none.

    An item holds:
        pixels: (T, H, W, 3) uint8 RGB.
        action: (T, frame_skip * A) float32, a block flattened in time order; standardised per action dimension with the
            mean and the population standard deviation of all rows without NaN, then NaN -> 0.
        and each of ``columns``, which hold numbers: (T, ...) as in the file, at the frames' rows.
    A batch has another dimension in front.

    Args:
        path: an HDF5 file with ``pixels``, ``action``, ``ep_len`` and ``ep_offset``.
        frames: T.
        frame_skip: environment steps between two frames.
        columns: further columns to return.
        episodes: indices of the episodes to use; all by default.
        action_scaling: standardise with this instead of the file's own statistics.
        in_memory: keep all frames in memory: True, False, or "auto", if they take less than 30% of what is free.

    Raises:
        FileNotFoundError: there is no such file.
        lewm.Error: it is not an episode file, lacks a column (the message names it and lists those there are), has one
            of another shape or type, has NaN or infinity in an action before an episode's last row, or no action.
        ValueError: an argument is out of range, ``columns`` names one that every item has, or no episode is long enough
            for a window.
        TypeError: ``episodes`` are not integers, or ``columns`` is one name.
    """

    def __init__(
        self,
        path: str | Path,
        frames: int = 4,
        frame_skip: int = 5,
        *,
        columns: Sequence[str] = (),
        episodes: Iterable[int] | None = None,
        action_scaling: Scaling | None = None,
        in_memory: bool | str = "auto",
    ) -> None:
        self.frames = at_least("frames", frames)
        self.frame_skip = at_least("frame_skip", frame_skip)
        if in_memory not in (True, False, "auto"):
            raise ValueError(f"in_memory: expected True, False or 'auto', got {in_memory!r}")
        if isinstance(columns, str):
            raise TypeError(f"columns: expected a sequence of names, got {columns!r}")
        self.columns = tuple(columns)
        for name in ("pixels", "action"):
            if name in self.columns:
                raise ValueError(f"columns: {name!r} is in every window already")
        self.file = EpisodeFile(path)
        if not self.file.episodes:
            raise Error(f"{path}: expected episodes, it holds none")
        pixels = self.file.column("pixels")
        if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[-1] != 3 or 0 in pixels.shape:
            raise Error(f"{path}: pixels: expected (N, H, W, 3) uint8, got {pixels.shape} {pixels.dtype}")
        self.frame_shape: tuple[int, ...] = pixels.shape[1:]
        """(H, W, 3)"""
        actions = _read_actions(self.file)
        self._extra = {name: self.file.read_numbers(name, 0, None) for name in self.columns}
        self.action_scaling: Scaling = (
            _fitted_scaling(actions, path)
            if action_scaling is None
            else scaling("action_scaling", action_scaling, actions.shape[1])
        )
        self._actions = _standardised(actions, self.action_scaling)
        self._pixels = self._read_all() if self._fits(in_memory, pixels.size) else None
        if self._pixels is None:
            self.file.locate("pixels")  # once, here, rather than in every worker
        self._use_episodes(np.arange(self.file.episodes) if episodes is None else episodes)

    # ---- sizes ---------------------------------------------------------------------------------------------

    @property
    def num_windows(self) -> int:
        """Windows over all episodes used."""
        return int(self._window_ends[-1])

    def __len__(self) -> int:
        return self.num_windows

    @property
    def image_size(self) -> int:
        """Height of a frame, in pixels."""
        return int(self.frame_shape[0])

    @property
    def action_dim(self) -> int:
        """A, of one environment step."""
        return int(self._actions.shape[1])

    @property
    def span(self) -> int:
        """Rows of an episode that a window takes."""
        return self.frames * self.frame_skip

    @property
    def in_memory(self) -> bool:
        """Whether the frames are kept in memory."""
        return self._pixels is not None

    # ---- subsets -------------------------------------------------------------------------------------------

    def subset(self, episodes: Iterable[int]) -> TrajectoryDataset:
        """The windows of these episodes of the file; shares what is in memory, and the action scaling."""
        part = copy.copy(self)
        part.file = copy.copy(self.file)
        part._use_episodes(episodes)
        return part

    def split(self, fraction: float = 0.1, seed: int = 0) -> tuple[TrajectoryDataset, TrajectoryDataset]:
        """(training, validation): whole episodes, ``fraction`` of them for validation; the same for the same seed.

        Raises:
            ValueError: one of the two would be empty, or ``seed`` is no int of at least 0.
        """
        if isinstance(fraction, str) or not 0.0 < fraction < 1.0:
            raise ValueError(f"fraction: expected a number between 0 and 1, got {fraction!r}")
        at_least("seed", seed, 0)
        held_out = max(1, round(len(self.episodes) * fraction))
        if held_out >= len(self.episodes):
            raise ValueError(f"fraction: {fraction} of {len(self.episodes)} episodes leaves none to train on")
        order = np.random.default_rng(seed).permutation(self.episodes)
        return self.subset(np.sort(order[held_out:])), self.subset(np.sort(order[:held_out]))

    def _use_episodes(self, episodes: Iterable[int]) -> None:
        chosen = _integers("episodes", list(episodes))
        total = self.file.episodes
        if len(chosen) and (chosen.min() < 0 or chosen.max() >= total):
            raise ValueError(
                f"episodes: expected indices below {total}, got {chosen.min()} to {chosen.max()}"
            )
        longest = int(self.file.lengths[chosen].max(initial=0))
        windows = np.maximum(self.file.lengths[chosen] - min(self.span, longest + 1) + 1, 0)
        if not windows.sum():
            raise ValueError(
                f"{self.file.path}: a window needs {self.span} rows ({self.frames} frames, frame_skip "
                f"{self.frame_skip}), the longest of {len(chosen)} episodes has {longest}"
            )
        self.episodes: NDArray[np.int64] = chosen[windows > 0]
        """Episodes that have windows, by their index in the file."""
        self._window_ends = np.cumsum(windows[windows > 0])

    # ---- items ---------------------------------------------------------------------------------------------

    def window_starts(self, indices: Sequence[int] | NDArray[np.int64]) -> NDArray[np.int64]:
        """First rows in the file of these windows, (B,).

        Raises:
            IndexError: an index is not that of a window. TypeError: it is no integer.
        """
        index = _integers("indices", indices)
        count = self.num_windows
        if index.size and (index.min() < -count or index.max() >= count):
            raise IndexError(f"window {index.min()} to {index.max()} of {count}")
        index = np.where(index < 0, index + count, index)
        place = np.searchsorted(self._window_ends, index, side="right")
        before = np.concatenate([[0], self._window_ends])[place]
        return self.file.offsets[self.episodes[place]] + index - before

    @overload
    def __getitem__(self, index: int) -> dict[str, Tensor]: ...
    @overload
    def __getitem__(self, index: Sequence[int] | slice) -> dict[str, Tensor]: ...
    def __getitem__(self, index: int | Sequence[int] | slice) -> dict[str, Tensor]:
        if isinstance(index, slice):
            index = range(*index.indices(len(self)))
        if isinstance(index, int) or getattr(index, "ndim", None) == 0:  # or an array or tensor of one number
            return {name: values[0] for name, values in self.batch([cast(int, index)]).items()}
        return self.batch(index)

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Tensor]]:
        """What torch's DataLoader calls: the windows of a batch, read together."""
        batch = self.batch(indices)
        return [{name: values[k] for name, values in batch.items()} for k in range(len(indices))]

    def batch(self, indices: Sequence[int], pixels: Tensor | None = None) -> dict[str, Tensor]:
        """``dataset[indices]``, with the frames in ``pixels``, contiguous (B, T, H, W, 3) uint8, where it is given.

        Raises:
            IndexError: an index is not that of a window.
            ValueError: ``pixels`` is something else.
        """
        starts = self.window_starts(indices)
        rows = starts[:, None] + np.arange(self.frames) * self.frame_skip  # (B, T)
        shape = (*rows.shape, *self.frame_shape)
        if pixels is None:
            pixels = torch.empty(shape, dtype=torch.uint8)
        elif pixels.shape != shape or pixels.dtype != torch.uint8 or not pixels.is_contiguous():
            raise ValueError(
                f"pixels: expected contiguous {shape} uint8, got {tuple(pixels.shape)} {pixels.dtype}"
            )
        if self._pixels is not None:
            np.take(self._pixels, rows, axis=0, out=pixels.numpy(), mode="clip")
        else:
            self.file.read_frames("pixels", starts, self.frames, self.frame_skip, pixels.numpy())
        steps = starts[:, None] + np.arange(self.span)
        blocks = self._actions[steps].reshape(len(starts), self.frames, self.frame_skip * self.action_dim)
        extra = {name: torch.from_numpy(values[rows]) for name, values in self._extra.items()}
        return {"pixels": pixels, "action": torch.from_numpy(blocks), **extra}

    # ---- memory --------------------------------------------------------------------------------------------

    def _fits(self, in_memory: bool | str, frame_bytes: int) -> bool:
        return frame_bytes < _IN_MEMORY_SHARE * _free_memory() if in_memory == "auto" else bool(in_memory)

    def _read_all(self) -> NDArray[np.uint8]:
        column = self.file.column("pixels")
        frames = np.empty(column.shape, dtype=np.uint8)
        with hdf5_errors(f"{self.file.path}: pixels cannot be read"):
            for first in range(0, len(frames), _BLOCK_ROWS):
                block = np.s_[first : first + _BLOCK_ROWS]
                column.read_direct(frames, block, block)
        return frames


def _integers(name: str, values: Sequence[int] | NDArray[Any]) -> NDArray[np.int64]:
    try:
        array = np.asarray(values)
    except ValueError as error:  # lists of several lengths
        raise TypeError(f"{name}: expected a list of integers ({error})") from None
    if array.ndim != 1:
        raise TypeError(f"{name}: expected a list of integers, got an array of shape {array.shape}")
    if array.dtype.kind not in "iu" and array.size:
        raise TypeError(f"{name}: expected integers, got {array.dtype}")
    return array.astype(np.int64)


def fit_scaling(actions: NDArray[Any]) -> Scaling:
    """Mean and population standard deviation of each dimension of ``actions`` (N, A) over the rows without
    NaN.

    A dimension that never changes gets a standard deviation of 1e-8, so that it standardises to 0.

    Raises:
        ValueError: there is no row without NaN.
    """
    rows = actions[~np.isnan(actions).any(axis=1)].astype(np.float64)
    if not len(rows):
        raise ValueError(f"actions: no row of {len(actions)} is free of NaN")
    std = np.maximum(rows.std(axis=0), _LEAST_STD)
    return scaling("actions", {"mean": rows.mean(axis=0).tolist(), "std": std.tolist()}, actions.shape[1])


def _fitted_scaling(actions: NDArray[Any], path: str | Path) -> Scaling:
    try:
        return fit_scaling(actions)
    except ValueError as error:
        raise Error(f"{path}: {error}") from None


def _standardised(actions: NDArray[np.float32], by: Scaling) -> NDArray[np.float32]:
    standard = (actions - np.asarray(by["mean"])) / np.asarray(by["std"])
    return np.nan_to_num(standard, nan=0.0).astype(np.float32)


def _read_actions(file: EpisodeFile) -> NDArray[np.float32]:
    column = file.column("action")
    if column.ndim != 2 or column.dtype.kind != "f" or not column.shape[1]:
        raise Error(f"{file.path}: action: expected (N, A) floats, got {column.shape} {column.dtype}")
    actions = file.read("action", 0, None).astype(np.float32)
    last = np.zeros(len(actions), dtype=bool)
    last[file.offsets + file.lengths - 1] = True
    used = np.zeros(len(actions) + 1, dtype=np.int64)
    np.add.at(used, file.offsets, 1)
    np.add.at(used, file.offsets + file.lengths, -1)
    in_episode = np.cumsum(used)[:-1] > 0
    unusable = np.where(last, np.isinf(actions).any(axis=1), ~np.isfinite(actions).all(axis=1))
    bad = np.flatnonzero(in_episode & unusable)
    if len(bad):
        episode = int(np.flatnonzero((file.offsets <= bad[0]) & (bad[0] < file.offsets + file.lengths))[0])
        raise Error(
            f"{file.path}: action: step {bad[0] - file.offsets[episode]} of episode {episode} is "
            f"{actions[bad[0]].tolist()}; only the last row of an episode may be NaN"
        )
    actions[~in_episode] = np.nan
    return actions


def _free_memory() -> int:
    """Bytes that this process may still allocate without swapping; 0 if the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return 0
    group = Path("/sys/fs/cgroup")
    try:  # the limit of a container
        limit = int((group / "memory.max").read_text())
        return min(free, max(0, limit - int((group / "memory.current").read_text())))
    except (OSError, ValueError):  # none, or "max"
        return free
