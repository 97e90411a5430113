"""lewm.Planner: what a plan is made of, that it repeats, and what is refused."""

from __future__ import annotations

import functools
import gc
import threading
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import lewm
import synthetic
from lewm.checkpoint import Checkpoint

CONFIG = synthetic.small(encoder_depth=1, predictor_depth=1)
D, A, H = CONFIG.latent_dim, CONFIG.block_dim, 4
FRAMES = synthetic.frames(1, 8, CONFIG.image_size)
GOALS = synthetic.frames(2, 8, CONFIG.image_size)
LATENTS = synthetic.uniform(1, "latents", (8, 3, D))
GOAL_LATENTS = synthetic.uniform(1, "goal", (8, D))
PAST = synthetic.uniform(1, "past", (8, 2, A))
SIZES: dict[str, Any] = {"samples": 60, "elites": 6, "iterations": 4, "horizon": H}
METHODS = ("cem", "icem", "mppi", "predictive")

Make = Callable[..., lewm.Planner]


@pytest.fixture(scope="module")
def model() -> lewm.Model:
    return lewm.Model.from_checkpoint(Checkpoint(CONFIG, synthetic.state(CONFIG)), "fp32", 2)


@pytest.fixture(scope="module", params=["core", "torch"])
def backend(request: pytest.FixtureRequest) -> str:
    if request.param == "torch":
        pytest.importorskip("torch")
    return str(request.param)


@pytest.fixture(scope="module")
def make(backend: str) -> Make:
    """lewm.Planner of a backend, on the CPU."""
    options = {"backend": "torch", "device": "cpu"} if backend == "torch" else {}
    return functools.partial(lewm.Planner, **options)


@pytest.fixture(scope="module")
def planner(model: lewm.Model, make: Make) -> lewm.Planner:
    return make(model, **SIZES)


def test_a_plan_is_what_it_says(model: lewm.Model, planner: lewm.Planner) -> None:
    plan = planner.plan(FRAMES[0], GOALS[0])
    assert plan.actions.shape == plan.std.shape == (H, A) and plan.elites.shape == (6,)
    assert plan.iterations == 4 and plan.elapsed > 0
    latents, goal = model.encode(FRAMES[:1])[:, None], model.encode(GOALS[:1])
    np.testing.assert_allclose(
        plan.cost, model.cost(latents, goal, plan.actions[None, None])[0, 0], rtol=1e-5
    )
    assert plan.cost < model.cost(latents, goal, np.zeros((1, 1, H, A), np.float32))[0, 0]
    assert set(plan.elites) <= set(range(60)) and len(set(plan.elites)) == 6


def test_plans_from_frames_and_from_latents_are_one(model: lewm.Model, planner: lewm.Planner) -> None:
    latents, goal = model.encode(FRAMES[:1]), model.encode(GOALS[:1])[0]
    by_frames, by_latents = planner.plan(FRAMES[0], GOALS[0]), planner.plan_latents(latents, goal)
    assert by_frames.actions.tobytes() == by_latents.actions.tobytes()


@pytest.mark.parametrize("method", METHODS)
def test_the_same_bytes_for_any_threads_and_any_batch(
    model: lewm.Model, method: str, make: Make, backend: str
) -> None:
    two, one = ({"threads": 2}, {"threads": 1}) if backend == "core" else ({}, {})
    batch = make(model, method, **SIZES, **two).plan(FRAMES, GOALS)
    alone = make(model, method, **SIZES, **one)
    for b in range(8):
        plan = alone.plan(FRAMES[b], GOALS[b])
        assert plan.actions.tobytes() == batch.actions[b].tobytes()
        assert np.float32(plan.cost) == batch.cost[b]
        np.testing.assert_array_equal(plan.elites, batch.elites[b])


def test_seeds_indices_and_ids_draw_other_noise(model: lewm.Model, planner: lewm.Planner, make: Make) -> None:
    expected = planner.plan(FRAMES[0], GOALS[0]).actions
    assert np.array_equal(planner.plan(FRAMES[0], GOALS[0]).actions, expected)
    others = [
        make(model, **SIZES, seed=1).plan(FRAMES[0], GOALS[0]),
        planner.plan(FRAMES[0], GOALS[0], plan_index=1),
    ]
    for other in others:
        assert not np.array_equal(other.actions, expected)
    ids = planner.plan(FRAMES[[0, 0]], GOALS[[0, 0]], problem_ids=[0, 5])
    assert np.array_equal(ids.actions[0], expected) and not np.array_equal(ids.actions[1], expected)


