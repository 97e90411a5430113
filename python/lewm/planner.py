"""Planning: from a frame and a goal to action blocks, by sampling in the model's latent space."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lewm import _core
from lewm.arrays import as_array, finite
from lewm.device_arrays import DevicePlans, on_gpu
from lewm.model import Model, as_frames, check_context, check_past, thread_count
from lewm.planner_options import (
    CostFunction,
    as_array_lead,
    checked_bounds,
    checked_cost,
    checked_seed,
    counters,
    elite_count,
    flag,
    integer,
    number,
    refuse_unread,
    seconds,
    spread,
)

__all__ = ["CostFunction", "Plan", "Planner"]

_BACKENDS = ("core", "torch")
_METHODS = {"cem": "cem", "icem": "icem", "mppi": "mppi", "predictive": "predictive_sampling"}
_COSTS = ("final", "sum", "discounted")


@dataclass(frozen=True, eq=False)
class Plan:
    """What a planner found. With a batch of problems every array has a leading axis B.

    Of arguments in a GPU's memory: the arrays stay there, of the arguments' library, and so do the costs.
    """

    actions: NDArray[np.float32]
    """(H, A) standardised action blocks; ``Model.environment_actions`` turns them into the environment's."""
    cost: Any
    """The model's cost of ``actions``: a float, or (B,) float32."""
    iterations: int
    """Iterations that were completed; fewer than asked for when a deadline ended the plan."""
    elapsed: float
    """Seconds."""
    elite_cost: Any
    """Mean cost of the last iteration's elites: a float, or (B,) float32."""
    std: NDArray[np.float32]
    """(H, A) standard deviation of the search after its last iteration."""
    elites: NDArray[np.int32]
    """(K,) sample indices of the last iteration's elites, best first; -1: none. One with method "predictive"."""


