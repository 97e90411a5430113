"""The same seed and inputs give the same bytes in every process, for any threads and batch, per precision and tier."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys

import pytest

import lewm
import synthetic
from lewm import _core
from lewm.checkpoint import Checkpoint
from processes import environment

CONFIG = synthetic.small(encoder_depth=1, predictor_depth=1)
TIERS = [(isa, precision) for isa in _core.isas_available() for precision in _core.precisions(isa)]
METHODS = ("cem", "icem", "mppi", "predictive")
BATCH = 3


def digests(threads: int, alone: bool) -> dict[str, list[str]]:
    """SHA-256 of the plan of each problem, by tier and method; planned alone or in a batch."""
    frames, goals = (synthetic.frames(seed, BATCH, CONFIG.image_size) for seed in (1, 2))
    found = {}
    for isa, precision in TIERS:
        checkpoint = Checkpoint(CONFIG, synthetic.state(CONFIG))
        model = lewm.Model.from_checkpoint(checkpoint, precision, threads, isa=isa)
        for method in METHODS:
            planner = lewm.Planner(model, method, samples=20, elites=4, iterations=2, horizon=4)
            if alone:
                actions = [planner.plan(frames[b], goals[b]).actions for b in range(BATCH)]
            else:
                actions = list(planner.plan(frames, goals).actions)
            found[f"{isa} {precision} {method}"] = [
                hashlib.sha256(plan.tobytes()).hexdigest() for plan in actions
            ]
    return found


def in_another_process(threads: int, alone: bool) -> dict[str, list[str]]:
    code = f"import json, test_planner_bytes as t; print(json.dumps(t.digests({threads}, {alone})))"
    run = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, check=True)
    found: dict[str, list[str]] = json.loads(run.stdout)
    return found


@pytest.fixture(scope="module")
def expected() -> dict[str, list[str]]:
    return digests(threads=1, alone=True)


@pytest.mark.parametrize(("threads", "alone"), [(1, True), (2, False), (3, True)])
def test_another_process_plans_the_same_bytes(
    expected: dict[str, list[str]], threads: int, alone: bool
) -> None:
    assert in_another_process(threads, alone) == expected


def test_problems_and_methods_have_plans_of_their_own(expected: dict[str, list[str]]) -> None:
    for isa, precision in TIERS:
        cem, mppi = (expected[f"{isa} {precision} {method}"] for method in ("cem", "mppi"))
        assert len(set(cem)) > 1  # two problems may share their elites, and so their plan
        assert len(set(mppi)) == BATCH
        assert set(cem).isdisjoint(mppi)
