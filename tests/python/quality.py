"""Problems to judge plans by, and the judge: costs in fp32, whatever the plans were found in. Benches use it too."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import lewm
import synthetic
from lewm.checkpoint import Checkpoint
from lewm.config import LeWMConfig

__all__ = ["Problems", "least_cosine", "random_problems", "strict_problems"]


def least_cosine(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """Of the cosines between rows (..., D), the least."""
    products = (a * b).sum(-1) / (np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1))
    return float(products.min())


@dataclass(frozen=True)
class Problems:
    """N start and goal frames, and the model in fp32."""

    reference: lewm.Model
    frames: NDArray[np.uint8]
    """(N, size, size, 3)"""
    goals: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.frames)

    def model(self, precision: str, threads: int | None = None) -> lewm.Model:
        """The same weights, rolled out at another precision; frames are encoded in fp32, as by default."""
        return lewm.Model.from_checkpoint(self.reference.checkpoint(), precision, threads)

    def score(self, actions: NDArray[np.float32]) -> NDArray[np.float32]:
        """Costs (N,) in fp32 of plans (N, H, A): squared distance of the last predicted latent to the goal's."""
        latents, goals = self.reference.encode(self.frames)[:, None], self.reference.encode(self.goals)
        return self.reference.cost(latents, goals, actions[:, None])[:, 0]


def strict_problems(
    model: str | Path, data: str | Path, count: int, goal_offset: int = 25, seed: int = 0
) -> Problems:
    """The first ``count`` pairs of the strict protocol: recorded frames ``goal_offset`` steps apart, not solved."""
    from lewm.data.episode_file import EpisodeFile
    from lewm.envs import environment_class
    from lewm.evaluation.tasks import draw_tasks

    reference, file = lewm.load(model, "fp32"), EpisodeFile(data)
    environment = environment_class(str(file.attributes["env"]))(image_size=reference.config.image_size)
    tasks = draw_tasks(
        file, environment, goal_offset=goal_offset, episodes=count, paper_episodes=0, seed=seed
    )
    rows = file.offsets[tasks.episodes] + tasks.steps
    frames = np.empty((count, 1, *tasks.goal_frames.shape[1:]), np.uint8)
    file.read_frames("pixels", rows, 1, 1, frames)
    return Problems(reference, frames[:, 0], tasks.goal_frames)


def random_problems(count: int, config: LeWMConfig) -> Problems:
    """Random weights of these sizes, and random images."""
    reference = lewm.Model.from_checkpoint(Checkpoint(config, synthetic.state(config)), "fp32")
    frames = synthetic.frames(1, 2 * count, config.image_size)
    return Problems(reference, frames[:count], frames[count:])
