"""SIGReg in plain torch: the readable reference, and what runs where the compiled kernels do not.

Per time step t and unit direction u_m, with p = z u_m over a batch of B, knots s_k on [0, t_max], window
phi_k = exp(-s_k^2 / 2) and trapezoid weights w_k (both halves of the symmetric integral, window included)::

    C_k = mean_b cos(s_k p_b)        S_k = mean_b sin(s_k p_b)
    T   = B * sum_k w_k ((C_k - phi_k)^2 + S_k^2)
    dT/dp_b = 2 * sum_k w_k s_k (S_k cos(s_k p_b) - (C_k - phi_k) sin(s_k p_b))

Source: LeJEPA (arXiv 2511.08544), the Epps-Pulley statistic. Columns are worked through in tiles, so nothing of
size B*M*K is stored. Projections and sums are float64: an angle s_k p of thousands keeps its fraction of a turn.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

__all__ = ["characteristic_sums", "directions", "gradient", "knots_and_weights", "statistic", "wide_dtype"]

_TILE_ELEMENTS = 1 << 22  # T*B*columns held at once

_PHILOX_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_PHILOX_WEYL = (0x9E3779B9, 0xBB67AE85)
_WORD = 0xFFFFFFFF


def wide_dtype(device: torch.device) -> torch.dtype:
    """The dtype of projections and sums: float64 wherever the device has it."""
    return torch.float32 if device.type == "mps" else torch.float64


def _multiply_words(a: int, b: Tensor) -> tuple[Tensor, Tensor]:
    """High and low word of a * b, 32-bit words held in int64; a product that wraps still has the right bits."""
    product = a * b
    return (product >> 32) & _WORD, product & _WORD


def _philox(seed: Tensor, counter: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Philox4x32-10 (Salmon et al. 2011) of counter (c0, c1, 0, 0) under the 64-bit key `seed`."""
    c0, c1 = counter
    c2 = c3 = torch.zeros_like(c0)
    k0, k1 = seed & _WORD, (seed >> 32) & _WORD
    for _ in range(10):
        high0, low0 = _multiply_words(_PHILOX_MULTIPLIERS[0], c0)
        high1, low1 = _multiply_words(_PHILOX_MULTIPLIERS[1], c2)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + _PHILOX_WEYL[0]) & _WORD, (k1 + _PHILOX_WEYL[1]) & _WORD
    return c0, c1, c2, c3


def directions(seed: Tensor, dim: int, num_proj: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Unit directions (D, M), columns of a Gaussian matrix, normalised; the same on every device and rank.

    Args:
        seed: int64 scalar, the Philox key. Rows 4j..4j+3 of column m come from counter (j, m, 0, 0) by
            Box-Muller.
    """
    wide = wide_dtype(device)
    row = torch.arange((dim + 3) // 4, device=device).unsqueeze(1)
    column = torch.arange(num_proj, device=device).unsqueeze(0)
    words = _philox(seed.to(device), (row + 0 * column, column + 0 * row))
    normals = []
    for radius_word, angle_word in (words[:2], words[2:]):
        uniform = ((radius_word >> 1).to(wide) + 0.5) * 2.0**-31
        radius = (-2.0 * uniform.log()).sqrt()
        angle = angle_word.to(wide) * (2.0 * math.pi * 2.0**-32)
        normals += [radius * angle.cos(), radius * angle.sin()]
    gaussian = torch.stack(normals, dim=1).reshape(-1, num_proj)[:dim]  # (D, M)
    return (gaussian / gaussian.norm(dim=0).clamp_min(1e-30)).to(dtype)


def knots_and_weights(knots: int, t_max: float, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """s_k, phi_k and w_k, (K,) each; w_k counts both halves of the integral and includes the window."""
    dtype = wide_dtype(device)
    s = torch.linspace(0.0, t_max, knots, dtype=dtype, device=device)
    phi = torch.exp(-s.square() / 2)
    step = t_max / (knots - 1)
    weights = torch.full((knots,), 2 * step, dtype=dtype, device=device)
    weights[0] = weights[-1] = step
    return s, phi, weights * phi


def _tiles(z: Tensor, num_proj: int) -> Iterator[slice]:
    width = max(1, _TILE_ELEMENTS // max(1, z.shape[0] * z.shape[1]))
    for first in range(0, num_proj, width):
        yield slice(first, min(first + width, num_proj))


def _project(z: Tensor, u: Tensor) -> Tensor:
    wide = wide_dtype(z.device)
    return z.to(wide) @ u.to(wide)


def characteristic_sums(z: Tensor, u: Tensor, knots: int, t_max: float) -> Tensor:
    """sum_b cos(s_k p_b) and sum_b sin(s_k p_b), as (T, M, 2, K) float64, of z (T, B, D) along u (D, M)."""
    s, _, _ = knots_and_weights(knots, t_max, z.device)
    sums = s.new_empty(z.shape[0], u.shape[1], 2, knots)
    for tile in _tiles(z, u.shape[1]):
        p = _project(z, u[:, tile])  # (T, B, columns)
        for k in range(knots):
            angle = s[k] * p
            sums[:, tile, 0, k] = angle.cos().sum(dim=1)
            sums[:, tile, 1, k] = angle.sin().sum(dim=1)
    return sums


def statistic(sums: Tensor, batch: int | Tensor, t_max: float) -> Tensor:
    """The mean statistic over time steps and directions, float64, from sums (T, M, 2, K) over `batch` samples."""
    _, phi, weights = knots_and_weights(sums.shape[-1], t_max, sums.device)
    mean = sums / batch
    error = (mean[:, :, 0] - phi).square() + mean[:, :, 1].square()
    return (error @ weights).mean() * batch


def gradient(z: Tensor, u: Tensor, sums: Tensor, batch: int | Tensor, t_max: float) -> Tensor:
    """d statistic / d z, (T, B, D) float64; sums may cover more samples than z, those of other ranks."""
    s, phi, weights = knots_and_weights(sums.shape[-1], t_max, z.device)
    steps, num_proj = sums.shape[:2]
    mean = sums / batch
    scale = 2.0 / (steps * num_proj) * weights * s
    by_cos = scale * mean[:, :, 1]  # (T, M, K)
    by_sin = -scale * (mean[:, :, 0] - phi)
    result = sums.new_zeros(z.shape)
    for tile in _tiles(z, num_proj):
        p = _project(z, u[:, tile])
        slope = torch.zeros_like(p)
        for k in range(1, s.shape[0]):
            angle = s[k] * p
            slope += by_cos[:, None, tile, k] * angle.cos() + by_sin[:, None, tile, k] * angle.sin()
        result += slope @ u[:, tile].to(slope.dtype).T
    return result
