"""The quickstart goes from nothing to a report, goes on where it stopped, and keeps to its settings."""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path

import pytest

for module in ("torch", "gymnasium", "matplotlib", "imageio", "lewm._core"):
    pytest.importorskip(module)

import lewm
from lewm.cli import main
from lewm.cli import quickstart as command
from lewm.data import EpisodeFile
from lewm.envs import ENVIRONMENTS, environment_class
from lewm.quickstart import Settings, default_settings, quickstart
from lewm.training import make_config

SMALL_MODEL = {"encoder_depth": 1, "encoder_dim": 32, "encoder_heads": 2, "predictor_depth": 1}
SETTINGS = Settings(
    episodes=6,
    eval_recorded=8,
    eval_episodes=8,
    train={
        "steps": 4,
        "batch_size": 8,
        "val_fraction": 0.2,
        "val_batches": 1,
        "tensorboard": False,
        "model": SMALL_MODEL,
    },
    planner={"method": "cem", "samples": 16, "elites": 4, "iterations": 1, "horizon": 2},
    replan_every=2,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A quickstart that was stopped before training, and then taken up."""
    folder = tmp_path_factory.mktemp("quickstart")
    with pytest.MonkeyPatch.context() as patch:

        def stop(**_: object) -> None:
            raise KeyboardInterrupt

        patch.setattr(lewm, "train", stop)
        with pytest.raises(KeyboardInterrupt):
            quickstart(folder, SETTINGS, say=lambda line: None)
    assert not (folder / "report.html").exists()
    collected = (folder / "train.h5").stat().st_mtime_ns
    quickstart(folder, SETTINGS, say=lambda line: None)
    assert (folder / "train.h5").stat().st_mtime_ns == collected
    return folder


def test_the_report_has_what_it_promises(folder: Path) -> None:
    report = (folder / "report.html").read_text()
    results = json.loads((folder / "evaluation" / "results.json").read_text())
    strict = results["results"]["strict"]
    assert strict["model"]["trials"] == 8 and "random" in strict
    assert f"{strict['model']['successes']}/8" in report and "4 steps" in report
    for name in ("results.json", "plans.png", "episodes.gif", "episodes.csv"):
        assert (folder / "evaluation" / name).stat().st_size > 0


def test_a_finished_quickstart_is_not_trained_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lewm, "train", None)
    before = json.loads((folder / "evaluation" / "results.json").read_text())["results"]
    said: list[str] = []
    result = quickstart(folder, SETTINGS, say=said.append)
    assert [line[:3] for line in said] == ["1/4", "2/4", "3/4", "4/4"]
    assert result.report == folder / "report.html"
    assert json.loads((folder / "evaluation" / "results.json").read_text())["results"] == before


def test_a_quickstart_that_has_moved_trains_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its run names the data by the path of then; the data still lies beside it."""
    settings = dataclasses.replace(SETTINGS, train={**SETTINGS.train, "checkpoint_every": 2})
    train, first, second = lewm.train, tmp_path / "first", tmp_path / "second"

    def interrupted(**options: object) -> None:
        train(**{**options, "steps": 2})
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(lewm, "train", interrupted)
        with pytest.raises(KeyboardInterrupt):
            quickstart(first, settings, say=lambda line: None)
    first.rename(second)
    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(
            lewm,
            "train",
            lambda **options: train(**{**options, **({"steps": 4} if "resume" in options else {})}),
        )
        assert quickstart("second", settings, say=lambda line: None).report.is_file()


def test_tasks_come_from_the_environments_own_policy(folder: Path, tmp_path: Path) -> None:
    settings = dataclasses.replace(SETTINGS, policy="random")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lewm, "train", None)
        with pytest.raises(TypeError):
            quickstart(tmp_path, settings, say=lambda line: None)
    policies = [EpisodeFile(tmp_path / name).attributes["policy"] for name in ("train.h5", "eval.h5")]
    assert policies == ["random", EpisodeFile(folder / "eval.h5").attributes["policy"]]
    assert policies[1] != "random"


