"""Reading and writing checkpoints: published folders and deployment files."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from lewm.arrays import at_least
from lewm.checkpoint import safetensors
from lewm.checkpoint.atomic import replace_files
from lewm.checkpoint.contents import (
    FORMAT,
    FORMAT_VERSION,
    Checkpoint,
    from_metadata,
    scaling,
    to_metadata,
)
from lewm.checkpoint.names import check_tensors, from_any_naming, to_transformers5
from lewm.checkpoint.published import config_from_nodes, nodes_from_config
from lewm.checkpoint.torch_reader import read_state_dict
from lewm.checkpoint.torch_writer import write_state_dict
from lewm.errors import Error

__all__ = ["PUBLISHED_FILES", "is_deployment_file", "read_checkpoint", "write_checkpoint"]

_SIDECAR = (
    "lewm.json"  # what the published layout has no place for: frame skip, preprocessing, action scaling
)
PUBLISHED_FILES = ("config.json", _SIDECAR, "weights.pt")
"""What `write_checkpoint` writes into a folder."""
_MAX_JSON = 1 << 20  # bytes


def read_checkpoint(path: str | os.PathLike[str], frame_skip: int | None = None) -> Checkpoint:
    """Reads a checkpoint without torch and without running anything that is in it.

    Args:
        path: a published folder (a ``.pt`` state dict beside ``config.json``), one of its ``.pt`` files, or a
            ``.safetensors`` file: a deployment file, or plain tensors beside a ``config.json``.
        frame_skip: environment steps in an action block. Published folders do not record it: by default 5 where the
            block's width is divisible by 5, else 1. A checkpoint that records it must agree.

    Raises:
        FileNotFoundError: there is nothing at ``path``, or no ``config.json`` beside the weights.
        lewm.Error: a file is truncated, contradicts itself or another, or is of another kind.
        ValueError: ``frame_skip`` does not fit the checkpoint.
    """
    if frame_skip is not None:
        frame_skip = at_least("frame_skip", frame_skip)
    weights = _weights_file(Path(path))
    metadata: dict[str, str] = {}
    if weights.suffix == ".safetensors":
        tensors, metadata = safetensors.read(weights)
    else:
        tensors = read_state_dict(weights)
    deployment = "format" in metadata
    tensors = from_any_naming(tensors, deployment=deployment)
    if deployment:
        checkpoint = from_metadata(metadata, tensors, weights.name)
        _check_frame_skip(frame_skip, checkpoint.config.frame_skip, weights.name)
    else:
        checkpoint = _read_published(weights, tensors, frame_skip)
    return replace(checkpoint, state=check_tensors(tensors, checkpoint.config, weights.name))


def is_deployment_file(path: str | os.PathLike[str]) -> bool:
    """Whether the core can open the path itself: a ``.safetensors`` file without a ``config.json`` beside it."""
    path = Path(path)
    return path.suffix == ".safetensors" and path.is_file() and not (path.parent / "config.json").exists()


def _weights_file(path: Path) -> Path:
    """The file that holds the weights of the checkpoint at ``path``."""
    if path.name.endswith("_object.ckpt") or path.suffix == ".ckpt":
        _refuse_pickled_module(path)
    if path.is_file():
        if path.suffix not in (".pt", ".pth", ".safetensors"):
            raise Error(f"{path.name}: expected a folder, a .pt or a .safetensors file")
        return path
    if not path.is_dir():
        raise FileNotFoundError(f"no checkpoint at {path}")
    for suffix in (".pt", ".safetensors"):
        found = sorted(file for file in path.iterdir() if file.suffix == suffix and file.is_file())
        preferred = [file for file in found if file.name == "weights.pt"] or found
        if len(preferred) > 1:
            raise Error(
                f"{path}: several {suffix} files ({preferred[0].name}, {preferred[1].name}, ...): name one"
            )
        if preferred:
            return preferred[0]
    for file in path.glob("*.ckpt"):
        _refuse_pickled_module(file)
    raise FileNotFoundError(f"no .pt or .safetensors file in {path}")


def _refuse_pickled_module(path: Path) -> None:
    if not path.exists():
        raise FileNotFoundError(f"no checkpoint at {path}")
    raise Error(
        f"{path.name}: a pickled module, which can run code when it is opened. Where it was made, write its weights: "
        f"torch.save(torch.load({path.name!r}, weights_only=False).state_dict(), 'weights.pt'), beside config.json"
    )


def _read_published(weights: Path, state: dict[str, NDArray[Any]], frame_skip: int | None) -> Checkpoint:
    folder = weights.parent
    if weights.suffix == ".safetensors" and not (folder / "config.json").exists():
        raise Error(f"{weights.name}: neither metadata of lewm in it nor a config.json beside it")
    nodes = _read_json(folder / "config.json")
    sidecar = _read_json(folder / _SIDECAR) if (folder / _SIDECAR).exists() else {}
    recorded = _recorded_frame_skip(sidecar)
    if recorded is not None:
        _check_frame_skip(frame_skip, recorded, _SIDECAR)
    if recorded is None:
        return Checkpoint(config_from_nodes(nodes, state, frame_skip), state)
    try:
        config = config_from_nodes(nodes, state, recorded)
        actions = sidecar.get("action_scaling")
        return Checkpoint(
            config,
            state,
            scaling("preprocessing", sidecar.get("preprocessing"), 3),
            None if actions is None else scaling("action_scaling", actions, config.action_dim),
        )
    except ValueError as error:
        raise Error(f"{_SIDECAR}: {error}") from None


def _recorded_frame_skip(sidecar: Any) -> int | None:
    """The frame skip of a folder's own file, or None where there is no such file."""
    if not isinstance(sidecar, dict):
        raise Error(f"{_SIDECAR}: expected an object, got {type(sidecar).__name__}")
    if not sidecar:
        return None
    version, frame_skip = sidecar.get("format_version"), sidecar.get("frame_skip")
    if version != FORMAT_VERSION:
        raise Error(f"{_SIDECAR}: format_version: this lewm reads {FORMAT_VERSION!r}, got {version!r}")
    if type(frame_skip) is not int or frame_skip < 1:
        raise Error(f"{_SIDECAR}: frame_skip: expected a positive integer, got {frame_skip!r}")
    return frame_skip


