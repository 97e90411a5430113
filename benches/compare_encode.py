"""Encoding frames of 224 x 224 by lewm and by the published encoder in torch, in one run.

    python benches/compare_encode.py [--frames 1 64] [--kinds fp32 bf16 compiled] [--threads 2] [--rounds 10]

Needs lewm and the packages of benches/peers.txt in one environment. All contestants get uint8 frames and give latents,
and take turns, round by round, on the same threads; the shortest and the median time of each are shown.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests" / "python"), str(ROOT / "tests" / "golden")]

import published_model  # noqa: E402
import torch  # noqa: E402

import lewm  # noqa: E402
import synthetic  # noqa: E402
from lewm import _core  # noqa: E402
from lewm.checkpoint import Checkpoint  # noqa: E402

PUBLISHED = synthetic.CASES["published"]
KINDS = ("fp32", "bf16", "compiled")
PAUSE = 0.01  # seconds before a measurement, in which the other library's threads stop spinning


def torch_encoder(kind: str) -> Callable[..., object]:
    """The published encoder: "fp32"; "bf16": under autocast; "compiled": its ViT through torch.compile, fp32."""
    model = published_model.build(PUBLISHED, synthetic.state(PUBLISHED))
    if kind == "compiled":
        model.encoder = torch.compile(model.encoder)

    def encode(frames: object) -> object:
        with torch.autocast("cpu", torch.bfloat16, enabled=kind == "bf16"):
            return (
                model.encode({"pixels": published_model.pixels(frames)[:, None]})["emb"][:, 0].float().numpy()
            )

    return torch.inference_mode()(encode)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, nargs="+", default=[1, 64], help="frames a call")
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=KINDS, help="of the torch encoder")
    parser.add_argument("--precision", nargs="+", default=_core.precisions(_core.active_isa()))
    parser.add_argument("--threads", type=int, default=_core.available_threads())
    parser.add_argument("--rounds", type=int, default=10)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    checkpoint = Checkpoint(PUBLISHED, synthetic.state(PUBLISHED))
    contestants: dict[str, Callable[..., object]] = {
        f"torch {kind}": torch_encoder(kind) for kind in args.kinds
    }
    for precision in args.precision:
        model = lewm.Model.from_checkpoint(checkpoint, precision, args.threads, encoder_precision=precision)
        contestants[f"lewm {precision}"] = model.encode
    print(f"torch {torch.__version__}, {_core.active_isa()}, {args.threads} threads")
    print(
        f"{'':<16}{'frames':>7}{'ms, best':>10}{'median':>9}{'GFLOP/s':>9}{'x torch fp32':>14}{'x best torch':>14}"
    )
    for n in args.frames:
        frames = synthetic.frames(1, n, PUBLISHED.image_size)
        seconds: dict[str, list[float]] = {name: [] for name in contestants}
        for round_ in range(args.rounds + 1):  # the first is not counted: compilation, first touches
            for name, encode in contestants.items():
                time.sleep(PAUSE)
                start = time.perf_counter()
                encode(frames)
                if round_:
                    seconds[name].append(time.perf_counter() - start)
        best = {name: min(values) for name, values in seconds.items()}
        peers = [value for name, value in best.items() if name.startswith("torch")]
        for name, value in best.items():
            rate = n * model.encode_flops / value / 1e9
            eager = f"{best['torch fp32'] / value:>14.2f}" if "torch fp32" in best else f"{'':>14}"
            print(
                f"{name:<16}{n:>7}{value * 1e3:>10.1f}{statistics.median(seconds[name]) * 1e3:>9.1f}{rate:>9.1f}{eager}"
                + (f"{min(peers) / value:>14.2f}" if peers else "")
            )


if __name__ == "__main__":
    main()