def test_its_model_is_evaluated_like_any_other(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "eval",
        str(folder / "model.safetensors"),
        str(folder / "eval.h5"),
        "--out",
        str(folder / "again"),
    ]
    assert main([*words, "--episodes", "8", "--samples", "16", "--elites", "4", "--iterations", "1"]) == 0
    assert "(" in capsys.readouterr().out


@pytest.mark.parametrize("env", list(ENVIRONMENTS))
def test_every_environment_has_its_defaults(env: str) -> None:
    """Settings that training, collecting and planning accept, and that the command line can change."""
    for needed in ("mujoco", "dm_control", "ogbench", "pymunk"):
        pytest.importorskip(needed)
    settings = default_settings(env)
    config = make_config(preset=settings.preset, overrides=dict(settings.train))
    kind = environment_class(env)
    assert settings.env == env and config.model.image_size == settings.image_size
    assert settings.policy is None or settings.policy in kind.policies
    assert kind.max_episode_steps > settings.goal_offset
    assert 1 <= settings.context <= config.model.history
    assert 1 <= settings.replan_every <= settings.planner["horizon"]
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    args = parser.parse_args(
        ["--env", env, "--context", "2", "--iterations", "7", "--train", "steps=9", "lr=1e-2"]
    )
    changed = command._settings(args)
    assert (changed.context, changed.planner["iterations"], changed.train["steps"]) == (2, 7, 9)
    assert (changed.episodes, changed.goal_offset) == (settings.episodes, settings.goal_offset)


def test_other_settings_are_refused(folder: Path) -> None:
    with pytest.raises(lewm.Error, match="holds a quickstart with other settings"):
        quickstart(folder, dataclasses.replace(SETTINGS, seed=1), say=lambda line: None)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--episodes", "0"], "episodes: expected an int of at least 1, got 0"),
        (["--eval-episodes", "-1"], "eval_episodes: expected an int of at least 1, got -1"),
        (["--iterations", "0"], "iterations: expected an int of at least 1, got 0"),
        (["--iterations", "99999999"], "iterations: expected at most 65535, got 99999999"),
        (["--seed", "-1"], "seed: expected an int of at least 0, got -1"),
        (["--seed", str(2**63)], "seed: expected less than 2^63"),
        (["--goal-offset", "101"], "goal_offset: expected at most 100 in lewm/TwoRoom-v0, got 101"),
        (["--replan-every", "6"], "replan_every: expected 1..5, got 6"),
        (["--context", "4"], "context: expected 1..3, got 4"),
        (["--workers", "0"], "workers: expected an int of at least 1, got 0"),
        (["--train", "steps"], "key=value"),
        (["--train", "step=9"], "step: no such setting; did you mean steps?"),
        (["--train", "model.image_size=32"], "model.image_size: expected 64 as collected, got 32"),
        (["--train", "objective=gcbc"], "train: objective: expected a world model to plan with, got gcbc"),
        (["--train", "out=elsewhere"], "train: out: a quickstart has its own"),
        (["--eval-recorded", "1"], "eval_recorded: expected episodes with 200 starts, 1 have at most 76"),
    ],
)
def test_the_command_refuses_what_it_cannot_use_before_it_begins(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["quickstart", str(tmp_path / "a"), *words]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"policy": "nobody"}, "policy: expected one of .*, got 'nobody'"),
        ({"proposals": -1}, "proposals: expected an int of at least 0, got -1"),
        ({"planner": {**SETTINGS.planner, "action_hold": 3}}, "action_hold: expected a divisor"),
    ],
)
def test_settings_that_a_later_stage_would_refuse_leave_no_folder(
    changes: dict[str, object], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        quickstart(tmp_path / "a", dataclasses.replace(SETTINGS, **changes), say=lambda line: None)
    assert not (tmp_path / "a").exists()
