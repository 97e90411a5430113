"""lewm/TwoRoom-v0: geometry, pictures, physics, and that one agent and many behave alike."""

from __future__ import annotations

import numpy as np
import pytest

gymnasium = pytest.importorskip("gymnasium")

from gymnasium.utils.env_checker import check_env

from lewm.data.collection import episode_rng
from lewm.envs import environment_class
from lewm.envs.two_room import (
    NoisyExpert,
    Renderer,
    TwoRoomBatch,
    TwoRoomEnv,
    move,
    reached,
    resampling_weights,
)

WALL = (107, 117)  # x of the wall, inclusive
DOOR = (35, 63)  # y of the door, inclusive


def plain_picture(position: tuple[float, float]) -> np.ndarray:
    """The 224 x 224 picture, pixel by pixel from its description, in floating point."""
    y, x = np.mgrid[:224, :224].astype(np.float64)
    black = (WALL[0] <= x) & (x <= WALL[1]) & ~((DOOR[0] <= y) & (y <= DOOR[1]))
    for axis in (x, y):
        black |= ((axis >= 10) & (axis < 14)) | ((axis >= 210) & (axis < 214))
    dot = np.exp(-((x - position[0]) ** 2 + (y - position[1]) ** 2) / (2 * 7.0**2))
    dot /= dot.max()
    ground = np.where(black, 0.0, 255.0)[..., None]
    return ground * (1 - dot[..., None]) + np.array([255.0, 0.0, 0.0]) * dot[..., None]


POSITIONS = [(60.0, 112.0), (112.3, 49.7), (99.5, 150.25), (21.0, 21.0), (203.0, 203.0), (124.5, 30.1)]


@pytest.mark.parametrize("position", POSITIONS)
def test_pictures_match_their_description(position: tuple[float, float]) -> None:
    frame = Renderer(224).render(np.array([position]))[0]
    assert frame.shape == (224, 224, 3) and frame.dtype == np.uint8
    assert np.abs(frame - plain_picture(position)).max() <= 1.0


@pytest.mark.parametrize("size", [32, 64, 96, 128, 300])
def test_other_sizes_are_the_resampled_picture(size: int) -> None:
    weights = resampling_weights(224, size).astype(np.float64)
    frames = Renderer(size).render(np.array(POSITIONS))
    for frame, position in zip(frames, POSITIONS, strict=True):
        channels = plain_picture(position).transpose(2, 0, 1)
        expected = (weights @ channels @ weights.T).transpose(1, 2, 0)
        assert np.abs(frame - expected).max() <= 1.0


@pytest.mark.parametrize("size", [64, 100])
def test_smaller_pictures_are_those_of_an_image_library(size: int) -> None:
    """Two grey levels: the library rounds between its horizontal and its vertical pass."""
    image = pytest.importorskip("PIL.Image")
    for position in POSITIONS:
        whole = image.fromarray(Renderer(224).render(np.array([position]))[0])
        expected = np.asarray(whole.resize((size, size), image.Resampling.BILINEAR)).astype(int)
        assert np.abs(Renderer(size).render(np.array([position]))[0] - expected).max() <= 2


def test_a_step_is_five_pixels_and_clipped() -> None:
    start = np.array([[60.0, 150.0]], np.float32)
    np.testing.assert_allclose(move(start, np.array([[1.0, -0.5]], np.float32)), [[65.0, 147.5]])
    np.testing.assert_allclose(move(start, np.array([[9.0, -9.0]], np.float32)), [[65.0, 145.0]])


