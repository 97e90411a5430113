"""The shape of the latent space: how straight trajectories run, and how many dimensions are in use."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["effective_rank", "principal_plane", "straightness"]

Array = NDArray[np.float32]


def straightness(latents: Array, episode: NDArray[np.integer]) -> float:
    """Temporal straightening: the mean cosine between consecutive latent velocities.

    1 is a straight line at any speed, 0 a random walk in many dimensions, negative turns back.

    Args:
        latents: (N, D), frames of an episode in time order and at equal distances.
        episode: (N,) episode of each frame; velocities do not cross episodes.

    Raises:
        ValueError: no episode has three frames that differ.
    """
    velocity = np.diff(latents.astype(np.float64), axis=0)
    inside = episode[1:] == episode[:-1]
    first, second = velocity[:-1], velocity[1:]
    length = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    usable = inside[:-1] & inside[1:] & (length > 1e-12)
    if not usable.any():
        raise ValueError("latents: expected an episode with at least 3 different frames")
    return float(np.mean((first * second).sum(axis=1)[usable] / length[usable]))


def effective_rank(latents: Array) -> float:
    """Directions that latents spread over, 1..D: exp of the entropy of their normalised singular values, once centred.

    1 also when all latents are equal. Source: Roy and Vetterli, "The effective rank", EUSIPCO 2007.

    Args:
        latents: (N, D), N >= 2.
    """
    centred = latents.astype(np.float64) - latents.mean(axis=0, dtype=np.float64)
    spectrum = np.linalg.svd(centred, compute_uv=False)
    total = spectrum.sum()
    if total <= 0.0:
        return 1.0  # all latents are equal: a collapsed encoder
    share = spectrum[spectrum > 0.0] / total
    return float(np.exp(-(share * np.log(share)).sum()))


def principal_plane(latents: Array) -> tuple[Array, NDArray[np.float64]]:
    """Coordinates along the two leading principal components (N, 2), and their variance shares (2,).

    Latents of one dimension have a second component of zeros.
    """
    centred = latents.astype(np.float64) - latents.mean(axis=0, dtype=np.float64)
    if centred.shape[1] == 1:
        centred = np.pad(centred, ((0, 0), (0, 1)))
    spectrum, basis = np.linalg.eigh(centred.T @ centred)
    plane = (centred @ basis[:, ::-1][:, :2]).astype(np.float32)
    return plane, spectrum[::-1][:2] / max(float(spectrum.sum()), 1e-300)
