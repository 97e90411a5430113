"""What lower precision costs a plan: bf16 and int8 plans, re-scored in fp32, beside the fp32 plans.

    python benches/precision_quality.py [MODEL DATA] [--problems 50] [--samples 300] [--iterations 30] [--seeds 2]

Frames are encoded in fp32, as `lewm.load` has it by default, and plans found at the precision; their final cost is
computed in fp32. A second table has the reverse: frames encoded at the precision, plans found in fp32. Without a model:
random weights of the published sizes. Rounding sends a search to another of its near-equal ends, as other noise does:
compare the differences with those between the fp32 rows of two seeds, and judge the mean by its standard error.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "python"))

import lewm
import synthetic
from lewm import _core
from quality import Problems, random_problems, strict_problems


def plan(problems: Problems, model: lewm.Model, args: argparse.Namespace, seed: int) -> NDArray[np.float32]:
    """Costs (N,), re-scored in fp32, of the plans that a model finds."""
    elites = max(1, args.samples // 10)
    planner = lewm.Planner(model, samples=args.samples, elites=elites, iterations=args.iterations, seed=seed)
    ids = np.arange(len(problems))  # noise of their own for every problem
    return problems.score(planner.plan(problems.frames, problems.goals, problem_ids=ids).actions)


def judge_encoders(problems: Problems, args: argparse.Namespace, exact_cost: float) -> None:
    """Prints how far each encoder's latents are from fp32's, and what fp32 plans from and to them cost."""
    frames = np.concatenate([problems.frames, problems.goals])
    exact = problems.reference.encode(frames)
    print(
        "\n| encoder | cosine to fp32's latents: median | least | cost of fp32 plans, of fp32 |\n|---|---|---|---|"
    )
    for precision in _core.precisions(_core.active_isa()):
        if precision == "fp32":
            continue
        model = lewm.Model.from_checkpoint(
            problems.reference.checkpoint(), "fp32", encoder_precision=precision
        )
        cosines = np.sort(_cosines(model.encode(frames), exact))
        cost = plan(problems, model, args, seed=0).mean()
        print(
            f"| {precision} | {np.median(cosines):.5f} | {cosines[0]:.5f} | {cost / exact_cost:.3f} |",
            flush=True,
        )


def _cosines(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    products: NDArray[np.float32] = (a * b).sum(-1)
    return products / (np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?")
    parser.add_argument("data", nargs="?", help="episodes that the problems are drawn from")
    parser.add_argument("--problems", type=int, default=50)
    parser.add_argument("--samples", type=int, default=300)
    parser.add_argument("--iterations", type=int, default=30)
    parser.add_argument("--seeds", type=int, default=2)
    args = parser.parse_args()
    if (args.model is None) != (args.data is None):
        parser.error("data: a model needs the episodes that it is judged on")
    if args.model is None:
        problems = random_problems(args.problems, synthetic.CASES["published"])
    else:
        problems = strict_problems(args.model, args.data, args.problems)
    precisions = _core.precisions(_core.active_isa())
    print(f"{args.problems} problems, cem {args.samples} x {args.iterations}, {_core.active_isa()}")
    print("| precision | seed | mean cost | of fp32 | worst problem | s |\n|---|---|---|---|---|---|")
    costs: dict[str, list[NDArray[np.float32]]] = {precision: [] for precision in precisions}
    for precision in precisions:
        model = problems.model(precision)
        for seed in range(args.seeds):
            begin = time.perf_counter()
            own = plan(problems, model, args, seed)
            seconds = time.perf_counter() - begin
            costs[precision].append(own)
            same = costs["fp32"][seed]
            print(
                f"| {precision} | {seed} | {own.mean():.4f} | {own.mean() / same.mean():.4f} "
                f"| {(own / same).max():.3f} | {seconds:.1f} |",
                flush=True,
            )
    reference = np.concatenate(costs["fp32"])
    for precision in precisions[1:]:
        change = np.concatenate(costs[precision]) - reference
        error = change.std(ddof=1) / np.sqrt(len(change))
        print(
            f"{precision}: {change.mean() / reference.mean():+.2%} +- {error / reference.mean():.2%} (standard error) "
            f"over {len(change)} plans"
        )
    judge_encoders(problems, args, exact_cost=float(costs["fp32"][0].mean()))


if __name__ == "__main__":
    main()
