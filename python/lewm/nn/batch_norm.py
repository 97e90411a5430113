"""Batch normalisation whose statistics can span the ranks of a process group, on any backend."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn

__all__ = ["BatchNorm"]


class BatchNorm(nn.BatchNorm1d):
    """BatchNorm1d over (N, features) that, given a process group, normalises with the mean and variance of all ranks.

    Unlike torch's SyncBatchNorm it needs no GPU: the sums are all-reduced by a collective that every backend has, and
    autograd differentiates through it. Ranks may hold different numbers of rows. Without a group (`sync` not called)
    it is plain BatchNorm1d; parameters and buffers have the same names.
    """

    group: dist.ProcessGroup | None = None

    def sync(self, group: dist.ProcessGroup) -> None:
        """Share statistics across `group` in training mode from now on."""
        self.group = group

    def forward(self, x: Tensor) -> Tensor:
        if self.group is None or not self.training:
            return super().forward(x)
        x32 = x.float()
        rows = x32.new_tensor([float(x.shape[0])])
        sums = _all_reduce_sum(torch.cat([x32.sum(0), rows]), self.group)
        total = sums[-1].detach()
        mean = sums[:-1] / total
        centred = x32 - mean
        variance = _all_reduce_sum(centred.square().sum(0), self.group) / total
        self._track(mean.detach(), variance.detach(), total)
        y = centred * torch.rsqrt(variance + self.eps) * self.weight + self.bias
        return y.to(x.dtype)

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor, total: Tensor) -> None:
        assert self.num_batches_tracked is not None and self.momentum is not None
        assert self.running_mean is not None and self.running_var is not None
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance * total / (total - 1), self.momentum)


class _AllReduceSum(torch.autograd.Function):
    """Sum over ranks. The gradient is the sum of the ranks' gradients: every rank's loss depends on all rows."""

    @staticmethod
    def forward(ctx, x: Tensor, group: dist.ProcessGroup) -> Tensor:
        ctx.group = group
        x = x.clone()
        dist.all_reduce(x, group=group)
        return x

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        grad = grad.contiguous().clone()
        dist.all_reduce(grad, group=ctx.group)
        return grad, None


def _all_reduce_sum(x: Tensor, group: dist.ProcessGroup) -> Tensor:
    return _AllReduceSum.apply(x, group)
