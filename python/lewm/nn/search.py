"""The sampling searches in numpy: the semantics of csrc/plan/search on the same noise, for objectives of any kind.

cem, icem, mppi and predictive sampling for B problems at once (DESIGN.md section 6). Sums run in float64 and are
rounded to float32 where the compiled search rounds them, so that the two differ in their last bits at most.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lewm import _core
from lewm.errors import Error

__all__ = ["Found", "Search", "Start"]

Floats = NDArray[np.float32]

Objective = Callable[[slice, Floats], Floats]
"""(which problems, actions (b, n, H, A)) -> costs (b, n) of these candidates, smaller is better."""

_SMALLEST_TILE = 32  # candidates


@dataclass(frozen=True)
class Start:
    """Where B problems start from, and what is granted."""

    problems: int
    warm_start: Floats | None
    """(B, at most H, A), or None: zeros."""
    problem_ids: NDArray[np.uint32] | None
    """(B,), or None: zeros."""
    plan_index: int
    deadline: float
    """Seconds after ``began``; infinity: none."""
    began: float
    """By the search's clock."""


@dataclass(frozen=True)
class Found:
    """What a search found. E = H * A."""

    actions: Floats
    """(B, E)"""
    cost: Floats
    """(B,)"""
    elite_cost: Floats
    """(B,), NaN without an iteration."""
    std: Floats
    """(B, E)"""
    elites: NDArray[np.int32]
    """(B, K), -1: none."""
    iterations: int


