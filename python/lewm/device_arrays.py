"""Arrays in a GPU's memory: read in place, on the caller's stream, through DLPack."""

from __future__ import annotations

import sys
from typing import Any

from lewm import _core
from lewm.config import LeWMConfig

__all__ = ["DeviceArrays", "on_gpu"]

_CUDA_DEVICE_TYPES = (2, 13)  # DLPack's kDLCUDA and kDLCUDAManaged
_LEGACY_STREAM = 1  # what DLPack and CUDA call the default stream


def on_gpu(array: Any) -> bool:
    """Whether an array lies in a CUDA device's memory."""
    device = getattr(array, "__dlpack_device__", None)
    return device is not None and int(device()[0]) in _CUDA_DEVICE_TYPES


class DeviceArrays:
    """A model's functions on arrays in its GPU's memory; shapes are those of `lewm.Model`.

    Work is enqueued on the caller's current stream (torch's or CuPy's, else the default one) and not waited for. The
    result is a torch tensor for torch arguments, else a CuPy array. Values are not looked at: NaN comes out as NaN.
    """

    def __init__(self, core: _core.Model, device: str, config: LeWMConfig) -> None:
        if device == "cpu":
            raise ValueError(
                "arrays: they lie in a GPU's memory, the model on the CPU; load it with device='cuda'"
            )
        self._core = core
        self._config = config

    def encode(self, frames: Any) -> Any:
        """Latents (n, D) of frames (n, H, W, 3) uint8 or (n, 3, H, W) float32."""
        out, stream = self._result(frames, (frames.shape[0], self._config.latent_dim))
        self._core.encode(_capsule("frames", frames, stream), _capsule("out", out, stream), stream)
        return out

    def rollout(self, latents: Any, actions: Any, past: Any) -> Any:
        """Latents (B, S, H, D) of candidates (B, S, H, A)."""
        out, stream = self._result(actions, (*actions.shape[:3], self._config.latent_dim))
        self._core.rollout(
            _capsule("latents", latents, stream),
            _capsule("actions", actions, stream),
            None if past is None else _capsule("past_actions", past, stream),
            _capsule("out", out, stream),
            stream,
        )
        return out

    def cost(self, latents: Any, goal: Any, actions: Any, past: Any) -> Any:
        """Costs (B, S) of candidates (B, S, H, A)."""
        out, stream = self._result(actions, tuple(actions.shape[:2]))
        self._core.cost(
            _capsule("latents", latents, stream),
            _capsule("goal", goal, stream),
            _capsule("actions", actions, stream),
            None if past is None else _capsule("past_actions", past, stream),
            _capsule("out", out, stream),
            stream,
        )
        return out

    @staticmethod
    def _result(like: Any, shape: tuple[int, ...]) -> tuple[Any, int]:
        """An array for the result, and the caller's stream."""
        torch = sys.modules.get("torch")
        if torch is not None and isinstance(like, torch.Tensor):
            stream = torch.cuda.current_stream(like.device).cuda_stream
            return torch.empty(shape, dtype=torch.float32, device=like.device), stream or _LEGACY_STREAM
        import cupy

        return cupy.empty(shape, cupy.float32), cupy.cuda.get_current_stream().ptr or _LEGACY_STREAM


def _capsule(name: str, array: Any, stream: int) -> Any:
    """The array for the core, ready on `stream`."""
    if not on_gpu(array):
        raise ValueError(
            f"{name}: expected an array in the GPU's memory, as the others, got {type(array).__name__}"
        )
    if hasattr(array, "detach"):
        array = array.detach()
    return array.__dlpack__(stream=stream)
