"""``lewm bench``: what encoding, rollouts and plans take on this machine, beside its measured matrix-product peak.

With ``--realtime``: what a control loop sees (``lewm.cli.realtime``).
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import lewm
from lewm import _core
from lewm.checkpoint import Checkpoint, expected_shapes
from lewm.cli import realtime

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument("model", nargs="?", help="a model (default: random weights of the published sizes)")
    parser.add_argument(
        "--precision", nargs="+", choices=("fp32", "bf16", "int8"), help="default: all that there are"
    )
    parser.add_argument("--threads", type=int, help="default: one per core")
    parser.add_argument(
        "--device", default="cpu", help="cpu, or cuda or cuda:1 in bf16 (default: %(default)s)"
    )
    parser.add_argument("--samples", type=int, help="default: 300")
    parser.add_argument("--iterations", type=int, help="default: 30")
    parser.add_argument("--horizon", type=int, default=5)
    parser.add_argument("--repeats", type=int, help="measurements of each; the shortest counts (default: 3)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    realtime.add_arguments(parser)


def run(args: argparse.Namespace) -> None:
    """Measures and prints a table."""
    if args.realtime:
        if args.device != "cpu":
            raise ValueError(f"--device: expected cpu with --realtime, got {args.device}")
        if args.repeats is not None:
            raise ValueError("--repeats: not with --realtime, which has --acts")
        realtime.run(args, _save_random)
        return
    for name in realtime.DEFAULTS:
        if getattr(args, name) is not None:
            raise ValueError(f"--{name.replace('_', '-')}: only with --realtime")
    args.repeats = 3 if args.repeats is None else args.repeats
    if args.repeats < 1:
        raise ValueError(f"--repeats: expected at least 1, got {args.repeats}")
    args.samples = 300 if args.samples is None else args.samples
    args.iterations = 30 if args.iterations is None else args.iterations
    on_cpu = args.device == "cpu"
    where = _core.active_isa() if on_cpu else args.device
    precisions = args.precision or (_core.precisions(where) if on_cpu else ["bf16"])
    rows = [row for precision in precisions for row in _measure(args, precision)]
    if args.json:
        print(json.dumps({"isa": where, "rows": rows}))
        return
    peak = "; peak: this core's own matrix products, in cache" if on_cpu else ""
    print(f"{where}; shortest of {args.repeats}{peak}")
    share_of = f"{'of peak':>9}" if on_cpu else ""
    print(f"{'precision':<10}{'work':<34}{'ms':>10}{'GFLOP':>10}{'GFLOP/s':>10}{share_of}")
    for row in rows:
        rate = row["flop"] / row["seconds"]
        share = f"{rate / row['peak']:>9.0%}" if row["peak"] else ""
        print(
            f"{row['precision']:<10}{row['work']:<34}{row['seconds'] * 1e3:>10.2f}{row['flop'] / 1e9:>10.2f}"
            f"{rate / 1e9:>10.1f}{share}"
        )


def _measure(args: argparse.Namespace, precision: str) -> list[dict[str, Any]]:
    model = _model(args.model, precision, args.threads, args.device)
    config, rng = model.config, np.random.default_rng(0)
    peak = _core.gemm_peak(precision, model.threads) if args.device == "cpu" else None
    frames = rng.integers(0, 256, (8, config.image_size, config.image_size, 3), np.uint8)
    latents = model.encode(frames[:2])
    elites = max(1, args.samples // 10)
    planner = lewm.Planner(  # refuses the options before there are candidates of them
        model, samples=args.samples, elites=elites, iterations=args.iterations, horizon=args.horizon
    )
    actions = rng.standard_normal((1, args.samples, args.horizon, config.block_dim), np.float32)
    candidates = args.samples * model.rollout_flops(args.horizon)
    works: list[tuple[str, int, Callable[[], Any]]] = [
        ("encode 1 frame", model.encode_flops, lambda: model.encode(frames[:1])),
        ("encode 8 frames", 8 * model.encode_flops, lambda: model.encode(frames)),
        (
            f"cost of {args.samples} x {args.horizon} blocks",
            candidates,
            lambda: model.cost(latents[None, :1], latents[1:], actions),
        ),
        (
            f"plan {args.samples} x {args.iterations}, H {args.horizon}",
            args.iterations * candidates,
            lambda: planner.plan_latents(latents[:1], latents[1]),
        ),
    ]
    return [
        {
            "precision": precision,
            "work": name,
            "flop": flop,
            "seconds": _shortest(work, args.repeats),
            "peak": peak,
        }
        for name, flop, work in works
    ]


def _shortest(work: Callable[[], Any], repeats: int) -> float:
    """Seconds of the shortest of some calls, after one that is not counted."""
    work()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def _model(path: str | None, precision: str, threads: int | None, device: str) -> lewm.Model:
    if path is not None:
        return lewm.load(
            path, precision=precision, threads=threads, device=device, encoder_precision=precision
        )
    return lewm.Model.from_checkpoint(
        _random_checkpoint(), precision, threads, device=device, encoder_precision=precision
    )


def _save_random(path: Path) -> None:
    lewm.save(_random_checkpoint(), path)


def _random_checkpoint() -> Checkpoint:
    """Random weights of the published sizes."""
    config, rng = lewm.LeWMConfig(), np.random.default_rng(0)
    state: dict[str, Any] = {}
    for name, shape in expected_shapes(config).items():
        values = rng.standard_normal(shape, np.float32)
        state[name] = np.abs(values) + 0.5 if name.endswith("running_var") else values * 0.05
    return Checkpoint(config, state)
