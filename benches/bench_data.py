"""Reading shuffled windows from HDF5, beside the published reader, in one process.

    python benches/bench_data.py                         # 224x224, 4 frames, frame skip 5, 2 workers
    python benches/bench_data.py --size 64 --workers 0
    python benches/bench_data.py --cold                  # every run begins with nothing of the file in memory
    python benches/bench_data.py --memory                # and what lewm's processes hold over an epoch

Needs an environment with stable-worldmodel. The readers serve the same file with the same batches, to uint8 tensors:
the published one through torch's DataLoader, as its training script has it; this package's through `read_batches`, as
its trainer has it, and through the same DataLoader. The file holds rendered Two-Room episodes; it is written raw, with
gzip and with Blosc, at 224x224 in chunks of one frame as the published writer does. Runs alternate, and the best of
each reader counts. The ceiling is the rate at which this process copies the frames of a batch, read already, into a new
tensor.

A file larger than memory is one whose frames come from the disk: with --cold the kernel is told to forget the file
before each run, and no run reads a frame twice but by chance.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import itertools
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from stable_worldmodel.data.formats.hdf5 import HDF5Dataset
from torch.utils.data import DataLoader

from lewm.data import EpisodeFile, TrajectoryDataset, read_batches
from lewm.data.collection import collect

COMPRESSIONS = ("none", "gzip", "blosc")
FRAMES, FRAME_SKIP = 4, 5

Batches = Iterator[dict[str, torch.Tensor]]


def published(path: Path, order: torch.Tensor, batch: int, workers: int) -> Batches:
    """The published reader as its training script sets it up: actions cached, pixels read."""
    dataset = HDF5Dataset(
        path=path,
        frameskip=FRAME_SKIP,
        num_steps=FRAMES,
        keys_to_load=["pixels", "action"],
        keys_to_cache=["action"],
    )
    return iter(DataLoader(dataset, sampler=order.tolist(), batch_size=batch, num_workers=workers))


def ours(path: Path, order: torch.Tensor, batch: int, workers: int) -> Batches:
    """This package's, reading from the file, as `lewm.train` does."""
    dataset = TrajectoryDataset(path, FRAMES, FRAME_SKIP, in_memory=False)
    batches = [part.tolist() for part in order.split(batch)]
    return read_batches(dataset, batches, workers=workers, reuse=True)


def ours_in_a_data_loader(path: Path, order: torch.Tensor, batch: int, workers: int) -> Batches:
    """The same data set in torch's DataLoader, which puts batches together from windows."""
    dataset = TrajectoryDataset(path, FRAMES, FRAME_SKIP, in_memory=False)
    return iter(DataLoader(dataset, sampler=order.tolist(), batch_size=batch, num_workers=workers))


READERS: dict[str, Callable[[Path, torch.Tensor, int, int], Batches]] = {
    "published": published,
    "lewm": ours,
    "lewm in a DataLoader": ours_in_a_data_loader,
}


def forget(path: Path) -> None:
    """Takes a file out of the kernel's page cache."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)  # pages that are not written yet stay
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)


def windows_per_second(iterator: Batches, batches: int) -> float:
    """Windows per second over ``batches`` batches, after one that warms up."""
    first = next(iterator)
    started = time.perf_counter()
    taken = sum(len(item["action"]) for item in itertools.islice(iterator, batches))
    elapsed = time.perf_counter() - started
    assert first["pixels"].dtype == torch.uint8 and taken == batches * len(first["action"])
    return taken / elapsed


def memory_of_the_processes() -> float:
    """MB that this process and its children hold: their own pages, and a share of those they have in common."""
    tasks = Path("/proc/self/task")
    children = " ".join((task / "children").read_text() for task in tasks.iterdir()).split()
    total = 0
    for process in ("self", *children):
        with contextlib.suppress(OSError):
            rollup = Path(f"/proc/{process}/smaps_rollup").read_text()
            total += next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
    return total / 1e3


def copies_per_second(batch: int, frames: int, size: int) -> float:
    """Windows per second of a plain copy: what no loader that makes new tensors can exceed."""
    source = torch.zeros((batch, frames, size, size, 3), dtype=torch.uint8)
    best = 0.0
    for _ in range(5):
        started = time.perf_counter()
        source.clone()
        best = max(best, batch / (time.perf_counter() - started))
    return best


def main() -> None:
    """Prints a line per storage."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--episodes", type=int, default=40)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--batches", type=int, default=24)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--cold", action="store_true", help="read from the disk, not from the page cache")
    parser.add_argument(
        "--memory", action="store_true", help="and tell the memory of lewm's processes over an epoch"
    )
    parser.add_argument("--folder", type=Path, help="for the files (default: a temporary one)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        ceiling = copies_per_second(args.batch, FRAMES, args.size)
        print(f"copying a batch: {ceiling:.0f} windows/s")
        for compression in COMPRESSIONS:
            path = Path(folder) / f"{compression}.h5"
            collect("two_room", path, episodes=args.episodes, image_size=args.size, compression=compression)
            file = EpisodeFile(path)
            frames = len(file.column("pixels"))
            file.close()
            windows = len(TrajectoryDataset(path, FRAMES, FRAME_SKIP, in_memory=False))
            rates = dict.fromkeys(READERS, 0.0)
            for seed, (name, reader) in itertools.product(range(args.repeats), READERS.items()):
                if args.cold:
                    forget(path)
                order = torch.randperm(windows, generator=torch.Generator().manual_seed(seed))
                order = order[: (args.batches + 1) * args.batch]
                rate = windows_per_second(reader(path, order, args.batch, args.workers), args.batches)
                rates[name] = max(rates[name], rate)
                gc.collect()  # the published reader opens the file in another mode
            told = ", ".join(f"{name} {rate:.0f}" for name, rate in rates.items())
            print(
                f"{compression:>5} ({path.stat().st_size / 1e6:.0f} MB, {frames} frames): {told} windows/s, "
                f"{rates['lewm'] / rates['published']:.1f}x; {100 * rates['lewm'] / ceiling:.0f}% of copying",
                flush=True,
            )
            if args.memory:
                order = torch.randperm(windows, generator=torch.Generator().manual_seed(0))
                held = []
                for number, _ in enumerate(ours(path, order, args.batch, args.workers)):
                    if number % 10 == 9:
                        held.append(memory_of_the_processes())
                print(
                    "      MB after every tenth batch:",
                    " ".join(f"{value:.0f}" for value in held),
                    flush=True,
                )
            path.unlink()


if __name__ == "__main__":
    main()
