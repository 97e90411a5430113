"""The training loop."""

from __future__ import annotations

import dataclasses
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from lewm.checkpoint.contents import Scaling
from lewm.config import LeWMConfig
from lewm.data import TrajectoryDataset, read_batches
from lewm.errors import Error
from lewm.nn import LeWM
from lewm.nn.cloner import Cloner
from lewm.training.bf16 import bf16_products
from lewm.training.calibration import calibrate
from lewm.training.checkpoints import (
    read_run,
    require_moments,
    require_state,
    restore_rng,
    rng_state,
    write_checkpoint,
)
from lewm.training.config import CLONING, TrainConfig
from lewm.training.data import WindowOrder
from lewm.training.diagnostics import latent_diagnostics
from lewm.training.distributed import Ranks
from lewm.training.log import Log
from lewm.training.models import make_model
from lewm.training.optim import learning_rate, make_optimizer

__all__ = ["LAST_CHECKPOINT", "Trainer"]

LAST_CHECKPOINT = Path("checkpoints") / "last.pt"
_CALIBRATION_BATCHES = 16
BEST_CHECKPOINT = Path("checkpoints") / "best.pt"
_VALIDATED = ("loss", "pred_loss", "sigreg_loss")


class Trainer:
    """One run: builds everything from its settings, restores a checkpoint if there is one to go on from, and trains.

    Args:
        config: settings. resume: go on from the run's last checkpoint. ranks: this process's place.
    """

    def __init__(self, config: TrainConfig, ranks: Ranks, *, resume: bool = False):
        self.ranks = ranks
        self.folder = Path(config.out)
        content = read_run(self.folder / LAST_CHECKPOINT) if resume else None
        if content is not None:
            _require_same_run(content["config"], config, self.folder / LAST_CHECKPOINT)
        if config.batch_size % ranks.world:
            raise ValueError(
                f"batch_size: expected a multiple of {ranks.world} ranks, got {config.batch_size}"
            )
        self.train_data, self.val_data = _open_data(config)
        self.config = _with_data_sizes(config, self.train_data)
        self.order = WindowOrder(len(self.train_data), config.batch_size, config.seed)
        self.steps = config.steps or max(1, round(config.epochs * self.order.steps_per_epoch))
        self.step = 0
        self.seconds = 0.0
        self.best_val_loss = float("inf")
        self._bf16 = _use_bf16(config.precision, ranks.device)
        # torch.compile does not see through the mode that replaces products, and keeps torch's own.
        replaced = self._bf16 and not config.compile
        self._products = bf16_products(ranks.device) if replaced else nullcontext()
        self._clock = _Clock(0, 0.0)
        self._unhealthy = torch.full((), -1, device=ranks.device)  # the first step that was not finite

        torch.manual_seed(config.seed)
        self.model = self._make_model()
        self.optimizer = make_optimizer(self.model.parameters(), config.lr, config.weight_decay)
        if content is not None:
            self._restore(content)
        else:
            torch.manual_seed(_rank_seed(config.seed, 0, ranks.rank))
        self._wrapped = self._wrap()

    # Construction

    def _make_model(self) -> LeWM | Cloner:
        return make_model(self.config, self.train_data.action_scaling).to(self.ranks.device)

    def _wrap(self) -> torch.nn.Module:
        """The model as the loop calls it: compiled and distributed as asked."""
        if self.config.compile:
            self.model.encoder.compile()
            if isinstance(self.model, LeWM):
                self.model.predictor.compile()
        if self.ranks.group is None:
            return self.model
        self.model.sync_batch_norm(self.ranks.group)
        devices = [self.ranks.device] if self.ranks.device.type == "cuda" else None
        return DistributedDataParallel(
            self.model,
            device_ids=devices,
            process_group=self.ranks.group,
            broadcast_buffers=False,  # the synchronised batch norms keep them equal
            gradient_as_bucket_view=True,
        )

    # Training

    def fit(self) -> None:
        """Trains to the last step. Raises lewm.Error on a loss that is not finite; the last checkpoint is good then.

        SIGINT and SIGTERM end the run after the step in progress, with a checkpoint: KeyboardInterrupt, SystemExit.
        """
        log = self._open_log()
        self._clock = _Clock(self.step, self.seconds)
        try:
            with _deferred_signals() as signals:
                for batch in map(self._to_device, self._batches()):
                    metrics = self._train_step(batch)
                    stop = self.ranks.any(signals.received is not None)
                    ending = stop or self.step == self.steps
                    row = self._measure(metrics, ending)
                    if log:
                        log.advance()
                        if row:
                            log.write(row)
                    if self._validation_due() or self._checkpoint_due(ending):
                        self._save(row.get("val_loss"), ending)
                    if stop:
                        signals.end()
        finally:
            if log:
                log.close()

    def _measure(self, metrics: Mapping[str, Tensor], ending: bool) -> dict[str, float]:
        """The log's row for the step just done, {} if none is due. Raises lewm.Error if a step was not finite."""
        config = self.config
        row: dict[str, float] = {}
        log_due = ending or self.step % config.log_every == 0
        if log_due or self._validation_due() or self._checkpoint_due(ending):
            self._require_finite()
        if log_due:
            row = self.ranks.mean({key: float(value) for key, value in metrics.items()})
            row["steps_per_second"] = self._clock.rate(self.step)
        if self._validation_due():
            row |= self.validate()
        if row:
            row |= {
                "step": self.step,
                "epoch": self.step / self.order.steps_per_epoch,
                "seconds": self.seconds,
            }
        return row

    def _validation_due(self) -> bool:
        return self.step == self.steps or self.step % self.config.val_every == 0

    def _checkpoint_due(self, ending: bool) -> bool:
        every, keep = self.config.checkpoint_every, self.config.keep_every
        return ending or self.step % every == 0 or (keep > 0 and self.step % keep == 0)

    def _train_step(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """One optimiser step; returns the loss and its terms, grad_norm and lr as scalars."""
        config = self.config
        lr = learning_rate(self.step, self.steps, config.lr, config.warmup)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self._wrapped.train()
        with self._products:
            out = self._loss(self._wrapped, batch, seed=_direction_seed(config.seed, self.step))
            out["loss"].backward()
        grad_norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), config.clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        loss = out["loss"].detach()
        finite = loss.isfinite() & grad_norm.isfinite()
        self._unhealthy = torch.where((self._unhealthy < 0) & ~finite, self.step, self._unhealthy)
        self.step += 1
        self.seconds = self._clock.seconds()
        terms = {name: value for name, value in out.items() if name.endswith("_loss")}
        return {"loss": loss, **terms, "grad_norm": grad_norm, "lr": torch.tensor(lr)}

    def _loss(self, module: torch.nn.Module, batch: Mapping[str, Tensor], seed: int) -> dict[str, Tensor]:
        group = self.ranks.group if module.training else None
        options: dict[str, Any] = {}
        if self.config.objective != CLONING:
            options = {
                "lambda_": self.config.sigreg_weight,
                "objective": self.config.objective,
                "num_proj": self.config.num_proj,
                "knots": self.config.knots,
                "seed": seed,
                "group": group,
            }
        with self._products, torch.autocast(self.ranks.device.type, torch.bfloat16, enabled=self._bf16):
            return module(batch, **options)

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Losses and collapse diagnostics on held-out episodes, always the same windows; {} off rank 0."""
        if self.val_data is None or not self.config.val_batches or not self.ranks.first:
            return {}
        self.calibrate()
        sums: dict[str, float] = {}
        latents = []
        for batch in self._fixed_batches(self.val_data, self.config.val_batches):
            out = self._loss(self.model, batch, seed=_direction_seed(self.config.seed, 0))
            latents.append(out["latents"].flatten(0, 1))
            for key in _VALIDATED:
                if key in out:
                    sums[f"val_{key}"] = sums.get(f"val_{key}", 0.0) + float(out[key])
        return {key: value / len(latents) for key, value in sums.items()} | latent_diagnostics(
            torch.cat(latents)
        )

    def calibrate(self) -> None:
        """Takes the batch norms' statistics anew and leaves the model in evaluation mode."""
        with self._products, torch.autocast(self.ranks.device.type, torch.bfloat16, enabled=self._bf16):
            calibrate(self.model, self._fixed_batches(self.train_data, _CALIBRATION_BATCHES))

    def _fixed_batches(self, data: TrajectoryDataset, count: int) -> Iterator[dict[str, Tensor]]:
        """Up to `count` batches on the device, the same windows at every call."""
        size = min(len(data), self.config.batch_size)
        order = WindowOrder(len(data), size, self.config.seed)
        indices = [order.batch(number) for number in range(min(count, order.steps_per_epoch))]
        return map(self._to_device, read_batches(data, indices))

    def _to_device(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {key: value.to(self.ranks.device, non_blocking=True) for key, value in batch.items()}

    def _batches(self) -> Iterator[dict[str, Tensor]]:
        rank, world = self.ranks.rank, self.ranks.world
        indices = (self.order.batch(step, rank, world) for step in range(self.step, self.steps))
        pin = self.ranks.device.type == "cuda"
        return read_batches(self.train_data, indices, workers=self.config.workers, pin=pin, reuse=True)

    def _require_finite(self) -> None:
        """Raises lewm.Error, on all ranks, if the loss or the gradient of any step so far was not finite."""
        step = int(self._unhealthy)
        if not self.ranks.any(step >= 0):
            return
        last = self.folder / LAST_CHECKPOINT
        kept = f"the last good checkpoint is {last}" if last.is_file() else "no checkpoint was written before"
        where = f"step {step + 1}" if step >= 0 else "another rank"
        raise Error(
            f"the loss or its gradient is not finite at {where}; {kept}. A lower lr or precision=fp32 may help."
        )

    # State

    def _open_log(self) -> Log | None:
        if not self.ranks.first:
            return None
        (self.folder / LAST_CHECKPOINT).parent.mkdir(parents=True, exist_ok=True)
        self.config.save(self.folder / "config.yaml")
        config = self.config
        return Log(
            self.folder, self.steps, self.step, tensorboard=config.tensorboard, progress=config.progress
        )

    def _save(self, val_loss: float | None, ending: bool) -> None:
        """Writes the checkpoints that are due, and best.pt if ``val_loss`` is the lowest so far; a collective."""
        generators = self.ranks.gather(rng_state(self.ranks.device))
        if not self.ranks.first:
            return
        improved = val_loss is not None and val_loss < self.best_val_loss
        if improved:
            assert val_loss is not None
            self.best_val_loss = val_loss
        due = self._checkpoint_due(ending)
        if not due and not improved:
            return
        content = {
            "step": self.step,
            "seconds": self.seconds,
            "best_val_loss": self.best_val_loss,
            "config": dataclasses.asdict(self.config),
            "windows": len(self.train_data),
            "action_scaling": dict(self.train_data.action_scaling),
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generators": generators,
        }
        if improved:
            write_checkpoint(self.folder / BEST_CHECKPOINT, content)
        if not due:
            return
        write_checkpoint(self.folder / LAST_CHECKPOINT, content)
        if self.config.keep_every and self.step % self.config.keep_every == 0:
            write_checkpoint(self.folder / "checkpoints" / f"step_{self.step:08d}.pt", content)

    def _restore(self, content: dict[str, Any]) -> None:
        """Takes a checkpoint over. Raises ValueError naming a size that has changed, or the data; lewm.Error where the
        checkpoint is another model's."""
        path = self.folder / LAST_CHECKPOINT
        self._require_same_data(content)
        saved = _model_config(content["config"], path)
        if saved != self.config.model:
            changed = next(
                f.name
                for f in dataclasses.fields(saved)
                if getattr(saved, f.name) != getattr(self.config.model, f.name)
            )
            raise ValueError(
                f"model.{changed}: expected {getattr(saved, changed)} as in the checkpoint, "
                f"got {getattr(self.config.model, changed)}"
            )
        if content["step"] > self.steps:
            raise ValueError(f"steps: expected at least the {content['step']} done, got {self.steps}")
        self.step = content["step"]
        self.seconds = content["seconds"]
        self.best_val_loss = content["best_val_loss"]
        require_state(self.model, content["model"], path)
        self.model.load_state_dict(content["model"])
        require_moments(self.model.parameters(), content["optimizer"], path)
        settings = self.optimizer.state_dict()["param_groups"]  # the run's, which may be new ones
        self.optimizer.load_state_dict({"state": content["optimizer"]["state"], "param_groups": settings})
        generators = content["generators"]
        if len(generators) == self.ranks.world:
            try:
                restore_rng(generators[self.ranks.rank], self.ranks.device)
            except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
                raise Error(f"{path}: generators: not states of random generators ({error!r})") from None
        else:  # another number of ranks: fresh generators, so that no two ranks draw the same dropout
            torch.manual_seed(_rank_seed(self.config.seed, self.step, self.ranks.rank))

    def _require_same_data(self, content: Mapping[str, Any]) -> None:
        if "windows" not in content:  # written before checkpoints said
            return
        began, now = content["windows"], len(self.train_data)
        if began != now or not _same_scaling(content.get("action_scaling"), self.train_data.action_scaling):
            raise ValueError(
                f"data: expected the {began} training windows, and actions, that the run began with, found {now} in "
                f"{self.config.data}; a file that has changed or grown needs a new run"
            )


class _Clock:
    """Seconds of training over all resumptions, and steps per second since the last time asked."""

    def __init__(self, step: int, seconds: float):
        self._began = time.monotonic() - seconds
        self._lap = (step, time.monotonic())

    def seconds(self) -> float:
        return time.monotonic() - self._began

    def rate(self, step: int) -> float:
        before, since = self._lap
        self._lap = (step, time.monotonic())
        return (step - before) / max(1e-9, self._lap[1] - since)


class _Signals:
    """The first SIGINT or SIGTERM of a run, kept until the loop can end it."""

    received: int | None = None

    def __call__(self, number: int, _: FrameType | None) -> None:
        if self.received is not None:  # the second one does not wait
            self.end()
        self.received = number

    def end(self) -> None:
        if self.received == signal.SIGTERM:
            raise SystemExit(128 + signal.SIGTERM)
        raise KeyboardInterrupt


@contextmanager
def _deferred_signals() -> Iterator[_Signals]:
    """Collects SIGINT and SIGTERM, that they do not interrupt a step. Off the main thread there is nothing to do."""
    signals = _Signals()
    if threading.current_thread() is not threading.main_thread():
        yield signals
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, signals) for number in numbers}
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _open_data(config: TrainConfig) -> tuple[TrajectoryDataset, TrajectoryDataset | None]:
    """Windows of the training and of the validation episodes."""
    data = TrajectoryDataset(config.data, config.frames, config.model.frame_skip)
    if not config.val_fraction:
        return data, None
    try:
        train, val = data.split(config.val_fraction, config.seed)
    except ValueError as error:
        raise ValueError(f"val_{error}; 0 holds none out") from None
    if config.objective == "pldm" and config.val_batches and len(val) < 2:  # a variance over windows
        raise ValueError(
            f'val_fraction: objective "pldm" needs at least 2 windows to validate on, {config.val_fraction} of '
            f"{len(data.episodes)} episodes has {len(val)}; val_batches=0 trains without validation"
        )
    return train, val


