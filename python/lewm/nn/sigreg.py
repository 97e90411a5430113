"""SIGReg, the Sketched Isotropic Gaussian Regulariser (LeJEPA, arXiv 2511.08544), as torch operators.

CPU tensors in float32 or bfloat16 go to the compiled kernels, CUDA tensors to those of the CUDA module where it works
(`lewm.nn.sigreg_cuda`), everything else (other devices, float64, a copy of lewm without its extension) to
`lewm.nn.sigreg_plain`, with the same results: directions depend on the seed alone. The
operators work under ``torch.compile``; they refuse ``vmap``, forward-mode derivatives and a second derivative.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from lewm.arrays import at_least
from lewm.nn import sigreg_cuda
from lewm.nn import sigreg_plain as plain

try:
    from lewm import _core
except ImportError:  # lewm used from its sources, without a build
    _core = None  # type: ignore[assignment]

__all__ = ["SIGReg", "sigreg"]

_COMPILED_DTYPES = (torch.float32, torch.bfloat16)
_ONE_THREAD_ELEMENTS = 1 << 20  # a fraction of a millisecond
_SEEDS = 2**63  # exclusive; seeds travel as int64 tensors


def sigreg(
    z: Tensor,
    directions: Tensor | None = None,
    num_proj: int = 1024,
    knots: int = 17,
    t_max: float = 3.0,
    seed: int | None = None,
    process_group: Any = None,
    pooled: bool = False,
    averaged_gradients: bool = True,
) -> Tensor:
    """The SIGReg statistic of embeddings: 0 when every projection of every batch looks standard normal.

    Per time step and direction, the Epps-Pulley distance between the batch's characteristic function and the normal
    one (trapezoid rule over equally spaced knots, Gaussian window), times the batch size; then the mean over time
    steps and directions. The formula stands at the top of `lewm.nn.sigreg_plain`.

    Args:
        z: (T, B, D) embeddings, any floating dtype; computed in float32 at least, also under autocast.
        directions: (D, M) unit columns, no gradient; None: drawn from `seed`, without being stored.
        num_proj: M, directions to draw.
        knots: K, integration points on [0, t_max].
        t_max: the largest knot.
        seed: of the directions, 0 <= seed < 2**63: the same ones on every device and rank. None: drawn from torch's
            CPU generator (on rank 0 of `process_group`, then broadcast).
        process_group: a torch.distributed group whose ranks hold parts of the batch, of any sizes. The value is then
            that of the concatenated batch, the same on every rank; the sums behind it are all-reduced once.
        pooled: treat all T * B embeddings as one batch instead of one per time step.
        averaged_gradients: with `process_group`, whether parameter gradients are averaged over its ranks afterwards,
            as DistributedDataParallel does. The gradient with respect to z is then multiplied by the number of ranks,
            so that the average is the gradient of the value above; False: it is exactly d value / d z.

    Returns:
        A scalar, float64 for float64 `z` and float32 otherwise.

    Raises:
        ValueError: a shape, size, range or device does not fit; the message names the argument.
        TypeError: `z` or `directions` is not of a floating dtype, or `t_max` no number.
        RuntimeError: a derivative other than the first one of reverse mode is asked for.
    """
    _check(z, directions, num_proj, knots, t_max, seed, process_group)
    _refuse_forward_mode(z)
    if pooled:
        z = z.reshape(1, -1, z.shape[-1])
    if z.dtype == torch.float16:
        z = z.float()
    if directions is not None:
        num_proj = directions.shape[1]
    key = (
        _seed_tensor(seed, z.device, process_group)
        if directions is None
        else torch.zeros((), dtype=torch.int64)
    )

    sums = total = None
    gradient_scale = 1.0
    if process_group is not None:
        sums, total = _reduced_sums(z.detach(), directions, key, num_proj, knots, t_max, process_group)
        if averaged_gradients:
            gradient_scale = float(torch.distributed.get_world_size(process_group))
    needs_gradient = torch.is_grad_enabled() and z.requires_grad
    value, _ = torch.ops.lewm.sigreg(
        z, directions, key, num_proj, knots, t_max, sums, total, gradient_scale, needs_gradient
    )
    return value


class SIGReg(nn.Module):
    """`sigreg` as a module, with the constructor and buffers of the published one; new directions at every call.

    Args:
        knots: K, integration points on [0, t_max].
        num_proj: M, directions.
        t_max: the largest knot.
        process_group: see `sigreg`.
        pooled: see `sigreg`.
    """

    def __init__(
        self,
        knots: int = 17,
        num_proj: int = 1024,
        *,
        t_max: float = 3.0,
        process_group: Any = None,
        pooled: bool = False,
    ) -> None:
        super().__init__()
        _check_sizes(num_proj, knots, t_max)
        self.knots = knots
        self.num_proj = num_proj
        self.t_max = t_max
        self.process_group = process_group
        self.pooled = pooled
        # Kept for state dicts of the published module, which has these three; the kernels make their own.
        t, phi, weights = plain.knots_and_weights(knots, t_max, torch.device("cpu"))
        self.register_buffer("t", t.float())
        self.register_buffer("phi", phi.float())
        self.register_buffer("weights", weights.float())

    def forward(self, z: Tensor, seed: int | None = None) -> Tensor:
        """The scalar statistic of z (T, B, D); `seed` fixes the directions, for example to the training step."""
        return sigreg(
            z,
            num_proj=self.num_proj,
            knots=self.knots,
            t_max=self.t_max,
            seed=seed,
            process_group=self.process_group,
            pooled=self.pooled,
        )

    def extra_repr(self) -> str:
        return f"knots={self.knots}, num_proj={self.num_proj}, t_max={self.t_max}, pooled={self.pooled}"


def _check_sizes(num_proj: int, knots: int, t_max: float) -> None:
    at_least("num_proj", num_proj)
    at_least("knots", knots, 2)
    if isinstance(t_max, (str, bool)):
        raise TypeError(f"t_max: expected a number, got {t_max!r}")
    if not 0 < t_max < math.inf:
        raise ValueError(f"t_max: expected a positive number, got {t_max}")


def _check(
    z: Tensor,
    directions: Tensor | None,
    num_proj: int,
    knots: int,
    t_max: float,
    seed: int | None,
    process_group: Any,
) -> None:
    _check_sizes(num_proj, knots, t_max)
    if not isinstance(z, Tensor):
        raise TypeError(f"z: expected a torch tensor, got {type(z).__name__}")
    if not z.is_floating_point():
        raise TypeError(f"z: expected a floating dtype, got {z.dtype}")
    if z.dim() != 3:
        raise ValueError(f"z: expected (T, B, D), got {tuple(z.shape)}")
    # A rank may be left without samples, a whole batch may not.
    if z.shape[0] == 0 or z.shape[2] == 0 or (z.shape[1] == 0 and process_group is None):
        raise ValueError(f"z: expected (T, B, D) with no size 0, got {tuple(z.shape)}")
    if seed is not None and at_least("seed", seed, 0) >= _SEEDS:
        raise ValueError(f"seed: expected 0 <= seed < 2**63, got {seed}")
    if directions is None:
        return
    if not isinstance(directions, Tensor):
        raise TypeError(f"directions: expected a torch tensor, got {type(directions).__name__}")
    if not directions.is_floating_point():
        raise TypeError(f"directions: expected a floating dtype, got {directions.dtype}")
    if directions.dim() != 2 or directions.shape[0] != z.shape[2] or directions.shape[1] == 0:
        raise ValueError(f"directions: expected ({z.shape[2]}, M), got {tuple(directions.shape)}")
    if directions.device != z.device:
        raise ValueError(f"directions: expected them on {z.device}, as z, got {directions.device}")
    if directions.requires_grad:
        raise ValueError("directions: expected a tensor without gradient; SIGReg has none for them")


def _seed_tensor(seed: int | None, device: torch.device, process_group: Any) -> Tensor:
    if seed is not None:
        return torch.full((), seed, dtype=torch.int64)
    key = torch.randint(_SEEDS - 1, (), dtype=torch.int64)
    if process_group is None:
        return key
    key = key.to(device)  # where the group's backend wants it
    torch.distributed.broadcast(key, torch.distributed.get_global_rank(process_group, 0), group=process_group)
    return key.cpu()


def _reduced_sums(
    z: Tensor,
    directions: Tensor | None,
    key: Tensor,
    num_proj: int,
    knots: int,
    t_max: float,
    process_group: Any,
) -> tuple[Tensor, Tensor]:
    """Characteristic sums (T, M, 2, K) and the batch size over all ranks of the group, by one all-reduce."""
    sums = torch.ops.lewm.sigreg_sums(z, directions, key, num_proj, knots, t_max)
    packed = torch.cat([sums.flatten(), sums.new_full((1,), z.shape[1])])
    torch.distributed.all_reduce(packed, group=process_group)
    return packed[:-1].reshape(sums.shape), packed[-1]


# ----------------------------------------------------------------------------------------------------------------------
# Operators
# ----------------------------------------------------------------------------------------------------------------------

# sums (T, M, 2, K) of cos and sin over this batch; directions drawn from `seed` where none are given.
torch.library.define(
    "lewm::sigreg_sums",
    "(Tensor z, Tensor? directions, Tensor seed, SymInt num_proj, SymInt knots, float t_max) -> Tensor",
)
# The value, and the gradient (T, B, D) times gradient_scale (empty unless needed): one pass makes both. `sums` over
# `total` samples, where given, stand in for those of z alone.
torch.library.define(
    "lewm::sigreg",
    "(Tensor z, Tensor? directions, Tensor seed, SymInt num_proj, SymInt knots, float t_max, Tensor? sums, "
    "Tensor? total, float gradient_scale, bool needs_gradient) -> (Tensor, Tensor)",
)
# grad * gradient in dtype; an operator of its own, so that a second derivative meets a clear refusal.
torch.library.define("lewm::sigreg_backward", "(Tensor grad, Tensor gradient, ScalarType dtype) -> Tensor")


def _result_dtype(z: Tensor) -> torch.dtype:
    return torch.float64 if z.dtype == torch.float64 else torch.float32


def _directions(z: Tensor, directions: Tensor | None, seed: Tensor, num_proj: int) -> Tensor:
    if directions is not None:
        return directions
    return plain.directions(seed, z.shape[-1], num_proj, z.device, _result_dtype(z))


def _sums_plain(z, directions, seed, num_proj, knots, t_max):
    with torch.no_grad(), torch.autocast(z.device.type, enabled=False):
        return plain.characteristic_sums(z, _directions(z, directions, seed, num_proj), knots, t_max)


def _sigreg_plain(z, directions, seed, num_proj, knots, t_max, sums, total, gradient_scale, needs_gradient):
    dtype = _result_dtype(z)
    with torch.no_grad(), torch.autocast(z.device.type, enabled=False):
        u = _directions(z, directions, seed, num_proj)
        if sums is None:
            sums, total = plain.characteristic_sums(z, u, knots, t_max), z.shape[1]
        value = plain.statistic(sums, total, t_max).to(dtype)
        if not needs_gradient:
            return value, value.new_empty(0)
        return value, (gradient_scale * plain.gradient(z, u, sums, total, t_max)).to(dtype)


def _for_kernels(z: Tensor, directions: Tensor | None) -> tuple[Tensor, Tensor | None]:
    if directions is not None:
        directions = directions.detach().to(torch.float32).contiguous()
    return z.detach().contiguous(), directions


def _sums_cpu(z, directions, seed, num_proj, knots, t_max):
    if _core is None or z.dtype not in _COMPILED_DTYPES:
        return _sums_plain(z, directions, seed, num_proj, knots, t_max)
    z, directions = _for_kernels(z, directions)
    sums = torch.empty(z.shape[0], num_proj, 2, knots, dtype=torch.float64)
    _core.sigreg_sums(z, directions, seed.item(), num_proj, knots, t_max, sums, torch.get_num_threads())
    return sums


def _sigreg_cpu(z, directions, seed, num_proj, knots, t_max, sums, total, gradient_scale, needs_gradient):
    if _core is None or z.dtype not in _COMPILED_DTYPES:
        return _sigreg_plain(
            z, directions, seed, num_proj, knots, t_max, sums, total, gradient_scale, needs_gradient
        )
    z, directions = _for_kernels(z, directions)
    gradient = torch.empty(z.shape if needs_gradient else 0, dtype=torch.float32)
    threads = torch.get_num_threads()
    arguments = (z, directions, seed.item(), num_proj, knots, t_max)
    if sums is None:
        value = _core.sigreg_value(*arguments, gradient if needs_gradient else None, threads)
        return torch.tensor(value, dtype=torch.float32), gradient
    if needs_gradient:
        _core.sigreg_gradient(*arguments, sums, total.item(), gradient_scale, gradient, threads)
    return plain.statistic(sums, total, t_max).to(torch.float32), gradient


def _sums_cuda(z, directions, seed, num_proj, knots, t_max):
    if z.dtype not in _COMPILED_DTYPES or not sigreg_cuda.available(z.device):
        return _sums_plain(z, directions, seed, num_proj, knots, t_max)
    with torch.cuda.device_of(z):
        return sigreg_cuda.sums(z, _directions(z, directions, seed, num_proj), knots, t_max)


def _sigreg_cuda(z, directions, seed, num_proj, knots, t_max, sums, total, gradient_scale, needs_gradient):
    if z.dtype not in _COMPILED_DTYPES or not sigreg_cuda.available(z.device):
        return _sigreg_plain(
            z, directions, seed, num_proj, knots, t_max, sums, total, gradient_scale, needs_gradient
        )
    with torch.cuda.device_of(z):
        u = _directions(z, directions, seed, num_proj)
        if sums is None:
            sums, total = sigreg_cuda.sums(z, u, knots, t_max), z.shape[1]
        count = float(total)
        value = sigreg_cuda.statistic(sums, count, t_max).to(torch.float32)
        if not needs_gradient:
            return value, value.new_empty(0)
        return value, sigreg_cuda.gradient(z, u, sums, count, t_max, gradient_scale)


def _scale(grad: Tensor, gradient: Tensor, out: Tensor | None = None) -> Tensor:
    """``grad * gradient``. A small one on this thread alone: torch would wake its OpenMP threads for one pass over it,
    and they then spin for milliseconds on the cores that the next step's kernels want."""
    if (
        gradient.device.type != "cpu"
        or gradient.dtype != torch.float32
        or gradient.numel() > _ONE_THREAD_ELEMENTS
    ):
        return torch.mul(gradient, grad, out=out)
    out = torch.empty_like(gradient) if out is None else out
    np.multiply(gradient.numpy(), np.float32(grad.item()), out=out.numpy())
    return out


