"""Latents of recorded episodes, with the physical quantities recorded beside them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lewm.arrays import at_least
from lewm.checkpoint import Checkpoint
from lewm.data.episode_file import EpisodeFile
from lewm.errors import Error
from lewm.model import Model
from lewm.planner_options import checked_seed

__all__ = ["EncodedEpisodes", "encode_episodes", "random_weights"]

_NOT_PHYSICAL = ("pixels", "action")
_BATCH = 64  # frames encoded at once


@dataclass(frozen=True)
class EncodedEpisodes:
    """N frames of some episodes, in time order and at equal distances within each."""

    frames: NDArray[np.uint8]
    """(N, H, W, 3)"""
    latents: NDArray[np.float32]
    """(N, D)"""
    episode: NDArray[np.int64]
    """(N,) which episode each belongs to."""
    columns: dict[str, NDArray[np.float64]]
    """Recorded quantities: name -> (N, width)."""


def encode_episodes(
    model: Model,
    path: str | Path,
    *,
    episodes: int,
    stride: int | None = None,
    columns: Sequence[str] | None = None,
    seed: int = 0,
    progress: Callable[[int, int], Any] = lambda done, total: None,
) -> EncodedEpisodes:
    """Encodes randomly chosen episodes of a file.

    Args:
        episodes: how many; all of them if the file has fewer.
        stride: environment steps between frames; None: the model's frame skip.
        columns: the recorded quantities; None: all numeric ones beside pixels and actions.
        seed: which episodes.
        progress: called with the episodes done and their number.

    Raises:
        FileNotFoundError, lewm.Error: as `EpisodeFile`; also for a column that is not there, or holds no numbers.
        ValueError: a number is out of range, or the recorded frames are not of the model's size.
    """
    at_least("episodes", episodes)
    checked_seed(seed)
    step = model.config.frame_skip if stride is None else at_least("stride", stride)
    file = EpisodeFile(path)
    longest = int(file.lengths.max(initial=0))
    if stride is not None and stride >= longest:
        raise ValueError(f"stride: expected less than the {longest} steps of an episode, got {stride}")
    size = model.config.image_size
    recorded = file.column("pixels").shape[1:]
    if recorded != (size, size, 3):
        raise ValueError(f"path: expected frames of {(size, size, 3)} as the model has, got {recorded}")
    names = list(columns) if columns is not None else _numeric_columns(file)
    if "pixels" in names:
        raise ValueError("columns: expected quantities, got 'pixels', which are what is encoded")
    if not file.episodes:
        raise Error(f"{path}: expected episodes, it holds none")
    count = min(episodes, file.episodes)
    chosen = np.sort(np.random.default_rng(seed).choice(file.episodes, count, replace=False))
    parts: dict[str, list[NDArray[Any]]] = {name: [] for name in ("pixels", *names)}
    latents, episode = [], []
    for done, index in enumerate(chosen, start=1):
        first = int(file.offsets[index])
        stop = first + int(file.lengths[index])
        for name, part in parts.items():
            part.append(file.read_numbers(name, first, stop, step))
        frames = parts["pixels"][-1]
        latents.append(_encode(model, frames))
        episode.append(np.full(len(frames), index))
        progress(done, count)
    return EncodedEpisodes(
        frames=np.concatenate(parts.pop("pixels")),
        latents=np.concatenate(latents),
        episode=np.concatenate(episode),
        columns={name: _as_matrix(np.concatenate(part)) for name, part in parts.items()},
    )


def random_weights(model: Model, seed: int = 0) -> Model:
    """An untrained model of the same sizes, initialised as training does; needs torch."""
    import torch

    from lewm.nn import LeWM

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = LeWM(model.config)
    state = {name: tensor.numpy() for name, tensor in module.state_dict().items()}
    checkpoint = Checkpoint(model.config, state, model.preprocessing, model.action_scaling)
    return Model.from_checkpoint(checkpoint, precision="fp32")


def _encode(model: Model, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
    return np.concatenate(
        [model.encode(frames[first : first + _BATCH]) for first in range(0, len(frames), _BATCH)]
    )


def _numeric_columns(file: EpisodeFile) -> list[str]:
    return [
        name
        for name in file.columns
        if name not in _NOT_PHYSICAL and file.handle[name].dtype.kind in "fiu" and file.handle[name].ndim <= 2
    ]


def _as_matrix(values: NDArray[Any]) -> NDArray[np.float64]:
    return np.asarray(values, dtype=np.float64).reshape(len(values), -1)
