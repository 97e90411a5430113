"""``lewm/PushT-v0``: push a T-shaped block over a table into a goal pose.

`lewm.envs.push_t_physics` has the numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import gymnasium
import numpy as np
from numpy.typing import NDArray

from lewm.envs.base import Frame, GoalEnv, Policy, RandomPolicy, State
from lewm.envs.push_t_drawing import PushTPainter
from lewm.envs.push_t_physics import (
    AGENT_RADIUS,
    STATE_DIM,
    WALL_HIGH,
    WALL_LOW,
    WALL_RADIUS,
    PushTWorld,
    block_corners,
    block_distance,
)
from lewm.envs.push_t_policies import MixedPolicy, NearBlockPolicy, PusherPolicy

__all__ = ["PushTEnv"]

_POSITION_TOLERANCE = 20.0  # px, on the distance of (agent xy, block xy)
_ANGLE_TOLERANCE = math.pi / 9
_PUBLISHED_STATE_DIM = 7
_AGENT_START = (50.0, 450.0)  # px, range of both coordinates
_BLOCK_START = (100.0, 400.0)
_PERTURBED_BLOCK = (220, 60, 60)  # RGB of a block that changed its colour


class PushTEnv(GoalEnv):
    """Push-T with the published physics, pictures and success rule.

    State, (10,): agent xy, block xy (px), block angle (rad), agent velocity xy, block velocity xy (px/s), block
    angular velocity (rad/s). States of the published layout, (7,), which end with the agent's velocity, are accepted
    wherever a state goes in. Action, (2,) in [-1, 1]: offset of the agent's target from the agent, in units of 100 px;
    a step lasts 0.1 s. Success: the vectors (agent xy, block xy) of state and goal are less than 20 px apart and
    the block's angles less than pi/9.

    Args:
        image_size: side of the rendered square frames, in pixels.
        render_mode: "rgb_array" or None.
        draw_target: whether the green T of the published pictures, whose place never changes, is on the table.
        colours: RGB replacements by name: "background", "wall", "target", "block", "agent".
    """

    env_id: ClassVar[str] = "lewm/PushT-v0"
    max_episode_steps: ClassVar[int] = 200
    state_columns: ClassVar[Mapping[str, int]] = {
        "state": STATE_DIM,
        "agent_position": 2,
        "block_position": 2,
        "block_angle": 1,
    }
    angle_columns: ClassVar[frozenset[str]] = frozenset({"block_angle"})
    perturbations: ClassVar[tuple[str, ...]] = ("colour", "teleport")
    policies: ClassVar[Mapping[str, Callable[[], Policy]]] = {
        "mixed": MixedPolicy,
        "near_block": NearBlockPolicy,
        "pusher": PusherPolicy,
        "random": RandomPolicy,
    }

    def __init__(
        self,
        image_size: int = 224,
        render_mode: str | None = "rgb_array",
        draw_target: bool = True,
        colours: dict[str, tuple[int, int, int]] | None = None,
    ) -> None:
        super().__init__(image_size, render_mode)
        low, high = np.full(STATE_DIM, -np.inf), np.full(STATE_DIM, np.inf)
        low[4], high[4] = 0.0, 2 * math.pi
        self.observation_space = gymnasium.spaces.Box(low, high, dtype=np.float64)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), dtype=np.float32)
        self._painter = PushTPainter(self.image_size, draw_target, colours)
        self._perturbed_painter = PushTPainter(
            self.image_size, draw_target, {**(colours or {}), "block": _PERTURBED_BLOCK}
        )
        self._world = PushTWorld(np.array([256.0, 400, 256, 200, 0, 0, 0, 0, 0, 0]))

    def check_state(self, name: str, state: Any) -> State:
        """A fresh (10,) float64 array with the angle in [0, 2 pi); a (7,) state gets a block at rest."""
        if np.shape(state) == (_PUBLISHED_STATE_DIM,):
            state = np.concatenate([state, np.zeros(STATE_DIM - _PUBLISHED_STATE_DIM)])
        checked = super().check_state(name, state)
        checked[4] %= 2 * math.pi
        return checked

    def get_state(self) -> State:
        """See `GoalEnv.get_state`; contact impulses of the last physics step are not part of it."""
        return self._world.state

    def set_state(self, state: NDArray[Any]) -> None:
        """See `GoalEnv.set_state`. Putting the environment where it is changes nothing."""
        checked = self.check_state("state", state)
        if not np.array_equal(checked, self._world.state):
            self._world = PushTWorld(checked)

    def _advance(self, action: NDArray[np.float32]) -> None:
        self._world.advance(action)

    def _render(self) -> Frame:
        return self.render_state(self._world.state)

    def render_state(self, state: NDArray[Any]) -> Frame:
        """See `GoalEnv.render_state`."""
        checked = self.check_state("state", state)
        painter = self._perturbed_painter if self._recoloured else self._painter
        return painter.draw(checked[:2], checked[2:5])

    def _teleported(self, rng: np.random.Generator) -> State:
        return _resting_state(rng)

    def success(self, state: NDArray[Any], goal: NDArray[Any]) -> NDArray[np.bool_]:
        """See `GoalEnv.success`; reads the first five numbers of a state."""
        state, goal = np.asarray(state), np.asarray(goal)
        distance = np.linalg.norm(state[..., :4] - goal[..., :4], axis=-1)
        turn = np.abs(state[..., 4] - goal[..., 4]) % (2 * math.pi)
        turn = np.minimum(turn, 2 * math.pi - turn)
        return (distance < _POSITION_TOLERANCE) & (turn < _ANGLE_TOLERANCE)

    def sample_episode(self, rng: np.random.Generator) -> tuple[State, State]:
        """Two states at rest in the published ranges, without those where the agent, block or a wall overlap."""
        return _resting_state(rng), _resting_state(rng)

    def columns(self) -> dict[str, NDArray[Any]]:
        """See `GoalEnv.columns`."""
        state = self.get_state()
        return {
            "state": state,
            "agent_position": state[:2],
            "block_position": state[2:4],
            "block_angle": state[4:5],
        }

    def states_from_columns(self, columns: Mapping[str, NDArray[Any]]) -> NDArray[np.float64]:
        """See `GoalEnv.states_from_columns`; a ``state`` column of the published width 7 gets a block at rest."""
        states = super().states_from_columns(columns)
        if states.shape[-1] == _PUBLISHED_STATE_DIM:
            rest = np.zeros((*states.shape[:-1], STATE_DIM - _PUBLISHED_STATE_DIM))
            states = np.concatenate([states, rest], axis=-1)
        return states


def _resting_state(rng: np.random.Generator) -> State:
    free_low, free_high = WALL_LOW + WALL_RADIUS, WALL_HIGH - WALL_RADIUS
    while True:
        agent = rng.uniform(*_AGENT_START, 2)
        pose = np.array([*rng.uniform(*_BLOCK_START, 2), rng.uniform(0.0, 2 * math.pi)])
        corners = block_corners(pose)
        inside = corners.min() > free_low and corners.max() < free_high
        if inside and block_distance(agent[None], pose)[0] > AGENT_RADIUS:
            return np.concatenate([agent, pose, np.zeros(STATE_DIM - 5)])
