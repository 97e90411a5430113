"""What keeps the latents from collapsing: the regularisers that the prediction loss is trained with.

lewm    SIGReg (arXiv 2603.19312), `lewm.nn.sigreg`
pldm    variance, covariance and temporal terms in the manner of VICReg (arXiv 2105.04906, 2502.14819)
none    nothing: the prediction loss alone, whose best answer is a constant latent
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.nn as differentiable_dist
import torch.nn.functional as F
from torch import Tensor

__all__ = ["OBJECTIVES", "PLDM_WEIGHTS", "pldm_terms"]

OBJECTIVES = ("lewm", "pldm", "none")

PLDM_WEIGHTS = {
    "variance_loss": 18.0,
    "covariance_loss": 12.0,
    "similarity_loss": 0.2,
    "time_variance_loss": 0.7,
}
"""Coefficients of PLDM's terms in LeWM's comparison (arXiv 2603.19312, appendix C), where those of covariance over time
and of inverse dynamics are 0."""

_EPS = 1e-4


def pldm_terms(latents: Tensor, group: Any = None) -> dict[str, Tensor]:
    """PLDM's terms, unweighted: the keys of `PLDM_WEIGHTS`, scalars in float32 (float64 for float64 latents).

    With z the latents less their mean over the batch at each time step, and variances and covariances unbiased:

        variance_loss       mean over t and d of max(0, 1 - sqrt(Var_b z + eps))
        covariance_loss     mean over t of the squares off the diagonal of Cov_b z, averaged over its D^2 - D entries
        similarity_loss     mean over b, t and d of (latents_{t+1} - latents_t)^2
        time_variance_loss  mean over b and d of max(0, 1 - sqrt(Var_t z + eps))

    Args:
        latents: (B, T, D) of B >= 2 windows (over all ranks of ``group``), T >= 2, D >= 2.
        group: ranks that hold equal parts of the batch; the terms are those of the whole of it, on every rank, and
            their gradient is what DistributedDataParallel averages.

    Raises:
        ValueError: another shape.

    Source: arXiv 2502.14819, section 3.2, with the normalisation of the published stack's loss.
    """
    ranks = 1 if group is None else dist.get_world_size(group)
    if latents.dim() != 3 or min(ranks * latents.shape[0], *latents.shape[1:]) < 2:
        raise ValueError(f"latents: expected (B, T, D) with at least 2 of each, got {tuple(latents.shape)}")
    with torch.autocast(latents.device.type, enabled=False):
        if latents.dtype != torch.float64:
            latents = latents.float()
        if ranks > 1:
            latents = torch.cat(differentiable_dist.all_gather(latents, group))  # type: ignore[no-untyped-call]
        centred = latents - latents.mean(dim=0)
        return {
            "variance_loss": _hinge(centred.var(dim=0)),
            "covariance_loss": _off_diagonal_squares(centred.transpose(0, 1)),
            "similarity_loss": F.mse_loss(latents[:, :-1], latents[:, 1:]),
            "time_variance_loss": _hinge(centred.var(dim=1)),
        }


def _hinge(variance: Tensor) -> Tensor:
    """How far standard deviations fall short of 1, on average."""
    return F.relu(1 - (variance + _EPS).sqrt()).mean()


def _off_diagonal_squares(centred: Tensor) -> Tensor:
    """Mean square of the covariances between different dimensions; centred: (T, B, D)."""
    _, batch, width = centred.shape
    covariance = centred.transpose(1, 2) @ centred / (batch - 1)  # (T, D, D)
    squares = covariance.square()
    off_diagonal = squares.sum(dim=(1, 2)) - squares.diagonal(dim1=1, dim2=2).sum(dim=1)
    return off_diagonal.mean() / (width * (width - 1))