def test_context_frames_and_their_blocks_count(model: lewm.Model, planner: lewm.Planner) -> None:
    three = planner.plan_latents(LATENTS, GOAL_LATENTS, past_actions=PAST)
    one = planner.plan_latents(LATENTS[0], GOAL_LATENTS[0], past_actions=PAST[0])
    assert one.actions.tobytes() == three.actions[0].tobytes()
    expected = model.cost(LATENTS, GOAL_LATENTS, three.actions[:, None], PAST)[:, 0]
    np.testing.assert_allclose(three.cost, expected, rtol=1e-5)
    frames = planner.plan(FRAMES[:3], GOALS[0], past_actions=PAST[0])
    stacked = planner.plan(np.stack([FRAMES[:3], FRAMES[1:4]]), GOALS[:2], past_actions=PAST[:2])
    assert frames.actions.tobytes() == stacked.actions[0].tobytes()


def test_bounds_hold_and_a_warm_start_is_kept_at_no_iterations_cost(model: lewm.Model, make: Make) -> None:
    bounded = make(model, **SIZES, bounds=(-0.3, [0.2, 0.1])).plan(FRAMES[0], GOALS[0]).actions
    assert bounded.min() >= -0.3 and (bounded.reshape(H, 5, 2).max((0, 1)) <= [0.2001, 0.1001]).all()
    planner = make(model, **SIZES, std=1e-6)
    warm = synthetic.uniform(5, "warm", (H - 1, A))
    plan = planner.plan(FRAMES[0], GOALS[0], warm_start=warm)
    np.testing.assert_allclose(plan.actions, np.concatenate([warm, np.zeros((1, A))]), atol=1e-4)


def test_a_deadline_of_nothing_still_gives_a_plan(planner: lewm.Planner) -> None:
    plan = planner.plan(FRAMES[0], GOALS[0], deadline=0.0)
    assert plan.iterations < 4 and np.isfinite(plan.actions).all() and np.isfinite(plan.cost)


def _distance(latents: NDArray[np.float32], actions: NDArray[np.float32], goal: NDArray[np.float32]) -> Any:
    assert latents.shape[1:] == (H, D) and actions.shape[1:] == (H, A) and goal.shape == (D,)
    return ((latents[:, -1] - goal) ** 2).sum(-1)


def test_a_users_cost_decides(model: lewm.Model, planner: lewm.Planner, make: Make) -> None:
    own = make(model, **SIZES, cost=_distance)
    published = planner.plan(FRAMES[0], GOALS[0]).actions
    np.testing.assert_allclose(own.plan(FRAMES[0], GOALS[0]).actions, published, atol=1e-4)
    still = make(model, **{**SIZES, "iterations": 12}, cost=lambda _, actions, __: (actions**2).sum((1, 2)))
    assert (
        np.abs(still.plan(FRAMES[0], GOALS[0]).actions).mean()
        < 0.5 * np.abs(planner.plan(FRAMES[0], GOALS[0]).actions).mean()
    )
    torch = pytest.importorskip("torch")
    by_torch = make(
        model,
        **SIZES,
        cost=lambda z, _, goal: (torch.from_numpy(z)[:, -1] - torch.from_numpy(goal)).square().sum(-1),
    )
    np.testing.assert_allclose(
        by_torch.plan(FRAMES[0], GOALS[0]).cost, own.plan(FRAMES[0], GOALS[0]).cost, rtol=1e-4
    )


def test_what_a_users_cost_raises_comes_out(model: lewm.Model, make: Make) -> None:
    def fails(*_: Any) -> Any:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        make(model, **SIZES, cost=fails).plan(FRAMES[0], GOALS[0])
    with pytest.raises(ValueError, match=r"cost: expected \(\d+,\) from the function, got \(\)"):
        make(model, **SIZES, cost=lambda *_: 1.0).plan(FRAMES[0], GOALS[0])
    with pytest.raises(TypeError, match="cost: expected numbers from the function, got 'cheap'"):
        make(model, **SIZES, cost=lambda *_: "cheap").plan(FRAMES[0], GOALS[0])
    works = make(model, **SIZES, cost=_distance)
    assert np.isfinite(works.plan(FRAMES[0], GOALS[0]).cost)


