"""Which windows a step sees: their order, and the ranks' shares of it."""

from __future__ import annotations

import torch

__all__ = ["WindowOrder"]


class WindowOrder:
    """The windows of every step: a new permutation each epoch, cut into batches; a remainder is left out.

    A function of (windows, batch_size, seed) and the step alone, so a run resumes in the middle of an epoch, and any
    number of ranks sees the same batches.

    Args:
        windows: in the data; batch_size: windows per step over all ranks. Raises ValueError when there are too few.
    """

    def __init__(self, windows: int, batch_size: int, seed: int):
        if windows < batch_size:
            raise ValueError(f"batch_size: expected at most the {windows} training windows, got {batch_size}")
        self.windows = windows
        self.batch_size = batch_size
        self.steps_per_epoch = windows // batch_size
        self._seed = seed
        self._epoch = -1
        self._order = torch.empty(0, dtype=torch.int64)

    def batch(self, step: int, rank: int = 0, world: int = 1) -> list[int]:
        """Windows of one rank in one step, counted from 0; the ranks' shares are disjoint and make up the batch."""
        epoch, position = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed(((self._seed << 20) + epoch) % 2**63)
            self._order = torch.randperm(self.windows, generator=generator)
            self._epoch = epoch
        first = position * self.batch_size
        return self._order[first : first + self.batch_size][rank::world].tolist()
