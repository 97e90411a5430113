"""The action encoder, the predictor and the projectors (DESIGN.md section 3), with the published parameter names."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lewm.nn.attention import attend
from lewm.nn.batch_norm import BatchNorm

__all__ = ["ActionEncoder", "Predictor", "Projector"]

_MODULATED_NORM_EPS = 1e-6


class ActionEncoder(nn.Module):
    """Standardised action blocks (B, T, A) -> embeddings (B, T, dim)."""

    def __init__(self, block_dim: int, smoothed_dim: int, dim: int, mlp_scale: int):
        super().__init__()
        self.patch_embed = nn.Conv1d(block_dim, smoothed_dim, kernel_size=1)
        self.embed = nn.Sequential(
            nn.Linear(smoothed_dim, mlp_scale * dim), nn.SiLU(), nn.Linear(mlp_scale * dim, dim)
        )

    def forward(self, blocks: Tensor) -> Tensor:
        weight = self.patch_embed.weight.squeeze(
            -1
        )  # a convolution of kernel 1 is a matrix product per time step
        return self.embed(F.linear(blocks, weight, self.patch_embed.bias))


class Projector(nn.Module):
    """A two-layer MLP from (N, inputs) to (N, outputs), normalised between its layers."""

    def __init__(self, inputs: int, hidden: int, outputs: int, norm: str):
        super().__init__()
        norms = {"batch": BatchNorm, "layer": nn.LayerNorm, "none": nn.Identity}
        self.net = nn.Sequential(
            nn.Linear(inputs, hidden), norms[norm](hidden), nn.GELU(), nn.Linear(hidden, outputs)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class _Attention(nn.Module):
    """Causal attention over a window of latents."""

    def __init__(self, dim: int, heads: int, head_dim: int, dropout: float, kind: str):
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.kind = kind
        self.norm = nn.LayerNorm(dim)
        self.to_qkv = nn.Linear(dim, 3 * heads * head_dim, bias=False)
        project = heads > 1 or head_dim != dim
        self.to_out = (
            nn.Sequential(nn.Linear(heads * head_dim, dim), nn.Dropout(dropout)) if project else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        n, steps, _ = x.shape
        qkv = self.to_qkv(self.norm(x)).view(n, steps, 3, self.heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # (N, heads, T, head_dim)
        dropout = self.dropout if self.training else 0.0
        mixed = attend(q, k, v, causal=True, dropout=dropout, kind=self.kind)
        return self.to_out(mixed.transpose(1, 2).flatten(2))


class _FeedForward(nn.Module):
    def __init__(self, dim: int, hidden: int, dropout: float):
        super().__init__()
        self.net = nn.Sequential(
            nn.LayerNorm(dim),
            nn.Linear(dim, hidden),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, dim),
            nn.Dropout(dropout),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class _Block(nn.Module):
    """A transformer block whose norms are shifted, scaled and gated by the action of the same time step."""

    def __init__(self, dim: int, heads: int, head_dim: int, mlp_dim: int, dropout: float, kind: str):
        super().__init__()
        self.attn = _Attention(dim, heads, head_dim, dropout, kind)
        self.mlp = _FeedForward(dim, mlp_dim, dropout)
        self.norm1 = nn.LayerNorm(dim, elementwise_affine=False, eps=_MODULATED_NORM_EPS)
        self.norm2 = nn.LayerNorm(dim, elementwise_affine=False, eps=_MODULATED_NORM_EPS)
        modulation = nn.Linear(dim, 6 * dim)
        nn.init.zeros_(modulation.weight)
        nn.init.zeros_(modulation.bias)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), modulation)

    def forward(self, x: Tensor, actions: Tensor) -> Tensor:
        modulation = self.adaLN_modulation(actions).chunk(6, dim=-1)
        shift_attn, scale_attn, gate_attn, shift_mlp, scale_mlp, gate_mlp = modulation
        x = x + gate_attn * self.attn(self.norm1(x) * (1 + scale_attn) + shift_attn)
        return x + gate_mlp * self.mlp(self.norm2(x) * (1 + scale_mlp) + shift_mlp)


class _Transformer(nn.Module):
    def __init__(
        self,
        inputs: int,
        dim: int,
        outputs: int,
        depth: int,
        heads: int,
        head_dim: int,
        mlp_dim: int,
        dropout: float,
        kind: str,
    ):
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.layers = nn.ModuleList(
            _Block(dim, heads, head_dim, mlp_dim, dropout, kind) for _ in range(depth)
        )
        self.input_proj = nn.Linear(inputs, dim) if inputs != dim else nn.Identity()
        self.cond_proj = nn.Linear(inputs, dim) if inputs != dim else nn.Identity()
        self.output_proj = nn.Linear(dim, outputs) if dim != outputs else nn.Identity()

    def forward(self, x: Tensor, actions: Tensor) -> Tensor:
        x = self.input_proj(x)
        actions = self.cond_proj(actions)
        for layer in self.layers:
            x = layer(x, actions)
        return self.output_proj(self.norm(x))


class Predictor(nn.Module):
    """Latents and action embeddings of a window -> one predicted embedding per time step, each from its past alone.

    Args:
        history: the longest window, in frames.
        inputs: width of a latent and of an action embedding.
        dim: width of the residual stream.
        outputs: width of a prediction.
        dropout: inside the blocks; emb_dropout: on their input.
    """

    def __init__(
        self,
        *,
        history: int,
        inputs: int,
        dim: int,
        outputs: int,
        depth: int,
        heads: int,
        head_dim: int,
        mlp_dim: int,
        dropout: float,
        emb_dropout: float,
        attention: str = "auto",
    ):
        super().__init__()
        self.pos_embedding = nn.Parameter(torch.randn(1, history, inputs))
        self.dropout = nn.Dropout(emb_dropout)
        self.transformer = _Transformer(
            inputs, dim, outputs, depth, heads, head_dim, mlp_dim, dropout, attention
        )

    def forward(self, latents: Tensor, actions: Tensor) -> Tensor:
        """latents, actions: (B, T, inputs) with T <= history -> (B, T, outputs)."""
        x = self.dropout(latents + self.pos_embedding[:, : latents.shape[1]])
        return self.transformer(x, actions)
