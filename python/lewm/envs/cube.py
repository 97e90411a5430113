"""``lewm/Cube-v0``: OGBench's single cube, which a robot arm has to bring to where a goal picture shows it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import gymnasium
import numpy as np
from numpy.typing import NDArray

from lewm.envs.base import Frame, GoalEnv, Policy, RandomPolicy, State
from lewm.envs.cube_policies import DisturbedOraclePolicy, OraclePolicy

try:
    import mujoco

    from lewm.envs import cube_scene
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"lewm/Cube-v0 needs {error.name}: pip install 'lewm[envs]'", name=error.name
    ) from error

__all__ = ["CubeEnv"]

_TOLERANCE = 0.04  # m
_POSITIONS, _VELOCITIES = 21, 20  # of MuJoCo: 6 arm and 8 gripper joints, and the cube's free joint
_MUJOCO_STATE = _POSITIONS + _VELOCITIES
_STATE_DIM = _MUJOCO_STATE + 4
_CUBE = slice(14, 21)  # the cube's position and quaternion in a state
_CUBE_VELOCITY = slice(_POSITIONS + 14, _POSITIONS + 20)
_RESTING_HEIGHT = 0.02  # m, half the cube's side
_PUBLISHED_SIZE = 224  # px: frames this large are drawn as published
_OTHER_COLOUR = (0.35, 0.55, 0.91, 1.0)


class CubeEnv(GoalEnv):
    """A UR5e arm with a two-finger gripper, a table and one red cube of 4 cm (OGBench's ``cube-single``).

    State, (45,): MuJoCo's qpos (6 arm joints, 8 gripper joints, cube position in m and quaternion w x y z), its qvel
    (6 + 8 + 3 + 3), and the hand's pose (x, y, z in m, yaw in rad) to which the next action adds: OGBench's controller
    reads it one physics step, 2 ms, before the state is reached. States of (41,), without the last four, are accepted
    wherever a state goes in; their hand is read where it is. Action, (5,) in [-1, 1]: the hand's offset in units of
    5 cm (x, y, z) and 0.3 rad (yaw), and the gripper's in units of its full opening (positive closes); a step lasts
    0.05 s. Success: the cube's centre is at most 0.04 m from the goal's, whatever the arm does.

    Args:
        image_size: side of the rendered square frames, in pixels.
        render_mode: "rgb_array" or None.
        quality: "published" draws every triangle, shadows and multisampling as OGBench does; "fast" draws coarser
            meshes without shadows and averages four drawn pixels for each of the frame; "auto" is "published" from
            224 px on.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 20}  # type: ignore[misc]

    env_id: ClassVar[str] = "lewm/Cube-v0"
    max_episode_steps: ClassVar[int] = 200
    stops_at_success: ClassVar[bool] = False  # the oracle lets go and takes the cube elsewhere
    state_columns: ClassVar[Mapping[str, int]] = {
        "state": _STATE_DIM,
        "joint_position": 6,
        "joint_velocity": 6,
        "effector_position": 3,
        "effector_yaw": 1,
        "gripper_opening": 1,
        "block_position": 3,
        "block_quaternion": 4,
        "block_yaw": 1,
    }
    angle_columns: ClassVar[frozenset[str]] = frozenset({"effector_yaw", "block_yaw"})
    policies: ClassVar[Mapping[str, Callable[[], Policy]]] = {
        "oracle": OraclePolicy,
        "disturbed_oracle": DisturbedOraclePolicy,
        "random": RandomPolicy,
    }
    perturbations: ClassVar[tuple[str, ...]] = ("colour", "teleport")

    def __init__(
        self, image_size: int = 224, render_mode: str | None = "rgb_array", quality: str = "auto"
    ) -> None:
        super().__init__(image_size, render_mode)
        if quality not in ("auto", "published", "fast"):
            raise ValueError(f"quality: expected 'auto', 'published' or 'fast', got {quality!r}")
        self._published = quality == "published" or (quality == "auto" and image_size >= _PUBLISHED_SIZE)
        unbounded = np.full(_STATE_DIM, np.inf)
        self.observation_space = gymnasium.spaces.Box(-unbounded, unbounded, dtype=np.float64)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (5,), dtype=np.float32)
        self._model = cube_scene.simulation().model
        self._data = mujoco.MjData(self._model)
        self._scratch = mujoco.MjData(self._model)  # for states that the environment is not in
        self._hand_site = cube_scene.simulation()._pinch_site_id
        self._hand_pose = self._hand_pose_of(self._data)

    def check_state(self, name: str, state: Any) -> State:
        """A fresh (45,) float64 array; to a (41,) state the hand's present pose is added."""
        if np.shape(state) == (_MUJOCO_STATE,):
            self._scratch.qpos[:] = np.asarray(state, dtype=np.float64)[:_POSITIONS]
            mujoco.mj_kinematics(self._model, self._scratch)
            state = np.concatenate([state, self._hand_pose_of(self._scratch)])
        return super().check_state(name, state)

    def get_state(self) -> State:
        """See `GoalEnv.get_state`."""
        return np.concatenate([self._data.qpos, self._data.qvel, self._hand_pose])

    def set_state(self, state: NDArray[Any]) -> None:
        """See `GoalEnv.set_state`."""
        checked = self.check_state("state", state)
        self._data.qpos[:] = checked[:_POSITIONS]
        self._data.qvel[:] = checked[_POSITIONS:_MUJOCO_STATE]
        self._hand_pose = checked[_MUJOCO_STATE:]

    def _hand_pose_of(self, data: mujoco.MjData) -> NDArray[np.float64]:
        """The hand's x, y, z and yaw (4,) as ``data`` has computed them last."""
        matrix = data.site_xmat[self._hand_site]
        return np.array([*data.site_xpos[self._hand_site], math.atan2(matrix[3], matrix[0])])

    def _advance(self, action: NDArray[np.float32]) -> None:
        # What OGBench's controller reads and where the contact solver starts is set from the state, so that the
        # state is all that counts.
        *position, yaw = self._hand_pose
        turn = [math.cos(yaw), -math.sin(yaw), 0, math.sin(yaw), math.cos(yaw), 0, 0, 0, 1]
        self._data.site_xpos[self._hand_site], self._data.site_xmat[self._hand_site] = position, turn
        self._data.qacc_warmstart[:] = 0.0
        simulation = cube_scene.simulation(self._data)
        simulation.set_control(np.asarray(action, dtype=np.float64))
        mujoco.mj_step(self._model, self._data, nstep=simulation._n_steps)
        self._hand_pose = self._hand_pose_of(self._data)

    def observe(self) -> dict[str, Any]:
        """OGBench's description of the present state: proprioception and the cube's pose, by OGBench's names."""
        self._data.qacc_warmstart[:] = 0.0
        mujoco.mj_forward(self._model, self._data)
        mujoco.mj_rnePostConstraint(self._model, self._data)  # the fingers' contact forces
        info: dict[str, Any] = cube_scene.simulation(self._data).compute_ob_info()
        return info

    def _render(self) -> Frame:
        mujoco.mj_kinematics(self._model, self._data)
        mujoco.mj_camlight(self._model, self._data)
        colours = {cube_scene.CUBE_BODY: _OTHER_COLOUR} if self._recoloured else {}
        return cube_scene.renderer(self.image_size, self._published).draw(self._data, colours)

    def success(self, state: NDArray[Any], goal: NDArray[Any]) -> NDArray[np.bool_]:
        """See `GoalEnv.success`; reads the cube's position."""
        here, there = np.asarray(state)[..., 14:17], np.asarray(goal)[..., 14:17]
        return np.linalg.norm(here - there, axis=-1) <= _TOLERANCE

    def sample_episode(self, rng: np.random.Generator) -> tuple[State, State]:
        """Two states at rest: the hand somewhere above the table with the gripper open, the cube somewhere on it."""
        return self._resting_state(rng), self._resting_state(rng)

    def _resting_state(self, rng: np.random.Generator) -> State:
        data = self._scratch
        mujoco.mj_resetData(self._model, data)
        simulation = cube_scene.simulation(data)
        simulation.np_random = rng
        data.qpos[simulation._arm_joint_ids] = simulation._home_qpos
        mujoco.mj_kinematics(self._model, data)
        simulation.initialize_arm()
        data.qpos[_CUBE] = self._cube_pose(rng)
        return np.concatenate([data.qpos, np.zeros(_VELOCITIES), self._hand_pose_of(data)])

    @staticmethod
    def _cube_pose(rng: np.random.Generator) -> NDArray[np.float64]:
        """A place on the table with any yaw: position and quaternion, (7,)."""
        x, y = rng.uniform(*cube_scene.simulation()._object_sampling_bounds)
        yaw = rng.uniform(0.0, 2 * math.pi)
        return np.array([x, y, _RESTING_HEIGHT, math.cos(yaw / 2), 0.0, 0.0, math.sin(yaw / 2)])

    def _teleported(self, rng: np.random.Generator) -> State:
        state = self.get_state()
        state[_CUBE] = self._cube_pose(rng)
        state[_CUBE_VELOCITY] = 0.0
        return state

    def columns(self) -> dict[str, NDArray[Any]]:
        """See `GoalEnv.columns`; positions in m, angles in rad, the gripper from 0 (open) to 1 (closed)."""
        info = self.observe()
        return {
            "state": self.get_state(),
            "joint_position": info["proprio/joint_pos"],
            "joint_velocity": info["proprio/joint_vel"],
            "effector_position": info["proprio/effector_pos"],
            "effector_yaw": info["proprio/effector_yaw"],
            "gripper_opening": info["proprio/gripper_opening"],
            "block_position": info["privileged/block_0_pos"],
            "block_quaternion": info["privileged/block_0_quat"],
            "block_yaw": info["privileged/block_0_yaw"],
        }

    def states_from_columns(self, columns: Mapping[str, NDArray[Any]]) -> NDArray[np.float64]:
        """See `GoalEnv.states_from_columns`; the published files have ``qpos`` and ``qvel`` in place of ``state``."""
        if "state" not in columns and {"qpos", "qvel"} <= set(columns):
            rows = np.concatenate([columns["qpos"], columns["qvel"]], axis=-1)
            return np.stack([self.check_state("qpos, qvel", row) for row in rows])
        return super().states_from_columns(columns)
