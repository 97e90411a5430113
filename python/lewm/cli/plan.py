"""``lewm plan``: from one image to another, the actions that the model thinks lead there."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

import lewm
from lewm.checkpoint.atomic import replace_file
from lewm.cli.outputs import check_file, check_inputs
from lewm.images import FITS, fit_image, read_image

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument("model", help="a .safetensors file or a published folder")
    parser.add_argument("frame", help="image of now: PNG, JPEG, ... or .npy (H, W, 3) uint8")
    parser.add_argument("goal", help="image of where to get")
    parser.add_argument("--method", default="cem", choices=("cem", "icem", "mppi", "predictive"))
    parser.add_argument("--samples", type=int, default=300)
    parser.add_argument("--elites", type=int, help="kept of the samples (default: 30, or all)")
    parser.add_argument("--iterations", type=int)
    parser.add_argument("--horizon", type=int, default=5, help="action blocks (default: 5)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--deadline", type=float, metavar="SECONDS")
    parser.add_argument(
        "--fit", default="stretch", choices=FITS, help="how images of another size are fitted"
    )
    parser.add_argument("--precision", default="auto", choices=("auto", "fp32", "bf16", "int8"))
    parser.add_argument("--threads", type=int)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument(
        "--out", metavar="FILE.npy", help="also write the actions, (steps, action_dim) float32"
    )


def run(args: argparse.Namespace) -> None:
    """Plans and prints the actions, in the environment's units."""
    if args.out is not None:
        check_file(Path(args.out))
        check_inputs(Path(args.out), (args.model, args.frame, args.goal), ".npy")
    model = lewm.load(args.model, precision=args.precision, threads=args.threads)
    frame, goal = (
        fit_image(read_image(path), model.config.image_size, args.fit) for path in (args.frame, args.goal)
    )
    planner = lewm.Planner(
        model,
        args.method,
        samples=args.samples,
        elites=args.elites,
        iterations=args.iterations,
        horizon=args.horizon,
        seed=args.seed,
    )
    plan = planner.plan(frame, goal, args.deadline)
    actions = model.environment_actions(plan.actions).reshape(-1, model.config.action_dim)
    if args.out is not None:
        with replace_file(args.out) as file:
            np.save(file, actions)
    if args.json:
        values = {
            "actions": actions.tolist(),
            "cost": plan.cost,
            "iterations": plan.iterations,
            "elapsed": plan.elapsed,
            "precision": model.precision,
            "isa": model.isa,
        }
        print(json.dumps(values))
        return
    units = (
        "the environment's units"
        if model.action_scaling
        else "the model's units: the file has no action scaling"
    )
    print(
        f"cost {plan.cost:.4f} after {plan.iterations} iterations in {plan.elapsed:.3f} s; actions in {units}"
    )
    for step, action in enumerate(actions):
        print(f"{step:4d}  " + "  ".join(f"{value: .4f}" for value in action))
