"""Models, frames and actions made from counters: the same numbers in every process, environment and numpy version.

Only the raw 64-bit stream of Philox is used, which numpy keeps fixed, so that golden files need no weights beside them.
"""

from __future__ import annotations

import hashlib
import math

import numpy as np
from numpy.typing import NDArray

from lewm.checkpoint.names import expected_shapes
from lewm.config import LeWMConfig

_SMALL = LeWMConfig(
    image_size=64,
    patch_size=16,
    encoder_dim=128,
    encoder_depth=4,
    encoder_heads=4,
    encoder_mlp_dim=512,
    latent_dim=128,
    projector_dim=256,
    pred_proj_dim=256,
    predictor_depth=3,
    predictor_heads=4,
    predictor_head_dim=32,
    predictor_mlp_dim=256,
    predictor_dim=128,
    predictor_output_dim=128,
)

TINY = LeWMConfig(
    image_size=32,
    patch_size=8,
    encoder_dim=16,
    encoder_depth=1,
    encoder_heads=2,
    encoder_mlp_dim=32,
    latent_dim=16,
    projector_dim=32,
    pred_proj_dim=32,
    predictor_depth=1,
    predictor_heads=2,
    predictor_head_dim=8,
    predictor_mlp_dim=32,
    predictor_dim=16,
    predictor_output_dim=16,
)
"""For tests in which a model has to run and need not know anything."""


def small(**changes: object) -> LeWMConfig:
    """The small configuration of the tests, with changes."""
    return LeWMConfig(**{**_SMALL.__dict__, **changes})


CASES = {
    "published": LeWMConfig(),
    "history1": LeWMConfig(history=1),
    "small": small(),
    "action25": LeWMConfig(action_dim=5),
    "widths": small(
        latent_dim=112,
        predictor_dim=96,
        predictor_output_dim=80,
        predictor_heads=3,
        projector_norm="layer",
        history=4,
    ),
    "one_head": small(
        predictor_heads=1, predictor_head_dim=128, projector_dim=0, pred_proj_dim=0, action_mlp_scale=2
    ),
}


def uniform(seed: int, name: str, shape: tuple[int, ...], std: float = 1.0) -> NDArray[np.float32]:
    """Uniform numbers of mean 0 and this standard deviation, decided by seed, name and position alone."""
    key = int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:16], "little")
    bits = np.random.Philox(key=key).random_raw(math.prod(shape)).reshape(shape)
    unit = (bits >> np.uint64(40)).astype(np.float64) / 2**24 - 0.5  # [-1/2, 1/2)
    return (unit * (std * math.sqrt(12))).astype(np.float32)


def state(config: LeWMConfig, seed: int = 0) -> dict[str, NDArray[np.float32]]:
    """Tensors of a model, under the names lewm writes: no bias is zero, no normalisation is trivial."""
    return {name: _tensor(seed, name, shape) for name, shape in expected_shapes(config).items()}


def _tensor(seed: int, name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    if name.endswith("num_batches_tracked"):
        return np.array(1000, np.int64)  # type: ignore[return-value]
    if name.endswith("running_var"):
        return 1.0 + uniform(seed, name, shape, 0.3)
    if name.endswith("running_mean"):
        return uniform(seed, name, shape, 0.3)
    if "adaLN" in name:
        return uniform(seed, name, shape, 0.5 if name.endswith("bias") else 0.5 / math.sqrt(shape[-1]))
    if len(shape) == 1:
        norm = name.endswith("weight")
        return (1.0 if norm else 0.0) + uniform(seed, name, shape, 0.2)
    if ("embeddings" in name and len(shape) == 3) or name.endswith("pos_embedding"):
        return uniform(seed, name, shape, 0.5)
    return uniform(seed, name, shape, 1 / math.sqrt(math.prod(shape[1:])))


def frames(seed: int, n: int, size: int) -> NDArray[np.uint8]:
    """(n, size, size, 3) uint8 images: coarse blocks of colour under fine noise."""
    coarse = 128 + uniform(seed, "coarse", (n, 4, 4, 3), 60.0)
    smooth = np.kron(coarse, np.ones((1, -(-size // 4), -(-size // 4), 1), np.float32))[:, :size, :size]
    return np.clip(smooth + uniform(seed, "fine", (n, size, size, 3), 20.0), 0, 255).astype(np.uint8)
