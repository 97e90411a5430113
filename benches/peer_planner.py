"""The published solver as a process that plans on request: run by compare_plan.py inside the peers' environment.

Reads one line a plan from its standard input ("fp32", "bf16" or "compiled"; an empty line ends it) and answers with one
line of JSON: {"seconds": ...}. Its first line says what it runs on and what matrix products reach here.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "python"), str(ROOT / "tests" / "python"), str(ROOT / "tests" / "golden")]

import published_model  # noqa: E402
import torch  # noqa: E402

import golden  # noqa: E402
import synthetic  # noqa: E402


def matmul_peak(dtype: torch.dtype, size: int = 2048, seconds: float = 1.0) -> float:
    """FLOP/s of torch's square matrix products, the best of those that fit into the time."""
    a, b = (torch.randn(size, size).to(dtype) for _ in range(2))
    best, start = 1e9, time.perf_counter()
    while time.perf_counter() - start < seconds:
        begin = time.perf_counter()
        a @ b
        best = min(best, time.perf_counter() - begin)
    return 2 * size**3 / best


class Peer:
    """The published model and solver at the published sizes."""

    def __init__(self, samples: int, iterations: int, horizon: int) -> None:
        self._config = synthetic.CASES["published"]
        self._model = published_model.build(self._config, synthetic.state(self._config))
        self._sizes = {"num_samples": samples, "n_steps": iterations, "topk": max(1, samples // 10)}
        self._horizon = horizon
        latents, goal, _, _ = golden.problem(self._config, 1)
        self._start = latents[:1], goal[:1]
        self._compiled: Any = None

    def plan(self, kind: str) -> float:
        """Seconds of one plan."""
        solver = published_model.solver(self._chosen(kind), self._config, self._horizon, **self._sizes)
        autocast = torch.autocast("cpu", torch.bfloat16, enabled=kind != "fp32")
        with autocast, contextlib.redirect_stdout(io.StringIO()):
            start = time.perf_counter()
            solver.solve(published_model.info(*self._start, None))
            return time.perf_counter() - start

    def _chosen(self, kind: str) -> Any:
        if kind != "compiled":
            return self._model
        if self._compiled is None:
            self._compiled = published_model.build(self._config, synthetic.state(self._config))
            self._compiled.predictor = torch.compile(self._compiled.predictor)
        return self._compiled


def main() -> None:
    samples, iterations, horizon, threads = map(int, sys.argv[1:])
    torch.set_num_threads(threads)
    torch.set_grad_enabled(False)
    peer = Peer(samples, iterations, horizon)
    peaks = {"fp32": matmul_peak(torch.float32), "bf16": matmul_peak(torch.bfloat16)}
    print(
        json.dumps({"torch": torch.__version__, "threads": torch.get_num_threads(), "matmul": peaks}),
        flush=True,
    )
    for line in sys.stdin:
        kind = line.strip()
        if not kind:
            break
        print(json.dumps({"seconds": peer.plan(kind)}), flush=True)


if __name__ == "__main__":
    main()