@pytest.mark.parametrize(
    ("start", "action", "end"),
    [
        ((98.0, 150.0), (1.0, 0.0), (99.5, 150.0)),  # into the wall from the left: half a pixel before it
        ((126.0, 150.0), (-1.0, 0.0), (124.5, 150.0)),  # and from the right
        ((98.0, 49.0), (1.0, 0.0), (103.0, 49.0)),  # through the door
        ((98.0, 64.0), (1.0, 0.0), (103.0, 64.0)),  # 1.75 px of tolerance beside it
        ((98.0, 65.0), (1.0, 0.0), (99.5, 65.0)),
        ((22.0, 22.0), (-1.0, -1.0), (21.0, 21.0)),  # border
        ((202.0, 202.0), (1.0, 1.0), (203.0, 203.0)),
        ((112.0, 60.0), (0.0, 1.0), (124.5, 65.0)),  # out of the doorway's side: back to the right
    ],
)
def test_walls_hold(start: tuple, action: tuple, end: tuple) -> None:
    moved = move(np.array([start], np.float32), np.array([action], np.float32))
    np.testing.assert_allclose(moved, [end])


def test_no_walk_passes_the_wall_outside_the_door() -> None:
    rng = np.random.default_rng(0)
    positions = rng.uniform(21, 99, (500, 2)).astype(np.float32)
    for _ in range(200):
        after = move(positions, rng.uniform(-1, 1, (500, 2)).astype(np.float32))
        crossed = (positions[:, 0] < 112) != (after[:, 0] < 112)
        assert (np.abs(after[crossed, 1] - 49) <= 14 + 1.75).all()
        inside = (after[:, 0] > 100) & (after[:, 0] < 124)
        assert (np.abs(after[inside, 1] - 49) <= 14 + 1.75).all()
        positions = after
    assert (positions[:, 0] > 112).any()


def test_success_is_closer_than_sixteen_pixels() -> None:
    goal = np.array([100.0, 100.0])
    states = np.array([[100.0, 115.9], [100.0, 116.0], [111.0, 111.0], [112.0, 112.0]])
    assert reached(states, goal).tolist() == [True, False, True, False]
    assert reached(states[None], goal).shape == (1, 4)


def test_gymnasium_accepts_the_environment() -> None:
    env = gymnasium.make("lewm/TwoRoom-v0", image_size=32)
    check_env(env.unwrapped, skip_render_check=False)


def test_an_episode_through_gymnasium() -> None:
    env = gymnasium.make("lewm/TwoRoom-v0", image_size=64, render_mode="rgb_array")
    state, info = env.reset(seed=3, options={"state": [50.0, 50.0], "goal_state": [50.0, 76.0]})
    assert state.tolist() == [50.0, 50.0] and info["goal_state"].tolist() == [50.0, 76.0]
    assert not info["success"]
    assert env.render().shape == (64, 64, 3)
    for step in range(1, 4):
        state, reward, terminated, truncated, info = env.step(np.array([0.0, 1.0], np.float32))
        assert terminated == info["success"] == (step == 3)  # 11 px from the goal after 15
        assert reward == float(terminated) and not truncated


def test_reset_follows_its_seed() -> None:
    env = TwoRoomEnv(32)
    first, _ = env.reset(seed=5)
    second, _ = env.reset()
    again, _ = env.reset(seed=5)
    assert np.array_equal(first, again) and not np.array_equal(first, second)


def test_state_and_goal_pictures() -> None:
    env = TwoRoomEnv(64)
    env.reset(seed=0)
    before = env.get_state()
    env.set_goal(np.array([150.0, 80.0]))
    goal = env.render_goal()
    assert np.array_equal(env.get_state(), before)
    env.set_state(np.array([150.0, 80.0]))
    assert np.array_equal(env.render(), goal)
    assert env.success(env.get_state(), env.goal)


def test_bad_input_is_named() -> None:
    env = TwoRoomEnv(32)
    with pytest.raises(RuntimeError, match="no goal yet"):
        _ = env.goal
    env.reset(seed=0)
    for action, message in (
        (np.zeros(3), r"action: expected \(2,\), got \(3,\)"),
        ([np.nan, 0], "action: expected numbers"),
    ):
        with pytest.raises(ValueError, match=message):
            env.step(action)
    with pytest.raises(ValueError, match=r"state: expected \(2,\)"):
        env.set_state(np.zeros(3))
    with pytest.raises(ValueError, match="goal: expected finite"):
        env.set_goal(np.array([np.nan, 1.0]))
    with pytest.raises(ValueError, match=r"options: .* 'start'"):
        env.reset(options={"start": [1, 2]})
    with pytest.raises(ValueError, match="image_size"):
        TwoRoomEnv(4)
    with pytest.raises(ValueError, match="render_mode"):
        TwoRoomEnv(32, render_mode="human")
    with pytest.raises(ValueError, match="env: expected one of"):
        environment_class("three_room")
    with pytest.raises(ValueError, match=r"states: expected \(3, 2\), got \(2, 2\)"):
        TwoRoomBatch(3).set_states(np.zeros((2, 2)))


