"""The published full plan (300 samples x 30 iterations, horizon 5) by lewm and by the published solver, in one run.

    python benches/compare_plan.py --peer peers/bin/python [--json out.json]

The two take turns, round by round, on the same threads, so that whatever else the machine does meets both; the shortest
plan of each counts. The peer is the interpreter of an environment with benches/peers.txt. The floor is the arithmetic
that a plan cannot do without (``Model.rollout_flops``), the peak this machine's measured matrix products.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "python"))

import golden  # noqa: E402
import lewm  # noqa: E402
import synthetic  # noqa: E402
from lewm import _core  # noqa: E402
from lewm.checkpoint import Checkpoint  # noqa: E402

PUBLISHED = synthetic.CASES["published"]
KINDS = ("fp32", "bf16", "compiled", "onnx")  # see peer_planner.py


class PeerProcess:
    """peer_planner.py, running."""

    def __init__(self, interpreter: str, args: argparse.Namespace) -> None:
        sizes = [str(value) for value in (args.samples, args.iterations, args.horizon, args.threads)]
        command = [interpreter, "-W", "ignore", str(ROOT / "benches" / "peer_planner.py"), *sizes]
        environment = {**os.environ, "OMP_NUM_THREADS": str(args.threads)}
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self.facts = self._read()

    def plan(self, kind: str) -> float:
        """Seconds of one plan."""
        assert self._process.stdin is not None
        self._process.stdin.write(kind + "\n")
        self._process.stdin.flush()
        return float(self._read()["seconds"])

    def close(self) -> None:
        """Ends the process."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.close()
        self._process.wait()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                values: dict[str, Any] = json.loads(line)
                return values
        raise SystemExit("the peer ended without an answer; its interpreter needs benches/peers.txt")


class Ours:
    """lewm at one precision."""

    def __init__(self, precision: str, args: argparse.Namespace) -> None:
        checkpoint = Checkpoint(PUBLISHED, synthetic.state(PUBLISHED))
        model = lewm.Model.from_checkpoint(checkpoint, precision, args.threads)
        elites = max(1, args.samples // 10)
        self._planner = lewm.Planner(
            model, samples=args.samples, elites=elites, iterations=args.iterations, horizon=args.horizon
        )
        latents, goal, _, _ = golden.problem(PUBLISHED, 1)
        self._start = latents[:1], goal[:1]
        self.peak = _core.gemm_peak(precision, args.threads)
        self.flop = args.iterations * args.samples * model.rollout_flops(args.horizon)

    def plan(self) -> float:
        """Seconds of one plan."""
        start = time.perf_counter()
        self._planner.plan_latents(*self._start)
        return time.perf_counter() - start


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Every contestant's plans, in seconds, and the peaks."""
    ours = {f"lewm {precision}": Ours(precision, args) for precision in args.precision}
    peer = PeerProcess(args.peer, args) if args.peer else None
    kinds = args.kinds if peer else []
    seconds: dict[str, list[float]] = {name: [] for name in (*ours, *(f"published {kind}" for kind in kinds))}
    for round_ in range(args.rounds + 1):  # the first is not counted: compilation, first touches
        for name, contestant in ours.items():
            _keep(seconds[name], contestant.plan(), round_)
        for kind in kinds:
            _keep(seconds[f"published {kind}"], peer.plan(kind), round_)
    facts = peer.facts if peer else {}
    if peer:
        peer.close()
    flop = next(iter(ours.values())).flop
    peaks = {name: contestant.peak for name, contestant in ours.items()}
    return {"isa": _core.active_isa(), "peer": facts, "flop": flop, "peaks": peaks, "seconds": seconds}


def _keep(values: list[float], seconds: float, round_: int) -> None:
    if round_:
        values.append(seconds)


def show(results: dict[str, Any], args: argparse.Namespace) -> None:
    """Prints the table."""
    flop, best = results["flop"], {name: min(values) for name, values in results["seconds"].items()}
    print(
        f"plan {args.samples} x {args.iterations}, horizon {args.horizon}, {args.threads} threads, {results['isa']}"
    )
    print(f"floor {flop / 1e12:.3f} TFLOP; shortest of {args.rounds} rounds, taking turns")
    if results["peer"]:
        peaks = ", ".join(f"{name} {rate / 1e9:.0f}" for name, rate in results["peer"]["matmul"].items())
        print(f"peer: torch {results['peer']['torch']}; its 2048^3 matrix products reach GFLOP/s: {peaks}")
    published = best.get("published fp32")
    best_peer = min((value for name, value in best.items() if name.startswith("published")), default=None)
    print(f"{'':<20}{'s':>9}{'GFLOP/s':>10}{'peak':>9}{'of peak':>9}{'x published':>13}{'x best peer':>13}")
    for name, value in best.items():
        peak = results["peaks"].get(name)
        print(
            f"{name:<20}{value:>9.3f}{flop / value / 1e9:>10.1f}"
            + (f"{peak / 1e9:>9.0f}{flop / value / peak:>9.0%}" if peak else " " * 18)
            + (f"{published / value:>13.2f}" if published else "")
            + (f"{best_peer / value:>13.2f}" if best_peer else "")
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--peer", default=os.environ.get("LEWM_PEER"), help="the peers' interpreter (or LEWM_PEER)"
    )
    parser.add_argument(
        "--kinds",
        nargs="+",
        default=list(KINDS),
        choices=KINDS,
        help="of the published solver (default: all)",
    )
    parser.add_argument("--precision", nargs="+", default=_core.precisions(_core.active_isa()))
    parser.add_argument("--samples", type=int, default=300)
    parser.add_argument("--iterations", type=int, default=30)
    parser.add_argument("--horizon", type=int, default=5)
    parser.add_argument("--threads", type=int, default=_core.available_threads())
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", metavar="FILE", help="also write the measurements")
    args = parser.parse_args()
    results = measure(args)
    show(results, args)
    if args.json:
        Path(args.json).write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
