"""The whole road in one environment: collect episodes, train a small model, plan with it, report.

Each stage leaves its result in the folder, and is skipped or taken up where it stopped when the folder is used again:

    settings.json  train.h5  eval.h5  run/ (training)  model.safetensors  evaluation/  seconds.json  report.html
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import lewm
from lewm.arrays import at_least
from lewm.checkpoint import Checkpoint, expected_shapes
from lewm.checkpoint.atomic import replace_file, write_file
from lewm.config import LeWMConfig
from lewm.data.collection import collect
from lewm.envs import environment_class
from lewm.evaluation import Evaluation, evaluate, write_report
from lewm.evaluation.tasks import PAPER_EPISODES
from lewm.report import write_html
from lewm.training import make_config
from lewm.training.config import CLONING

if TYPE_CHECKING:
    from collections.abc import Iterator


__all__ = ["QuickstartResult", "Settings", "check_settings", "default_settings", "quickstart"]

Progress = Callable[[str, int, int], None]

_PLANS_SHOWN = 4


_PLANNER = {"method": "cem", "samples": 128, "elites": 16, "iterations": 10, "horizon": 5}


@dataclass(frozen=True)
class Settings:
    """What a quickstart does; it goes on only with the settings that it began with."""

    env: str = "lewm/TwoRoom-v0"
    image_size: int = 64
    policy: str | None = None
    """That records what is trained on; the environment's own by default. The evaluation's episodes are always its."""
    episodes: int = 1000
    """Recorded to train on."""
    eval_recorded: int = 200
    """Episodes recorded with another seed, from which the evaluation draws its starts and goals."""
    eval_episodes: int = 200
    """Of the strict protocol."""
    goal_offset: int = 25
    """Environment steps from a start to its goal."""
    seed: int = 0
    preset: str = "tiny"
    train: Mapping[str, Any] = field(default_factory=dict)
    """Training settings over the preset's; a frame skip is `model: {frame_skip: 5}`."""
    planner: Mapping[str, Any] = field(default_factory=lambda: dict(_PLANNER))
    replan_every: int = 5
    """Blocks executed of a plan."""
    context: int = 1
    """Frames shown to the model: more than one tells it velocities."""
    proposals: int = 0
    """Sequences of the training episodes that each plan begins with the best of; 0: plans begin at their last rest."""


_BY_ENVIRONMENT: dict[str, dict[str, Any]] = {
    "lewm/TwoRoom-v0": {"train": {"steps": 1000}},
    "lewm/Reacher-v0": {
        "train": {"steps": 4000},
        "planner": {**_PLANNER, "cost": "sum"},  # the arm does not stop by itself: be there early, and stay
        "replan_every": 1,
        "context": 3,
    },
    "lewm/PushT-v0": {"train": {"steps": 3000}},
    "lewm/Cube-v0": {
        "policy": "disturbed_oracle",
        "episodes": 400,  # 80,000 frames, the slowest to draw
        "eval_recorded": 60,
        # The arm fills the picture: at the preset's 0.05 the latents know little of gripper and cube.
        "train": {"steps": 3200, "sigreg_weight": 0.2},
        # The recorded hand moves and grips steadily: candidates that do not hold their actions drop the cube, and so do
        # plans that the model alone believes in. Near what was recorded it is right.
        "planner": {
            **_PLANNER,
            **{"samples": 64, "elites": 8, "iterations": 3, "cost": "sum", "action_hold": 5, "std": 0.3},
        },
        "proposals": 128,
        "replan_every": 1,
        "context": 3,
    },
}
"""What an environment changes of the settings."""


def default_settings(env: str = "lewm/TwoRoom-v0") -> Settings:
    """The settings of an environment, given by id or short name: a model that two CPU cores train in 40 minutes.

    Raises:
        ValueError: no such environment.
        ImportError: its simulator is not installed.
    """
    env_id = environment_class(env).env_id
    return Settings(env=env_id, **_BY_ENVIRONMENT[env_id])


@dataclass(frozen=True)
class QuickstartResult:
    """A finished quickstart."""

    report: Path
    """report.html; everything else lies beside it."""
    evaluation: Evaluation


def quickstart(
    out: str | Path,
    settings: Settings | None = None,
    *,
    workers: int = 2,
    progress: Progress | None = None,
    say: Callable[[str], None] = print,
) -> QuickstartResult:
    """Collects, trains, exports, evaluates and reports.

    Args:
        out: folder; made if it is not there.
        settings: by default those of Two-Room.
        workers: processes that collect.
        progress: called with (stage, done, total) while collecting and evaluating. Training has its own display when
            this is given, and none otherwise.
        say: called with a line at the beginning of each stage.

    Raises:
        ValueError, TypeError: a setting is out of range; nothing has been begun then.
        lewm.Error: the folder holds a quickstart with other settings, or a stage failed.
    """
    settings = settings or Settings()
    check_settings(settings)
    at_least("workers", workers)
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    _hold_settings(out / "settings.json", settings)
    clock = _Clock(out / "seconds.json")
    say(f"1/4 collecting {settings.episodes} episodes of {settings.env}")
    with clock.measure("collect"):
        _collect(out, settings, workers, progress)
    say(f"2/4 training, preset {settings.preset}")
    with clock.measure("train"):
        _train(out, settings, progress is not None)
    say(f"3/4 planning in {settings.eval_episodes} episodes")
    model = lewm.load(out / "model.safetensors")
    with clock.measure("evaluate"):
        result = _evaluate(model, out, settings, progress)
    say("4/4 reporting")
    return QuickstartResult(_report(out, settings, result), result)


