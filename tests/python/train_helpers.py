"""Episodes and settings small enough to train on in a test."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from lewm.training import make_config
from processes import environment

IMAGE = 16
ACTION_DIM = 2

TINY_MODEL = {
    "image_size": IMAGE,
    "patch_size": 8,
    "encoder_dim": 16,
    "encoder_depth": 2,
    "encoder_heads": 2,
    "encoder_mlp_dim": 32,
    "latent_dim": 8,
    "projector_dim": 16,
    "pred_proj_dim": 16,
    "history": 2,
    "predictor_depth": 1,
    "predictor_heads": 2,
    "predictor_head_dim": 4,
    "predictor_mlp_dim": 16,
    "predictor_dim": 8,
    "predictor_output_dim": 8,
    "frame_skip": 2,
}

TINY_RUN: dict[str, Any] = {
    "model": TINY_MODEL,
    "steps": 12,
    "batch_size": 8,
    "lr": 1e-3,
    "num_proj": 16,
    "precision": "fp32",
    "val_fraction": 0.25,
    "val_every": 4,
    "val_batches": 2,
    "checkpoint_every": 4,
    "log_every": 1,
    "tensorboard": False,
    "progress": False,
}


def write_episodes(path: Path, episodes: int = 8, length: int = 14, image: int = IMAGE) -> Path:
    """A file of a bright square that its actions move; lengths differ, the last action of an episode is NaN."""
    rng = np.random.default_rng(0)
    pixels, actions, lengths = [], [], []
    for episode in range(episodes):
        rows = length + episode % 3
        moves = rng.uniform(-1, 1, (rows, ACTION_DIM)).astype(np.float32)
        places = np.clip(image / 2 + np.cumsum(moves, axis=0), 2, image - 3).astype(int)
        frames = np.full((rows, image, image, 3), 30, np.uint8)
        for frame, (x, y) in zip(frames, places, strict=True):
            frame[y - 2 : y + 2, x - 2 : x + 2] = (250, 40, 90)
        moves[-1] = np.nan
        pixels.append(frames)
        actions.append(moves)
        lengths.append(rows)
    with h5py.File(path, "w") as file:
        file["pixels"] = np.concatenate(pixels)
        file["action"] = np.concatenate(actions)
        file["ep_len"] = np.array(lengths, np.int32)
        file["ep_offset"] = np.cumsum([0, *lengths[:-1]]).astype(np.int64)
    return path


def doubled(path: Path, target: Path, column: str, axis: int) -> Path:
    """A copy of a file in which a column stands twice along an axis."""
    shutil.copy(path, target)
    with h5py.File(target, "r+") as file:
        values = file.pop(column)[:]
        file[column] = np.concatenate([values, values], axis)
    return target


def write_settings(path: Path, **changes: Any) -> Path:
    """A YAML file of the small run's settings with these changes."""
    make_config(overrides={**TINY_RUN, **changes}).save(path)
    return path


def interrupt_after(step: int, settings: Path) -> int:
    """Runs `lewm train` in a process that gets SIGINT once `step` steps are done; returns its exit status."""
    program = f"""
import os, signal, sys
from lewm.cli import main
from lewm.training.log import Log
advance, done = Log.advance, []
def counted(self):
    advance(self)
    done.append(1)
    if len(done) == {step}:
        os.kill(os.getpid(), signal.SIGINT)
Log.advance = counted
sys.exit(main(["train", {str(settings)!r}]))
"""
    return subprocess.run([sys.executable, "-c", program], env=environment(), timeout=300).returncode
