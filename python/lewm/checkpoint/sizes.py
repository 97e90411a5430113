"""What the shapes of a state dict say about its model."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from lewm.errors import Error

__all__ = ["sizes_of_tensors"]


def sizes_of_tensors(tensors: Mapping[str, NDArray[Any]], source: str) -> dict[str, Any]:
    """The configuration fields that the shapes decide (all but the head counts and the frame skip).

    Beside fields of LeWMConfig: ``block_dim``, and ``predictor_heads_width`` (heads x head width).

    Raises:
        lewm.Error: a tensor that every LeWM has is missing or has the wrong number of dimensions.
    """
    shapes = _Shapes(tensors, source)
    block = "predictor.transformer.layers.0"
    width = shapes.size("encoder.embeddings.patch_embeddings.projection.weight", 0, rank=4)
    patch = shapes.size("encoder.embeddings.patch_embeddings.projection.weight", 3, rank=4)
    latent = shapes.size("predictor.pos_embedding", 2, rank=3)
    scaled = shapes.size("action_encoder.embed.0.weight", 0, rank=2)
    predictor_width = shapes.size("predictor.transformer.norm.weight", 0, rank=1)
    return {
        "image_size": _image_size(shapes, patch, source),
        "patch_size": patch,
        "encoder_dim": width,
        "encoder_depth": shapes.layers(r"encoder\.encoder\.layer\.(\d+)\."),
        "encoder_mlp_dim": shapes.size("encoder.encoder.layer.0.intermediate.dense.weight", 0, rank=2),
        "latent_dim": latent,
        "projector_dim": shapes.optional("projector.net.0.weight", 0, rank=2, otherwise=0),
        "pred_proj_dim": shapes.optional("pred_proj.net.0.weight", 0, rank=2, otherwise=0),
        "projector_norm": _norm(tensors, source),
        "history": shapes.size("predictor.pos_embedding", 1, rank=3),
        "predictor_depth": shapes.layers(r"predictor\.transformer\.layers\.(\d+)\."),
        "predictor_heads_width": shapes.size(f"{block}.attn.to_qkv.weight", 0, rank=2) // 3,
        "predictor_mlp_dim": shapes.size(f"{block}.mlp.net.1.weight", 0, rank=2),
        "predictor_dim": predictor_width,
        "predictor_output_dim": shapes.optional(
            "predictor.transformer.output_proj.weight", 0, rank=2, otherwise=predictor_width
        ),
        "block_dim": shapes.size("action_encoder.patch_embed.weight", 1, rank=3),
        "action_smoothed_dim": shapes.size("action_encoder.patch_embed.weight", 0, rank=3),
        "action_mlp_scale": scaled // latent if latent else 0,
    }


class _Shapes:
    def __init__(self, tensors: Mapping[str, NDArray[Any]], source: str) -> None:
        self._tensors = tensors
        self._source = source

    def size(self, name: str, axis: int, rank: int) -> int:
        if name not in self._tensors:
            raise Error(f"{self._source}: {name}: no such tensor: the weights are not a LeWM's")
        shape = self._tensors[name].shape
        if len(shape) != rank:
            raise Error(f"{self._source}: {name}: expected {rank} dimensions, got {shape}")
        return int(shape[axis])

    def optional(self, name: str, axis: int, rank: int, otherwise: int) -> int:
        return self.size(name, axis, rank) if name in self._tensors else otherwise

    def layers(self, pattern: str) -> int:
        """How many layers there are whose tensors have names of this pattern."""
        matches = (re.match(pattern, name) for name in self._tensors)
        return len({match[1] for match in matches if match})


def _image_size(shapes: _Shapes, patch: int, source: str) -> int:
    """The side of a square image with as many patches as there are positions (less the CLS token's)."""
    positions = shapes.size("encoder.embeddings.position_embeddings", 1, rank=3)
    side = math.isqrt(max(positions - 1, 0))
    if side * side != positions - 1:
        raise Error(
            f"{source}: encoder.embeddings.position_embeddings: {positions - 1} patches are no square"
        )
    return side * patch


def _norm(tensors: Mapping[str, NDArray[Any]], source: str) -> str:
    """The normalisation inside projector and pred_proj, which must be the same."""
    norms = {}
    for name in ("projector", "pred_proj"):
        if f"{name}.net.0.weight" not in tensors:
            continue
        if f"{name}.net.1.running_mean" in tensors:
            norms[name] = "batch"
        else:
            norms[name] = "layer" if f"{name}.net.1.weight" in tensors else "none"
    if len(set(norms.values())) > 1:
        raise Error(
            f"{source}: the projector's norm is {norms['projector']}, pred_proj's {norms['pred_proj']}"
        )
    return next(iter(norms.values()), "batch")
