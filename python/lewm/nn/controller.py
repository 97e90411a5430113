"""The controller of csrc/plan/controller over the torch planner: ``lewm.Controller`` of a ``backend="torch"`` planner.

`Controller` has the names and arguments of ``lewm._core.Controller``.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lewm.nn.planner import Planner, Request, Result

__all__ = ["Controller"]

Floats = NDArray[np.float32]


class Controller:
    """Frames in, environment actions out; see ``lewm.Controller``."""

    def __init__(
        self,
        planner: Planner,
        replan_every: int,
        context: int,
        warm_start: bool,
        deadline: float,
        low: list[float],
        high: list[float],
    ) -> None:
        config = planner.network.config
        if not 1 <= context <= config.history:
            raise ValueError(f"context: expected 1..{config.history}, got {context}")
        self._low, self._high = _bound("low", low, -np.inf), _bound("high", high, np.inf)
        if (self._low > self._high).any():
            raise ValueError("low: expected at most high in every dimension")
        self._planner, self._config = planner, config
        self._horizon = int(planner.options["horizon"])
        self._replan_every = replan_every or self._horizon
        self._context, self._warm_start, self._deadline = context, warm_start, deadline
        scaling = planner.network.model.action_scaling or {"mean": [0.0], "std": [1.0]}
        self._mean, self._std = (np.asarray(scaling[name], np.float32) for name in ("mean", "std"))
        self.reset()

    @classmethod
    def create(cls, **options: Any) -> Controller:
        """See ``_core.Controller.create``."""
        return cls(**options)

    def reset(self) -> None:
        """Forgets everything, the goal too."""
        self._goal: Floats | None = None
        self._goal_frame: NDArray[np.uint8] | None = None
        self._latents: list[Floats] = []  # of the frames up to now, the oldest first; at most `context`
        self._blocks: list[Floats] = []  # executed since each of them, standardised; at most `context - 1`
        self._executed = np.empty((self._config.frame_skip, self._config.action_dim), np.float32)
        self._plan: Floats | None = None  # (H, A)
        self._found = (0.0, 0, 0.0)  # its cost, iterations and seconds
        self._step = 0  # environment steps since the plan; 0: a plan is due
        self.plans = 0

    def set_goal(self, goal: NDArray[np.uint8]) -> None:
        """The goal's image, (H, W, 3) uint8."""
        if self._goal_frame is None or not np.array_equal(goal, self._goal_frame):
            self._goal, self._goal_frame = self._planner.encode(goal[None])[0], goal.copy()

    def set_goal_latent(self, goal: Floats) -> None:
        """The goal's latent, (D,)."""
        self._goal, self._goal_frame = goal.copy(), None

    @property
    def needs_plan(self) -> bool:
        """Whether the next ``act`` plans."""
        return self._step == 0

    @property
    def needs_frame(self) -> bool:
        """Whether the next ``act`` looks at its frame: it plans, or a later plan's context begins with it."""
        block, rest = divmod(self._step, self._config.frame_skip)
        return rest == 0 and (self.needs_plan or self._replan_every - block < self._context)

    def act(self, frame: NDArray[np.uint8] | None, out: Floats, spent: float = 0.0) -> None:
        """The next action, into ``out`` (action_dim,); ``spent`` seconds of the deadline are over."""
        began = time.perf_counter() - spent
        if self._goal is None:
            raise ValueError("goal: none is set; call set_goal first")
        if self.needs_frame:
            if frame is None:
                raise ValueError("frame: expected an image, got None")
            latents = [*self._latents, self._planner.encode(frame[None])[0]][-self._context :]
            if self.needs_plan:
                self._make_plan(latents, began)
            self._latents = latents
        self._hand_out(out)
        self._advance()

    def current(self, out: Floats) -> tuple[float, int, float] | None:
        """Cost, iterations and seconds of the plan that is being executed, whose blocks go into ``out`` (H, A)."""
        if self._plan is None:
            return None
        out[:] = self._plan
        return self._found

    def _make_plan(self, latents: list[Floats], began: float) -> None:
        """Plans from the newest frames, the last of which is being seen."""
        warm = None
        if self._warm_start and self._plan is not None and self._replan_every < self._horizon:
            warm = self._plan[None, self._replan_every :]
        past = np.stack(self._blocks[1 - len(latents) :])[None] if len(latents) > 1 else None
        left = max(0.0, self._deadline - (time.perf_counter() - began))
        actions, std = np.empty((2, 1, self._horizon, self._config.block_dim), np.float32)
        cost, elite_cost = np.empty((2, 1), np.float32)
        assert self._goal is not None
        iterations, _ = self._planner.plan_latents(
            np.stack(latents)[None],
            self._goal[None],
            Request(past, warm, None, self.plans, left),
            Result(actions, cost, elite_cost, std, None),
        )
        self._plan = actions[0]
        self._found = float(cost[0]), iterations, time.perf_counter() - began
        self.plans += 1

    def _hand_out(self, out: Floats) -> None:
        """The action of this step, in the environment's units and clipped; what a clip changes is remembered so."""
        block, step = divmod(self._step, self._config.frame_skip)
        assert self._plan is not None
        planned = self._plan[block].reshape(self._executed.shape)[step]
        value = planned * self._std + self._mean
        out[:] = np.clip(value, self._low, self._high)
        self._executed[step] = np.where(out == value, planned, (out - self._mean) / self._std)

    def _advance(self) -> None:
        self._step += 1
        if self._step % self._config.frame_skip:
            return
        if self._context > 1:
            self._blocks = [*self._blocks, self._executed.reshape(-1).copy()][1 - self._context :]
        if self._step == self._replan_every * self._config.frame_skip:
            self._step = 0


def _bound(name: str, values: list[float], otherwise: float) -> Floats:
    bound = np.asarray(values or [otherwise], np.float32)
    if np.isnan(bound).any():
        raise ValueError(f"{name}: expected numbers, got nan")
    return bound
