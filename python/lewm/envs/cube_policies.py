"""Data policies of Cube: OGBench's own data-collection heuristic, and the same one disturbed."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["DisturbedOraclePolicy", "OraclePolicy"]

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
        return np.clip(self._intend(env), -1.0, 1.0).astype(np.float32)

    def _intend(self, env: Any) -> NDArray[np.float64]:
        if self._oracle.done:
            self._aim(env._cube_pose(self._rng))
        info = {**env.observe(), **self._target}
        intended: NDArray[np.float64] = self._oracle.select_action(None, info)
        return intended + self._rng.normal(0.0, self._scale)

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


class DisturbedOraclePolicy(OraclePolicy):
    """The oracle, but now and then the hand, or the gripper, does something random and steady for a while.

    The oracle opens its gripper only where it means to put the cube down, so its own episodes do not show what opening
    it elsewhere does, and a planner then trusts a model in plans that drop the cube. Here the cube is dropped, on the
    way too, and picked up again.
    """

    chance = 0.025  # per step, of a disturbance of the hand, and as much of the gripper
    shortest, longest = 5, 10  # steps that a disturbance lasts

    _PARTS = (slice(0, 4), slice(4, 5))  # of an action: the hand's motion, the gripper's

    def reset(self, env: Any, rng: np.random.Generator) -> None:
        """See `Policy.reset`."""
        super().reset(env, rng)
        self._left = [0 for _ in self._PARTS]  # steps that the present disturbance goes on
        self._disturbance = np.zeros(5)

    def _intend(self, env: Any) -> NDArray[np.float64]:
        action = super()._intend(env)
        for n, part in enumerate(self._PARTS):
            if not self._left[n] and self._rng.random() < self.chance:
                self._left[n] = int(self._rng.integers(self.shortest, self.longest + 1))
                self._disturbance[part] = self._rng.uniform(-1.0, 1.0, part.stop - part.start)
            if self._left[n]:
                self._left[n] -= 1
                action[part] = self._disturbance[part]
        return action


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
