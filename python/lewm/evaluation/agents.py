"""What is evaluated: something that turns frames and a goal's image into actions, for many episodes at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from lewm.nn.cloner import Cloner
    from lewm.recorded import RecordedActions

__all__ = ["Agent", "CloningAgent", "PlanningAgent", "RandomAgent"]

Actions = NDArray[np.float32]


class Agent(Protocol):
    """Acts in N episodes that run in step; ``rows`` are the indices of those that still run."""

    frame_skip: int
    """Environment steps between two frames that the agent wants to see."""
    context: int
    """How many such frames, at most; 0: none."""

    def reset(self, goals: NDArray[np.uint8], seed: int, first: int = 0) -> None:
        """Starts N episodes with these goal images, (N, H, W, 3) uint8.

        ``first`` is the number of the first of them in the whole evaluation: randomness of an episode should depend on
        the seed and its number alone, so that it does not matter in what parts they run.
        """

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

    def reset(self, goals: NDArray[np.uint8], seed: int, first: int = 0) -> None:
        """See `Agent.reset`."""
        self._rngs = [np.random.default_rng([seed, 1, first + n]) for n in range(len(goals))]

    def act(self, rows: NDArray[np.intp], frames: NDArray[np.uint8], past: Actions) -> Actions:
        """See `Agent.act`."""
        actions = np.stack([self._rngs[row].uniform(self._low, self._high) for row in rows])
        return actions[:, None].astype(np.float32)


class PlanningAgent:
    """A world model and a planner under model-predictive control; all running episodes are planned in one call.

    Args:
        model: what `lewm.load` returns.
        planner: a `lewm.Planner` over it; its seed is the randomness of the agent.
        replan_every: blocks executed of each plan; the whole horizon by default, as published. The rest of a plan is
            the next one's warm start.
        context: frames shown to the model, at most its history.
        recorded: plans begin with the cheapest of ``proposals`` sequences recorded in frames like the present one and
            the last plan's rest; None: with that rest alone. A function that returns them is asked at every plan.

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
        recorded: RecordedActions | Callable[[], RecordedActions] | None = None,
        proposals: int = 128,
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
        self._recorded, self._proposals = recorded, proposals

    def reset(self, goals: NDArray[np.uint8], seed: int, first: int = 0) -> None:
        """See `Agent.reset`."""
        self._first = first
        self._goals = self._model.encode(goals)
        self._rest: Actions | None = None
        self._plans = 0

    def act(self, rows: NDArray[np.intp], frames: NDArray[np.uint8], past: Actions) -> Actions:
        """See `Agent.act`."""
        count, context = frames.shape[:2]
        latents = self._model.encode(frames.reshape(-1, *frames.shape[2:])).reshape(count, context, -1)
        goals, start = self._goals[rows], None if self._rest is None else self._rest[rows]
        past_blocks = self._model.standardise(past) if context > 1 else None
        if self._recorded is not None:
            recorded = self._recorded() if callable(self._recorded) else self._recorded
            start = recorded.warm_start(
                self._planner, latents, goals, past_actions=past_blocks, rest=start, count=self._proposals
            )
        plan = self._planner.plan_latents(
            latents,
            goals,
            past_actions=past_blocks,
            warm_start=start,
            problem_ids=self._first + rows,
            plan_index=self._plans,
        )
        self._plans += 1
        self._keep_rest(rows, plan.actions[:, self._replan_every :])
        executed = self._model.environment_actions(plan.actions[:, : self._replan_every])
        return executed.reshape(count, -1, executed.shape[-1])

    def _keep_rest(self, rows: NDArray[np.intp], rest: Actions) -> None:
        if not rest.shape[1]:
            return
        if self._rest is None:
            self._rest = np.zeros((len(self._goals), *rest.shape[1:]), dtype=np.float32)
        self._rest[rows] = rest


class CloningAgent:
    """A policy cloned from the data: an action block at a time, from the current frame and the goal's."""

    context = 1

    def __init__(self, policy: Cloner) -> None:
        self.frame_skip = policy.config.frame_skip
        self._policy = policy.eval()
        scaling = policy.action_scaling or {"mean": 0.0, "std": 1.0}
        self._mean, self._std = (np.asarray(scaling[key], dtype=np.float32) for key in ("mean", "std"))

    def reset(self, goals: NDArray[np.uint8], seed: int, first: int = 0) -> None:
        """See `Agent.reset`."""
        self._goals = goals

    def act(self, rows: NDArray[np.intp], frames: NDArray[np.uint8], past: Actions) -> Actions:
        """See `Agent.act`."""
        import torch

        with torch.inference_mode():
            seen, sought = (torch.from_numpy(images) for images in (frames[:, -1], self._goals[rows]))
            blocks = self._policy.act(self._policy.encode(seen), self._policy.encode(sought)).numpy()
        actions = blocks.reshape(len(rows), self.frame_skip, -1) * self._std + self._mean
        return actions.astype(np.float32)
