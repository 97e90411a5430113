"""A table and a plot of what bench_plan.py measured.

pytest benches/bench_plan.py --benchmark-json plan.json
python benches/report.py plan.json [--plot FILE.png]
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lewm.checkpoint.atomic import replace_file
from lewm.figures import new_figure, png

# Panels of the plot: test, the parameter on its axis, title.
PANELS = (
    ("test_rollout_by_samples", "samples", "cost of S candidates, horizon 5"),
    ("test_rollout_by_horizon", "horizon", "cost of 300 candidates, H blocks"),
    ("test_plan_by_batch", "problems", "plan of B problems, 100 x 2"),
    ("test_iteration_by_threads", "threads", "one iteration of 300"),
)


@dataclass(frozen=True)
class Timing:
    """One benchmark: the shortest time and its share of the peak."""

    test: str
    precision: str
    parameters: dict[str, Any]
    seconds: float
    rate: float
    """GFLOP/s of the floor."""
    of_peak: float


def read(path: str) -> list[Timing]:
    """The timings in pytest-benchmark's JSON."""
    timings = []
    for entry in json.loads(Path(path).read_text(encoding="utf-8"))["benchmarks"]:
        parameters = dict(entry["params"] or {})
        precision = parameters.pop("precision", None) or parameters.pop("model", "")
        extra = entry["extra_info"]
        timings.append(
            Timing(
                entry["name"].partition("[")[0],
                precision,
                parameters,
                entry["stats"]["min"],
                extra["gflop_per_s"],
                extra["of_peak"],
            )
        )
    return timings


def show(timings: list[Timing]) -> None:
    """Prints a Markdown table."""
    print("| work | | precision | ms | GFLOP/s | of peak |\n|---|---|---|---|---|---|")
    for timing in timings:
        setting = ", ".join(f"{name} {value}" for name, value in timing.parameters.items())
        print(
            f"| {timing.test.removeprefix('test_').replace('_', ' ')} | {setting} | {timing.precision} "
            f"| {timing.seconds * 1e3:.2f} | {timing.rate:.0f} | {timing.of_peak:.0%} |"
        )


def plot(timings: list[Timing], path: str) -> None:
    """Milliseconds as samples, horizon, batch and threads grow, one line per precision; beside each point its share of
    the peak."""
    figure = new_figure(10, 7)
    for axes, (test, parameter, title) in zip(figure.subplots(2, 2).flat, PANELS, strict=True):
        lines: dict[str, list[Timing]] = defaultdict(list)
        for timing in timings:
            if timing.test == test:
                lines[timing.precision].append(timing)
        for precision, line in lines.items():
            line = sorted(line, key=lambda timing: timing.parameters[parameter])
            x, y = [t.parameters[parameter] for t in line], [t.seconds * 1e3 for t in line]
            axes.plot(x, y, marker="o", label=precision)
            for place, timing in zip(zip(x, y, strict=True), line, strict=True):
                axes.annotate(
                    f"{timing.of_peak:.0%}", place, fontsize=7, xytext=(3, -9), textcoords="offset points"
                )
        axes.set(title=title, xlabel=parameter, ylabel="ms", xscale="log", yscale="log")
        if lines:
            axes.legend(fontsize=8)
    figure.suptitle("Shortest times; beside each its share of the measured matrix-product peak", fontsize=10)
    with replace_file(path) as file:
        file.write(png(figure))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("json", help="written by pytest --benchmark-json")
    parser.add_argument("--plot", metavar="FILE.png")
    args = parser.parse_args()
    timings = read(args.json)
    show(timings)
    if args.plot:
        plot(timings, args.plot)


if __name__ == "__main__":
    main()
