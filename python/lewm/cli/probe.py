"""``lewm probe``: what the latents know of the recorded quantities, and the geometry of the latent space."""

from __future__ import annotations

import argparse
import csv
import io
import json
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import lewm
from lewm.analysis.figures import latent_plane
from lewm.analysis.geometry import effective_rank, straightness
from lewm.analysis.latents import EncodedEpisodes, encode_episodes, random_weights
from lewm.analysis.probe import (
    ProbeScore,
    angles_as_waves,
    pixel_components,
    probe_features,
    split_episodes,
    standardised_targets,
)
from lewm.checkpoint.atomic import write_file
from lewm.cli.eval import ProgressBars
from lewm.cli.outputs import check_folder
from lewm.data.episode_file import EpisodeFile
from lewm.envs import environment_class


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``lewm probe``."""
    parser.add_argument("model", type=Path, help="checkpoint folder or .safetensors")
    parser.add_argument("data", type=Path, help="HDF5 file of episodes with recorded quantities")
    parser.add_argument(
        "--out", type=Path, default=Path("probe"), help="folder for the results (default: %(default)s)"
    )
    parser.add_argument("--columns", nargs="+", help="quantities to probe (default: all numeric columns)")
    parser.add_argument(
        "--angles",
        nargs="*",
        help="which of them are angles, probed as cosine and sine (default: what the environment says)",
    )
    parser.add_argument("--episodes", type=int, default=200, help="how many to encode (default: %(default)s)")
    parser.add_argument(
        "--stride", type=int, help="environment steps between frames (default: the frame skip)"
    )
    parser.add_argument(
        "--held-out", type=float, default=0.2, help="share of the episodes (default: %(default)s)"
    )
    parser.add_argument(
        "--no-controls", action="store_true", help="leave out random weights and pixel components"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="of episodes, split and MLP (default: %(default)s)"
    )
    parser.add_argument("--precision", default="auto", help="of the model (default: auto)")


def run(args: argparse.Namespace) -> int:
    """Encodes, probes, prints the table and writes probe.json, probe.csv and latents.png."""
    if args.episodes < 2:
        raise ValueError(f"episodes: expected at least 2, got {args.episodes}")
    if not 0.0 < args.held_out < 1.0:
        raise ValueError(f"held_out: expected a share between 0 and 1, got {args.held_out}")
    if not 0 <= args.seed < 2**32:
        raise ValueError(f"seed: expected 0..2^32 - 1, got {args.seed}")
    check_folder(args.out)
    model = lewm.load(args.model, precision=args.precision)
    with ProgressBars() as bars:
        data = encode_episodes(
            model,
            args.data,
            episodes=args.episodes,
            stride=args.stride,
            columns=args.columns,
            seed=args.seed,
            progress=lambda done, total: bars("encode", done, total),
        )
        geometry = {  # refuses episodes that are too short for it, before probes take their time
            "straightness": straightness(data.latents, data.episode),
            "effective_rank": effective_rank(data.latents),
            "latent_dim": model.config.latent_dim,
        }
        angles = _angles(args, data)
        data = replace(data, columns=angles_as_waves(data.columns, angles))
        scores, left_out = probe_all(model, data, args, bars)
    print(format_scores(scores))
    if left_out:
        print(f"left out: {', '.join(left_out)}")
    print(
        f"temporal straightness {geometry['straightness']:.3f}, "
        f"effective rank {geometry['effective_rank']:.1f} of {model.config.latent_dim}"
    )
    settings = {name: str(value) for name, value in vars(args).items() if name != "command"}
    results = {"settings": settings, "frames": len(data.latents), "geometry": geometry}
    results["scores"] = [score.row() for score in scores]
    args.out.mkdir(parents=True, exist_ok=True)
    write_file(args.out / "probe.json", json.dumps(results, indent=2).encode() + b"\n")
    write_file(args.out / "probe.csv", _csv(scores).encode())
    write_file(args.out / "latents.png", latent_plane(data.latents, data.columns))
    print(f"{args.out}: probe.json, probe.csv, latents.png")
    return 0


def probe_all(
    model: lewm.Model, data: EncodedEpisodes, args: argparse.Namespace, bars: ProgressBars
) -> tuple[list[ProbeScore], list[str]]:
    """Scores of the model's latents and, unless told otherwise, of the two controls; and what was left out."""
    split = split_episodes(data.episode, args.held_out, args.seed)
    targets, left_out = standardised_targets(data.columns, split.train)
    if not targets:
        raise ValueError(f"columns: nothing to probe, left out: {', '.join(left_out) or 'all'}")
    features = {"latents": data.latents}
    if not args.no_controls:
        untrained = random_weights(model, args.seed)
        features["random weights"] = untrained.encode(data.frames)
        width = model.config.latent_dim
        features["pixel components"] = pixel_components(data.frames, split.train, width, args.seed)
    fits = 2 * len(targets) * len(features)
    done = iter(range(fits + 1))
    scores = []
    for label, matrix in features.items():
        scores += probe_features(
            matrix,
            targets,
            data.episode,
            split,
            label=label,
            seed=args.seed,
            progress=lambda text: bars("probe", next(done), fits),
        )
    return scores, left_out


def format_scores(scores: list[ProbeScore]) -> str:
    """A Markdown table: a row per target and regressor, the features side by side."""
    labels = list(dict.fromkeys(score.features for score in scores))
    lines = [
        "| target | probe | " + " | ".join(f"{label}: MSE ± std, r" for label in labels) + " |",
        "|---|---|" + "---|" * len(labels),
    ]
    table = {(score.target, score.regressor, score.features): score for score in scores}
    for target, regressor in dict.fromkeys((score.target, score.regressor) for score in scores):
        cells = []
        for label in labels:
            score = table[target, regressor, label]
            cells.append(f"{score.mse:.3f} ± {score.mse_std:.3f}, {score.r:.3f}")
        lines.append(f"| {target} | {regressor} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _angles(args: argparse.Namespace, data: EncodedEpisodes) -> frozenset[str]:
    """Columns that are angles: those asked for, or as far as the environment that the file names can tell here."""
    if args.angles is not None:
        unknown = [name for name in args.angles if name not in data.columns]
        if unknown:
            raise ValueError(f"angles: expected some of {list(data.columns)}, got {unknown[0]!r}")
        return frozenset(args.angles)
    with closing(EpisodeFile(args.data)) as file:
        name = file.attributes.get("env")
    try:
        return environment_class(str(name)).angle_columns
    except (ValueError, ImportError):
        return frozenset()


def _csv(scores: list[ProbeScore]) -> str:
    text = io.StringIO()
    rows: list[dict[str, Any]] = [score.row() for score in scores]
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
