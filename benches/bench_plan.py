"""Encoding, rollouts and plans at the published sizes: ``pytest benches/bench_plan.py --benchmark-json plan.json``.

Per precision; per instruction set and thread count too where the name says so. Beside each time: the floor's GFLOP, the
rate, and its share of this machine's measured matrix-product peak (``extra_info``). ``report.py plan.json`` makes a
table and a plot of it. The published solver's time in the same run is compare_plan.py's business, the share of
sampling, elites and refit that of cpp/bench_plan.cpp. ``-k "amx and bf16"`` and the like choose a part.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "python"))

import golden
import lewm
import synthetic
from lewm import _core
from lewm.checkpoint import Checkpoint

CONFIG = synthetic.CASES["published"]
LATENTS, GOAL, _, _ = golden.problem(CONFIG, 1)
TIERS = [
    (isa, precision)
    for isa in _core.isas_available()
    if isa != "scalar"  # the reference: minutes for a plan
    for precision in _core.precisions(isa)
]


def load(precision: str, threads: int | None = None, isa: str | None = None) -> lewm.Model:
    """Random weights of the published sizes."""
    return lewm.Model.from_checkpoint(
        Checkpoint(CONFIG, synthetic.state(CONFIG)), precision, threads, isa=isa, encoder_precision=precision
    )


@pytest.fixture(scope="module", params=_core.precisions(_core.active_isa()))
def model(request: pytest.FixtureRequest) -> lewm.Model:
    return load(request.param)


@pytest.fixture(scope="module")
def peak(model: lewm.Model) -> float:
    return _core.gemm_peak(model.precision, model.threads)


def run(benchmark: Any, flop: float, peak: float, work: Callable[[], Any], rounds: int = 5) -> None:
    """Times the work and notes its share of the peak."""
    benchmark.pedantic(work, rounds=rounds, warmup_rounds=1)
    rate = flop / benchmark.stats.stats.min
    benchmark.extra_info.update(
        gflop=flop / 1e9, gflop_per_s=rate / 1e9, peak_gflop_per_s=peak / 1e9, of_peak=rate / peak
    )


@pytest.mark.parametrize("n", [1, 8, 64])
def test_encode(benchmark: Any, model: lewm.Model, peak: float, n: int) -> None:
    frames = np.resize(synthetic.frames(1, 2, CONFIG.image_size), (n, 224, 224, 3))
    run(benchmark, n * model.encode_flops, peak, lambda: model.encode(frames), 3)


@pytest.mark.parametrize("samples", [32, 64, 128, 300, 1024])
def test_rollout_by_samples(benchmark: Any, model: lewm.Model, peak: float, samples: int) -> None:
    actions = synthetic.uniform(1, "actions", (1, samples, 5, CONFIG.block_dim))
    flop = samples * model.rollout_flops(5)
    run(benchmark, flop, peak, lambda: model.cost(LATENTS[:1], GOAL[:1], actions))


@pytest.mark.parametrize("horizon", [1, 2, 3, 5, 8, 12])
def test_rollout_by_horizon(benchmark: Any, model: lewm.Model, peak: float, horizon: int) -> None:
    actions = synthetic.uniform(1, "actions", (1, 300, horizon, CONFIG.block_dim))
    flop = 300 * model.rollout_flops(horizon)
    run(benchmark, flop, peak, lambda: model.cost(LATENTS[:1], GOAL[:1], actions))


@pytest.mark.parametrize("problems", [1, 2, 4, 8])
def test_plan_by_batch(benchmark: Any, model: lewm.Model, peak: float, problems: int) -> None:
    latents = synthetic.uniform(1, "latents", (problems, 1, CONFIG.latent_dim))
    goal = synthetic.uniform(1, "goal", (problems, CONFIG.latent_dim))
    planner = lewm.Planner(model, samples=100, elites=10, iterations=2)
    flop = problems * 200 * model.rollout_flops(5)
    run(benchmark, flop, peak, lambda: planner.plan_latents(latents, goal), 3)


@pytest.mark.parametrize(("samples", "iterations"), [(32, 3), (64, 4), (300, 1), (300, 30)])
def test_plan(benchmark: Any, model: lewm.Model, peak: float, samples: int, iterations: int) -> None:
    planner = lewm.Planner(model, samples=samples, elites=max(1, samples // 10), iterations=iterations)
    flop = samples * iterations * model.rollout_flops(5)
    rounds = 2 if samples * iterations > 1000 else 10
    run(benchmark, flop, peak, lambda: planner.plan_latents(LATENTS[:1], GOAL[:1]), rounds)


@pytest.mark.parametrize("method", ["cem", "icem", "mppi", "predictive"])
def test_plan_by_method(benchmark: Any, model: lewm.Model, peak: float, method: str) -> None:
    planner = lewm.Planner(model, method, samples=64, elites=8, iterations=4)
    flop = 64 * 4 * model.rollout_flops(5)
    run(benchmark, flop, peak, lambda: planner.plan_latents(LATENTS[:1], GOAL[:1]), 5)


@pytest.mark.parametrize("threads", sorted({1, _core.available_threads()}))
def test_iteration_by_threads(benchmark: Any, model: lewm.Model, threads: int) -> None:
    planner = lewm.Planner(model, iterations=1, threads=threads)
    peak = _core.gemm_peak(model.precision, threads)
    flop = 300 * model.rollout_flops(5)
    run(benchmark, flop, peak, lambda: planner.plan_latents(LATENTS[:1], GOAL[:1]), 3)


@pytest.mark.parametrize(("isa", "precision"), TIERS)
def test_iteration_by_tier(benchmark: Any, isa: str, precision: str) -> None:
    model = load(precision, isa=isa)
    planner = lewm.Planner(model, iterations=1)
    peak = _core.gemm_peak(precision, model.threads, isa)
    flop = 300 * model.rollout_flops(5)
    run(benchmark, flop, peak, lambda: planner.plan_latents(LATENTS[:1], GOAL[:1]), 3)
