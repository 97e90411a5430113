"""The image encoder: a pre-LN vision transformer whose CLS token is the image's embedding (DESIGN.md section 3).

Parameters carry the names of the published checkpoints. The arithmetic is theirs too, arranged for training speed:
uint8 pixels go straight into the patch projection, with the normalisation folded into its weights; query, key and
value are one matrix product; the last layer computes its query, output and MLP for the CLS token alone, the only
one read, without projecting the others to keys and values; and a CPU takes large batches in groups of images whose
activations stay in its caches from one operation to the next, there and on the way back.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lewm.nn.attention import self_attend

__all__ = ["POSITION_INITS", "VisionTransformer", "grid_waves"]

_LAYER_NORM_EPS = 1e-12
_INIT_STD = 0.02
# Of "waves": as large as what a patch's content contributes at first, where normal ones are a twentieth of it.
_WAVE_AMPLITUDE = 0.5
POSITION_INITS = ("normal", "waves")
# Subtracted from uint8 pixels before the patch projection: what remains, -128..127, is exact in bfloat16 and nearly
# centred, so that rounding of the folded weights does not add up over a bright image.
_PIXEL_OFFSET = 128.0
# Of the widest activation, on a CPU: a batch of more elements than the first is taken in groups of at most the second.
# On two cores with 32 MiB of cache a step with 64 images of 224x224 takes 6% less time in groups of 16 than in one, and
# 4 to 14% less than in groups of 8, 22 or 32; one with 256 of 64x64 (8.5 M elements) 3% less in one than in two.
_WHOLE_ELEMENTS = 9 << 20
_GROUP_ELEMENTS = 1 << 22


def _normal(*shape: int) -> nn.Parameter:
    return nn.Parameter(nn.init.trunc_normal_(torch.empty(*shape), std=_INIT_STD))


class _Linear(nn.Linear):
    """A linear layer with the vision transformer's initial values."""

    def reset_parameters(self) -> None:
        nn.init.trunc_normal_(self.weight, std=_INIT_STD)
        nn.init.zeros_(self.bias)


