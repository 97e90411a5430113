"""Scaled dot-product attention, in the formulation that is fastest for the device and length at hand."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["ATTENTION_KINDS", "attend"]

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
    if kind == "auto":
        kind = "matmul" if q.device.type == "cpu" and k.shape[-2] <= _MATMUL_KEYS_CPU else "sdpa"
    if kind == "sdpa":
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
