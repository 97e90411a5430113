"""Training curves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lewm.figures import new_figure, svg
from lewm.nn.objectives import PLDM_WEIGHTS

__all__ = ["training_curves"]

_PANELS: tuple[tuple[str, tuple[tuple[str, str], ...], bool], ...] = (
    ("prediction loss", (("pred_loss", "training"), ("val_pred_loss", "validation")), True),
    ("SIGReg", (("sigreg_loss", "training"), ("val_sigreg_loss", "validation")), True),
    (
        "terms of PLDM",
        tuple((name, name.removesuffix("_loss").replace("_", " ")) for name in PLDM_WEIGHTS),
        True,
    ),
    ("loss", (("loss", "training"), ("val_loss", "validation")), True),
    ("effective rank of the latents", (("effective_rank", "validation"),), False),
    (
        "standard deviation of a latent dimension",
        (("latent_std_mean", "mean"), ("latent_std_min", "smallest")),
        False,
    ),
    ("gradient norm", (("grad_norm", ""),), True),
    ("learning rate", (("lr", ""),), False),
)


def training_curves(metrics: Sequence[dict[str, float]]) -> bytes:
    """The columns of metrics.csv that were measured, over the steps, as SVG."""
    measured = set().union(*metrics)
    panels = [panel for panel in _PANELS if any(column in measured for column, _ in panel[1])]
    across = min(3, len(panels))
    down = -(-len(panels) // across)
    figure = new_figure(3.7 * across, 2.5 * down)
    axes = figure.subplots(down, across, squeeze=False).ravel()
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    for axis, (title, lines, logarithmic) in zip(axes, panels, strict=False):
        values = [_draw(axis, metrics, column, label) for column, label in lines]
        if logarithmic and min(map(min, filter(None, values))) > 0:
            axis.set_yscale("log")
        axis.set_title(title, fontsize=10)
        axis.tick_params(labelsize=8)
        axis.grid(alpha=0.3)
        if any(label for _, label in lines) and len(lines) > 1:
            axis.legend(fontsize=8)
    for axis in axes[max(0, len(panels) - across) : len(panels)]:
        axis.set_xlabel("step", fontsize=8)
    return svg(figure)


def _draw(axis: Any, metrics: Sequence[dict[str, float]], column: str, label: str) -> list[float]:
    """Draws a column over the steps that measured it and returns its values."""
    points = [(row["step"], row[column]) for row in metrics if column in row]
    if not points:
        return []
    sparse = len(points) < 40
    axis.plot(*zip(*points, strict=True), label=label, linewidth=1.2, marker="." if sparse else "")
    return [value for _, value in points]