def test_names_of_environments() -> None:
    for name in ("lewm/TwoRoom-v0", "TwoRoom", "two_room", "two-room", "tworoom"):
        assert environment_class(name) is TwoRoomEnv


def test_a_batch_does_what_single_environments_do() -> None:
    rng = np.random.default_rng(0)
    batch = TwoRoomEnv.make_batch(6, 32)
    singles = [TwoRoomEnv(32) for _ in range(6)]
    starts = rng.uniform(21, 99, (6, 2))
    batch.set_states(starts)
    for env, start in zip(singles, starts, strict=True):
        env.set_goal(start)
        env.set_state(start)
    for step in range(30):
        rows = np.arange(6) if step < 15 else np.array([1, 4])
        actions = rng.uniform(-1, 1, (len(rows), 2)).astype(np.float32)
        batch.step(actions, rows)
        for row, action in zip(rows, actions, strict=True):
            singles[row].step(action)
    np.testing.assert_array_equal(batch.get_states(), [env.get_state() for env in singles])
    np.testing.assert_array_equal(batch.render(), [env.render() for env in singles])
    np.testing.assert_array_equal(batch.render(np.array([3])), batch.render()[3:4])


@pytest.mark.parametrize("policy", list(TwoRoomEnv.policies))
def test_recording_together_is_recording_one_by_one(policy: str) -> None:
    together = list(TwoRoomEnv.record_episodes(policy, [episode_rng(1, k) for k in range(3)], 32))
    for index, episode in enumerate(together):
        alone = TwoRoomEnv(32)._record_episode(TwoRoomEnv.make_policy(policy), episode_rng(1, index))
        assert alone.keys() == episode.keys()
        for name in alone:
            np.testing.assert_array_equal(episode[name], alone[name])


def test_recorded_episodes_cross_the_door_and_end_at_the_goal() -> None:
    episodes = list(TwoRoomEnv.record_episodes("expert", [episode_rng(0, k) for k in range(50)], 32))
    for episode in episodes:
        state, action = episode["state"], episode["action"]
        assert len(state) == len(action) == len(episode["pixels"]) <= TwoRoomEnv.max_episode_steps + 1
        assert (
            np.isnan(action[-1]).all() and np.isfinite(action[:-1]).all() and np.abs(action[:-1]).max() <= 1
        )
        assert (state[0, 0] < 112) != (state[-1, 0] < 112)
        np.testing.assert_array_equal(move(state[:-1].astype(np.float32), action[:-1]), state[1:])


def test_the_noisy_expert_has_the_published_episode_length() -> None:
    """About 92 rows on average, which is what the published data has."""
    rngs = [episode_rng(0, k) for k in range(400)]
    lengths = [len(episode["action"]) for episode in TwoRoomEnv.record_episodes("noisy-expert", rngs, 8)]
    assert 89 <= np.mean(lengths) <= 95


def test_the_expert_goes_by_the_door() -> None:
    expert = NoisyExpert(noise=0.0)
    states = np.array([[60.0, 150.0], [112.0, 49.0], [160.0, 150.0]])
    goals = np.array([[160.0, 150.0]] * 2 + [[160.0, 100.0]])
    actions = expert.actions(states, goals, np.zeros((3, 2)))
    to_door = np.array([112.0, 49.0]) - states[0]
    np.testing.assert_allclose(actions[0], to_door / np.linalg.norm(to_door), rtol=1e-6)
    assert actions[1, 0] > 0 and actions[1, 1] > 0  # from the door on to the goal
    np.testing.assert_allclose(actions[2], [0.0, -1.0])
