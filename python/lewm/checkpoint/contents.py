"""What a checkpoint holds beside its tensors, and its JSON form."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from lewm.checkpoint.safetensors import is_unicode, unique
from lewm.config import LeWMConfig
from lewm.errors import Error

__all__ = ["IMAGENET", "Checkpoint", "Scaling", "from_metadata", "scaling", "to_metadata"]

FORMAT = "lewm"
FORMAT_VERSION = "1"
_LEAST_NORMAL = np.finfo(np.float32).tiny


class Scaling(TypedDict):
    """What standardises a quantity, per colour channel or action dimension: ``(value - mean) / std``."""

    mean: list[float]
    std: list[float]


IMAGENET: Scaling = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}


def scaling(name: str, values: Any, size: int) -> Scaling:
    """The checked copy of a mapping with ``mean`` and ``std``.

    Raises:
        ValueError: it is not ``size`` numbers each that are finite in float32, or a std is not a normal positive one;
            the message begins with ``name``.
    """
    if not isinstance(values, Mapping) or set(values) != {"mean", "std"}:
        raise ValueError(f"{name}: expected mean and std, got {values!r:.80}")
    mean, std = (_numbers(f"{name}.{key}", values[key], size) for key in ("mean", "std"))
    if not (np.asarray(std, np.float32) >= _LEAST_NORMAL).all():
        raise ValueError(f"{name}.std: expected positive normal numbers of float32, got {std}")
    return {"mean": mean, "std": std}


def _numbers(name: str, values: Any, size: int) -> list[float]:
    try:
        if any(isinstance(value, (str, bytes, bool)) for value in values):
            raise TypeError
        numbers = [float(value) for value in values]
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{name}: expected {size} numbers, got {values!r:.80}") from None
    if len(numbers) != size:
        raise ValueError(f"{name}: expected {size} numbers, got {len(numbers)}")
    with np.errstate(over="ignore"):  # as the core does: what rounds to a finite number is one
        finite = np.isfinite(np.asarray(numbers, np.float32)).all()
    if not finite:
        raise ValueError(f"{name}: expected finite numbers of float32, got {numbers}")
    return numbers


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A model as files hold it.

    Raises:
        ValueError: a scaling is not of the configuration's size, not finite in float32, or has a std that is not a
            normal positive number there; or ``provenance`` is no Unicode. TypeError: ``config`` is no LeWMConfig, or
            ``provenance`` no text.
    """

    config: LeWMConfig
    state: dict[str, NDArray[Any]]
    """The tensors, under the names that lewm writes."""
    preprocessing: Scaling = field(default_factory=lambda: scaling("preprocessing", IMAGENET, 3))
    """Of pixels scaled to [0, 1], per colour channel (R, G, B)."""
    action_scaling: Scaling | None = None
    """Of actions, per dimension of one environment step; None: they reach the model as they are."""
    provenance: str | None = None
    """Free text: where the weights come from."""

    def __post_init__(self) -> None:
        if not isinstance(self.config, LeWMConfig):
            raise TypeError(f"config: expected a lewm.LeWMConfig, got {type(self.config).__name__}")
        if not isinstance(self.provenance, (str, type(None))):
            raise TypeError(f"provenance: expected text, got {type(self.provenance).__name__}")
        if self.provenance is not None and not is_unicode(self.provenance):
            raise ValueError(f"provenance: expected text that UTF-8 holds, got {self.provenance!r:.80}")
        # Lists of floats, whatever they came as.
        object.__setattr__(self, "preprocessing", scaling("preprocessing", self.preprocessing, 3))
        if self.action_scaling is not None:
            actions = scaling("action_scaling", self.action_scaling, self.config.action_dim)
            object.__setattr__(self, "action_scaling", actions)


def to_metadata(checkpoint: Checkpoint) -> dict[str, str]:
    """The ``__metadata__`` of a deployment file."""
    metadata = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "config": checkpoint.config.to_json(),
        "preprocessing": json.dumps(checkpoint.preprocessing),
    }
    if checkpoint.action_scaling is not None:
        metadata["action_scaling"] = json.dumps(checkpoint.action_scaling)
    if checkpoint.provenance is not None:
        metadata["provenance"] = checkpoint.provenance
    return metadata


def from_metadata(metadata: dict[str, str], state: dict[str, NDArray[Any]], source: str) -> Checkpoint:
    """The checkpoint of a deployment file; its tensors are not compared with its config here.

    Raises:
        lewm.Error: the metadata is missing a part, malformed, or of a later format.
    """
    if metadata.get("format") != FORMAT:
        raise Error(f"{source}: format: expected {FORMAT!r} in its metadata, got {metadata.get('format')!r}")
    if metadata.get("format_version") != FORMAT_VERSION:
        raise Error(
            f"{source}: format_version: this lewm reads {FORMAT_VERSION!r}, got {metadata.get('format_version')!r}"
        )
    for key in ("config", "preprocessing"):
        if key not in metadata:
            raise Error(f"{source}: {key}: missing from its metadata")
    try:
        config = LeWMConfig.from_dict(_object(metadata["config"]))
        actions = metadata.get("action_scaling")
        return Checkpoint(
            config,
            state,
            scaling("preprocessing", _object(metadata["preprocessing"]), 3),
            None if actions is None else scaling("action_scaling", _object(actions), config.action_dim),
            metadata.get("provenance"),
        )
    except (ValueError, TypeError, RecursionError) as error:
        raise Error(f"{source}: metadata: {error}") from None


def _object(text: str) -> dict[str, Any]:
    value = json.loads(text, object_pairs_hook=unique)
    if not isinstance(value, dict):
        raise ValueError(f"expected a JSON object, got {type(value).__name__}")
    return value
