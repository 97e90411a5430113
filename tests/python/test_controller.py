"""lewm.Controller: one action at a time, of plans that it makes when they are due."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import lewm
import synthetic
from lewm.checkpoint import Checkpoint

CONFIG = synthetic.small(encoder_depth=1, predictor_depth=1)
FRAMES = synthetic.frames(1, 40, CONFIG.image_size)
GOAL, OTHER = synthetic.frames(2, 2, CONFIG.image_size)
H, SKIP = 3, CONFIG.frame_skip
MEAN, STD = np.array([0.5, -1.0], np.float32), np.array([2.0, 0.25], np.float32)


@pytest.fixture(scope="module", params=["core", "torch"])
def planner(request: pytest.FixtureRequest) -> lewm.Planner:
    backend: dict[str, Any] = {}
    if request.param == "torch":
        pytest.importorskip("torch")
        backend = {"backend": "torch", "device": "cpu"}
    scaling: Any = {"mean": MEAN.tolist(), "std": STD.tolist()}
    model = lewm.Model.from_checkpoint(
        Checkpoint(CONFIG, synthetic.state(CONFIG), action_scaling=scaling), "fp32", 1
    )
    return lewm.Planner(model, samples=40, elites=5, iterations=3, horizon=H, **backend)


def test_it_hands_out_the_plan_in_the_environments_units(planner: lewm.Planner) -> None:
    controller = lewm.Controller(planner)
    actions = [controller.act(FRAMES[i], GOAL) for i in range(H * SKIP)]
    expected = planner.model.environment_actions(planner.plan(FRAMES[0], GOAL).actions).reshape(-1, 2)
    np.testing.assert_allclose(actions, expected, rtol=1e-5, atol=1e-6)
    assert controller.plans == 1
    assert controller.plan_actions is not None and controller.plan_actions.shape == (H, CONFIG.block_dim)


def test_it_replans_every_so_many_blocks_from_the_rest_of_the_last_plan(planner: lewm.Planner) -> None:
    controller = lewm.Controller(planner, replan_every=1)
    for i in range(SKIP):
        controller.act(FRAMES[i], GOAL)
    first = controller.plan_actions
    assert first is not None and controller.plans == 1 and controller.needs_plan
    action = controller.act(FRAMES[SKIP])
    assert controller.plans == 2
    second = planner.plan(FRAMES[SKIP], GOAL, warm_start=first[1:], plan_index=1)
    np.testing.assert_allclose(
        action, planner.model.environment_actions(second.actions)[0, 0], rtol=1e-5, atol=1e-6
    )
    assert controller.plan_cost == pytest.approx(second.cost, rel=1e-5)
    cold = lewm.Controller(planner, replan_every=1, warm_start=False)
    for i in range(SKIP + 1):
        cold.act(FRAMES[i], GOAL)
    other = planner.plan(FRAMES[SKIP], GOAL, plan_index=1)
    assert cold.plan_actions is not None
    np.testing.assert_allclose(cold.plan_actions, other.actions, rtol=1e-5, atol=1e-6)


def test_context_frames_are_kept(planner: lewm.Planner) -> None:
    controller = lewm.Controller(planner, replan_every=1, context=2, warm_start=False)
    executed = [controller.act(FRAMES[i], GOAL) for i in range(SKIP)]
    controller.act(FRAMES[SKIP])
    past = planner.model.standardise(np.stack(executed))[None]
    expected = planner.plan(FRAMES[[0, SKIP]], GOAL, past_actions=past, plan_index=1)
    assert controller.plan_actions is not None
    np.testing.assert_allclose(controller.plan_actions, expected.actions, rtol=1e-4, atol=1e-5)


def test_actions_stay_in_their_bounds(planner: lewm.Planner) -> None:
    controller = lewm.Controller(planner, low=[0.0, -1.0], high=0.5)
    actions = np.array([controller.act(FRAMES[i], GOAL) for i in range(H * SKIP)])
    free = lewm.Controller(planner)
    expected = np.array([free.act(FRAMES[i], GOAL) for i in range(H * SKIP)])
    np.testing.assert_allclose(actions, np.clip(expected, [0.0, -1.0], [0.5, 0.5]), rtol=1e-6)
    assert not np.array_equal(actions, expected)
    unbounded = lewm.Controller(planner, low=-np.inf, high=[np.inf, np.inf])
    np.testing.assert_array_equal([unbounded.act(FRAMES[i], GOAL) for i in range(H * SKIP)], expected)


def test_reset_forgets_everything(planner: lewm.Planner) -> None:
    controller = lewm.Controller(planner, replan_every=1)
    first = [controller.act(FRAMES[i], GOAL) for i in range(8)]
    controller.reset()
    assert controller.plans == 0 and controller.plan_actions is None and controller.plan_cost is None
    with pytest.raises(ValueError, match="goal"):
        controller.act(FRAMES[0])
    again = [controller.act(FRAMES[i], GOAL) for i in range(8)]
    np.testing.assert_array_equal(first, again)


def test_a_new_goal_counts_from_the_next_plan_on(planner: lewm.Planner) -> None:
    controller = lewm.Controller(planner)
    for i in range(H * SKIP):
        controller.act(FRAMES[i], GOAL if i < 3 else OTHER)
    np.testing.assert_allclose(
        controller.plan_actions, planner.plan(FRAMES[0], GOAL).actions, rtol=1e-5, atol=1e-6
    )
    controller.act(FRAMES[20])
    latent = lewm.Controller(planner)
    latent.set_goal(planner.model.encode(OTHER[None])[0])
    assert controller.plan_actions is not None and controller.plans == 2
    latent.act(FRAMES[0])
    expected = planner.plan(FRAMES[0], OTHER).actions
    np.testing.assert_allclose(latent.plan_actions, expected, rtol=1e-5, atol=1e-6)


def test_frames_are_only_needed_at_plans(planner: lewm.Planner) -> None:
    controller = lewm.Controller(planner)
    assert controller.needs_frame and controller.needs_plan
    with pytest.raises(ValueError, match="frame"):
        controller.act(None, GOAL)
    controller.act(FRAMES[0], GOAL)
    assert not controller.needs_frame
    controller.act(None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"replan_every": 0}, r"replan_every: expected 1\.\.3 \(the horizon\) or None, got 0"),
        ({"replan_every": 4}, "replan_every"),
        ({"context": 0}, "context"),
        ({"context": 4}, "context"),
        ({"deadline": -1.0}, "deadline"),
        ({"low": 1.0, "high": 0.0}, "low"),
        ({"low": [0.0, 0.0, 0.0]}, r"low: expected a number or \(2,\), got \(3,\)"),
        ({"high": float("nan")}, "high"),
        ({"low": float("inf")}, "low: expected numbers of float32 or -inf, got inf"),
        ({"low": 1e300}, r"low: expected numbers of float32 or -inf, got 1e\+300"),
        ({"high": [0.0, float("-inf")]}, "high: expected numbers of float32 or inf, got -inf"),
        ({"high": 1e300}, "high: expected numbers of float32"),
    ],
)
def test_options_out_of_range_are_refused(
    planner: lewm.Planner, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        lewm.Controller(planner, **options)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"replan_every": 2.5}, TypeError, "replan_every: expected an int, got 2.5"),
        ({"replan_every": "1"}, TypeError, "replan_every: expected an int, got '1'"),
        ({"context": 2.0}, ValueError, "context: expected an int of at least 1, got 2.0"),
        ({"warm_start": 1}, TypeError, "warm_start: expected True or False, got 1"),
    ],
)
def test_options_of_other_types_are_refused(
    planner: lewm.Planner, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        lewm.Controller(planner, **options)
    assert lewm.Controller(planner, replan_every=np.int64(1), warm_start=np.True_).needs_plan  # type: ignore[arg-type]


def test_what_is_no_frame_goal_or_planner_is_refused(planner: lewm.Planner) -> None:
    with pytest.raises(TypeError, match=r"planner: expected a lewm\.Planner, got Model"):
        lewm.Controller(planner.model)  # type: ignore[arg-type]
    controller = lewm.Controller(planner)
    with pytest.raises(ValueError, match=r"frame: expected \(64, 64, 3\), got \(1, 64, 64, 3\)"):
        controller.act(FRAMES[:1], GOAL)
    with pytest.raises(TypeError, match="frame: expected uint8, got float32"):
        controller.act(FRAMES[0].astype(np.float32), GOAL)
    with pytest.raises(ValueError, match=r"goal: expected \(64, 64, 3\)"):
        controller.act(FRAMES[0], GOAL[:32])
    with pytest.raises(ValueError, match=r"goal: expected \(128,\), got \(5,\)"):
        controller.set_goal(np.zeros(5, np.float32))
    with pytest.raises(ValueError, match="goal: expected finite"):
        controller.set_goal(np.full(128, np.nan, np.float32))
