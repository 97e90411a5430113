"""Probes: what physical quantities can be read off the latents, linearly and by a small MLP.

The protocol of arXiv 2603.19312: a regressor is fitted from frozen latents to standardised targets and judged
on held-out episodes by mean squared error and Pearson correlation. Two controls of the same width say what the
score means: the same encoder with random weights, and the principal components of the raw pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "ProbeScore",
    "Split",
    "angles_as_waves",
    "pixel_components",
    "probe_features",
    "split_episodes",
    "standardised_targets",
    "whitened",
]

Array = NDArray[np.float32]

_NOISE_FLOOR = 1e-3  # of a component's variance, relative to the largest
_LEAST_MLP_ROWS = 11  # early stopping sets a tenth of them aside, and scikit-learn wants two there
_PCA_SIDE = 64  # pixels; larger frames are averaged down before their components are computed


@dataclass(frozen=True)
class ProbeScore:
    """How well one target is read off one kind of features by one kind of regressor."""

    target: str
    features: str
    regressor: str
    """"linear" or "mlp"."""
    mse: float
    """On held-out frames, targets standardised by the training frames; 1.0 is what the mean would score."""
    mse_std: float
    """Standard deviation of the mean squared error over held-out episodes."""
    r: float
    """Pearson correlation on held-out frames, averaged over the target's dimensions."""

    def row(self) -> dict[str, Any]:
        """A row of a table."""
        return asdict(self)


@dataclass(frozen=True)
class Split:
    """Rows of the training and of the held-out episodes."""

    train: NDArray[np.intp]
    test: NDArray[np.intp]


def split_episodes(episode: NDArray[np.integer], held_out: float, seed: int) -> Split:
    """Splits frames by episode, so that no held-out frame has a neighbour among the training frames.

    Args:
        episode: (N,) episode of each frame.
        held_out: share of the episodes that is held out; at least one is, and at least one is kept.
        seed: which ones.

    Raises:
        ValueError: fewer than two episodes.
    """
    ids = np.unique(episode)
    if len(ids) < 2:
        raise ValueError(f"episode: expected at least 2 different episodes, got {len(ids)}")
    count = min(len(ids) - 1, max(1, round(held_out * len(ids))))
    chosen = np.random.default_rng(seed).choice(ids, count, replace=False)
    is_test = np.isin(episode, chosen)
    return Split(train=np.flatnonzero(~is_test), test=np.flatnonzero(is_test))


def angles_as_waves(columns: Mapping[str, NDArray[Any]], angles: Collection[str]) -> dict[str, NDArray[Any]]:
    """The columns with every angle in place of ``angles`` replaced by its cosine and sine.

    An angle that has no bound, or that jumps by a turn, is no function of what a picture shows; these two are.

    Args:
        columns: name -> (N, width) or (N,), angles in rad.
        angles: names of those that are angles; others are left as they are.

    Returns:
        name -> (N, width); ``NAME (cos, sin)`` -> (N, 2 * width) in place of an angle, all cosines first.
    """
    waves: dict[str, NDArray[Any]] = {}
    for name, values in columns.items():
        if name in angles:
            turns = np.asarray(values, dtype=np.float64).reshape(len(values), -1)
            waves[f"{name} (cos, sin)"] = np.concatenate([np.cos(turns), np.sin(turns)], axis=1)
        else:
            waves[name] = values
    return waves


def standardised_targets(
    columns: Mapping[str, NDArray[Any]], train: NDArray[np.intp]
) -> tuple[dict[str, Array], list[str]]:
    """Targets with mean 0 and deviation 1 over the training rows; dimensions that do not vary are left out, and
    columns that have a NaN or an infinity in some row.

    Args:
        columns: name -> (N, width) or (N,).
        train: rows that the mean and the deviation are taken from.

    Returns:
        name -> (N, varying width) float32, and of every column left out its name and why.
    """
    targets: dict[str, Array] = {}
    left_out: list[str] = []
    for name, values in columns.items():
        matrix = np.asarray(values, dtype=np.float64).reshape(len(values), -1)
        if not np.isfinite(matrix).all():
            left_out.append(f"{name} (not finite in {(~np.isfinite(matrix).all(axis=1)).sum()} rows)")
            continue
        mean, std = matrix[train].mean(axis=0), matrix[train].std(axis=0)
        varying = std > 1e-6 * (1.0 + np.abs(mean))
        if varying.any():
            targets[name] = ((matrix - mean) / np.where(varying, std, 1.0))[:, varying].astype(np.float32)
        else:
            left_out.append(f"{name} (nothing varies)")
    return targets, left_out


