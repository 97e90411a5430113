"""Reading shuffled windows from HDF5, beside the published reader, in one process.

    python benches/bench_data.py                         # 224x224, 4 frames, frame skip 5, 2 workers
    python benches/bench_data.py --size 64 --workers 0
    python benches/bench_data.py --cold                  # every run begins with nothing of the file in memory

Needs an environment with stable-worldmodel. Both readers serve the same file through torch's DataLoader with the same
batches, to uint8 tensors. The file holds rendered Two-Room episodes; it is written raw, with gzip and with Blosc, at
224x224 in chunks of one frame as the published writer does. Runs alternate, and the best of each reader counts. The
ceiling is the rate at which this process copies the frames of a batch, read already, into a new tensor.

A file larger than memory is one whose frames come from the disk: with --cold the kernel is told to forget the file
before each run, and no run reads a frame twice but by chance.
"""

from __future__ import annotations

import argparse
import itertools
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from stable_worldmodel.data.formats.hdf5 import HDF5Dataset
from torch.utils.data import DataLoader, Dataset

from lewm.data import EpisodeFile, TrajectoryDataset
from lewm.data.collection import collect

COMPRESSIONS = ("none", "gzip", "blosc")


def published(path: Path, frames: int, frame_skip: int) -> Dataset:
    """The published reader as its training script sets it up: actions cached, pixels read."""
    return HDF5Dataset(
        path=path,
        frameskip=frame_skip,
        num_steps=frames,
        keys_to_load=["pixels", "action"],
        keys_to_cache=["action"],
    )


def ours(path: Path, frames: int, frame_skip: int) -> Dataset:
    """This package's, reading from the file."""
    return TrajectoryDataset(path, frames, frame_skip, in_memory=False)


def forget(path: Path) -> None:
    """Takes a file out of the kernel's page cache."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)  # pages that are not written yet stay
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)


def windows_per_second(dataset: Dataset, batch: int, workers: int, batches: int, seed: int) -> float:
    """Windows per second over ``batches`` shuffled batches, after one that warms up."""
    loader = DataLoader(
        dataset,
        batch_size=batch,
        shuffle=True,
        num_workers=workers,
        drop_last=True,
        generator=torch.Generator().manual_seed(seed),
    )
    iterator = iter(loader)
    first = next(iterator)
    started = time.perf_counter()
    taken = sum(len(item["action"]) for item in itertools.islice(iterator, batches))
    elapsed = time.perf_counter() - started
    assert first["pixels"].dtype == torch.uint8 and taken == batches * batch
    return taken / elapsed


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
    parser.add_argument("--folder", type=Path, help="for the files (default: a temporary one)")
    args = parser.parse_args()
    readers: dict[str, Callable[[Path, int, int], Dataset]] = {"published": published, "lewm": ours}
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        ceiling = copies_per_second(args.batch, 4, args.size)
        print(f"copying a batch: {ceiling:.0f} windows/s")
        for compression in COMPRESSIONS:
            path = Path(folder) / f"{compression}.h5"
            collect("two_room", path, episodes=args.episodes, image_size=args.size, compression=compression)
            rates = dict.fromkeys(readers, 0.0)
            for seed, (name, reader) in itertools.product(range(args.repeats), readers.items()):
                if args.cold:
                    forget(path)
                dataset = reader(path, 4, 5)
                rate = windows_per_second(dataset, args.batch, args.workers, args.batches, seed)
                rates[name] = max(rates[name], rate)
                if isinstance(dataset, TrajectoryDataset):
                    dataset.file.close()  # the published reader opens the file in another mode
            file = EpisodeFile(path)
            megabytes = path.stat().st_size / 1e6
            print(
                f"{compression:>5} ({megabytes:.0f} MB, {int(file.lengths.sum())} frames): "
                f"published {rates['published']:.0f}, lewm {rates['lewm']:.0f} windows/s, "
                f"{rates['lewm'] / rates['published']:.1f}x; {100 * rates['lewm'] / ceiling:.0f}% of copying",
                flush=True,
            )
            file.close()
            path.unlink()


if __name__ == "__main__":
    main()
