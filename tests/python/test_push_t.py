"""Push-T: the published numbers, states in and out, pictures, success, and data policies that do what they say."""

import math
import pickle
from itertools import pairwise

import numpy as np
import pytest

pytest.importorskip("gymnasium")
pytest.importorskip("pymunk")

import gymnasium
from gymnasium.utils.env_checker import check_env

import lewm.envs
from lewm.envs.push_t import PushTEnv
from lewm.envs.push_t_drawing import COLOURS, PushTPainter
from lewm.envs.push_t_physics import AGENT_RADIUS, PushTWorld, block_corners, block_distance

FREE = np.array([60.0, 450, 300, 150, 0, 0, 0, 0, 0, 0])  # nothing touches anything


@pytest.fixture
def env() -> PushTEnv:
    made = PushTEnv(image_size=64)
    made.reset(seed=0)
    return made


def test_registered_and_passes_gymnasiums_checker() -> None:
    assert "lewm/PushT-v0" in lewm.envs.ENVIRONMENTS
    check_env(gymnasium.make("lewm/PushT-v0", image_size=64).unwrapped, skip_render_check=False)


def test_agent_follows_its_position_control() -> None:
    """Gains 100 and 20 at 100 physics steps a second, velocity first: the published control law."""
    share, speed = 0.0, 0.0  # of the offset, and per second
    for _ in range(10):
        speed += (100 * (1 - share) - 20 * speed) * 0.01
        share += speed * 0.01
    world = PushTWorld(FREE)
    world.advance(np.array([1.0, -0.5]))
    np.testing.assert_allclose(world.state[:2] - FREE[:2], share * np.array([100.0, -50.0]), rtol=1e-9)


def test_block_rests_untouched_and_moves_when_pushed() -> None:
    world = PushTWorld(FREE)
    for _ in range(10):
        world.advance(np.array([0.0, 0.3]))
    np.testing.assert_array_equal(world.state[2:5], FREE[2:5])
    beside_bar = FREE.copy()
    beside_bar[:2] = (300.0 + 60 + AGENT_RADIUS + 1, 150.0 + 15)
    world = PushTWorld(beside_bar)
    for _ in range(3):
        world.advance(np.array([-0.5, 0.0]))
    assert world.state[2] < 295


def test_walls_stop_the_block() -> None:
    """The bar, pushed to the right, has 94 px to go; the agent stops before it would squeeze the block."""
    state = FREE.copy()
    state[:4] = (270.0, 165.0, 350.0, 150.0)
    world = PushTWorld(state)
    while world.state[0] < 365:
        world.advance(np.array([0.2, 0.0]))
    assert 480 < block_corners(world.state[2:5])[..., 0].max() < 506


def test_signed_distance_to_the_block() -> None:
    pose = np.array([200.0, 100.0, math.pi / 2])  # the bar's outer edge looks to +x, the stem points to -x
    points = np.array([[210.0, 100.0], [185.0, 100.0], [70.0, 100.0], [185.0, 170.0]])
    np.testing.assert_allclose(block_distance(points, pose), [10.0, -15.0, 10.0, 10.0], atol=1e-9)


def test_state_round_trip_and_equal_continuation(env: PushTEnv) -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):
        env.step(env.sample_action(rng))
    state = env.get_state()
    other = PushTEnv(image_size=64)
    other.reset(seed=5)
    other.set_state(state)
    np.testing.assert_allclose(other.get_state(), state, atol=1e-9)
    third = PushTEnv(image_size=64)
    third.reset(seed=6)
    third.set_state(state)
    for _ in range(20):
        action = env.sample_action(rng)
        np.testing.assert_array_equal(other.step(action)[0], third.step(action)[0])


def test_same_seed_same_episode() -> None:
    first, second = PushTEnv(64), PushTEnv(64)
    (a, info_a), (b, info_b) = first.reset(seed=7), second.reset(seed=7)
    np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(info_a["goal_state"], info_b["goal_state"])
    assert not np.array_equal(first.reset(seed=8)[0], a)


def test_published_states_are_accepted(env: PushTEnv) -> None:
    published = np.array([100.0, 120.0, 300.0, 200.0, -1.0, 3.0, 4.0])
    env.set_state(published)
    state = env.get_state()
    np.testing.assert_allclose(
        state, [100, 120, 300, 200, 2 * math.pi - 1, 3, 4, 0, 0, 0], rtol=1e-12, atol=1e-12
    )
    states = env.states_from_columns({"state": np.tile(published, (5, 1))})
    assert states.shape == (5, 10)


@pytest.mark.parametrize(
    ("state", "message"),
    [(np.zeros(6), "expected \\(10,\\), got \\(6,\\)"), (np.full(10, np.nan), "finite")],
)
def test_bad_states_are_refused(env: PushTEnv, state: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        env.set_state(state)


def test_unknown_colour_is_refused() -> None:
    with pytest.raises(ValueError, match="colours: expected some of"):
        PushTEnv(64, colours={"sky": (0, 0, 0)})


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ((0, 0, 0, 0, 0), True),
        ((19.9, 0, 0, 0, 0), True),
        ((15, 0, 15, 0, 0), False),  # the limit is on all four together
        ((0, 0, 0, 0, math.pi / 9 - 1e-6), True),
        ((0, 0, 0, 0, math.pi / 9 + 1e-6), False),
        ((0, 0, 0, 0, 2 * math.pi - 0.1), True),
    ],
)
def test_success_rule(env: PushTEnv, change: tuple[float, ...], expected: bool) -> None:
    goal = np.array([100.0, 100, 200, 200, 0.2, 0, 0, 0, 0, 0])
    state = goal.copy()
    state[:5] += change
    assert bool(env.success(state, goal)) is expected
    assert env.success(np.tile(state, (3, 2, 1)), goal).shape == (3, 2)


