"""The drop-in solver beside the published stack: equal costs on equal candidates, and its policy drives it unchanged.

Runs in an environment with the published package (benches/peers.txt): PYTHONPATH=python python -m pytest -m peer.
"""

from __future__ import annotations

import sys

import numpy as np
import pytest

pytestmark = pytest.mark.peer

torch = pytest.importorskip("torch")
pytest.importorskip("stable_worldmodel")

import golden
import lewm
import lewm.swm
import synthetic

COST_RELATIVE = 1e-4
"""Of fp32 costs against the published implementation."""

CONFIG = synthetic.small()


@pytest.fixture(scope="module")
def published():
    """The published model with synthetic weights."""
    sys.path.insert(0, str(golden.FOLDER))
    import published_model

    return published_model.build(CONFIG, synthetic.state(CONFIG))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("published") / "model.safetensors"
    lewm.save(synthetic.state(CONFIG), path, config=CONFIG)
    return path


def scene(frames: int, problems: int = 1, samples: int = 6) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Context, goal and candidates with the candidate axis that the solvers add.

    One problem by default: the published criterion broadcasts its goals over a single one.
    """
    generator = torch.Generator().manual_seed(frames)
    draw = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
    side = CONFIG.image_size
    info = {
        "pixels": draw(problems, 1, frames, 3, side, side).expand(-1, samples, -1, -1, -1, -1),
        "goal": draw(problems, 1, 1, 3, side, side).expand(-1, samples, -1, -1, -1, -1),
        "action": draw(problems, 1, 1, CONFIG.block_dim).expand(-1, samples, -1, -1),
    }
    return info, draw(problems, samples, 4 + frames, CONFIG.block_dim)


@pytest.mark.parametrize("frames", [1, 3])
def test_costs_equal_the_published_model_s_in_the_released_layout(published, checkpoint, frames):
    info, candidates = scene(frames)
    with torch.no_grad():
        expected = published.get_cost(dict(info), candidates)
    solver = lewm.swm.Solver(checkpoint, precision="fp32")
    np.testing.assert_allclose(solver.get_cost(info, candidates), expected, rtol=COST_RELATIVE)


def test_costs_with_an_action_history_are_those_of_future_candidates(published, checkpoint):
    info, candidates = scene(3)
    past = candidates[:, :1, :2].expand(-1, candidates.shape[1], -1, -1)
    candidates = torch.cat([past, candidates[:, :, 2:]], dim=2)
    with torch.no_grad():
        expected = published.get_cost(dict(info), candidates)
    solver = lewm.swm.Solver(checkpoint, precision="fp32")
    newer = {**info, "action_history": past}
    np.testing.assert_allclose(solver.get_cost(newer, candidates[:, :, 2:]), expected, rtol=COST_RELATIVE)


def test_solver_satisfies_the_protocol(checkpoint):
    from stable_worldmodel.solver import Solver as Protocol

    solver = lewm.swm.Solver(checkpoint)
    configure(solver, environments=2)
    assert isinstance(solver, Protocol)
    assert (solver.n_envs, solver.horizon, solver.action_dim) == (2, 5, 10)


def configure(solver: lewm.swm.Solver, environments: int) -> None:
    from gymnasium.spaces import Box
    from stable_worldmodel.policy import PlanConfig

    space = Box(-1.0, 1.0, (environments, 2), np.float32)
    solver.configure(
        action_space=space,
        n_envs=environments,
        config=PlanConfig(horizon=5, receding_horizon=5, action_block=5),
    )


def test_the_outputs_are_those_of_the_published_solver(checkpoint):
    solver = lewm.swm.Solver(checkpoint, num_samples=32, n_steps=4, topk=8, precision="fp32")
    configure(solver, environments=2)
    info, _ = scene(1, problems=2)
    info = {key: value[:, 0] for key, value in info.items()}
    start = torch.randn(2, 3, 10, generator=torch.Generator().manual_seed(1))
    outputs = solver(info, init_action=start)
    assert outputs["actions"].shape == (2, 5, 10) and outputs["actions"].dtype == torch.float32
    assert len(outputs["costs"]) == 2 and all(np.isfinite(outputs["costs"]))
    assert torch.equal(outputs["mean"][0], outputs["actions"])
    assert outputs["var"][0].shape == (2, 5, 10) and (outputs["var"][0] >= 0).all()
    again = solver(info, init_action=start)
    assert not torch.equal(again["actions"], outputs["actions"])  # a new plan draws new noise


def test_blocks_that_are_not_the_model_s_are_refused(checkpoint):
    from gymnasium.spaces import Box
    from stable_worldmodel.policy import PlanConfig

    solver = lewm.swm.Solver(checkpoint)
    with pytest.raises(ValueError, match="expected blocks of 10 numbers"):
        solver.configure(
            action_space=Box(-1.0, 1.0, (1, 2), np.float32),
            n_envs=1,
            config=PlanConfig(horizon=5, receding_horizon=5, action_block=4),
        )


def test_problems_of_a_batch_cost_what_they_cost_alone(checkpoint):
    info, candidates = scene(3, problems=2)
    solver = lewm.swm.Solver(checkpoint, precision="fp32")
    together = solver.get_cost(info, candidates)
    for row in range(2):
        alone = solver.get_cost(
            {key: value[row : row + 1] for key, value in info.items()}, candidates[row : row + 1]
        )
        assert torch.equal(together[row : row + 1], alone)


class RecordedEpisodes:
    """What the published World reads of a data set: here random pictures."""

    column_names = ("pixels",)

    def load_chunk(self, episodes, starts, ends):
        generator = torch.Generator().manual_seed(0)
        shape = (3, CONFIG.image_size, CONFIG.image_size)
        return [
            {"pixels": torch.randint(256, (end - start, *shape), generator=generator).to(torch.uint8)}
            for _, start, end in zip(episodes, starts, ends, strict=True)
        ]


@pytest.mark.parametrize("environment", ["swm/TwoRoom-v1", "swm/PushT-v1"])
def test_the_published_world_and_policy_run_with_it(checkpoint, environment):
    import stable_worldmodel as swm
    from stable_worldmodel.policy import PlanConfig, WorldModelPolicy

    def prepare(image: torch.Tensor) -> torch.Tensor:
        mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
        return (image.float() / 255.0 - mean[:, None, None]) / std[:, None, None]

    solver = lewm.swm.Solver(checkpoint, num_samples=16, n_steps=2, topk=4)
    plan = PlanConfig(horizon=5, receding_horizon=2, action_block=5)
    policy = WorldModelPolicy(solver, plan, transform={"pixels": prepare, "goal": prepare})
    world = swm.World(environment, num_envs=2, image_shape=(64, 64), max_episode_steps=30)
    try:
        world.set_policy(policy)
        results = world.evaluate(
            dataset=RecordedEpisodes(),
            episodes_idx=[0, 1],
            start_steps=[0, 0],
            goal_offset=5,
            eval_budget=30,
        )
    finally:
        world.close()
    assert results["episode_successes"].shape == (2,)
    assert solver.plans == 3  # 30 steps, ten executed from each plan
