"""Evaluation: which tasks are drawn, how they are run, and what is reported of them."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("gymnasium")
pytest.importorskip("h5py")

import lewm
from lewm.data import EpisodeFile, EpisodeWriter
from lewm.data.collection import collect
from lewm.envs.two_room import TwoRoomBatch, TwoRoomEnv, heading, move
from lewm.evaluation import (
    PlanningAgent,
    RandomAgent,
    Rate,
    Tasks,
    default_budget,
    draw_tasks,
    evaluate,
    evaluate_agents,
    format_table,
    run_tasks,
    wilson_interval,
    write_report,
)

SIZE = 32


@pytest.fixture(scope="module")
def episodes(tmp_path_factory: pytest.TempPathFactory) -> EpisodeFile:
    path = tmp_path_factory.mktemp("data") / "episodes.h5"
    collect("two_room", path, episodes=40, image_size=SIZE, seed=2)
    return EpisodeFile(path)


@pytest.fixture
def env() -> TwoRoomEnv:
    return TwoRoomEnv(SIZE)


class StateAgent:
    """Walks by the true state: the ceiling that any planner on images is below."""

    def __init__(self, batch: TwoRoomBatch, goals: np.ndarray, blocks: int = 1, frame_skip: int = 5) -> None:
        self.batch, self.goals, self.blocks, self.frame_skip = (
            batch,
            goals.astype(np.float32),
            blocks,
            frame_skip,
        )
        self.context = 1

    def reset(self, goals: np.ndarray, seed: int, first: int = 0) -> None:
        self.seen: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    def act(self, rows: np.ndarray, frames: np.ndarray, past: np.ndarray) -> np.ndarray:
        self.seen.append((rows.copy(), frames.copy(), past.copy()))
        position, actions = self.batch.get_states()[rows].astype(np.float32), []
        for _ in range(self.blocks * self.frame_skip):
            actions.append(heading(position, self.goals[rows]))
            position = move(position, actions[-1])
        return np.stack(actions, axis=1)


def random_agent(env: TwoRoomEnv) -> RandomAgent:
    return RandomAgent(env.action_space.low, env.action_space.high)


# ---- intervals ---------------------------------------------------------------------------------------------------


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


def test_published_budgets() -> None:
    assert (default_budget(25), default_budget(100)) == (50, 150)


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


@pytest.mark.parametrize("options", [{"episodes": 0}, {"goal_offset": 0}, {"budget": 0}, {"seeds": ()}])
def test_bad_options_are_named(episodes: EpisodeFile, env: TwoRoomEnv, options: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        evaluate_agents(lambda seed: {"random": random_agent(env)}, env, episodes, **options)


# ---- planning with a model ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory):
    pytest.importorskip("lewm._core")
    torch = pytest.importorskip("torch")
    from lewm.nn import LeWM

    torch.manual_seed(0)
    config = lewm.LeWMConfig(
        image_size=SIZE,
        patch_size=8,
        encoder_dim=16,
        encoder_depth=1,
        encoder_heads=2,
        encoder_mlp_dim=32,
        latent_dim=16,
        projector_dim=32,
        pred_proj_dim=32,
        predictor_depth=1,
        predictor_heads=2,
        predictor_head_dim=8,
        predictor_mlp_dim=32,
        predictor_dim=16,
        predictor_output_dim=16,
    )
    network = LeWM(config, action_scaling={"mean": [0.1, -0.2], "std": [0.5, 0.8]}).eval()
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    lewm.save(network, path)
    return lewm.load(path, "fp32", 1)


OPTIONS = {"samples": 16, "elites": 4, "iterations": 2, "horizon": 3}


@pytest.mark.parametrize(("replan_every", "context"), [(None, 1), (1, 1), (2, 3)])
def test_a_model_is_evaluated_repeatably(
    model, episodes: EpisodeFile, replan_every: int | None, context: int
) -> None:
    options = {"episodes": 4, "replan_every": replan_every, "context": context, "film": 1, **OPTIONS}
    first, again = (evaluate(model, episodes.path, **options) for _ in range(2))
    one, two = (result.seeds[0].outcomes["model"] for result in (first, again))
    np.testing.assert_array_equal(one.final_states, two.final_states)
    assert first.settings["planner"]["samples"] == 16 and first.settings["env"] == "lewm/TwoRoom-v0"


def test_each_episode_is_planned_as_if_alone(model, env: TwoRoomEnv) -> None:
    """Blocks become actions with the model's scaling, and the batch leaves no trace in a plan."""
    planner = lewm.Planner(model, seed=3, **OPTIONS)
    agent = PlanningAgent(model, planner)
    rng = np.random.default_rng(0)
    frames = np.stack([env.render_state(state) for state in rng.uniform(21, 99, (6, 2))])
    agent.reset(frames[:3], seed=0)
    actions = agent.act(np.array([0, 1, 2]), frames[3:, None], np.zeros((3, 0, 5, 2), np.float32))
    assert actions.shape == (3, 15, 2)
    latents, goals = model.encode(frames[3:])[:, None], model.encode(frames[:3])
    plan = planner.plan_latents(latents[1:2], goals[1:2], problem_ids=np.array([1]))
    expected = plan.actions[0].reshape(15, 2) * [0.5, 0.8] + [0.1, -0.2]
    np.testing.assert_allclose(actions[1], expected, rtol=1e-5, atol=1e-6)