def test_step_reports_success(env: PushTEnv) -> None:
    env.reset(seed=0, options={"state": FREE, "goal_state": FREE})
    _, reward, terminated, _, info = env.step(np.zeros(2))
    assert reward == 1.0 and terminated and info["success"]


@pytest.mark.parametrize("size", [64, 96, 128, 200, 224])
def test_picture_shows_agent_and_block_where_they_are(size: int) -> None:
    frame = PushTPainter(size).draw(np.array([100.0, 400.0]), np.array([300.0, 100.0, math.pi / 3]))
    assert frame.shape == (size, size, 3) and frame.dtype == np.uint8

    def pixel(x: float, y: float) -> np.ndarray:
        return frame[int(y / 512 * size), int(x / 512 * size)].astype(int)

    agent_rgb = np.minimum(1.2 * np.array(COLOURS["agent"]), 255)
    block_rgb = 1.2 * np.array(COLOURS["block"])
    assert np.abs(pixel(100, 400) - agent_rgb).max() <= 2
    for corners in block_corners(np.array([300.0, 100.0, math.pi / 3])):
        assert np.abs(pixel(*corners.mean(axis=0)) - block_rgb).max() <= 2
    assert np.abs(pixel(450, 450) - 255).max() == 0
    assert np.abs(pixel(224, 288) - np.array(COLOURS["target"])).max() <= 2


def test_a_moved_agent_changes_small_pictures_smoothly() -> None:
    """At 64 px one canvas pixel of motion still shows, which point sampling would lose."""
    painter, pose = PushTPainter(64), np.array([300.0, 100.0, 0.0])
    frames = [painter.draw(np.array([100.0 + dx, 400.0]), pose).astype(int) for dx in range(4)]
    assert all(np.abs(a - b).sum() > 0 for a, b in pairwise(frames))


def test_drawing_does_not_touch_the_world(env: PushTEnv) -> None:
    before = env.get_state()
    first = env.render()
    env.render_goal()
    np.testing.assert_array_equal(env.get_state(), before)
    np.testing.assert_array_equal(env.render(), first)


def test_perturbations_show(env: PushTEnv) -> None:
    before, rng = env.render().astype(int), np.random.default_rng(1)
    env.perturb("colour", rng)
    changed = (env.render().astype(int) != before).any(axis=-1)
    assert 30 < changed.sum() < 500  # an object's pixels, not the table's
    env.reset(seed=0)
    np.testing.assert_array_equal(env.render(), before)
    env.perturb("teleport", rng)
    assert not np.array_equal(env.render(), before)


def test_objects_off_the_picture_are_clipped() -> None:
    frame = PushTPainter(64).draw(np.array([-500.0, 900.0]), np.array([300.0, 100.0, 0.0]))
    assert frame.shape == (64, 64, 3)


def test_episodes_start_apart_and_inside(env: PushTEnv) -> None:
    rng = np.random.default_rng(0)
    for _ in range(30):
        for state in env.sample_episode(rng):
            corners = block_corners(state[2:5])
            assert corners.min() > 7 and corners.max() < 504
            assert block_distance(state[None, :2], state[2:5])[0] > AGENT_RADIUS


def test_near_block_policy_stays_near(env: PushTEnv) -> None:
    policy = PushTEnv.policies["near_block"]()
    policy.reset(env, np.random.default_rng(0))
    distances = []
    for step in range(80):
        state = env.step(policy.act(env))[0]
        if step >= 20:
            distances.append(np.abs(state[:2] - state[2:4]).max())
    assert np.median(distances) < 120


def test_pusher_reaches_goals(env: PushTEnv) -> None:
    policy = PushTEnv.policies["pusher"]()
    reached = 0
    for seed in range(5):
        env.reset(seed=seed)
        policy.reset(env, np.random.default_rng(seed))
        for _ in range(env.max_episode_steps):
            if env.step(policy.act(env))[2]:
                reached += 1
                break
    assert reached >= 4


def test_columns_match_the_schema(env: PushTEnv) -> None:
    columns = env.columns()
    assert {name: value.shape for name, value in columns.items()} == {
        name: (width,) for name, width in PushTEnv.state_columns.items()
    }
    np.testing.assert_array_equal(columns["block_angle"][0], columns["state"][4])


def test_batch_steps_like_single_environments() -> None:
    batch = PushTEnv.make_batch(3, image_size=64)
    states = np.tile(FREE, (3, 1))
    states[:, 0] += np.arange(3) * 20
    batch.set_states(states)
    batch.step(np.array([[0.5, 0.0]]), rows=np.array([1]))
    after = batch.get_states()
    np.testing.assert_array_equal(after[[0, 2]], states[[0, 2]])
    assert after[1, 0] > states[1, 0] + 5
    assert batch.render().shape == (3, 64, 64, 3)


def test_class_and_policies_travel_to_other_processes() -> None:
    assert pickle.loads(pickle.dumps(PushTEnv)) is PushTEnv
    for factory in PushTEnv.policies.values():
        assert pickle.loads(pickle.dumps(factory)) is factory
