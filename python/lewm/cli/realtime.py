"""``lewm bench --realtime``: what a control loop sees of a controller.

Process start to first action, resident memory, the time of each ``act``, its jitter with and without load, page faults
and memory growth after warm-up. ``benches/cpp/bench_realtime.cpp`` measures the same without Python, and counts
allocations.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import lewm
from lewm import _core
from lewm.cli.outputs import check_file, check_inputs
from lewm.errors import Error

__all__ = ["DEFAULTS", "add_arguments", "run"]

DEFAULTS = {"acts": 500, "starts": 5, "encoder_precision": "auto", "load": 2, "deadline": 0.05, "plot": None}
"""Of the options that only ``--realtime`` reads."""

_WARM_UP = 20  # acts that are not counted
_SPIN = "while True: pass"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares ``--realtime`` and the options that only it reads; None: not given."""
    parser.add_argument(
        "--realtime",
        action="store_true",
        help="measure a controller in a loop instead, with --samples 64 --iterations 4 unless given",
    )
    parser.add_argument("--acts", type=int, help="realtime: measured acts (default: 500)")
    parser.add_argument("--starts", type=int, help="realtime: processes started (default: 5)")
    parser.add_argument(
        "--encoder-precision",
        choices=("auto", "fp32", "bf16", "int8"),
        help="realtime: of the encoder (default: what a model is loaded with)",
    )
    parser.add_argument("--load", type=int, help="realtime: processes that spin beside the loop (default: 2)")
    parser.add_argument(
        "--deadline", type=float, help="realtime: seconds of an act that plans; 0: none (default: 0.05)"
    )
    parser.add_argument(
        "--plot", type=Path, help="realtime: write a histogram of the latencies to this PNG file"
    )


def run(args: argparse.Namespace, save_random: Callable[[Path], None]) -> None:
    """Measures every precision and prints the figures; ``save_random`` writes the model where none is given."""
    args.samples = 64 if args.samples is None else args.samples
    args.iterations = 4 if args.iterations is None else args.iterations
    for name, default in DEFAULTS.items():
        if getattr(args, name) is None:
            setattr(args, name, default)
    for name, least in (("samples", 1), ("iterations", 1), ("acts", 1), ("starts", 1), ("load", 0)):
        if getattr(args, name) < least:
            raise ValueError(f"--{name}: expected at least {least}, got {getattr(args, name)}")
    if args.plot:
        check_file(args.plot, "--plot")
        check_inputs(args.plot, (args.model,) if args.model else (), ".png", "--plot")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(args.model) if args.model else Path(folder, "random.safetensors")
        if not args.model:
            save_random(path)
        precisions = args.precision or _core.precisions(_core.active_isa())
        rows = [_measure(args, path, precision) for precision in precisions]
    if args.plot:
        _plot(rows, args.plot)
    if args.json:
        for row in rows:
            del row["latencies"]
        print(json.dumps({"isa": _core.active_isa(), "rows": rows}))
        return
    for row in rows:
        _print(row)


# ----------------------------------------------------------------------------------------------------------------------
# Measuring
# ----------------------------------------------------------------------------------------------------------------------


def _settings(args: argparse.Namespace, path: Path, precision: str) -> dict[str, Any]:
    return {
        "path": str(path),
        "precision": precision,
        "encoder_precision": args.encoder_precision,
        "threads": args.threads,
        "samples": args.samples,
        "iterations": args.iterations,
        "horizon": args.horizon,
        "deadline": args.deadline or None,
    }


