"""Goal-conditioned behaviour cloning: the baseline that imitates the recorded actions instead of predicting."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lewm.config import LeWMConfig
from lewm.nn.image_encoder import ImageEncoder, make_projector

__all__ = ["Cloner"]


class Cloner(ImageEncoder):
    """The action block that leads from an image towards a goal's image: LeWM's encoder and an MLP over both latents.

    It is trained to repeat, in the mean square, the block that the data's policy executed in the first frame of a
    window, for every later frame of the window as the goal.

    Args:
        config: sizes of the encoder, the projector and, as ``predictor_mlp_dim``, the hidden layers.
        kwargs: as for `lewm.LeWM`.
    """

    def __init__(self, config: LeWMConfig, **kwargs: Any):
        super().__init__(config, **kwargs)
        hidden = config.predictor_mlp_dim
        self.projector = make_projector(
            self.encoder_dim, config.projector_dim, config.latent_dim, config.projector_norm
        )
        self.head = nn.Sequential(
            nn.Linear(2 * config.latent_dim, hidden),
            nn.GELU(),
            nn.Linear(hidden, hidden),
            nn.GELU(),
            nn.Linear(hidden, config.block_dim),
        )

    @property
    def not_exportable(self) -> str:
        """Why `lewm.save` refuses this model."""
        return "model: expected a world model, got a behaviour-cloning policy, which these files do not hold"

    def act(self, latents: Tensor, goals: Tensor) -> Tensor:
        """Standardised action blocks (N, A) float32 for latents and goals (N, D)."""
        blocks: Tensor = self.head(torch.cat([latents, goals], dim=1))
        return blocks.float()

    def loss(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Mean squared error of the cloned blocks over all pairs of a frame and a later one of its window.

        batch: "pixels" (B, T, H, W, 3) uint8, T >= 2; "action" (B, T, A) standardised, block t leaves frame t.
        Returns "loss", a scalar, and "latents", (B, T, D) detached.
        """
        pixels, actions = batch["pixels"], batch["action"]
        if pixels.shape[1] < 2 or actions.shape[:2] != pixels.shape[:2]:
            raise ValueError(
                f"batch: expected windows of at least 2 frames and as many blocks, got {tuple(pixels.shape[:2])} and "
                f"{tuple(actions.shape[:2])}"
            )
        latents = self.encode(pixels)
        frame, goal = torch.triu_indices(pixels.shape[1], pixels.shape[1], offset=1, device=pixels.device)
        blocks = self.act(latents[:, frame].flatten(0, 1), latents[:, goal].flatten(0, 1))
        return {"loss": F.mse_loss(blocks, actions[:, frame].flatten(0, 1)), "latents": latents.detach()}

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """`loss(batch)`: what DistributedDataParallel wraps."""
        return self.loss(batch)
