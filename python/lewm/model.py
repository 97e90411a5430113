"""A loaded world model: frames to latents, latents and actions to predicted latents and costs."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lewm import _core
from lewm.arrays import as_array, at_least, finite
from lewm.build import choose_device, choose_encoder, choose_weights
from lewm.checkpoint.contents import Checkpoint, Scaling
from lewm.checkpoint.files import is_deployment_file, read_checkpoint
from lewm.config import LeWMConfig
from lewm.device_arrays import DeviceArrays, on_gpu
from lewm.errors import Error
from lewm.images import FITS

__all__ = ["Model", "load", "thread_count"]


def load(
    path: str | os.PathLike[str],
    precision: str = "auto",
    threads: int | None = None,
    device: str = "cpu",
    *,
    isa: str | None = None,
    frame_skip: int | None = None,
    encoder_precision: str = "auto",
) -> Model:
    """Loads a world model for inference; needs numpy alone.

    Args:
        path: a deployment file (``.safetensors``, written by ``lewm export`` or ``lewm.save``), a published folder
            (``weights.pt`` and ``config.json``) or one of its ``.pt`` files. Nothing in them is executed.
        precision: "fp32" (the reference), "bf16", "int8", or "auto": the fastest that keeps the published model's
            accuracy on this CPU (``lewm doctor`` says which).
        threads: of encode, rollout and cost; None: one per core available to this process.
        device: "cpu", "cuda" or "cuda:N"; a GPU computes in bf16 and needs the CUDA module (``lewm doctor``).
        isa: forces an instruction set ("scalar", "avx2", "avx512", "amx", "neon"); None: the environment variable
            LEWM_ISA, else the best that this CPU has.
        frame_skip: environment steps in an action block, which published folders do not record: by default 5 where
            the block's width is divisible by 5, else 1.
        encoder_precision: of ``encode``; "auto" is "fp32" on the CPU: training scales small differences between
            frames up, and with them what lower precision rounds away. A plan encodes once.

    Raises:
        FileNotFoundError: there is nothing at ``path``.
        lewm.Error: a file is truncated, contradicts itself or is of another kind; or this build, CPU or machine lacks
            the precision, instruction set or device.
        ValueError: an argument is out of range.
    """
    gpu = choose_device(device)
    _, packed = choose_weights(precision, isa or "", gpu)
    encoder = choose_encoder(encoder_precision, gpu)
    count = thread_count(threads)
    if is_deployment_file(path) and frame_skip is None:
        origin = _File.at(Path(path))
        core = _core.Model.open(
            os.fsencode(path), packed, count, isa or "", **_placed(gpu), encoder_precision=encoder
        )
        return Model(core, origin, device)
    return Model.from_checkpoint(
        read_checkpoint(path, frame_skip),
        precision,
        threads,
        isa=isa,
        device=device,
        encoder_precision=encoder_precision,
    )


def _placed(gpu: int) -> dict[str, int]:
    """The core's device argument: none for the CPU."""
    return {} if gpu < 0 else {"device": gpu}


def thread_count(threads: int | None) -> int:
    """The core's thread argument: None becomes 0, one thread per available core."""
    if threads is None:
        return 0
    if isinstance(threads, bool) or not isinstance(threads, (int, np.integer)) or not 1 <= threads <= 1024:
        raise ValueError(f"threads: expected 1..1024 or None, got {threads!r}")
    return int(threads)


@dataclass(frozen=True)
class _File:
    """A deployment file as it was when a model was loaded from it."""

    path: Path
    identity: tuple[int, int, int] | None

    @classmethod
    def at(cls, path: Path) -> _File:
        path = path.resolve()
        return cls(path, cls._identity(path))

    @staticmethod
    def _identity(path: Path) -> tuple[int, int, int] | None:
        """inode, size in bytes and time of the last change; None: there is no file."""
        if not path.exists():
            return None
        status = path.stat()
        return status.st_ino, status.st_size, status.st_mtime_ns

    def read(self) -> Checkpoint:
        """Its content. Raises lewm.Error if it has been replaced, changed or removed since."""
        if self.identity is None or self._identity(self.path) != self.identity:
            raise Error(
                f"{self.path}: the file has changed since the model was loaded from it; load it again"
            )
        return read_checkpoint(self.path)