class _Loop:
    """A controller that replans at every block, on frames that change from step to step."""

    def __init__(
        self,
        path: str,
        precision: str,
        encoder_precision: str,
        threads: int | None,
        samples: int,
        iterations: int,
        horizon: int,
        deadline: float | None,
    ) -> None:
        model = lewm.load(path, precision, threads, encoder_precision=encoder_precision)
        planner = lewm.Planner(
            model, samples=samples, elites=max(1, samples // 8), iterations=iterations, horizon=horizon
        )
        self.controller = lewm.Controller(planner, replan_every=1, deadline=deadline)
        self.frame = np.zeros((model.config.image_size,) * 2 + (3,), np.uint8)
        self.controller.set_goal(np.full_like(self.frame, 200))
        self.steps = 0

    def step(self) -> float:
        """One control step; the seconds that ``act`` took."""
        self.frame.fill(40 + self.steps % 150)
        self.steps += 1
        start = time.perf_counter()
        self.controller.act(self.frame)
        return time.perf_counter() - start


def _measure(args: argparse.Namespace, path: Path, precision: str) -> dict[str, Any]:
    settings = _settings(args, path, precision)
    starts = [_start(settings) for _ in range(args.starts)]
    row: dict[str, Any] = {
        "precision": precision,
        "encoder_precision": args.encoder_precision,
        "first_action_seconds": min(seconds for seconds, _ in starts),
        "resident_mb": max(resident for _, resident in starts),
        "latencies": {},
        "loops": {},
        **_floor(settings),
    }
    for name, load in {"alone": 0, f"{args.load} spinning processes beside it": args.load}.items():
        if name == "alone" or load:
            row["latencies"][name], row["loops"][name] = _measure_loop(settings, args.acts, load)
    return row


def _floor(settings: dict[str, Any]) -> dict[str, float]:
    """Seconds that the products of an act which plans take at the measured peak: its frame, and each iteration."""
    model = lewm.load(
        settings["path"],
        settings["precision"],
        settings["threads"],
        encoder_precision=settings["encoder_precision"],
    )
    iteration = settings["samples"] * model.rollout_flops(settings["horizon"])
    return {
        "encode_floor": model.encode_flops / _core.gemm_peak(model.encoder_precision, model.threads),
        "iteration_floor": iteration / _core.gemm_peak(model.precision, model.threads),
    }


def _start(settings: dict[str, Any]) -> tuple[float, float]:
    """Starts Python, imports lewm, opens the model and acts once: seconds until then, resident MB."""
    # CLOCK_MONOTONIC is one clock for all processes.
    begun = time.clock_gettime(time.CLOCK_MONOTONIC)
    command = [sys.executable, "-m", "lewm.cli.realtime", json.dumps(settings)]
    process = subprocess.run(command, capture_output=True, text=True)
    if process.returncode:
        reason = (process.stderr.strip().splitlines() or [f"exit status {process.returncode}"])[-1]
        raise Error(f"{settings['path']}: the process that acts once failed: {reason}")
    done, resident = map(float, process.stdout.split())
    return done - begun, resident


def _measure_loop(
    settings: dict[str, Any], acts: int, load: int
) -> tuple[NDArray[np.float64], dict[str, Any]]:
    loop = _Loop(**settings)
    with _spinning(load):
        for _ in range(_WARM_UP):
            loop.step()
        seconds, plans, iterations = np.empty(acts), np.empty(acts, bool), np.empty(acts, int)
        faults, resident = _page_faults(), _resident_mb()
        for i in range(acts):
            plans[i] = loop.controller.needs_plan
            seconds[i] = loop.step()
            iterations[i] = loop.controller.plan_iterations
        faults, resident = _page_faults() - faults, _resident_mb() - resident
    figures = {
        name: _percentiles(seconds[chosen]) for name, chosen in (("plan", plans), ("hand_out", ~plans))
    }
    mean = float(iterations[plans].mean()) if plans.any() else None
    return seconds[plans], {**figures, "iterations": mean, "page_faults": faults, "grown_mb": resident}


def _percentiles(seconds: NDArray[np.float64]) -> dict[str, float]:
    if not seconds.size:
        return {}
    p50, p99, p999 = np.percentile(seconds, [50, 99, 99.9])
    return {"p50": p50, "p99": p99, "p99.9": p999, "most": seconds.max(), "jitter": seconds.std()}


@contextmanager
def _spinning(processes: int) -> Iterator[None]:
    spinners = [subprocess.Popen([sys.executable, "-c", _SPIN]) for _ in range(processes)]
    try:
        yield
    finally:
        for spinner in spinners:
            spinner.kill()
            spinner.wait()


def _page_faults() -> int:
    import resource

    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_minflt + usage.ru_majflt


def _resident_mb() -> float:
    import resource

    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


# ----------------------------------------------------------------------------------------------------------------------
# Showing
# ----------------------------------------------------------------------------------------------------------------------


def _print(row: dict[str, Any]) -> None:
    encoder = "" if row["encoder_precision"] == "auto" else f", the encoder in {row['encoder_precision']},"
    print(f"--- {row['precision']}{encoder} on {_core.active_isa()} ---")
    print(f"process start to first action: {row['first_action_seconds'] * 1e3:.0f} ms (the shortest)")
    print(f"resident memory: {row['resident_mb']:.0f} MB, Python and numpy included")
    for name, loop in row["loops"].items():
        print(f"the loop, {name}:")
        for kind, label in (("plan", "acts that plan"), ("hand_out", "acts that hand out")):
            if loop[kind]:
                print(f"  {label:<20}" + "  ".join(f"{k} {v * 1e3:.3f} ms" for k, v in loop[kind].items()))
        if loop["plan"]:
            floor = row["encode_floor"] + loop["iterations"] * row["iteration_floor"]
            print(
                f"  {loop['iterations']:.1f} iterations on average: their products take {floor * 1e3:.3f} ms at the "
                f"machine's peak, {floor / loop['plan']['p50']:.0%} of the median"
            )
        print(f"  page faults {loop['page_faults']}, resident memory {loop['grown_mb']:+.1f} MB")


def _plot(rows: list[dict[str, Any]], path: Path) -> None:
    """One histogram a precision of the acts that plan, alone and under load."""
    from lewm.checkpoint.atomic import write_file
    from lewm.figures import new_figure, png

    figure = new_figure(5.0 * len(rows), 3.2)
    for i, row in enumerate(rows):
        axes = figure.add_subplot(1, len(rows), i + 1)
        for name, seconds in row["latencies"].items():
            axes.hist(seconds * 1e3, bins=40, histtype="step", label=name)
        axes.set(title=row["precision"], xlabel="frame to action, acts that plan (ms)", ylabel="acts")
        axes.legend(fontsize="small")
    write_file(path, png(figure))


if __name__ == "__main__":  # a process whose start is measured
    loop = _Loop(**json.loads(sys.argv[1]))  # stays alive: its memory is measured
    loop.step()
    print(time.clock_gettime(time.CLOCK_MONOTONIC), _resident_mb())
