"""Plans that begin with what was done before: recorded action sequences, found by the frame they followed.

A search over any actions finds those that the model is wrong about, where the data leave room for it. One that begins
with the sequence that suits the goal best among those recorded in similar frames, and looks around it with a small
``std``, stays where the model was trained (Argenson & Dulac-Arnold, arXiv 2008.05556, do so with a cloned policy).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lewm.arrays import as_array, at_least, finite
from lewm.errors import Error
from lewm.model import Model, check_context
from lewm.planner import Planner

__all__ = ["RecordedActions"]

_FRAMES_AT_ONCE = 1024  # read and encoded


class RecordedActions:
    """Action sequences and the latents of the frames that they followed.

    Args:
        latents: (N, D) float32.
        actions: (N, H, A) float32, standardised blocks.

    Raises:
        TypeError: another element type. ValueError: another shape, or NaN.
    """

    def __init__(self, latents: Any, actions: Any) -> None:
        self._latents = finite("latents", as_array("latents", latents, np.float32, ("N", "D"))).copy()
        shape = (len(self._latents), "H", "A")
        self._actions = finite("actions", as_array("actions", actions, np.float32, shape)).copy()
        self._squares = np.square(self._latents).sum(1)

    @classmethod
    def from_episodes(
        cls, model: Model, data: str | Path, horizon: int = 5, every: int | None = None
    ) -> RecordedActions:
        """The sequences of ``horizon`` blocks in a file of episodes.

        Args:
            model: encodes the frames.
            data: HDF5 file with ``pixels`` of the model's image size and ``action`` (docs/data.md).
            horizon: of the planner.
            every: steps between two frames that sequences begin at; None: the model's frame skip.

        Raises:
            ValueError: an argument is out of range. ImportError: h5py is not installed.
            lewm.Error: the frames or actions are not the model's, or no episode is long enough.
        """
        try:
            from lewm.data.episode_file import EpisodeFile
        except ModuleNotFoundError as error:
            raise ImportError(f"episode files need {error.name}: pip install 'lewm[train]'") from error
        config = model.config
        every = config.frame_skip if every is None else at_least("every", every)
        steps = at_least("horizon", horizon) * config.frame_skip
        file = EpisodeFile(data)
        try:
            _require(file, "pixels", (config.image_size, config.image_size, 3), np.uint8)
            _require(file, "action", (config.action_dim,), np.floating)
            taken = file.column("action")[:].astype(np.float32)
            starts = [
                np.arange(offset, offset + length - steps + 1, every)
                for offset, length in zip(file.offsets, file.lengths, strict=True)
            ]
            rows = np.concatenate([np.empty(0, np.int64), *starts])
            sequences = taken[rows[:, None] + np.arange(steps)]
            known = np.isfinite(sequences).all((1, 2))  # the last action of an episode may be NaN
            rows, sequences = rows[known], sequences[known]
            if not len(rows):
                raise Error(f"{data}: no episode has {steps} known actions, as {horizon} blocks need")
            latents = _encode(model, file, rows)
        finally:
            file.close()
        blocks = model.standardise(sequences.reshape(len(rows), horizon, config.frame_skip, -1))
        return cls(latents, blocks)

    def __len__(self) -> int:
        return len(self._latents)

    def near(self, latents: Any, count: int = 128) -> NDArray[np.float32]:
        """(B, P, H, A): the sequences that followed the frames with the nearest latents, nearest first.

        Args:
            latents: (B, D) float32.
            count: P; fewer if fewer are recorded.

        Raises:
            TypeError: another element type. ValueError: another shape, NaN, or no count.
        """
        width = self._latents.shape[1]
        sought = finite("latents", as_array("latents", latents, np.float32, ("B", width)))
        count = min(at_least("count", count), len(self))
        return np.stack([self._actions[self._nearest(latent, count)] for latent in sought])

    def _nearest(self, latent: NDArray[np.float32], count: int) -> NDArray[np.intp]:
        """One latent at a time: what is near does not depend on the batch."""
        distance = self._squares - 2 * (self._latents @ latent)
        nearest = np.sort(np.argpartition(distance, count - 1)[:count])
        return nearest[np.argsort(distance[nearest], kind="stable")]

    def warm_start(
        self,
        planner: Planner,
        latents: Any,
        goal: Any,
        *,
        past_actions: Any = None,
        rest: Any = None,
        count: int = 128,
    ) -> NDArray[np.float32]:
        """(B, H, A) for ``Planner.plan_latents``: the cheapest of what was recorded near the present frames.

        Args:
            planner: whose cost it is.
            latents: (B, C, D) of the context frames, oldest first. goal: (B, D).
            past_actions: (B, C - 1, A), as for ``Planner.evaluate``.
            rest: (B, at most H, A) of the last plan, which takes part too; zeros behind it.
            count: sequences compared for each problem.

        Raises:
            TypeError: another element type. ValueError: another shape, NaN, or sequences of another horizon.
        """
        horizon, width = self._actions.shape[1:]
        config = planner.model.config
        if (horizon, width) != (planner.horizon, config.block_dim):
            raise ValueError(
                f"planner: expected horizon {horizon} and blocks of {width} as recorded, "
                f"got {planner.horizon} and {config.block_dim}"
            )
        latents, past = check_context(config, latents, past_actions)
        starts = self.near(latents[:, -1], count)
        if rest is not None and np.shape(rest)[1:2] != (0,):
            rest = finite("rest", as_array("rest", rest, np.float32, (len(latents), "H", width)))
            if rest.shape[1] > horizon:
                raise ValueError(f"rest: expected at most {horizon} blocks, got {rest.shape[1]}")
            padded = np.zeros((len(latents), 1, horizon, width), np.float32)
            padded[:, 0, : rest.shape[1]] = rest
            starts = np.concatenate([padded, starts], axis=1)
        cost = planner.evaluate(latents, goal, starts, past)
        best = np.where(np.isfinite(cost), cost, np.inf).argmin(1)
        return starts[np.arange(len(starts)), best]


def _require(file: Any, name: str, row: tuple[int, ...], dtype: type[np.generic]) -> None:
    column = file.column(name)
    if column.shape[1:] != row or not np.issubdtype(column.dtype, dtype):
        raise Error(
            f"{file.path}: {name}: expected (N, {', '.join(map(str, row))}) {dtype.__name__} as the model, "
            f"got {column.shape} {column.dtype}"
        )


def _encode(model: Model, file: Any, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    size = model.config.image_size
    parts = []
    for first in range(0, len(rows), _FRAMES_AT_ONCE):
        part = rows[first : first + _FRAMES_AT_ONCE]
        frames = np.empty((len(part), 1, size, size, 3), np.uint8)
        file.read_frames("pixels", part, 1, 1, frames)
        parts.append(model.encode(frames[:, 0]))
    return np.concatenate(parts)