def _backward_any(grad, gradient, dtype):
    return _scale(grad, gradient).to(dtype)


def _is_read_once(gradient: Tensor) -> bool:
    """The running backward pass is the only one that will read this saved tensor, so that its memory may be reused: no
    graph is retained or made, and nothing is being traced."""
    name = "_get_current_graph_task_keep_graph"  # not in every torch
    keeps_graph = getattr(torch._C._autograd, name, lambda: True)
    return type(gradient) is Tensor and not torch.is_grad_enabled() and not keeps_graph()


@torch.library.register_fake("lewm::sigreg_sums")
def _sums_fake(z, directions, seed, num_proj, knots, t_max):
    return z.new_empty((z.shape[0], num_proj, 2, knots), dtype=plain.wide_dtype(z.device))


@torch.library.register_fake("lewm::sigreg")
def _sigreg_fake(z, directions, seed, num_proj, knots, t_max, sums, total, gradient_scale, needs_gradient):
    dtype = _result_dtype(z)
    return z.new_empty((), dtype=dtype), z.new_empty(z.shape if needs_gradient else (0,), dtype=dtype)


@torch.library.register_fake("lewm::sigreg_backward")
def _backward_fake(grad, gradient, dtype):
    return gradient.new_empty(gradient.shape, dtype=dtype)


