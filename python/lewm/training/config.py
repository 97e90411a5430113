"""Settings of a training run: a dataclass, two presets, YAML files and key=value overrides over them."""

from __future__ import annotations

import dataclasses
import difflib
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from lewm.checkpoint.atomic import replace_file
from lewm.config import LeWMConfig
from lewm.nn.attention import ATTENTION_KINDS
from lewm.nn.objectives import OBJECTIVES
from lewm.nn.vit import POSITION_INITS

__all__ = ["CLONING", "PRESETS", "TrainConfig", "make_config", "parse_overrides"]

CLONING = "gcbc"
_PRECISIONS = ("auto", "fp32", "bf16")
_MOST_THREADS = 1024
_MOST_POINTS = 1 << 20
"""Projections, or knots, of SIGReg: far more than are of use, and a step still ends."""


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides a training run; the defaults are the published recipe (arXiv 2603.19312).

    Raises:
        ValueError: a setting is out of range or contradicts another; the message names it.
        TypeError: a setting has the wrong type.
    """

    data: str = ""
    """HDF5 file of recorded episodes."""
    out: str = ""
    """Folder of the run: log, checkpoints and the trained model."""
    overwrite: bool = False
    """Start anew in a folder that holds a run already."""

    model: LeWMConfig = field(default_factory=LeWMConfig)
    """Sizes. action_dim is taken from the data."""
    encoder: str = ""
    """"module:factory" of an image encoder in the place of the built-in one, see `lewm.nn.external`."""
    freeze_encoder: bool = False
    """Train everything but that encoder."""
    position_init: str = "normal"
    """What the built-in encoder's position embeddings start as: "normal" noise, as published, or "waves": sines and
    cosines of the place, from which short trainings learn positions much sooner."""
    dropout: float = 0.1
    emb_dropout: float = 0.0
    attention: str = "auto"

    steps: int = 0
    """Optimiser steps; 0: as many as `epochs` make."""
    epochs: float = 10.0
    """Passes over the training windows, when steps is 0."""
    batch_size: int = 128
    """Windows per step, over all ranks."""
    lr: float = 5e-5
    weight_decay: float = 1e-3
    warmup: float = 0.01
    """Fraction of the steps over which the learning rate rises linearly; a cosine to 0 follows."""
    clip: float = 1.0
    """Largest norm of the gradient."""
    objective: str = "lewm"
    """What the prediction loss is trained with: "lewm" (SIGReg), "pldm" or "none", see `lewm.nn.objectives`; or "gcbc":
    goal-conditioned behaviour cloning instead of a world model, see `lewm.nn.cloner`."""
    goal_blocks: int = 5
    """Of "gcbc": the farthest goal that it learns from, in action blocks."""
    sigreg_weight: float = 0.09
    """lambda, of objective "lewm"."""
    num_proj: int = 1024
    """M, random directions of SIGReg."""
    knots: int = 17

    seed: int = 0
    device: str = "auto"
    """ "auto" (a GPU if there is one), "cpu", "cuda" or "cuda:N"."""
    precision: str = "auto"
    """Of encoder and predictor: "fp32", "bf16" (autocast) or "auto": bf16 where the device has bf16 matrix units."""
    compile: bool = False
    """torch.compile encoder and predictor; on a CPU this needs a C++ compiler at run time."""
    threads: int = 0
    """CPU threads of a rank; 0: torch's choice."""
    workers: int = 0
    """Processes that read data; 0: one thread of the training process."""

    val_fraction: float = 0.05
    """Of the episodes, held out for validation."""
    val_batches: int = 8
    """Batches of a validation."""
    val_every: int = 500
    """Steps between validations; each may write checkpoints/best.pt."""
    log_every: int = 10
    """Steps between rows of metrics.csv."""
    checkpoint_every: int = 500
    """Steps between writes of checkpoints/last.pt."""
    keep_every: int = 0
    """Steps between checkpoints that are kept for good; 0: none."""
    tensorboard: bool = True
    progress: bool = True

    def __post_init__(self) -> None:
        for setting in dataclasses.fields(self):
            value = _converted(setting.name, setting.type, getattr(self, setting.name))
            object.__setattr__(self, setting.name, value)
        for name in ("batch_size", "goal_blocks", "num_proj", "val_every", "log_every", "checkpoint_every"):
            _require(getattr(self, name) >= 1, name, "at least 1", self)
        for name in (
            "steps",
            "threads",
            "workers",
            "val_batches",
            "keep_every",
            "weight_decay",
            "sigreg_weight",
            "seed",
        ):
            _require(getattr(self, name) >= 0, name, "at least 0", self)
        _require(self.seed < 2**63, "seed", "less than 2^63", self)
        for name in ("lr", "clip"):
            _require(getattr(self, name) > 0, name, "more than 0", self)
        for name in ("lr", "epochs", "weight_decay", "sigreg_weight"):
            _require(math.isfinite(getattr(self, name)), name, "a finite number", self)
        for name in ("dropout", "emb_dropout", "val_fraction", "warmup"):
            _require(0 <= getattr(self, name) < 1, name, "in [0, 1)", self)
        _require(self.steps > 0 or self.epochs > 0, "epochs", "more than 0 when steps is 0", self)
        _require(self.knots >= 2, "knots", "at least 2", self)
        pldm = self.objective == "pldm"
        _require(not pldm or self.batch_size >= 2, "batch_size", 'at least 2 with objective "pldm"', self)
        for name in ("num_proj", "knots"):
            _require(getattr(self, name) <= _MOST_POINTS, name, f"at most {_MOST_POINTS}", self)
        _require(self.threads <= _MOST_THREADS, "threads", f"at most {_MOST_THREADS}", self)
        _require(self.precision in _PRECISIONS, "precision", f"one of {_PRECISIONS}", self)
        objectives = (*OBJECTIVES, CLONING)
        _require(self.objective in objectives, "objective", f"one of {objectives}", self)
        _require(
            not self.freeze_encoder or bool(self.encoder), "freeze_encoder", "an encoder beside it", self
        )
        _require(self.position_init in POSITION_INITS, "position_init", f"one of {POSITION_INITS}", self)
        _require(self.attention in ATTENTION_KINDS, "attention", f"one of {ATTENTION_KINDS}", self)

    @property
    def frames(self) -> int:
        """T, frames in a window: the history and the frame that follows it; for "gcbc" a frame and its goals."""
        return 1 + (self.goal_blocks if self.objective == CLONING else self.model.history)

    def save(self, path: Path) -> None:
        """Writes the settings as YAML that `make_config` reads."""
        text = yaml.safe_dump(dataclasses.asdict(self), sort_keys=False)
        with replace_file(path) as file:
            file.write(text.encode("utf-8"))


