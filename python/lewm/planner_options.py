"""Checks of what `lewm.Planner` is given: each returns the value as the core takes it, or raises an error naming it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lewm.arrays import as_array

__all__ = ["CostFunction"]

_PUBLISHED_ELITES = 30

_READ_BY = {
    **dict.fromkeys(("std_min", "momentum", "return_best"), ("cem", "icem")),
    **dict.fromkeys(("noise_exponent", "kept_elites"), ("icem",)),
    "temperature": ("mppi",),
}
"""Options of some methods, and the methods that read them. The sizes are every method's, although predictive sampling
has no use for ``elites``: a comparison of methods may set them once."""

CostFunction = Callable[[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]], Any]
"""(latents (n, H, D), actions (n, H, A), goal (D,)) -> costs (n,); smaller is better."""


def refuse_unread(
    method: str, options: Mapping[str, Any], cost: str | CostFunction, discount: float | None
) -> None:
    """Raises ValueError for one of ``options`` that the method does not read, and a discount that the cost does not.

    None: not given.
    """
    for name, value in options.items():
        readers = _READ_BY[name]
        if value is not None and method not in readers:
            raise ValueError(
                f"{name}: expected with method {' or '.join(readers)} only, got {value!r} with {method!r}"
            )
    if discount is not None and (callable(cost) or cost != "discounted"):
        told = "a function" if callable(cost) else repr(cost)
        raise ValueError(f"discount: expected with cost discounted only, got {discount!r} with {told}")


def counters(problems: int, problem_ids: Any, plan_index: int) -> tuple[NDArray[np.uint32] | None, int]:
    """What the noise is counted by: ids (B,) or None, and the plan's index."""
    if problem_ids is not None:
        problem_ids = as_array("problem_ids", _uint32("problem_ids", problem_ids), np.uint32, (problems,))
    index = integer("plan_index", plan_index)
    if index is None or not 0 <= index < 2**32:
        raise ValueError(f"plan_index: expected 0..2^32 - 1, got {plan_index!r}")
    return problem_ids, index


def _uint32(name: str, values: Any) -> NDArray[np.uint32]:
    numbers = np.asarray(values)
    if numbers.dtype.kind not in "iu":
        raise TypeError(f"{name}: expected integers, got {numbers.dtype}")
    if numbers.size and not 0 <= numbers.min() <= numbers.max() < 2**32:
        raise ValueError(f"{name}: expected 0..2^32 - 1, got {numbers.min()}..{numbers.max()}")
    return numbers.astype(np.uint32)


def as_array_lead(name: str, value: Any) -> NDArray[np.float32]:
    """A (rows, A) array as a batch of one, (1, rows, A)."""
    if np.ndim(value) != 2:
        raise ValueError(f"{name}: expected (blocks, A), got {np.shape(value)}")
    return as_array(name, value, np.float32, np.shape(value))[None]


def seconds(name: str, deadline: float | None) -> float:
    """A deadline in seconds; None: infinity."""
    if deadline is None:
        return math.inf
    value = number(name, deadline)
    if value is None or math.isnan(value) or value < 0:
        raise ValueError(f"{name}: expected seconds of at least 0, got {deadline!r}")
    return value


def integer(name: str, value: Any) -> int | None:
    """A whole number of 64 bits, or None."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name}: expected an int, got {value!r}")
    if not -(2**63) <= value < 2**63:
        raise ValueError(f"{name}: expected an int of 64 bits, got {value}")
    return int(value)


def checked_seed(value: Any) -> int:
    """A seed of 64 bits."""
    seed = int(value) if isinstance(value, (int, np.integer)) and not isinstance(value, bool) else -1
    if not 0 <= seed < 2**64:
        raise ValueError(f"seed: expected 0..2^64 - 1, got {value!r}")
    return seed


def elite_count(elites: Any, samples: Any) -> int | None:
    """The elites that are asked for, or the published number as far as there are samples."""
    if elites is not None or not isinstance(samples, (int, np.integer)):
        return integer("elites", elites)
    return min(_PUBLISHED_ELITES, max(1, int(samples)))


def number(name: str, value: Any) -> float | None:
    """A number, or None."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(f"{name}: expected a number, got {value!r}")
    return float(value)


def spread(name: str, value: Any) -> float | None:
    """A standard deviation, or None."""
    std = number(name, value)
    if std is not None and not 0 <= std <= float(np.finfo(np.float32).max):
        raise ValueError(f"{name}: expected a finite number of at least 0, in float32, got {value!r}")
    return std


def flag(name: str, value: Any) -> bool | None:
    """True, False, or None."""
    if value is None or isinstance(value, (bool, np.bool_)):
        return None if value is None else bool(value)
    raise TypeError(f"{name}: expected True or False, got {value!r}")


def checked_bounds(
    bounds: Any, action_dim: int, block_dim: int
) -> tuple[list[float] | None, list[float] | None]:
    """Low and high, each per action dimension or per dimension of a block."""
    if bounds is None:
        return None, None
    if not isinstance(bounds, (tuple, list, np.ndarray)) or len(bounds) != 2:
        raise ValueError(f"bounds: expected (low, high), got {bounds!r:.80}")
    sizes = (action_dim, block_dim)
    low = bound("bounds: low", bounds[0], sizes, -math.inf)
    high = bound("bounds: high", bounds[1], sizes, math.inf)
    crossed = np.flatnonzero(np.resize(low, block_dim) > np.resize(high, block_dim))
    if len(crossed):
        raise ValueError(f"bounds: expected low of at most high, got more in dimension {crossed[0]}")
    return low.tolist(), high.tolist()


def bound(name: str, values: Any, sizes: Sequence[int], none: float) -> NDArray[np.float32]:
    """One side of bounds: a number for all of ``sizes[0]`` dimensions, or as many numbers as one of the sizes; ``none``
    is the infinity that bounds nothing."""
    try:
        wide = np.asarray(values, np.float64)
    except (TypeError, ValueError):
        raise TypeError(f"{name}: expected numbers, got {values!r:.80}") from None
    if wide.ndim == 0:
        wide = np.full(sizes[0], wide)
    if wide.shape not in [(size,) for size in sizes]:
        raise ValueError(f"{name}: expected a number or ({sizes[0]},), got {wide.shape}")
    wrong = ~(np.abs(wide) <= np.finfo(np.float32).max) & (wide != none)
    if wrong.any():
        raise ValueError(f"{name}: expected numbers of float32 or {none}, got {wide[wrong][0]}")
    return wide.astype(np.float32)


def checked_cost(cost: CostFunction) -> Callable[..., NDArray[np.float32]]:
    """The user's cost, its result a contiguous float32 array of one number per candidate."""

    def checked(
        latents: NDArray[np.float32], actions: NDArray[np.float32], goal: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        result = cost(latents, actions, goal)
        if hasattr(result, "detach"):
            result = result.detach()
        try:
            costs = np.asarray(result, np.float32, order="C")
        except (TypeError, ValueError):
            raise TypeError(f"cost: expected numbers from the function, got {result!r:.80}") from None
        if costs.shape != (len(latents),):
            raise ValueError(f"cost: expected ({len(latents)},) from the function, got {costs.shape}")
        return costs

    return checked
