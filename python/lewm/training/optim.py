"""The optimiser and its learning rate."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import nn

__all__ = ["learning_rate", "make_optimizer"]


def make_optimizer(parameters: Iterable[nn.Parameter], lr: float, weight_decay: float) -> torch.optim.AdamW:
    """AdamW over all parameters, in torch's fused form (one pass over weights and state, on CPU and GPU)."""
    return torch.optim.AdamW(parameters, lr=lr, weight_decay=weight_decay, fused=True)


def learning_rate(step: int, steps: int, peak: float, warmup: float) -> float:
    """Of a step counted from 0: linear up to `peak` over the first `warmup` fraction of `steps`, then a cosine to 0."""
    rising = max(1, math.ceil(warmup * steps)) if warmup else 0
    if step < rising:
        return peak * (step + 1) / rising
    progress = (step - rising) / max(1, steps - rising)
    return peak * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
