"""What benches/gpu.py times: lewm, and the same work by torch and by the published implementation on the same GPU.

Every function returns contenders: name -> a call that does the work once. Those of the published implementation need
the packages of benches/peers.txt; where they are missing, `published_missing` says so and they are left out.
"""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests" / "python"), str(ROOT / "tests" / "golden")]

import numpy as np  # noqa: E402
import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from torch import nn  # noqa: E402

import lewm  # noqa: E402
import synthetic  # noqa: E402
from lewm.config import LeWMConfig  # noqa: E402

Contenders = dict[str, Callable[[], Any]]
LAMBDA, CLIP, DROPOUT = 0.09, 1.0, 0.1
KINDS = ("fp32", "bf16", "compiled")
"""The published encoder and planner: as they ship, under autocast, and that compiled."""


def published_missing() -> str:
    """Why the published implementation cannot be compared with; empty when it can."""
    try:
        import published_model  # noqa: F401
    except ImportError as error:
        return f"{error.name or error} (pip install -r benches/peers.txt)"
    return ""


def encoders(model: lewm.Model, config: LeWMConfig, device: str, n: int, published: bool) -> Contenders:
    """Frames to latents: from the host's memory and, on a GPU, from its own."""
    frames = synthetic.frames(0, n, config.image_size)
    found: Contenders = {f"encode {n}: lewm": lambda: model.encode(frames)}
    if device == "cuda":
        there = torch.from_numpy(frames).to(device)
        found[f"encode {n}: lewm, frames on the GPU"] = lambda: model.encode(there)
    if published:
        for kind in KINDS:
            found[f"encode {n}: published {kind}"] = _published_encoder(kind, config, device, frames)
    return found


def _published_encoder(kind: str, config: LeWMConfig, device: str, frames: Any) -> Callable[[], Any]:
    import published_model

    model = published_model.build(config, synthetic.state(config)).to(device)
    pixels = published_model.pixels(frames).to(device)[:, None]
    encode = torch.compile(model.encode) if kind == "compiled" else model.encode

    @torch.no_grad()
    def call() -> None:
        with torch.autocast(device, torch.bfloat16, enabled=kind != "fp32"):
            encode({"pixels": pixels})

    return call


def planners(
    model: lewm.Model, config: LeWMConfig, device: str, problems: int, sizes: dict[str, int], published: bool
) -> Contenders:
    """Plans from one context latent, for a batch of problems; sizes: samples, elites, iterations, horizon."""
    rng = np.random.default_rng(0)
    latents = rng.standard_normal((problems, 1, config.latent_dim), np.float32)
    goals = rng.standard_normal((problems, config.latent_dim), np.float32)
    ours = lewm.Planner(model, **sizes)
    plain = lewm.Planner(model, backend="torch", device=device, **sizes)
    found: Contenders = {f"plan {problems}: lewm": lambda: ours.plan_latents(latents, goals)}
    if device == "cuda":
        there = torch.from_numpy(latents).to(device), torch.from_numpy(goals).to(device)
        found[f"plan {problems}: lewm, arrays on the GPU"] = lambda: ours.plan_latents(*there)
    found[f"plan {problems}: lewm's planner in torch"] = lambda: plain.plan_latents(latents, goals)
    if published:
        for kind in KINDS:
            found[f"plan {problems}: published {kind}"] = _published_planner(
                kind, config, device, latents, goals, sizes
            )
    return found


def _published_planner(
    kind: str, config: LeWMConfig, device: str, latents: Any, goals: Any, sizes: dict[str, int]
) -> Callable[[], Any]:
    import published_model
    from gymnasium.spaces import Box
    from stable_worldmodel.policy import PlanConfig
    from stable_worldmodel.solver import cem

    model = published_model.build(config, synthetic.state(config)).to(device)
    if kind == "compiled":
        model.predictor = torch.compile(model.predictor)
    problems, horizon = len(latents), sizes["horizon"]
    solver = cem.CEMSolver(
        model,
        batch_size=problems,
        device=device,
        num_samples=sizes["samples"],
        topk=sizes["elites"],
        n_steps=sizes["iterations"],
    )
    plan = PlanConfig(horizon=horizon, receding_horizon=horizon, action_block=config.frame_skip)
    space = Box(-1.0, 1.0, (problems, config.action_dim), np.float32)
    solver.configure(action_space=space, n_envs=problems, config=plan)

    @torch.no_grad()
    def call() -> None:
        told = published_model.info(latents, goals, None)
        autocast = torch.autocast(device, torch.bfloat16, enabled=kind != "fp32")
        with autocast, contextlib.redirect_stdout(io.StringIO()):
            solver.solve(told)

    return call