def pixel_components(frames: NDArray[np.uint8], train: NDArray[np.intp], width: int, seed: int) -> Array:
    """Coordinates of raw frames along the principal components of the training frames.

    Args:
        frames: (N, H, W, 3) uint8.
        train: rows that the components are fitted to.
        width: how many components; fewer when there are fewer training rows.
        seed: of the randomised decomposition.

    Returns:
        (N, width) float32, uncorrelated over the training rows, the widest first; `probe_features` whitens them.
    """
    from sklearn.decomposition import PCA

    factor = max(1, frames.shape[1] // _PCA_SIDE)
    count, height, columns = len(frames), frames.shape[1] // factor, frames.shape[2] // factor
    cut = frames[:, : height * factor, : columns * factor]
    small = cut.reshape(count, height, factor, columns, factor, 3).mean(axis=(2, 4), dtype=np.float32)
    flat = small.reshape(count, -1)
    pca = PCA(n_components=min(width, len(train)), svd_solver="randomized", random_state=seed)
    pca.fit(flat[train])
    return np.asarray(pca.transform(flat), dtype=np.float32)


def probe_features(
    features: Array,
    targets: Mapping[str, Array],
    episode: NDArray[np.integer],
    split: Split,
    *,
    label: str,
    seed: int = 0,
    regressors: tuple[str, ...] = ("linear", "mlp"),
    progress: Callable[[str], None] = lambda text: None,
) -> list[ProbeScore]:
    """Fits every regressor from the features to every target and scores the held-out rows.

    Args:
        features: (N, D) float32; the regressors see their `whitened` form.
        targets: name -> (N, width), standardised (`standardised_targets`).
        episode: (N,) episode of each row.
        split: training and held-out rows.
        label: name of the features in the scores.
        seed: of the MLP's initial weights and batches.
        regressors: of "linear" (least squares) and "mlp" (one hidden layer of 256, early stopping).
        progress: called with a line before each fit.

    Raises:
        ValueError: the arrays disagree in length, there are too few training rows, or an unknown regressor.
    """
    least = _LEAST_MLP_ROWS if "mlp" in regressors else 2
    if len(split.train) < least:
        raise ValueError(f"split: expected at least {least} training rows, got {len(split.train)}")
    for name, values in targets.items():
        if len(values) != len(features):
            raise ValueError(f"{name}: expected {len(features)} rows, got {len(values)}")
    inputs = whitened(features, split.train)
    scores = []
    for regressor in regressors:
        for name, values in targets.items():
            progress(f"{label}: {regressor} probe of {name}")
            model = _regressor(regressor, seed)
            target = values[split.train]
            model.fit(inputs[split.train], target if target.shape[1] > 1 else target[:, 0])
            predicted = model.predict(inputs[split.test]).reshape(len(split.test), -1)
            scores.append(_score(name, label, regressor, predicted, values[split.test], episode[split.test]))
    return scores


def whitened(features: Array, train: NDArray[np.intp]) -> Array:
    """Features as uncorrelated components of at most unit variance over the rows ``train``: (N, D) float32.

    What a linear probe reads stays the same. An MLP learns directions of little variance slowly, and latents hold much
    in such directions: as they are they would lose against pixels, whose components are whitened, for that alone.
    Directions of hardly any variance stay small, as they hold mostly noise: 1e-3 of the largest variance is added to
    every one.

    Args:
        features: (N, D) float32.
        train: (M,) rows, at least two, that means and variances are taken over.
    """
    wide = features.astype(np.float64)
    wide -= wide[train].mean(axis=0)
    wide /= np.maximum(wide[train].std(axis=0), 1e-6)
    variance, axes = np.linalg.eigh(np.cov(wide[train], rowvar=False).reshape(wide.shape[1], -1))
    scale = np.sqrt(np.maximum(variance, 0.0) + _NOISE_FLOOR * max(variance[-1], 1e-12))
    return np.asarray(wide @ (axes / scale), dtype=np.float32)


def _regressor(name: str, seed: int) -> Any:
    if name == "linear":
        from sklearn.linear_model import Ridge

        return Ridge(alpha=1e-3)
    if name == "mlp":
        from sklearn.neural_network import MLPRegressor

        return MLPRegressor(hidden_layer_sizes=(256,), early_stopping=True, max_iter=200, random_state=seed)
    raise ValueError(f"regressors: expected 'linear' or 'mlp', got {name!r}")


def _score(
    target: str, features: str, regressor: str, predicted: Array, truth: Array, episode: NDArray[np.integer]
) -> ProbeScore:
    error = ((predicted - truth) ** 2).mean(axis=1)
    by_episode = [float(error[episode == one].mean()) for one in np.unique(episode)]
    correlations = [_pearson(predicted[:, i], truth[:, i]) for i in range(truth.shape[1])]
    return ProbeScore(
        target=target,
        features=features,
        regressor=regressor,
        mse=float(error.mean()),
        mse_std=float(np.std(by_episode)),
        r=float(np.mean(correlations)),
    )


def _pearson(a: Array, b: Array) -> float:
    """Correlation of two series; 0 when one of them does not vary (it tells nothing about the other)."""
    if np.ptp(a) < 1e-9 or np.ptp(b) < 1e-9:
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])
