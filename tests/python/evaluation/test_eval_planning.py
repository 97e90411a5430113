"""Evaluating models and policies: repeatable, resumable, and each episode as if alone."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("gymnasium")
h5py = pytest.importorskip("h5py")

from evaluation_support import SIZE

import lewm
from lewm.data import EpisodeFile, EpisodeWriter
from lewm.envs.two_room import TwoRoomEnv
from lewm.evaluation import (
    PlanningAgent,
    evaluate,
    run_tasks,
    write_report,
)

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


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"damaged",
        lambda content: content[: len(content) // 2],
        lambda content: content.replace(b"success", b"succ\0ss"),
    ],
)
def test_an_interrupted_evaluation_goes_on(
    model, episodes: EpisodeFile, tmp_path: Path, monkeypatch, damage
) -> None:
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
    finished = tmp_path / "parts" / "0_model_0001.npz"
    finished.write_bytes(damage(finished.read_bytes()))
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
    for other in ({"replan_every": 2}, {"cost": "sum"}, {"bounds": (-1.0, 1.0)}):
        ran.clear()
        options.update(other)  # one setting more than the parts were made with
        evaluate(model, episodes.path, **options)
        assert len(ran) == 2 * parts, f"parts made with other settings than {other} were used"


def test_what_is_finished_outlives_a_refusal_and_other_files_a_new_start(
    model, episodes: EpisodeFile, tmp_path: Path
) -> None:
    options = {"episodes": 3, "budget": 5, "parts": tmp_path, **OPTIONS}
    evaluate(model, episodes.path, **options)
    for name in ("mine.npz", "settings.json"):
        (tmp_path / name).write_bytes(b"mine")

    def contents() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    finished = contents()
    assert {"0_model_0000.npz", "0_random_0000.npz"} < finished.keys()
    for name, value in (
        ("replan_every", 99),
        ("context", 9),
        ("goal_offset", 99_999),
        ("goal_offset", 10**23),
        ("film", -1),
    ):
        with pytest.raises(ValueError, match=name):
            evaluate(model, episodes.path, **{**options, name: value})
        assert contents() == finished, name

    class Stop(Exception):
        pass

    def stop(*_: object) -> None:
        raise Stop

    with pytest.raises(Stop):
        evaluate(model, episodes.path, **{**options, "budget": 6}, progress=stop)
    assert contents().keys() == {"parts.json", "mine.npz", "settings.json"}
    assert contents()["mine.npz"] == contents()["settings.json"] == b"mine"


def test_seeds_and_counts_may_be_numpys(model, episodes: EpisodeFile, tmp_path: Path) -> None:
    options = {"episodes": np.int64(3), "budget": np.int32(5), **OPTIONS}
    result = evaluate(model, episodes.path, seeds=iter(np.arange(2)), **options)
    write_report(result, TwoRoomEnv(SIZE), tmp_path)
    settings = json.loads((tmp_path / "results.json").read_text())["settings"]
    assert (settings["seeds"], settings["episodes"], settings["budget"]) == ([0, 1], 3, 5)


def test_files_with_other_data_sets_are_evaluated(model, episodes: EpisodeFile, tmp_path: Path) -> None:
    path = tmp_path / "episodes.h5"
    path.write_bytes(episodes.path.read_bytes())
    with h5py.File(path, "r+") as file:
        file["ep_seed"], file["version"] = np.arange(episodes.episodes), 3
    options = {"episodes": 3, "budget": 5, **OPTIONS}
    ours, plain = (evaluate(model, file, **options) for file in (path, episodes.path))
    same_outcomes(ours, plain)


def test_torch_searches_like_the_core(model, episodes: EpisodeFile) -> None:
    pytest.importorskip("torch")
    options = {"episodes": 3, "budget": 15, **OPTIONS}
    core, other = (
        evaluate(model, episodes.path, **options, **backend)
        for backend in ({}, {"backend": "torch", "device": "cpu"})
    )
    assert other.settings["planner"]["backend"] == "torch"
    assert core.settings["device"] == model.device and other.settings["device"] == "cpu"
    with pytest.raises(
        ValueError, match="device: expected a torch device such as 'cuda' or 'cpu', got 'meta'"
    ):
        evaluate(model, episodes.path, **options, backend="torch", device="meta")
    states = [result.seeds[0].outcomes["model"].final_states for result in (core, other)]
    np.testing.assert_allclose(*states, atol=0.5)  # px: the same plans but for rounding


def test_the_core_searches_where_the_model_is_loaded(model, episodes: EpisodeFile, tmp_path: Path) -> None:
    lewm.save(model, tmp_path / "model.safetensors")
    options = {"episodes": 3, "budget": 15, "device": "cuda", **OPTIONS}
    if lewm.build_info()["cuda"]:
        assert evaluate(tmp_path / "model.safetensors", episodes.path, **options).settings["device"] == "cuda"
        return
    with pytest.raises(lewm.Error, match="device: 'cuda' is not available"):
        evaluate(tmp_path / "model.safetensors", episodes.path, **options)


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
    for place in (tmp_path / "run", tmp_path / "run" / "checkpoints" / "last.pt"):
        assert main(["eval", str(place), *words[2:]]) == 1
        assert "give the run's model.safetensors, or a cloned policy's folder" in capsys.readouterr().err
    planning = {"samples": "300", "method": "cem", "action-hold": "1", "precision": "auto", "context": "1"}
    planning |= {"device": "cpu", "proposals": "128", "recorded": str(episodes.path)}
    for option, value in planning.items():
        assert main([*words, "--agent", "gcbc", f"--{option}", value]) == 1
        refusal = (
            f"{option.replace('-', '_')}: expected none with agent='gcbc', a cloned policy does not plan"
        )
        assert refusal in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"^replan_every, elites: expected none with agent='gcbc'"):
        evaluate(trained.model, episodes.path, agent="gcbc", elites=4, replan_every=1)


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
    options += ["--episodes", "4", "--seeds", "2", "--precision", "fp32", "--cost", "sum"]
    assert main(["eval", *words, *options]) == 0
    assert "| strict |" in capsys.readouterr().out
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["settings"]["seeds"] == [0, 1]
    assert results["settings"]["planner"]["cost"] == "sum"
    assert results["results"]["strict"]["model"]["trials"] == 8
    assert main(["eval", *words, "--samples", "0"]) == 1
    assert main(["eval", *words, "--seeds", "0"]) == 1
    capsys.readouterr()
    for refused, message in (
        (["--discount", "-1", "--cost", "discounted"], "discount: "),
        (["--discount", "0.5"], "discount: expected with cost discounted only, got 0.5 with 'final'"),
        (["--proposals", "4"], "proposals: expected with recorded only, got 4"),
        (["--seed", "-1"], "seed: expected at least 0, got -1"),
        (["--out", str(episodes.path)], "--out: expected a folder"),
    ):
        assert main(["eval", *words, *refused]) == 1
        assert message in capsys.readouterr().err
    assert main(["eval", str(tmp_path / "none.safetensors"), str(episodes.path)]) == 1