def sigregs(device: str, shape: tuple[int, int, int], num_proj: int, published: bool) -> Contenders:
    """Value and gradient of SIGReg of z (T, B, D)."""
    from lewm.nn import sigreg_plain

    z = torch.randn(*shape, device=device, requires_grad=True)
    u = sigreg_plain.directions(torch.tensor(0), shape[2], num_proj, z.device, torch.float32)
    name = f"sigreg {shape[0]}x{shape[1]}x{shape[2]}"

    def plain() -> None:
        sums = sigreg_plain.characteristic_sums(z.detach(), u, 17, 3.0)
        sigreg_plain.gradient(z.detach(), u, sums, shape[1], 3.0)

    found: Contenders = {
        f"{name}: lewm": lambda: lewm.sigreg(z, directions=u).backward(),
        f"{name}: lewm's formulas in torch": plain,
    }
    if published:
        from stable_worldmodel.wm.loss import SIGReg

        eager = SIGReg(17, num_proj).to(device)
        found[f"{name}: published"] = lambda: eager(z).backward()
        compiled = torch.compile(eager)
        found[f"{name}: published compiled"] = lambda: compiled(z).backward()
    return found


def training_steps(config: LeWMConfig, device: str, windows: int, published: bool) -> Contenders:
    """Training steps in bf16 autocast on windows of history + 1 frames: ours from uint8 frames, the published one from
    normalised floats, as its loader delivers them."""
    frames = config.history + 1
    pixels = torch.randint(
        0, 256, (windows, frames, config.image_size, config.image_size, 3), dtype=torch.uint8, device=device
    )
    actions = torch.randn(windows, frames, config.block_dim, device=device)
    found: Contenders = {f"training step {windows}: lewm": _our_step(config, device, pixels, actions)}
    if published:
        found[f"training step {windows}: published"] = _published_step(config, device, pixels, actions)
    return found


def _tensors(config: LeWMConfig) -> dict[str, torch.Tensor]:
    return {name: torch.as_tensor(value) for name, value in synthetic.state(config).items()}


def _our_step(config: LeWMConfig, device: str, pixels: Any, actions: Any) -> Callable[[], Any]:
    from lewm.training.optim import make_optimizer

    model = lewm.LeWM(config, DROPOUT)
    model.load_state_dict(_tensors(config))
    model = model.to(device)
    optimizer = make_optimizer(model.parameters(), 5e-5, 1e-3)
    batch = {"pixels": pixels, "action": actions}

    def step() -> None:
        with torch.autocast(device, torch.bfloat16):
            out = model(batch, LAMBDA, seed=0)
        out["loss"].backward()
        nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        optimizer.zero_grad()

    return step


def _published_step(config: LeWMConfig, device: str, pixels: Any, actions: Any) -> Callable[[], Any]:
    import published_model
    from stable_worldmodel.wm.loss import SIGReg

    model = published_model.build(config, synthetic.state(config), DROPOUT).to(device).train()
    regulariser = SIGReg(17, 1024).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-5, weight_decay=1e-3)
    mean, std = published_model.MEAN.to(device), published_model.STD.to(device)
    floats = ((pixels / 255 - mean) / std).movedim(-1, -3).contiguous()

    def step() -> None:
        with torch.autocast(device, torch.bfloat16):
            info = model.encode({"pixels": floats, "action": actions})
            latents, blocks = info["emb"], info["act_emb"]
            predicted = model.predict(latents[:, :-1], blocks[:, :-1])
            loss = F.mse_loss(predicted, latents[:, 1:])
            loss = loss + LAMBDA * regulariser(latents.float().transpose(0, 1))
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        optimizer.zero_grad()

    return step
