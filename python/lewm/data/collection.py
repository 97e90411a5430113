"""Recording episodes of an environment into a file, in several processes, in a way that can be taken up again."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lewm.arrays import at_least
from lewm.data.writer import EpisodeWriter
from lewm.envs import environment_class
from lewm.envs.base import checked_image_size
from lewm.errors import Error

__all__ = ["collect", "episode_rng"]

_FRAMES_PER_TASK = 1 << 24  # bytes of frames that a worker records before it hands them over

Episode = dict[str, NDArray[Any]]


def episode_rng(seed: int, episode: int) -> np.random.Generator:
    """The randomness of one episode: it depends on the seed and the episode's index alone."""
    return np.random.default_rng([seed, episode])


def collect(
    env: str,
    out: str | Path,
    *,
    episodes: int,
    image_size: int = 224,
    policy: str | None = None,
    seed: int = 0,
    workers: int = 1,
    compression: str | None = None,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Records episodes 0 to ``episodes - 1`` into ``out`` and returns how many of them were recorded now.

    A file that holds some of them is continued. An episode depends on (env, policy, image_size, seed, its index) alone,
    so a collection that was interrupted, or grown later, has the content of one made in one go, for any ``workers``.

    Args:
        env: id or short name, such as "lewm/TwoRoom-v0" or "two_room".
        out: HDF5 file; its folder is made. See `lewm.data.EpisodeWriter` for what happens when the process is killed.
        episodes: how many the file shall hold.
        image_size: side of the frames, in pixels. The frames of an episode must fit into the machine's memory.
        policy: one of the environment's ``policies``; its first by default.
        seed: of the collection, from 0 to 2^64 - 1.
        workers: processes that record. 1: this one, as for an environment that records in batches.
        compression: of the frames, see `lewm.data.EpisodeWriter`.
        overwrite: start anew instead of continuing.
        progress: called with (episodes in the file, ``episodes``) after each one.

    Raises:
        ValueError: an argument is out of range, or the existing file was made with another environment, policy, frame
            size, seed or compression.
        lewm.Error: a process that records ended by itself; and see `lewm.data.EpisodeWriter`.
    """
    for name, value, least in (("episodes", episodes, 1), ("workers", workers, 1), ("seed", seed, 0)):
        at_least(name, value, least)
    if seed >= 2**64:
        raise ValueError(f"seed: expected an int below 2^64, got {seed}")
    kind = environment_class(env)
    policy = next(iter(kind.policies)) if policy is None else policy
    kind.make_policy(policy)  # refuses an unknown one before anything is written
    image_size = checked_image_size(image_size)
    _require_memory(image_size, kind.max_episode_steps + 1)
    out = Path(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    attributes = {"env": kind.env_id, "image_size": image_size, "policy": policy, "seed": int(seed)}
    with EpisodeWriter(out, compression=compression, attributes=attributes, overwrite=overwrite) as writer:
        had = writer.episodes
        per_task = _episodes_per_task(image_size, kind.max_episode_steps)
        tasks = (
            (kind.env_id, policy, image_size, seed, range(first, min(first + per_task, episodes)))
            for first in range(had, episodes, per_task)
        )
        needed = max(1, -(-(episodes - had) // per_task))  # that have a task each
        processes = 1 if kind.records_in_batches else min(workers, needed)
        for recorded in _record_tasks(tasks, processes):
            for columns in recorded:
                writer.write_episode(columns)
                if progress is not None:
                    progress(writer.episodes, episodes)
        return writer.episodes - had


def _require_memory(image_size: int, frames: int) -> None:
    needed = frames * 3 * image_size**2
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > memory:
        raise ValueError(
            f"image_size: an episode of {frames} frames with {image_size} pixels a side takes {needed >> 30} GiB, "
            f"this machine has {memory >> 30} GiB of memory"
        )


def _episodes_per_task(image_size: int, steps: int) -> int:
    return int(np.clip(_FRAMES_PER_TASK // (3 * image_size**2 * steps), 1, 64))


def _record_tasks(tasks: Iterable[tuple[Any, ...]], workers: int) -> Iterator[list[Episode]]:
    """The episodes of each task, in order; at most two tasks per worker are under way or wait to be taken."""
    if workers == 1:
        for task in tasks:
            yield _record(*task)
        return
    context = multiprocessing.get_context("spawn")  # a forked simulator may share its graphics context
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_begin_worker)
    waiting: deque[Future[list[Episode]]] = deque()
    try:
        for task in tasks:
            with _interrupts_blocked():  # as a worker that this starts is born; see _begin_worker
                waiting.append(pool.submit(_record, *task))
            if len(waiting) == 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool:
        raise Error("a process that records ended by itself; was there too little memory?") from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _record(env: str, policy: str, image_size: int, seed: int, indices: range) -> list[Episode]:
    rngs = [episode_rng(seed, index) for index in indices]
    return list(environment_class(env).record_episodes(policy, rngs, image_size))


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin_worker() -> None:
    """Ctrl-C ends a worker at once and silently, also one that was still starting: as an exception it could leave the
    pool without an end. And a worker ends when its parent is killed, instead of waiting for work for ever."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # a shell's job in the background has no Ctrl-C
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})

    def wait() -> None:
        parent = multiprocessing.parent_process()
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
