"""SIGReg forward + backward beside the published module, eager and compiled: time and extra memory, in one run.

    python benches/bench_sigreg.py                                # the reference size
    python benches/bench_sigreg.py --size 4,4096,192,1024,17      # T, B, D, M, K; may be repeated
    python benches/bench_sigreg.py --sweep --out results          # over B, M and K: results/sigreg.csv and .png

Needs an environment with lewm, stable-worldmodel (and matplotlib for the plot). Times are taken in this process, the
contenders taking turns; memory is the growth of the resident set over one call, each in a process of its own. The
ceiling is the time that the two matrix products alone would take at the rate of torch's own float32 product here.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from stable_worldmodel.wm.loss import SIGReg as PublishedSIGReg
from torch import Tensor

from lewm.nn import SIGReg

CONTENDERS = ("published eager", "published compiled", "lewm")
REST = 0.02  # seconds before every turn, in which the OpenMP threads of the contender before go to sleep
MEMORY_ENVIRONMENT = {
    "MALLOC_MMAP_THRESHOLD_": "65536",
    "MALLOC_TRIM_THRESHOLD_": "0",
}  # what is freed goes back


@dataclasses.dataclass(frozen=True)
class Size:
    steps: int = 4
    batch: int = 128
    dim: int = 192
    num_proj: int = 1024
    knots: int = 17

    def __str__(self) -> str:
        return f"T {self.steps}, B {self.batch}, D {self.dim}, M {self.num_proj}, K {self.knots}"

    @property
    def flop(self) -> float:
        """Of the projections and of the gradient's product, at one multiply and one add each."""
        return 2 * 2.0 * self.steps * self.batch * self.dim * self.num_proj

    @property
    def angles(self) -> int:
        return self.steps * self.batch * self.num_proj


REFERENCE = Size()
SWEEPS = {
    "batch": [dataclasses.replace(REFERENCE, batch=b) for b in (32, 128, 512, 2048)],
    "num_proj": [dataclasses.replace(REFERENCE, num_proj=m) for m in (64, 256, 1024, 4096)],
    "knots": [dataclasses.replace(REFERENCE, knots=k) for k in (5, 17, 65)],
}


def contender(name: str, size: Size) -> Callable[[Tensor], None]:
    """A function that runs forward and backward of one contender."""
    if name == "lewm":
        module: Callable[[Tensor], Tensor] = SIGReg(size.knots, size.num_proj)
    else:
        module = PublishedSIGReg(size.knots, size.num_proj)
        if name == "published compiled":
            module = torch.compile(module)

    def run(z: Tensor) -> None:
        z.grad = None
        module(z).backward()

    return run


def embeddings(size: Size) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(size.steps, size.batch, size.dim, generator=generator).requires_grad_()


