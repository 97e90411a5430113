"""Everything about the CUDA backend that needs a GPU, in one command and a few minutes.

    python benches/gpu.py [--out benches/results/gpu]

Runs the tests marked `cuda`, compute-sanitizer over a small plan where it is installed, and times encoding, planning
and SIGReg beside the least time that the GPU's datasheet allows (gpu_roofline.py) and beside torch on the same GPU: the
same searches with the model as a torch module. The contenders take turns; the shortest of each counts. Writes a table,
OUT.json and, with matplotlib, OUT.png. Ends with status 2 where there is no usable GPU.
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

import numpy as np  # noqa: E402

import gpu_roofline  # noqa: E402
import lewm  # noqa: E402
import synthetic  # noqa: E402

PUBLISHED = synthetic.CASES["published"]
SMALL_PLAN = (
    "import sys, lewm, numpy as np; m = lewm.load(sys.argv[1], device='cuda'); d = m.config.latent_dim; "
    "lewm.Planner(m, samples=16, elites=4, iterations=2).plan_latents(np.zeros((1, d), 'f4'), np.ones(d, 'f4'))"
)


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


def run_tests() -> bool:
    """The tests marked cuda; whether they passed."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-m",
        "cuda",
        "-o",
        "addopts=",
        str(ROOT / "tests/python"),
    ]
    return subprocess.run(command, cwd=ROOT, check=False).returncode == 0


def run_sanitizer(model: Path) -> str:
    """compute-sanitizer over a small plan: "clean", "errors" or "not installed"."""
    tool = shutil.which("compute-sanitizer")
    if tool is None:
        return "not installed"
    command = [tool, "--error-exitcode=1", sys.executable, "-c", SMALL_PLAN, str(model)]
    return "clean" if subprocess.run(command, check=False).returncode == 0 else "errors"


def best_of(contenders: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Seconds of the shortest call of each, taking turns after a first call that does not count."""
    import torch

    best = dict.fromkeys(contenders, float("inf"))
    for turn in range(rounds + 1):
        for name, call in contenders.items():
            torch.cuda.synchronize()
            began = time.perf_counter()
            call()
            torch.cuda.synchronize()
            if turn:
                best[name] = min(best[name], time.perf_counter() - began)
    return best


def encode_times(model: lewm.Model) -> dict[str, float]:
    """Of 1 and 64 frames, from host memory."""
    size = model.config.image_size
    frames = synthetic.frames(0, 64, size)
    return best_of(
        {"encode 1": lambda: model.encode(frames[:1]), "encode 64": lambda: model.encode(frames)}, rounds=20
    )


def plan_times(model: lewm.Model, batch: int, rounds: int) -> dict[str, float]:
    """Of the published plan by lewm and by torch on the same GPU, for a batch of problems."""
    rng = np.random.default_rng(0)
    latents = rng.standard_normal((batch, 1, model.config.latent_dim), np.float32)
    goals = rng.standard_normal((batch, model.config.latent_dim), np.float32)
    ours = lewm.Planner(model)
    torchs = lewm.Planner(model, backend="torch", device="cuda")
    return best_of(
        {
            f"plan {batch}, lewm": lambda: ours.plan_latents(latents, goals),
            f"plan {batch}, torch": lambda: torchs.plan_latents(latents, goals),
        },
        rounds,
    )


def sigreg_times() -> dict[str, float]:
    """Value and gradient at the reference size, by the module's kernels and by plain torch."""
    import torch

    from lewm.nn import sigreg_plain

    z = torch.randn(4, 128, 192, device="cuda", requires_grad=True)
    u = sigreg_plain.directions(torch.tensor(0), 192, 1024, z.device, torch.float32)

    def ours() -> None:
        lewm.sigreg(z, directions=u).backward()

    def plain() -> None:
        sums = sigreg_plain.characteristic_sums(z.detach(), u, 17, 3.0)
        sigreg_plain.gradient(z.detach(), u, sums, 128, 3.0)

    return best_of({"sigreg, lewm": ours, "sigreg, torch": plain}, rounds=20)


def write(out: Path, facts: dict[str, Any]) -> None:
    """OUT.json, the table on the terminal and, where matplotlib is installed, OUT.png."""
    out.parent.mkdir(parents=True, exist_ok=True)
    out.with_suffix(".json").write_text(json.dumps(facts, indent=2) + "\n")
    print(
        f"\n{facts['gpu']}: tests {'passed' if facts['tests_passed'] else 'FAILED'}, sanitizer {facts['sanitizer']}"
    )
    print("\n| what | ms |\n|---|---|")
    for name, seconds in facts["seconds"].items():
        print(f"| {name} | {1e3 * seconds:.3f} |")
    try:
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot
    except ImportError:
        return
    figure, axes = pyplot.subplots(figsize=(8, 4), layout="constrained")
    axes.barh(list(facts["seconds"]), [1e3 * seconds for seconds in facts["seconds"].values()])
    axes.set_xscale("log")
    axes.set_xlabel("ms")
    axes.set_title(facts["gpu"])
    figure.savefig(out.with_suffix(".png"), dpi=120)


def main() -> int:
    """Runs it all."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=ROOT / "benches" / "results" / "gpu")
    args = parser.parse_args()
    refuse_without_gpu()
    import torch

    passed = run_tests()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        lewm.save(synthetic.state(PUBLISHED), path, config=PUBLISHED)
        sanitizer = run_sanitizer(path)
        model = lewm.load(path, device="cuda")
        seconds = (
            encode_times(model)
            | plan_times(model, 1, rounds=5)
            | plan_times(model, 50, rounds=2)
            | sigreg_times()
        )
    name = torch.cuda.get_device_name()
    for batch in (1, 50):
        launches = gpu_roofline.plan(PUBLISHED, batch, 300, 30, 5)
        for gpu in gpu_roofline.GPUS:
            if gpu.name.split()[0] in name:
                seconds[f"plan {batch}, bound of the datasheet"] = gpu_roofline.least_seconds(launches, gpu)
    write(args.out, {"gpu": name, "tests_passed": passed, "sanitizer": sanitizer, "seconds": seconds})
    return 0 if passed and sanitizer != "errors" else 1


if __name__ == "__main__":
    sys.exit(main())
