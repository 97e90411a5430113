"""What every environment here offers: state in and out, goals as images, success by state, data policies.

Planning in latent space needs more of an environment than ``step``: an evaluation starts in a state taken
from a data set, shows the planner the image of another state as its goal, and asks the environment (never the
model) whether it was reached. ``GoalEnv`` fixes those verbs. ``EnvBatch`` steps N of them together;
environments that can do better than a loop override ``GoalEnv.make_batch``.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Protocol

import gymnasium
import numpy as np
from numpy.typing import NDArray

from lewm.arrays import at_least

__all__ = ["EnvBatch", "GoalEnv", "Policy", "RandomPolicy", "SerialBatch", "checked_image_size", "rows_for"]

State = NDArray[np.float64]
Frame = NDArray[np.uint8]


class Policy(Protocol):
    """Chooses actions during data collection; it may look at the environment's true state."""

    def reset(self, env: GoalEnv, rng: np.random.Generator) -> None:
        """Starts an episode: ``env`` has its first state and goal; ``rng`` is the only randomness."""

    def act(self, env: GoalEnv) -> NDArray[np.float32]:
        """The next action, (A,) float32, inside ``env.action_space``."""


class RandomPolicy:
    """Uniform actions."""

    def reset(self, env: GoalEnv, rng: np.random.Generator) -> None:
        """See `Policy.reset`."""
        self._rng = rng

    def act(self, env: GoalEnv) -> NDArray[np.float32]:
        """See `Policy.act`."""
        return env.sample_action(self._rng)


