"""``lewm/Reacher-v0``: dm_control's two-link arm, which has to take up the joint angles of a goal picture."""

from __future__ import annotations

import functools
import importlib.util
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import gymnasium
import numpy as np
from numpy.typing import NDArray

from lewm.envs.base import Frame, GoalEnv, Policy, RandomPolicy, State
from lewm.envs.mujoco_rendering import FrameRenderer
from lewm.envs.reacher_policies import ReachPolicy, WaypointPolicy, fingertip

try:
    import mujoco
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "lewm/Reacher-v0 needs mujoco: pip install 'lewm[envs]'", name="mujoco"
    ) from error

__all__ = ["ReacherEnv"]

WRIST_LIMIT = math.radians(160.0)
_TOLERANCE = 0.05  # rad, of each joint
_ACTION_REPEAT = 2  # physics steps of 0.02 s per environment step
_LINKS = ("arm", "hand")  # their bodies in dm_control's model
_OTHER_COLOUR = (0.25, 0.75, 0.35, 1.0)
_PUBLISHED_SIZE = 224  # px: frames this large are drawn as published


class ReacherEnv(GoalEnv):
    """The arm of dm_control's reacher without the target ball; the goal is a pair of joint angles.

    State, (4,): shoulder and wrist angle (rad; the wrist stays within +-160 degrees, the shoulder turns freely and its
    angle is not wrapped), and their velocities (rad/s). Action, (2,) in [-1, 1]: torques in units of 0.05 N m; a step
    lasts 0.04 s. Success: each joint is less than 0.05 rad from the goal's, whatever the shoulder's turns.

    Args:
        image_size: side of the rendered square frames, in pixels.
        render_mode: "rgb_array" or None.
        quality: "published" draws shadows, reflections and multisampling as dm_control does; "fast" leaves them out and
            averages four drawn pixels for each of the frame; "auto" is "published" from 224 px on.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 25}  # type: ignore[misc]

    env_id: ClassVar[str] = "lewm/Reacher-v0"
    max_episode_steps: ClassVar[int] = 200
    state_columns: ClassVar[Mapping[str, int]] = {
        "state": 4,
        "joint_position": 2,
        "joint_velocity": 2,
        "fingertip_position": 2,
    }
    angle_columns: ClassVar[frozenset[str]] = frozenset({"joint_position"})
    perturbations: ClassVar[tuple[str, ...]] = ("colour", "teleport")
    policies: ClassVar[Mapping[str, Callable[[], Policy]]] = {
        "waypoints": WaypointPolicy,
        "reach": ReachPolicy,
        "random": RandomPolicy,
    }

    def __init__(
        self, image_size: int = 224, render_mode: str | None = "rgb_array", quality: str = "auto"
    ) -> None:
        super().__init__(image_size, render_mode)
        if quality not in ("auto", "published", "fast"):
            raise ValueError(f"quality: expected 'auto', 'published' or 'fast', got {quality!r}")
        self._published = quality == "published" or (quality == "auto" and image_size >= _PUBLISHED_SIZE)
        limit = np.array([np.inf, np.inf, np.inf, np.inf])
        self.observation_space = gymnasium.spaces.Box(-limit, limit, dtype=np.float64)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), dtype=np.float32)
        self._model = _model()
        self._data = mujoco.MjData(self._model)

    def get_state(self) -> State:
        """See `GoalEnv.get_state`."""
        return np.concatenate([self._data.qpos, self._data.qvel])

    def set_state(self, state: NDArray[Any]) -> None:
        """See `GoalEnv.set_state`."""
        checked = self.check_state("state", state)
        self._data.qpos[:], self._data.qvel[:] = checked[:2], checked[2:]

    def _advance(self, action: NDArray[np.float32]) -> None:
        self._data.ctrl[:] = action
        mujoco.mj_step(self._model, self._data, nstep=_ACTION_REPEAT)

    def _render(self) -> Frame:
        mujoco.mj_kinematics(self._model, self._data)
        mujoco.mj_camlight(self._model, self._data)
        colours = dict.fromkeys(_LINKS, _OTHER_COLOUR) if self._recoloured else {}
        return _renderer(self.image_size, self._published).draw(self._data, colours)

    def success(self, state: NDArray[Any], goal: NDArray[Any]) -> NDArray[np.bool_]:
        """See `GoalEnv.success`; reads the two angles of a state."""
        difference = np.asarray(state)[..., :2] - np.asarray(goal)[..., :2]
        difference = (difference + math.pi) % (2 * math.pi) - math.pi
        return (np.abs(difference) < _TOLERANCE).all(axis=-1)

    def sample_episode(self, rng: np.random.Generator) -> tuple[State, State]:
        """Two arms at rest with uniform angles."""
        return _resting_state(rng), _resting_state(rng)

    def _teleported(self, rng: np.random.Generator) -> State:
        """The arm at other angles; it keeps its velocities, so that nothing but the place is impossible."""
        return np.concatenate([_resting_state(rng)[:2], self._data.qvel])

    def columns(self) -> dict[str, NDArray[Any]]:
        """See `GoalEnv.columns`; ``fingertip_position`` is in metres from the shoulder."""
        state = self.get_state()
        return {
            "state": state,
            "joint_position": state[:2],
            "joint_velocity": state[2:],
            "fingertip_position": fingertip(state[:2]),
        }

    def states_from_columns(self, columns: Mapping[str, NDArray[Any]]) -> NDArray[np.float64]:
        """See `GoalEnv.states_from_columns`; the published files have ``qpos`` and ``qvel`` in place of ``state``."""
        if "state" not in columns and {"qpos", "qvel"} <= set(columns):
            return np.concatenate([columns["qpos"], columns["qvel"]], axis=-1).astype(np.float64)
        return super().states_from_columns(columns)


def _resting_state(rng: np.random.Generator) -> State:
    return np.array([rng.uniform(-math.pi, math.pi), rng.uniform(-WRIST_LIMIT, WRIST_LIMIT), 0.0, 0.0])


@functools.cache
def _model() -> mujoco.MjModel:
    """The compiled arm, one for all environments of a process, which do not change it.

    Raises:
        ModuleNotFoundError: dm_control, which brings the model's description, is not installed.
    """
    package = importlib.util.find_spec("dm_control")  # not imported: only its files are needed
    if package is None or package.origin is None:
        raise ModuleNotFoundError(
            "lewm/Reacher-v0 needs dm_control: pip install 'lewm[envs]'", name="dm_control"
        )
    suite = Path(package.origin).parent / "suite"
    assets = {f"./common/{file.name}": file.read_bytes() for file in (suite / "common").glob("*.xml")}
    model = mujoco.MjModel.from_xml_string((suite / "reacher.xml").read_text(), assets)
    model.mat_rgba[model.material("target").id, 3] = 0.0
    # Without warm starts of the wrist's limit a state is all that the next step depends on.
    model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_WARMSTART
    return model


@functools.cache
def _renderer(image_size: int, published: bool) -> FrameRenderer:
    """One renderer of a kind for all environments of a process."""
    if published:
        return FrameRenderer(_model(), "fixed", image_size)
    return FrameRenderer(
        _model(), "fixed", image_size, multisamples=0, supersample=2, shadows=False, reflections=False
    )
