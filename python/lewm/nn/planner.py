"""Planning in torch, on any device that torch has: the fallback and the oracle of the compiled planner.

``lewm.Planner(backend="torch")`` uses this module in place of ``lewm._core``: `Planner`, `Request` and `Result` have
the core's names and arguments. Encoding, rollouts and costs run in torch; the search around them (`lewm.nn.search`) is
a few thousand additions an iteration and stays on the host, on the compiled planner's own noise.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lewm import _core
from lewm.build import choose_precision
from lewm.checkpoint.contents import Checkpoint
from lewm.config import LeWMConfig
from lewm.errors import Error
from lewm.nn.model import LeWM
from lewm.nn.search import Found, Search, Start

__all__ = ["Network", "Planner", "Request", "Result"]

Floats = NDArray[np.float32]
CostFunction = Callable[[Floats, Floats, Floats], Any]

_CANDIDATES_PER_CALL = 1024
_ROWS_PER_CALL = 8192  # candidates of several problems at once, on devices that gain from it
_FRAMES_PER_CALL = 64


@dataclass(frozen=True)
class Request:
    """What surrounds a plan's images or latents; the fields of ``_core.Request``."""

    past: Floats | None
    warm_start: Floats | None
    problem_ids: NDArray[np.uint32] | None
    plan_index: int
    deadline: float


@dataclass(frozen=True)
class Result:
    """Arrays that a plan fills; the fields of ``_core.Result``."""

    actions: Floats
    cost: Floats
    elite_cost: Floats
    std: Floats
    elites: NDArray[np.int32] | None