class _Pace:
    """How many candidates to evaluate at once when time is short, and how long that will take.

    Expected per candidate: the second longest of the last eight tiles, so that one hiccup changes nothing. Tiles grow
    while they are short beside the deadline, since a larger one costs an accelerator little more.
    """

    def __init__(self) -> None:
        self._recent: deque[float] = deque(maxlen=8)
        self.tile = _SMALLEST_TILE

    def seconds(self, candidates: int) -> float:
        longest = sorted(self._recent)[-2:]
        return longest[0] * max(candidates, _SMALLEST_TILE) if longest else 0.0

    def observe(self, seconds: float, candidates: int, deadline: float) -> None:
        self._recent.append(seconds / max(candidates, _SMALLEST_TILE))
        if seconds < deadline / 16:
            self.tile *= 2
        elif seconds > deadline / 8:
            self.tile = max(_SMALLEST_TILE, self.tile // 2)

    def relax(self) -> None:
        """What was predicted did not fit and was not tried: expect less, or it would never be tried again."""
        self._recent = deque((0.7 * value for value in self._recent), maxlen=8)


class _Late(Exception):
    """The deadline came before all candidates were evaluated."""


class Search:
    """A search with fixed options, over any number of problems.

    Args:
        method: the core's name: "cem", "icem", "mppi" or "predictive_sampling".
        options: all of ``_core.planner_options``.
        block_dim, action_dim: A, and of an environment step.
        low, high: bounds of a block's numbers, (A,) or (action_dim,) repeated over the block, or None.
        problems, candidates: that one call of the objective may get, at most.
        clock: seconds.
    """

    def __init__(
        self,
        method: str,
        options: dict[str, Any],
        block_dim: int,
        action_dim: int,
        low: list[float] | None,
        high: list[float] | None,
        problems: int,
        candidates: int,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._method, self._options = method, options
        self._samples, self._horizon, self._block_dim = options["samples"], options["horizon"], block_dim
        self._elements = self._horizon * block_dim
        element = np.arange(self._elements)
        step = element % block_dim // action_dim
        self._held = element - step % options["action_hold"] * action_dim  # whose draw an element uses
        self._low, self._high = (self._repeat(bound) for bound in (low, high))
        self._weighs_all = method == "mppi" and options["elites"] == 0
        self._elites = (
            1 if method == "predictive_sampling" else self._samples if self._weighs_all else options["elites"]
        )
        self._kept = min(options["kept_elites"], self._elites, self._samples - 1) if method == "icem" else 0
        self._colour = (
            _colouring(self._horizon, options["noise_exponent"])
            if method == "icem" and options["noise_exponent"] > 0 and self._horizon > 1
            else None
        )
        self._problems_per_call, self._candidates_per_call = problems, candidates
        self._clock = clock
        self._pace = _Pace()

    def run(self, objective: Objective, start: Start) -> Found:
        """The plans of all problems.

        Raises:
            lewm.Error: fewer candidates of a problem have a finite cost than there are elites.
        """
        run = _Run(self, objective, start)
        run.optimise()
        return run.finish()

    def _repeat(self, bound: list[float] | None) -> Floats | None:
        if bound is None:
            return None
        return np.tile(np.asarray(bound, np.float32), self._elements // len(bound))

    def _clip(self, actions: Floats) -> Floats:
        if self._low is not None:
            actions = np.maximum(actions, self._low)
        return actions if self._high is None else np.minimum(actions, self._high)


class _Run:
    """One plan of a search: its arrays and the steps of an iteration."""

    def __init__(self, search: Search, objective: Objective, start: Start) -> None:
        self._search, self._objective, self._start = search, objective, start
        problems, elements = start.problems, search._elements
        self._mean = np.zeros((problems, elements), np.float32)
        if start.warm_start is not None:
            warm = start.warm_start.reshape(problems, -1)
            self._mean[:, : warm.shape[1]] = warm
        self._mean = search._clip(self._mean)
        self._initial = self._mean.copy()
        self._std = np.full((problems, elements), search._options["std_init"], np.float32)
        self._kept = np.empty((problems, 0, elements), np.float32)
        self._rank = np.full((problems, search._elites), -1, np.int32)
        self._best, self._best_cost = self._mean.copy(), np.full(problems, np.nan, np.float32)
        self._elite_cost = np.full(problems, np.nan, np.float32)
        self._initial_cost = np.full(problems, np.nan, np.float32)
        self._mean_cost = np.full(problems, np.nan, np.float32)
        self._mean_known = np.zeros(problems, bool)
        self._completed = 0

    def optimise(self) -> None:
        """Iterates until done or the deadline is near."""
        longest = 0.0  # seconds of an iteration
        for iteration in range(self._search._options["iterations"]):
            began = self._search._clock()
            if self._limited and self._too_late_for(longest):
                if iteration == 0:
                    self._search._pace.relax()
                return
            candidates = self._sample(iteration)
            cost = np.full(candidates.shape[:2], np.inf, np.float32)
            late = False
            try:
                self._evaluate(candidates, cost)
            except _Late:
                late = True
            if iteration == 0:
                self._initial_cost = cost[:, 0].copy()
            if late:
                self._keep_evaluated(candidates, cost, first=iteration == 0)
                return
            for problem in range(self._start.problems):
                self._refit(problem, candidates[problem], cost[problem])
            self._completed += 1
            longest = max(longest, self._search._clock() - began)

    def finish(self) -> Found:
        """The result: the mean, or what stands in for it."""
        has_mean = self._search._method in ("cem", "icem")
        if self._search._options["return_best"] and has_mean and self._completed:
            self._mean, self._mean_cost = self._best, self._best_cost
            self._mean_known[:] = True
        if not self._mean_known.all():
            cost = np.empty((self._start.problems, 1), np.float32)
            self._tile(self._mean[:, None], cost, 0, 1)
            self._mean_cost = np.where(self._mean_known, self._mean_cost, cost[:, 0])
        if self._limited:
            self._prefer_start()
        self._stand_in()
        return Found(
            self._mean, self._mean_cost, self._elite_cost, self._std, self._rank, iterations=self._completed
        )

    # ---- candidates -------------------------------------------------------------------------------------

    def _sample(self, iteration: int) -> Floats:
        """Candidates (B, N, E): mean + std * noise; candidate 0 is the mean, the next ones are kept elites."""
        ids = self._start.problem_ids
        noise = {int(i): self._noise(iteration, int(i)) for i in ([0] if ids is None else np.unique(ids))}
        candidates = np.empty((self._start.problems, self._search._samples, self._mean.shape[1]), np.float32)
        for problem in range(self._start.problems):
            white = noise[0 if ids is None else int(ids[problem])]
            spread = self._std[problem].astype(np.float64) * white + self._mean[problem]
            candidates[problem] = self._search._clip(spread.astype(np.float32))
        candidates[:, 0] = self._mean
        candidates[:, 1 : 1 + self._kept.shape[1]] = self._kept
        return candidates

    def _noise(self, iteration: int, problem_id: int) -> Floats:
        search = self._search
        noise = np.empty((search._samples, search._elements), np.float32)
        _core.normals(search._options["seed"], self._start.plan_index, iteration, problem_id, noise)
        noise = noise[:, search._held]
        if search._colour is None:
            return noise
        series = noise.reshape(-1, search._horizon, search._block_dim)
        return _coloured(series, search._colour).reshape(noise.shape)

    # ---- costs ------------------------------------------------------------------------------------------

    @property
    def _limited(self) -> bool:
        return self._start.deadline < math.inf

    def _too_late_for(self, seconds: float) -> bool:
        """Whether so much work and the final evaluation of the means would end after the deadline."""
        reserve = self._search._pace.seconds(1)
        return self._search._clock() + seconds + reserve >= self._start.began + self._start.deadline

    def _evaluate(self, candidates: Floats, cost: Floats) -> None:
        """Fills costs (B, N) of candidates (B, N, E), a tile at a time; raises _Late where the deadline interrupts."""
        pace, first = self._search._pace, 0
        while first < candidates.shape[1]:
            size = min(self._search._candidates_per_call, candidates.shape[1] - first)
            if not self._limited:
                self._tile(candidates, cost, first, size)
            else:
                size = min(size, pace.tile)
                if self._too_late_for(pace.seconds(size)):
                    raise _Late
                began = self._search._clock()
                self._tile(candidates, cost, first, size)
                pace.observe(self._search._clock() - began, size, self._start.deadline)
            first += size

    def _tile(self, candidates: Floats, cost: Floats, first: int, size: int) -> None:
        shape = (-1, size, self._search._horizon, self._search._block_dim)
        for problem in range(0, self._start.problems, self._search._problems_per_call):
            rows = slice(problem, min(problem + self._search._problems_per_call, self._start.problems))
            actions = candidates[rows, first : first + size].reshape(shape)
            cost[rows, first : first + size] = self._objective(rows, actions)

    # ---- refit ------------------------------------------------------------------------------------------

    def _refit(self, problem: int, candidates: Floats, cost: Floats) -> None:
        """The next distribution of one problem, from candidates (N, E) and costs (N,)."""
        search, options = self._search, self._search._options
        order = _select_elites(cost, search._elites)
        self._rank[problem] = -1
        self._rank[problem, : len(order)] = order
        needed = 1 if search._weighs_all else search._elites
        if len(order) < needed:
            raise _fewer_costs(problem, len(order), search._samples, needed)
        self._best[problem], self._best_cost[problem] = candidates[order[0]], cost[order[0]]
        if search._kept:
            if not self._kept.shape[1]:
                self._kept = np.empty((self._start.problems, search._kept, search._elements), np.float32)
            self._kept[problem] = candidates[order[: search._kept]]
        elites = np.sort(order)
        self._elite_cost[problem] = cost[elites].mean(dtype=np.float64)
        if search._method == "predictive_sampling":
            mean = candidates[order[0]]
        elif search._method == "mppi":
            mean = _softmax_mean(candidates[elites], cost[elites], options["temperature"])
        else:
            mean, std = _elite_normal(candidates[elites])
            keep = options["momentum"]
            mean = mean + keep * (self._mean[problem] - mean)
            std = std + keep * (self._std[problem] - std)
            self._std[problem] = np.maximum(std.astype(np.float32), np.float32(options["std_min"]))
        self._mean[problem] = search._clip(mean.astype(np.float32))
        self._mean_known[problem] = search._method == "predictive_sampling"
        self._mean_cost[problem] = cost[order[0]]

    # ---- what stands in for the mean ---------------------------------------------------------------------

    def _keep_evaluated(self, candidates: Floats, cost: Floats, first: bool) -> None:
        """After an iteration that came too late: the mean's cost may be known; in the first iteration the best
        candidate so far stands in for it."""
        for problem in np.flatnonzero(~self._mean_known):
            order = _select_elites(cost[problem, : None if first else 1], 1)
            if len(order):
                self._mean[problem] = candidates[problem, order[0]]
                self._mean_cost[problem] = cost[problem, order[0]]
                self._mean_known[problem] = True

    def _prefer_start(self) -> None:
        """With a deadline: the warm start where the plan is worse."""
        worse = np.isfinite(self._initial_cost) & ~(self._mean_cost <= self._initial_cost)
        self._mean[worse], self._mean_cost[worse] = self._initial[worse], self._initial_cost[worse]

    def _stand_in(self) -> None:
        """The best candidate where the mean has no finite cost."""
        lost = ~np.isfinite(self._mean_cost) & np.isfinite(self._best_cost)
        self._mean[lost], self._mean_cost[lost] = self._best[lost], self._best_cost[lost]
        for problem in np.flatnonzero(~np.isfinite(self._mean_cost)):
            raise Error(
                f"problem {problem}: neither the start nor a candidate evaluated in time has a finite cost"
            )


def _fewer_costs(problem: int, found: int, samples: int, needed: int) -> Error:
    return Error(
        f"problem {problem}: {found} of {samples} candidates have a finite cost, {needed} are needed"
    )


def _select_elites(cost: Floats, count: int) -> NDArray[np.intp]:
    """Indices of the ``count`` lowest finite costs, best first, ties to the lower index; fewer if fewer are finite."""
    finite = np.isfinite(cost)
    order = np.argsort(np.where(finite, cost, np.inf), kind="stable")
    return order[: min(count, int(finite.sum()))]


def _elite_normal(elites: Floats) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and unbiased standard deviation, (E,) each, of elites (K, E); the latter 0 for one elite."""
    mean = elites.mean(0, dtype=np.float64)
    if len(elites) == 1:
        return mean, np.zeros_like(mean)
    return mean, elites.std(0, ddof=1, dtype=np.float64)


def _softmax_mean(elites: Floats, cost: Floats, temperature: float) -> NDArray[np.float64]:
    """Mean of elites (K, E), weighed by softmax(-cost / temperature)."""
    cost64 = cost.astype(np.float64)
    weights = np.exp((cost64.min() - cost64) / temperature).astype(np.float32)
    mean: NDArray[np.float64] = weights.astype(np.float64) @ elites / weights.sum(dtype=np.float64)
    return mean


def _colouring(horizon: int, exponent: float) -> Floats:
    """(H, H) circular convolution whose spectrum is f^(-exponent / 2), the zero frequency like the lowest other one."""
    k = np.arange(horizon)
    frequency = np.maximum(1, np.minimum(k, horizon - k)) / horizon
    kernel = np.fft.ifft(frequency ** (-0.5 * exponent)).real.astype(np.float32)
    return kernel[(k[:, None] - k[None]) % horizon]


def _coloured(white: Floats, colour: Floats) -> Floats:
    """White noise (N, H, A) coloured over H; each series is divided by its own unbiased std, as in iCEM."""
    series = np.einsum("tu,nua->nta", colour, white, dtype=np.float64).astype(np.float32).astype(np.float64)
    spread: Floats = (series / np.maximum(series.std(1, ddof=1, keepdims=True), 1e-8)).astype(np.float32)
    return spread
