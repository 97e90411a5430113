"""``lewm decode``: pictures of what the model imagines, by a decoder that is trained for looking only."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

import lewm
from lewm.analysis.decoder import train_decoder
from lewm.analysis.figures import strip
from lewm.analysis.latents import encode_episodes
from lewm.arrays import at_least
from lewm.checkpoint.atomic import write_file
from lewm.cli.eval import ProgressBars
from lewm.cli.outputs import check_file, check_inputs
from lewm.data.episode_file import EpisodeFile


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``lewm decode``."""
    parser.add_argument("model", type=Path, help="checkpoint folder or .safetensors")
    parser.add_argument("data", type=Path, help="HDF5 file of episodes")
    parser.add_argument(
        "--out", type=Path, default=Path("decoded.png"), help="picture (default: %(default)s)"
    )
    parser.add_argument(
        "--episodes", type=int, default=100, help="that the decoder learns from (default: %(default)s)"
    )
    parser.add_argument("--steps", type=int, default=2000, help="of its training (default: %(default)s)")
    parser.add_argument("--blocks", type=int, default=8, help="imagined blocks (default: %(default)s)")
    parser.add_argument("--strips", type=int, default=3, help="episodes shown (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of episodes and decoder (default: %(default)s)")
    parser.add_argument("--precision", default="auto", help="of the model (default: auto)")


def run(args: argparse.Namespace) -> int:
    """Trains the decoder, imagines the shown episodes from their first frame, and writes the picture."""
    for name in ("episodes", "steps", "blocks", "strips"):
        at_least(name, getattr(args, name))
    check_file(args.out)
    check_inputs(args.out, (args.model, args.data), ".png")
    model = lewm.load(args.model, precision=args.precision)
    shown = _imagine(model, args)
    with ProgressBars() as bars:
        data = encode_episodes(
            model,
            args.data,
            episodes=args.episodes,
            columns=(),
            seed=args.seed,
            progress=lambda done, total: bars("encode", done, total),
        )
        decoder = train_decoder(
            data.latents,
            data.frames,
            steps=args.steps,
            seed=args.seed,
            progress=lambda step, loss: bars("decoder", step, args.steps),
        )
    rows = []
    for number, (frames, latents, imagined) in enumerate(shown, start=1):
        rows += [
            (f"{number}: real", frames),
            ("decoded", decoder.decode(latents)),
            ("imagined", decoder.decode(imagined)),
        ]
    write_file(args.out, strip(rows))
    print(args.out)
    return 0


def _imagine(model: lewm.Model, args: argparse.Namespace) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Of the last long enough episodes: frames, their latents, and latents imagined from the first frame and the
    actions alone; (blocks + 1, ...) each."""
    file = EpisodeFile(args.data)
    skip, blocks = model.config.frame_skip, args.blocks
    long_enough = np.flatnonzero(file.lengths > blocks * skip)[-args.strips :]
    if not len(long_enough):
        raise ValueError(
            f"blocks: expected an episode longer than {blocks * skip} steps in {args.data}, found none"
        )
    shown = []
    for episode in long_enough:
        first = int(file.offsets[episode])
        frames = file.read("pixels", first, first + blocks * skip + 1, skip)
        actions = file.read_numbers("action", first, first + blocks * skip)
        candidate = model.standardise(actions.reshape(blocks, skip, -1))[None, None]
        latents = model.encode(frames)
        imagined = model.rollout(latents[None, :1], candidate)[0, 0]
        shown.append((frames, latents, np.concatenate([latents[:1], imagined])))
    return shown
