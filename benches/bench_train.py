"""The training step beside the published stack's, in one process: same torch, weights, batches and precision.

    python benches/bench_train.py --preset paper --batch 16            # 224x224, 4 frames, bf16
    python benches/bench_train.py --preset tiny
    python benches/bench_train.py --preset tiny --curves curves.csv    # 300 steps of each from the same weights

Needs an environment with lewm, stable-worldmodel, transformers and, for curves, matplotlib. Ours gets uint8 frames;
the published side gets frames that are normalised floats already, as its data loader delivers them.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import torch
import torch.nn.functional as F
from stable_worldmodel.wm.loss import SIGReg as PublishedSIGReg
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "golden"))

import published_model  # noqa: E402

from lewm.nn import LeWM  # noqa: E402
from lewm.training.allocator import keep_freed_memory  # noqa: E402
from lewm.training.bf16 import bf16_products  # noqa: E402
from lewm.training.config import TrainConfig, make_config  # noqa: E402
from lewm.training.optim import make_optimizer  # noqa: E402

Batch = dict[str, Tensor]
Step = Callable[[Batch, int], tuple[float, float]]


def published_step(config: TrainConfig, state: dict[str, Tensor], bf16: bool) -> Step:
    """A step as the published training script takes it; returns the two losses."""
    model = published_model.build(config.model, state, config.dropout).train()
    regulariser = PublishedSIGReg(config.knots, config.num_proj)
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.lr, weight_decay=config.weight_decay)

    def step(batch: Batch, seed: int) -> tuple[float, float]:
        torch.manual_seed(seed)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            info = model.encode({"pixels": batch["floats"], "action": batch["action"]})
            latents, actions = info["emb"], info["act_emb"]
            predicted = model.predict(latents[:, :-1], actions[:, :-1])
            pred_loss = F.mse_loss(predicted, latents[:, 1:])
            sigreg_loss = regulariser(latents.float().transpose(0, 1))
            loss = pred_loss + config.sigreg_weight * sigreg_loss
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), config.clip)
        optimizer.step()
        optimizer.zero_grad()
        return float(pred_loss.detach()), float(sigreg_loss.detach())

    return step


def our_step(config: TrainConfig, state: dict[str, Tensor], bf16: bool) -> Step:
    """The same step by lewm, as `lewm.train` takes it."""
    keep_freed_memory()
    products = bf16_products(torch.device("cpu")) if bf16 else nullcontext()
    model = LeWM(config.model, config.dropout)
    model.load_state_dict(state)
    optimizer = make_optimizer(model.parameters(), config.lr, config.weight_decay)

    def step(batch: Batch, seed: int) -> tuple[float, float]:
        torch.manual_seed(seed)
        with products:
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                out = model(
                    batch, config.sigreg_weight, num_proj=config.num_proj, knots=config.knots, seed=seed
                )
            out["loss"].backward()
        nn.utils.clip_grad_norm_(model.parameters(), config.clip)
        optimizer.step()
        optimizer.zero_grad()
        return float(out["pred_loss"]), float(out["sigreg_loss"])

    return step


def moving_dots(config: TrainConfig, seed: int) -> Batch:
    """Windows of a red dot on white that the actions move, with frames as uint8 and as normalised floats."""
    generator = torch.Generator().manual_seed(seed)
    model, windows, frames = config.model, config.batch_size, config.frames
    actions = torch.randn(windows, frames, model.block_dim, generator=generator)
    moves = 0.02 * actions.view(windows, frames, model.frame_skip, -1)[..., :2].sum(2)
    start = torch.rand(windows, 1, 2, generator=generator)
    places = (start + torch.cat([torch.zeros(windows, 1, 2), moves.cumsum(1)[:, :-1]], dim=1)).clamp(0.1, 0.9)
    axis = (torch.arange(model.image_size) + 0.5) / model.image_size
    x, y = (torch.exp(-((axis - places[..., k, None]) ** 2) / (2 * 0.03**2)) for k in (0, 1))
    dot = y[..., :, None] * x[..., None, :]  # (B, T, H, W)
    colour = torch.stack([torch.ones_like(dot), 1 - dot, 1 - dot], dim=-1)
    pixels = (255 * colour).round().to(torch.uint8)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    floats = ((pixels / 255 - mean) / std).movedim(-1, -3).contiguous()
    return {"pixels": pixels, "floats": floats, "action": actions}


def time_steps(ours: Step, theirs: Step, config: TrainConfig, steps: int) -> None:
    """Alternates the two, prints the medians of wall and CPU time and their ratios."""
    wall: dict[str, list[float]] = {"ours": [], "published": []}
    cpu: dict[str, list[float]] = {"ours": [], "published": []}
    batch = moving_dots(config, 0)
    for index in range(steps + 2):
        for name, step in (("ours", ours), ("published", theirs)):
            began = time.perf_counter(), time.process_time()
            step(batch, index)
            if index >= 2:  # the first steps allocate and choose kernels
                wall[name].append(time.perf_counter() - began[0])
                cpu[name].append(time.process_time() - began[1])
    for kind, times in (("wall", wall), ("CPU", cpu)):
        median = {name: statistics.median(values) for name, values in times.items()}
        ratio = median["published"] / median["ours"]
        print(
            f"{kind:4} ms per step (median of {steps}): ours {1e3 * median['ours']:.0f}, "
            f"published {1e3 * median['published']:.0f}, ratio {ratio:.2f}"
        )


def write_curves(ours: Step, theirs: Step, config: TrainConfig, steps: int, path: Path) -> None:
    """The losses of both over the same batches, as CSV."""
    names = ("step", "ours_pred", "published_pred", "ours_sigreg", "published_sigreg")
    rows = []
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(names)
        for index in range(steps):
            batch = moving_dots(config, index)
            (our_pred, our_sigreg), (pred, sigreg) = ours(batch, index), theirs(batch, index)
            rows.append((index + 1, our_pred, pred, our_sigreg, sigreg))
            writer.writerow(rows[-1])
            file.flush()
    last = [statistics.mean(column) for column in zip(*rows[-50:], strict=True)]
    for name, value in zip(names[1:], last[1:], strict=True):
        print(f"{name:18} mean of the last 50 steps {value:.4f}")


def plot_curves(path: Path) -> None:
    """A picture of the losses in the CSV file `path`, beside it."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    steps = [int(row["step"]) for row in rows]
    figure, panels = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for panel, (loss, title) in zip(panels, (("pred", "prediction loss"), ("sigreg", "SIGReg")), strict=True):
        for side in ("published", "ours"):
            values = [float(row[f"{side}_{loss}"]) for row in rows]
            panel.plot(steps, values, label=side, linewidth=1)
        panel.set(xlabel="step", ylabel=title, yscale="log")
        panel.grid(alpha=0.3)
        panel.legend()
    figure.savefig(path.with_suffix(".png"), dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", choices=("tiny", "paper"), default="tiny")
    parser.add_argument("--batch", type=int, help="windows per step; default: the preset's")
    parser.add_argument("--steps", type=int, help="default: 10 to time, 300 for curves")
    parser.add_argument("--precision", choices=("bf16", "fp32"), default="bf16")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--curves", type=Path, help="write the losses of both to this CSV file")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    config = make_config(preset=arguments.preset)
    if arguments.batch:
        config = dataclasses.replace(config, batch_size=arguments.batch)
    torch.manual_seed(0)
    state = LeWM(config.model).state_dict()
    bf16 = arguments.precision == "bf16"
    ours, theirs = our_step(config, state, bf16), published_step(config, state, bf16)
    size = config.model.image_size
    print(
        f"{arguments.preset}: {config.batch_size} windows of {config.frames} frames {size}x{size}, "
        f"{arguments.precision}, {arguments.threads} threads, torch {torch.__version__}"
    )
    if arguments.curves:
        write_curves(ours, theirs, config, arguments.steps or 300, arguments.curves)
        plot_curves(arguments.curves)
    else:
        time_steps(ours, theirs, config, arguments.steps or 10)


if __name__ == "__main__":
    main()
