"""A drop-in solver for the published stack (``stable-worldmodel``): the same protocol, planned by the compiled core.

    from stable_worldmodel.policy import PlanConfig, WorldModelPolicy
    solver = lewm.swm.Solver("checkpoint_folder")  # instead of CEMSolver(model)
    policy = WorldModelPolicy(solver, PlanConfig(horizon=5, receding_horizon=5, action_block=5))

It serves the released package (0.1.1, ``stable_worldmodel.solver``), where one tensor holds the blocks of the context
frames and the candidates, and the newer layout (``stable_worldmodel.planning.solver``), where candidates lie
strictly in the future and ``info["action_history"]`` holds the executed blocks. With one context frame, which is all
that the released ``World`` ever shows, the two are the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import lewm

__all__ = ["Solver"]

Array = NDArray[np.float32]


class Solver:
    """Plans with a LeWM checkpoint behind the published Solver protocol.

    Args:
        model: a loaded model, or what `lewm.load` takes.
        num_samples, n_steps, topk, var_scale, seed: the published solver's names for samples, iterations, elites, the
            initial standard deviation (the published name says variance) and the seed. topk=None: 30, as published, or
            what `lewm.Planner` takes instead.
        method: any planner of lewm: "cem", "icem", "mppi", "predictive".
        batch_size: ignored, accepted so that the published configuration files fit: all problems are planned together.
        device, precision: as in `lewm.load`, when ``model`` is a path; a loaded model has its own.
        planner_options: further arguments of `lewm.Planner`, such as ``bounds`` or ``action_penalty``.
    """

    def __init__(
        self,
        model: lewm.Model | str | PathLike[str],
        batch_size: int | None = None,
        num_samples: int = 300,
        var_scale: float = 1.0,
        n_steps: int = 30,
        topk: int | None = None,
        device: str = "cpu",
        seed: int = 1234,
        *,
        method: str = "cem",
        precision: str = "auto",
        **planner_options: Any,
    ) -> None:
        self.model: lewm.Model = (
            lewm.load(model, precision=precision, device=device)
            if isinstance(model, (str, PathLike))
            else model
        )
        self._settings = dict(
            method=method,
            samples=num_samples,
            elites=topk,
            iterations=n_steps,
            std=var_scale,
            seed=seed,
            **planner_options,
        )
        self._planner: lewm.Planner | None = None
        self._n_envs = 0
        self.plans = 0

    # ---- the protocol -----------------------------------------------------------------------------------

    def configure(self, *, action_space: Any, n_envs: int, config: Any) -> None:
        """Takes the (vectorised) action space, the number of environments and the published ``PlanConfig``.

        Raises:
            ValueError: the block that they describe is not the model's.
        """
        block = int(np.prod(action_space.shape[1:])) * config.action_block
        if block != self.model.config.block_dim:
            raise ValueError(
                f"config: expected blocks of {self.model.config.block_dim} numbers (the model's), got "
                f"{config.action_block} actions of {tuple(action_space.shape[1:])}"
            )
        self._n_envs = n_envs
        self._planner = lewm.Planner(self.model, horizon=config.horizon, **self._settings)

    @property
    def n_envs(self) -> int:
        """Number of environments planned for; 0 before `configure`."""
        return self._n_envs

    @property
    def action_dim(self) -> int:
        """Width of an action block."""
        return self.model.config.block_dim

    @property
    def horizon(self) -> int:
        """Blocks in a plan; 0 before `configure`."""
        return 0 if self._planner is None else self._planner.horizon

    def __call__(
        self, info_dict: Mapping[str, Any], init_action: torch.Tensor | None = None
    ) -> dict[str, Any]:
        """See `solve`."""
        return self.solve(info_dict, init_action)

    def solve(self, info_dict: Mapping[str, Any], init_action: torch.Tensor | None = None) -> dict[str, Any]:
        """Plans for every row of ``info_dict``.

        Args:
            info_dict: ``pixels`` (n, C, ...) and ``goal`` (n, T, ...) as the policy prepares them: normalised float,
                channels first, or uint8, channels last; ``action_history`` (n, C - 1, A) when C > 1.
            init_action: (n, t, A) standardised blocks to start from, t <= horizon; the rest starts at zero.

        Returns:
            ``actions`` (n, horizon, A) float32; ``costs``, the mean cost of the last elites, one float a row;
            ``mean`` and ``var``, lists of one (n, horizon, A) tensor: the last mean and standard deviation.
        """
        if self._planner is None:
            raise RuntimeError("solve: configure the solver first, or hand it to a policy and call set_env")
        latents, goal, past = self._observe(info_dict)
        if latents.shape[1] > 1 and past is None:
            raise ValueError(
                "info_dict: expected 'action_history' with the executed blocks beside several context frames"
            )
        warm_start = None if init_action is None else np.asarray(_array(init_action), np.float32)
        plan = self._planner.plan_latents(
            latents, goal, past_actions=past, warm_start=warm_start, plan_index=self.plans
        )
        self.plans += 1  # every plan draws noise of its own, as the published solver's generator does
        actions = torch.from_numpy(plan.actions)
        return {
            "actions": actions,
            "costs": plan.elite_cost.tolist(),
            "mean": [actions.clone()],
            "var": [torch.from_numpy(plan.std)],
        }

    # ---- costs, as the published model gives them -------------------------------------------------------

    def get_cost(self, info_dict: Mapping[str, Any], action_candidates: torch.Tensor) -> torch.Tensor:
        """Costs (n, S) of given candidates, as the published ``get_cost`` has them.

        Args:
            info_dict: as in `solve`, each array with a candidate axis after the first as the solvers expand it,
                (n, S, C, ...); all candidates share the first one's context.
            action_candidates: (n, S, T, A). Without ``action_history`` the first C - 1 blocks are those between the
                context frames (released layout); with it all of them lie in the future (newer layout).
        """
        context = {
            key: value[:, 0] for key, value in info_dict.items() if hasattr(value, "ndim") and value.ndim > 1
        }
        latents, goal, past = self._observe(context)
        candidates = np.ascontiguousarray(_array(action_candidates), dtype=np.float32)
        frames = latents.shape[1]
        if past is not None or frames == 1:
            return torch.from_numpy(self.model.cost(latents, goal, candidates, past_actions=past))
        # Released layout: every candidate has past blocks of its own, so each is a problem of its own.
        n, samples = candidates.shape[:2]
        flat = candidates.reshape(n * samples, 1, *candidates.shape[2:])
        cost = self.model.cost(
            np.repeat(latents, samples, axis=0),
            np.repeat(goal, samples, axis=0),
            flat[:, :, frames - 1 :],
            past_actions=flat[:, 0, : frames - 1],
        )
        return torch.from_numpy(cost.reshape(n, samples))

    # ---- inside -----------------------------------------------------------------------------------------

    def _observe(self, info: Mapping[str, Any]) -> tuple[Array, Array, Array | None]:
        """Latents (n, C, D), goal latents (n, D) and executed blocks (n, C - 1, A) or None."""
        for key in ("pixels", "goal"):
            if key not in info:
                raise ValueError(f"info_dict: expected {key!r}, got {sorted(info)}")
        latents = self._encode("pixels", info["pixels"])
        goal = self._encode("goal", info["goal"])[:, -1]
        history = info.get("action_history")
        past = None if history is None or latents.shape[1] == 1 else np.asarray(_array(history), np.float32)
        return latents, goal, past

    def _encode(self, name: str, frames: Any) -> Array:
        """(n, C, ...) frames -> (n, C, D) latents."""
        array = _array(frames)
        if array.ndim != 5:
            raise ValueError(f"{name}: expected (n, frames, ...) images, got {array.shape}")
        flat = array.reshape(-1, *array.shape[2:])
        if flat.dtype != np.uint8:
            flat = flat.astype(np.float32, copy=False)
        return self.model.encode(flat).reshape(*array.shape[:2], -1)


def _array(values: Any) -> Array:
    """A tensor of any device, followed by autograd or not, or an array."""
    return values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)
