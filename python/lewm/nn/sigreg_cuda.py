"""SIGReg's operators on CUDA tensors, by the CUDA module's kernels on torch's current stream.

Used by `lewm.nn.sigreg` where the module works (``lewm doctor``); the formulas stand in `lewm.nn.sigreg_plain`. Sums
and statistic are double, projections float32; nothing of size B * M * K is stored.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from lewm.errors import Error

try:
    from lewm import _core
except ImportError:  # lewm used from its sources, without a build
    _core = None  # type: ignore[assignment]

__all__ = ["available", "gradient", "statistic", "sums"]


@functools.cache
def available(device: torch.device) -> bool:
    """Whether the CUDA module works on a device; it may hold no code for a GPU of that generation."""
    if _core is None or _core.cuda_module()[0] == 0:
        return False
    try:
        statistic(torch.zeros(1, 1, 2, 2, dtype=torch.float64, device=device), total=1.0, t_max=1.0)
    except Error:
        return False
    return True


def _stream(device: torch.device) -> int:
    """The current stream's handle; 0 is the default stream."""
    return torch.cuda.current_stream(device).cuda_stream if device.type == "cuda" else 0


def _sizes(z: Tensor, num_proj: int, knots: int) -> tuple[int, int, int, int, int, int]:
    return (*z.shape, num_proj, knots, z.device.index or 0)


def _prepared(z: Tensor, directions: Tensor, knots: int, t_max: float) -> tuple[Tensor, Tensor, Tensor]:
    """z and directions as the kernels read them, and their workspace."""
    z = z.detach().to(torch.float32).contiguous()
    directions = directions.detach().to(torch.float32).contiguous()
    floats = _core.cuda_sigreg_workspace(_sizes(z, directions.shape[1], knots), t_max)
    return z, directions, torch.empty(floats, dtype=torch.float32, device=z.device)


def sums(z: Tensor, directions: Tensor, knots: int, t_max: float) -> Tensor:
    """Sums of cosines and sines over the batch, (T, M, 2, K) float64, of z (T, B, D) and directions (D, M)."""
    z, directions, workspace = _prepared(z, directions, knots, t_max)
    num_proj = directions.shape[1]
    out = torch.empty(z.shape[0], num_proj, 2, knots, dtype=torch.float64, device=z.device)
    _core.cuda_sigreg_sums(
        _sizes(z, num_proj, knots),
        t_max,
        z.data_ptr(),
        directions.data_ptr(),
        workspace.data_ptr(),
        out.data_ptr(),
        _stream(z.device),
    )
    return out


def statistic(given: Tensor, total: float, t_max: float) -> Tensor:
    """The statistic, a float64 scalar, from sums (T, M, 2, K) over `total` samples."""
    steps, num_proj, _, knots = given.shape
    given = given.contiguous()
    terms = torch.empty(steps, num_proj, dtype=torch.float64, device=given.device)
    _core.cuda_sigreg_statistic(
        (steps, 0, 1, num_proj, knots, given.device.index or 0),
        t_max,
        given.data_ptr(),
        total,
        terms.data_ptr(),
        _stream(given.device),
    )
    return terms.mean()


def gradient(
    z: Tensor, directions: Tensor, given: Tensor, total: float, t_max: float, scale: float
) -> Tensor:
    """d statistic / d z (T, B, D) float32, times `scale`, from sums (T, M, 2, K) over `total` samples."""
    knots = given.shape[-1]
    z, directions, workspace = _prepared(z, directions, knots, t_max)
    given = given.contiguous()
    out = torch.empty_like(z)
    _core.cuda_sigreg_gradient(
        _sizes(z, directions.shape[1], knots),
        t_max,
        z.data_ptr(),
        directions.data_ptr(),
        workspace.data_ptr(),
        given.data_ptr(),
        total,
        scale,
        out.data_ptr(),
        _stream(z.device),
    )
    return out
