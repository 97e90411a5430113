"""What a plan costs on a GPU, launch by launch as csrc/cuda enqueues it, and the least time that datasheets allow.

    python benches/gpu_roofline.py                 # the published model and settings, batch 1 and 50
    python benches/gpu_roofline.py --batch 1 --iterations 10

Needs no GPU: it predicts, `benches/gpu.py` measures and prints both. Per launch the time is the larger of FLOPs over
the tensor cores' dense bf16 peak and bytes over the memory's bandwidth, every operand read or written once. Nothing is
added for launching or for tiles that do not fill the machine; nothing is taken off for caches.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass

from lewm.config import LeWMConfig

BF16, F32 = 2, 4
TILE_BYTES = 256 << 20  # of modulations, csrc/cuda/rollout.cpp


@dataclass(frozen=True)
class Gpu:
    """Dense bf16 tensor-core FLOP/s and bytes/s of a datasheet."""

    name: str
    flops: float
    bandwidth: float
    source: str


GPUS = (
    Gpu("A100 SXM 80 GB", 312e12, 2039e9, "NVIDIA A100 datasheet"),
    Gpu("L40S", 362e12, 864e9, "NVIDIA L40S datasheet"),
    Gpu("H100 SXM", 989e12, 3350e9, "NVIDIA H100 datasheet"),
    Gpu("H200 SXM", 989e12, 4800e9, "NVIDIA H200 datasheet"),
    Gpu(
        "Jetson AGX Orin 64 GB",
        42.5e12,
        204.8e9,
        "NVIDIA Jetson AGX Orin technical brief: 85 dense INT8 TOPS, halved",
    ),
)


@dataclass(frozen=True)
class Launch:
    """One kernel: its name, floating-point operations and bytes."""

    kernel: str
    flops: float
    bytes: float


def gemm(rows: int, n: int, k: int, out: int, gated: bool = False) -> Launch:
    """Y (rows, n) = X (rows, k) W^T; `out` bytes an element of Y, which a gated one also reads, with its gate."""
    moved = BF16 * (rows * k + n * k) + out * rows * n + (2 * F32 * rows * n if gated else 0)
    return Launch("gemm", 2.0 * rows * n * k, moved)


def step_schedule(history: int, context: int, step: int, horizon: int) -> tuple[int, bool, bool, int]:
    """(fresh tokens, the first sees only itself, somebody needs keys, keys of the newest): rollout_schedule.h."""
    last = context - 1 + step
    window = max(0, last + 1 - history)
    shared = max(0, context - 1 - window)
    own = last + 1 - window - shared
    cached = own - 1 if window == 0 else 0
    alone = shared + cached == 0
    fresh = own - cached
    kept = last + 1 < history and step + 1 < horizon
    return fresh, alone, not alone or fresh > 1 or kept, last - window + 1


def rollout(c: LeWMConfig, candidates: int, horizon: int, context: int = 1) -> Iterator[Launch]:
    """The launches of one rollout of `candidates` sequences (csrc/cuda/rollout.cpp)."""
    dim, inner, d = c.predictor_dim, c.predictor_heads * c.predictor_head_dim, c.latent_dim
    hidden, width = c.action_mlp_scale * d, 6 * dim * c.predictor_depth
    blocks = candidates * horizon
    yield Launch(
        "encode_actions", 2.0 * blocks * hidden * c.block_dim, blocks * (F32 * c.block_dim + BF16 * hidden)
    )
    yield gemm(blocks, dim, hidden, BF16)
    yield gemm(blocks, width, dim, F32)
    for step in range(horizon):
        fresh, alone, needs_keys, keys = step_schedule(c.history, context, step, horizon)
        rows = fresh * candidates
        yield Launch("open_pass", rows * dim, 2 * F32 * rows * dim)
        for layer in range(c.predictor_depth):
            last = layer + 1 == c.predictor_depth
            lonely = candidates if alone and (not last or fresh == 1) else 0
            seeing = (candidates if last else rows) - lonely
            yield Launch("ada_ln", 10.0 * rows * dim, rows * dim * (3 * F32 + BF16))
            if needs_keys:
                yield gemm(rows, 2 * inner, dim, BF16)
            if lonely:
                yield gemm(lonely, dim, dim, F32, gated=True)
            if seeing:
                yield gemm(seeing, inner, dim, BF16)
                moved = BF16 * seeing * inner * (2 + 2 * keys)
                yield Launch("window_attention", 4.0 * seeing * inner * keys, moved)
                yield gemm(seeing, dim, inner, F32, gated=True)
            on = candidates if last else rows
            yield Launch("ada_ln", 10.0 * on * dim, on * dim * (3 * F32 + BF16))
            yield gemm(on, c.predictor_mlp_dim, dim, BF16)
            yield gemm(on, dim, c.predictor_mlp_dim, F32, gated=True)
        yield Launch("layer_norm", 8.0 * candidates * dim, candidates * dim * (F32 + BF16))
        yield gemm(candidates, c.pred_proj_dim, dim, BF16)
        yield gemm(candidates, d, c.pred_proj_dim, F32)
    yield Launch("squared_distance", 3.0 * candidates * d, F32 * candidates * d)


def plan(c: LeWMConfig, batch: int, samples: int, iterations: int, horizon: int) -> list[Launch]:
    """The launches of a plan from one context frame, without encoding."""
    candidates, elements = batch * samples, horizon * c.block_dim
    tiles = -(
        -candidates
        // max(64, min(4096, TILE_BYTES // (horizon * 6 * c.predictor_dim * c.predictor_depth * F32)))
    )
    rollouts = [
        x
        for tile in range(tiles)
        for x in rollout(c, candidates * (tile + 1) // tiles - candidates * tile // tiles, horizon)
    ]
    noise = Launch("sample", 0.0, F32 * candidates * elements)
    sort = Launch("select_elites", 0.0, F32 * candidates)
    refit = Launch("refit", 0.0, F32 * candidates * elements)
    iteration = [noise, *rollouts, sort, refit, Launch("close_iteration", 0.0, F32 * candidates)]
    return [Launch("begin_search", 0.0, 0.0), *(iteration * iterations), *rollout(c, batch, horizon)]


def least_seconds(launches: list[Launch], gpu: Gpu) -> float:
    """The roofline: launches one after the other, each bound by arithmetic or memory."""
    return sum(max(launch.flops / gpu.flops, launch.bytes / gpu.bandwidth) for launch in launches)


def main() -> None:
    """Prints the tables of docs/gpu.md."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 50])
    parser.add_argument("--samples", type=int, default=300)
    parser.add_argument("--iterations", type=int, default=30)
    parser.add_argument("--horizon", type=int, default=5)
    args = parser.parse_args()
    config = LeWMConfig()
    print(f"{args.samples} samples x {args.iterations} iterations, horizon {args.horizon}\n")
    print("| batch | TFLOP | GB | kernels | graph launches |" + "".join(f" {gpu.name} |" for gpu in GPUS))
    print("|---|---|---|---|---|" + "---|" * len(GPUS))
    for batch in args.batch:
        launches = plan(config, batch, args.samples, args.iterations, args.horizon)
        flops, moved = sum(x.flops for x in launches), sum(x.bytes for x in launches)
        cells = [
            f"{batch}",
            f"{flops / 1e12:.2f}",
            f"{moved / 1e9:.1f}",
            f"{len(launches)}",
            f"{args.iterations}",
        ]
        cells += [f"{1e3 * least_seconds(launches, gpu):.1f} ms" for gpu in GPUS]
        print("| " + " | ".join(cells) + " |")
    print()
    for gpu in GPUS:
        print(f"- {gpu.name}: {gpu.flops / 1e12:.0f} TFLOP/s, {gpu.bandwidth / 1e9:.0f} GB/s ({gpu.source})")


if __name__ == "__main__":
    main()
