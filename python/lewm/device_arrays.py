"""Arrays in a GPU's memory: read in place, on the caller's stream, through DLPack."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from lewm import _core
from lewm.arrays import as_array, finite
from lewm.config import LeWMConfig

__all__ = ["Caller", "DeviceArrays", "DevicePlans", "on_gpu"]

_CUDA_DEVICE_TYPES = (2, 13)  # DLPack's kDLCUDA and kDLCUDAManaged
_LEGACY_STREAM = 1  # what DLPack and CUDA call the default stream


def on_gpu(array: Any) -> bool:
    """Whether an array lies in a CUDA device's memory."""
    device = getattr(array, "__dlpack_device__", None)
    try:
        return device is not None and int(device()[0]) in _CUDA_DEVICE_TYPES
    except ValueError:  # of a tensor without memory: torch's "meta"
        return False


class Caller:
    """Who hands in GPU arrays: its current stream, and results as it has them.

    Args:
        like: a torch tensor, a CuPy array, or anything with ``__dlpack__``; the last needs torch or CuPy for results,
            and the array's own library (its ``__array_namespace__``) takes them over where it can.
    """

    def __init__(self, like: Any) -> None:
        self._like = like
        self._torch = sys.modules.get("torch")
        self._is_torch = self._torch is not None and isinstance(like, self._torch.Tensor)
        self.stream: int = self._current_stream() or _LEGACY_STREAM

    def _current_stream(self) -> int:
        if self._is_torch:
            torch: Any = self._torch
            return int(torch.cuda.current_stream(self._like.device).cuda_stream)
        with self._device():
            return int(self._cupy().cuda.get_current_stream().ptr)

    def _device(self) -> AbstractContextManager[Any]:
        """Makes the arrays' GPU the current one of their library."""
        if self._is_torch:
            torch: Any = self._torch
            return torch.cuda.device(self._like.device)  # type: ignore[no-any-return]
        return self._cupy().cuda.Device(int(self._like.__dlpack_device__()[1]))  # type: ignore[no-any-return]

    @staticmethod
    def _cupy() -> Any:
        try:
            import cupy
        except ModuleNotFoundError as error:
            raise ImportError(
                "arrays in a GPU's memory, other than torch's, need CuPy for results"
            ) from error
        return cupy

    def empty(self, shape: Sequence[int], dtype: str = "float32") -> Any:
        """An array for a result, on the GPU."""
        if self._is_torch:
            torch: Any = self._torch
            return torch.empty(tuple(shape), dtype=getattr(torch, dtype), device=self._like.device)
        with self._device():
            return self._cupy().empty(tuple(shape), dtype)

    def take(self, name: str, array: Any, dtype: str, shape: Sequence[int | str]) -> Any:
        """An argument for the core, ready on the stream; `shape` as in `lewm.arrays.as_array`.

        Raises:
            TypeError: another element type. ValueError: another shape, empty, or not on the GPU.
        """
        if not on_gpu(array):
            raise ValueError(
                f"{name}: expected an array in the GPU's memory, as the others, got {type(array).__name__}"
            )
        got = str(array.dtype).rpartition(".")[2]
        if got != dtype:
            raise TypeError(f"{name}: expected {dtype}, got {got}")
        sizes = tuple(int(n) for n in array.shape)
        fits = len(sizes) == len(shape) and all(
            size >= 1 if isinstance(wanted, str) else size == wanted
            for size, wanted in zip(sizes, shape, strict=True)
        )
        if not fits:
            raise ValueError(f"{name}: expected ({', '.join(map(str, shape))}), got {sizes}")
        return self.capsule(_contiguous(array))

    def capsule(self, array: Any) -> Any:
        """The array as DLPack has it, ready on the stream."""
        with self._device():
            return array.__dlpack__(stream=self.stream)

    def give(self, result: Any) -> Any:
        """A result as the caller's library has arrays."""
        if self._is_torch or isinstance(self._like, self._cupy().ndarray):
            return result
        with self._device():  # whoever owns the arguments may reuse their memory in an order of its own
            self._cupy().cuda.get_current_stream().synchronize()
        namespace = getattr(self._like, "__array_namespace__", None)
        return namespace().from_dlpack(result) if namespace is not None else result


def _contiguous(array: Any) -> Any:
    if hasattr(array, "detach"):
        return array.detach().resolve_neg().contiguous()  # DLPack drops a lazy sign
    flags = getattr(array, "flags", None)
    if flags is not None and not flags.c_contiguous:
        return array.copy(order="C")
    return array