class Planner:
    """A sampling planner over a model. Settings are the published ones unless said otherwise (arXiv 2603.19312).

    The same seed and inputs give the same bytes, for any number of threads and any batch a problem is part of.

    Args:
        model: from ``lewm.load``; any number of planners share one.
        method: "cem" (as published), "icem" (coloured noise, kept elites, momentum), "mppi" or "predictive"
            (predictive sampling: the best of one round).
        samples: candidates of an iteration (N).
        elites: that refit the distribution (K); None: 30, or all samples where there are fewer. mppi: 0 weighs all.
            predictive: without use.
        iterations: at most so many; None: 30, and 1 for "predictive".
        horizon: action blocks of a candidate (H).
        seed: of the noise.
        bounds: (low, high) of standardised actions: numbers, or one per action dimension; None: no clipping.
        threads: None: as many as the model has.
        std: of the first iteration's noise. std_min: cem and icem: a floor of the refitted one; None: 0.
        momentum: cem and icem: share of the old mean and std that a refit keeps; None: 0.1 for icem, 0 for cem.
        return_best: cem and icem: the best candidate of the last iteration instead of its mean.
        action_hold: environment steps that share a draw of noise within a block, so that a candidate's actions are
            held for so long; divides the frame skip. 1, as published: a draw for every step.
        noise_exponent: icem: power spectrum 1/f^exponent of the noise over the horizon; None: 2. As published, each
            series is divided by its own standard deviation, which a horizon of 2 or 3 leaves near zero now and then:
            give bounds there, or 0, white noise.
        kept_elites: icem: elites that stay candidates in the next iteration; None: 5.
        temperature: mppi: candidates weigh exp(-cost / temperature); None: 0.5.
        cost: "final" (published: squared distance of the last latent to the goal's), "sum" (over all steps),
            "discounted", or a function (latents (n, H, D), actions (n, H, A), goal (D,)) -> (n,), called from several
            threads with a part of the candidates each; it cannot use the planner that calls it.
        discount: per step, of cost="discounted"; None: 0.99.
        action_penalty: times a candidate's squared standardised actions, added to its cost; None: 0.
        backend: "core", the compiled one, or "torch": the same searches on the same noise, with the model as a torch
            module; slower, but it runs wherever torch does.
        device: backend="torch": any device of torch; None: the first accelerator that torch has, else the CPU.

    Raises:
        ValueError: an option is out of range, or given to a method or cost that does not read it; the message names
            it. TypeError: an option is of another type.
        ImportError: backend="torch" without torch. lewm.Error: torch does not have the device.
    """

    def __init__(
        self,
        model: Model,
        method: str = "cem",
        samples: int = 300,
        elites: int | None = None,
        iterations: int | None = None,
        horizon: int = 5,
        seed: int = 0,
        bounds: tuple[Any, Any] | None = None,
        *,
        threads: int | None = None,
        std: float = 1.0,
        std_min: float | None = None,
        momentum: float | None = None,
        return_best: bool | None = None,
        action_hold: int = 1,
        noise_exponent: float | None = None,
        kept_elites: int | None = None,
        temperature: float | None = None,
        cost: str | CostFunction = "final",
        discount: float | None = None,
        action_penalty: float | None = None,
        backend: str = "core",
        device: str | None = None,
    ) -> None:
        if not isinstance(model, Model):
            raise TypeError(f"model: expected a lewm.Model, got {type(model).__name__}")
        if not isinstance(method, str) or method not in _METHODS:
            raise ValueError(f"method: expected one of {', '.join(_METHODS)}, got {method!r}")
        if not callable(cost) and (not isinstance(cost, str) or cost not in _COSTS):
            raise ValueError(f"cost: expected one of {', '.join(_COSTS)} or a function, got {cost!r}")
        own = {"std_min": std_min, "momentum": momentum, "return_best": return_best}
        own |= {"noise_exponent": noise_exponent, "kept_elites": kept_elites, "temperature": temperature}
        refuse_unread(method, own, cost, discount)
        low, high = checked_bounds(bounds, model.config.action_dim, model.config.block_dim)
        given = {
            "samples": integer("samples", samples),
            "elites": elite_count(elites, samples),
            "iterations": integer("iterations", iterations),
            "horizon": integer("horizon", horizon),
            "seed": checked_seed(seed),
            "std_init": spread("std", std),
            "std_min": number("std_min", std_min),
            "momentum": number("momentum", momentum),
            "return_best": flag("return_best", return_best),
            "action_hold": integer("action_hold", action_hold),
            "noise_exponent": number("noise_exponent", noise_exponent),
            "kept_elites": integer("kept_elites", kept_elites),
            "temperature": number("temperature", temperature),
            "cost_mode": None if callable(cost) else cost,
            "discount": number("discount", discount),
            "action_penalty": number("action_penalty", action_penalty),
            "low": low,
            "high": high,
        }
        self._model = model
        self._method = method
        self._given = {name: value for name, value in given.items() if value is not None}
        self._cost = checked_cost(cost) if callable(cost) else None
        self._threads = model.threads if threads is None else thread_count(threads)
        self._backend, self._network = _backend(backend, device, model, threads)
        self._growing = threading.Lock()
        self._core = self._create(problems=1)

    def _create(self, problems: int) -> _core.Planner:
        options = self._given | {"problems": problems}
        planner: _core.Planner = self._backend.Planner.create(
            self._network, _METHODS[self._method], options, self._cost, self._threads
        )
        return planner

    def _core_for(self, problems: int) -> _core.Planner:
        """The core's planner, with memory for a batch of this size."""
        with self._growing:
            if self._core.options["problems"] < problems:
                self._core = self._create(problems)
            return self._core

    def _controllers(self) -> type[_core.Controller]:
        """The class of controllers over this backend's planners."""
        if self._backend is _core:
            return _core.Controller
        from lewm.nn.controller import Controller

        controllers: type[_core.Controller] = Controller  # type: ignore[assignment]
        return controllers

    def __repr__(self) -> str:
        o = self.options
        return (
            f"<lewm.Planner {self.method}, {o['samples']} samples x {o['iterations']} iterations, "
            f"{o['elites']} elites, horizon {o['horizon']}, {self.threads} threads>"
        )

    @property
    def model(self) -> Model:
        """The model that is planned with."""
        return self._model

    @property
    def device(self) -> str:
        """Where it searches: the model's device, or with backend="torch" that of torch."""
        return self._model.device if self._backend is _core else str(self._network.device)

    @property
    def method(self) -> str:
        """The sampling method."""
        return self._method

    @property
    def options(self) -> dict[str, Any]:
        """The numeric options in effect, defaults included."""
        return {name: value for name, value in self._core.options.items() if name != "problems"}

    @property
    def horizon(self) -> int:
        """Action blocks of a plan (H)."""
        return int(self._core.options["horizon"])

    @property
    def threads(self) -> int:
        """Threads that plan."""
        return self._core.threads

    def plan(
        self,
        frame: Any,
        goal: Any,
        deadline: float | None = None,
        *,
        past_actions: Any = None,
        warm_start: Any = None,
        plan_index: int = 0,
        problem_ids: Any = None,
    ) -> Plan:
        """The plan from a frame to a goal frame; both are encoded here.

        Args:
            frame: (H, W, 3) uint8 RGB, or (C, H, W, 3) with earlier context frames first; float32 frames are (3, H, W),
                normalised with ``Model.preprocessing``. For B problems: (B, H, W, 3) or (B, C, H, W, 3).
            goal: (H, W, 3), or (B, H, W, 3) for B problems; of the frame's element type.
            deadline: seconds, encoding included; the plan returns the best mean so far, late by one tile of candidates
                at most (on a GPU by one iteration) once the frames are encoded and each start has its cost.
            past_actions: ([B,] C - 1, A) standardised blocks executed between the context frames.
            warm_start: ([B,] at most H, A) standardised blocks to start from; what they leave starts at zero.
            plan_index, problem_ids: counters of the noise: another index is another draw; ids ([B] uint32) are 0 by
                default, so that a problem plans alike alone and in a batch.

        Frames and goal may lie in the memory of the model's GPU: see ``plan_latents``.

        Raises:
            TypeError: another element type. ValueError: another shape, NaN, or an argument out of range.
            lewm.Error: fewer candidates of a problem have a finite cost than there are elites.
        """
        if self._backend is _core and on_gpu(frame):
            return self._plan_on_gpu(
                "frames", frame, goal, deadline, past_actions, warm_start, plan_index, problem_ids
            )
        size = self._model.config.image_size
        batched = np.ndim(goal) == 4
        goals = as_frames("goal", goal, ("B",) if batched else (), size)
        lead: tuple[int | str, ...] = (len(goals),) if batched else ()
        if np.ndim(frame) == len(lead) + 4:
            lead = (*lead, "C")
        frames = as_frames("frame", frame, lead, size)
        if frames.dtype != goals.dtype:
            raise TypeError(f"goal: expected {frames.dtype} as the frame, got {goals.dtype}")
        if not batched:
            frames, goals = frames[None], goals[None]
        if frames.ndim == 4:
            frames = frames[:, None]
        problems, context = frames.shape[:2]
        if context > self._model.config.history:
            raise ValueError(
                f"frame: expected at most {self._model.config.history} context frames, got {context}"
            )
        core, request = self._request(
            problems, context, batched, past_actions, warm_start, problem_ids, plan_index, deadline
        )
        return self._finish(core, core.plan_frames, frames, goals, request, batched)

    def plan_latents(
        self,
        latents: Any,
        goal: Any,
        deadline: float | None = None,
        *,
        past_actions: Any = None,
        warm_start: Any = None,
        plan_index: int = 0,
        problem_ids: Any = None,
    ) -> Plan:
        """The plan from latents to a goal's latent, without encoding.

        Args:
            latents: (C, D) float32 of the context frames, oldest first, or (B, C, D) for B problems.
            goal: (D,), or (B, D). The others are those of ``plan``.

        With a model on a GPU, latents and goal may be torch, CuPy or other DLPack arrays in its memory: they are read
        in place, ordered on the caller's current stream, and the plan's arrays stay there. Their values are not looked
        at.

        Raises:
            As ``plan``.
        """
        if self._backend is _core and on_gpu(latents):
            return self._plan_on_gpu(
                "latents", latents, goal, deadline, past_actions, warm_start, plan_index, problem_ids
            )
        batched = np.ndim(latents) == 3
        if not batched:
            latents = as_array("latents", latents, np.float32, ("C", self._model.config.latent_dim))[None]
            goal = as_array("goal", goal, np.float32, (self._model.config.latent_dim,))[None]
        latents = finite(
            "latents", as_array("latents", latents, np.float32, ("B", "C", self._model.config.latent_dim))
        )
        problems, context = latents.shape[:2]
        if context > self._model.config.history:
            raise ValueError(
                f"latents: expected at most {self._model.config.history} context frames, got {context}"
            )
        goal = finite("goal", as_array("goal", goal, np.float32, (problems, self._model.config.latent_dim)))
        core, request = self._request(
            problems, context, batched, past_actions, warm_start, problem_ids, plan_index, deadline
        )
        return self._finish(core, core.plan_latents, latents, goal, request, batched)

    def evaluate(self, latents: Any, goal: Any, actions: Any, past_actions: Any = None) -> Any:
        """Costs (B, S) float32 of given candidates under this planner's cost and action penalty.

        Args:
            latents: (B, C, D); goal: (B, D); actions: (B, S, H, A), standardised; past_actions: (B, C - 1, A).

        On a GPU: see ``plan_latents``; actions lie there too.

        Raises:
            TypeError: another element type. ValueError: another shape, empty, or NaN.
        """
        config = self._model.config
        if self._backend is _core and on_gpu(latents) and self._model.device != "cpu":
            given = DevicePlans(config, "latents", latents, goal)
            shape = (given.problems, "S", self.horizon, config.block_dim)
            past = (
                given.blocks("past_actions", past_actions, given.context - 1) if given.context > 1 else None
            )
            candidates = given.caller.take("actions", actions, "float32", shape)
            costs = given.caller.empty(tuple(actions.shape[:2]))
            self._core_for(given.problems).evaluate(
                given.start,
                given.goal,
                candidates,
                _core.Request(past, None, None, 0, math.inf),
                given.caller.capsule(costs),
                given.caller.stream,
            )
            return given.caller.give(costs)
        latents, past = check_context(config, latents, past_actions)
        problems = len(latents)
        goal = finite("goal", as_array("goal", goal, np.float32, (problems, config.latent_dim)))
        shape = (problems, "S", self.horizon, config.block_dim)
        actions = finite("actions", as_array("actions", actions, np.float32, shape))
        request = self._backend.Request(past, None, None, 0, math.inf)
        costs = np.empty(actions.shape[:2], np.float32)
        self._core_for(problems).evaluate(latents, goal, actions, request, costs)
        return costs

    def _request(
        self,
        problems: int,
        context: int,
        batched: bool,
        past_actions: Any,
        warm_start: Any,
        problem_ids: Any,
        plan_index: int,
        deadline: float | None,
    ) -> tuple[_core.Planner, _core.Request]:
        """The core's planner for so many problems, and what surrounds their images or latents."""
        began = time.perf_counter()
        config, horizon = self._model.config, self.horizon
        if context > 1 and past_actions is None:
            raise ValueError(f"past_actions: needed with {context} context frames, got None")
        if not batched:
            past_actions = None if past_actions is None else as_array_lead("past_actions", past_actions)
            warm_start = None if warm_start is None else as_array_lead("warm_start", warm_start)
        past = check_past(config, past_actions, problems, context)
        if warm_start is not None and np.shape(warm_start)[1:2] == (0,):
            warm_start = None
        if warm_start is not None:
            warm_start = as_array("warm_start", warm_start, np.float32, (problems, "H", config.block_dim))
            if warm_start.shape[1] > horizon:
                raise ValueError(f"warm_start: expected at most {horizon} blocks, got {warm_start.shape[1]}")
            finite("warm_start", warm_start)
        counted = counters(problems, problem_ids, plan_index)
        limit = seconds("deadline", deadline)
        core = self._core_for(problems)
        left = max(0.0, limit - (time.perf_counter() - began))
        return core, self._backend.Request(past, warm_start, *counted, left)

    def _plan_on_gpu(
        self,
        kind: str,
        start: Any,
        goal: Any,
        deadline: float | None,
        past_actions: Any,
        warm_start: Any,
        plan_index: int,
        problem_ids: Any,
    ) -> Plan:
        """`plan` and `plan_latents` of arrays in the model's GPU."""
        if self._model.device == "cpu":
            raise ValueError(
                f"{kind}: they lie in a GPU's memory, the model on the CPU; load it with device='cuda'"
            )
        given = DevicePlans(self._model.config, kind, start, goal)
        if given.context > 1 and past_actions is None:
            raise ValueError(f"past_actions: needed with {given.context} context frames, got None")
        if given.context == 1 and past_actions is not None and 0 not in np.shape(past_actions):
            raise ValueError(
                f"past_actions: expected None with one context frame, got {np.shape(past_actions)}"
            )
        past = given.blocks("past_actions", past_actions, given.context - 1) if given.context > 1 else None
        blocks = np.shape(warm_start)[-2:-1]  # how many, or () without a warm start
        if blocks > (self.horizon,):
            raise ValueError(f"warm_start: expected at most {self.horizon} blocks, got {blocks[0]}")
        if blocks == (0,):
            warm_start = None
        warm = given.blocks("warm_start", warm_start, "H")
        counted = counters(given.problems, problem_ids, plan_index)
        request = _core.Request(past, warm, *counted, seconds("deadline", deadline))
        core = self._core_for(given.problems)
        elites = 1 if self._method == "predictive" else core.options["elites"]
        results = given.results(self.horizon, elites)
        a, c, e, s, chosen = (given.caller.capsule(array) for array in results)
        out = _core.Result(a, c, e, s, chosen if elites else None)
        run = core.plan_latents if kind == "latents" else core.plan_frames
        iterations, elapsed = run(given.start, given.goal, request, out, given.caller.stream)
        actions, cost, elite_cost, std, chosen = (
            given.caller.give(array if given.batched else array[0]) for array in results
        )
        return Plan(actions, cost, iterations, elapsed, elite_cost, std, chosen)

    def _finish(
        self,
        core: _core.Planner,
        plan: Callable[..., tuple[int, float]],
        start: NDArray[Any],
        goal: NDArray[Any],
        request: _core.Request,
        batched: bool,
    ) -> Plan:
        options = core.options
        problems, elites = len(start), 1 if self._method == "predictive" else options["elites"]
        shape = (problems, self.horizon, self._model.config.block_dim)
        actions, std = np.empty(shape, np.float32), np.empty(shape, np.float32)
        cost, elite_cost = np.empty(problems, np.float32), np.empty(problems, np.float32)
        chosen = np.full((problems, elites), -1, np.int32)
        out = self._backend.Result(actions, cost, elite_cost, std, chosen if elites else None)
        iterations, elapsed = plan(start, goal, request, out)
        if batched:
            return Plan(actions, cost, iterations, elapsed, elite_cost, std, chosen)
        return Plan(actions[0], float(cost[0]), iterations, elapsed, float(elite_cost[0]), std[0], chosen[0])


def _backend(name: str, device: str | None, model: Model, threads: int | None) -> tuple[Any, Any]:
    """What has Planner, Request and Result, and the model as its Planner takes it."""
    if name == "core":
        if device is not None:
            raise ValueError(
                f"device: expected None with backend='core' (lewm.load takes one), got {device!r}"
            )
        return _core, model._core
    if name != "torch":
        raise ValueError(f"backend: expected one of {', '.join(_BACKENDS)}, got {name!r}")
    if threads is not None:
        raise ValueError(
            f"threads: expected None with backend='torch' (it has its own setting), got {threads}"
        )
    try:
        from lewm.nn import planner
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise ImportError("backend='torch' needs torch: pip install 'lewm[train]'") from error
    return planner, planner.Network(model.checkpoint(), model.precision, device)
