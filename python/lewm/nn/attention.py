"""Scaled dot-product attention, in the formulation that is fastest for the device and length at hand."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

__all__ = ["ATTENTION_KINDS", "attend", "self_attend"]

ATTENTION_KINDS = ("auto", "matmul", "sdpa")

# Up to this many keys the matmul formulation wins on a CPU: torch's flash backward there works in blocks longer than a
# window of frames or a small image's tokens, and does not use the bf16 matrix units.
_MATMUL_KEYS_CPU = 512


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    causal: bool = False,
    dropout: float = 0.0,
    kind: str = "auto",
) -> Tensor:
    """Returns softmax(q k^T / sqrt(d)) v, (N, heads, Q, d).

    Args:
        q: (N, heads, Q, d).
        k, v: (N, heads, K, d).
        causal: query i sees keys 0..i; needs Q == K.
        dropout: rate at which attention weights are dropped.
        kind: "matmul" (softmax between two matrix products), "sdpa" (torch's fused kernels) or "auto": matmul on a
            CPU up to 512 keys, else sdpa.
    """
    if _chosen(kind, q.device, keys=k.shape[-2]) == "sdpa":
        return F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=causal)
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)  # (N, heads, Q, K)
    if causal:
        size = scores.shape[-1]
        future = torch.ones(size, size, dtype=torch.bool, device=q.device).triu_(1)
        scores = scores.masked_fill(future, float("-inf"))
    weights = torch.softmax(scores, dim=-1)
    if dropout:
        weights = F.dropout(weights, dropout)
    return weights @ v


def self_attend(qkv: Tensor, heads: int, kind: str = "auto") -> Tensor:
    """Returns the attention of every token to every token, (N, T, heads * d), from packed projections.

    Args:
        qkv: (N, T, 3 * heads * d): queries, keys and values of all heads, as one matrix product makes them.
        kind: see `attend`. With "matmul" the gradient is written out: its parts go straight into one packed array.
    """
    if _chosen(kind, qkv.device, keys=qkv.shape[1]) == "matmul":
        return _MatmulAttention.apply(qkv, heads)
    n, tokens, _ = qkv.shape
    q, k, v = qkv.view(n, tokens, 3, heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


def _chosen(kind: str, device: torch.device, keys: int) -> str:
    if kind != "auto":
        return kind
    return "matmul" if device.type == "cpu" and keys <= _MATMUL_KEYS_CPU else "sdpa"


class _MatmulAttention(torch.autograd.Function):
    """softmax(q k^T / sqrt(d)) v and its gradient, P = softmax, dP = dO v^T, dS = P * (dP - sum(P * dP)):
    dq = dS k / sqrt(d), dk = dS^T q / sqrt(d), dv = P^T dO."""

    @staticmethod
    def forward(ctx: Any, qkv: Tensor, heads: int) -> Tensor:
        n, tokens, width = qkv.shape
        dim = width // (3 * heads)
        packed = qkv.reshape(n, tokens, 3, heads, dim).permute(2, 0, 3, 1, 4).contiguous()
        packed = packed.view(3, n * heads, tokens, dim)
        q, k, v = packed.unbind(0)
        q.mul_(dim**-0.5)
        # The softmax and its gradient are taken in place: new memory costs more than the arithmetic.
        weights = torch.bmm(q, k.transpose(1, 2))  # (N * heads, T, T)
        torch.softmax(weights, dim=-1, out=weights)
        ctx.save_for_backward(packed, weights)
        ctx.heads = heads
        mixed = torch.bmm(weights, v).view(n, heads, tokens, dim)
        return mixed.transpose(1, 2).reshape(n, tokens, heads * dim)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        packed, weights = ctx.saved_tensors
        q, k, v = packed.unbind(0)  # q holds q / sqrt(d)
        n, tokens, width = grad.shape
        by_head = (n, ctx.heads, tokens, width // ctx.heads)
        grad = grad.reshape(n, tokens, ctx.heads, -1).transpose(1, 2).reshape(q.shape)
        scores = torch.bmm(grad, v.transpose(1, 2))
        torch.ops.aten._softmax_backward_data.out(scores, weights, -1, weights.dtype, grad_input=scores)
        result = grad.new_empty(n, tokens, 3, ctx.heads, by_head[3])
        dq, dk, dv = result.permute(2, 0, 3, 1, 4).unbind(0)
        dq.copy_(torch.bmm(scores, k).mul_(by_head[3] ** -0.5).view(by_head))
        dk.copy_(torch.bmm(scores.transpose(1, 2), q).view(by_head))
        dv.copy_(torch.bmm(weights.transpose(1, 2), grad).view(by_head))
        return result.view(n, tokens, -1), None
