"""The torch planner beside the compiled one: the same noise, the same elites, the same plans; and its deadlines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

import lewm
import synthetic
from lewm import _core
from lewm.build import choose_precision
from lewm.checkpoint import Checkpoint
from lewm.nn.search import Found, Search, Start

CONFIG = synthetic.small(encoder_depth=1, predictor_depth=1)
D, A, H = CONFIG.latent_dim, CONFIG.block_dim, 4
LATENTS = synthetic.uniform(1, "latents", (3, 3, D))
GOALS = synthetic.uniform(1, "goal", (3, D))
PAST = synthetic.uniform(1, "past", (3, 2, A))
WARM = synthetic.uniform(1, "warm", (3, 2, A))
SIZES: dict[str, Any] = {"samples": 60, "elites": 6, "iterations": 4, "horizon": H}

PLAN_ABSOLUTE = 1e-3
"""Between plans of the two: costs differ by rounding, and mppi turns costs into weights."""


@pytest.fixture(scope="module")
def model() -> lewm.Model:
    return lewm.Model.from_checkpoint(Checkpoint(CONFIG, synthetic.state(CONFIG)), "fp32", 2)


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("cem", {}),
        ("cem", {"momentum": 0.3, "std_min": 0.2, "std": 1.5, "return_best": True, "cost": "sum"}),
        ("cem", {"bounds": (-0.5, [0.4, 0.3]), "cost": "discounted", "discount": 0.5, "action_penalty": 0.1}),
        # One elite leaves no spread: later candidates would differ by rounding alone.
        ("cem", {"elites": 1, "iterations": 1}),
        ("cem", {"elites": 1, "std_min": 0.1}),
        ("icem", {}),
        ("icem", {"noise_exponent": 0.0, "kept_elites": 0, "return_best": True}),
        ("icem", {"action_hold": 5}),
        ("mppi", {"action_hold": 5}),
        ("icem", {"kept_elites": 50, "horizon": 1}),
        ("mppi", {"temperature": 50.0}),
        ("mppi", {"temperature": 50.0, "elites": 0}),
        ("predictive", {"iterations": 3}),
    ],
)
def test_it_plans_like_the_compiled_planner(model: lewm.Model, method: str, options: dict[str, Any]) -> None:
    settings = {**SIZES, **options, "seed": 3}
    warm = WARM[:, : settings["horizon"]]
    asked = {"past_actions": PAST, "warm_start": warm, "plan_index": 7, "problem_ids": [4, 9, 4]}
    expected = lewm.Planner(model, method, **settings).plan_latents(LATENTS, GOALS, **asked)
    planner = lewm.Planner(model, method, **settings, backend="torch", device="cpu")
    plan = planner.plan_latents(LATENTS, GOALS, **asked)
    np.testing.assert_array_equal(plan.elites, expected.elites)
    for name in ("actions", "std"):
        np.testing.assert_allclose(getattr(plan, name), getattr(expected, name), atol=PLAN_ABSOLUTE)
    for name in ("cost", "elite_cost"):
        np.testing.assert_allclose(getattr(plan, name), getattr(expected, name), rtol=1e-4)
    assert plan.iterations == expected.iterations


def test_its_options_are_the_compiled_planner_s(model: lewm.Model) -> None:
    for method in ("cem", "icem", "mppi", "predictive"):
        planner = lewm.Planner(model, method, backend="torch", device="cpu")
        assert planner.options == lewm.Planner(model, method).options


@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_lower_precisions_plan_under_autocast(model: lewm.Model, precision: str) -> None:
    if precision not in _core.precisions(_core.active_isa()):
        pytest.skip(f"this machine has no {precision}")
    low = lewm.Model.from_checkpoint(model.checkpoint(), precision)
    latents, goals = LATENTS[:, :1], GOALS
    plans = [
        lewm.Planner(m, **SIZES, backend="torch", device="cpu").plan_latents(latents, goals)
        for m in (model, low)
    ]
    np.testing.assert_allclose(plans[1].cost, plans[0].cost, rtol=0.05)
    # Where "auto" is int8 torch has no fast bfloat16: its fp32 stands in for int8.
    as_fp32 = precision == "int8" and choose_precision("auto")[0] == "int8"
    assert np.array_equal(plans[1].cost, plans[0].cost) == as_fp32


# ---- deadlines, by a clock that only evaluations move ---------------------------------------------------


class Evaluations:
    """An objective of known duration on a clock of its own: the squared actions of a candidate."""

    def __init__(self, seconds: Callable[[int], float]) -> None:
        self.now, self._seconds, self.candidates = 0.0, seconds, 0

    def __call__(self, _: slice, actions: Any) -> Any:
        self.now += self._seconds(actions.shape[1])
        self.candidates += actions.shape[0] * actions.shape[1]
        return np.square(actions).sum((2, 3))

    def clock(self) -> float:
        return self.now


def search(objective: Evaluations, **options: Any) -> Search:
    checked = _core.planner_options("cem", {**SIZES, "samples": 256, **options}, A, CONFIG.action_dim)
    return Search("cem", checked, A, CONFIG.action_dim, None, None, 1, 256, objective.clock)


def start(objective: Evaluations, deadline: float, problems: int = 1) -> Start:
    warm = np.full((problems, H, A), 0.5, np.float32)
    return Start(problems, warm, None, 0, deadline, objective.now)


def plans(
    objective: Evaluations, deadline: float, count: int, problems: int = 1
) -> list[tuple[Found, float]]:
    """Plans one after another and the seconds that each took."""
    found, finder = [], search(objective)
    for _ in range(count):
        asked = start(objective, deadline, problems)
        found.append((finder.run(objective, asked), objective.now - asked.began))
    return found


def test_a_steady_pace_is_never_late_once_it_is_known() -> None:
    for deadline in (0.02, 0.1, 1.0):
        objective = Evaluations(lambda n: 1e-4 * max(n, 32))
        for found, seconds in plans(objective, deadline, 10)[1:]:
            assert seconds <= deadline + 1e-9
            assert found.cost[0] <= 0.25 * H * A


def test_a_deadline_uses_the_time_that_it_has() -> None:
    objective = Evaluations(lambda n: 1e-4 * max(n, 32))
    assert (
        plans(objective, 0.12, 5)[-1][0].iterations == 4
    )  # 4 iterations of 25.6 ms and one candidate of 3.2 ms
    assert 1 <= plans(objective, 0.06, 5)[-1][0].iterations < 4


def test_tiles_grow_where_they_cost_little_more() -> None:
    objective = Evaluations(lambda n: 0.01)
    last = plans(objective, 1.0, 5)[-1]
    assert last[0].iterations == 4 and last[1] == pytest.approx(0.05)  # whole iterations, and the mean


def test_no_time_returns_the_warm_start() -> None:
    objective = Evaluations(lambda n: 1e-3 * n)
    found = search(objective).run(objective, start(objective, 0.0))
    np.testing.assert_array_equal(found.actions, np.full((1, H * A), 0.5))
    assert found.iterations == 0 and objective.candidates == 1 and found.cost[0] == 0.25 * H * A


def test_a_pace_that_collapses_is_late_by_one_tile_and_is_tried_again() -> None:
    slow = [1e-4]
    objective = Evaluations(lambda n: slow[0] * max(n, 32))
    finder = search(objective)
    finder.run(objective, start(objective, 0.1))
    slow[0] = 1e-2
    asked = start(objective, 0.1)
    found = finder.run(objective, asked)
    assert objective.now - asked.began <= 0.1 + 2 * 128 * 1e-2  # one tile, and the mean
    assert found.cost[0] <= 0.25 * H * A
    slow[0] = 1e-4
    iterations = [finder.run(objective, start(objective, 0.12)).iterations for _ in range(20)]
    assert iterations[-1] == 4


def test_enough_time_changes_nothing(model: lewm.Model) -> None:
    planner = lewm.Planner(model, **SIZES, backend="torch", device="cpu")
    free = planner.plan_latents(LATENTS[:, :1], GOALS)
    limited = planner.plan_latents(LATENTS[:, :1], GOALS, deadline=1e6)
    np.testing.assert_allclose(limited.actions, free.actions, atol=1e-4)
    np.testing.assert_array_equal(limited.elites, free.elites)
