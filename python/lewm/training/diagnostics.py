"""Signs of collapse: how much the latents spread, and over how many directions."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["effective_rank", "latent_diagnostics"]


def effective_rank(latents: Tensor) -> float:
    """Directions that latents (N, D) spread over: exp of the entropy of their normalised singular values, once centred.

    Between 1 (all on a line; also when all are equal) and min(N - 1, D). Source: Roy and Vetterli, "The effective
    rank", EUSIPCO 2007.
    """
    centred = latents.double() - latents.double().mean(0)
    spectrum = torch.linalg.svdvals(centred)
    total = spectrum.sum()
    if total <= 0:
        return 1.0
    share = spectrum / total
    return float(torch.exp(-(share * share.clamp_min(1e-30).log()).sum()))


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
