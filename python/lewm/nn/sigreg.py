"""SIGReg, the Sketched Isotropic Gaussian Regulariser of LeJEPA (arXiv 2511.08544)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lewm.nn import sigreg_plain as plain

__all__ = ["SIGReg", "sigreg"]


class _Fused(torch.autograd.Function):
    """The statistic of z (T, B, D) along u (D, M); the gradient comes out of the same pass."""

    @staticmethod
    def forward(ctx, z: Tensor, u: Tensor, knots: int, t_max: float) -> Tensor:
        sums = plain.characteristic_sums(z, u, knots, t_max)
        if ctx.needs_input_grad[0]:
            ctx.save_for_backward(plain.gradient(z, u, sums, z.shape[1], t_max))
        return plain.statistic(sums, z.shape[1], t_max).to(z.dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor):
        (gradient,) = ctx.saved_tensors
        return grad * gradient, None, None, None


def sigreg(
    z: Tensor,
    directions: Tensor | None = None,
    num_proj: int = 1024,
    knots: int = 17,
    t_max: float = 3.0,
    seed: int | None = None,
    process_group=None,
    pooled: bool = False,
) -> Tensor:
    """SIGReg of z (T, B, D): the Epps-Pulley statistic averaged over time steps and random directions."""
    if process_group is not None:
        raise NotImplementedError("process_group: not yet")
    if pooled:
        z = z.reshape(1, -1, z.shape[-1])
    if z.dtype in (torch.float16, torch.bfloat16):
        z = z.float()
    if directions is None:
        key = torch.randint(2**62, ()) if seed is None else torch.tensor(seed)
        directions = plain.directions(key, z.shape[-1], num_proj, z.device, z.dtype)
    with torch.autocast(z.device.type, enabled=False):
        return _Fused.apply(z, directions, knots, t_max)


class SIGReg(nn.Module):
    """`sigreg` as a module with the published constructor; new directions at every call."""

    def __init__(self, knots: int = 17, num_proj: int = 1024) -> None:
        super().__init__()
        self.num_proj = num_proj
        t = torch.linspace(0, 3, knots)
        weights = torch.full((knots,), 2 * 3 / (knots - 1))
        weights[[0, -1]] = 3 / (knots - 1)
        phi = torch.exp(-t.square() / 2)
        self.register_buffer("t", t)
        self.register_buffer("phi", phi)
        self.register_buffer("weights", weights * phi)

    def forward(self, z: Tensor) -> Tensor:
        """The scalar statistic of z (T, B, D)."""
        return sigreg(z, num_proj=self.num_proj, knots=self.t.numel(), t_max=3.0)
