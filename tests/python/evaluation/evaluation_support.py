"""Sizes of the evaluation's tests, and an agent that knows the state."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("gymnasium")
pytest.importorskip("h5py")

from lewm.envs.two_room import TwoRoomBatch, TwoRoomEnv, heading, move
from lewm.evaluation import RandomAgent
from synthetic import TINY

SIZE = TINY.image_size


class StateAgent:
    """Walks by the true state: the ceiling that any planner on images is below."""

    def __init__(self, batch: TwoRoomBatch, goals: np.ndarray, blocks: int = 1, frame_skip: int = 5) -> None:
        self.batch, self.goals, self.blocks, self.frame_skip = (
            batch,
            goals.astype(np.float32),
            blocks,
            frame_skip,
        )
        self.context = 1

    def reset(self, goals: np.ndarray, seed: int, first: int = 0) -> None:
        self.seen: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    def act(self, rows: np.ndarray, frames: np.ndarray, past: np.ndarray) -> np.ndarray:
        self.seen.append((rows.copy(), frames.copy(), past.copy()))
        position, actions = self.batch.get_states()[rows].astype(np.float32), []
        for _ in range(self.blocks * self.frame_skip):
            actions.append(heading(position, self.goals[rows]))
            position = move(position, actions[-1])
        return np.stack(actions, axis=1)


def random_agent(env: TwoRoomEnv) -> RandomAgent:
    return RandomAgent(env.action_space.low, env.action_space.high)
