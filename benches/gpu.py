"""Everything about the CUDA backend that needs a GPU, in one command and under 8 minutes.

    python benches/gpu.py [--out benches/results/gpu]
    python benches/gpu.py --rehearse            # the same program at small sizes on the CPU, to see that it runs

Runs the tests marked `cuda`, compute-sanitizer over small plans where it is installed, and times encoding, planning,
SIGReg and the training step on the same GPU in the same process: lewm beside the published implementation in fp32, bf16
(autocast) and compiled, beside torch, beside the matrix products and copies that this GPU reaches, and beside the least
time that its datasheet allows (gpu_roofline.py); then every kernel by itself, from torch's profiler. The contenders
take turns; the shortest call of each counts. Writes a table, OUT.json and, with matplotlib, OUT.png. What no longer
fits into the time is left out and named. Ends with status 2 where there is no usable GPU, 1 where a test or the
sanitizer failed.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests" / "python"), str(ROOT / "benches")]

import gpu_roofline  # noqa: E402
import lewm  # noqa: E402
import synthetic  # noqa: E402
from lewm.checkpoint import Checkpoint  # noqa: E402

SECONDS = 440.0  # of the whole run, after which nothing new is begun
TOOLS = ("memcheck", "racecheck", "synccheck")
SMALL_PLAN = """
import sys, lewm, numpy as np
m = lewm.load(sys.argv[1], device='cuda')
c = m.config
m.encode(np.zeros((2, 50, 40, 3), 'u1'), fit='stretch')
for method in ('cem', 'icem', 'mppi', 'predictive'):
    p = lewm.Planner(m, method, samples=16, elites=4, iterations=1 if method == 'predictive' else 2)
    p.plan_latents(np.zeros((1, c.latent_dim), 'f4'), np.ones(c.latent_dim, 'f4'))
"""


class Budget:
    """The time of a run, and what there was no time for."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds
        self.skipped: list[str] = []

    @property
    def left(self) -> float:
        """Seconds."""
        return max(0.0, self._end - time.monotonic())

    def allows(self, what: str, seconds: float = 0.0) -> bool:
        """Whether there is time for something that takes about so long; remembers what there is none for."""
        if self.left > seconds:
            return True
        self.skipped.append(what)
        return False


def refuse_without_gpu() -> None:
    """Ends the program unless the CUDA module finds a GPU and torch does."""
    facts = lewm.build_info()
    if not facts["cuda"]:
        print(f"no usable GPU: {facts['cuda_reason']}", file=sys.stderr)
        sys.exit(2)
    try:
        import torch
    except ImportError:
        print("this bench compares with torch: pip install 'lewm[train]'", file=sys.stderr)
        sys.exit(2)
    if not torch.cuda.is_available():
        print("torch finds no CUDA device; install a build of torch with CUDA", file=sys.stderr)
        sys.exit(2)


def run_tests(budget: Budget) -> str:
    """The tests marked cuda: "passed", "FAILED" or "out of time"."""
    tests = str(ROOT / "tests/python")
    command = [sys.executable, "-m", "pytest", "-q", "-m", "cuda", "-o", "addopts=", tests]
    try:
        done = subprocess.run(command, cwd=ROOT, check=False, timeout=min(150.0, budget.left))
    except subprocess.TimeoutExpired:
        return "out of time"
    return "passed" if done.returncode == 0 else "FAILED"


def run_sanitizer(model: Path, budget: Budget) -> dict[str, str]:
    """Each tool of compute-sanitizer over small plans: "clean", "ERRORS", "out of time" or "not installed"."""
    program = shutil.which("compute-sanitizer")
    found = {}
    for tool in TOOLS:
        if program is None:
            found[tool] = "not installed"
            continue
        command = [
            program,
            f"--tool={tool}",
            "--error-exitcode=1",
            sys.executable,
            "-c",
            SMALL_PLAN,
            str(model),
        ]
        try:
            done = subprocess.run(command, check=False, timeout=min(40.0, budget.left))
            found[tool] = "clean" if done.returncode == 0 else "ERRORS"
        except subprocess.TimeoutExpired:
            found[tool] = "out of time"
    return found


