"""Success rates with their uncertainty."""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["Rate", "wilson_interval"]

_Z95 = 1.959963984540054  # the 97.5% quantile of the standard normal


def wilson_interval(successes: int, trials: int, z: float = _Z95) -> tuple[float, float]:
    """The Wilson score interval of a proportion, 95% by default: (low, high), each in [0, 1].

    Raises:
        ValueError: ``trials`` is below 1, or ``successes`` is not between 0 and ``trials``.
    """
    if trials < 1:
        raise ValueError(f"trials: expected at least 1, got {trials}")
    if not 0 <= successes <= trials:
        raise ValueError(f"successes: expected 0 to {trials}, got {successes}")
    p = successes / trials
    scale = 1.0 + z * z / trials
    center = (p + z * z / (2 * trials)) / scale
    half = z * math.sqrt(p * (1 - p) / trials + z * z / (4 * trials * trials)) / scale
    return max(0.0, center - half), min(1.0, center + half)


@dataclass(frozen=True)
class Rate:
    """Successes out of trials."""

    successes: int
    trials: int

    @property
    def value(self) -> float:
        """The proportion, in [0, 1]."""
        return self.successes / self.trials

    @property
    def interval(self) -> tuple[float, float]:
        """95% Wilson interval, in [0, 1]."""
        return wilson_interval(self.successes, self.trials)

    def as_dict(self) -> dict[str, float | int | list[float]]:
        """For JSON."""
        return {
            "successes": self.successes,
            "trials": self.trials,
            "rate": self.value,
            "interval_95": list(self.interval),
        }

    def __str__(self) -> str:
        low, high = self.interval
        return f"{100 * self.value:.1f}% [{100 * low:.1f}, {100 * high:.1f}] ({self.successes}/{self.trials})"
