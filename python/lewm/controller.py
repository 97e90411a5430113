"""Model-predictive control: frames in, environment actions out."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lewm.arrays import as_array, at_least, finite
from lewm.planner import Planner
from lewm.planner_options import bound, flag, integer, seconds

__all__ = ["Controller"]


class Controller:
    """Drives an environment towards a goal frame, one action at a time.

    It keeps the frames and blocks that a plan looks back at, replans when ``replan_every`` blocks have been executed,
    starts each plan from the shifted rest of the last one, turns standardised actions into the environment's, and clips
    them to ``low`` and ``high``.

    Args:
        planner: what plans; its threads compute.
        replan_every: blocks executed before the next plan, 1..horizon; None: the whole horizon (as published).
        context: frames that a plan sees, 1..history.
        warm_start: start a plan from the shifted rest of the last one.
        deadline: seconds of an ``act`` that plans, encoding the frame and a new ``goal`` included; None: none.
        low, high: bounds of an environment action, in its own units: a number, or one per dimension; None: none.

    Raises:
        ValueError: an option is out of range; the message names it. TypeError: ``planner`` is no lewm.Planner, or an
            option is of another type.
    """

    def __init__(
        self,
        planner: Planner,
        replan_every: int | None = None,
        context: int = 1,
        warm_start: bool = True,
        deadline: float | None = None,
        low: Any = None,
        high: Any = None,
    ) -> None:
        if not isinstance(planner, Planner):
            raise TypeError(f"planner: expected a lewm.Planner, got {type(planner).__name__}")
        horizon, replan_every = planner.horizon, integer("replan_every", replan_every)
        if replan_every is not None and not 1 <= replan_every <= horizon:
            raise ValueError(f"replan_every: expected 1..{horizon} (the horizon) or None, got {replan_every}")
        self._planner = planner
        self._config = planner.model.config
        self._core = planner._controllers().create(
            planner=planner._core,
            replan_every=replan_every or 0,
            context=at_least("context", context),
            warm_start=bool(flag("warm_start", warm_start)),
            deadline=seconds("deadline", deadline),
            low=[] if low is None else bound("low", low, [self._config.action_dim], -np.inf).tolist(),
            high=[] if high is None else bound("high", high, [self._config.action_dim], np.inf).tolist(),
        )

    @property
    def planner(self) -> Planner:
        """What plans."""
        return self._planner

    def reset(self) -> None:
        """Forgets everything, the goal too: the next actions are those of a new controller."""
        self._core.reset()

    def set_goal(self, goal: Any) -> None:
        """Sets the goal from the next plan on.

        Args:
            goal: (H, W, 3) uint8 RGB, or its latent (D,) float32.

        Raises:
            TypeError: another element type. ValueError: another shape, or NaN.
        """
        size = self._config.image_size
        if np.ndim(goal) == 1:
            latent = finite("goal", as_array("goal", goal, np.float32, (self._config.latent_dim,)))
            self._core.set_goal_latent(latent)
        else:
            self._core.set_goal(as_array("goal", goal, np.uint8, (size, size, 3)))

    def act(self, frame: Any, goal: Any = None) -> NDArray[np.float32]:
        """The next environment action (action_dim,) float32, in the environment's units.

        Args:
            frame: (H, W, 3) uint8 RGB, what the camera sees now. May be None while ``needs_frame`` is False.
            goal: (H, W, 3) uint8 RGB or its latent (D,); None: the goal stays. The same goal costs nothing.

        Raises:
            TypeError: another element type. ValueError: another shape, no goal, or no frame where one is needed.
            lewm.Error: fewer candidates have a finite cost than there are elites.
        """
        began = time.perf_counter()
        if goal is not None:
            self.set_goal(goal)
        size = self._config.image_size
        if frame is not None:
            frame = as_array("frame", frame, np.uint8, (size, size, 3))
        action = np.empty(self._config.action_dim, np.float32)
        self._core.act(frame, action, time.perf_counter() - began)
        return action

    @property
    def needs_frame(self) -> bool:
        """Whether the next ``act`` looks at its frame."""
        return self._core.needs_frame

    @property
    def needs_plan(self) -> bool:
        """Whether the next ``act`` plans."""
        return self._core.needs_plan

    @property
    def plans(self) -> int:
        """Plans made since construction or ``reset``."""
        return self._core.plans

    @property
    def plan_iterations(self) -> int | None:
        """Iterations that the plan being executed completed, fewer under a deadline; None before the first plan."""
        current = self._current()
        return None if current is None else current[1]

    @property
    def plan_actions(self) -> NDArray[np.float32] | None:
        """The plan being executed: (H, A) standardised blocks; None before the first plan."""
        actions = np.empty((self._planner.horizon, self._config.block_dim), np.float32)
        return actions if self._core.current(actions) is not None else None

    @property
    def plan_cost(self) -> float | None:
        """Its cost; None before the first plan."""
        current = self._current()
        return None if current is None else current[0]

    def _current(self) -> tuple[float, int, float] | None:
        """Cost, iterations and seconds of the plan being executed."""
        return self._core.current(np.empty((self._planner.horizon, self._config.block_dim), np.float32))
