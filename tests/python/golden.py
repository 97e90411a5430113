"""What the golden files were asked: inputs of every case, and the files themselves."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import synthetic
from lewm.config import LeWMConfig

FOLDER = Path(__file__).resolve().parent.parent / "golden"
PROBLEMS, SAMPLES, HORIZON = 2, 3, 5
_SEED = 7


@dataclass(frozen=True)
class Cem:
    """A search whose every iteration is recorded."""

    samples: int
    elites: int
    iterations: int
    horizon: int
    seed: int

    def sizes(self) -> dict[str, int]:
        """All but the seed."""
        return {name: value for name, value in asdict(self).items() if name != "seed"}


CEM = {
    "published": Cem(300, 30, iterations=3, horizon=5, seed=11),
    "small": Cem(300, 30, iterations=8, horizon=5, seed=12),
    "widths": Cem(100, 10, iterations=4, horizon=6, seed=13),
}
CEM_GAP = 2e-5  # least relative distance of the last elite's cost to the next: closer, rounding could decide


def frames(config: LeWMConfig) -> NDArray[np.uint8]:
    """(2, H, W, 3)."""
    return synthetic.frames(_SEED, 2, config.image_size)


def contexts(config: LeWMConfig) -> list[int]:
    """Numbers of context frames that are tried: one, and as many as the predictor sees."""
    return sorted({1, config.history})


def problem(config: LeWMConfig, context: int) -> tuple[NDArray[np.float32], ...]:
    """Latents (B, C, D), goals (B, D), actions (B, S, H, A) and past blocks (B, C - 1, A)."""
    d, a = config.latent_dim, config.block_dim
    return (
        synthetic.uniform(_SEED, f"latents {context}", (PROBLEMS, context, d)),
        synthetic.uniform(_SEED, "goal", (PROBLEMS, d)),
        synthetic.uniform(_SEED, "actions", (PROBLEMS, SAMPLES, HORIZON, a)),
        synthetic.uniform(_SEED, "past", (PROBLEMS, context - 1, a)),
    )


def cem_noise(config: LeWMConfig, cem: Cem, iteration: int) -> NDArray[np.float32]:
    """The planner's noise (1, N, H, A) of one iteration of plan 0, problem 0."""
    from lewm import _core

    noise = np.empty((cem.samples, cem.horizon * config.block_dim), np.float32)
    _core.normals(cem.seed, 0, iteration, 0, noise)
    return noise.reshape(1, cem.samples, cem.horizon, config.block_dim)


def load(case: str) -> dict[str, NDArray[np.float32]]:
    """A case's golden results."""
    with np.load(FOLDER / f"{case}.npz") as file:
        return dict(file)
