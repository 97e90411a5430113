"""What an evaluation asks for: pairs of a start and a goal, both taken from one recorded episode."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from lewm.data.episode_file import EpisodeFile
from lewm.envs import GoalEnv
from lewm.errors import Error

__all__ = ["PAPER_EPISODES", "PROTOCOLS", "Tasks", "draw_tasks"]

PROTOCOLS = ("paper", "strict")
PAPER_EPISODES = 50


@dataclass(frozen=True)
class Tasks:
    """N start-goal pairs, in the order in which they were drawn."""

    episodes: NDArray[np.int64]
    """(N,) index of the episode in the file."""
    steps: NDArray[np.int64]
    """(N,) step of the episode at which the task starts."""
    starts: NDArray[np.float64]
    """(N, S) start states."""
    goals: NDArray[np.float64]
    """(N, S) goal states."""
    goal_frames: NDArray[np.uint8]
    """(N, H, W, 3) what the planner is shown of the goal."""
    solved: NDArray[np.bool_]
    """(N,) whether the start already counts as the goal."""
    paper: NDArray[np.bool_]
    """(N,) whether the task belongs to the paper's protocol."""
    strict: NDArray[np.bool_]
    """(N,) whether it belongs to the strict one, which leaves out what is solved at the start."""

    def __len__(self) -> int:
        return len(self.episodes)

    def take(self, rows: NDArray[np.intp] | NDArray[np.bool_]) -> Tasks:
        """Some of the tasks."""
        return Tasks(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})


def draw_tasks(
    file: EpisodeFile,
    env: GoalEnv,
    *,
    goal_offset: int,
    episodes: int,
    paper_episodes: int = PAPER_EPISODES,
    seed: int = 0,
) -> Tasks:
    """Tasks for both protocols, drawn without replacement from all steps with ``goal_offset`` steps after them.

    The paper's protocol takes the first ``paper_episodes`` drawn; the strict one the first ``episodes`` that are not
    solved at the start. Tasks that are in neither are left out, so a run over all of them serves both.

    Goal frames are those of the file if they have the environment's frame size, else rendered.

    Raises:
        ValueError: the file has too few such steps, or too few that are not solved.
        lewm.Error: its columns do not determine the environment's state.
    """
    longest = int(file.lengths.max(initial=0))
    starts_per_episode = np.maximum(file.lengths - min(goal_offset, longest), 0)
    total = int(starts_per_episode.sum())
    if total < max(episodes, paper_episodes):
        raise ValueError(
            f"goal_offset: {file.path} has {total} steps with {goal_offset} more after them, "
            f"{max(episodes, paper_episodes)} are needed; its longest episode has {longest}"
        )
    ends = np.cumsum(starts_per_episode)
    drawn = np.random.default_rng(seed).permutation(total)
    episode = np.searchsorted(ends, drawn, side="right")
    step = drawn - (ends - starts_per_episode)[episode]
    rows = file.offsets[episode] + step
    try:
        states = env.states_from_columns(_small_columns(file))
        if states.ndim != 2 or states.shape[1] != env.state_dim:
            raise Error(
                f"{file.path}: state: expected (N, {env.state_dim}) as {env.env_id} has it, got {states.shape}"
            )
    except KeyError as error:
        raise Error(f"{file.path}: {error.args[0]}") from None
    solved = np.asarray(env.success(states[rows], states[rows + goal_offset]), dtype=bool)
    if int((~solved).sum()) < episodes:
        raise ValueError(
            f"episodes: {file.path} has {(~solved).sum()} starts that are not solved at goal_offset {goal_offset}, "
            f"got {episodes}"
        )
    paper = np.arange(total) < paper_episodes
    strict = ~solved & (np.cumsum(~solved) <= episodes)
    kept = np.flatnonzero(paper | strict)
    rows, goals = rows[kept], states[rows[kept] + goal_offset]
    return Tasks(
        episodes=episode[kept],
        steps=step[kept],
        starts=states[rows],
        goals=goals,
        goal_frames=_goal_frames(file, env, rows + goal_offset, goals),
        solved=solved[kept],
        paper=paper[kept],
        strict=strict[kept],
    )


def _small_columns(file: EpisodeFile) -> dict[str, NDArray[np.generic]]:
    """All columns that hold numbers rather than images."""
    columns = {name: file.column(name) for name in file.columns}
    return {
        name: column[:] for name, column in columns.items() if column.ndim <= 2 and column.dtype.kind in "fiu"
    }


def _goal_frames(
    file: EpisodeFile, env: GoalEnv, rows: NDArray[np.int64], goals: NDArray[np.float64]
) -> NDArray[np.uint8]:
    shape = (env.image_size, env.image_size, 3)
    if file.column("pixels").shape[1:] != shape:
        return np.stack([env.render_state(goal) for goal in goals])
    frames = np.empty((len(rows), 1, *shape), dtype=np.uint8)
    file.read_frames("pixels", rows, 1, 1, frames)
    return frames[:, 0]
