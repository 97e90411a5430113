"""The whole road in one environment: collect episodes, train a small model, plan with it, report.

Each stage leaves its result in the folder, and is skipped or taken up where it stopped when the folder is used again:

    settings.json  train.h5  eval.h5  run/ (training)  model.safetensors  evaluation/  loss.png  plan.png  report.md
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
from numpy.typing import NDArray

import lewm
from lewm.checkpoint.atomic import replace_file, write_file
from lewm.data.collection import collect
from lewm.envs import environment_class
from lewm.evaluation import Evaluation, evaluate, format_table, write_report
from lewm.figures import new_figure, png

if TYPE_CHECKING:
    from collections.abc import Iterator


__all__ = ["QuickstartResult", "Settings", "default_settings", "quickstart"]

Progress = Callable[[str, int, int], None]

_PLANS_SHOWN = 4


@dataclass(frozen=True)
class Settings:
    """What a quickstart does; it goes on only with the settings that it began with."""

    env: str = "lewm/TwoRoom-v0"
    image_size: int = 64
    policy: str | None = None
    """That collects; the environment's own by default."""
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
    planner: Mapping[str, Any] = field(
        default_factory=lambda: {
            "method": "cem",
            "samples": 300,
            "elites": 30,
            "iterations": 10,
            "horizon": 5,
        }
    )
    replan_every: int = 5
    """Blocks executed of a plan."""
    context: int = 1
    """Frames shown to the model: more than one tells it velocities."""


_BY_ENVIRONMENT: dict[str, dict[str, Any]] = {
    "lewm/TwoRoom-v0": {},
    "lewm/Reacher-v0": {
        "episodes": 1500,
        "train": {"steps": 4000},
        "replan_every": 1,
        "context": 3,
    },
    "lewm/PushT-v0": {"train": {"steps": 5000}, "replan_every": 1},
    "lewm/Cube-v0": {
        "episodes": 500,  # 100,000 frames, the slowest to draw
        "eval_recorded": 60,
        "train": {"steps": 4000},
        "replan_every": 1,
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
    """report.md; everything else lies beside it."""
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
        lewm.Error: the folder holds a quickstart with other settings, or a stage failed.
    """
    settings = settings or Settings()
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
    _write_files(out, settings, result, model, clock.seconds)
    return QuickstartResult(out / "report.md", result)


def _collect(out: Path, settings: Settings, workers: int, progress: Progress | None) -> None:
    files = (("train", settings.episodes, settings.seed), ("eval", settings.eval_recorded, settings.seed + 1))
    for name, episodes, seed in files:
        report = _labelled(progress, f"collect {name}")
        collect(
            settings.env,
            out / f"{name}.h5",
            episodes=episodes,
            image_size=settings.image_size,
            policy=settings.policy,
            seed=seed,
            workers=workers,
            progress=report,
        )


def _train(out: Path, settings: Settings, show: bool) -> None:
    model, run = out / "model.safetensors", out / "run"
    if model.is_file():
        return
    if (run / "checkpoints" / "last.pt").is_file():
        trained = lewm.train(resume=run, progress=show)
    else:
        overrides = {"seed": settings.seed, **settings.train}
        trained = lewm.train(
            preset=settings.preset, data=out / "train.h5", out=run, progress=show, **overrides
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


# ---- the report ----------------------------------------------------------------------------------------------


def _write_files(
    out: Path, settings: Settings, result: Evaluation, model: Any, seconds: Mapping[str, float]
) -> None:
    from lewm.training import read_metrics

    env = environment_class(settings.env)(image_size=settings.image_size)
    try:
        write_report(result, env, out / "evaluation")
    finally:
        env.close()
    metrics = read_metrics(out / "run" / "metrics.csv")
    write_file(out / "loss.png", _loss_picture(metrics))
    write_file(out / "plan.png", _plan_picture(result, int(model.config.frame_skip)))
    write_file(out / "report.md", _report(settings, result, metrics, seconds).encode())


def _report(
    settings: Settings, result: Evaluation, metrics: list[dict[str, float]], seconds: Mapping[str, float]
) -> str:
    last = metrics[-1]
    planner = ", ".join(f"{name} {value}" for name, value in settings.planner.items())
    stages = "\n".join(f"| {stage} | {spent:.0f} |" for stage, spent in seconds.items())
    return f"""# Quickstart: {settings.env}

A small model on {settings.image_size}x{settings.image_size} images, trained on {settings.episodes} recorded
episodes for {last["step"]:.0f} steps (preset `{settings.preset}`, {last["epoch"]:.1f} epochs). It plans from
images alone: from the frame of a start to the frame of a goal {settings.goal_offset} recorded steps later, in
episodes it was not trained on, with {result.settings["budget"]} environment steps to get there.

## Success

{format_table(result)}

Rates with 95% Wilson intervals. `paper`: {result.settings["paper_episodes"]} tasks as drawn; `strict`:
without tasks whose start already counts as the goal. `random`: uniform actions on the same tasks. Planner:
{planner}, {settings.replan_every} blocks executed of each plan. All numbers:
[results.json](evaluation/results.json), [episodes.csv](evaluation/episodes.csv).

## A plan, carried out

Real frames after each action block, and the goal that the planner was shown.

![plans](plan.png)

![episodes](evaluation/episodes.gif)

## Training

Last row: prediction loss {last["pred_loss"]:.4f}, SIGReg {last["sigreg_loss"]:.3f}.

![losses](loss.png)

## Time

| stage | seconds |
|---|---|
{stages}

## Going on

    lewm eval model.safetensors eval.h5 --goal-offset 25 --seeds 3
    lewm train --resume run steps=...
"""


def _loss_picture(metrics: list[dict[str, float]]) -> bytes:
    figure = new_figure(9.0, 3.2)
    left, right = figure.subplots(1, 2)
    for axis, name, title in ((left, "pred_loss", "prediction loss"), (right, "sigreg_loss", "SIGReg")):
        for key, label in ((name, "training"), (f"val_{name}", "validation")):
            points = [(row["step"], row[key]) for row in metrics if key in row]
            if points:
                axis.plot(
                    *zip(*points, strict=True), label=label, linewidth=1.0, marker="." if "val" in key else ""
                )
        axis.set_title(title)
        axis.set_xlabel("step")
        axis.set_yscale("log")
        axis.grid(alpha=0.3)
        axis.legend()
    return png(figure)


def _plan_picture(result: Evaluation, frame_skip: int) -> bytes:
    """A row per filmed task: its frames, a block apart, and its goal."""
    first = result.seeds[0]
    outcome = first.outcomes["model"]
    strips = {row: _block_frames(frames, frame_skip) for row, frames in outcome.films.items()}
    columns = 1 + max(len(strip) for strip in strips.values())
    figure = new_figure(1.2 * columns, 1.45 * len(strips))
    axes = figure.subplots(len(strips), columns, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for line, (row, strip) in zip(axes, strips.items(), strict=True):
        for axis, (step, frame) in zip(line, strip, strict=False):
            axis.imshow(frame)
            axis.set_title("start" if step == 0 else f"step {step}", fontsize=7)
        line[-1].imshow(first.tasks.goal_frames[row])
        line[-1].set_title("goal: reached" if outcome.success[row] else "goal: missed", fontsize=7)
    return png(figure)


def _block_frames(frames: list[NDArray[np.uint8]], frame_skip: int) -> list[tuple[int, NDArray[np.uint8]]]:
    """(step, frame) at the first step, after each block and at the end."""
    steps = sorted({*range(0, len(frames), frame_skip), len(frames) - 1})
    return [(step, frames[step]) for step in steps]