class Model:
    """A world model in the compiled core. Made by ``lewm.load``; safe to share between threads.

    Letters in shapes: n frames; B problems, C context frames (1..history), S candidates, H action blocks, D =
    ``config.latent_dim``, A = ``config.block_dim``. Arrays may be numpy arrays or anything with ``__dlpack__`` on the
    CPU; actions are standardised (see ``standardise``). With a GPU, ``encode``, ``rollout`` and ``cost`` also take
    arrays in its memory (torch, CuPy, anything with ``__dlpack__``; all arguments of a call alike): they are read in
    place, the work is ordered on the caller's current stream, and the result is a torch tensor, or a CuPy array, there.
    """

    def __init__(self, core: _core.Model, origin: _File | Checkpoint, device: str = "cpu") -> None:
        self._core = core
        self._origin = origin
        self._device = device
        self._config = LeWMConfig.from_dict(json.loads(core.config))

    @classmethod
    def from_checkpoint(
        cls,
        checkpoint: Checkpoint,
        precision: str = "auto",
        threads: int | None = None,
        *,
        isa: str | None = None,
        device: str = "cpu",
        encoder_precision: str = "auto",
    ) -> Model:
        """A model from tensors in memory (``lewm.checkpoint.Checkpoint``); the arguments are those of ``lewm.load``."""
        gpu = choose_device(device)
        _, packed = choose_weights(precision, isa or "", gpu)
        encoder = choose_encoder(encoder_precision, gpu)
        actions = checkpoint.action_scaling or {"mean": [], "std": []}
        core = _core.Model.create(
            config=checkpoint.config.to_json(),
            tensors=checkpoint.state,
            pixel_mean=checkpoint.preprocessing["mean"],
            pixel_std=checkpoint.preprocessing["std"],
            action_mean=actions["mean"],
            action_std=actions["std"],
            precision=packed,
            threads=thread_count(threads),
            isa=isa or "",
            **_placed(gpu),
            encoder_precision=encoder,
        )
        return cls(core, checkpoint, device)

    def __repr__(self) -> str:
        return (
            f"<lewm.Model image {self.config.image_size}, latent {self.config.latent_dim}, "
            f"block {self.config.frame_skip} x {self.config.action_dim}, {self.precision}, "
            + (f"{self.isa}, {self.threads} threads>" if self.device == "cpu" else f"{self.device}>")
        )

    @property
    def config(self) -> LeWMConfig:
        """Sizes of the model."""
        return self._config

    @property
    def precision(self) -> str:
        """ "fp32", "bf16" or "int8"."""
        return self._core.precision if self._device == "cpu" else "bf16"

    @property
    def encoder_precision(self) -> str:
        """Of `encode`: "fp32", "bf16" or "int8"."""
        return self._core.encoder_precision if self._device == "cpu" else "bf16"

    @property
    def device(self) -> str:
        """ "cpu", "cuda" or "cuda:N": what encodes, rolls out and plans."""
        return self._device

    @property
    def isa(self) -> str:
        """The instruction set that computes."""
        return self._core.isa

    @property
    def threads(self) -> int:
        """Threads of encode, rollout and cost."""
        return self._core.threads

    @property
    def weight_bytes(self) -> int:
        """Memory of the packed weights, in bytes."""
        return self._core.weight_bytes

    @property
    def encode_flops(self) -> int:
        """Floating-point operations of the products that encoding one frame takes (a multiply-add is two)."""
        return self._core.encode_flops

    def rollout_flops(self, horizon: int, context: int = 1) -> int:
        """The same of one candidate of ``horizon`` blocks, without what all candidates share, on the CPU.

        A GPU executes 9% more at the published sizes: its attention has no anchors (docs/concepts.md).

        Raises:
            ValueError: ``horizon`` is not 1..2^20, or ``context`` is not 1..history.
        """
        if at_least("horizon", horizon) > 2**20:
            raise ValueError(f"horizon: expected 1..{2**20}, got {horizon}")
        if at_least("context", context) > self.config.history:
            raise ValueError(
                f"context: expected 1..{self.config.history} (the model's history), got {context}"
            )
        return self._core.rollout_flops(int(horizon), context)

    @property
    def preprocessing(self) -> Scaling:
        """Mean and std of pixels scaled to [0, 1], per colour channel."""
        mean, std = self._core.pixel_scaling
        return {"mean": mean, "std": std}

    @property
    def action_scaling(self) -> Scaling | None:
        """Mean and std of an environment action, per dimension; None: actions reach the model as they are."""
        mean, std = self._core.action_scaling
        return {"mean": mean, "std": std} if mean else None

    def checkpoint(self) -> Checkpoint:
        """The model as files hold it, unpacked: read again from where it was loaded.

        Raises:
            lewm.Error: the file has been replaced, changed or removed since.
        """
        return self._origin if isinstance(self._origin, Checkpoint) else self._origin.read()

    def encode(self, frames: Any, fit: str | None = None) -> Any:
        """Latents (n, D) float32 of frames.

        Args:
            frames: (n, H, W, 3) uint8 RGB, or (n, 3, H, W) float32 normalised with ``preprocessing``; H = W =
                ``config.image_size``.
            fit: uint8 frames of any size are resized first (bilinear, antialiased; on a GPU there): "stretch" (the
                whole frame), "crop" (its largest centred square) or "letterbox" (the whole frame with black bars, its
                aspect ratio kept).

        Raises:
            TypeError: another element type. ValueError: another shape, no frame, or NaN; no such fit.
        """
        if fit is not None and fit not in FITS:
            raise ValueError(f"fit: expected None or one of {', '.join(FITS)}, got {fit!r}")
        index = None if fit is None else FITS.index(fit)
        if on_gpu(frames):
            return DeviceArrays(self._core, self._device, self._config).encode(frames, index)
        if index is not None:
            frames = as_array("frames", frames, np.uint8, ("n", "H", "W", 3))
            latents = np.empty((len(frames), self.config.latent_dim), np.float32)
            self._core.encode_camera(frames, latents, index)
            return latents
        frames = as_frames("frames", frames, ("n",), self.config.image_size)
        latents = np.empty((len(frames), self.config.latent_dim), np.float32)
        self._core.encode(frames, latents)
        return latents

    def rollout(self, latents: Any, actions: Any, past_actions: Any = None) -> Any:
        """Predicted latents (B, S, H, D) float32 after each block of every candidate (arXiv 2603.19312, section 3).

        Args:
            latents: (B, C, D) float32 of the context frames, oldest first.
            actions: (B, S, H, A) float32, standardised; block 0 leaves the last context frame.
            past_actions: (B, C - 1, A) float32, the blocks executed between the context frames; needed when C > 1.

        Raises:
            TypeError: another element type. ValueError: another shape, empty, or NaN.
        """
        if on_gpu(actions):
            arrays = DeviceArrays(self._core, self._device, self._config)
            return arrays.rollout(latents, actions, past_actions)
        latents, actions, past = self._check_candidates(latents, actions, past_actions)
        predicted = np.empty((*actions.shape[:3], self.config.latent_dim), np.float32)
        self._core.rollout(latents, actions, past, predicted)
        return predicted

    def cost(self, latents: Any, goal: Any, actions: Any, past_actions: Any = None) -> Any:
        """Costs (B, S) float32: squared distance, summed over D, of a candidate's last latent to the goal's.

        Args:
            goal: (B, D) float32, latents of the goal frames. The others are those of ``rollout``.

        Raises:
            TypeError: another element type. ValueError: another shape, empty, or NaN.
        """
        if on_gpu(actions):
            arrays = DeviceArrays(self._core, self._device, self._config)
            return arrays.cost(latents, goal, actions, past_actions)
        latents, actions, past = self._check_candidates(latents, actions, past_actions)
        goal = finite("goal", as_array("goal", goal, np.float32, (len(latents), self.config.latent_dim)))
        costs = np.empty(actions.shape[:2], np.float32)
        self._core.cost(latents, goal, actions, past, costs)
        return costs

    def _check_candidates(
        self, latents: Any, actions: Any, past_actions: Any
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32] | None]:
        latents, past = check_context(self.config, latents, past_actions)
        shape = (len(latents), "S", "H", self.config.block_dim)
        return latents, finite("actions", as_array("actions", actions, np.float32, shape)), past

    def standardise(self, actions: Any) -> NDArray[np.float32]:
        """Action blocks (..., A) of environment actions (..., frame_skip, action_dim), for rollout, cost and plans.

        Raises:
            ValueError: another shape.
        """
        skip, dim = self.config.frame_skip, self.config.action_dim
        values = np.asarray(actions, np.float32)
        if values.shape[-2:] != (skip, dim):
            raise ValueError(f"actions: expected (..., {skip}, {dim}), got {values.shape}")
        mean, std = self._action_mean_and_std()
        values = (values - mean) / std
        return np.ascontiguousarray(values.reshape(*values.shape[:-2], self.config.block_dim), np.float32)

    def environment_actions(self, blocks: Any) -> NDArray[np.float32]:
        """Environment actions (..., frame_skip, action_dim) of standardised blocks (..., A): undoes standardise.

        Raises:
            ValueError: another shape.
        """
        values = np.asarray(blocks, np.float32)
        if values.ndim == 0 or values.shape[-1] != self.config.block_dim:
            raise ValueError(f"blocks: expected (..., {self.config.block_dim}), got {values.shape}")
        values = values.reshape(*values.shape[:-1], self.config.frame_skip, self.config.action_dim)
        mean, std = self._action_mean_and_std()
        values = values * std + mean
        return np.ascontiguousarray(values, np.float32)

    def _action_mean_and_std(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """(action_dim,) each; 0 and 1 where actions reach the model as they are."""
        scale = self.action_scaling
        dim = self.config.action_dim
        mean: NDArray[np.float32] = np.array(scale["mean"] if scale else [0.0] * dim, np.float32)
        std: NDArray[np.float32] = np.array(scale["std"] if scale else [1.0] * dim, np.float32)
        return mean, std


def as_frames(name: str, frames: Any, lead: tuple[int | str, ...], size: int) -> NDArray[Any]:
    """Frames (*lead, size, size, 3) uint8 or (*lead, 3, size, size) float32, checked and contiguous."""
    dtype = str(getattr(frames, "dtype", "")).rpartition(".")[2]
    if dtype == "float32":
        return finite(name, as_array(name, frames, np.float32, (*lead, 3, size, size)))
    if dtype and dtype != "uint8":
        raise TypeError(f"{name}: expected uint8 or float32, got {dtype}")
    return as_array(name, frames, np.uint8, (*lead, size, size, 3))


def check_context(
    config: LeWMConfig, latents: Any, past_actions: Any
) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
    """Latents (B, C, D) and past blocks (B, C - 1, A), checked; the latter None when C is 1."""
    latents = finite("latents", as_array("latents", latents, np.float32, ("B", "C", config.latent_dim)))
    context = latents.shape[1]
    if context > config.history:
        raise ValueError(
            f"latents: expected (B, 1..{config.history}, {config.latent_dim}), got {latents.shape}"
        )
    if past_actions is None and context > 1:
        raise ValueError(f"past_actions: needed with {context} context frames, got None")
    return latents, check_past(config, past_actions, len(latents), context)


def check_past(
    config: LeWMConfig, past_actions: Any, problems: int, context: int
) -> NDArray[np.float32] | None:
    """Past blocks (B, C - 1, A), checked, or None where there are none."""
    if past_actions is None:
        return None
    if context == 1:
        if np.shape(past_actions)[:2] == (problems, 0):
            return None
        raise ValueError(f"past_actions: expected None with one context frame, got {np.shape(past_actions)}")
    shape = (problems, context - 1, config.block_dim)
    return finite("past_actions", as_array("past_actions", past_actions, np.float32, shape))
