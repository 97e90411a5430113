"""Training checkpoints: everything that a run needs to go on as if it had not been interrupted."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lewm.checkpoint.atomic import replace_file
from lewm.errors import Error

__all__ = ["VERSION", "read_checkpoint", "restore_rng", "rng_state", "write_checkpoint"]

VERSION = 1


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
