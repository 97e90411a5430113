"""Intervals of rates, and which tasks an evaluation draws."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("gymnasium")
pytest.importorskip("h5py")

from evaluation_support import SIZE

import lewm
from lewm.data import EpisodeFile, EpisodeWriter
from lewm.envs.two_room import TwoRoomEnv
from lewm.evaluation import (
    default_budget,
    draw_tasks,
    wilson_interval,
)


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [(8, 10, 0.4902, 0.9433), (0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (45, 50, 0.7864, 0.9565)],
)
def test_wilson_intervals_have_the_tabulated_values(
    successes: int, trials: int, low: float, high: float
) -> None:
    np.testing.assert_allclose(wilson_interval(successes, trials), (low, high), atol=5e-5)


def test_wilson_intervals_cover_the_true_rate() -> None:
    """In about 95% of experiments, whatever the rate."""
    rng = np.random.default_rng(0)
    for rate in (0.5, 0.9):
        draws = rng.binomial(100, rate, 2000)
        covered = [low <= rate <= high for low, high in (wilson_interval(int(k), 100) for k in draws)]
        assert 0.93 <= np.mean(covered) <= 0.97


@pytest.mark.parametrize(("successes", "trials"), [(0, 0), (-1, 5), (6, 5)])
def test_impossible_counts_are_refused(successes: int, trials: int) -> None:
    with pytest.raises(ValueError, match="expected"):
        wilson_interval(successes, trials)


# ---- tasks -------------------------------------------------------------------------------------------------------


def test_tasks_are_steps_and_frames_of_the_data(episodes: EpisodeFile, env: TwoRoomEnv) -> None:
    tasks = draw_tasks(episodes, env, goal_offset=25, episodes=60, seed=1)
    states = episodes.read("state", 0, int(episodes.lengths.sum()))
    pixels = episodes.read("pixels", 0, int(episodes.lengths.sum()))
    rows = episodes.offsets[tasks.episodes] + tasks.steps
    assert (tasks.steps + 25 < episodes.lengths[tasks.episodes]).all()
    np.testing.assert_array_equal(tasks.starts, states[rows])
    np.testing.assert_array_equal(tasks.goals, states[rows + 25])
    np.testing.assert_array_equal(tasks.goal_frames, pixels[rows + 25])
    assert len(set(rows.tolist())) == len(rows)


def test_the_protocols_are_what_they_say(episodes: EpisodeFile, env: TwoRoomEnv) -> None:
    tasks = draw_tasks(episodes, env, goal_offset=25, episodes=60, paper_episodes=50, seed=1)
    np.testing.assert_array_equal(tasks.solved, env.success(tasks.starts, tasks.goals))
    assert tasks.paper.sum() == 50 and tasks.paper[:50].all()
    assert tasks.strict.sum() == 60 and not (tasks.strict & tasks.solved).any()
    assert (tasks.paper | tasks.strict).all()
    assert 0 < tasks.solved[:50].sum() < 50, "this data has starts of both kinds"


def test_tasks_follow_their_seed(episodes: EpisodeFile, env: TwoRoomEnv) -> None:
    one, same, other = (
        draw_tasks(episodes, env, goal_offset=25, episodes=20, seed=seed) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(one.starts, same.starts)
    assert not np.array_equal(one.starts, other.starts)


def test_starts_are_uniform_over_the_steps(episodes: EpisodeFile, env: TwoRoomEnv) -> None:
    total = int(np.maximum(episodes.lengths - 25, 0).sum())
    tasks = draw_tasks(episodes, env, goal_offset=25, episodes=1, paper_episodes=total, seed=0)
    assert np.bincount(tasks.episodes, minlength=40).tolist() == np.maximum(episodes.lengths - 25, 0).tolist()


def test_another_frame_size_is_rendered(episodes: EpisodeFile) -> None:
    env = TwoRoomEnv(48)
    tasks = draw_tasks(episodes, env, goal_offset=10, episodes=3, paper_episodes=3)
    np.testing.assert_array_equal(tasks.goal_frames, [env.render_state(goal) for goal in tasks.goals])


def test_too_few_steps_are_an_error(episodes: EpisodeFile, env: TwoRoomEnv) -> None:
    with pytest.raises(ValueError, match=r"goal_offset: .* has 0 steps with 200 more after them"):
        draw_tasks(episodes, env, goal_offset=200, episodes=1)
    with pytest.raises(ValueError, match=r"episodes: .* not solved at goal_offset 1"):
        draw_tasks(episodes, env, goal_offset=1, episodes=1)


def test_a_file_without_states_is_an_error(tmp_path: Path, env: TwoRoomEnv) -> None:
    with EpisodeWriter(tmp_path / "a.h5") as writer:
        writer.write_episode({"pixels": np.zeros((90, SIZE, SIZE, 3), np.uint8), "action": np.zeros((90, 2))})
    with pytest.raises(lewm.Error, match="column 'state' is needed"):
        draw_tasks(EpisodeFile(tmp_path / "a.h5"), env, goal_offset=5, episodes=1)


def test_states_of_another_environment_are_an_error(tmp_path: Path, env: TwoRoomEnv) -> None:
    with EpisodeWriter(tmp_path / "a.h5") as writer:
        pixels = np.zeros((90, SIZE, SIZE, 3), np.uint8)
        writer.write_episode({"pixels": pixels, "action": np.zeros((90, 2)), "state": np.zeros((90, 7))})
    with pytest.raises(
        lewm.Error, match=r"state: expected \(N, 2\) as lewm/TwoRoom-v0 has it, got \(90, 7\)"
    ):
        draw_tasks(EpisodeFile(tmp_path / "a.h5"), env, goal_offset=5, episodes=1)


def test_published_budgets() -> None:
    assert (default_budget(25), default_budget(100)) == (50, 150)
