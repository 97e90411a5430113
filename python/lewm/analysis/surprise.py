"""The surprise test: does the model's prediction error jump when something impossible happens?

After arXiv 2603.19312 (violation of expectation): the same episode is played unperturbed, with an object's
colour changed midway, and with an object teleported at the same step. Surprise is the mean squared error of the
next latent's prediction. A model of the world is surprised by a teleport; a model that has learned to ignore
appearance is not surprised by a colour.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lewm.arrays import at_least

if TYPE_CHECKING:
    from lewm.envs.base import GoalEnv, Policy
    from lewm.model import Model

__all__ = ["PairedTest", "Trajectory", "paired_test", "play", "surprise_of", "surprise_test"]

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Trajectory:
    """Frames at block boundaries and the blocks between them."""

    frames: NDArray[np.uint8]
    """(T + 1, H, W, 3)"""
    actions: Array
    """(T, frame_skip, action_dim) in environment units: row t leaves frame t."""


@dataclass(frozen=True)
class PairedTest:
    """Perturbed minus unperturbed surprise over N pairs, at the first frame that shows the perturbation."""

    kind: str
    pairs: int
    mean_difference: float
    t: float
    p: float
    """Two-sided, of a paired t-test."""
    effect_size: float
    """Cohen's d of the differences: their mean over their standard deviation."""

    @property
    def significant(self) -> bool:
        """p < 0.01 and the perturbed frame is the more surprising one."""
        return self.p < 0.01 and self.mean_difference > 0.0


def play(
    env: GoalEnv,
    policy: Policy,
    *,
    seed: int,
    blocks: int,
    frame_skip: int,
    kind: str | None = None,
    perturb_at: int | None = None,
) -> Trajectory:
    """Plays one episode, perturbed or not; the same seed gives the same episode up to the perturbation.

    Args:
        env: where; it is reset.
        policy: chooses the actions from the state it is in (a teleported agent goes on from where it lands).
        seed: of the episode and of the perturbation.
        blocks: T, the length in blocks; the episode does not end early when its goal is reached.
        frame_skip: environment steps in a block.
        kind: one of ``env.perturbations``, or None.
        perturb_at: the perturbation happens after this many blocks, just before that frame is seen; 1..T.

    Raises:
        ValueError: the environment knows no such perturbation, or perturb_at is out of range.
    """
    if kind is not None and (perturb_at is None or not 1 <= perturb_at <= blocks):
        raise ValueError(f"perturb_at: expected 1..{blocks}, got {perturb_at}")
    env.reset(seed=seed)
    policy.reset(env, np.random.default_rng(seed))
    frames, actions = [env.render()], []
    for block in range(1, blocks + 1):
        for _ in range(frame_skip):
            action = policy.act(env)
            env.step(action)
            actions.append(action)
        if kind is not None and block == perturb_at:
            env.perturb(kind, np.random.default_rng([seed, 1]))
        frames.append(env.render())
    stacked = np.asarray(actions, dtype=np.float32).reshape(blocks, frame_skip, -1)
    return Trajectory(frames=np.stack(frames), actions=stacked)


def surprise_of(model: Model, trajectory: Trajectory) -> Array:
    """Squared error of the prediction of each frame's latent from the frames before it, averaged over D.

    The prediction sees as many frames as there are, at most the model's history.

    Returns:
        (T,) float32; entry t belongs to frame t + 1.
    """
    history, length = model.config.history, len(trajectory.actions)
    latents = model.encode(trajectory.frames)  # (T + 1, D)
    blocks = model.standardise(trajectory.actions)  # (T, A)
    error = np.empty(length, np.float32)
    for t in range(length):
        first = max(0, t + 1 - history)
        predicted = model.rollout(
            latents[None, first : t + 1],
            blocks[None, None, t : t + 1],
            past_actions=blocks[None, first:t] if t > first else None,
        )
        error[t] = np.mean((predicted[0, 0, 0] - latents[t + 1]) ** 2)
    return error


def paired_test(kind: str, perturbed: Array, unperturbed: Array) -> PairedTest:
    """A paired t-test of two (N,) series of surprises.

    Raises:
        ValueError: fewer than two pairs, or different lengths.
    """
    if perturbed.shape != unperturbed.shape or perturbed.ndim != 1 or len(perturbed) < 2:
        raise ValueError(
            f"perturbed: expected (N,) like unperturbed, N >= 2, got {perturbed.shape}, {unperturbed.shape}"
        )
    from scipy import stats

    difference = perturbed.astype(np.float64) - unperturbed.astype(np.float64)
    spread = difference.std(ddof=1)
    if spread == 0.0:  # nothing moved, or all pairs moved alike: the t statistic is 0 or infinite
        t = size = float(np.copysign(np.inf, difference[0])) if difference[0] else 0.0
        p = 0.0 if difference[0] else 1.0
    else:
        t, p = (float(value) for value in stats.ttest_rel(perturbed, unperturbed))
        size = float(difference.mean() / spread)
    return PairedTest(kind, len(difference), float(difference.mean()), t, p, size)


def surprise_test(
    model: Model,
    env: GoalEnv,
    policy: Policy,
    *,
    pairs: int = 50,
    blocks: int = 12,
    kinds: Sequence[str] | None = None,
    seed: int = 0,
    progress: Callable[[int], Any] = lambda done: None,
) -> tuple[list[PairedTest], dict[str, Array]]:
    """Plays `pairs` episodes in every variant and tests each perturbation against the unperturbed one.

    Args:
        pairs: N, at least 2.
        blocks: T, at least 2; the perturbation happens after T // 2.
        kinds: of ``env.perturbations``; None: all of them.
        progress: called with the number of finished pairs.

    Returns:
        One test per kind, and the surprises over time, "none" and kind -> (N, T).

    Raises:
        ValueError: a number is out of range, or the environment knows no such perturbation.
    """
    for name, value, least in (("pairs", pairs, 2), ("blocks", blocks, 2), ("seed", seed, 0)):
        at_least(name, value, least)
    kinds = tuple(env.perturbations if kinds is None else kinds)
    if not kinds:
        raise ValueError(f"kinds: {env.env_id} knows no perturbation")
    middle = blocks // 2
    curves: dict[str, list[Array]] = {kind: [] for kind in ("none", *kinds)}
    for pair in range(pairs):
        for name, curve in curves.items():
            trajectory = play(
                env,
                policy,
                seed=seed + pair,
                blocks=blocks,
                frame_skip=model.config.frame_skip,
                kind=None if name == "none" else name,
                perturb_at=middle,
            )
            curve.append(surprise_of(model, trajectory))
        progress(pair + 1)
    surprises = {name: np.stack(curve) for name, curve in curves.items()}
    at = middle - 1  # the entry of the frame that shows the perturbation first
    tests = [paired_test(kind, surprises[kind][:, at], surprises["none"][:, at]) for kind in kinds]
    return tests, surprises
