"""Cube: OGBench's scene, exact continuation from a state, pictures of the right state, and the oracle at work."""

import numpy as np
import pytest

pytest.importorskip("gymnasium")
pytest.importorskip("mujoco")
pytest.importorskip("dm_control")
pytest.importorskip("ogbench")

from gymnasium.utils.env_checker import check_env

from drawing import needs_opengl
from lewm.envs.cube import CubeEnv
from lewm.envs.cube_scene import _merge_vertices

CUBE = slice(14, 17)


@pytest.fixture
def env() -> CubeEnv:
    made = CubeEnv(image_size=64)
    made.reset(seed=0)
    return made


@needs_opengl
def test_passes_gymnasiums_checker() -> None:
    check_env(CubeEnv(image_size=64), skip_render_check=False)


def test_state_continues_exactly_through_a_grasp(env: CubeEnv) -> None:
    policy = CubeEnv.policies["oracle"]()
    policy.reset(env, np.random.default_rng(0))
    resting = env.get_state()[16]
    while env.get_state()[16] < resting + 0.02:  # until the cube hangs in the gripper
        env.step(policy.act(env))
    other = CubeEnv(image_size=64)
    other.reset(seed=1)
    other.set_state(env.get_state())
    np.testing.assert_array_equal(other.get_state(), env.get_state())
    rng = np.random.default_rng(2)
    for _ in range(5):
        action = env.sample_action(rng)
        np.testing.assert_array_equal(env.step(action)[0], other.step(action)[0])


def test_environments_of_one_process_are_independent(env: CubeEnv) -> None:
    other = CubeEnv(image_size=64)
    other.reset(seed=5)
    state = other.get_state()
    env.step(np.array([1.0, 0, 0, 0, 0]))
    np.testing.assert_array_equal(other.get_state(), state)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_action_moves_the_hand_by_up_to_5_cm(env: CubeEnv, axis: int) -> None:
    sign = -1.0 if env.columns()["effector_position"][axis] > (0.42, 0.0, 0.28)[axis] else 1.0
    before = env.columns()["effector_position"]
    action = np.zeros(5)
    action[axis] = sign
    env.step(action)
    env.step(np.zeros(5))
    moved = env.columns()["effector_position"] - before
    assert 0.01 < sign * moved[axis] < 0.06
    assert np.abs(np.delete(moved, axis)).max() < 0.02


def test_gripper_closes_and_opens(env: CubeEnv) -> None:
    for sign, closed in ((1.0, True), (-1.0, False)):
        for _ in range(10):
            env.step(np.array([0.0, 0, 0, 0, sign]))
        assert bool(env.columns()["gripper_opening"][0] > 0.5) is closed


@pytest.mark.parametrize(("offset", "expected"), [(0.0, True), (0.039, True), (0.041, False)])
def test_success_rule(env: CubeEnv, offset: float, expected: bool) -> None:
    goal = env.goal
    state = np.random.default_rng(0).normal(size=45)  # the arm does not count
    state[CUBE] = goal[CUBE] + np.array([0.0, offset, 0.0])
    assert bool(env.success(state, goal)) is expected
    assert env.success(np.tile(state, (2, 3, 1)), goal).shape == (2, 3)


def test_oracle_carries_the_cube_to_the_goal() -> None:
    env, policy = CubeEnv(image_size=64), CubeEnv.policies["oracle"]()
    reached = 0
    for seed in range(3):
        env.reset(seed=seed)
        assert not env.success(env.get_state(), env.goal)
        policy.reset(env, np.random.default_rng(seed))
        reached += any(env.step(policy.act(env))[2] for _ in range(env.max_episode_steps))
    assert reached >= 2


@pytest.mark.parametrize("name", ["oracle", "disturbed_oracle"])
def test_oracle_depends_on_its_generator_alone(env: CubeEnv, name: str) -> None:
    policy = CubeEnv.policies[name]()
    start, actions = env.get_state(), []
    for global_seed in (0, 1):
        np.random.seed(global_seed)
        env.set_state(start)
        policy.reset(env, np.random.default_rng(3))
        taken = []
        for _ in range(5):
            taken.append(policy.act(env))
            env.step(taken[-1])
        actions.append(np.array(taken))
    np.testing.assert_array_equal(*actions)


@pytest.mark.parametrize(("name", "least", "most"), [("oracle", 0, 0), ("disturbed_oracle", 10, 60)])
def test_disturbances_are_steady(env: CubeEnv, name: str, least: int, most: int) -> None:
    """The oracle's noise is fresh on every step; a disturbance repeats its action, inside the box."""
    policy = CubeEnv.policies[name]()
    policy.reset(env, np.random.default_rng(1))
    actions = []
    for _ in range(200):
        actions.append(policy.act(env))
        env.step(actions[-1])
    taken = np.array(actions)
    assert np.abs(taken).max() <= 1.0
    inside = np.abs(taken[1:]) < 1.0  # a clipped 1.0 may repeat by itself
    repeated = (inside & (np.diff(taken, axis=0) == 0)).sum(axis=0)
    assert (repeated >= least).all() and (repeated <= most).all(), repeated


