"""An evaluation as files: results.json, episodes.csv, pictures of episodes and a film."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lewm.checkpoint.atomic import write_file
from lewm.envs import GoalEnv
from lewm.evaluation.protocols import Evaluation
from lewm.evaluation.tasks import PROTOCOLS
from lewm.figures import new_figure, png

__all__ = ["format_table", "write_report"]

_PICTURED = 6
_FILMED_SIDE = 256  # pixels of a frame in the film, about


def write_report(evaluation: Evaluation, env: GoalEnv, folder: str | Path) -> list[Path]:
    """Writes results.json, episodes.csv, episodes.png and, if there are films, plans.png and episodes.gif; returns the
    paths.

    Raises:
        OSError: the folder cannot be written.
        ImportError: matplotlib or imageio is missing.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    written = [folder / "results.json", folder / "episodes.csv", folder / "episodes.png"]
    write_file(written[0], json.dumps(evaluation.as_dict(), indent=2).encode() + b"\n")
    write_file(written[1], _episodes_csv(evaluation).encode())
    write_file(written[2], _picture(evaluation, env))
    films = evaluation.seeds[0].outcomes["model"].films if "model" in evaluation.agents else {}
    if films:
        written += [folder / "plans.png", folder / "episodes.gif"]
        write_file(written[-2], _plans(evaluation, films))
        write_file(written[-1], _film(evaluation, films))
    return written


def format_table(evaluation: Evaluation) -> str:
    """The rates as a Markdown table, with 95% Wilson intervals."""
    lines = [
        "| protocol | " + " | ".join(evaluation.agents) + " |",
        "|---" * (len(evaluation.agents) + 1) + "|",
    ]
    for protocol in PROTOCOLS:
        cells = [str(evaluation.rate(agent, protocol)) for agent in evaluation.agents]
        lines.append(f"| {protocol} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _episodes_csv(evaluation: Evaluation) -> str:
    """A line per seed, agent and task."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        ["seed", "agent", "episode", "start_step", "paper", "strict", "solved_at_start", "success", "steps"]
    )
    for result in evaluation.seeds:
        tasks = result.tasks
        for agent, outcome in result.outcomes.items():
            for row in range(len(tasks)):
                flags = (tasks.paper[row], tasks.strict[row], tasks.solved[row], outcome.success[row])
                writer.writerow(
                    [
                        result.seed,
                        agent,
                        tasks.episodes[row],
                        tasks.steps[row],
                        *map(int, flags),
                        outcome.steps[row],
                    ]
                )
    return text.getvalue()


def _picture(evaluation: Evaluation, env: GoalEnv) -> bytes:
    """Start, goal and end of some strict tasks, a row each."""
    result = evaluation.seeds[0]
    agent = evaluation.agents[0]
    outcome = result.outcomes[agent]
    rows = np.flatnonzero(result.tasks.strict)[:_PICTURED]
    figure = new_figure(6.0, 2.1 * len(rows))
    axes = figure.subplots(len(rows), 3, squeeze=False)
    for line, row in zip(axes, rows, strict=True):
        verdict = f"reached in {outcome.steps[row]} steps" if outcome.success[row] else "not reached"
        frames = (
            ("start", env.render_state(result.tasks.starts[row])),
            ("goal", result.tasks.goal_frames[row]),
            (verdict, env.render_state(outcome.final_states[row])),
        )
        for axis, (title, frame) in zip(line, frames, strict=True):
            axis.imshow(frame)
            axis.set_title(title, fontsize=9)
            axis.set_axis_off()
    return png(figure)


def _plans(evaluation: Evaluation, films: dict[int, list[NDArray[np.uint8]]]) -> bytes:
    """A row per filmed task: about ten of its frames, and its goal."""
    first = evaluation.seeds[0]
    outcome = first.outcomes["model"]
    spacing = max(1, evaluation.settings["budget"] // 10)
    strips = {row: _spaced(frames, spacing) for row, frames in films.items()}
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


def _spaced(frames: list[NDArray[np.uint8]], spacing: int) -> list[tuple[int, NDArray[np.uint8]]]:
    """(step, frame) at the first step, every ``spacing`` steps and at the end."""
    steps = sorted({*range(0, len(frames), spacing), len(frames) - 1})
    return [(step, frames[step]) for step in steps]


def _film(evaluation: Evaluation, films: dict[int, list[NDArray[np.uint8]]]) -> bytes:
    """The filmed episodes beside each other, each beneath its goal; a finished one stands still."""
    import imageio.v3 as imageio

    goals = evaluation.seeds[0].tasks.goal_frames
    length = max(map(len, films.values()))
    pictures = []
    for step in range(length):
        columns = [
            np.concatenate([goals[row], frames[min(step, len(frames) - 1)]]) for row, frames in films.items()
        ]
        picture = np.concatenate(columns, axis=1)
        scale = max(1, _FILMED_SIDE // goals.shape[1] // 2)
        pictures.append(picture.repeat(scale, axis=0).repeat(scale, axis=1))
    buffer = io.BytesIO()
    imageio.imwrite(buffer, pictures, extension=".gif", duration=100, loop=0)
    return buffer.getvalue()