def check_settings(settings: Settings) -> None:
    """Refuses now what a later stage would refuse after minutes of collecting and training.

    Raises:
        ValueError, TypeError: a setting is out of range or unknown; the message names it.
    """
    planner = settings.planner
    counts = {
        name: getattr(settings, name)
        for name in ("episodes", "eval_recorded", "eval_episodes", "goal_offset")
    }
    counts |= {
        name: planner[name] for name in ("samples", "elites", "iterations", "horizon") if name in planner
    }
    for name, count in counts.items():
        at_least(name, count)
    for name in ("seed", "proposals"):
        at_least(name, getattr(settings, name), 0)
    for name in sorted({"out", "data", "progress", "resume", "overwrite", "encoder"} & set(settings.train)):
        raise ValueError(f"train: {name}: a quickstart has its own")
    if settings.train.get("objective") == CLONING:
        raise ValueError(f"train: objective: expected a world model to plan with, got {CLONING}")
    kind = environment_class(settings.env)
    if settings.policy is not None:
        kind.make_policy(settings.policy)
    longest = kind.max_episode_steps
    if settings.goal_offset > longest:
        raise ValueError(
            f"goal_offset: expected at most {longest} in {settings.env}, got {settings.goal_offset}"
        )
    starts = settings.eval_recorded * (longest + 1 - settings.goal_offset)
    needed = max(PAPER_EPISODES, settings.eval_episodes)
    if starts < needed:
        raise ValueError(
            f"eval_recorded: expected episodes with {needed} starts, {settings.eval_recorded} have at most {starts}"
        )
    model = make_config(preset=settings.preset, overrides=_overrides(settings)).model
    if model.image_size != settings.image_size:
        raise ValueError(
            f"model.image_size: expected {settings.image_size} as collected, got {model.image_size}"
        )
    for name, most in (("replan_every", planner.get("horizon", 5)), ("context", model.history)):
        if not 1 <= getattr(settings, name) <= most:
            raise ValueError(f"{name}: expected 1..{most}, got {getattr(settings, name)!r}")
    env = kind(image_size=settings.image_size)
    try:
        _check_planner(settings, dataclasses.replace(model, action_dim=env.action_dim))
    finally:
        env.close()


def _check_planner(settings: Settings, config: LeWMConfig) -> None:
    """Makes the planner of the settings, over weights that are all zero."""
    state = {name: np.zeros(shape, np.float32) for name, shape in expected_shapes(config).items()}
    model = lewm.Model.from_checkpoint(Checkpoint(config, state))
    lewm.Planner(model, seed=settings.seed, **settings.planner)


def _collect(out: Path, settings: Settings, workers: int, progress: Progress | None) -> None:
    files = (
        ("train", settings.episodes, settings.seed, settings.policy),
        ("eval", settings.eval_recorded, settings.seed + 1, None),
    )
    for name, episodes, seed, policy in files:
        report = _labelled(progress, f"collect {name}")
        collect(
            settings.env,
            out / f"{name}.h5",
            episodes=episodes,
            image_size=settings.image_size,
            policy=policy,
            seed=seed,
            workers=workers,
            progress=report,
        )


def _overrides(settings: Settings) -> dict[str, Any]:
    """Of the preset. In fp32, so that a report does not depend on whether the machine has bf16 matrix units."""
    return {"seed": settings.seed, "precision": "fp32", **settings.train}


def _train(out: Path, settings: Settings, show: bool) -> None:
    model, run = out / "model.safetensors", out / "run"
    if model.is_file():
        return
    if (run / "checkpoints" / "last.pt").is_file():
        trained = lewm.train(resume=run, data=out / "train.h5", progress=show)  # the folder may have moved
    else:
        trained = lewm.train(
            preset=settings.preset, data=out / "train.h5", out=run, progress=show, **_overrides(settings)
        )
    with replace_file(model) as file, trained.model_file.open("rb") as source:
        shutil.copyfileobj(source, file)


def _evaluate(model: Any, out: Path, settings: Settings, progress: Progress | None) -> Evaluation:
    return evaluate(
        model,
        out / "eval.h5",
        env=settings.env,
        episodes=settings.eval_episodes,
        goal_offset=settings.goal_offset,
        seeds=(settings.seed,),
        replan_every=settings.replan_every,
        context=settings.context,
        recorded=out / "train.h5" if settings.proposals else None,
        proposals=settings.proposals or None,
        film=_PLANS_SHOWN,
        parts=out / "evaluation" / "parts",
        progress=progress,
        **settings.planner,
    )


# ---- the folder ----------------------------------------------------------------------------------------------


def _hold_settings(path: Path, settings: Settings) -> None:
    """Writes the settings, or refuses a folder that was begun with others."""
    now = json.dumps(dataclasses.asdict(settings), indent=2, sort_keys=True)
    if path.is_file():
        before = path.read_text()
        if before != now:
            raise lewm.Error(
                f"{path.parent}: holds a quickstart with other settings; choose another folder or remove it"
            )
        return
    write_file(path, now.encode())


class _Clock:
    """Seconds per stage, added up over interruptions."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.seconds: dict[str, float] = json.loads(path.read_text()) if path.is_file() else {}

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        """Adds the time of the block to ``stage``."""
        started = time.monotonic()
        try:
            yield
        finally:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.monotonic() - started
            write_file(self._path, json.dumps(self.seconds).encode())


def _labelled(progress: Progress | None, label: str) -> Callable[[int, int], None] | None:
    if progress is None:
        return None
    return lambda done, total: progress(label, done, total)


def _report(out: Path, settings: Settings, result: Evaluation) -> Path:
    env = environment_class(settings.env)(image_size=settings.image_size)
    try:
        write_report(result, env, out / "evaluation")
    finally:
        env.close()
    return write_html(out)