def synchronise() -> None:
    """Waits for the GPU, where there is one."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


def best_of(
    contenders: dict[str, Callable[[], Any]], rounds: int, budget: Budget, failures: dict[str, str]
) -> dict[str, float]:
    """Seconds of the shortest call of each, taking turns after a first call that does not count.

    A contender that fails, for want of memory say, is out, with its words in `failures`.
    """
    best: dict[str, float] = {}
    racing = dict(contenders)
    for turn in range(rounds + 1):
        for name in list(racing):
            if not budget.allows(f"{name}, round {turn}", 3 * best.get(name, 0.0)):
                continue
            synchronise()
            began = time.perf_counter()
            try:
                racing[name]()
                synchronise()
            except Exception as error:
                failures[name] = f"{type(error).__name__}: {error}".splitlines()[0][:200]
                del racing[name]
                continue
            if turn:
                best[name] = min(best.get(name, float("inf")), time.perf_counter() - began)
    return best


def ceilings(device: str, size: int) -> dict[str, float]:
    """FLOP/s of torch's bf16 matrix products, and bytes/s of its copies, on this GPU."""
    import torch

    a, b = (torch.randn(size, size, device=device).to(torch.bfloat16) for _ in range(2))
    to, source = (torch.empty(size * size, device=device) for _ in range(2))
    budget = Budget(10.0)
    found = best_of({"product": lambda: a @ b, "copy": lambda: to.copy_(source)}, 10, budget, {})
    return {"flops": 2 * size**3 / found["product"], "bandwidth": 8 * size * size / found["copy"]}


def kernels_of(call: Callable[[], Any]) -> dict[str, dict[str, float]]:
    """Every kernel of a call: launches, and microseconds of all of them. In a rehearsal: torch's operators."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    there = torch.cuda.is_available()
    synchronise()
    with profile(activities=[ProfilerActivity.CUDA if there else ProfilerActivity.CPU]) as profiled:
        call()
        synchronise()
    spent = "self_device_time_total" if there else "self_cpu_time_total"
    found = {
        event.key: {"launches": float(event.count), "microseconds": float(getattr(event, spent))}
        for event in profiled.key_averages()
        if getattr(event, spent)
    }
    return dict(sorted(found.items(), key=lambda item: -item[1]["microseconds"]))


def measure(sizes: dict[str, Any], device: str, budget: Budget) -> dict[str, Any]:
    """All times of a device, in seconds: of calls, and of their kernels alone; and what could not be timed."""
    import gpu_contenders as contend

    config = sizes["config"]
    missing = contend.published_missing()
    published = not missing
    seconds: dict[str, float] = {}
    failures: dict[str, str] = {"published": missing} if missing else {}
    kernels: dict[str, Any] = {}
    busy: dict[str, float] = {}
    model = lewm.Model.from_checkpoint(Checkpoint(config, synthetic.state(config)), device=device)
    frames, batches = sizes["frames"], sizes["batches"]
    sections: list[tuple[str, int, Callable[[], dict[str, Callable[[], Any]]]]] = [
        (
            f"plan {batches[0]}",
            3,
            lambda: contend.planners(model, config, device, batches[0], sizes["plan"], published),
        ),
        *(
            (f"encode {n}", 10, lambda n=n: contend.encoders(model, config, device, n, published))
            for n in frames
        ),
        ("sigreg", 10, lambda: contend.sigregs(device, sizes["sigreg"], sizes["projections"], published)),
        ("training step", 5, lambda: contend.training_steps(config, device, sizes["windows"], published)),
        (
            f"plan {batches[1]}",
            1,
            lambda: contend.planners(model, config, device, batches[1], sizes["plan"], published),
        ),
    ]
    for name, rounds, make in sections:
        if not budget.allows(name, 5.0):
            continue
        contenders = make()
        print(f"{name} ...", flush=True)
        seconds |= best_of(contenders, rounds, budget, failures)
        ours = next(iter(contenders))
        for contender, call in contenders.items():
            # A published plan is tens of thousands of kernels: too many to profile.
            if contender not in seconds or (name.startswith("plan") and contender != ours):
                continue
            found = kernels_of(call)
            busy[contender] = 1e-6 * sum(kernel["microseconds"] for kernel in found.values())
            if contender == ours and name != "training step":
                kernels[ours] = found
    return {"seconds": seconds, "busy": busy, "failures": failures, "kernels": kernels}


def bounds(
    config: Any, batches: tuple[int, int], plan: dict[str, int], gpu: str, reach: dict[str, float]
) -> dict[str, float]:
    """The least seconds of lewm's plans: by the ceilings measured here, and by the datasheet where it is known."""
    found = {}
    here = gpu_roofline.Gpu("this one", reach["flops"], reach["bandwidth"], "measured")
    known = [g for g in gpu_roofline.GPUS if g.name.split()[0] in gpu]
    for batch in batches:
        launches = gpu_roofline.plan(config, batch, plan["samples"], plan["iterations"], plan["horizon"])
        found[f"plan {batch}: bound by this GPU's products and copies"] = gpu_roofline.least_seconds(
            launches, here
        )
        for gpu_known in known[:1]:
            found[f"plan {batch}: bound of the datasheet ({gpu_known.name})"] = gpu_roofline.least_seconds(
                launches, gpu_known
            )
    return found