def test_a_disturbed_oracle_drops_the_cube_on_the_way(env: CubeEnv) -> None:
    """Which the oracle does not: that is what a model has to learn from it."""
    falls = {}
    for name in ("oracle", "disturbed_oracle"):
        falls[name], policy = 0, CubeEnv.policies[name]()
        for seed in range(3):
            env.reset(seed=seed)
            policy.reset(env, np.random.default_rng(seed))
            heights = []
            for _ in range(env.max_episode_steps):
                env.step(policy.act(env))
                heights.append(env.get_state()[CUBE][2])
            falls[name] += int(
                (np.diff(heights) < -0.03).sum()
            )  # m in a step: faster than the hand goes down
    assert falls["disturbed_oracle"] > falls["oracle"]


def test_same_seed_same_episode() -> None:
    first, second = CubeEnv(64), CubeEnv(64)
    (a, info_a), (b, info_b) = first.reset(seed=7), second.reset(seed=7)
    np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(info_a["goal_state"], info_b["goal_state"])


def test_published_columns_restore_states(env: CubeEnv) -> None:
    state = env.get_state()
    columns = {"qpos": np.tile(state[:21], (2, 1)), "qvel": np.tile(state[21:41], (2, 1))}
    np.testing.assert_allclose(env.states_from_columns(columns), np.tile(state, (2, 1)), atol=1e-9)
    with pytest.raises(ValueError, match="expected \\(45,\\), got \\(40,\\)"):
        env.set_state(state[:40])


def test_columns_match_the_schema(env: CubeEnv) -> None:
    columns = env.columns()
    assert {name: value.shape for name, value in columns.items()} == {
        name: (width,) for name, width in CubeEnv.state_columns.items()
    }
    np.testing.assert_array_equal(columns["block_position"], columns["state"][CUBE])


def test_merging_vertices_keeps_the_shape() -> None:
    """A finely divided square stays a square: same area, far fewer faces."""
    n = 41
    x, y = np.meshgrid(np.linspace(0, 1, n), np.linspace(0, 1, n))
    vertices = np.stack([x.ravel(), y.ravel(), np.zeros(n * n)], axis=1).astype(np.float32)
    corner = (np.arange(n - 1)[:, None] * n + np.arange(n - 1)).ravel()
    faces = np.concatenate(
        [
            np.stack([corner, corner + 1, corner + n], axis=1),
            np.stack([corner + 1, corner + n + 1, corner + n], axis=1),
        ]
    ).astype(np.int32)
    merged, kept = _merge_vertices(vertices, faces, cell=0.1)
    a, b, c = vertices[merged[kept]].transpose(1, 0, 2)
    area = 0.5 * np.abs(np.cross(b - a, c - a)[:, 2]).sum()
    assert len(kept) < len(faces) / 10
    assert area == pytest.approx(1.0, abs=0.15)


def _red(frame: np.ndarray) -> np.ndarray:
    """Where the frame shows the red cube."""
    r, g, b = np.moveaxis(frame.astype(int), -1, 0)
    return (r > 100) & (r > 2 * g) & (r > b + 40)


@needs_opengl
@pytest.mark.parametrize(("size", "quality"), [(64, "fast"), (96, "auto"), (128, "fast")])
def test_picture_shows_the_cube_where_it_is(env: CubeEnv, size: int, quality: str) -> None:
    """The camera looks along -x from behind the table: y goes to the right, x comes closer."""
    painter, state = CubeEnv(size, quality=quality), env.get_state()
    seen = []
    for x, y in ((0.35, -0.2), (0.35, 0.2), (0.5, 0.0)):
        state[14:16] = x, y
        frame = painter.render_state(state)
        assert frame.shape == (size, size, 3) and frame.dtype == np.uint8
        rows, columns = np.nonzero(_red(frame))
        assert 3 < len(rows) < size * size / 20
        seen.append((rows.mean() / size, columns.mean() / size))
    assert seen[0][1] < seen[2][1] < seen[1][1]
    assert seen[2][0] > seen[0][0]


@needs_opengl
def test_perturbations_show(env: CubeEnv) -> None:
    state, rng = env.get_state(), np.random.default_rng(0)
    before = env.render()
    assert _red(before).any()
    env.perturb("colour", rng)
    assert not _red(env.render()).any()
    np.testing.assert_array_equal(env.get_state(), state)
    other = CubeEnv(image_size=64)
    other.reset(seed=0)
    np.testing.assert_array_equal(other.render(), before)  # the colour is this environment's alone
    env.perturb("teleport", rng)
    assert np.linalg.norm(env.get_state()[CUBE] - state[CUBE]) > 0.01
    np.testing.assert_array_equal(env.get_state()[:14], state[:14])
