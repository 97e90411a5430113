"""Figures of the analyses, as PNG bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lewm.analysis.geometry import principal_plane
from lewm.figures import new_figure, png

__all__ = ["latent_plane", "strip", "surprise_curves"]


def latent_plane(latents: NDArray[np.float32], columns: Mapping[str, NDArray[Any]], most: int = 6) -> bytes:
    """The latents' leading two principal components, once per recorded number, coloured by it.

    Args:
        latents: (N, D). columns: name -> (N, width). most: panels.
    """
    plane, share = principal_plane(latents)
    values = [
        (f"{name}[{i}]", matrix[:, i])
        for name, matrix in columns.items()
        for i in range(matrix.shape[1])
        if np.ptp(matrix[:, i]) > 0
    ][:most]
    across = max(1, min(3, len(values)))
    down = max(1, -(-len(values) // across))
    figure = new_figure(3.6 * across, 3.2 * down)
    axes = figure.subplots(down, across, squeeze=False).ravel()
    for axis in axes[len(values) :]:
        axis.set_axis_off()
    for axis, (title, value) in zip(axes, values, strict=False):
        points = axis.scatter(plane[:, 0], plane[:, 1], c=value, s=2, cmap="viridis", rasterized=True)
        figure.colorbar(points, ax=axis)
        axis.set_title(title, fontsize=9)
        axis.set_xlabel(f"component 1 ({share[0]:.0%} of the variance)", fontsize=8)
        axis.set_ylabel(f"component 2 ({share[1]:.0%})", fontsize=8)
    return png(figure)


def surprise_curves(surprises: Mapping[str, NDArray[np.float32]], perturbed_frame: int) -> bytes:
    """Mean surprise over time with its standard error, per variant; a line marks the perturbed frame.

    Args:
        surprises: variant -> (N, T); entry t belongs to frame t + 1.
        perturbed_frame: the first frame that shows the perturbation.
    """
    figure = new_figure(7.0, 3.6)
    axis = figure.subplots()
    for name, values in surprises.items():
        frames = np.arange(1, values.shape[1] + 1)
        mean = values.mean(axis=0)
        error = values.std(axis=0, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.zeros_like(mean)
        axis.plot(frames, mean, label="unperturbed" if name == "none" else name)
        axis.fill_between(frames, mean - error, mean + error, alpha=0.25)
    axis.axvline(perturbed_frame, color="grey", linestyle="--", linewidth=1)
    axis.set_xlabel("frame (blocks)")
    axis.set_ylabel("surprise (squared error of the predicted latent)")
    axis.legend()
    return png(figure)


def strip(rows: Sequence[tuple[str, NDArray[np.uint8]]]) -> bytes:
    """Rows of frames (T, H, W, 3) under each other, labelled: real against imagined."""
    length = max(len(frames) for _, frames in rows)
    figure = new_figure(1.3 * length + 0.8, 1.4 * len(rows))
    axes = figure.subplots(len(rows), length, squeeze=False)
    for line, (label, frames) in zip(axes, rows, strict=True):
        for t, axis in enumerate(line):
            axis.set_xticks([])
            axis.set_yticks([])
            if t < len(frames):
                axis.imshow(frames[t])
            else:
                axis.set_axis_off()
        line[0].set_ylabel(label, fontsize=9)
    return png(figure)
