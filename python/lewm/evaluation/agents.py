"""What is evaluated: something that turns frames and a goal's image into actions, for many episodes at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["Agent", "PlanningAgent", "RandomAgent"]

Actions = NDArray[np.float32]

_PROBLEMS_PER_CALL = 25


class Agent(Protocol):
    """Acts in N episodes that run in step; ``rows`` are the indices of those that still run."""

    frame_skip: int
    """Environment steps between two frames that the agent wants to see."""
    context: int
    """How many such frames, at most; 0: none."""

    def reset(self, goals: NDArray[np.uint8], seed: int) -> None:
        """Starts N episodes with these goal images, (N, H, W, 3) uint8."""

    def act(self, rows: NDArray[np.intp], frames: NDArray[np.uint8], past: Actions) -> Actions:
        """The next k actions of each running episode, (len(rows), k, A) in the environment's units; k is free.

        frames: (len(rows), C, H, W, 3), the last C <= ``context`` frames, ``frame_skip`` steps apart, the current one
        last. past: (len(rows), C - 1, frame_skip, A), the actions between them.
        """


class RandomAgent:
    """Uniform actions in the box from ``low`` to ``high``, (A,) each."""

    frame_skip = 1
    context = 0

    def __init__(self, low: NDArray[Any], high: NDArray[Any]) -> None:
        self._low, self._high = low, high

    def reset(self, goals: NDArray[np.uint8], seed: int) -> None:
        """See `Agent.reset`."""
        self._rng = np.random.default_rng([seed, 1])
        self._episodes = len(goals)

    def act(self, rows: NDArray[np.intp], frames: NDArray[np.uint8], past: Actions) -> Actions:
        """See `Agent.act`. An episode's actions do not depend on which others still run."""
        actions = self._rng.uniform(self._low, self._high, (self._episodes, 1, len(self._low)))
        return actions[rows].astype(np.float32)


class PlanningAgent:
    """A world model and a planner under model-predictive control; episodes are planned in batches.

    Args:
        model: what `lewm.load` returns.
        planner: a `lewm.Planner` over it; its seed is the randomness of the agent.
        replan_every: blocks executed of each plan; the whole horizon by default, as published. The rest of a plan is
            the next one's warm start.
        context: frames shown to the model, at most its history.
        progress: called with (index of the replan, episodes planned, episodes to plan).

    Raises:
        ValueError: ``replan_every`` or ``context`` is out of range.
    """

    def __init__(
        self,
        model: Any,
        planner: Any,
        *,
        replan_every: int | None = None,
        context: int = 1,
        progress: Callable[[int, int, int], None] | None = None,
    ) -> None:
        horizon, history = planner.options["horizon"], model.config.history
        replan_every = horizon if replan_every is None else replan_every
        if not 1 <= replan_every <= horizon:
            raise ValueError(f"replan_every: expected 1 to the horizon ({horizon}), got {replan_every}")
        if not 1 <= context <= history:
            raise ValueError(f"context: expected 1 to the model's history ({history}), got {context}")
        self.frame_skip = int(model.config.frame_skip)
        self.context = context
        self._model, self._planner = model, planner
        self._replan_every = replan_every
        self._progress = progress

    def reset(self, goals: NDArray[np.uint8], seed: int) -> None:
        """See `Agent.reset`."""
        self._goals = self._model.encode(goals)
        self._rest: Actions | None = None
        self._plans = 0

    def act(self, rows: NDArray[np.intp], frames: NDArray[np.uint8], past: Actions) -> Actions:
        """See `Agent.act`."""
        actions = []
        for first in range(0, len(rows), _PROBLEMS_PER_CALL):
            part = slice(first, first + _PROBLEMS_PER_CALL)
            actions.append(self._plan(rows[part], frames[part], past[part]))
            if self._progress is not None:
                self._progress(self._plans, min(first + _PROBLEMS_PER_CALL, len(rows)), len(rows))
        self._plans += 1
        return np.concatenate(actions)

    def _plan(self, rows: NDArray[np.intp], frames: NDArray[np.uint8], past: Actions) -> Actions:
        count, context = frames.shape[:2]
        latents = self._model.encode(frames.reshape(-1, *frames.shape[2:])).reshape(count, context, -1)
        plan = self._planner.plan_latents(
            latents,
            self._goals[rows],
            past_actions=self._model.standardise(past) if context > 1 else None,
            warm_start=self._rest[rows] if self._plans and self._rest is not None else None,
            problem_ids=rows,
            plan_index=self._plans,
        )
        self._keep_rest(rows, plan.actions[:, self._replan_every :])
        executed = self._model.environment_actions(plan.actions[:, : self._replan_every])
        return executed.reshape(count, -1, executed.shape[-1])

    def _keep_rest(self, rows: NDArray[np.intp], rest: Actions) -> None:
        if not rest.shape[1]:
            return
        if self._rest is None:
            self._rest = np.zeros((len(self._goals), *rest.shape[1:]), dtype=np.float32)
        self._rest[rows] = rest
