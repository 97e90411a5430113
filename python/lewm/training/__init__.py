"""Training: `train`, its settings and what it returns."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lewm.checkpoint import save
from lewm.checkpoint.files import PUBLISHED_FILES
from lewm.checkpoint.safetensors import is_unicode
from lewm.errors import Error
from lewm.lock import WriterLock
from lewm.nn import LeWM
from lewm.nn.cloner import Cloner
from lewm.training.allocator import keep_freed_memory
from lewm.training.config import PRESETS, TrainConfig, make_config, parse_overrides
from lewm.training.distributed import Ranks
from lewm.training.log import read_metrics
from lewm.training.models import MODEL_FILE, load_trained, save_trained
from lewm.training.trainer import LAST_CHECKPOINT, Trainer

__all__ = [
    "PRESETS",
    "TrainConfig",
    "TrainResult",
    "load_trained",
    "make_config",
    "parse_overrides",
    "read_metrics",
    "train",
]


_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # some file systems of clusters have none
_MODELS = ("model.safetensors", MODEL_FILE)


@dataclass(frozen=True)
class TrainResult:
    """A finished run.

    Attributes:
        model: trained, in evaluation mode.
        folder: of the run. metrics_file: its log.
        model_file: the deployment file in it (what `lewm.load` opens); for what no such file can hold, a policy or a
            model with another encoder, the weights that `load_trained(folder)` opens.
        steps: optimiser steps done, over all resumptions.
    """

    model: LeWM | Cloner
    folder: Path
    model_file: Path
    metrics_file: Path
    steps: int


def train(
    config: TrainConfig | str | os.PathLike[str] | None = None,
    *,
    preset: str | None = None,
    resume: str | os.PathLike[str] | None = None,
    **overrides: Any,
) -> TrainResult:
    """Trains a world model on recorded episodes.

    The run's folder gets config.yaml, metrics.csv, TensorBoard events, checkpoints/last.pt and best.pt while it trains,
    and model.safetensors (a deployment file) and published/ (the layout of the published stack) at its end.

    Args:
        config: settings, or a YAML file of them.
        preset: "tiny" (two CPU cores, 64x64 images) or "paper"; the settings that a file and the overrides do not name.
        resume: folder of a run to go on with. Settings come from it; overrides such as `steps` or `workers` may change
            what does not alter the model. With none, the losses are those of a run that was never interrupted.
        overrides: settings by name; `model={"patch_size": 8}` for sizes.

    Under torchrun every rank calls this with the same arguments (see docs/training.md).

    Raises:
        ValueError, TypeError: a setting is unknown, of the wrong type, out of range, or contradicts the data.
        FileNotFoundError: no such data file, or no checkpoint to resume from.
        lewm.Error: the loss stopped being finite, a checkpoint is damaged or another model's, the folder holds another
            run, or another training is writing there.
        KeyboardInterrupt: interrupted, after writing a checkpoint.
    """
    settings = _settings(config, preset, resume, overrides)
    if settings.threads:
        torch.set_num_threads(settings.threads)
    ranks = Ranks.join(settings.device)
    if ranks.device.type == "cpu":
        keep_freed_memory()
    folder = Path(settings.out)
    try:
        with ExitStack() as until_done:
            if resume is None:
                _require_fresh(settings)
            else:
                until_done.enter_context(_alone(folder, ranks))
            trainer = Trainer(settings, ranks, resume=resume is not None)
            if resume is None:  # only once the settings have made a trainer
                until_done.enter_context(_alone(folder, ranks))
                _require_fresh(settings)
                if ranks.first:
                    _forget_run(folder)
            trainer.fit()
            return _export(trainer)
    finally:
        ranks.leave()


def _settings(
    config: TrainConfig | str | os.PathLike[str] | None,
    preset: str | None,
    resume: str | os.PathLike[str] | None,
    overrides: dict[str, Any],
) -> TrainConfig:
    if not isinstance(config, (TrainConfig, str, os.PathLike, type(None))):
        raise TypeError(f"config: expected a TrainConfig or a YAML file's path, got {type(config).__name__}")
    if not isinstance(resume, (str, os.PathLike, type(None))):
        raise TypeError(f"resume: expected a folder's path, got {type(resume).__name__}")
    if resume is not None:
        if config is not None or preset is not None:
            raise ValueError("resume: expected neither config nor preset beside it: they come from the run")
        for name in ("out", "overwrite"):
            if name in overrides:
                raise ValueError(f"{name}: expected none beside resume, which goes on in the run's folder")
        file = Path(resume) / "config.yaml"
        if not file.is_file():
            raise FileNotFoundError(f"{resume}: no run to resume: it has no config.yaml")
        settings = make_config(file, overrides={**overrides, "out": os.fspath(resume)})
    elif isinstance(config, TrainConfig):
        if preset is not None:
            raise ValueError("preset: expected none beside a TrainConfig")
        settings = make_config(base=config, overrides=overrides)
    else:
        settings = make_config(config, preset=preset, overrides=overrides)
    for name in ("data", "out"):
        if not getattr(settings, name):
            raise ValueError(f"{name}: expected a path, got none")
    if not Path(settings.data).is_file():
        raise FileNotFoundError(f"data: no file {settings.data}")
    if settings.tensorboard and not is_unicode(settings.out):
        raise ValueError(
            f"out: expected a name in UTF-8, or tensorboard=false beside it, got {settings.out!r}"
        )
    return settings


@contextmanager
def _alone(folder: Path, ranks: Ranks) -> Iterator[None]:
    """Within it no other training writes into the folder, which is made; the first rank holds the lock for all.

    Raises lewm.Error, on every rank, where another one does.
    """
    lock, taken = None, False
    refusal = f"{folder}: another training is writing into this folder"
    if ranks.first:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock = WriterLock(folder / "training.lock", refusal)
        except Error:
            taken = True
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
    if ranks.any(taken):
        raise Error(refusal)
    try:
        yield
    finally:
        if lock is not None:
            lock.release()


def _require_fresh(settings: TrainConfig) -> None:
    """Refuses a folder that holds a run, unless overwriting was asked for."""
    folder = Path(settings.out)
    if not settings.overwrite and any((folder / name).is_file() for name in (LAST_CHECKPOINT, *_MODELS)):
        raise Error(
            f"{settings.out}: holds a run already: resume it, set overwrite=true, or choose another out"
        )


def _forget_run(folder: Path) -> None:
    """Removes what an overwritten run would leave beside the new one: its checkpoints and models."""
    checkpoints, models = (folder / LAST_CHECKPOINT).parent.glob("*.pt"), (folder / name for name in _MODELS)
    for file in (*checkpoints, *models, *(folder / "published" / name for name in PUBLISHED_FILES)):
        file.unlink(missing_ok=True)


def _export(trainer: Trainer) -> TrainResult:
    folder = trainer.folder
    trainer.calibrate()
    exportable = trainer.model.not_exportable is None
    model_file = folder / ("model.safetensors" if exportable else MODEL_FILE)
    result = TrainResult(trainer.model, folder, model_file, folder / "metrics.csv", trainer.step)
    if trainer.ranks.first and exportable:
        save(trainer.model, result.model_file, provenance=f"lewm train, {trainer.step} steps")
        save(trainer.model, folder / "published")
    elif trainer.ranks.first:
        save_trained(trainer.model, folder)
    trainer.ranks.wait()
    return result