def test_too_few_finite_costs_are_an_error(model: lewm.Model, make: Make) -> None:
    nan = make(model, **SIZES, cost=lambda latents, *_: np.full(len(latents), np.nan, np.float32))
    with pytest.raises(lewm.Error, match="finite"):
        nan.plan(FRAMES[0], GOALS[0])


def test_costs_of_given_candidates(model: lewm.Model, make: Make) -> None:
    actions = synthetic.uniform(6, "actions", (8, 5, H, A))
    final = make(model, **SIZES).evaluate(LATENTS, GOAL_LATENTS, actions, PAST)
    np.testing.assert_allclose(final, model.cost(LATENTS, GOAL_LATENTS, actions, PAST), rtol=1e-5)
    distances = ((model.rollout(LATENTS, actions, PAST) - GOAL_LATENTS[:, None, None]) ** 2).sum(-1)
    summed = make(model, **SIZES, cost="sum").evaluate(LATENTS, GOAL_LATENTS, actions, PAST)
    np.testing.assert_allclose(summed, distances.sum(-1), rtol=1e-5)
    discounted = make(model, **SIZES, cost="discounted", discount=0.5, action_penalty=0.1)
    expected = (distances * 0.5 ** np.arange(H)).sum(-1) + 0.1 * (actions**2).sum((2, 3))
    np.testing.assert_allclose(discounted.evaluate(LATENTS, GOAL_LATENTS, actions, PAST), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"method": "gradient"},
            ValueError,
            "method: expected one of cem, icem, mppi, predictive, got 'gradient'",
        ),
        ({"samples": 0}, ValueError, "samples"),
        ({"samples": 2.5}, TypeError, "samples: expected an int, got 2.5"),
        ({"samples": 2**70}, ValueError, "samples: expected an int of 64 bits"),
        ({"method": ["cem"]}, ValueError, "method: expected one of cem, icem, mppi, predictive, got"),
        ({"cost": np.zeros(3)}, ValueError, "cost: expected one of final, sum, discounted or a function"),
        ({"bounds": ("a", "b")}, TypeError, "bounds: low: expected numbers, got 'a'"),
        ({"std": 1e39}, ValueError, "^std: expected a finite number of at least 0, in float32"),
        ({"samples": 10, "elites": 11}, ValueError, "elites"),
        ({"elites": 0}, ValueError, "elites"),
        ({"iterations": 0}, ValueError, "iterations"),
        ({"horizon": 0}, ValueError, "horizon"),
        ({"seed": -1}, ValueError, r"seed: expected 0\.\.2\^64 - 1, got -1"),
        ({"seed": 1.5}, ValueError, "seed"),
        (
            {"bounds": (1.0, -1.0)},
            ValueError,
            "bounds: expected low of at most high, got more in dimension 0",
        ),
        (
            {"bounds": ([0, 2], [1, 1])},
            ValueError,
            "bounds: expected low of at most high, got more in dimension 1",
        ),
        (
            {"bounds": (-1, float("nan"))},
            ValueError,
            "bounds: high: expected numbers of float32 or inf, got nan",
        ),
        (
            {"bounds": (float("inf"), float("inf"))},
            ValueError,
            "bounds: low: expected numbers of float32 or -inf, got inf",
        ),
        (
            {"bounds": (-1e300, 1)},
            ValueError,
            r"bounds: low: expected numbers of float32 or -inf, got -1e\+300",
        ),
        (
            {"bounds": (-1, float("-inf"))},
            ValueError,
            "bounds: high: expected numbers of float32 or inf, got -inf",
        ),
        ({"std": -1.0}, ValueError, "^std: expected a finite number of at least 0, in float32, got -1"),
        (
            {"std": float("inf")},
            ValueError,
            "^std: expected a finite number of at least 0, in float32, got inf",
        ),
        (
            {"std": float("nan")},
            ValueError,
            "^std: expected a finite number of at least 0, in float32, got nan",
        ),
        ({"return_best": 3}, TypeError, "return_best: expected True or False, got 3"),
        ({"bounds": 1.0}, ValueError, r"bounds: expected \(low, high\), got 1\.0"),
        ({"bounds": ([0, 0, 0], 1)}, ValueError, r"bounds: low: expected a number or \(2,\), got \(3,\)"),
        ({"action_hold": 2}, ValueError, "action_hold: expected a divisor of a block's 5 steps, got 2"),
        ({"cost": "cheapest"}, ValueError, "cost: expected one of final, sum, discounted or a function"),
        ({"threads": 0}, ValueError, "threads: expected"),
        ({"temperature": -1.0, "method": "mppi"}, ValueError, "temperature"),
        ({"momentum": 1.5}, ValueError, "momentum"),
        ({"cost": "discounted", "discount": -1.0}, ValueError, "discount"),
        ({"action_penalty": -1.0}, ValueError, "action_penalty"),
        ({"method": "icem", "noise_exponent": 500.0}, ValueError, "noise_exponent: expected at most"),
        ({"bounds": {"low": -1, "high": 1}}, ValueError, r"bounds: expected \(low, high\), got {"),
        ({"momentum": "0.1"}, TypeError, "momentum: expected a number, got '0.1'"),
    ],
)
def test_options_out_of_range_are_refused(
    model: lewm.Model, options: dict[str, Any], error: type[Exception], message: str, make: Make
) -> None:
    with pytest.raises(error, match=message):
        make(model, **{**SIZES, **options})