def _save_gradient(ctx, inputs, output):
    ctx.dtype = inputs[0].dtype
    ctx.save_for_backward(output[1])
    ctx.set_materialize_grads(False)  # no zeros, as large as z, for the gradient that is the other output


def _backward(ctx, grad_value, _grad_gradient):
    if grad_value is None:
        return (None,) * 10
    (gradient,) = ctx.saved_tensors
    if _is_read_once(gradient):
        return _scale(grad_value, gradient, out=gradient).to(ctx.dtype), *[None] * 9
    return torch.ops.lewm.sigreg_backward(grad_value, gradient, ctx.dtype), *[None] * 9


def _refuse_second_derivative(ctx, grad):
    raise RuntimeError("sigreg: a second derivative (create_graph=True) is not supported")


def _refuse_forward_mode(z: Tensor) -> None:
    """torch asks no operator of its library for a forward derivative: it would come out as zero."""
    if not torch.compiler.is_compiling() and forward_ad.unpack_dual(z).tangent is not None:
        raise RuntimeError("sigreg: forward-mode derivatives are not supported")


def _refuse_vmap(info, in_dims, *args):
    raise RuntimeError(
        "sigreg: torch.vmap is not supported; more batches of a time step fit on the T axis of z"
    )


torch.library.impl("lewm::sigreg_sums", "default", _sums_plain)
torch.library.impl("lewm::sigreg_sums", "cpu", _sums_cpu)
torch.library.impl("lewm::sigreg_sums", "cuda", _sums_cuda)
torch.library.impl("lewm::sigreg", "default", _sigreg_plain)
torch.library.impl("lewm::sigreg", "cpu", _sigreg_cpu)
torch.library.impl("lewm::sigreg", "cuda", _sigreg_cuda)
torch.library.impl("lewm::sigreg_backward", "default", _backward_any)
torch.library.register_autograd("lewm::sigreg", _backward, setup_context=_save_gradient)
torch.library.register_autograd("lewm::sigreg_backward", _refuse_second_derivative)
if hasattr(torch.library, "register_vmap"):  # torch >= 2.5
    for _name in ("sigreg", "sigreg_sums", "sigreg_backward"):
        torch.library.register_vmap(f"lewm::{_name}", _refuse_vmap)
