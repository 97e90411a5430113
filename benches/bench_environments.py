"""Processor time of environment steps and frames: ``python benches/bench_environments.py [NAME ...] [--size 64]``.

Processor time, all threads counted, is what a collection costs, and steadier than wall time on a busy machine.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np

from lewm.envs import ENVIRONMENTS, environment_class
from lewm.envs.base import GoalEnv

QUALITIES = {"lewm/Reacher-v0": ("fast", "published"), "lewm/Cube-v0": ("fast", "published")}


def processor_ms(call: Callable[[], object], repeats: int) -> float:
    """Median processor time of ``call`` in ms."""
    call()
    times = []
    for _ in range(repeats):
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return float(np.median(times)) * 1e3


def measure(env: GoalEnv, label: str, repeats: int) -> None:
    """Prints one line for ``env``."""
    env.reset(seed=0)
    rng = np.random.default_rng(0)
    policy = env.make_policy(next(iter(env.policies)))
    policy.reset(env, rng)
    step = processor_ms(lambda: env.step(policy.act(env)), repeats)
    frame = processor_ms(env.render, repeats)
    rate = 1e3 / (step + frame)
    print(
        f"{label:32s} step with policy {step:7.2f} ms   frame {frame:7.2f} ms   {rate:6.0f} recorded steps/s and core"
    )


def main() -> None:
    """Measures the environments that were named, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "names", nargs="*", default=sorted(ENVIRONMENTS), help="ids or short names (default: all)"
    )
    parser.add_argument(
        "--size", type=int, default=64, help="side of the frames in pixels (default: %(default)s)"
    )
    parser.add_argument("--repeats", type=int, default=20, help="(default: %(default)s)")
    args = parser.parse_args()
    for name in args.names:
        kind = environment_class(name)
        for quality in QUALITIES.get(kind.env_id, (None,)):
            options = {} if quality is None else {"quality": quality}
            label = f"{kind.env_id} {args.size} px {quality or ''}"
            measure(kind(image_size=args.size, **options), label, args.repeats)


if __name__ == "__main__":
    main()
