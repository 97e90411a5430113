"""The published solver as a process that plans on request: run by compare_plan.py inside the peers' environment.

Reads one line a plan from its standard input ("fp32"; "bf16": autocast; "compiled": torch.compile and autocast; "onnx":
the predictor exported and run by onnxruntime; an empty line ends it) and answers with one line of JSON: {"seconds":
...}. Its first line says what it runs on and what matrix products reach here.
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
from torch import Tensor, nn  # noqa: E402

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


class OnnxPredictor(nn.Module):
    """The published predictor as onnxruntime runs it, in fp32: one session per length of the window."""

    def __init__(self, predictor: nn.Module, threads: int) -> None:
        super().__init__()
        self.num_frames = predictor.num_frames
        self._published = [predictor]  # in a list: not a submodule
        self._threads = threads
        self._sessions: dict[int, Any] = {}

    def forward(self, latents: Tensor, actions: Tensor) -> Tensor:
        """latents, actions: (N, T, D) -> (N, T, D)."""
        session = self._sessions.get(latents.shape[1])
        if session is None:
            session = self._sessions[latents.shape[1]] = self._export(latents, actions)
        inputs = {"latents": latents.contiguous().numpy(), "actions": actions.contiguous().numpy()}
        return torch.from_numpy(session.run(None, inputs)[0])

    def _export(self, latents: Tensor, actions: Tensor) -> Any:
        import onnxruntime

        file, names = io.BytesIO(), ["latents", "actions"]
        rows = {name: {0: "rows"} for name in (*names, "predicted")}
        torch.onnx.export(
            self._published[0],
            (latents, actions),
            file,
            input_names=names,
            output_names=["predicted"],
            dynamic_axes=rows,
            dynamo=False,
        )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._threads
        return onnxruntime.InferenceSession(file.getvalue(), options, providers=["CPUExecutionProvider"])


class Peer:
    """The published model and solver at the published sizes."""

    def __init__(self, samples: int, iterations: int, horizon: int, threads: int) -> None:
        self._config = synthetic.CASES["published"]
        self._sizes = {"num_samples": samples, "n_steps": iterations, "topk": max(1, samples // 10)}
        self._horizon, self._threads = horizon, threads
        latents, goal, _, _ = golden.problem(self._config, 1)
        self._start = latents[:1], goal[:1]
        self._models: dict[str, Any] = {}

    def plan(self, kind: str) -> float:
        """Seconds of one plan."""
        solver = published_model.solver(self._model(kind), self._config, self._horizon, **self._sizes)
        autocast = torch.autocast("cpu", torch.bfloat16, enabled=kind in ("bf16", "compiled"))
        with autocast, contextlib.redirect_stdout(io.StringIO()):
            start = time.perf_counter()
            solver.solve(published_model.info(*self._start, None))
            return time.perf_counter() - start

    def _model(self, kind: str) -> Any:
        if kind not in self._models:
            model = published_model.build(self._config, synthetic.state(self._config))
            if kind == "compiled":
                model.predictor = torch.compile(model.predictor)
            elif kind == "onnx":
                model.predictor = OnnxPredictor(model.predictor, self._threads)
            self._models[kind] = model
        return self._models[kind]


def main() -> None:
    samples, iterations, horizon, threads = map(int, sys.argv[1:])
    torch.set_num_threads(threads)
    torch.set_grad_enabled(False)
    peer = Peer(samples, iterations, horizon, threads)
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
