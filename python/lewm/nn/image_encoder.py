"""What the trainable models have in common: images in, latents out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from lewm.checkpoint.contents import IMAGENET, scaling
from lewm.config import LeWMConfig
from lewm.nn.attention import ATTENTION_KINDS
from lewm.nn.batch_norm import BatchNorm
from lewm.nn.external import ExternalEncoder
from lewm.nn.predictor import Projector
from lewm.nn.vit import VisionTransformer

__all__ = ["ImageEncoder", "make_projector"]


class ImageEncoder(nn.Module):
    """Encoder and projector; a subclass makes ``self.projector``, in its own place among its parameters.

    The arguments are those of `lewm.LeWM`.
    """

    projector: nn.Module

    def __init__(
        self,
        config: LeWMConfig,
        *,
        attention: str = "auto",
        preprocessing: Mapping[str, Any] | None = None,
        action_scaling: Mapping[str, Any] | None = None,
        encoder: nn.Module | None = None,
        freeze_encoder: bool = False,
        position_init: str = "normal",
    ):
        super().__init__()
        if attention not in ATTENTION_KINDS:
            raise ValueError(f"attention: expected one of {ATTENTION_KINDS}, got {attention!r}")
        if freeze_encoder and encoder is None:
            raise ValueError(
                "freeze_encoder: expected an encoder to freeze: the built-in one starts untrained"
            )
        self.config = config
        self.preprocessing = scaling("preprocessing", preprocessing or IMAGENET, 3)
        self.action_scaling = (
            scaling("action_scaling", action_scaling, config.action_dim)
            if action_scaling is not None
            else None
        )
        self.encoder: nn.Module
        if encoder is None:
            self.encoder = VisionTransformer(
                image_size=config.image_size,
                patch_size=config.patch_size,
                dim=config.encoder_dim,
                depth=config.encoder_depth,
                heads=config.encoder_heads,
                mlp_dim=config.encoder_mlp_dim,
                mean=self.preprocessing["mean"],
                std=self.preprocessing["std"],
                attention=attention,
                position_init=position_init,
            )
            self.encoder_dim = config.encoder_dim
        else:
            self.encoder = ExternalEncoder(
                encoder,
                image_size=config.image_size,
                mean=self.preprocessing["mean"],
                std=self.preprocessing["std"],
                frozen=freeze_encoder,
            )
            self.encoder_dim = self.encoder.width

    @property
    def not_exportable(self) -> str | None:
        """Why `lewm.save` refuses this model, None if it does not."""
        if isinstance(self.encoder, ExternalEncoder):
            return (
                f"model: its encoder is {self.encoder.name}, which neither a deployment file nor the published layout "
                "can hold: both store the vision transformer alone. Keep its state_dict(); "
                "lewm.training.load_trained(run) builds it again"
            )
        return None

    def sync_batch_norm(self, group: dist.ProcessGroup) -> None:
        """Let the batch normalisations of projectors span the ranks of `group` in training mode."""
        for module in self.modules():
            if isinstance(module, BatchNorm):
                module.sync(group)

    def encode(self, pixels: Tensor) -> Tensor:
        """Latents (..., D) float32 of images.

        pixels: (..., H, W, 3) uint8 RGB, normalised here; or (..., 3, H, W) floating point, normalised already.
        Raises ValueError on another shape, TypeError on another dtype.
        """
        size = self.config.image_size
        image = (size, size, 3) if pixels.dtype == torch.uint8 else (3, size, size)
        if pixels.dtype != torch.uint8 and not pixels.is_floating_point():
            raise TypeError(f"pixels: expected uint8 or a floating-point dtype, got {pixels.dtype}")
        if tuple(pixels.shape[-3:]) != image:
            expected = ", ".join(map(str, image))
            raise ValueError(
                f"pixels: expected (..., {expected}) for {pixels.dtype}, got {tuple(pixels.shape)}"
            )
        batch = pixels.shape[:-3]
        latents: Tensor = self.projector(self.encoder(pixels.reshape(-1, *image)))
        return latents.float().view(*batch, -1)


def make_projector(inputs: int, hidden: int, outputs: int, norm: str) -> nn.Module:
    """A projector, or none where ``hidden`` is 0. Raises ValueError if there is none and the widths differ."""
    if hidden:
        return Projector(inputs, hidden, outputs, norm)
    if inputs != outputs:
        raise ValueError(
            f"latent_dim: expected {inputs}, as the encoder's, without a projector, got {outputs}"
        )
    return nn.Identity()
