"""A decoder for looking: latents back to pictures, trained after the fact and never part of the model.

Architecture of arXiv 2603.19312, section D: the latent, projected, is the key and value of cross-attention; one learned
query per 16x16 patch asks for its patch; residual MLPs; a linear layer to pixels.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

__all__ = ["Decoder", "train_decoder"]

_PATCH = 16  # pixels


class _Layer(nn.Module):
    """Pre-norm cross-attention from patch queries to the latent, then a residual MLP."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.query_norm = nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.mlp = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, queries: Tensor, latent: Tensor) -> Tensor:
        """queries: (n, patches, width); latent: (n, 1, width)."""
        queries = queries + self.attention(self.query_norm(queries), latent, latent, need_weights=False)[0]
        return queries + self.mlp(queries)


class Decoder(nn.Module):
    """Latents (n, D) -> frames (n, 3, image_size, image_size) in [0, 1].

    Args:
        latent_dim: D.
        image_size: side of the frames in pixels, a multiple of 16.
        width, depth, heads: of the cross-attention layers.

    Raises:
        ValueError: image_size is not a multiple of 16.
    """

    def __init__(
        self, latent_dim: int, image_size: int, width: int = 192, depth: int = 4, heads: int = 4
    ) -> None:
        super().__init__()
        if image_size % _PATCH:
            raise ValueError(f"image_size: expected a multiple of {_PATCH}, got {image_size}")
        self.side = image_size // _PATCH
        self.project = nn.Linear(latent_dim, width)
        self.queries = nn.Parameter(torch.randn(1, self.side**2, width) * 0.02)
        self.layers = nn.ModuleList(_Layer(width, heads) for _ in range(depth))
        self.to_pixels = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, _PATCH * _PATCH * 3))

    def forward(self, latents: Tensor) -> Tensor:
        """See the class."""
        latent = self.project(latents)[:, None]
        queries = self.queries.expand(len(latents), -1, -1)
        for layer in self.layers:
            queries = layer(queries, latent)
        patches = self.to_pixels(queries).view(len(latents), self.side, self.side, _PATCH, _PATCH, 3)
        side = self.side * _PATCH
        return patches.permute(0, 5, 1, 3, 2, 4).reshape(len(latents), 3, side, side)

    @torch.no_grad()
    def decode(self, latents: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Latents (n, D) float32 -> frames (n, H, W, 3) uint8."""
        pixels = self(torch.from_numpy(np.ascontiguousarray(latents))).clamp(0.0, 1.0)
        return (pixels.permute(0, 2, 3, 1) * 255.0).round().to(torch.uint8).numpy()


def train_decoder(
    latents: NDArray[np.float32],
    frames: NDArray[np.uint8],
    *,
    steps: int = 2000,
    batch: int = 64,
    lr: float = 1e-3,
    seed: int = 0,
    progress: Callable[[int, float], None] = lambda step, loss: None,
) -> Decoder:
    """A decoder fitted to pairs of latents (N, D) and frames (N, H, W, 3) uint8 by mean squared error.

    Args:
        progress: called after each step with its number and loss.

    Raises:
        ValueError: the arrays disagree in length.
    """
    if len(latents) != len(frames):
        raise ValueError(f"frames: expected {len(latents)} like latents, got {len(frames)}")
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        decoder = Decoder(latents.shape[1], frames.shape[1])
    optimizer = torch.optim.AdamW(decoder.parameters(), lr=lr)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=lr, total_steps=steps)
    inputs, targets = torch.from_numpy(latents), torch.from_numpy(frames)
    for step in range(steps):
        rows = torch.randint(len(inputs), (batch,), generator=generator)
        truth = targets[rows].permute(0, 3, 1, 2).float() / 255.0
        loss = nn.functional.mse_loss(decoder(inputs[rows]), truth)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
        progress(step + 1, float(loss.detach()))
    return decoder.eval()