def same_outcomes(first, second) -> None:
    for agent, one in first.seeds[0].outcomes.items():
        two = second.seeds[0].outcomes[agent]
        for name in ("success", "steps", "final_states"):
            np.testing.assert_array_equal(getattr(one, name), getattr(two, name))
        assert one.films.keys() == two.films.keys()
        for row, frames in one.films.items():
            np.testing.assert_array_equal(frames, two.films[row])


PARTED = {"episodes": 7, "replan_every": 1, "film": 3, "budget": 15, **OPTIONS}


def test_parts_do_not_matter(model, episodes: EpisodeFile, monkeypatch) -> None:
    """Neither for the outcome, nor for the sum of what progress reports."""
    calls: list[tuple[str, int, int]] = []
    whole = evaluate(model, episodes.path, **PARTED)
    monkeypatch.setattr("lewm.evaluation.protocols.TASKS_PER_PART", 4)
    in_parts = evaluate(model, episodes.path, **PARTED, progress=lambda *call: calls.append(call))
    same_outcomes(whole, in_parts)
    assert (
        list(whole.seeds[0].outcomes["model"].films)
        == np.flatnonzero(whole.seeds[0].tasks.strict)[:3].tolist()
    )
    total = 15 * -(-len(whole.seeds[0].tasks) // 4)
    assert {call[2] for call in calls} == {total} and max(call[1] for call in calls) <= total


def test_an_interrupted_evaluation_goes_on(model, episodes: EpisodeFile, tmp_path: Path, monkeypatch) -> None:
    from lewm.evaluation import protocols

    monkeypatch.setattr(protocols, "TASKS_PER_PART", 20)
    options = {**PARTED, "parts": tmp_path / "parts"}
    ran: list[int] = []

    def counted(*args, first: int, **rest):
        if len(ran) == 3 and not resumed:
            raise KeyboardInterrupt
        ran.append(first)
        return run_tasks(*args, first=first, **rest)

    resumed = False
    monkeypatch.setattr(protocols, "run_tasks", counted)
    with pytest.raises(KeyboardInterrupt):
        evaluate(model, episodes.path, **options)
    resumed = True
    (tmp_path / "parts" / "0_model_0001.npz").write_bytes(b"damaged")
    result = evaluate(model, episodes.path, **options)
    parts = -(-len(result.seeds[0].tasks) // 20)
    assert ran[:3] == [0, 20, 40] and len(ran) == 2 * parts + 1, (
        "a finished part ran again, or one was left out"
    )
    same_outcomes(result, evaluate(model, episodes.path, **PARTED))

    ran.clear()
    again = evaluate(model, episodes.path, **options)
    assert not ran
    same_outcomes(result, again)
    assert again.seeds[0].seconds == result.seeds[0].seconds
    evaluate(model, episodes.path, **{**options, "replan_every": 2})
    assert len(ran) == 2 * parts, "parts made with other settings were used"


def test_torch_searches_like_the_core(model, episodes: EpisodeFile) -> None:
    pytest.importorskip("torch")
    options = {"episodes": 3, "budget": 15, **OPTIONS}
    core, other = (
        evaluate(model, episodes.path, **options, **backend)
        for backend in ({}, {"backend": "torch", "device": "cpu"})
    )
    assert other.settings["planner"]["backend"] == "torch"
    states = [result.seeds[0].outcomes["model"].final_states for result in (core, other)]
    np.testing.assert_allclose(*states, atol=0.5)  # px: the same plans but for rounding


def test_a_cloned_policy_is_evaluated(episodes: EpisodeFile, env: TwoRoomEnv, tmp_path: Path, capsys) -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("matplotlib")
    from lewm.cli import main
    from lewm.evaluation import CloningAgent

    sizes = {"image_size": SIZE, "patch_size": 8, "encoder_dim": 16, "encoder_depth": 1, "encoder_heads": 2}
    sizes |= {"encoder_mlp_dim": 32, "latent_dim": 16, "projector_dim": 32, "predictor_mlp_dim": 32}
    trained = lewm.train(
        data=episodes.path,
        out=tmp_path / "run",
        objective="gcbc",
        model=sizes,
        steps=3,
        batch_size=4,
        val_batches=1,
        tensorboard=False,
        progress=False,
    )
    agent = CloningAgent(trained.model)
    frames = np.stack([env.render_state(np.array(state)) for state in ((50.0, 60.0), (60.0, 150.0))])
    agent.reset(frames, seed=0)
    actions = agent.act(np.array([1]), frames[:1, None], np.zeros((1, 0, 5, 2), np.float32))
    with torch.no_grad():
        seen, sought = (trained.model.encode(torch.from_numpy(frames[row][None])) for row in (0, 1))
        block = trained.model.act(seen, sought).numpy().reshape(1, 5, 2)
    scaling = trained.model.action_scaling
    np.testing.assert_allclose(actions, block * scaling["std"] + scaling["mean"], rtol=1e-4, atol=1e-6)

    words = [
        "eval",
        str(tmp_path / "run"),
        str(episodes.path),
        "--out",
        str(tmp_path / "out"),
        "--episodes",
        "3",
    ]
    assert main([*words, "--agent", "gcbc", "--budget", "15"]) == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["settings"]["agent"] == "gcbc" and results["results"]["strict"]["model"]["trials"] == 3
    capsys.readouterr()
    assert main([*words, "--agent", "gcbc", "--env", "cube"]) == 1
    assert main(["eval", str(tmp_path), *words[2:], "--agent", "gcbc"]) == 1
    assert "the folder of a finished run" in capsys.readouterr().err


def test_the_rest_of_a_plan_starts_the_next(model, env: TwoRoomEnv) -> None:
    planner = lewm.Planner(model, seed=3, **OPTIONS)
    agent = PlanningAgent(model, planner, replan_every=1)
    goal, frame = (env.render_state(np.array(state)) for state in ((50.0, 60.0), (60.0, 150.0)))
    nothing = np.zeros((1, 0, 5, 2), np.float32)
    agent.reset(goal[None], seed=0)
    agent.act(np.array([0]), frame[None, None], nothing)
    second = agent.act(np.array([0]), frame[None, None], nothing)
    latents, goals = model.encode(frame[None])[None], model.encode(goal[None])
    first = planner.plan_latents(latents, goals)
    warm = planner.plan_latents(latents, goals, warm_start=first.actions[:, 1:], plan_index=1)
    np.testing.assert_allclose(second[0], model.environment_actions(warm.actions[0, 0]), rtol=1e-6)


def test_a_model_that_does_not_fit_is_refused(model, episodes: EpisodeFile, tmp_path: Path) -> None:
    planner = lewm.Planner(model, **OPTIONS)
    with pytest.raises(ValueError, match=r"replan_every: expected 1 to the horizon \(3\), got 4"):
        PlanningAgent(model, planner, replan_every=4)
    with pytest.raises(ValueError, match="context: expected 1 to the model's history"):
        PlanningAgent(model, planner, context=9)
    with EpisodeWriter(tmp_path / "a.h5") as writer:
        writer.write_episode({"pixels": np.zeros((90, SIZE, SIZE, 3), np.uint8), "action": np.zeros((90, 2))})
    with pytest.raises(ValueError, match=r"env: .* does not name its environment"):
        evaluate(model, tmp_path / "a.h5", **OPTIONS)
    with pytest.raises(FileNotFoundError):
        evaluate(model, tmp_path / "none.h5", **OPTIONS)
    narrow = replace(model.config, action_dim=3)

    class Other:
        config, precision = narrow, "fp32"

    with pytest.raises(lewm.Error, match="2 action dimensions, the model has 3"):
        evaluate(Other(), episodes.path, **OPTIONS)


def test_the_command_writes_a_report(model, episodes: EpisodeFile, tmp_path: Path, capsys) -> None:
    pytest.importorskip("matplotlib")
    from lewm.cli import main

    lewm.save(model, tmp_path / "model.safetensors")
    words = [str(tmp_path / "model.safetensors"), str(episodes.path), "--out", str(tmp_path / "out")]
    options = [word for name, value in OPTIONS.items() for word in (f"--{name}", str(value))]
    assert main(["eval", *words, *options, "--episodes", "4", "--seeds", "2", "--precision", "fp32"]) == 0
    assert "| strict |" in capsys.readouterr().out
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["settings"]["seeds"] == [0, 1]
    assert results["results"]["strict"]["model"]["trials"] == 8
    assert main(["eval", *words, "--samples", "0"]) == 1
    assert main(["eval", *words, "--seeds", "0"]) == 1
    assert main(["eval", str(tmp_path / "none.safetensors"), str(episodes.path)]) == 1
