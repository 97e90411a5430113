"""Evaluation: how tasks are run, and what is reported of them."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("gymnasium")
pytest.importorskip("h5py")

from evaluation_support import SIZE, StateAgent, random_agent

from lewm.data import EpisodeFile
from lewm.envs.two_room import TwoRoomBatch, TwoRoomEnv
from lewm.evaluation import (
    Rate,
    Tasks,
    draw_tasks,
    evaluate_agents,
    format_table,
    run_tasks,
    write_report,
)

# ---- running -----------------------------------------------------------------------------------------------------


def make_tasks(env: TwoRoomEnv, starts: list[tuple], goals: list[tuple]) -> Tasks:
    count = len(starts)
    start, goal = np.array(starts, float), np.array(goals, float)
    flags = np.ones(count, bool)
    frames = np.stack([env.render_state(state) for state in goal])
    solved = env.success(start, goal)
    return Tasks(np.arange(count), np.zeros(count, int), start, goal, frames, solved, flags, ~solved)


def test_steps_are_counted_up_to_success(env: TwoRoomEnv) -> None:
    """15 px away and solved; 31 px away: 4 steps of 5 px end 11 px away; too far for the budget."""
    tasks = make_tasks(env, [(50, 100), (50, 100), (50, 60)], [(50, 115), (50, 131), (50, 200)])
    batch = env.make_batch(3, SIZE)
    outcome = run_tasks(StateAgent(batch, tasks.goals), env, batch, tasks, budget=12)
    assert outcome.success.tolist() == [True, True, False]
    assert outcome.steps.tolist() == [1, 4, 12]
    np.testing.assert_allclose(outcome.final_states[:, 1], [105, 120, 120])


def test_success_stays_when_the_goal_is_left_again(env: TwoRoomEnv) -> None:
    class Passing(StateAgent):
        def act(self, rows: np.ndarray, frames: np.ndarray, past: np.ndarray) -> np.ndarray:
            return np.tile(np.array([0.0, 1.0], np.float32), (len(rows), 10, 1))

    tasks = make_tasks(env, [(50, 60)], [(50, 90)])
    batch = env.make_batch(1, SIZE)
    outcome = run_tasks(Passing(batch, tasks.goals), env, batch, tasks, budget=30)
    assert outcome.success.tolist() == [True] and outcome.steps.tolist() == [3]
    np.testing.assert_allclose(outcome.final_states, [[50, 75]], err_msg="a finished episode stands still")


def test_finished_episodes_are_not_planned_for(env: TwoRoomEnv) -> None:
    tasks = make_tasks(env, [(50, 100), (50, 60)], [(50, 120), (50, 200)])
    batch = env.make_batch(2, SIZE)
    agent = StateAgent(batch, tasks.goals)
    run_tasks(agent, env, batch, tasks, budget=15)
    assert [rows.tolist() for rows, _, _ in agent.seen] == [[0, 1], [1], [1]]


def test_agents_see_the_last_frames_and_the_actions_between(env: TwoRoomEnv) -> None:
    tasks = make_tasks(env, [(50, 60), (60, 60)], [(50, 200), (60, 200)])
    batch = env.make_batch(2, SIZE)
    agent = StateAgent(batch, tasks.goals, frame_skip=2)
    agent.context = 3
    run_tasks(agent, env, batch, tasks, budget=8)
    assert [frames.shape[1] for _, frames, _ in agent.seen] == [1, 2, 3, 3]
    for index, (_, frames, past) in enumerate(agent.seen):
        assert past.shape == (2, frames.shape[1] - 1, 2, 2)
        np.testing.assert_allclose(past, np.broadcast_to([0.0, 1.0], past.shape), atol=1e-6)
        for back, frame in enumerate(frames[0][::-1]):
            state = np.array([50.0, 60.0 + 10.0 * (index - back)])
            np.testing.assert_array_equal(frame, env.render_state(state))


def test_frames_are_kept_of_what_is_filmed(env: TwoRoomEnv) -> None:
    tasks = make_tasks(env, [(50, 60), (50, 60)], [(50, 200), (50, 90)])
    batch = env.make_batch(2, SIZE)
    outcome = run_tasks(StateAgent(batch, tasks.goals), env, batch, tasks, budget=7, film=[0, 1])
    assert [len(outcome.films[row]) for row in (0, 1)] == [8, 4]
    np.testing.assert_array_equal(outcome.films[1][-1], env.render_state(outcome.final_states[1]))


def test_plans_must_be_whole_blocks(env: TwoRoomEnv) -> None:
    class Ragged(StateAgent):
        def act(self, rows: np.ndarray, frames: np.ndarray, past: np.ndarray) -> np.ndarray:
            return super().act(rows, frames, past)[:, :3]

    tasks = make_tasks(env, [(50, 60)], [(50, 200)])
    batch = env.make_batch(1, SIZE)
    with pytest.raises(ValueError, match="whole blocks of 5 actions"):
        run_tasks(Ragged(batch, tasks.goals), env, batch, tasks, budget=10)


def test_a_batch_of_another_size_is_an_error(env: TwoRoomEnv) -> None:
    tasks = make_tasks(env, [(50, 60)], [(50, 200)])
    batch = env.make_batch(2, SIZE)
    with pytest.raises(ValueError, match=r"states: expected \(2, 2\)"):
        run_tasks(random_agent(env), env, batch, tasks, budget=10)


def test_random_actions_depend_on_seed_and_episode_alone(env: TwoRoomEnv) -> None:
    agent = random_agent(env)
    goals, nothing = np.zeros((4, SIZE, SIZE, 3), np.uint8), np.zeros((0,))
    agent.reset(goals, seed=1)
    first = [agent.act(np.arange(4), nothing, nothing) for _ in range(3)]
    agent.reset(goals[:2], seed=1, first=2)
    agent.act(np.arange(2), nothing, nothing)
    np.testing.assert_array_equal(agent.act(np.array([0]), nothing, nothing)[0], first[1][2])
    assert np.abs(first[0]).max() <= 1 and first[0].shape == (4, 1, 2)


# ---- the whole ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def evaluation(episodes: EpisodeFile):
    """The agent that knows the state, beside the random one, at two seeds."""
    env = TwoRoomEnv(SIZE)
    made: list[TwoRoomBatch] = []

    class Watched(TwoRoomEnv):
        @classmethod
        def make_batch(cls, count: int, image_size: int = 224) -> TwoRoomBatch:
            made.append(TwoRoomBatch(count, image_size))
            return made[-1]

    class PartAgent(StateAgent):
        """Knows the states of the part that runs."""

        def __init__(self, goals: np.ndarray) -> None:
            super().__init__(TwoRoomBatch(1, SIZE), goals)
            self.all_goals = self.goals

        def reset(self, goals: np.ndarray, seed: int, first: int = 0) -> None:
            super().reset(goals, seed, first)
            self.batch, self.goals = made[-1], self.all_goals[first : first + len(goals)]

    def agents(seed: int) -> dict:
        tasks = draw_tasks(episodes, env, goal_offset=25, episodes=60, seed=seed)
        return {"model": PartAgent(tasks.goals), "random": random_agent(env)}

    return evaluate_agents(agents, Watched(SIZE), episodes, episodes=60, seeds=(4, 5), film=2)


def test_knowing_the_state_succeeds_and_chance_does_not(evaluation) -> None:
    for protocol, trials in (("paper", 100), ("strict", 120)):
        assert evaluation.rate("model", protocol).trials == trials
        assert evaluation.rate("model", protocol).value >= 0.98
        assert evaluation.rate("random", protocol).value <= 0.5
    assert evaluation.rate("random", "strict").value < evaluation.rate("random", "paper").value


def test_the_report_agrees_with_the_evaluation(evaluation, tmp_path: Path) -> None:
    imageio = pytest.importorskip("imageio.v3")
    pytest.importorskip("matplotlib")
    files = write_report(evaluation, TwoRoomEnv(SIZE), tmp_path / "report")
    assert [file.name for file in files] == [
        "results.json",
        "episodes.csv",
        "episodes.png",
        "plans.png",
        "episodes.gif",
    ]
    results = json.loads(files[0].read_text())
    strict = results["results"]["strict"]["random"]
    assert strict["successes"] == evaluation.rate("random", "strict").successes
    assert strict["interval_95"] == list(evaluation.rate("random", "strict").interval)
    assert set(strict["by_seed"]) == {"4", "5"} and results["settings"]["budget"] == 50
    with files[1].open() as lines:
        rows = list(csv.DictReader(lines))
    counted = sum(int(row["success"]) for row in rows if row["agent"] == "random" and row["strict"] == "1")
    assert counted == strict["successes"]
    assert imageio.imread(files[2]).ndim == 3
    film = imageio.imread(files[4])
    outcome = evaluation.seeds[0].outcomes["model"]
    assert len(film) == max(len(frames) for frames in outcome.films.values())


def test_the_table_shows_rates_and_intervals(evaluation) -> None:
    table = format_table(evaluation).splitlines()
    assert table[0] == "| protocol | model | random |"
    assert table[2].startswith("| paper | ") and str(evaluation.rate("random", "paper")) in table[2]
    assert str(evaluation.rate("model", "strict")) in table[3]
    assert str(Rate(45, 50)) == "90.0% [78.6, 95.7] (45/50)"


@pytest.mark.parametrize(
    "options",
    [{"episodes": 0}, {"goal_offset": 0}, {"budget": 0}, {"seeds": ()}, {"seeds": (0, 1, 0)}, {"seeds": 0}],
)
def test_bad_options_are_named(episodes: EpisodeFile, env: TwoRoomEnv, options: dict) -> None:
    with pytest.raises((ValueError, TypeError), match=f"{next(iter(options))}: expected"):
        evaluate_agents(lambda seed: {"random": random_agent(env)}, env, episodes, **options)