@pytest.mark.parametrize(
    ("option", "value", "readers"),
    [
        ("elites", 6, METHODS),
        ("std_min", 0.0, ("cem", "icem")),
        ("momentum", 0.25, ("cem", "icem")),
        ("return_best", False, ("cem", "icem")),
        ("noise_exponent", 0.0, ("icem",)),
        ("kept_elites", 2, ("icem",)),
        ("temperature", 0.5, ("mppi",)),
    ],
)
def test_a_method_refuses_what_it_does_not_read(
    model: lewm.Model, option: str, value: Any, readers: tuple[str, ...], make: Make
) -> None:
    for method in METHODS:
        if method in readers:
            assert make(model, method, **{option: value}).options[option] == value
            continue
        message = f"^{option}: expected with method {' or '.join(readers)} only, got {value} with '{method}'$"
        with pytest.raises(ValueError, match=message):
            make(model, method, **{option: value})


def test_a_discount_is_refused_without_its_cost(model: lewm.Model, make: Make) -> None:
    for cost, told in (("final", "'final'"), ("sum", "'sum'"), (_distance, "a function")):
        with pytest.raises(ValueError, match=f"^discount: .* discounted only, got 0.5 with {told}$"):
            make(model, cost=cost, discount=0.5)


def test_the_defaults_are_the_published_settings(model: lewm.Model, make: Make) -> None:
    planner = make(model)
    published = {"samples": 300, "elites": 30, "iterations": 30, "horizon": 5, "std_init": 1.0}
    assert planner.method == "cem" and planner.options.items() >= published.items()


def test_the_published_number_of_elites_or_all(model: lewm.Model, make: Make) -> None:
    assert make(model, samples=20, iterations=1).options["elites"] == 20
    assert make(model, samples=300, iterations=1).options["elites"] == 30


def test_fewer_candidates_than_context_blocks(model: lewm.Model, make: Make) -> None:
    few = make(model, samples=1, elites=1, iterations=1, horizon=H)
    plan = few.plan_latents(LATENTS, GOAL_LATENTS, past_actions=PAST)
    expected = model.cost(LATENTS, GOAL_LATENTS, plan.actions[:, None], PAST)[:, 0]
    np.testing.assert_allclose(plan.cost, expected, rtol=1e-5)


def test_a_deadline_and_a_mean_that_has_no_cost(model: lewm.Model, make: Make) -> None:
    """What the cost function forbids lies in the middle of the elites: a candidate is returned."""

    def hole(latents: Any, actions: Any, goal: Any) -> Any:
        first = np.abs(np.asarray(actions)[:, 0, 0])
        return np.where(first < 0.3, np.inf, first).astype(np.float32)

    planner = make(model, samples=64, elites=30, iterations=1, horizon=H, cost=hole)
    plan = planner.plan_latents(LATENTS[:1], GOAL_LATENTS[:1], past_actions=PAST[:1], deadline=60.0)
    assert plan.iterations == 1 and abs(plan.actions[0, 0, 0]) >= 0.3
    np.testing.assert_allclose(plan.cost, np.abs(plan.actions[:, 0, 0]))


def test_a_planner_needs_a_model() -> None:
    with pytest.raises(TypeError, match=r"model: expected a lewm\.Model, got str"):
        lewm.Planner("model.safetensors")  # type: ignore[arg-type]