class _PatchEmbeddings(nn.Module):
    """Holds the patch projection as the convolution that the checkpoints store; applies it as one matrix product."""

    def __init__(self, patch_size: int, dim: int):
        super().__init__()
        self.patch_size = patch_size
        self.projection = nn.Conv2d(3, dim, patch_size, stride=patch_size)
        nn.init.trunc_normal_(self.projection.weight, std=_INIT_STD)
        assert self.projection.bias is not None
        nn.init.zeros_(self.projection.bias)

    def forward(self, pixels: Tensor, mean: Tensor, std: Tensor) -> Tensor:
        """pixels: (N, H, W, 3) uint8, or (N, 3, H, W) float, normalised -> (N, patches, dim)."""
        p = self.patch_size
        weight, bias = self.projection.weight, self.projection.bias
        assert bias is not None
        if pixels.dtype == torch.uint8:
            n, height, width, _ = pixels.shape
            patches = pixels.view(n, height // p, p, width // p, p, 3).transpose(2, 3)
            dtype = torch.get_autocast_dtype(pixels.device.type) if _autocast(pixels) else weight.dtype
            x = patches.reshape(n, -1, p * p * 3).to(dtype) - _PIXEL_OFFSET
            shift = (_PIXEL_OFFSET / 255 - mean) / std  # what a pixel of _PIXEL_OFFSET becomes
            bias = bias + weight.sum(dim=(2, 3)) @ shift
            weight = weight.permute(0, 2, 3, 1) / (255 * std)
        else:
            n, _, height, width = pixels.shape
            patches = pixels.view(n, 3, height // p, p, width // p, p).permute(0, 2, 4, 3, 5, 1)
            x = patches.reshape(n, -1, p * p * 3)
            weight = weight.permute(0, 2, 3, 1)
        return F.linear(x, weight.flatten(1), bias)


def _autocast(tensor: Tensor) -> bool:
    return torch.is_autocast_enabled(tensor.device.type)


def grid_waves(side: int, dim: int) -> Tensor:
    """Position embeddings of a grid of patches, row by row, (side * side, dim): sines and cosines of x and of y.

    A quarter of the width each, with wavelengths from twice the image's width to four patches in geometric
    progression, so that nearby patches are alike and distant ones are not. Widths that are not a multiple of 4 end
    with zeros.
    """
    waves = torch.zeros(side * side, dim)
    quarter = dim // 4
    octaves = torch.linspace(0, 1, max(quarter, 2))[:quarter]
    frequencies = math.pi / 2 * (2 / max(side, 2)) ** (1 - octaves)  # radians per patch
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    angles = [place.flatten()[:, None] * frequencies for place in (x, y)]
    parts = [wave for angle in angles for wave in (angle.sin(), angle.cos())]
    waves[:, : 4 * quarter] = torch.cat(parts, dim=1)
    return waves


class _Embeddings(nn.Module):
    def __init__(self, side: int, patch_size: int, dim: int, position_init: str):
        super().__init__()
        self.cls_token = _normal(1, 1, dim)
        self.position_embeddings = _normal(1, side * side + 1, dim)
        if position_init == "waves":
            with torch.no_grad():
                self.position_embeddings[0, 1:] = _WAVE_AMPLITUDE * grid_waves(side, dim)
        self.patch_embeddings = _PatchEmbeddings(patch_size, dim)

    def forward(self, pixels: Tensor, mean: Tensor, std: Tensor) -> Tensor:
        """-> (N, 1 + patches, dim) with the CLS token first."""
        x = self.patch_embeddings(pixels, mean, std)
        cls = (self.cls_token + self.position_embeddings[:, :1]).expand(x.shape[0], -1, -1)
        return torch.cat([cls, x + self.position_embeddings[:, 1:]], dim=1)


class _SelfAttention(nn.Module):
    def __init__(self, dim: int):
        super().__init__()
        self.query = _Linear(dim, dim)
        self.key = _Linear(dim, dim)
        self.value = _Linear(dim, dim)

    def project(self, x: Tensor) -> Tensor:
        """Queries, keys and values of x, (N, T, dim), as one matrix product: (N, T, 3 * dim)."""
        layers = (self.query, self.key, self.value)
        weight = torch.cat([layer.weight for layer in layers])
        return F.linear(x, weight, torch.cat([layer.bias for layer in layers]))

    def read(self, x: Tensor, heads: int) -> Tensor:
        """What the first token of x, (N, T, dim), reads from all tokens: (N, 1, dim).

        With one query per image and head the projections of the other tokens are not needed, as
            q . (K x_t + k) = (K^T q) . x_t + q . k    and    sum_t p_t (V x_t + v) = V (sum_t p_t x_t) + v:
        2 * heads products with x in place of two of dim x dim.
        """
        n, _, dim = x.shape
        by_head = (heads, dim // heads, dim)
        q = self.query(x[:, 0]).view(n, *by_head[:2]) * by_head[1] ** -0.5
        queries = torch.einsum("nhd,hdc->nhc", q, self.key.weight.view(by_head))
        # q . k is the same for all tokens, so softmax drops it; with it the bias keeps a gradient, of zero.
        scores = queries @ x.transpose(1, 2) + (q * self.key.bias.view(by_head[:2])).sum(-1, keepdim=True)
        mixed = torch.softmax(scores, dim=-1).to(x.dtype) @ x  # (N, heads, dim)
        values = torch.einsum("nhc,hdc->nhd", mixed, self.value.weight.view(by_head))
        return values.reshape(n, 1, dim) + self.value.bias


class _Output(nn.Module):
    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.dense = _Linear(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.dense(x)


class _Attention(nn.Module):
    def __init__(self, dim: int, heads: int, kind: str):
        super().__init__()
        self.heads = heads
        self.kind = kind
        self.attention = _SelfAttention(dim)
        self.output = _Output(dim, dim)

    def forward(self, x: Tensor, cls_only: bool) -> Tensor:
        """x: (N, T, dim) -> (N, T, dim), or (N, 1, dim) for the CLS token's query alone."""
        if cls_only:
            return self.output(self.attention.read(x, self.heads))
        return self.output(self_attend(self.attention.project(x), self.heads, self.kind))


class _Layer(nn.Module):
    def __init__(self, dim: int, heads: int, mlp_dim: int, kind: str):
        super().__init__()
        self.attention = _Attention(dim, heads, kind)
        self.intermediate = _Output(dim, mlp_dim)
        self.output = _Output(mlp_dim, dim)
        self.layernorm_before = nn.LayerNorm(dim, eps=_LAYER_NORM_EPS)
        self.layernorm_after = nn.LayerNorm(dim, eps=_LAYER_NORM_EPS)

    def forward(self, x: Tensor, cls_only: bool) -> Tensor:
        mixed = self.attention(self.layernorm_before(x), cls_only)
        x = (x[:, :1] if cls_only else x) + mixed
        return x + self.output(F.gelu(self.intermediate(self.layernorm_after(x))))


class _Layers(nn.Module):
    def __init__(self, dim: int, depth: int, heads: int, mlp_dim: int, kind: str):
        super().__init__()
        self.layer = nn.ModuleList(_Layer(dim, heads, mlp_dim, kind) for _ in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        last = len(self.layer) - 1
        for index, layer in enumerate(self.layer):
            x = layer(x, cls_only=index == last)
        return x


class VisionTransformer(nn.Module):
    """Images to CLS embeddings.

    Args:
        image_size, patch_size: in pixels; images are square.
        dim, depth, heads, mlp_dim: sizes of the transformer.
        mean, std: of the three colour channels, for pixels scaled to [0, 1].
        attention: see `lewm.nn.attention.attend`.
        position_init: what the learned position embeddings start as: "normal" noise, as published, or "waves", see
            `grid_waves`, from which short trainings learn places much sooner.
    """

    def __init__(
        self,
        *,
        image_size: int,
        patch_size: int,
        dim: int,
        depth: int,
        heads: int,
        mlp_dim: int,
        mean: Sequence[float],
        std: Sequence[float],
        attention: str = "auto",
        position_init: str = "normal",
    ):
        super().__init__()
        if position_init not in POSITION_INITS:
            raise ValueError(f"position_init: expected one of {POSITION_INITS}, got {position_init!r}")
        self.image_size = image_size
        self._widest = ((image_size // patch_size) ** 2 + 1) * max(mlp_dim, 3 * dim)  # activation of an image
        self.embeddings = _Embeddings(image_size // patch_size, patch_size, dim, position_init)
        self.encoder = _Layers(dim, depth, heads, mlp_dim, attention)
        self.layernorm = nn.LayerNorm(dim, eps=_LAYER_NORM_EPS)
        self.register_buffer("pixel_mean", torch.tensor(mean, dtype=torch.float32), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(std, dtype=torch.float32), persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """pixels: (N, H, W, 3) uint8, or (N, 3, H, W) float normalised per channel -> (N, dim)."""
        elements = len(pixels) * self._widest
        whole = pixels.device.type != "cpu" or elements <= _WHOLE_ELEMENTS
        groups = 1 if whole else math.ceil(elements / _GROUP_ELEMENTS)
        cls = [self._cls(group) for group in pixels.chunk(groups)]
        return self.layernorm(torch.cat(cls))

    def _cls(self, pixels: Tensor) -> Tensor:
        """The CLS token, (N, dim), before the last norm."""
        return self.encoder(self.embeddings(pixels, self.pixel_mean, self.pixel_std))[:, 0]
