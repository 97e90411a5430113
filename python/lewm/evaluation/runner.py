"""Running an agent through tasks, all episodes in step."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from lewm.envs import EnvBatch, GoalEnv
from lewm.evaluation.agents import Agent
from lewm.evaluation.tasks import Tasks

__all__ = ["Outcome", "run_tasks"]


@dataclass(frozen=True)
class Outcome:
    """What became of N tasks."""

    success: NDArray[np.bool_]
    """(N,) whether the goal was reached after some step."""
    steps: NDArray[np.int64]
    """(N,) environment steps taken: up to the goal, or the whole budget."""
    final_states: NDArray[np.float64]
    """(N, S)."""
    films: dict[int, list[NDArray[np.uint8]]] = field(default_factory=dict)
    """Frames before the first and after every step, of the tasks that were to be filmed."""


def run_tasks(
    agent: Agent,
    env: GoalEnv,
    batch: EnvBatch,
    tasks: Tasks,
    *,
    budget: int,
    seed: int = 0,
    first: int = 0,
    film: Collection[int] = (),
    progress: Callable[[int, int], None] | None = None,
) -> Outcome:
    """Runs every task until its goal is reached or ``budget`` environment steps are over.

    Success is checked on true states after every step, never before the first.

    Args:
        env: says what success is.
        batch: as many environments as there are tasks.
        first: number of the first task in the whole evaluation, see `Agent.reset`.
        film: tasks to keep all frames of.
        progress: called with (steps taken, budget).
    """
    run = _Run(agent, env, batch, tasks, film)
    agent.reset(tasks.goal_frames, seed, first)
    while run.step < budget and len(run.rows):
        rows = run.rows
        chunk = agent.act(rows, *run.context())
        for actions in chunk[:, : budget - run.step].swapaxes(0, 1):
            run.advance(rows, actions)
            if progress is not None:
                progress(run.step, budget)
        run.drop_finished()
    return Outcome(run.success, run.steps, batch.get_states(), run.films)


class _Run:
    """The state of all episodes between two steps."""

    def __init__(
        self, agent: Agent, env: GoalEnv, batch: EnvBatch, tasks: Tasks, film: Collection[int]
    ) -> None:
        self._agent, self._env, self._batch, self._goals = agent, env, batch, tasks.goals
        self.step = 0
        self.rows = np.arange(len(tasks))
        """Episodes that still ran at the last replan."""
        self.success = np.zeros(len(tasks), dtype=bool)
        self.steps = np.zeros(len(tasks), dtype=np.int64)
        batch.set_states(tasks.starts)
        self._frames: deque[NDArray[np.uint8]] = deque(
            maxlen=agent.context
        )  # of all episodes, block by block
        self._blocks: deque[NDArray[np.float32]] = deque(maxlen=max(0, agent.context - 1))
        self._block: list[NDArray[np.float32]] = []
        if agent.context > 1:
            self._frames.append(self._render(self.rows))
        self.films = {row: [self._batch.render(np.array([row]))[0]] for row in film}

    def context(self) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Frames (n, C, H, W, 3) and the actions between them (n, C - 1, frame_skip, A) of the running episodes."""
        if self._block:
            raise ValueError(f"agent: expected plans of whole blocks of {self._agent.frame_skip} actions")
        if self._agent.context == 1:
            self._frames.append(self._render(self.rows))
        count, size = len(self.rows), self._batch.image_size
        frames = np.empty((count, len(self._frames), size, size, 3), dtype=np.uint8)
        past = np.empty(
            (count, len(self._blocks), self._agent.frame_skip, self._env.action_dim), dtype=np.float32
        )
        for index, frame in enumerate(self._frames):
            frames[:, index] = frame[self.rows]
        for index, block in enumerate(self._blocks):
            past[:, index] = block[self.rows]
        return frames, past

    def advance(self, rows: NDArray[np.intp], actions: NDArray[np.float32]) -> None:
        """One step of those of ``rows`` that have not finished within this plan."""
        running = ~self.success[rows]
        active = rows[running]
        self._batch.step(actions[running], active)
        self.step += 1
        self.steps[active] += 1
        states = self._batch.get_states()
        self.success[active] = self._env.success(states[active], self._goals[active])
        for row in set(self.films) & set(active.tolist()):
            self.films[row].append(self._batch.render(np.array([row]))[0])
        self._remember(rows, actions)

    def _remember(self, rows: NDArray[np.intp], actions: NDArray[np.float32]) -> None:
        full = np.zeros((len(self.success), actions.shape[1]), dtype=np.float32)
        full[rows] = np.clip(actions, self._env.action_space.low, self._env.action_space.high)
        self._block.append(full)
        if len(self._block) == self._agent.frame_skip:
            self._blocks.append(np.stack(self._block, axis=1))
            self._block = []
            if self._agent.context > 1:
                self._frames.append(self._render(rows[~self.success[rows]]))

    def _render(self, rows: NDArray[np.intp]) -> NDArray[np.uint8]:
        """Frames of all episodes, (N, H, W, 3), drawn for ``rows`` only."""
        size = self._batch.image_size
        frame = np.zeros((len(self.success), size, size, 3), dtype=np.uint8)
        if len(rows):
            frame[rows] = self._batch.render(rows)
        return frame

    def drop_finished(self) -> None:
        """Leaves out, from the next plan on, what has reached its goal."""
        self.rows = self.rows[~self.success[self.rows]]