class Network:
    """A model's torch twin on a device.

    Args:
        checkpoint: its tensors and sizes.
        precision: "fp32"; "bf16" and "int8" run under bfloat16 autocast, but for "int8" on a CPU whose "auto" is int8:
            torch has no fast bfloat16 there.
        device: a torch device; None: the first accelerator that torch has, else the CPU.

    Raises:
        lewm.Error: torch does not have the device.
    """

    def __init__(self, checkpoint: Checkpoint, precision: str, device: str | None) -> None:
        self.device = _device(device)
        try:
            self.model = LeWM.from_checkpoint(checkpoint).to(self.device)
        except (RuntimeError, AssertionError) as error:  # torch built without CUDA asserts
            raise Error(f"device: torch cannot use {device!r} here: {error}") from None
        cpu_int8 = self.device.type == "cpu" and choose_precision("auto")[0] == "int8"
        self._autocast = precision == "bf16" or (precision == "int8" and not cpu_int8)

    @property
    def config(self) -> LeWMConfig:
        """Sizes of the model."""
        return self.model.config

    def autocast(self) -> torch.autocast:
        """The context in which the model computes."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self._autocast)

    def tensor(self, array: NDArray[Any]) -> Tensor:
        """An array on the device."""
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device)


def _device(name: str | None) -> torch.device:
    if name is not None:
        try:
            device = torch.device(name)
        except RuntimeError:
            device = torch.device("meta")
        if device.type == "meta":  # which computes nothing
            raise ValueError(f"device: expected a torch device such as 'cuda' or 'cpu', got {name!r}")
        return device
    backends = {"cuda": torch.cuda, "mps": torch.backends.mps, "xpu": getattr(torch, "xpu", None)}
    return torch.device(next((n for n, b in backends.items() if b is not None and b.is_available()), "cpu"))


class Planner:
    """The planner of ``lewm._core`` in torch. A problem's plan does not depend on its batch where torch computes on the
    CPU; elsewhere problems share calls, whose rounding may depend on their size."""

    def __init__(
        self,
        network: Network,
        method: str,
        options: dict[str, Any],
        low: list[float] | None,
        high: list[float] | None,
        cost_mode: str,
        cost: CostFunction | None,
    ) -> None:
        self.network, self._cost, self._cost_mode = network, cost, cost_mode
        self._options = options
        samples = min(options["samples"], _CANDIDATES_PER_CALL)
        together = network.device.type != "cpu" and cost is None
        problems = max(1, _ROWS_PER_CALL // samples) if together else 1
        sizes = network.config.block_dim, network.config.action_dim
        self._search = Search(method, options, *sizes, low, high, problems, samples)
        self._lock = threading.Lock()
        self._in_cost: int | None = None  # the thread that is inside the user's cost

    @classmethod
    def create(
        cls,
        model: Network,
        method: str,
        options: dict[str, Any],
        cost: CostFunction | None,
        threads: int,
    ) -> Planner:
        """See ``_core.Planner.create``; torch's own setting of threads counts, ``threads`` does not."""
        config = model.config
        checked = _core.planner_options(method, options, config.block_dim, config.action_dim)
        low, high = options.get("low"), options.get("high")
        return cls(model, method, checked, low, high, options.get("cost_mode", "final"), cost)

    @property
    def options(self) -> dict[str, Any]:
        """The numeric options in effect."""
        return dict(self._options)

    @property
    def threads(self) -> int:
        """Threads of torch."""
        return torch.get_num_threads()

    def plan_frames(
        self, frame: NDArray[Any], goal: NDArray[Any], request: Request, out: Result
    ) -> tuple[int, float]:
        """Fills ``out``; returns the completed iterations and the seconds. frame: (B, C, ...), goal: (B, ...)."""
        began = time.perf_counter()
        with self._alone():
            latents = self._encode(frame.reshape(-1, *frame.shape[2:])).view(*frame.shape[:2], -1)
            return self._plan(latents, self._encode(goal), request, out, began)

    def plan_latents(self, latents: Floats, goal: Floats, request: Request, out: Result) -> tuple[int, float]:
        """The same from latents (B, C, D) and goals (B, D)."""
        began = time.perf_counter()
        with self._alone():
            start, end = self.network.tensor(latents), self.network.tensor(goal)
            return self._plan(start, end, request, out, began)

    def encode(self, frames: NDArray[Any]) -> Floats:
        """Latents (n, D) of frames (n, ...)."""
        with self._alone():
            latents: Floats = self._encode(frames).cpu().numpy()
        return latents

    def evaluate(self, latents: Floats, goal: Floats, actions: Floats, request: Request, out: Floats) -> None:
        """Costs (B, S) of given candidates (B, S, H, A)."""
        with self._alone():
            costs = self._costs(self.network.tensor(latents), self.network.tensor(goal), request.past)
            for problem in range(len(actions)):
                rows = slice(problem, problem + 1)
                for first in range(0, actions.shape[1], _CANDIDATES_PER_CALL):
                    part = slice(first, first + _CANDIDATES_PER_CALL)
                    out[rows, part] = costs(rows, actions[rows, part])

    @contextmanager
    def _alone(self) -> Iterator[None]:
        if self._in_cost == threading.get_ident():
            raise ValueError("cost: the function uses the planner that calls it")
        with self._lock, torch.inference_mode():
            yield

    def _encode(self, frames: NDArray[Any]) -> Tensor:
        """Latents (n, D) of frames (n, ...); on the CPU one by one, so that none depends on the others."""
        size = 1 if self.network.device.type == "cpu" else _FRAMES_PER_CALL
        parts = self.network.tensor(frames).split(size)
        with self.network.autocast():
            return torch.cat([self.network.model.encode(part) for part in parts])

    def _plan(
        self, latents: Tensor, goal: Tensor, request: Request, out: Result, began: float
    ) -> tuple[int, float]:
        start = Start(
            problems=len(latents),
            warm_start=request.warm_start,
            problem_ids=request.problem_ids,
            plan_index=request.plan_index,
            deadline=request.deadline,
            began=began,
        )
        found: Found = self._search.run(self._costs(latents, goal, request.past), start)
        out.actions[:] = found.actions.reshape(out.actions.shape)
        out.std[:] = found.std.reshape(out.std.shape)
        out.cost[:], out.elite_cost[:] = found.cost, found.elite_cost
        if out.elites is not None:
            out.elites[:] = found.elites
        return found.iterations, time.perf_counter() - began

    def _costs(self, latents: Tensor, goal: Tensor, past: Floats | None) -> Callable[[slice, Floats], Floats]:
        """The objective of problems with these latents (B, C, D), goals (B, D) and past blocks (B, C - 1, A)."""
        executed = None if past is None else self.network.tensor(past)

        def costs(rows: slice, actions: Floats) -> Floats:
            candidates = self.network.tensor(actions)
            with self.network.autocast():
                predicted = self.network.model.rollout(
                    latents[rows], candidates, None if executed is None else executed[rows]
                )
            if self._cost is None:
                values = self._distances(predicted, goal[rows]).cpu().numpy()
            else:
                seen = predicted[0].cpu().numpy(), actions[0], goal[rows][0].cpu().numpy()
                self._in_cost = threading.get_ident()
                try:
                    values = self._cost(*seen)[None]
                finally:
                    self._in_cost = None
            penalty = self._options["action_penalty"]
            return values + penalty * np.square(actions).sum((2, 3)) if penalty else values

        return costs

    def _distances(self, predicted: Tensor, goal: Tensor) -> Tensor:
        """Costs (b, n) of predicted latents (b, n, H, D): squared distances to goals (b, D), over steps as asked."""
        if self._cost_mode == "final":
            return (predicted[:, :, -1] - goal[:, None]).square().sum(-1)
        by_step = (predicted - goal[:, None, None]).square().sum(-1)  # (b, n, H)
        discount = self._options["discount"] if self._cost_mode == "discounted" else 1.0
        weights = discount ** torch.arange(by_step.shape[2], device=by_step.device)
        return (by_step * weights).sum(-1)
