"""Data policies of Reacher: inverse kinematics for the fingertip and PD control of the joints."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from lewm.envs.base import GoalEnv

__all__ = ["ReachPolicy", "WaypointPolicy", "fingertip", "joint_angles"]

_LINK = 0.12  # m, length of each of the two links
_WRIST_LIMIT = math.radians(160.0)
# Action per rad and per rad/s. The light forearm's joint is damped enough by its bearing alone.
_PROPORTIONAL = np.array([2.0, 2.0])
_DERIVATIVE = np.array([0.25, 0.0])


def fingertip(angles: NDArray[np.float64]) -> NDArray[np.float64]:
    """Position (..., 2) in m of the fingertip for joint ``angles`` (..., 2) in rad."""
    upper, lower = angles[..., 0], angles[..., 0] + angles[..., 1]
    return _LINK * np.stack([np.cos(upper) + np.cos(lower), np.sin(upper) + np.sin(lower)], axis=-1)


def joint_angles(position: NDArray[np.float64], elbow: int) -> NDArray[np.float64]:
    """The angles (2,) in rad that bring the fingertip to ``position`` (2,) in m, or as near as the arm reaches.

    Args:
        position: where the fingertip should be, from the shoulder.
        elbow: sign of the wrist's angle, +1 or -1: two arms reach most places.
    """
    distance = min(float(np.linalg.norm(position)), 2 * _LINK)
    wrist = min(2 * math.acos(distance / (2 * _LINK)), _WRIST_LIMIT) * elbow
    return np.array([math.atan2(position[1], position[0]) - wrist / 2, wrist])


class ReachPolicy:
    """PD control of the joints to the goal's angles, with Gaussian noise on the action."""

    noise = 0.1  # standard deviation, in units of action

    def reset(self, env: GoalEnv, rng: np.random.Generator) -> None:
        """See `Policy.reset`."""
        self._rng = rng

    def act(self, env: GoalEnv) -> NDArray[np.float32]:
        """See `Policy.act`."""
        return self._control(env.get_state(), env.goal[:2])

    def _control(self, state: NDArray[np.float64], angles: NDArray[np.float64]) -> NDArray[np.float32]:
        error = angles - state[:2]
        error[0] = (error[0] + math.pi) % (2 * math.pi) - math.pi  # the shoulder takes the shorter way
        action = _PROPORTIONAL * error - _DERIVATIVE * state[2:] + self._rng.normal(0.0, self.noise, 2)
        return np.clip(action, -1.0, 1.0).astype(np.float32)


class WaypointPolicy(ReachPolicy):
    """Moves the fingertip to two to four random places, with the elbow on either side, then takes up the goal."""

    _PATIENCE = 40  # steps after which the next place's turn comes anyway

    def reset(self, env: GoalEnv, rng: np.random.Generator) -> None:
        """See `Policy.reset`."""
        super().reset(env, rng)
        self._waypoints = [self._draw_waypoint() for _ in range(rng.integers(2, 5))]
        self._since = 0

    def act(self, env: GoalEnv) -> NDArray[np.float32]:
        """See `Policy.act`."""
        state = env.get_state()
        if self._waypoints:
            self._since += 1
            near = np.linalg.norm(fingertip(state[:2]) - fingertip(self._waypoints[0])) < 0.01
            if near or self._since > self._PATIENCE:
                self._waypoints.pop(0)
                self._since = 0
        return self._control(state, self._waypoints[0] if self._waypoints else env.goal[:2])

    def _draw_waypoint(self) -> NDArray[np.float64]:
        radius, bearing = self._rng.uniform(0.04, 2 * _LINK), self._rng.uniform(-math.pi, math.pi)
        position = radius * np.array([math.cos(bearing), math.sin(bearing)])
        return joint_angles(position, elbow=1 if self._rng.random() < 0.5 else -1)
