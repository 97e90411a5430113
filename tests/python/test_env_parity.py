"""The published package's environments and ours agree on the same states and actions (marker ``peer``).

Run with the interpreter that has the published package: ``python -m pytest -m peer tests/python/test_env_parity.py``.
"""

import os

import numpy as np
import pytest

pytestmark = pytest.mark.peer

os.environ.setdefault("SDL_VIDEODRIVER", "dummy")

TRAJECTORIES = 40
STEPS = 25
TRAJECTORY_TOLERANCE = 1.0  # px after STEPS steps
GREY_TOLERANCE = 2.0  # grey levels, mean over a picture
STATE_PAIRS = 1000


@pytest.fixture(scope="module")
def published_push_t():
    pytest.importorskip("stable_worldmodel")
    module = pytest.importorskip("stable_worldmodel.envs.pusht.env")
    env = module.PushT(resolution=224)
    env.reset(seed=0)
    return env


def _push_t_start(published, state: np.ndarray) -> np.ndarray:
    """Resets the published environment into ``state`` (7,), its goal far away; returns the state it reports."""
    away = np.array([450.0, 450, 200, 200, 0, 0, 0])
    observation, _ = published.reset(seed=0, options={"state": state, "goal_state": away})
    return observation["state"]


def test_push_t_trajectories(published_push_t) -> None:
    pytest.importorskip("pymunk")
    from lewm.envs.push_t import PushTEnv
    from lewm.envs.push_t_policies import NearBlockPolicy

    env, policy, rng = PushTEnv(), NearBlockPolicy(), np.random.default_rng(0)
    errors, block_moves = [], []
    for _ in range(TRAJECTORIES):
        start, goal = env.sample_episode(rng)
        env.reset(seed=0, options={"state": _push_t_start(published_push_t, start[:7]), "goal_state": goal})
        policy.reset(env, rng)
        for _ in range(STEPS):
            action = policy.act(env)
            ours = env.step(action)[0]
            theirs = published_push_t.step(action)[0]["state"]
        errors.append(np.abs(ours[:4] - theirs[:4]).max())
        block_moves.append(np.abs(ours[2:4] - start[2:4]).max())
    assert np.mean(np.array(block_moves) > 10) > 0.3, "too few of the trajectories push the block"
    assert max(errors) < TRAJECTORY_TOLERANCE


def test_push_t_pictures(published_push_t) -> None:
    from lewm.envs.push_t import PushTEnv

    env, rng = PushTEnv(image_size=224), np.random.default_rng(1)
    for _ in range(20):
        state = _push_t_start(published_push_t, env.sample_episode(rng)[0][:7])
        ours, theirs = env.render_state(state).astype(int), published_push_t.render().astype(int)
        assert np.abs(ours - theirs).mean() < GREY_TOLERANCE
        drawn = (theirs != 255).any(axis=-1)  # the background alone would pass
        assert np.abs(ours - theirs)[drawn].mean() < 5 * GREY_TOLERANCE


def test_push_t_success_flags(published_push_t) -> None:
    from lewm.envs.push_t import PushTEnv

    env, rng = PushTEnv(), np.random.default_rng(2)
    goals = np.concatenate(
        [rng.uniform(50, 450, (STATE_PAIRS, 4)), rng.uniform(0, 2 * np.pi, (STATE_PAIRS, 1))], axis=1
    )
    goals = np.concatenate([goals, np.zeros((STATE_PAIRS, 2))], axis=1)
    near = np.array([9.0, 9, 9, 9, 0.3, 50, 50])  # about half of the pairs succeed
    states = goals + near * rng.normal(size=goals.shape)
    states[:, 4] %= 2 * np.pi
    theirs = np.array(
        [published_push_t.eval_state(g, s)[0] for g, s in zip(goals, states, strict=True)], dtype=bool
    )
    pad = np.zeros((STATE_PAIRS, 3))
    ours = env.success(np.concatenate([states, pad], axis=1), np.concatenate([goals, pad], axis=1))
    assert 0.2 < theirs.mean() < 0.8
    np.testing.assert_array_equal(ours, theirs)


