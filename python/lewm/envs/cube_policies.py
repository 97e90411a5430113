"""Data policies of Cube: OGBench's own data-collection heuristic."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["OraclePolicy"]

_NOISE_BY_DIMENSION = np.array([1.0, 1.0, 1.0, 3.0, 10.0])


class OraclePolicy:
    """OGBench's closed-loop oracle: grasps the cube, carries it to a target, lets go, moves away, takes the next.

    The first target is the cube's pose in the goal, the others are random. Gaussian noise is added to the actions;
    an episode draws its scale between 0 and ``noise``, as OGBench's and the published data have it.
    """

    noise = 0.1  # largest standard deviation, in units of action (3 and 10 times that for yaw and gripper)

    def reset(self, env: Any, rng: np.random.Generator) -> None:
        """See `Policy.reset`; ``env`` is a `CubeEnv`."""
        self._rng = rng
        self._scale = rng.uniform(0.0, self.noise) * _NOISE_BY_DIMENSION
        self._oracle = _seeded_oracle(rng)
        self._aim(env.goal[14:21])

    def act(self, env: Any) -> NDArray[np.float32]:
        """See `Policy.act`."""
        if self._oracle.done:
            self._aim(env._cube_pose(self._rng))
        info = {**env.observe(), **self._target}
        action = self._oracle.select_action(None, info) + self._rng.normal(0.0, self._scale)
        return np.clip(action, -1.0, 1.0).astype(np.float32)

    def _aim(self, pose: NDArray[np.float64]) -> None:
        """Starts the oracle anew with the target ``pose``: position and quaternion, (7,)."""
        w, x, y, z = pose[3:]
        yaw = np.arctan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))
        self._target = {
            "privileged/target_block": 0,
            "privileged/target_block_pos": pose[:3],
            "privileged/target_block_yaw": np.array([yaw]),
        }
        self._oracle.reset(None, self._target)


def _seeded_oracle(rng: np.random.Generator) -> Any:
    """OGBench's oracle, with the place to which it retires drawn from ``rng`` instead of numpy's global generator."""
    from ogbench.manipspace.oracles.markov.cube_markov import CubeMarkovOracle

    from lewm.envs.cube_scene import simulation

    class SeededOracle(CubeMarkovOracle):  # type: ignore[misc]
        def reset(self, ob: Any, info: Any) -> None:
            self._done = False
            self._step = 0
            self._final_pos = rng.uniform(*simulation()._arm_sampling_bounds)
            self._final_yaw = rng.uniform(-np.pi, np.pi)

    return SeededOracle(env=simulation())