def _check_frame_skip(asked: int | None, recorded: int, source: str) -> None:
    if asked is not None and asked != recorded:
        raise ValueError(f"frame_skip: {source} says {recorded}, got {asked}")


def _read_json(path: Path) -> Any:
    if not path.is_file():
        raise FileNotFoundError(f"no {path.name} in {path.parent}")
    if path.stat().st_size > _MAX_JSON:
        raise Error(f"{path.name}: expected at most {_MAX_JSON} bytes, got {path.stat().st_size}")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise Error(f"{path.name}: not valid JSON: {error}") from None


def write_checkpoint(path: str | os.PathLike[str], checkpoint: Checkpoint, transformers: int = 4) -> None:
    """Writes a checkpoint: one deployment file where ``path`` ends in ``.safetensors``, else a published folder.

    Files are written beside their targets and renamed when all are complete. ``transformers``: the encoder's naming
    in a folder, of before (4) or since (5) transformers 5.

    Raises:
        ValueError: the path is empty or has another suffix, or ``transformers`` is neither 4 nor 5.
        lewm.Error: the tensors are not those of the configuration, or not finite.
        OSError: the files cannot be written.
    """
    if not os.fspath(path):
        raise ValueError("path: expected a folder or a name that ends in .safetensors, got ''")
    path = Path(path)
    if transformers not in (4, 5):
        raise ValueError(f"transformers: expected 4 or 5, got {transformers!r}")
    tensors = check_tensors(checkpoint.state, checkpoint.config, "state")
    if path.suffix == ".safetensors":
        safetensors.write(path, tensors, to_metadata(checkpoint))
        return
    if path.suffix in (".pt", ".pth", ".ckpt") or path.is_file():
        raise ValueError(f"path: expected a folder or a name that ends in .safetensors, got {path.name!r}")
    path.mkdir(parents=True, exist_ok=True)
    if transformers == 5:
        tensors = {to_transformers5(name): tensor for name, tensor in tensors.items()}
    with replace_files(*(path / name for name in PUBLISHED_FILES)) as (
        config,
        sidecar,
        weights,
    ):
        config.write(_json(nodes_from_config(checkpoint.config)))
        sidecar.write(_json(_sidecar(checkpoint)))
        write_state_dict(weights, tensors)


def _sidecar(checkpoint: Checkpoint) -> dict[str, Any]:
    values: dict[str, Any] = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "frame_skip": checkpoint.config.frame_skip,
        "preprocessing": checkpoint.preprocessing,
    }
    if checkpoint.action_scaling is not None:
        values["action_scaling"] = checkpoint.action_scaling
    return values


def _json(values: dict[str, Any]) -> bytes:
    return (json.dumps(values, indent=2) + "\n").encode("utf-8")