def test_backends_and_devices_that_do_not_exist_are_refused(model: lewm.Model) -> None:
    with pytest.raises(ValueError, match="backend: expected one of core, torch, got 'jax'"):
        lewm.Planner(model, backend="jax")
    with pytest.raises(ValueError, match="device: expected None with backend='core'"):
        lewm.Planner(model, device="cpu")
    pytest.importorskip("torch")
    with pytest.raises(ValueError, match=r"device: expected a torch device .* got 'abacus'"):
        lewm.Planner(model, backend="torch", device="abacus")
    with pytest.raises(lewm.Error, match="device: torch cannot use 'cuda:99' here"):
        lewm.Planner(model, backend="torch", device="cuda:99")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"frame": FRAMES[0, :32]}, ValueError, r"frame: expected \(64, 64, 3\), got \(32, 64, 3\)"),
        ({"frame": FRAMES}, ValueError, "frame: expected at most 3 context frames, got 8"),
        ({"frame": FRAMES[:2]}, ValueError, "past_actions: needed with 2 context frames"),
        ({"goal": GOALS}, ValueError, r"frame: expected \(8, 64, 64, 3\), got \(64, 64, 3\)"),
        ({"goal": GOALS[0, :, :, :2]}, ValueError, r"goal: expected \(64, 64, 3\)"),
        ({"goal": GOALS[0].astype(np.float64)}, TypeError, "goal: expected uint8 or float32, got float64"),
        (
            {"goal": np.zeros((3, 64, 64), np.float32)},
            TypeError,
            "goal: expected uint8 as the frame, got float32",
        ),
        ({"goal": None}, (ValueError, TypeError), "goal"),
        ({"deadline": -1.0}, ValueError, "deadline: expected seconds of at least 0, got -1.0"),
        ({"deadline": float("nan")}, ValueError, "deadline"),
        ({"deadline": "1"}, TypeError, "deadline: expected a number"),
        ({"plan_index": -1}, ValueError, "plan_index"),
        (
            {"warm_start": np.zeros((5, A), np.float32)},
            ValueError,
            "warm_start: expected at most 4 blocks, got 5",
        ),
        (
            {"warm_start": np.zeros((2, 3), np.float32)},
            ValueError,
            r"warm_start: expected \(1, H, 10\), got \(1, 2, 3\)",
        ),
        ({"warm_start": np.full((2, A), np.nan, np.float32)}, ValueError, "warm_start: expected finite"),
        ({"problem_ids": [1, 2]}, ValueError, r"problem_ids: expected \(1,\), got \(2,\)"),
        ({"problem_ids": [-1]}, ValueError, r"problem_ids: expected 0\.\.2\^32 - 1, got -1\.\.-1"),
        ({"problem_ids": [0.5]}, TypeError, "problem_ids: expected integers, got float64"),
    ],
)
def test_requests_of_anything_else_are_refused(
    planner: lewm.Planner, arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        planner.plan(**{"frame": FRAMES[0], "goal": GOALS[0], **arguments})


@pytest.mark.parametrize(
    ("latents", "goal", "message"),
    [
        (LATENTS[0, :1, :5], GOAL_LATENTS[0], r"latents: expected \(C, 128\), got \(1, 5\)"),
        (LATENTS[:, :1], GOAL_LATENTS[:3], r"goal: expected \(8, 128\), got \(3, 128\)"),
        (LATENTS[:0, :1], GOAL_LATENTS[:0], r"latents: expected \(B, C, 128\), got \(0, 1, 128\)"),
        (np.full((1, D), np.nan, np.float32), GOAL_LATENTS[0], "latents: expected finite"),
        (LATENTS[0, :1], np.full(D, np.inf, np.float32), "goal: expected finite"),
    ],
)
def test_latents_of_anything_else_are_refused(
    planner: lewm.Planner, latents: Any, goal: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        planner.plan_latents(latents, goal)


def test_a_planner_is_shared_by_threads(planner: lewm.Planner) -> None:
    expected, results = planner.plan(FRAMES[0], GOALS[0]).actions, {}
    threads = [
        threading.Thread(target=lambda i=i: results.update({i: planner.plan(FRAMES[0], GOALS[0]).actions}))
        for i in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4 and all(np.array_equal(actions, expected) for actions in results.values())


class _Owner:
    """Refers to its planner, which refers to it by the cost, and to a controller over it."""

    def __init__(self, make: Make, model: lewm.Model) -> None:
        self.planner = make(model, **SIZES, cost=self.cost)
        self.controller = lewm.Controller(self.planner)

    def cost(self, latents: NDArray[np.float32], _: Any, goal: NDArray[np.float32]) -> Any:
        return np.square(latents[:, -1] - goal).sum(1)


def test_a_planner_whose_cost_refers_to_it_is_collected(model: lewm.Model, make: Make) -> None:
    owner = _Owner(make, model)
    owner.controller.act(FRAMES[0], GOALS[0])
    seen = weakref.ref(owner)
    del owner
    gc.collect()
    assert seen() is None


def test_what_a_cost_raises_comes_out_where_it_was_called(model: lewm.Model) -> None:
    def cost(latents: NDArray[np.float32], _: Any, goal: NDArray[np.float32]) -> Any:
        if goal[0] > 0:
            raise KeyError("mine")
        return np.square(latents[:, -1] - goal).sum(1)

    planner = lewm.Planner(model, **SIZES, cost=cost)
    told: dict[float, set[str]] = {1.0: set(), -1.0: set()}

    def plan(sign: float) -> None:
        for _ in range(50):
            try:
                planner.plan_latents(LATENTS[0, :1], np.full(D, sign, np.float32))
                told[sign].add("planned")
            except Exception as error:
                told[sign].add(repr(error))

    threads = [threading.Thread(target=plan, args=(sign,)) for sign in told]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert told == {1.0: {"KeyError('mine')"}, -1.0: {"planned"}}


def test_a_cost_cannot_use_the_planner_that_calls_it(model: lewm.Model, make: Make) -> None:
    """It would wait for itself, without an end."""
    planners: list[lewm.Planner] = []
    plan_with_itself, evaluate, act, plan_with_another = (
        lambda _, actions, goal: planners[0].plan_latents(LATENTS[0, :1], goal).cost,
        lambda _, actions, goal: planners[0].evaluate(LATENTS[:1, :1], goal[None], actions[None])[0],
        lambda *_: lewm.Controller(planners[0]).act(FRAMES[0], GOALS[0]),
        lambda _, actions, goal: planners[1].plan_latents(LATENTS[0, :1], goal).cost,
    )
    one_thread = lewm.Model.from_checkpoint(model.checkpoint(), "fp32", 1)
    for cost in (plan_with_itself, evaluate, act, plan_with_another):
        planners[:] = make(model, **SIZES, cost=cost), make(one_thread, **SIZES, cost=plan_with_itself)
        with pytest.raises(ValueError, match="cost: the function uses the planner that calls it"):
            planners[0].plan_latents(LATENTS[0, :1], GOAL_LATENTS[0])


def test_a_deadline_counts_waiting_for_another_plan(model: lewm.Model) -> None:
    began, goes_on = threading.Event(), threading.Event()

    def cost(latents: NDArray[np.float32], *_: Any) -> Any:
        began.set()
        goes_on.wait(60)
        return np.square(latents[:, -1]).sum(1)

    planner, iterations = lewm.Planner(model, **SIZES, cost=cost), []
    first = threading.Thread(target=planner.plan, args=(FRAMES[0], GOALS[0]))
    second = threading.Thread(
        target=lambda: iterations.append(planner.plan(FRAMES[0], GOALS[0], deadline=0.2).iterations)
    )
    first.start()
    assert began.wait(60)
    second.start()
    second.join(0.4)
    assert second.is_alive(), "two plans ran at once"
    goes_on.set()
    first.join()
    second.join()
    assert iterations == [0]


@pytest.mark.parametrize("deadline", [None, 100.0])
def test_a_candidate_stands_in_for_a_mean_without_a_finite_cost(
    model: lewm.Model, make: Make, deadline: float | None
) -> None:
    def hole(_: Any, actions: NDArray[np.float32], __: Any) -> Any:
        return np.where(np.abs(actions[:, 0, 0]) < 0.5, np.nan, np.abs(actions[:, 0, 0]))

    options = SIZES | {"samples": 200, "elites": 60, "iterations": 1}
    plan = make(model, **options, cost=hole).plan(FRAMES[0], GOALS[0], deadline=deadline)
    assert plan.cost == abs(plan.actions[0, 0]) >= 0.5
