"""Which windows a step sees, and getting them there: order, sharding over ranks, reading ahead."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from lewm.data import TrajectoryDataset

__all__ = ["WindowOrder", "ahead", "loader"]

T = TypeVar("T")


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
            generator = torch.Generator().manual_seed((self._seed << 20) + epoch)
            self._order = torch.randperm(self.windows, generator=generator)
            self._epoch = epoch
        first = position * self.batch_size
        return self._order[first : first + self.batch_size][rank::world].tolist()


def loader(
    dataset: TrajectoryDataset, batches: Sequence[Sequence[int]], *, workers: int, pin: bool
) -> Iterator[dict[str, Tensor]]:
    """Batches of these windows, in order, read ahead by `workers` processes, or by one thread when there are none."""
    source: DataLoader[dict[str, Tensor]] = DataLoader(
        dataset,
        sampler=batches,  # a list of windows is one index, its batch one item
        batch_size=None,
        num_workers=workers,
        pin_memory=pin,
        generator=torch.Generator(),  # torch's own generator belongs to the model: resuming is exact
    )
    return iter(source) if workers else ahead(source)


_END = object()


def ahead(items: Iterable[T], depth: int = 2) -> Iterator[T]:
    """The items, produced by a thread that stays up to `depth` of them ahead. Its exceptions are raised here."""
    ready: queue.Queue[Any] = queue.Queue(depth)
    stop = threading.Event()

    def put(item: Any) -> None:
        while not stop.is_set():
            try:
                return ready.put(item, timeout=0.1)
            except queue.Full:
                continue

    def produce() -> None:
        try:
            for item in items:
                put(item)
                if stop.is_set():
                    return
            put(_END)
        except BaseException as error:  # handed to the consumer
            put(error)

    thread = threading.Thread(target=produce, name="lewm-data", daemon=True)
    thread.start()
    try:
        while True:
            item = ready.get()
            if item is _END:
                return
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stop.set()
        thread.join()