_TINY: dict[str, Any] = {
    "model": {
        "image_size": 64,
        "patch_size": 8,
        "encoder_dim": 128,
        "encoder_depth": 2,
        "encoder_heads": 4,
        "encoder_mlp_dim": 512,
        "latent_dim": 128,
        "projector_dim": 512,
        "pred_proj_dim": 512,
        "predictor_depth": 4,
        "predictor_heads": 8,
        "predictor_head_dim": 32,
        "predictor_mlp_dim": 512,
        "predictor_dim": 128,
        "predictor_output_dim": 128,
    },
    "position_init": "waves",
    "steps": 1500,
    "batch_size": 64,
    "lr": 1e-3,
    "sigreg_weight": 0.05,
    "num_proj": 256,
}

PRESETS: dict[str, dict[str, Any]] = {"tiny": _TINY, "paper": {}}
"""Preset -> what it changes of the defaults. "tiny" trains in minutes on two CPU cores, on 64x64 images."""


def make_config(
    file: str | os.PathLike[str] | None = None,
    *,
    preset: str | None = None,
    base: TrainConfig | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> TrainConfig:
    """Settings from a preset or a base, a YAML file over it, and overrides over both.

    Keys may be nested or dotted ("model.patch_size"). The file and the overrides may name the preset under "preset".

    Raises:
        ValueError: an unknown key or preset, or a value out of range.
        TypeError: a value of the wrong type.
        FileNotFoundError: there is no such file.
    """
    layers = [_read_yaml(file) if file else {}, dict(overrides or {})]
    in_file, over_both = (layer.pop("preset", None) for layer in layers)
    preset = next((name for name in (over_both, preset, in_file) if name is not None), None)
    if preset is not None and (not isinstance(preset, str) or preset not in PRESETS):
        raise ValueError(f"preset: expected one of {', '.join(PRESETS)}, got {preset!r}")
    settings: dict[str, Any] = {}
    if base is not None:
        layers.insert(0, dataclasses.asdict(base))
    if preset is not None:
        layers.insert(0, PRESETS[preset])
    for layer in layers:
        _merge(settings, layer)
    if "model" in settings:
        settings["model"] = LeWMConfig(**settings["model"])
    return TrainConfig(**settings)


def parse_overrides(words: Sequence[str]) -> dict[str, Any]:
    """key=value words of a command line as a mapping: texts (paths, names) as they stand, other values as YAML scalars.

    Raises ValueError on another form.
    """
    texts = {"preset", *(item.name for item in dataclasses.fields(TrainConfig) if item.type == "str")}
    result: dict[str, Any] = {}
    for word in words:
        key, separator, value = word.partition("=")
        if not separator or not key:
            raise ValueError(f"{word!r}: expected key=value")
        if key in texts:
            result[key] = value
            continue
        try:
            result[key] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise ValueError(f"{key}: {value!r} is not a value that YAML reads") from None
    return result


def _read_yaml(path: str | os.PathLike[str]) -> dict[str, Any]:
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{path}: not readable as YAML: {error}") from None
    if content is not None and not isinstance(content, dict):
        raise ValueError(f"{path}: expected settings as key: value, got {type(content).__name__}")
    return {str(key): value for key, value in (content or {}).items()}


def _merge(settings: dict[str, Any], layer: Mapping[str, Any]) -> None:
    """Puts a layer of nested or dotted keys over `settings`, converting every value to its field's type."""
    for key, value in layer.items():
        if key == "model":
            if isinstance(value, LeWMConfig):
                value = dataclasses.asdict(value)
            if not isinstance(value, Mapping):
                raise TypeError(f"model: expected a mapping of sizes, got {value!r}")
            _merge(settings, {f"model.{name}": size for name, size in value.items()})
        elif key.startswith("model."):
            name = key.removeprefix("model.")
            kind = _field_type(LeWMConfig, name, prefix="model.")
            settings.setdefault("model", {})[name] = _converted(key, kind, value)
        else:
            settings[key] = _converted(key, _field_type(TrainConfig, key), value)


def _field_type(owner: type, name: str, prefix: str = "") -> Any:
    types = {item.name: item.type for item in dataclasses.fields(owner)}
    if name not in types:
        known = [prefix + other for other in types]
        close = difflib.get_close_matches(prefix + name, known, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise ValueError(f"{prefix}{name}: no such setting{hint}")
    return types[name]


def _converted(name: str, kind: Any, value: Any) -> Any:
    """`value` as a field's type. YAML reads 1e-3 as a string and 1 as an int: both are floats where one is expected."""
    if kind == "float":
        try:
            return float(value if not isinstance(value, bool) else "")
        except (TypeError, ValueError):
            raise TypeError(f"{name}: expected a number, got {value!r}") from None
        except OverflowError:
            raise ValueError(f"{name}: expected a finite number, got {value!r}") from None
    if kind == "str" and isinstance(value, os.PathLike):
        return os.fspath(value)
    expected = {"int": int, "bool": bool, "str": str, "LeWMConfig": LeWMConfig}[kind]
    if not isinstance(value, expected) or (expected is int and isinstance(value, bool)):
        raise TypeError(f"{name}: expected {expected.__name__}, got {value!r}")
    return value


def _require(holds: bool, name: str, expected: str, config: TrainConfig) -> None:
    if not holds:
        raise ValueError(f"{name}: expected {expected}, got {getattr(config, name)!r}")
