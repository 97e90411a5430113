"""bfloat16 training on CPUs that have no bfloat16 instructions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["Bf16ThroughFloat32", "bf16_products"]

_PRODUCTS = frozenset(
    getattr(torch.ops.aten, name).default for name in ("mm", "addmm", "bmm", "baddbmm", "addmv", "mv")
)


class Bf16ThroughFloat32(TorchDispatchMode):
    """Within it, products of bfloat16 matrices are computed as float32 products of the same numbers, then rounded.

    That is what bf16 units compute (exact products, sums in float32, one rounding), up to the order of the sums, and
    torch's own loops for CPUs without such units are tens of times slower than its float32 products.
    """

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func in _PRODUCTS and args[0].dtype == torch.bfloat16:
            return func(*(_float32(argument) for argument in args), **(kwargs or {})).bfloat16()
        return func(*args, **(kwargs or {}))


def _float32(argument: Any) -> Any:
    return argument.float() if isinstance(argument, torch.Tensor) else argument


def bf16_products(device: torch.device) -> AbstractContextManager[Any]:
    """What bfloat16 forward and backward passes on `device` should run in: nothing where it has bf16 products."""
    lacking = device.type == "cpu" and not torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return Bf16ThroughFloat32() if lacking else nullcontext()