def _same_scaling(saved: Any, now: Scaling) -> bool:
    """Whether they are equal but for rounding."""
    if not isinstance(saved, Mapping):
        return False
    pairs = [(saved.get("mean", ()), now["mean"]), (saved.get("std", ()), now["std"])]
    return all(np.shape(was) == np.shape(is_) and np.allclose(was, is_) for was, is_ in pairs)


def _model_config(saved: Mapping[str, Any], path: Path) -> LeWMConfig:
    try:
        return LeWMConfig.from_dict(saved["model"])
    except (KeyError, TypeError, ValueError) as error:
        raise Error(f"{path}: config: not the sizes of a model ({error!r})") from None


def _require_same_run(saved: Mapping[str, Any], config: TrainConfig, path: Path) -> None:
    """Raises ValueError if the settings would train another model, or on other windows, than the saved ones."""
    if "objective" not in saved:
        raise Error(f"{path}: config: expected the settings of a run, got {sorted(saved)}")
    for name in ("encoder", "seed", "val_fraction"):
        if name in saved and saved[name] != getattr(config, name):
            raise ValueError(
                f"{name}: expected {saved[name]!r} as in the checkpoint, got {getattr(config, name)!r}"
            )
    if (saved["objective"] == CLONING) != (config.objective == CLONING):
        raise ValueError(
            f"objective: expected {saved['objective']!r} as in the checkpoint, got {config.objective!r}"
        )


def _with_data_sizes(config: TrainConfig, data: TrajectoryDataset) -> TrainConfig:
    height, width, _ = data.frame_shape
    if height != width:
        raise ValueError(f"data: expected square frames, {config.data} has {height} x {width} pixels")
    if data.image_size != config.model.image_size:
        raise ValueError(
            f"model.image_size: expected {data.image_size} as in the data, got {config.model.image_size}"
        )
    return dataclasses.replace(config, model=dataclasses.replace(config.model, action_dim=data.action_dim))


def _use_bf16(precision: str, device: torch.device) -> bool:
    if precision != "auto":
        return precision == "bf16"
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    return device.type == "cpu" and torch.cpu._is_amx_tile_supported()


def _rank_seed(seed: int, step: int, rank: int) -> int:
    """A torch seed that differs between ranks and between places to resume from."""
    return ((seed * 1_000_003 + step) * 1_000_003 + rank) % 2**63


def _direction_seed(seed: int, step: int) -> int:
    """Of SIGReg's directions: the same on every rank, new at every step."""
    return (seed * 1_000_003 + step) % 2**62
