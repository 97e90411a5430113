"""Checkpoints: published folders, deployment files, and the way from one to the other."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lewm.checkpoint.contents import Checkpoint, scaling
from lewm.checkpoint.files import read_checkpoint, write_checkpoint
from lewm.checkpoint.names import expected_shapes, from_any_naming
from lewm.config import LeWMConfig
from lewm.errors import Error

__all__ = ["Checkpoint", "convert", "expected_shapes", "read_checkpoint", "save", "write_checkpoint"]


def save(
    model_or_state: Any,
    path: str | os.PathLike[str],
    *,
    config: LeWMConfig | None = None,
    preprocessing: Mapping[str, Sequence[float]] | None = None,
    action_mean: Sequence[float] | None = None,
    action_std: Sequence[float] | None = None,
    provenance: str | None = None,
    transformers: int = 4,
) -> None:
    """Writes a model: one deployment file where ``path`` ends in ``.safetensors``, else a published folder.

    The folder (``weights.pt``, ``config.json``) is what ``stable_worldmodel.wm.utils.load_pretrained`` opens; a
    third file, ``lewm.json``, keeps what that layout has no place for.

    Args:
        model_or_state: a lewm.LeWM, a lewm.Model, a Checkpoint, or a state dict (name -> numpy array or torch tensor,
            either naming of the encoder), which needs ``config``.
        preprocessing: mean and std per colour channel of pixels scaled to [0, 1]; by default the model's own, else
            ImageNet's.
        action_mean: per dimension of one environment step, with ``action_std``; by default the model's own, else
            actions reach the model as they are.
        provenance: free text kept in a deployment file.
        transformers: the encoder's naming in a folder: 4 (as published) or 5, for a stable-worldmodel that runs on
            transformers 5, which only accepts its own.

    Raises:
        TypeError: ``model_or_state`` is none of these, ``config`` no LeWMConfig, or ``provenance`` no text.
        ValueError: ``config`` is missing, or a mean or std does not fit it.
        lewm.Error: the tensors are not those of the configuration, or not finite, or the model is of a kind that these
            files do not hold (one with another encoder, a behaviour-cloning policy).
        OSError: the files cannot be written.
    """
    checkpoint = _as_checkpoint(model_or_state, config)
    if preprocessing is not None:
        checkpoint = replace(checkpoint, preprocessing=scaling("preprocessing", preprocessing, 3))
    if provenance is not None:
        checkpoint = replace(checkpoint, provenance=provenance)
    write_checkpoint(path, _with_scaling(checkpoint, action_mean, action_std), transformers)


def convert(
    src: str | os.PathLike[str],
    dst: str | os.PathLike[str],
    *,
    frame_skip: int | None = None,
    action_mean: Sequence[float] | None = None,
    action_std: Sequence[float] | None = None,
    transformers: int = 4,
) -> None:
    """Reads any checkpoint that ``lewm.load`` opens and writes it as ``lewm.save`` does.

    Args:
        src: a published folder, its ``.pt`` file, or a ``.safetensors`` file.
        dst: a name that ends in ``.safetensors`` (a deployment file) or a folder.
        frame_skip: environment steps in an action block, where ``src`` does not record it.
        action_mean: with ``action_std``, the action standardisation of the training data, per dimension of one
            environment step; replaces what ``src`` records.
        transformers: as in ``lewm.save``.

    Raises:
        FileNotFoundError: there is nothing at ``src``.
        lewm.Error: ``src`` is truncated, contradicts itself, or is of another kind.
        ValueError: an argument does not fit the checkpoint.
    """
    write_checkpoint(
        dst, _with_scaling(read_checkpoint(src, frame_skip), action_mean, action_std), transformers
    )


def _with_scaling(
    checkpoint: Checkpoint, mean: Sequence[float] | None, std: Sequence[float] | None
) -> Checkpoint:
    if (mean is None) != (std is None):
        raise ValueError("action_mean, action_std: expected both or neither")
    if mean is None or std is None:
        return checkpoint
    actions = scaling("action_scaling", {"mean": mean, "std": std}, checkpoint.config.action_dim)
    return replace(checkpoint, action_scaling=actions)


def _as_checkpoint(value: Any, config: LeWMConfig | None) -> Checkpoint:
    if isinstance(value, Checkpoint):
        return value
    if getattr(value, "not_exportable", None):
        raise Error(value.not_exportable)
    if hasattr(value, "state_dict"):  # a torch module; lewm.LeWM knows its sizes and scalings
        checkpoint = _as_checkpoint(value.state_dict(), config or getattr(value, "config", None))
        known = {name: getattr(value, name, None) for name in ("preprocessing", "action_scaling")}
        return replace(checkpoint, **{name: scale for name, scale in known.items() if scale is not None})
    if hasattr(value, "checkpoint"):  # lewm.Model
        checkpoint = value.checkpoint()
        assert isinstance(checkpoint, Checkpoint)
        return checkpoint
    if not isinstance(value, Mapping):
        raise TypeError(f"model_or_state: expected a model or a state dict, got {type(value).__name__}")
    if config is None:
        raise ValueError("config: a state dict needs its LeWMConfig")
    return Checkpoint(
        config, from_any_naming({name: _as_array(name, tensor) for name, tensor in value.items()})
    )


def _as_array(name: str, tensor: Any) -> NDArray[Any]:
    """The tensor as an array; torch's come from any device, and bfloat16 as float32."""
    if not isinstance(name, str):
        raise TypeError(f"model_or_state: expected names of tensors, got {name!r:.80}")
    if isinstance(tensor, np.ndarray):
        return tensor
    if not hasattr(tensor, "detach"):
        raise TypeError(f"{name}: expected a numpy array or a torch tensor, got {type(tensor).__name__}")
    tensor = tensor.detach().cpu()
    array: NDArray[Any] = (tensor.float() if str(tensor.dtype) == "torch.bfloat16" else tensor).numpy()
    return array
