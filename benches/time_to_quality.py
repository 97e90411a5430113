"""Time to quality: what a plan costs, re-scored in fp32, against the time that it took, for every planner and setting.

    python benches/time_to_quality.py quickstart/model.safetensors quickstart/eval.h5 [--plot FILE.png] [--json FILE]

The problems are start and goal frames of the strict protocol. Costs are means over all of them, planned as one batch (a
problem's plan does not depend on its batch); times are those of plans of one problem at a time, the median of --timed
ones, from latents to actions. The published setting, cem 300 x 30, is the mark: a setting that reaches its mean cost
within 1% is listed with its share of the published time, the fastest first.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "python"))

import lewm
from lewm.checkpoint.atomic import replace_file
from lewm.figures import new_figure, png
from quality import Problems, strict_problems

WITHIN = 1.01  # of the published setting's mean cost
ITERATIONS = (2, 5, 10, 20, 30)
# What a curve holds fixed; elites are a share of the samples, options are those of lewm.Planner.
CURVES: dict[str, tuple[str, int, dict[str, Any]]] = {
    "cem 300": ("cem", 300, {"elites": 30}),
    "cem 128": ("cem", 128, {"elites": 13}),
    "cem 96": ("cem", 96, {"elites": 10}),
    "cem 64": ("cem", 64, {"elites": 6}),
    "icem 96": ("icem", 96, {"elites": 10}),
    "icem 96, white": ("icem", 96, {"elites": 10, "noise_exponent": 0.0}),
    "mppi 96": ("mppi", 96, {"elites": 10}),
    "predictive 96": ("predictive", 96, {}),
}
PUBLISHED = "cem 300", 30


@dataclass(frozen=True)
class Point:
    """A setting, what it found and how long it took."""

    curve: str
    iterations: int
    cost: float
    """Mean over the problems, re-scored in fp32."""
    seconds: float
    """Median of single plans."""


def measure(problems: Problems, model: lewm.Model, curve: str, iterations: int, timed: int) -> Point:
    """One point of a curve."""
    method, samples, options = CURVES[curve]
    planner = lewm.Planner(model, method, samples=samples, iterations=iterations, **options)
    latents, goals = model.encode(problems.frames)[:, None], model.encode(problems.goals)
    plan = planner.plan_latents(latents, goals, problem_ids=range(len(problems)))
    seconds = []
    for i in range(timed):
        begin = time.perf_counter()
        planner.plan_latents(latents[i % len(latents)], goals[i % len(goals)])
        seconds.append(time.perf_counter() - begin)
    cost = float(problems.score(plan.actions).mean())
    return Point(curve, iterations, cost, statistics.median(seconds))


def published(points: list[Point]) -> Point:
    """The published setting's point."""
    return next(point for point in points if (point.curve, point.iterations) == PUBLISHED)


def as_good(points: list[Point]) -> list[Point]:
    """Settings whose mean cost is the published setting's within 1%, the fastest first."""
    mark = published(points)
    return sorted((p for p in points if p.cost <= WITHIN * mark.cost), key=lambda point: point.seconds)


def show(points: list[Point], model: lewm.Model, problems: Problems) -> None:
    """Prints the settings that are as good as the published one, as a Markdown table."""
    mark = published(points)
    print(f"{len(problems)} problems, {model.precision}, {model.isa}, {model.threads} threads")
    print(f"{PUBLISHED[0]} x {PUBLISHED[1]}: mean cost {mark.cost:.4f} in {mark.seconds * 1e3:.1f} ms\n")
    print("| planner | iterations | mean cost | of published | ms | share of its time |")
    print("|---|---|---|---|---|---|")
    for point in as_good(points):
        print(
            f"| {point.curve} | {point.iterations} | {point.cost:.4f} | {point.cost / mark.cost:.3f} "
            f"| {point.seconds * 1e3:.1f} | {point.seconds / mark.seconds:.2f} |"
        )


def plot(points: list[Point], path: str) -> None:
    """Cost against time, one line per curve, and the published setting's cost within 1%."""
    figure = new_figure(8, 5)
    axes = figure.subplots()
    for curve in dict.fromkeys(point.curve for point in points):
        own = [point for point in points if point.curve == curve]
        axes.plot(
            [p.seconds * 1e3 for p in own], [p.cost for p in own], marker="o", markersize=3, label=curve
        )
    mark = published(points)
    axes.axhline(WITHIN * mark.cost, color="black", linewidth=0.8, linestyle=":")
    axes.axvline(mark.seconds * 1e3 / 3, color="black", linewidth=0.8, linestyle=":")
    axes.plot([mark.seconds * 1e3], [mark.cost], marker="*", markersize=14, color="black")
    axes.set(xscale="log", yscale="log", xlabel="ms of a plan", ylabel="mean final cost, re-scored in fp32")
    axes.set_title("Star: the published setting. Dotted: its cost + 1%, a third of its time", fontsize=10)
    axes.legend(fontsize=8)
    with replace_file(path) as file:
        file.write(png(figure))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("data", help="episodes that the problems are drawn from")
    parser.add_argument("--problems", type=int, default=100)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--curves", nargs="+", choices=list(CURVES), default=list(CURVES))
    parser.add_argument(
        "--timed", type=int, default=7, help="plans whose median is the time of one (default: 7)"
    )
    parser.add_argument("--plot", metavar="FILE.png")
    parser.add_argument("--json", metavar="FILE", help="also write the points")
    args = parser.parse_args()
    problems = strict_problems(args.model, args.data, args.problems)
    model = problems.model(args.precision, args.threads)
    curves = dict.fromkeys([PUBLISHED[0], *args.curves])
    points = [measure(problems, model, curve, n, args.timed) for curve in curves for n in ITERATIONS]
    show(points, model, problems)
    if args.plot:
        plot(points, args.plot)
    if args.json:
        values = [asdict(point) for point in points]
        Path(args.json).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
