"""Training checkpoints: everything that a run needs to go on as if it had not been interrupted."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lewm.checkpoint.atomic import replace_file
from lewm.errors import Error

__all__ = [
    "VERSION",
    "read_checkpoint",
    "read_run",
    "require_moments",
    "require_state",
    "restore_rng",
    "rng_state",
    "write_checkpoint",
]

VERSION = 1
_RUN: dict[str, tuple[type, ...]] = {
    "step": (int,),
    "seconds": (float, int),
    "best_val_loss": (float, int),
    "config": (dict,),
    "model": (dict,),
    "optimizer": (dict,),
    "generators": (list,),
}
_MOMENTS = ("exp_avg", "exp_avg_sq")  # of AdamW


def write_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Writes tensors, numbers, strings and containers of them to `path`, whole or not at all."""
    with replace_file(path) as file:
        torch.save({"version": VERSION, **content}, file)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """What `write_checkpoint` wrote, on the CPU. No code in the file can run.

    Raises:
        FileNotFoundError: there is no such file.
        lewm.Error: it is truncated, or no training checkpoint of a version that this lewm reads.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no checkpoint to resume from")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # zip, pickle and torch each have their own errors for a damaged file
        raise Error(f"{path}: not readable as a training checkpoint: {error}") from None
    version = content.get("version") if isinstance(content, dict) else None
    if version != VERSION:
        raise Error(f"{path}: expected a training checkpoint of version {VERSION}, got {version!r}")
    return content


def read_run(path: Path) -> dict[str, Any]:
    """`read_checkpoint` of one that a run writes to go on from.

    Raises lewm.Error for another one, a trained model's say.
    """
    content = read_checkpoint(path)
    for name, kinds in _RUN.items():
        if not isinstance(content.get(name), kinds):
            got = type(content[name]).__name__ if name in content else "none"
            raise Error(f"{path}: expected the state of a run, with {name} ({kinds[0].__name__}), got {got}")
    if content["step"] < 0:
        raise Error(f"{path}: step: expected at least 0, got {content['step']}")
    return content


def require_state(model: nn.Module, state: Any, path: Path) -> None:
    """Raises lewm.Error unless the names and shapes in `state` are those of the model's state dict."""
    expected = model.state_dict()
    if not isinstance(state, Mapping):
        raise Error(f"{path}: model: expected a state dict, got {type(state).__name__}")
    for name in [*expected, *state]:
        wanted, got = (_shape(tensors[name]) if name in tensors else None for tensors in (expected, state))
        if wanted != got:
            raise Error(
                f"{path}: model: {name}: expected {wanted or 'no such tensor'}, got {got or 'none'}; the file is "
                "another model's, or the code of its encoder has changed"
            )


def require_moments(parameters: Iterable[nn.Parameter], state: Mapping[str, Any], path: Path) -> None:
    """Raises lewm.Error unless `state` is one of an AdamW over these parameters.

    torch does not look: its fused step reads and writes beyond a moment that is too small.
    """
    shapes = {index: tuple(parameter.shape) for index, parameter in enumerate(parameters)}
    moments = state.get("state")
    if not isinstance(moments, Mapping) or not moments.keys() <= shapes.keys():
        raise Error(f"{path}: optimizer: expected the moments of {len(shapes)} parameters, got others")
    for index, of_one in moments.items():
        for name, shape in (("step", ()), *((name, shapes[index]) for name in _MOMENTS)):
            got = _shape(of_one.get(name)) if isinstance(of_one, Mapping) else "no moments"
            if got != str(shape):
                raise Error(f"{path}: optimizer: {name} of parameter {index}: expected {shape}, got {got}")


def _shape(value: Any) -> str:
    return str(tuple(value.shape)) if isinstance(value, Tensor) else type(value).__name__


def rng_state(device: torch.device) -> dict[str, Any]:
    """The states of the generators of torch (CPU and `device`), numpy and random."""
    kind, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    state: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "numpy": (kind, torch.from_numpy(np.asarray(keys, np.int64)), position, has_gauss, cached),
        "random": random.getstate(),
    }
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def restore_rng(state: dict[str, Any], device: torch.device) -> None:
    """Puts the generators into a state that `rng_state` returned."""
    torch.set_rng_state(state["torch"])
    kind, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    version, words, gauss = state["random"]
    random.setstate((version, tuple(words), gauss))
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)