def test_reacher_trajectories_pictures_and_success() -> None:
    module = pytest.importorskip("stable_worldmodel.envs.dmcontrol.reacher")
    from lewm.envs.reacher import ReacherEnv

    published = module.ReacherDMControlWrapper(task="qpos_match")
    published.reset(seed=0)
    env, rng = ReacherEnv(image_size=224), np.random.default_rng(3)
    for _ in range(3):
        state, _ = env.sample_episode(rng)
        published.set_state(state[:2], state[2:])
        env.reset(seed=0, options={"state": state})
        difference = env.render().astype(int) - published.render().astype(int)
        assert np.abs(difference).mean() < GREY_TOLERANCE
        for _ in range(STEPS):
            action = env.sample_action(rng)
            ours = env.step(action)[0]
            published.step(action)
        physics = published.dmc_env.physics
        np.testing.assert_allclose(ours, np.concatenate([physics.data.qpos, physics.data.qvel]), atol=1e-5)

    goals = rng.uniform(-2.5, 2.5, (STATE_PAIRS, 2))
    states = goals + 0.05 * rng.normal(size=goals.shape)
    theirs = []
    for state, goal in zip(states, goals, strict=True):
        physics.data.qpos[:] = state
        published.set_target_qpos(goal)
        theirs.append(published.dmc_env.task.get_termination(physics) is not None)
    assert 0.2 < np.mean(theirs) < 0.8
    np.testing.assert_array_equal(env.success(states, goals), theirs)


def test_cube_trajectories_pictures_and_success() -> None:
    module = pytest.importorskip("stable_worldmodel.envs.ogbench.cube_env")
    from lewm.envs.cube import CubeEnv
    from lewm.envs.cube_policies import OraclePolicy

    published = module.CubeEnv(
        "single", mode="data_collection", visualize_info=False, terminate_at_goal=False
    )
    published.reset(seed=0)
    env, policy, rng = CubeEnv(image_size=224), OraclePolicy(), np.random.default_rng(4)
    state, goal = env.sample_episode(rng)
    published.set_state(state[:21], state[21:41])
    env.reset(seed=0, options={"state": state, "goal_state": goal})
    difference = env.render().astype(int) - published.render().astype(int)
    assert np.abs(difference).mean() < GREY_TOLERANCE
    policy.reset(env, rng)
    for _ in range(2 * STEPS):
        action = policy.act(env)
        ours = env.step(action)[0]
        published.step(action)
    assert np.linalg.norm(ours[14:17] - state[14:17]) > 0.01, "the cube was not moved"
    np.testing.assert_allclose(ours[:21], published._data.qpos, atol=1e-4)

    goals = np.tile(goal, (STATE_PAIRS, 1))
    states = goals.copy()
    states[:, 14:17] += 0.025 * rng.normal(size=(STATE_PAIRS, 3))
    theirs = []
    for other in states:
        published._data.qpos[14:17] = other[14:17]
        published.set_target_pos(0, goal[14:17])
        theirs.append(published._compute_successes()[0])
    assert 0.2 < np.mean(theirs) < 0.8
    np.testing.assert_array_equal(env.success(states, goals), theirs)


def test_two_room_pictures() -> None:
    module = pytest.importorskip("stable_worldmodel.envs.two_room.env")
    two_room = pytest.importorskip("lewm.envs.two_room")

    published = module.TwoRoomEnv()
    env, rng = two_room.TwoRoomEnv(image_size=224), np.random.default_rng(5)
    for seed in range(10):
        published.reset(seed=seed)
        position = env.sample_episode(rng)[0]
        theirs = _two_room_frame(published, position)
        ours = env.render_state(position).astype(int)
        assert np.abs(ours - theirs).mean() < GREY_TOLERANCE
        dot = theirs[..., 0] > theirs[..., 2] + 30
        assert dot.any() and np.abs(ours - theirs)[dot].mean() < 5 * GREY_TOLERANCE


def _two_room_frame(published, position: np.ndarray) -> np.ndarray:
    """The published frame with the agent at ``position`` (2,)."""
    published._set_state(position)
    return np.asarray(published.render()).astype(int)