class DeviceArrays:
    """A model's functions on arrays in its GPU's memory; shapes are those of `lewm.Model`.

    Work is enqueued on the caller's current stream (torch's or CuPy's, else the default one) and not waited for. The
    result stays on the GPU, as the argument's library has arrays. Values are not looked at: NaN comes out as NaN.
    """

    def __init__(self, core: _core.Model, device: str, config: LeWMConfig) -> None:
        if device == "cpu":
            raise ValueError(
                "arrays: they lie in a GPU's memory, the model on the CPU; load it with device='cuda'"
            )
        self._core = core
        self._config = config

    def encode(self, frames: Any, fit: int | None) -> Any:
        """Latents (n, D) of frames (n, H, W, 3) uint8 or (n, 3, H, W) float32; `fit`: of uint8 of any size."""
        caller, size = Caller(frames), self._config.image_size
        out = caller.empty((frames.shape[0], self._config.latent_dim))
        if fit is not None:
            taken = caller.take("frames", frames, "uint8", ("n", "H", "W", 3))
            self._core.encode_camera(taken, caller.capsule(out), fit, caller.stream)
        else:
            taken = _take_frames(caller, "frames", frames, ("n",), size)
            self._core.encode(taken, caller.capsule(out), caller.stream)
        return caller.give(out)

    def rollout(self, latents: Any, actions: Any, past: Any) -> Any:
        """Latents (B, S, H, D) of candidates (B, S, H, A)."""
        caller = Caller(actions)
        out = caller.empty((*actions.shape[:3], self._config.latent_dim))
        taken = self._candidates(caller, latents, actions, past)
        self._core.rollout(*taken, caller.capsule(out), caller.stream)
        return caller.give(out)

    def cost(self, latents: Any, goal: Any, actions: Any, past: Any) -> Any:
        """Costs (B, S) of candidates (B, S, H, A)."""
        caller = Caller(actions)
        out = caller.empty(tuple(actions.shape[:2]))
        start, candidates, executed = self._candidates(caller, latents, actions, past)
        goal = caller.take("goal", goal, "float32", (latents.shape[0], self._config.latent_dim))
        self._core.cost(start, goal, candidates, executed, caller.capsule(out), caller.stream)
        return caller.give(out)

    def _candidates(self, caller: Caller, latents: Any, actions: Any, past: Any) -> tuple[Any, Any, Any]:
        config = self._config
        start = caller.take("latents", latents, "float32", ("B", "C", config.latent_dim))
        problems, context = (int(n) for n in latents.shape[:2])
        candidates = caller.take("actions", actions, "float32", (problems, "S", "H", config.block_dim))
        executed = None
        if past is not None and context > 1:
            executed = caller.take("past_actions", past, "float32", (problems, context - 1, config.block_dim))
        return start, candidates, executed


class DevicePlans:
    """A planner's arguments and results in its model's GPU; shapes are those of `lewm.Planner`.

    Everything is ordered on the caller's current stream. A plan is waited for, because it may fail.

    Args:
        start: latents ([B,] C, D) or frames ([B,] [C,] H, W, 3); `goal` alike. Checked here.
        kind: "latents" or "frames".
    """

    def __init__(self, config: LeWMConfig, kind: str, start: Any, goal: Any) -> None:
        self.caller = caller = Caller(start)
        self.batched = len(goal.shape) == (2 if kind == "latents" else 4)
        if not self.batched:
            start, goal = start[None], goal[None]
        if kind == "frames" and len(start.shape) == 4:
            start = start[:, None]
        self.problems = int(goal.shape[0])
        self.block_dim = config.block_dim
        if kind == "latents":
            self.start = caller.take("latents", start, "float32", (self.problems, "C", config.latent_dim))
            self.goal = caller.take("goal", goal, "float32", (self.problems, config.latent_dim))
        else:
            if goal.dtype != start.dtype:
                raise TypeError(f"goal: expected {start.dtype} as the frame, got {goal.dtype}")
            self.start = _take_frames(caller, "frame", start, (self.problems, "C"), config.image_size)
            self.goal = _take_frames(caller, "goal", goal, (self.problems,), config.image_size)
        self.context = int(start.shape[1])
        if self.context > config.history:
            raise ValueError(
                f"{'latents' if kind == 'latents' else 'frame'}: expected at most {config.history} context frames, "
                f"got {self.context}"
            )

    def blocks(self, name: str, value: Any, count: int | str) -> Any:
        """Blocks ([B,] count, A), from the CPU's or the GPU's memory, as the core takes them; None: none."""
        if value is None:
            return None
        shape = (self.problems, count, self.block_dim)
        if on_gpu(value):
            return self.caller.take(name, value if self.batched else value[None], "float32", shape)
        array = as_array(name, value, np.float32, shape if self.batched else shape[1:])
        return finite(name, array if self.batched else array[None])

    def results(self, horizon: int, elites: int) -> tuple[Any, Any, Any, Any, Any]:
        """Arrays for actions (B, H, A), cost (B,), elite_cost (B,), std (B, H, A) and elites (B, K)."""
        shape = (self.problems, horizon, self.block_dim)
        empty = self.caller.empty
        return (
            empty(shape),
            empty((self.problems,)),
            empty((self.problems,)),
            empty(shape),
            empty((self.problems, elites), "int32"),
        )


def _take_frames(caller: Caller, name: str, frames: Any, lead: tuple[int | str, ...], size: int) -> Any:
    dtype = str(frames.dtype).rpartition(".")[2]
    if dtype == "float32":
        return caller.take(name, frames, dtype, (*lead, 3, size, size))
    if dtype != "uint8":
        raise TypeError(f"{name}: expected uint8 or float32, got {dtype}")
    return caller.take(name, frames, dtype, (*lead, size, size, 3))
