"""Batches of windows, read ahead by a thread or by processes."""

from __future__ import annotations

import queue
import signal
import threading
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from lewm.arrays import at_least
from lewm.data.dataset import TrajectoryDataset

__all__ = ["ahead", "read_batches"]

T = TypeVar("T")

_AHEAD = 2  # batches that a process reads before they are asked for


def read_batches(
    dataset: TrajectoryDataset,
    batches: Iterable[Sequence[int]],
    *,
    workers: int = 0,
    pin: bool = False,
    reuse: bool = False,
) -> Iterator[dict[str, Tensor]]:
    """Batches of these windows, in order: what ``dataset[windows]`` returns, read ahead.

    Args:
        dataset: the windows.
        batches: of each batch the indices of its windows; asked for a few batches ahead.
        workers: processes that read; 0: one thread of this process.
        pin: put the batches into pinned memory, for copies to a GPU.
        reuse: with ``workers`` and without ``pin``, keep the frames in memory that the processes share and use again:
            ``pixels`` of a batch may be overwritten once the next but one is asked for. New memory costs more than
            reading does: the system hands it out zeroed, a page at a time, and a batch is several megabytes. Batches
            larger than the first are read into new memory all the same.

    Raises:
        ValueError, TypeError: an argument is out of range.
    """
    at_least("workers", workers, 0)
    options: dict[str, Any] = {
        "batch_size": None,  # an index is a batch already
        "num_workers": workers,
        "pin_memory": pin,
        "generator": torch.Generator(),  # torch's own generator belongs to the model: resuming is exact
        "worker_init_fn": _leave_ending_to_the_parent,
    }
    if workers and reuse and not pin:
        return _reused(dataset, iter(batches), {**options, "prefetch_factor": _AHEAD})
    source: DataLoader[dict[str, Tensor]] = DataLoader(dataset, sampler=batches, **options)
    return iter(source) if workers else ahead(source)


def _leave_ending_to_the_parent(_: int) -> None:
    """In a worker: a signal to all of a job's processes ends the parent in good order, and the workers after it."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


class _Slots(Dataset[tuple[int, int, dict[str, Tensor]]]):
    """Reads batches into slots of shared memory: (slot, windows) -> (slot, how many, the rest of the batch); all of a
    batch that does not fit into a slot."""

    def __init__(self, dataset: TrajectoryDataset, frames: Tensor) -> None:
        self._dataset, self._frames = dataset, frames

    def __getitem__(self, task: tuple[int, Sequence[int]]) -> tuple[int, int, dict[str, Tensor]]:
        slot, windows = task
        if len(windows) > self._frames.shape[1]:
            return slot, len(windows), self._dataset[windows]
        batch = self._dataset.batch(windows, self._frames[slot, : len(windows)])
        del batch["pixels"]
        return slot, len(windows), batch


def _reused(
    dataset: TrajectoryDataset, batches: Iterator[Sequence[int]], options: dict[str, Any]
) -> Iterator[dict[str, Tensor]]:
    first = next(batches, None)
    if first is None:
        return
    # While one batch is in use, so many are being read or wait; and the one before may still be in use, too.
    slots = options["num_workers"] * _AHEAD + 2
    shape = (slots, len(first), dataset.frames, *dataset.frame_shape)
    frames = torch.empty(shape, dtype=torch.uint8).share_memory_()
    tasks = ((index % slots, windows) for index, windows in enumerate(chain((first,), batches)))
    for slot, count, rest in DataLoader(_Slots(dataset, frames), sampler=tasks, **options):
        yield rest if "pixels" in rest else {"pixels": frames[slot, :count], **rest}


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
