"""Plans found in bf16 and int8 cost what fp32 plans cost, re-scored in fp32 (DESIGN.md section 6)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import lewm
import quality
import synthetic
from lewm import _core

FINAL_COST_RELATIVE = 0.01
"""Of the mean final cost over the problems."""
PROBLEMS = 50

LOWER = [precision for precision in _core.precisions(_core.active_isa()) if precision != "fp32"]


def final_costs(problems: quality.Problems, precision: str) -> NDArray[np.float32]:
    """(N,) costs in fp32 of what a search that has settled finds at a precision, from frames encoded in fp32."""
    planner = lewm.Planner(problems.model(precision), samples=64, elites=8, iterations=30, horizon=5)
    ids = np.arange(len(problems))  # noise of their own: rounding sends a search to another of its many ends
    return problems.score(planner.plan(problems.frames, problems.goals, problem_ids=ids).actions)


def check(problems: quality.Problems, precision: str, reference: NDArray[np.float32]) -> None:
    costs = final_costs(problems, precision)
    assert not np.array_equal(costs, reference)
    assert costs.mean() <= (1 + FINAL_COST_RELATIVE) * reference.mean()


@pytest.fixture(scope="module")
def untrained() -> tuple[quality.Problems, NDArray[np.float32]]:
    config = synthetic.small(encoder_depth=1, predictor_depth=1)
    problems = quality.random_problems(PROBLEMS, config)
    return problems, final_costs(problems, "fp32")


@pytest.mark.parametrize("precision", LOWER)
def test_on_random_weights(untrained: tuple[quality.Problems, NDArray[np.float32]], precision: str) -> None:
    problems, reference = untrained
    check(problems, precision, reference)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[quality.Problems, NDArray[np.float32]]:
    """The first steps of the quickstart's training: enough for plans that get near their goals."""
    for module in ("torch", "gymnasium", "h5py", "matplotlib", "imageio"):
        pytest.importorskip(module)
    from lewm.quickstart import Settings, quickstart

    folder: Path = tmp_path_factory.mktemp("quickstart")
    settings = Settings(episodes=300, eval_recorded=60, eval_episodes=20, train={"steps": 500})
    quickstart(folder, settings, say=lambda line: None)
    problems = quality.strict_problems(folder / "model.safetensors", folder / "eval.h5", PROBLEMS)
    return problems, final_costs(problems, "fp32")


@pytest.mark.slow
@pytest.mark.parametrize("precision", LOWER)
def test_on_trained_weights(trained: tuple[quality.Problems, NDArray[np.float32]], precision: str) -> None:
    problems, reference = trained
    check(problems, precision, reference)
