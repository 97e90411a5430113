"""``lewm collect``: record episodes of an environment into an HDF5 file."""

from __future__ import annotations

import argparse
from pathlib import Path

from tqdm import tqdm

from lewm.data.collection import collect
from lewm.data.writer import COMPRESSIONS
from lewm.envs import ENVIRONMENTS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``lewm collect``."""
    parser.add_argument(
        "env", help=f"environment: {', '.join(sorted(ENVIRONMENTS))}, or a short name such as two_room"
    )
    parser.add_argument("out", type=Path, help="HDF5 file; an unfinished one is continued")
    parser.add_argument(
        "--episodes", type=int, default=1000, help="episodes the file shall hold (default: %(default)s)"
    )
    parser.add_argument(
        "--size", type=int, default=224, help="side of the frames in pixels (default: %(default)s)"
    )
    parser.add_argument("--policy", help="data policy (default: the environment's own)")
    parser.add_argument("--seed", type=int, default=0, help="of the whole collection (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=2, help="processes (default: %(default)s)")
    parser.add_argument(
        "--compression", choices=COMPRESSIONS, help="of the frames (default: the unfinished file's, or none)"
    )
    parser.add_argument("--overwrite", action="store_true", help="start anew instead of continuing the file")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def run(args: argparse.Namespace) -> int:
    """Collects, then says what the file holds."""
    with tqdm(total=args.episodes, desc=f"collect {args.env}", unit="episode", disable=args.quiet) as bar:

        def progress(done: int, total: int) -> None:
            if bar.n == 0:
                bar.initial = done - 1  # those the file held already do not count into the rate
            bar.update(done - bar.n)

        new = collect(
            args.env,
            args.out,
            episodes=args.episodes,
            image_size=args.size,
            policy=args.policy,
            seed=args.seed,
            workers=args.workers,
            compression=args.compression,
            overwrite=args.overwrite,
            progress=progress,
        )
    print(f"{args.out}: {new} new episodes, {args.out.stat().st_size / 1e6:.0f} MB")
    return 0
