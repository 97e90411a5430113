"""Sizes of a world model, shared by the torch module, the checkpoint readers and the compiled core."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import Any

__all__ = ["LeWMConfig"]

_NORMS = ("batch", "layer", "none")
_MAY_BE_ZERO = ("projector_dim", "pred_proj_dim")


@dataclass(frozen=True)
class LeWMConfig:
    """Sizes of a LeWorldModel; the defaults are the published ones (arXiv 2603.19312).

    The same fields, under the same names, are the ``config`` metadata of a deployment file and ``lewm::Config`` in C++.

    Raises:
        ValueError: a size is out of range or contradicts another; the message names the field.
        TypeError: a size is not an integer.
    """

    image_size: int = 224
    patch_size: int = 14
    encoder_dim: int = 192
    encoder_depth: int = 12
    encoder_heads: int = 3
    encoder_mlp_dim: int = 768
    latent_dim: int = 192
    """D, the width of a latent."""
    projector_dim: int = 2048
    """Hidden width of the projector; 0: no projector (then encoder_dim must equal latent_dim)."""
    pred_proj_dim: int = 2048
    """Hidden width of pred_proj; 0: no pred_proj (then predictor_output_dim must equal latent_dim)."""
    projector_norm: str = "batch"
    """Normalisation inside projector and pred_proj: "batch", "layer" or "none"."""
    history: int = 3
    """Frames that the predictor sees."""
    predictor_depth: int = 6
    predictor_heads: int = 16
    predictor_head_dim: int = 64
    predictor_mlp_dim: int = 2048
    predictor_dim: int = 192
    """Width of the predictor's residual stream."""
    predictor_output_dim: int = 192
    """What pred_proj reads."""
    action_dim: int = 2
    """Of one environment step."""
    frame_skip: int = 5
    """Environment steps in an action block."""
    action_smoothed_dim: int = 10
    action_mlp_scale: int = 4

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name == "projector_norm":
                if value not in _NORMS:
                    raise ValueError(f"projector_norm: expected one of {_NORMS}, got {value!r}")
                continue
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError(f"{field.name}: expected an int, got {value!r}")
            least = 0 if field.name in _MAY_BE_ZERO else 1
            if value < least:
                raise ValueError(f"{field.name}: expected at least {least}, got {value}")
        if self.image_size % self.patch_size:
            raise ValueError(
                f"image_size: expected a multiple of patch_size ({self.patch_size}), got {self.image_size}"
            )
        if self.encoder_dim % self.encoder_heads:
            raise ValueError(
                f"encoder_dim: expected a multiple of encoder_heads ({self.encoder_heads}), got {self.encoder_dim}"
            )
        if not self.projector_dim and self.encoder_dim != self.latent_dim:
            raise ValueError(
                f"latent_dim: expected encoder_dim ({self.encoder_dim}) without a projector, got {self.latent_dim}"
            )
        if not self.pred_proj_dim and self.predictor_output_dim != self.latent_dim:
            raise ValueError(
                f"predictor_output_dim: expected latent_dim ({self.latent_dim}) without a pred_proj, "
                f"got {self.predictor_output_dim}"
            )

    @property
    def block_dim(self) -> int:
        """A, the width of an action block: ``action_dim * frame_skip``."""
        return self.action_dim * self.frame_skip

    @property
    def patches(self) -> int:
        """Patches in an image."""
        return (self.image_size // self.patch_size) ** 2

    @property
    def tokens(self) -> int:
        """Encoder tokens of an image: its patches and CLS."""
        return self.patches + 1

    def to_json(self) -> str:
        """The JSON object that deployment files carry."""
        return json.dumps(asdict(self))

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> LeWMConfig:
        """A configuration from a mapping of field names; unknown names raise ValueError."""
        unknown = sorted(set(values) - {field.name for field in fields(cls)})
        if unknown:
            raise ValueError(f"config: unknown field {unknown[0]!r}")
        return cls(**values)
