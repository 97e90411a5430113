"""The drop-in solver without the published stack: what it is told, its plans and its costs are those of lewm."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import lewm
import lewm.swm
import synthetic
from lewm.checkpoint import Checkpoint

CONFIG = synthetic.TINY
SIZE, A = CONFIG.image_size, CONFIG.block_dim
N, S, H = 2, 6, 4  # problems, candidates, blocks
SEARCH = {"num_samples": 24, "n_steps": 3, "topk": 5, "var_scale": 0.7, "seed": 9}


@pytest.fixture(scope="module")
def model() -> lewm.Model:
    return lewm.Model.from_checkpoint(Checkpoint(CONFIG, synthetic.state(CONFIG)), "fp32", 1)


def configure(solver: lewm.swm.Solver, action_block: int = CONFIG.frame_skip) -> None:
    """What the published policy hands over, as far as it is read."""
    space = SimpleNamespace(shape=(N, CONFIG.action_dim))
    solver.configure(
        action_space=space, n_envs=N, config=SimpleNamespace(horizon=H, action_block=action_block)
    )


def scene(model: lewm.Model, frames: int) -> tuple[dict[str, Any], np.ndarray, np.ndarray]:
    """What the policy shows (N problems), and the latents of its frames (N, C, D) and goals (N, D)."""
    pixels = synthetic.uniform(1, "pixels", (N, frames, 3, SIZE, SIZE))
    goal = synthetic.uniform(1, "goal", (N, 1, 3, SIZE, SIZE))
    info = {"pixels": torch.from_numpy(pixels), "goal": torch.from_numpy(goal), "id": [0, 1]}
    latents = model.encode(pixels.reshape(-1, 3, SIZE, SIZE)).reshape(N, frames, -1)
    return info, latents, model.encode(goal[:, 0])


def expanded(info: dict[str, Any]) -> dict[str, Any]:
    """With the candidate axis of the published solvers."""
    return {
        name: value[:, None].expand(-1, S, *value.shape[1:]) if isinstance(value, torch.Tensor) else value
        for name, value in info.items()
    }


def blocks(*shape: int) -> torch.Tensor:
    return torch.from_numpy(synthetic.uniform(2, "blocks", (*shape, A)))


def test_every_part_of_the_protocol_answers_before_configure(model: lewm.Model) -> None:
    """`isinstance` with a runtime protocol reads them all."""
    solver = lewm.swm.Solver(model, **SEARCH)
    assert (solver.n_envs, solver.horizon, solver.action_dim) == (0, 0, A)
    configure(solver)
    assert (solver.n_envs, solver.horizon, solver.action_dim) == (N, H, A)


def test_every_method_solves_with_few_samples_unless_told_otherwise(model: lewm.Model) -> None:
    info, _, _ = scene(model, 1)
    for method in ("cem", "icem", "mppi", "predictive"):
        solver = lewm.swm.Solver(model, num_samples=8, n_steps=1, method=method)
        configure(solver)
        assert solver.solve(info)["actions"].shape == (N, H, A)


def test_costs_of_one_frame(model: lewm.Model) -> None:
    info, latents, goal = scene(model, 1)
    actions = blocks(N, S, H)
    costs = lewm.swm.Solver(model).get_cost(expanded(info), actions)
    np.testing.assert_array_equal(costs, model.cost(latents, goal, actions.numpy()))
    followed = lewm.swm.Solver(model).get_cost(expanded(info), actions.clone().requires_grad_())
    assert torch.equal(followed, costs)


def test_costs_in_the_released_layout_take_past_blocks_from_the_candidates(model: lewm.Model) -> None:
    info, latents, goal = scene(model, 3)
    actions = blocks(N, S, 2 + H)
    costs = lewm.swm.Solver(model).get_cost(expanded(info), actions)
    for s in range(S):
        past, future = actions[:, s, :2].numpy(), actions[:, s : s + 1, 2:].numpy()
        np.testing.assert_array_equal(costs[:, s], model.cost(latents, goal, future, past)[:, 0])


def test_costs_in_the_newer_layout_take_past_blocks_from_the_history(model: lewm.Model) -> None:
    info, latents, goal = scene(model, 3)
    actions, past = blocks(N, S, H), blocks(N, 2)
    costs = lewm.swm.Solver(model).get_cost(expanded({**info, "action_history": past}), actions)
    np.testing.assert_array_equal(costs, model.cost(latents, goal, actions.numpy(), past.numpy()))


def test_plans_are_those_of_a_planner_with_the_same_settings(model: lewm.Model) -> None:
    solver = lewm.swm.Solver(model, **SEARCH, method="icem", batch_size=1)
    configure(solver)
    assert (solver.n_envs, solver.horizon, solver.action_dim) == (N, H, A)
    planner = lewm.Planner(model, "icem", samples=24, iterations=3, elites=5, std=0.7, seed=9, horizon=H)
    info, latents, goal = scene(model, 3)
    past, start = blocks(N, 2), blocks(N, 3)
    for index, warm in enumerate((start, None)):
        followed = None if warm is None else warm.clone().requires_grad_()  # by autograd
        outputs = solver({**info, "action_history": past}, init_action=followed)
        plan = planner.plan_latents(
            latents,
            goal,
            past_actions=past.numpy(),
            warm_start=None if warm is None else warm.numpy(),
            plan_index=index,
        )
        np.testing.assert_array_equal(outputs["actions"], plan.actions)
        assert outputs["costs"] == plan.elite_cost.tolist()
        (mean,), (std,) = outputs["mean"], outputs["var"]
        np.testing.assert_array_equal(mean, plan.actions)
        np.testing.assert_array_equal(std, plan.std)
    assert solver.plans == 2


def test_a_model_is_loaded_from_its_path_and_frames_may_be_uint8(model: lewm.Model, tmp_path: Path) -> None:
    lewm.save(synthetic.state(CONFIG), tmp_path / "model.safetensors", config=CONFIG)
    solver = lewm.swm.Solver(tmp_path / "model.safetensors", precision="fp32")
    frames = synthetic.frames(1, 2 * N, SIZE).reshape(2, N, 1, SIZE, SIZE, 3)
    actions = blocks(N, S, H)
    costs = solver.get_cost(
        expanded({"pixels": torch.from_numpy(frames[0]), "goal": torch.from_numpy(frames[1])}), actions
    )
    latents, goal = (model.encode(part[:, 0]) for part in frames)
    np.testing.assert_array_equal(costs, model.cost(latents[:, None], goal, actions.numpy()))


def test_wrong_requests_are_named(model: lewm.Model) -> None:
    solver = lewm.swm.Solver(model)
    info = scene(model, 1)[0]
    with pytest.raises(RuntimeError, match="solve: configure the solver first"):
        solver(info)
    with pytest.raises(ValueError, match=r"config: expected blocks of 10 numbers .* got 4 actions of \(2,\)"):
        configure(solver, action_block=4)
    configure(solver)
    with pytest.raises(ValueError, match=r"info_dict: expected 'goal', got \['pixels'\]"):
        solver({"pixels": info["pixels"]})
    with pytest.raises(
        ValueError, match=r"pixels: expected \(n, frames, \.\.\.\) images, got \(2, 3, 32, 32\)"
    ):
        solver({**info, "pixels": info["pixels"][:, 0]})
    with pytest.raises(ValueError, match="info_dict: expected 'action_history'"):
        solver(scene(model, 3)[0])
    assert solver.plans == 0
