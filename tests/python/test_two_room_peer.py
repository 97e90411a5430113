"""The published Two-Room environment and ours agree (marker ``peer``).

Run where the published package is installed: ``python -m pytest -m peer tests/python/test_two_room_peer.py``.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

pytestmark = pytest.mark.peer

GREY_LEVELS = 2  # largest difference of a pixel
EPISODES, STEPS = 30, 60


@pytest.fixture(scope="module")
def published():
    pytest.importorskip("stable_worldmodel")
    env = pytest.importorskip("stable_worldmodel.envs.two_room.env").TwoRoomEnv()
    env.reset(seed=0)
    return env


def place(published, start: np.ndarray, goal: np.ndarray) -> None:
    published.reset(
        seed=0, options={"state": start.astype(np.float32), "target_state": goal.astype(np.float32)}
    )


def starts_and_goals(count: int, seed: int = 0) -> list[tuple[np.ndarray, np.ndarray]]:
    """Anywhere in the field, a third of the starts about the door."""
    rng = np.random.default_rng(seed)
    starts = rng.uniform(14, 209, (count, 2))
    starts[::3] = rng.uniform((95, 30), (130, 70), (len(starts[::3]), 2))
    return list(
        zip(starts.astype(np.float32), rng.uniform(14, 209, (count, 2)).astype(np.float32), strict=True)
    )


def test_steps_and_successes_are_the_same(published) -> None:
    from lewm.envs.two_room import TwoRoomEnv

    env, rng, crossed = TwoRoomEnv(16), np.random.default_rng(1), 0
    for start, goal in starts_and_goals(EPISODES):
        place(published, start, goal)
        env.reset(seed=0, options={"state": start, "goal_state": goal})
        drift = rng.normal(size=2)
        for _ in range(STEPS):
            action = (drift + 1.5 * rng.normal(size=2)).astype(np.float32)
            ours, _, success, _, _ = env.step(action)
            _, _, terminated, _, info = published.step(action)
            np.testing.assert_array_equal(ours.astype(np.float32), info["state"])
            assert success == terminated
        crossed += (start[0] < 112) != (ours[0] < 112)
    assert crossed > 0, "no walk went through the door"


@pytest.mark.parametrize("size", [224, 64])
def test_pictures_are_the_same(published, size: int) -> None:
    image = pytest.importorskip("PIL.Image")
    from lewm.envs.two_room import Renderer

    renderer = Renderer(size)
    for start, goal in starts_and_goals(40, seed=2):
        place(published, start, goal)
        theirs = image.fromarray(published.render())
        if size != 224:
            theirs = theirs.resize((size, size), image.Resampling.BILINEAR)  # as their pixel wrapper does
        difference = renderer.render(start[None])[0].astype(int) - np.asarray(theirs)
        assert np.abs(difference).max() <= GREY_LEVELS


def test_the_expert_heads_the_same_way(published) -> None:
    from stable_worldmodel.envs.two_room import ExpertPolicy

    from lewm.envs.two_room import NoisyExpert

    ours, theirs = NoisyExpert(noise=0.0), ExpertPolicy(action_noise=0.0)
    theirs.set_env(SimpleNamespace(unwrapped=published, action_space=published.action_space))
    for start, goal in starts_and_goals(60, seed=3):
        expected = theirs.get_action({"state": start, "goal_state": goal})
        actions = ours.actions(start[None], goal[None], np.zeros((1, 2)))
        np.testing.assert_allclose(actions[0], expected, atol=1e-6)
