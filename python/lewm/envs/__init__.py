"""Environments, registered with gymnasium when this is imported: ``gymnasium.make("lewm/TwoRoom-v0")``.

Importing it needs gymnasium alone; each environment imports its own simulator when it is made.
"""

from __future__ import annotations

import importlib

from gymnasium.envs.registration import register, registry

from lewm.envs.base import EnvBatch, GoalEnv, Policy, RandomPolicy, SerialBatch
from lewm.errors import Error

__all__ = [
    "ENVIRONMENTS",
    "EnvBatch",
    "GoalEnv",
    "Policy",
    "RandomPolicy",
    "SerialBatch",
    "environment_class",
]

ENVIRONMENTS = {
    "lewm/TwoRoom-v0": "lewm.envs.two_room:TwoRoomEnv",
    "lewm/Reacher-v0": "lewm.envs.reacher:ReacherEnv",
    "lewm/PushT-v0": "lewm.envs.push_t:PushTEnv",
    "lewm/Cube-v0": "lewm.envs.cube:CubeEnv",
}
"""gymnasium id -> entry point."""

for _env_id, _entry_point in ENVIRONMENTS.items():
    if _env_id not in registry:
        register(id=_env_id, entry_point=_entry_point)


def environment_class(name: str) -> type[GoalEnv]:
    """The class of an environment, by id or short name ("lewm/TwoRoom-v0", "TwoRoom", "two_room", "push-t").

    Raises:
        ValueError: no such environment; lists those that exist.
        ImportError: its simulator is not installed; says which extra brings it.
        lewm.Error: its simulator cannot be imported.
    """
    env_id = next((known for known in ENVIRONMENTS if _short_name(known) == _short_name(name)), None)
    if env_id is None:
        raise ValueError(f"env: expected one of {', '.join(sorted(ENVIRONMENTS))}, got {name!r}")
    module, attribute = ENVIRONMENTS[env_id].split(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("lewm"):
            raise
        raise ImportError(f"{env_id} needs {error.name}: pip install 'lewm[envs]'") from error
    except RuntimeError as error:  # mujoco's of a MUJOCO_GL that it does not know
        raise Error(f"{env_id}: {error}") from error


def _short_name(name: str) -> str:
    """ "lewm/PushT-v0", "push_t" and "Push-T" -> "pusht"."""
    stem = name.removeprefix("lewm/").removesuffix("-v0")
    return stem.lower().replace("_", "").replace("-", "")