class GoalEnv(gymnasium.Env[NDArray[np.float64], NDArray[np.float32]]):
    """A goal-conditioned environment seen through images.

    Observation: the state, (S,) float64 (frames come from ``render()``, so that stepping costs no picture).
    Action: (A,) float32 in a bounded Box. Reward: 1.0 on a step that ends in the goal, else 0.0.
    ``terminated`` is success. ``info`` holds ``success`` (bool), ``state`` and ``goal_state``, each (S,).

    A subclass sets the class attributes, ``self.observation_space`` and ``self.action_space``, calls
    ``super().__init__(image_size, render_mode)``, and defines: ``get_state``, ``set_state``, ``_advance``,
    ``_render``, ``success`` and ``sample_episode``.

    Args:
        image_size: side of the rendered square frames, in pixels.
        render_mode: "rgb_array" or None; frames are RGB in either case.
    """

    metadata: ClassVar[dict[str, Any]] = {  # type: ignore[misc]
        "render_modes": ["rgb_array"],
        "render_fps": 10,
    }

    env_id: ClassVar[str]
    """The gymnasium id, such as "lewm/TwoRoom-v0"."""
    max_episode_steps: ClassVar[int]
    """Longest recorded episode, in environment steps."""
    stops_at_success: ClassVar[bool] = True
    """Whether a recorded episode ends when its goal is reached."""
    records_in_batches: ClassVar[bool] = False
    """Whether ``record_episodes`` outruns the handing over of frames between processes; it then runs in one."""
    state_columns: ClassVar[Mapping[str, int]]
    """Columns that a data set keeps of each step besides ``pixels`` and ``action``: name -> width, of floats.
    ``state`` (the full state, width S) must be among them; the others are worth probing."""
    angle_columns: ClassVar[frozenset[str]] = frozenset()
    """Those of them that are angles (rad) whose whole turns mean nothing."""
    policies: ClassVar[Mapping[str, Callable[[], Policy]]]
    """Data policies by name; the first is the default of ``lewm collect``. "random" should be among them."""

    perturbations: ClassVar[tuple[str, ...]] = ()
    """What `perturb` can do here: of "colour" and "teleport"."""

    observation_space: gymnasium.spaces.Box  # type: ignore[assignment]
    action_space: gymnasium.spaces.Box  # type: ignore[assignment]

    def __init__(self, image_size: int = 224, render_mode: str | None = "rgb_array") -> None:
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"render_mode: expected 'rgb_array' or None, got {render_mode!r}")
        self.image_size = checked_image_size(image_size)
        self.render_mode = render_mode
        self._goal: State | None = None
        self._recoloured = False

    # ---- what a subclass defines ------------------------------------------------------------------------

    @abstractmethod
    def get_state(self) -> State:
        """The full state, (S,) float64: ``set_state`` of it continues exactly alike."""

    @abstractmethod
    def set_state(self, state: NDArray[Any]) -> None:
        """Puts the environment into ``state`` (S,); ValueError for another shape or NaN: ``check_state``."""

    @abstractmethod
    def _advance(self, action: NDArray[np.float32]) -> None:
        """One environment step with ``action`` (A,), already inside the action space."""

    @abstractmethod
    def _render(self) -> Frame:
        """The current state as a frame, (image_size, image_size, 3) uint8 RGB. The goal is not drawn."""

    @abstractmethod
    def success(self, state: NDArray[Any], goal: NDArray[Any]) -> NDArray[np.bool_]:
        """Whether ``state`` counts as ``goal`` reached: (..., S) each, broadcast -> (...) bool."""

    @abstractmethod
    def sample_episode(self, rng: np.random.Generator) -> tuple[State, State]:
        """A start and a goal state, (S,) each, as recorded episodes have them. May disturb the simulator."""

    def _teleported(self, rng: np.random.Generator) -> State:
        """The current state with an object at a random other place, (S,); for environments that "teleport"."""
        raise NotImplementedError(f"{self.env_id} has no teleport")

    def columns(self) -> dict[str, NDArray[Any]]:
        """This step's values of ``state_columns``, (width,) each; override for more than ``state``."""
        return {"state": self.get_state()}

    def states_from_columns(self, columns: Mapping[str, NDArray[Any]]) -> NDArray[np.float64]:
        """Full states (N, S) from a data set's columns, (N, ...) each; override to read files of others.

        Raises:
            KeyError: the columns do not determine the state; names what is missing.
        """
        if "state" not in columns:
            raise KeyError(f"column 'state' is needed to restore {self.env_id}; there are {sorted(columns)}")
        return np.asarray(columns["state"], dtype=np.float64)

    @classmethod
    def make_batch(cls, count: int, image_size: int = 224) -> EnvBatch:
        """``count`` environments that are stepped and rendered together."""
        return SerialBatch([cls(image_size=image_size) for _ in range(count)])

    @classmethod
    def record_episodes(
        cls, policy: str, rngs: Sequence[np.random.Generator], image_size: int = 224
    ) -> Iterator[dict[str, NDArray[Any]]]:
        """One recorded episode per generator, in order; an episode depends on its own generator alone.

        Yields columns of T rows each: ``pixels`` (T, H, W, 3) uint8, ``action`` (T, A) float32, where row t
        is the action that leaves frame t and the last row is NaN, and ``state_columns``. Override to batch.

        Raises:
            ValueError: ``policy`` is not one of ``cls.policies``.
        """
        actor = cls.make_policy(policy)
        env = cls(image_size=image_size)
        try:
            for rng in rngs:
                yield env._record_episode(actor, rng)
        finally:
            env.close()

    @classmethod
    def make_policy(cls, name: str) -> Policy:
        """The data policy called ``name``."""
        if name not in cls.policies:
            raise ValueError(f"policy: expected one of {', '.join(cls.policies)}, got {name!r}")
        return cls.policies[name]()

    def _record_episode(self, policy: Policy, rng: np.random.Generator) -> dict[str, NDArray[Any]]:
        start, goal = self.sample_episode(rng)
        self.set_goal(goal)
        self.set_state(start)
        policy.reset(self, rng)
        frames, rows = [self._render()], [self.columns()]
        actions: list[NDArray[np.float32]] = []
        while len(actions) < self.max_episode_steps:
            if self.stops_at_success and actions and self.success(self.get_state(), goal):
                break
            action = np.clip(policy.act(self), self.action_space.low, self.action_space.high)
            self._advance(action.astype(np.float32))
            actions.append(action.astype(np.float32))
            frames.append(self._render())
            rows.append(self.columns())
        actions.append(np.full(self.action_dim, np.nan, dtype=np.float32))
        kept = {name: np.stack([row[name] for row in rows]) for name in self.state_columns}
        return {"pixels": np.stack(frames), "action": np.stack(actions), **kept}

    # ---- what comes with it -----------------------------------------------------------------------------

    @property
    def state_dim(self) -> int:
        """S, the width of a state."""
        return int(self.observation_space.shape[0])

    @property
    def action_dim(self) -> int:
        """A, the width of an action."""
        return int(self.action_space.shape[0])

    @property
    def goal(self) -> State:
        """The goal state, (S,); a RuntimeError before ``reset`` or ``set_goal``."""
        if self._goal is None:
            raise RuntimeError("no goal yet: call reset() or set_goal(state)")
        return self._goal.copy()

    def set_goal(self, state: NDArray[Any]) -> None:
        """Makes ``state`` (S,) the goal."""
        self._goal = self.check_state("goal", state)

    def check_state(self, name: str, state: Any) -> State:
        """``state`` as a fresh (S,) float64 array; a ValueError that names the argument if it is not one."""
        array = np.array(state, dtype=np.float64)
        if array.shape != (self.state_dim,):
            raise ValueError(f"{name}: expected ({self.state_dim},), got {array.shape}")
        if not np.isfinite(array).all():
            raise ValueError(f"{name}: expected finite numbers, got {array.tolist()}")
        return array

    def sample_action(self, rng: np.random.Generator) -> NDArray[np.float32]:
        """A uniform action, (A,) float32."""
        return rng.uniform(self.action_space.low, self.action_space.high).astype(np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[State, dict[str, Any]]:
        """Starts an episode. ``options`` may fix "state" and "goal_state"; what it leaves out is drawn."""
        super().reset(seed=seed)
        self._recoloured = False
        options = options or {}
        unknown = sorted(set(options) - {"state", "goal_state"})
        if unknown:
            raise ValueError(f"options: expected 'state' and 'goal_state', got {unknown[0]!r}")
        start, goal = self.sample_episode(self.np_random)
        self.set_goal(options.get("goal_state", goal))
        self.set_state(options.get("state", start))
        return self.get_state(), self._info()

    def step(self, action: NDArray[Any]) -> tuple[State, float, bool, bool, dict[str, Any]]:
        """One step; the action is clipped to the action space.

        Raises:
            ValueError: the action's shape is not (A,), or it holds NaN.
        """
        array = np.asarray(action, dtype=np.float32)
        if array.shape != (self.action_dim,):
            raise ValueError(f"action: expected ({self.action_dim},), got {array.shape}")
        if np.isnan(array).any():
            raise ValueError(f"action: expected numbers, got {array.tolist()}")
        self._advance(np.clip(array, self.action_space.low, self.action_space.high))
        info = self._info()
        return self.get_state(), float(info["success"]), info["success"], False, info

    def perturb(self, kind: str, rng: np.random.Generator) -> None:
        """Makes something impossible happen, as the surprise test needs it.

        "colour" gives an object another colour until the next reset; "teleport" puts one to a random place.

        Raises:
            ValueError: not one of ``perturbations``.
        """
        if kind not in self.perturbations:
            raise ValueError(f"kind: expected one of {self.perturbations}, got {kind!r}")
        if kind == "teleport":
            self.set_state(self._teleported(rng))
        else:
            self._recoloured = True

    def _info(self) -> dict[str, Any]:
        state, goal = self.get_state(), self.goal
        return {"success": bool(self.success(state, goal)), "state": state, "goal_state": goal}

    def render(self) -> Frame:
        """The current frame, (image_size, image_size, 3) uint8 RGB."""
        return self._render()

    def render_state(self, state: NDArray[Any]) -> Frame:
        """The frame of another state; the environment stays where it is."""
        keep = self.get_state()
        try:
            self.set_state(state)
            return self._render()
        finally:
            self.set_state(keep)

    def render_goal(self) -> Frame:
        """The frame of the goal state."""
        return self.render_state(self.goal)


class EnvBatch(Protocol):
    """N independent environments of one kind, addressed as arrays; ``rows`` selects some, None means all."""

    count: int
    image_size: int

    def set_states(self, states: NDArray[Any]) -> None:
        """Puts environment n into ``states[n]``; (N, S)."""

    def get_states(self) -> NDArray[np.float64]:
        """(N, S)."""

    def step(self, actions: NDArray[Any], rows: NDArray[np.intp] | None = None) -> None:
        """One step of the selected environments with ``actions`` (len(rows), A), clipped to their space."""

    def render(self, rows: NDArray[np.intp] | None = None) -> Frame:
        """Frames of the selected environments, (len(rows), image_size, image_size, 3) uint8."""

    def close(self) -> None:
        """Frees what the environments hold."""


class SerialBatch:
    """`EnvBatch` as a loop over environments."""

    def __init__(self, envs: list[GoalEnv]) -> None:
        if not envs:
            raise ValueError("envs: expected at least one environment, got none")
        self.envs = envs
        self.count = len(envs)
        self.image_size = envs[0].image_size

    def set_states(self, states: NDArray[Any]) -> None:
        """See `EnvBatch.set_states`."""
        if len(states) != self.count:
            raise ValueError(
                f"states: expected {(self.count, self.envs[0].state_dim)}, got {np.shape(states)}"
            )
        for env, state in zip(self.envs, states, strict=True):
            env.set_state(state)

    def get_states(self) -> NDArray[np.float64]:
        """See `EnvBatch.get_states`."""
        return np.stack([env.get_state() for env in self.envs])

    def step(self, actions: NDArray[Any], rows: NDArray[np.intp] | None = None) -> None:
        """See `EnvBatch.step`."""
        space = self.envs[0].action_space
        for row, action in zip(rows_for(rows, self.count), actions, strict=True):
            self.envs[row]._advance(np.clip(np.asarray(action, dtype=np.float32), space.low, space.high))

    def render(self, rows: NDArray[np.intp] | None = None) -> Frame:
        """See `EnvBatch.render`."""
        return np.stack([self.envs[row].render() for row in rows_for(rows, self.count)])

    def close(self) -> None:
        """See `EnvBatch.close`."""
        for env in self.envs:
            env.close()


def checked_image_size(image_size: int) -> int:
    """The side of square frames, in pixels; a ValueError if it is not an int of at least 8."""
    return at_least("image_size", image_size, 8)


def rows_for(rows: NDArray[np.intp] | None, count: int) -> NDArray[np.intp]:
    """The selected rows; all ``count`` of them for None."""
    return np.arange(count) if rows is None else np.asarray(rows)
