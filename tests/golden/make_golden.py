"""Writes tests/golden/*.npz with the published implementation: what the parity tests compare with.

Needs the packages of benches/peers.txt and an importable lewm (for the planner's noise):

    python tests/golden/make_golden.py [case ...]
"""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "python"))

import published_model

import golden
import synthetic


def make(case: str) -> dict[str, Any]:
    """The published results for one case."""
    config = synthetic.CASES[case]
    model = published_model.build(config, synthetic.state(config))
    results: dict[str, Any] = {
        "made_by": " ".join(
            f"{name} {version(name)}" for name in ("stable-worldmodel", "torch", "transformers")
        ),
        "latents": published_model.encode(model, golden.frames(config)),
    }
    for context in golden.contexts(config):
        latents, goal, actions, past = golden.problem(config, context)
        predicted, cost = published_model.rollout_and_cost(model, latents, goal, actions, past)
        results[f"rollout_{context}"], results[f"cost_{context}"] = predicted, cost
    if case in golden.CEM:
        results |= make_cem(case, model)
    return results


def make_cem(case: str, model: Any) -> dict[str, Any]:
    """The published CEM's decisions, on lewm's noise."""
    config, cem = synthetic.CASES[case], golden.CEM[case]
    latents, goal, _, _ = golden.problem(config, 1)
    trace = published_model.solve(
        model, config, latents[:1], goal[:1], lambda i: golden.cem_noise(config, cem, i), **cem.sizes()
    )
    gap = min(closeness(step["costs"], cem.elites) for step in trace)
    if gap < golden.CEM_GAP:
        raise SystemExit(
            f"{case}: the last elite and the first other differ by {gap:.1e} only: change the CEM's seed"
        )
    return {f"cem_{name}": np.stack([step[name] for step in trace]) for name in ("elites", "mean", "std")}


def closeness(costs: np.ndarray, elites: int) -> float:
    """Relative gap between the last elite's cost and the best other candidate's."""
    ordered = np.sort(costs)
    return float((ordered[elites] - ordered[elites - 1]) / ordered[elites])


def main() -> None:
    torch.set_grad_enabled(False)
    torch.set_num_threads(1)
    for case in sys.argv[1:] or synthetic.CASES:
        results = make(case)
        np.savez_compressed(HERE / f"{case}.npz", **results)
        shown = {name: value.shape for name, value in results.items() if isinstance(value, np.ndarray)}
        print(case, shown, "latent std", results["latents"].std(), "rollout std", results["rollout_1"].std())


if __name__ == "__main__":
    main()
