"""Batch-norm statistics for inference.

The running averages that training keeps lag behind the weights: early on, the mean of the features moves further in
ten steps than the features spread, and a model that normalises with yesterday's mean is useless today. They also see
the predictor with dropout, inference sees it without. So before a model is judged or written, its statistics are taken
anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from lewm.nn import LeWM
from lewm.nn.batch_norm import BatchNorm
from lewm.nn.image_encoder import ImageEncoder

__all__ = ["calibrate"]


@torch.no_grad()
def calibrate(model: ImageEncoder, batches: Iterable[Mapping[str, Tensor]]) -> None:
    """Replaces the running mean and variance of every batch norm by their averages over `batches`, without dropout.

    batches: windows as `LeWM.loss` takes them, on the model's device. The model is left in evaluation mode. Training
    does not use these statistics, so calibrating in its midst does not change it. On one rank: nothing is reduced.
    """
    norms = [module for module in model.modules() if isinstance(module, BatchNorm)]
    before = [(norm.momentum, norm.group) for norm in norms]
    model.eval()
    for norm in norms:
        norm.train()
        norm.reset_running_stats()
        norm.momentum, norm.group = None, None  # None: the plain average of all batches
    try:
        for batch in batches:
            latents = model.encode(batch["pixels"])
            if isinstance(model, LeWM):
                model.predict(latents[:, :-1], batch["action"][:, :-1])
    finally:
        for norm, (momentum, group) in zip(norms, before, strict=True):
            norm.momentum, norm.group = momentum, group
            norm.eval()