def seconds(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def product_rate() -> float:
    """FLOP/s of torch's float32 matrix product, the best of several."""
    n = 1024
    a, b = torch.randn(n, n), torch.randn(n, n)
    return 2.0 * n**3 / min(seconds(lambda: a @ b) for _ in range(20))


def measure_times(size: Size, names: list[str], rounds: int) -> dict[str, tuple[float, float]]:
    """Best and median seconds of each contender; they take turns, so that a busy machine is busy for all."""
    z = embeddings(size)
    runs = {name: contender(name, size) for name in names}
    for run in runs.values():
        run(z)
        run(z)
    times: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(rounds):
        for name, run in runs.items():
            time.sleep(REST)
            run(z)  # the caches and the clock are the contender's own when its time is taken
            times[name].append(seconds(lambda run=run: run(z)))
    return {name: (min(values), statistics.median(values)) for name, values in times.items()}


def resident(field: str) -> int:
    """Bytes of VmRSS or VmHWM of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"no {field} in /proc/self/status")


def peak_growth(name: str, size: Size) -> int:
    """How much the resident set grows over one forward and backward, in bytes. Meant for a fresh process."""
    z = embeddings(size)
    z.grad = torch.zeros_like(z)
    run = contender(name, size)
    if name == "published compiled":
        run(z)  # the compiler itself needs more than what it compiles
    else:
        contender(name, dataclasses.replace(size, batch=2, num_proj=2))(
            torch.randn(1, 2, 4, requires_grad=True)
        )
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts from here
    before = resident("VmRSS")
    run(z)
    return resident("VmHWM") - before


def measure_memory(size: Size, names: list[str]) -> dict[str, int]:
    growth = {}
    for name in names:
        command = [
            sys.executable,
            __file__,
            "--peak-of",
            name,
            "--size",
            ",".join(map(str, dataclasses.astuple(size))),
        ]
        result = subprocess.run(
            command, capture_output=True, text=True, env=os.environ | MEMORY_ENVIRONMENT, check=False
        )
        if result.returncode:
            print(f"  {name}: no memory figure ({result.stderr.strip().splitlines()[-1:]})")
            continue
        growth[name] = int(result.stdout.split()[-1])
    return growth


def measure(size: Size, names: list[str], rounds: int, memory: bool) -> list[dict[str, object]]:
    """Prints and returns one row per contender."""
    times = measure_times(size, names, rounds)
    growth = measure_memory(size, names) if memory else {}
    rate = product_rate()
    floor = size.flop / rate
    print(f"{size}: {size.flop / 1e9:.3f} GFLOP in products, {size.angles / 1e6:.2f} M angles")
    print(f"  ceiling: products alone {floor * 1e3:.2f} ms, at torch's {rate / 1e9:.0f} GFLOP/s")
    rows = []
    for name in names:
        best, median = times[name]
        ratios = f"{best / times['lewm'][0]:6.1f}x lewm's" if "lewm" in times else ""
        extra = f", extra memory {growth[name] / 2**20:8.1f} MiB" if name in growth else ""
        print(
            f"  {name:19} best {best * 1e3:9.2f} ms, median {median * 1e3:9.2f} ms, {ratios}, "
            f"{floor / best:5.0%} of the ceiling{extra}"
        )
        rows.append(
            dataclasses.asdict(size)
            | {
                "contender": name,
                "best_s": best,
                "median_s": median,
                "floor_s": floor,
                "extra_bytes": growth.get(name),
            }
        )
    return rows


def plot(rows: dict[str, list[dict[str, object]]], path: Path) -> None:
    """Time and memory over each swept size, contenders as lines."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import NullLocator

    labels = {"batch": "batch size B", "num_proj": "directions M", "knots": "knots K"}
    figure, axes = plt.subplots(2, len(rows), figsize=(4 * len(rows), 7), squeeze=False)
    for column, (swept, points) in enumerate(rows.items()):
        for row, (field, unit, scale) in enumerate((("best_s", "ms", 1e3), ("extra_bytes", "MiB", 2**-20))):
            axis = axes[row][column]
            for name in CONTENDERS:
                own = [p for p in points if p["contender"] == name and p[field] is not None]
                if own:
                    axis.plot(
                        [p[swept] for p in own], [scale * p[field] for p in own], marker="o", label=name
                    )
            if field == "best_s":
                floors = {p[swept]: 1e3 * p["floor_s"] for p in points}
                axis.plot(list(floors), list(floors.values()), "k:", label="products alone")
            axis.set(
                xscale="log",
                yscale="log",
                xlabel=labels[swept],
                ylabel=f"{('time', 'extra memory')[row]}, {unit}",
            )
            axis.set_xticks([p[swept] for p in own], labels=[str(p[swept]) for p in own])
            axis.xaxis.set_minor_locator(NullLocator())
            axis.grid(alpha=0.3)
    axes[0][0].legend(fontsize=8)
    figure.suptitle(f"SIGReg forward + backward; elsewhere {REFERENCE}")
    figure.tight_layout()
    figure.savefig(path, dpi=150)


def parse_size(text: str) -> Size:
    try:
        size = Size(*map(int, text.split(",")))
    except (TypeError, ValueError):
        raise argparse.ArgumentTypeError(f"expected T,B,D,M,K, got {text!r}") from None
    return size


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--size", type=parse_size, action="append", help="T,B,D,M,K; the reference size if none"
    )
    parser.add_argument("--sweep", action="store_true", help="sweep B, M and K around the reference size")
    parser.add_argument("--rounds", type=int, default=20, help="timed calls of each contender")
    parser.add_argument("--no-compiled", action="store_true", help="leave out the published module compiled")
    parser.add_argument("--no-memory", action="store_true")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, default=Path(), help="folder of sigreg.csv and sigreg.png")
    parser.add_argument("--peak-of", choices=CONTENDERS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    sizes = arguments.size or [REFERENCE]
    if arguments.peak_of:
        print(peak_growth(arguments.peak_of, sizes[0]))
        return

    names = [name for name in CONTENDERS if not (arguments.no_compiled and name == "published compiled")]
    torch._dynamo.config.cache_size_limit = 64  # every size is compiled for itself
    print(f"torch {torch.__version__}, {arguments.threads} threads")
    take = lambda size: measure(size, names, arguments.rounds, not arguments.no_memory)  # noqa: E731
    if not arguments.sweep:
        for size in sizes:
            take(size)
        return
    arguments.out.mkdir(parents=True, exist_ok=True)
    rows = {swept: [row for size in points for row in take(size)] for swept, points in SWEEPS.items()}
    flat = [{"sweep": swept} | row for swept, points in rows.items() for row in points]
    with (arguments.out / "sigreg.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(flat[0]))
        writer.writeheader()
        writer.writerows(flat)
    plot(rows, arguments.out / "sigreg.png")


if __name__ == "__main__":
    main()
