"""The published implementation on synthetic weights: needs the packages of benches/peers.txt."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from unittest import mock

import numpy as np
import torch
from gymnasium.spaces import Box
from numpy.typing import NDArray
from stable_worldmodel.policy import PlanConfig
from stable_worldmodel.solver import cem
from stable_worldmodel.wm.lewm import LeWM
from stable_worldmodel.wm.lewm.module import MLP, Embedder, Predictor
from transformers import ViTConfig, ViTModel

from lewm.checkpoint.names import to_transformers5
from lewm.config import LeWMConfig

MEAN = torch.tensor([0.485, 0.456, 0.406])
STD = torch.tensor([0.229, 0.224, 0.225])
_NORMS = {"batch": torch.nn.BatchNorm1d, "layer": torch.nn.LayerNorm, "none": None}


def build(config: LeWMConfig, state: Mapping[str, NDArray[Any] | torch.Tensor], dropout: float = 0.1) -> LeWM:
    """The published model of these sizes, in evaluation mode, holding these tensors."""
    encoder = ViTModel(
        ViTConfig(
            hidden_size=config.encoder_dim,
            num_hidden_layers=config.encoder_depth,
            num_attention_heads=config.encoder_heads,
            intermediate_size=config.encoder_mlp_dim,
            image_size=config.image_size,
            patch_size=config.patch_size,
        ),
        add_pooling_layer=False,
        use_mask_token=False,
    )
    predictor = Predictor(
        num_frames=config.history,
        depth=config.predictor_depth,
        heads=config.predictor_heads,
        dim_head=config.predictor_head_dim,
        mlp_dim=config.predictor_mlp_dim,
        input_dim=config.latent_dim,
        hidden_dim=config.predictor_dim,
        output_dim=config.predictor_output_dim,
        dropout=dropout,
    )
    action_encoder = Embedder(
        input_dim=config.block_dim,
        smoothed_dim=config.action_smoothed_dim,
        emb_dim=config.latent_dim,
        mlp_scale=config.action_mlp_scale,
    )
    norm = _NORMS[config.projector_norm]
    model = LeWM(
        encoder,
        predictor,
        action_encoder,
        _mlp(config.encoder_dim, config.projector_dim, config.latent_dim, norm),
        _mlp(config.predictor_output_dim, config.pred_proj_dim, config.latent_dim, norm),
    )
    names = model.state_dict().keys()
    since5 = any(name.startswith("encoder.layers.") for name in names)
    tensors = {
        to_transformers5(name) if since5 else name: torch.as_tensor(value) for name, value in state.items()
    }
    model.load_state_dict(tensors)
    return model.eval()


def _mlp(inputs: int, hidden: int, outputs: int, norm: Any) -> MLP | None:
    return MLP(inputs, hidden, outputs, norm_fn=norm) if hidden else None


def pixels(frames: NDArray[np.uint8]) -> torch.Tensor:
    """(n, 3, H, W) float32 of (n, H, W, 3) uint8, scaled and normalised as the published policy does."""
    scaled = torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255
    return (scaled - MEAN[:, None, None]) / STD[:, None, None]


@torch.inference_mode()
def encode(model: LeWM, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Latents (n, D) of frames."""
    return model.encode({"pixels": pixels(frames)[:, None]})["emb"][:, 0].numpy()


def info(
    latents: NDArray[np.float32], goal: NDArray[np.float32], samples: int | None
) -> dict[str, torch.Tensor]:
    """What get_cost (samples given) or a solver (None) is told: latents (B, C, D) and goals (B, D), encoded already."""
    problems, context = latents.shape[:2]
    values = {
        "pixels": torch.zeros(problems, context, 1),
        "goal": torch.zeros(problems, 1, 1),
        "action": torch.zeros(problems, context, 1),
        "emb": torch.from_numpy(latents),
        "goal_emb": torch.from_numpy(goal)[:, None],
    }
    if samples is None:
        return values
    return {key: value[:, None].expand(-1, samples, *value.shape[1:]) for key, value in values.items()}


@torch.inference_mode()
def rollout_and_cost(
    model: LeWM,
    latents: NDArray[np.float32],
    goal: NDArray[np.float32],
    actions: NDArray[np.float32],
    past: NDArray[np.float32],
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Predicted latents (B, S, H, D) and costs (B, S) of candidates (B, S, H, A) after past blocks (B, C - 1, A)."""
    samples, context = actions.shape[1], latents.shape[1]
    repeated = np.repeat(past[:, None], samples, axis=1)
    blocks = torch.from_numpy(np.concatenate([repeated, actions], axis=2))
    told = info(latents, goal, samples)
    cost = model.get_cost(told, blocks)
    return told["predicted_emb"][:, :, context:].numpy(), cost.numpy()


class Trace:
    """A solver callback that keeps what every iteration decided."""

    output_key = "trace"

    def __init__(self) -> None:
        self.history: list[dict[str, NDArray[Any]]] = []

    def reset(self) -> None: ...
    def start_batch(self) -> None: ...
    def end_solve(self) -> None: ...

    def __call__(self, *, costs: Any, topk_inds: Any, mean: Any, var: Any, **_: Any) -> None:
        values = {"costs": costs, "elites": topk_inds, "mean": mean, "std": var}
        self.history.append({name: value[0].numpy().copy() for name, value in values.items()})


@contextmanager
def injected_noise(noise: Callable[[int], NDArray[np.float32]]) -> Iterator[None]:
    """Makes the published solver draw ``noise(iteration)`` (1, N, H, A) instead of torch's."""
    iterations = itertools.count()

    def randn(*shape: int, **_: Any) -> torch.Tensor:
        drawn = torch.from_numpy(noise(next(iterations)))
        assert drawn.shape == shape
        return drawn

    class Torch:
        def __getattr__(self, name: str) -> Any:
            return randn if name == "randn" else getattr(torch, name)

    with mock.patch.object(cem, "torch", Torch()):
        yield


def solver(model: LeWM, config: LeWMConfig, horizon: int, **options: Any) -> cem.CEMSolver:
    """The published CEM solver for one environment."""
    solver = cem.CEMSolver(model, **options)
    space = Box(-1.0, 1.0, (1, config.action_dim), np.float32)
    plan = PlanConfig(horizon=horizon, receding_horizon=horizon, action_block=config.frame_skip)
    solver.configure(action_space=space, n_envs=1, config=plan)
    return solver


def solve(
    model: LeWM,
    config: LeWMConfig,
    latents: NDArray[np.float32],
    goal: NDArray[np.float32],
    noise: Callable[[int], NDArray[np.float32]],
    samples: int,
    elites: int,
    iterations: int,
    horizon: int,
) -> list[dict[str, NDArray[Any]]]:
    """Costs, elites, mean and std of every iteration of the published CEM from one context frame, on given noise."""
    trace = Trace()
    cem_solver = solver(
        model, config, horizon, num_samples=samples, topk=elites, n_steps=iterations, callbacks=[trace]
    )
    with injected_noise(noise):
        cem_solver.solve(info(latents, goal, None))
    return trace.history
