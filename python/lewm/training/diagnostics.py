"""Signs of collapse: how much the latents spread, and over how many directions."""

from __future__ import annotations

from torch import Tensor

from lewm.analysis import geometry

__all__ = ["effective_rank", "latent_diagnostics"]


def effective_rank(latents: Tensor) -> float:
    """Directions that latents (N, D) spread over: see `lewm.analysis.geometry.effective_rank`."""
    return geometry.effective_rank(latents.detach().float().cpu().numpy())


def latent_diagnostics(latents: Tensor) -> dict[str, float]:
    """latent_std_min, latent_std_mean (over the dimensions of latents (N, D)) and effective_rank.

    SIGReg pulls every dimension's standard deviation to 1; a collapsed dimension shows as a minimum near 0.
    """
    std = latents.float().std(dim=0)
    return {
        "latent_std_min": float(std.min()),
        "latent_std_mean": float(std.mean()),
        "effective_rank": effective_rank(latents),
    }
