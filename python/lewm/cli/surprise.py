"""``lewm surprise``: does something impossible surprise the model? Paired trajectories and a t-test."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

import lewm
from lewm.analysis.figures import surprise_curves
from lewm.analysis.surprise import PairedTest, surprise_test
from lewm.arrays import at_least
from lewm.checkpoint.atomic import write_file
from lewm.cli.eval import ProgressBars
from lewm.cli.outputs import check_folder
from lewm.envs import environment_class
from lewm.evaluation.protocols import require_fit


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``lewm surprise``."""
    parser.add_argument("model", type=Path, help="checkpoint folder or .safetensors")
    parser.add_argument("env", help="environment, such as two_room")
    parser.add_argument(
        "--out", type=Path, default=Path("surprise"), help="folder for the results (default: %(default)s)"
    )
    parser.add_argument(
        "--pairs", type=int, default=50, help="episodes of each variant (default: %(default)s)"
    )
    parser.add_argument(
        "--blocks", type=int, default=12, help="length of an episode in blocks (default: %(default)s)"
    )
    parser.add_argument("--policy", help="that plays (default: the environment's data policy)")
    parser.add_argument("--seed", type=int, default=0, help="of the first pair (default: %(default)s)")
    parser.add_argument("--precision", default="auto", help="of the model (default: auto)")


def run(args: argparse.Namespace) -> int:
    """Plays the pairs, prints the tests and writes surprise.json and surprise.png."""
    for name, least in (("pairs", 2), ("blocks", 4), ("seed", 0)):
        at_least(name, getattr(args, name), least)
    check_folder(args.out)
    model = lewm.load(args.model, precision=args.precision)
    kind = environment_class(args.env)
    env = kind(image_size=model.config.image_size)
    try:
        require_fit(model, env)
        with ProgressBars() as bars:
            tests, surprises = surprise_test(
                model,
                env,
                kind.make_policy(args.policy or next(iter(kind.policies))),
                pairs=args.pairs,
                blocks=args.blocks,
                seed=args.seed,
                progress=lambda done: bars("pairs", done, args.pairs),
            )
    finally:
        env.close()
    print(format_tests(tests))
    settings = {name: str(value) for name, value in vars(args).items() if name != "command"}
    results = {
        "settings": settings,
        "tests": [asdict(test) | {"significant": test.significant} for test in tests],
        "surprise": {name: values.tolist() for name, values in surprises.items()},
    }
    args.out.mkdir(parents=True, exist_ok=True)
    for name, data in (
        ("surprise.json", json.dumps(results, indent=2).encode() + b"\n"),
        ("surprise.png", surprise_curves(surprises, perturbed_frame=args.blocks // 2)),
    ):
        write_file(args.out / name, data)
    print(f"{args.out}: surprise.json, surprise.png")
    return 0


def format_tests(tests: list[PairedTest]) -> str:
    """A Markdown table of the tests."""
    lines = [
        "| perturbation | pairs | difference | t | p | effect size d | p < 0.01 |",
        "|---|---|---|---|---|---|---|",
    ]
    for test in tests:
        verdict = "yes" if test.significant else "no"
        lines.append(
            f"| {test.kind} | {test.pairs} | {test.mean_difference:.4g} | {test.t:.2f} | {test.p:.2g} | "
            f"{test.effect_size:.2f} | {verdict} |"
        )
    return "\n".join(lines)
