"""``lewm export``: a checkpoint as one deployment file, or as a folder that stable-worldmodel opens."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from lewm.checkpoint import convert, read_checkpoint
from lewm.checkpoint.contents import Scaling

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser._negative_number_matcher = re.compile(r"-[\d.]")  # or argparse takes "-0.1,0.2" for an option
    parser.add_argument("source", help="a published folder, its .pt file, or a .safetensors file")
    parser.add_argument("target", help="a name that ends in .safetensors (a deployment file), or a folder")
    parser.add_argument(
        "--frame-skip", type=int, help="environment steps in an action block (default: 5 or 1)"
    )
    parser.add_argument(
        "--action-mean", type=_numbers, metavar="M,M,...", help="mean of the training actions"
    )
    parser.add_argument("--action-std", type=_numbers, metavar="S,S,...", help="their standard deviation")
    parser.add_argument(
        "--data", metavar="FILE", help="HDF5 data to take mean and deviation of the actions from"
    )
    parser.add_argument(
        "--transformers",
        type=int,
        choices=(4, 5),
        help="encoder names in a folder: as published (4), or of transformers 5 (default: 4)",
    )


def run(args: argparse.Namespace) -> None:
    """Writes the file and says what is in it."""
    if args.transformers is not None and args.target.endswith(".safetensors"):
        raise ValueError(
            "--transformers: only with a folder as target, a deployment file has names of its own"
        )
    mean, std = args.action_mean, args.action_std
    if args.data is not None:
        if mean is not None or std is not None:
            raise ValueError("--data: not together with --action-mean and --action-std")
        scaling = _fit(args.data)
        mean, std = scaling["mean"], scaling["std"]
    convert(
        args.source,
        args.target,
        frame_skip=args.frame_skip,
        action_mean=mean,
        action_std=std,
        transformers=args.transformers or 4,
    )
    written = read_checkpoint(args.target)
    config, scaling_written = written.config, written.action_scaling
    numbers = sum(tensor.size for tensor in written.state.values())
    print(f"{Path(args.target)}: {len(written.state)} tensors, {numbers:,} numbers")
    print(f"  image {config.image_size}, latent {config.latent_dim}, history {config.history}")
    print(f"  block: {config.frame_skip} steps x {config.action_dim} action dimensions")
    if scaling_written is None:
        print(
            "  actions: not scaled (give --data, or --action-mean and --action-std, if training standardised them)"
        )
    else:
        print(f"  actions: mean {scaling_written['mean']}, std {scaling_written['std']}")


def _fit(path: str) -> Scaling:
    """Mean and population standard deviation of the actions in an HDF5 file."""
    try:
        from lewm.data import TrajectoryDataset
    except ModuleNotFoundError as error:
        raise ImportError(f"--data needs {error.name}: pip install 'lewm[train]'") from error

    return TrajectoryDataset(path, frames=1, frame_skip=1, in_memory=False).action_scaling


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected numbers separated by commas, got {text!r}") from None