def show(facts: dict[str, Any]) -> None:
    """The tables, on the terminal."""
    print(f"\n{facts['device']}: tests {facts['tests']}, compute-sanitizer {facts['sanitizer']}")
    reach = facts["ceilings"]
    print(
        f"this GPU reaches {reach['flops'] / 1e12:.1f} TFLOP/s in bf16 and {reach['bandwidth'] / 1e9:.0f} GB/s"
    )
    print("\n| what | ms | x lewm | of it kernels, ms |\n|---|---|---|---|")
    for name, value in (facts["seconds"] | facts["bounds"]).items():
        ours = facts["seconds"].get(name.split(":")[0] + ": lewm")
        ratio = f"{value / ours:.2f}" if ours else ""
        busy = f"{1e3 * facts['busy'][name]:.3f}" if name in facts["busy"] else ""
        print(f"| {name} | {1e3 * value:.3f} | {ratio} | {busy} |")
    for call, kernels in facts["kernels"].items():
        print(f"\n| kernel of {call} | launches | us | us each |\n|---|---|---|---|")
        for name, k in kernels.items():
            each = k["microseconds"] / k["launches"]
            print(f"| {name[:70]} | {k['launches']:.0f} | {k['microseconds']:.0f} | {each:.2f} |")
    for name, words in facts["failures"].items():
        print(f"\nnot timed: {name}: {words}")
    for name in facts["skipped"]:
        print(f"\nno time for: {name}")


def draw(facts: dict[str, Any], path: Path) -> None:
    """A bar for every time, on a logarithmic axis; nothing without matplotlib."""
    try:
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot
    except ImportError:
        return
    times = facts["seconds"] | facts["bounds"]
    figure, axes = pyplot.subplots(figsize=(9, 0.28 * len(times) + 1), layout="constrained")
    colours = [
        "tab:orange" if ": lewm" in name else "tab:grey" if "bound" in name else "tab:blue" for name in times
    ]
    axes.barh(list(times), [1e3 * value for value in times.values()], color=colours)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlabel("ms")
    axes.set_title(facts["device"])
    figure.savefig(path, dpi=120)


FULL: dict[str, Any] = {
    "config": synthetic.CASES["published"],
    "plan": {"samples": 300, "elites": 30, "iterations": 30, "horizon": 5},
    "batches": (1, 50),
    "frames": (1, 64),
    "sigreg": (4, 128, 192),
    "projections": 1024,
    "windows": 128,
    "matrix": 8192,
}
REHEARSAL: dict[str, Any] = FULL | {
    "config": synthetic.small(),
    "plan": {"samples": 12, "elites": 3, "iterations": 2, "horizon": 3},
    "batches": (1, 3),
    "frames": (1, 4),
    "sigreg": (2, 16, 24),
    "projections": 32,
    "windows": 4,
    "matrix": 128,
}


def main() -> int:
    """Runs it all."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=ROOT / "benches" / "results" / "gpu")
    parser.add_argument(
        "--rehearse", action="store_true", help="small sizes on the CPU; no tests, no sanitizer"
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=SECONDS,
        help="after which nothing new is begun (default: %(default)s)",
    )
    args = parser.parse_args()
    if not args.rehearse:
        refuse_without_gpu()
    import torch

    budget = Budget(args.seconds)
    sizes, device = (REHEARSAL, "cpu") if args.rehearse else (FULL, "cuda")
    name = "a rehearsal on the CPU" if args.rehearse else torch.cuda.get_device_name()
    tests, sanitizer = "not run", dict.fromkeys(TOOLS, "not run")
    if not args.rehearse:
        tests = run_tests(budget)
        with tempfile.TemporaryDirectory() as folder:
            small = Path(folder) / "small.safetensors"
            lewm.save(synthetic.state(synthetic.small()), small, config=synthetic.small())
            sanitizer = run_sanitizer(small, budget)
    reach = ceilings(device, sizes["matrix"])
    facts: dict[str, Any] = {
        "device": name,
        "lewm": lewm.__version__,
        "torch": torch.__version__,
        "tests": tests,
        "sanitizer": sanitizer,
        "ceilings": reach,
        **measure(sizes, device, budget),
        "bounds": bounds(sizes["config"], sizes["batches"], sizes["plan"], name, reach),
        "skipped": budget.skipped,
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.with_suffix(".json").write_text(json.dumps(facts, indent=2) + "\n")
    show(facts)
    draw(facts, args.out.with_suffix(".png"))
    return 1 if tests == "FAILED" or "ERRORS" in sanitizer.values() else 0


if __name__ == "__main__":
    sys.exit(main())
