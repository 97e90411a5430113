"""Two rooms and a door: a red dot has to find its way to a place on the other side of a wall, or on its own.

The geometry, in pixels of a 224 x 224 picture whatever size is rendered: white, black lines of 4 px that end
14 px from the edges, a black wall with x in [107, 117], open where y is in [35, 63]. The agent is a red
Gaussian dot (std 7); it moves 5 px per unit of action and may not touch a wall with its radius of 7. The goal
counts as reached closer than 16 px.

Everything is written for N agents at once; `TwoRoomEnv` is the case N = 1, `TwoRoomBatch` the general one. A
picture is a sum of products of a function of x and a function of y, before and after resampling, so a frame
costs a few 1-D profiles and one rank-4 product (`Renderer`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import gymnasium
import numpy as np
from numpy.typing import NDArray

from lewm.envs.base import Frame, GoalEnv, Policy, RandomPolicy, State, rows_for

__all__ = ["NoisyExpert", "Renderer", "TwoRoomBatch", "TwoRoomEnv"]

SIZE = 224
BORDER = 14
BORDER_LINE = 4
WALL_CENTER = 112
WALL_HALF = 5
DOOR_CENTER = 49
DOOR_HALF = 14
DOOR_MARGIN = 1.75
RADIUS = 7.0
SPEED = 5.0
REACHED = 16.0
PUSH_BACK = 0.5
LEAST_STEPS = 25
DOOR = np.array([WALL_CENTER, DOOR_CENTER], dtype=np.float32)

Float32 = NDArray[np.float32]


def move(positions: Float32, actions: Float32) -> Float32:
    """Positions (N, 2) float32 after one step of ``actions`` (N, 2) in [-1, 1]; x to the right, y down.

    A step is clamped to the field first; a step that would touch the wall outside the door ends half a pixel
    before it, on the side of the wall where it began.
    """
    after = positions + np.clip(actions, -1.0, 1.0) * np.float32(SPEED)
    after = np.clip(after, BORDER + RADIUS, SIZE - BORDER - RADIUS).astype(np.float32)
    reach = WALL_HALF + RADIUS
    in_door = np.abs(after[:, 1] - DOOR_CENTER) <= DOOR_HALF + DOOR_MARGIN
    from_left = positions[:, 0] < WALL_CENTER
    hits_left = from_left & ~in_door & (after[:, 0] > WALL_CENTER - reach)
    hits_right = ~from_left & ~in_door & (after[:, 0] < WALL_CENTER + reach)
    after[hits_left, 0] = WALL_CENTER - reach - PUSH_BACK
    after[hits_right, 0] = WALL_CENTER + reach + PUSH_BACK
    return after


def reached(states: NDArray[Any], goals: NDArray[Any]) -> NDArray[np.bool_]:
    """Whether positions (..., 2) are closer than 16 px to ``goals`` (..., 2) -> (...)."""
    return np.linalg.norm(np.asarray(states, np.float64) - np.asarray(goals, np.float64), axis=-1) < REACHED


def heading(positions: Float32, goals: Float32) -> Float32:
    """Unit directions (N, 2): to the door's centre if the goal is in the other room and the door not yet
    near, else to the goal."""
    crosses = (positions[:, 0] > WALL_CENTER) != (goals[:, 0] > WALL_CENTER)
    away_from_door = np.linalg.norm(DOOR - positions, axis=1) > 1.5 * RADIUS
    target = np.where((crosses & away_from_door)[:, None], DOOR, goals)
    offset = target - positions
    distance = np.linalg.norm(offset, axis=1, keepdims=True)
    return np.divide(offset, distance, out=np.zeros_like(offset), where=distance > 1e-8)


def sample_episode(rng: np.random.Generator) -> tuple[State, State]:
    """A start and a goal in different rooms, (2,) each: uniform, clear of the wall, and at least
    `LEAST_STEPS` full steps apart by way of the door's centre."""
    while True:
        start, goal = rng.uniform(BORDER, SIZE - BORDER - 1, (2, 2)).astype(np.float32)
        clear = min(abs(start[0] - WALL_CENTER), abs(goal[0] - WALL_CENTER)) > WALL_HALF + RADIUS
        if not clear or (start[0] < WALL_CENTER) == (goal[0] < WALL_CENTER):
            continue
        if np.linalg.norm(start - DOOR) + np.linalg.norm(goal - DOOR) >= LEAST_STEPS * SPEED:
            return start.astype(np.float64), goal.astype(np.float64)


class Renderer:
    """Frames of agents at given positions, at any size.

    With profiles g_x, g_y of the dot (a = g_y g_x, peak 1), the 224 x 224 picture is, in units of white,

        red = white + a * black        green = blue = white * (1 - a) = white - (a - a * black)

    and the black part of the picture is a sum of three products of masks, sum_k Y_k X_k. Resampling is linear and
    separable, so each term is resampled by its 1-D factors: a * black -> sum_k (W (g_y Y_k)) (W (g_x X_k)). Farther
    than 26 px from its centre the dot is below half a grey level, so a frame is the empty picture with a small patch
    drawn over it.

    Args:
        image_size: side of the frames, in pixels. 224 is drawn as it is; other sizes are resampled with a triangle
            filter (which for smaller sizes widens with the scale: an antialiased picture).
    """

    def __init__(self, image_size: int) -> None:
        self.image_size = image_size
        self._scale = SIZE / image_size
        reach = 26.0 + max(self._scale, 1.0)
        self._patch = min(image_size, int(np.ceil(2 * reach / self._scale)) + 1)
        self._reach = reach
        x_masks, y_masks = _black_masks()
        weights = resampling_weights(SIZE, image_size)  # [size, 224]
        white = 1.0 - (y_masks @ weights.T).T @ (x_masks @ weights.T)
        self._white = (255.0 * np.clip(white, 0.0, 1.0) + 0.5).astype(np.float32)  # [size, size]
        self._empty = np.repeat(self._white.astype(np.uint8)[..., None], 3, axis=2)
        self._x_taps = _Taps(x_masks, weights)
        self._y_taps = _Taps(y_masks, weights)

    def render(self, positions: NDArray[Any], block: int = 256) -> Frame:
        """Frames (N, size, size, 3) uint8 RGB of agents at ``positions`` (N, 2)."""
        frames = np.empty((len(positions), self.image_size, self.image_size, 3), dtype=np.uint8)
        for first in range(0, len(positions), block):
            self._render_block(np.asarray(positions[first : first + block]), frames[first : first + block])
        return frames

    def _render_block(self, positions: NDArray[Any], out: Frame) -> None:
        left, x = self._profiles(positions[:, 0], self._x_taps)
        top, y = self._profiles(positions[:, 1], self._y_taps)
        on_black = y[..., :3] @ x[..., :3].transpose(0, 2, 1)  # [N, patch, patch], the dot where it is black
        dot = y[..., 3, None] * x[:, None, :, 3]
        white = np.empty_like(dot)
        regions = [
            (slice(t, t + self._patch), slice(c, c + self._patch)) for t, c in zip(top, left, strict=True)
        ]
        for n, region in enumerate(regions):
            white[n] = self._white[region]
        patch = np.empty((*white.shape, 3), dtype=np.uint8)
        patch[..., 0] = white + 255.0 * on_black
        patch[..., 1] = np.maximum(white - 255.0 * (dot - on_black), 0.0)
        patch[..., 2] = patch[..., 1]
        out[:] = self._empty
        for n, region in enumerate(regions):
            out[n][region] = patch[n]

    def _profiles(self, centers: NDArray[Any], taps: _Taps) -> tuple[NDArray[np.intp], Float32]:
        """First pixel (N,) that the dot touches along one axis, and its resampled profiles (N, patch, 4) from
        there."""
        first = np.floor((centers - self._reach) / self._scale).astype(np.intp)
        first = np.clip(first, 0, self.image_size - self._patch)
        return first, taps.profiles(centers, first[:, None] + np.arange(self._patch))


class _Taps:
    """Resampling of the dot's profile along one axis, alone and cut by three masks, for some of the pixels."""

    def __init__(self, masks: Float32, weights: Float32) -> None:
        count = int((weights > 0).sum(axis=1).max())
        start = np.minimum((weights > 0).argmax(axis=1), SIZE - count)
        sources = start[:, None] + np.arange(count)
        weight = np.take_along_axis(weights, sources, axis=1)
        factors = np.concatenate([masks, np.ones((1, SIZE), dtype=np.float32)])  # [4, 224]
        self._weights = np.ascontiguousarray(
            (weight * factors[:, sources]).transpose(1, 0, 2)
        )  # [size, 4, taps]
        self._sources = sources.astype(np.float32)  # [size, taps], pixels of the 224 x 224 picture

    def profiles(self, centers: NDArray[Any], pixels: NDArray[np.intp]) -> Float32:
        """exp(-(p - c)^2 / 2 std^2), scaled to 1 at the pixel nearest to c, times masks, resampled.

        ``centers`` c (N,) and output ``pixels`` (N, P) -> (N, P, 4): cut by the three masks, and whole.
        """
        center = np.asarray(centers, dtype=np.float32)[:, None, None]
        nearest = np.clip(np.rint(center), 0, SIZE - 1) - center
        distance = self._sources[pixels] - center  # [N, P, taps]
        dot = np.exp((nearest**2 - distance**2) / np.float32(2 * RADIUS**2))
        return np.einsum("npt,npkt->npk", dot, self._weights[pixels])


def _black_masks() -> tuple[Float32, Float32]:
    """x masks and y masks, (3, 224) each, whose products are disjoint and add up to the black part of the picture."""
    pixel = np.arange(SIZE)
    near, far = BORDER - BORDER_LINE, SIZE - BORDER
    line = ((pixel >= near) & (pixel < BORDER)) | ((pixel >= far) & (pixel < far + BORDER_LINE))
    wall = np.abs(pixel - WALL_CENTER) <= WALL_HALF
    door = np.abs(pixel - DOOR_CENTER) <= DOOR_HALF
    x_masks = np.stack([line, ~line, wall])  # border columns; border rows between them; the wall
    y_masks = np.stack([np.ones(SIZE, bool), line, ~door & ~line])
    return x_masks.astype(np.float32), y_masks.astype(np.float32)


def resampling_weights(source: int, target: int) -> Float32:
    """The triangle ("bilinear") filter of image libraries, widened by the scale when shrinking; (target, source)."""
    if source == target:
        return np.eye(source, dtype=np.float32)
    scale = source / target
    center = (np.arange(target) + 0.5) * scale
    distance = np.abs(np.arange(source)[None] + 0.5 - center[:, None]) / max(scale, 1.0)
    weights = np.maximum(1.0 - distance, 0.0)
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


class NoisyExpert:
    """The heuristic of ``heading`` with Gaussian noise of ``noise`` per component, clipped to the action space."""

    def __init__(self, noise: float = 2.0) -> None:
        self.noise = noise

    def reset(self, env: GoalEnv, rng: np.random.Generator) -> None:
        """See `lewm.envs.Policy.reset`."""
        self._rng = rng

    def act(self, env: GoalEnv) -> Float32:
        """See `lewm.envs.Policy.act`."""
        noise = self._rng.normal(0.0, self.noise, 2)
        return self.actions(env.get_state()[None], env.goal[None], noise[None])[0]

    def actions(self, states: NDArray[Any], goals: NDArray[Any], noise: NDArray[np.float64]) -> Float32:
        """Actions (N, 2) for N agents; ``noise`` (N, 2) is added before clipping."""
        direction = heading(states.astype(np.float32), goals.astype(np.float32))
        return np.clip(direction + noise, -1.0, 1.0).astype(np.float32)


class TwoRoomEnv(GoalEnv):
    """``lewm/TwoRoom-v0``. State: the agent's position (x, y), 2 numbers in pixels; action: (2,) in [-1, 1].

    See `lewm.envs.GoalEnv` for what environments have in common.
    """

    env_id: ClassVar[str] = "lewm/TwoRoom-v0"
    max_episode_steps: ClassVar[int] = 100
    perturbations: ClassVar[tuple[str, ...]] = ("colour", "teleport")
    records_in_batches: ClassVar[bool] = True
    state_columns: ClassVar[Mapping[str, int]] = {"state": 2}
    policies: ClassVar[Mapping[str, Callable[[], Policy]]] = {
        "noisy-expert": NoisyExpert,
        "expert": lambda: NoisyExpert(noise=0.0),
        "random": RandomPolicy,
    }

    def __init__(self, image_size: int = 224, render_mode: str | None = "rgb_array") -> None:
        super().__init__(image_size, render_mode)
        self.observation_space = gymnasium.spaces.Box(0.0, float(SIZE), (2,), np.float64)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
        self._renderer = Renderer(self.image_size)
        self._position = np.full((1, 2), SIZE / 4, dtype=np.float32)

    def get_state(self) -> State:
        """The position, (2,) float64."""
        return self._position[0].astype(np.float64)

    def set_state(self, state: NDArray[Any]) -> None:
        """Puts the agent at ``state`` (2,)."""
        self._position = self.check_state("state", state).astype(np.float32)[None]

    def _advance(self, action: Float32) -> None:
        self._position = move(self._position, action[None])

    def _render(self) -> Frame:
        frame = self._renderer.render(self._position)[0]
        return np.ascontiguousarray(frame[..., ::-1]) if self._recoloured else frame  # a blue dot

    def _teleported(self, rng: np.random.Generator) -> State:
        return sample_episode(rng)[0]

    def success(self, state: NDArray[Any], goal: NDArray[Any]) -> NDArray[np.bool_]:
        """Closer than 16 px; (..., 2) each -> (...)."""
        return reached(state, goal)

    def sample_episode(self, rng: np.random.Generator) -> tuple[State, State]:
        """A start and a goal in different rooms."""
        return sample_episode(rng)

    @classmethod
    def make_batch(cls, count: int, image_size: int = 224) -> TwoRoomBatch:
        """``count`` agents in arrays."""
        return TwoRoomBatch(count, image_size)

    @classmethod
    def record_episodes(
        cls, policy: str, rngs: Sequence[np.random.Generator], image_size: int = 224
    ) -> Iterator[dict[str, NDArray[Any]]]:
        """See `lewm.envs.GoalEnv.record_episodes`; all episodes are stepped together, with the same result."""
        actor = cls.make_policy(policy)
        if not isinstance(actor, NoisyExpert):
            yield from super().record_episodes(policy, rngs, image_size)
            return
        if not rngs:
            return
        states, actions, lengths = _roll_experts(actor, rngs, cls.max_episode_steps)
        renderer = Renderer(image_size)
        for state, action, length in zip(states, actions, lengths, strict=True):
            action[length - 1] = np.nan
            pixels = renderer.render(state[:length])
            yield {"pixels": pixels, "action": action[:length], "state": state[:length].astype(np.float64)}


def _roll_experts(
    expert: NoisyExpert, rngs: Sequence[np.random.Generator], max_steps: int
) -> tuple[Float32, Float32, NDArray[np.intp]]:
    """States (E, steps + 1, 2), actions (E, steps + 1, 2) and the rows used of each episode (E,)."""
    starts, goals, noise = [], [], []
    for rng in rngs:
        start, goal = sample_episode(rng)
        starts.append(start)
        goals.append(goal)
        noise.append(rng.normal(0.0, expert.noise, (max_steps, 2)))  # what act() draws step by step
    goal_array, noise_array = np.asarray(goals), np.asarray(noise)
    states = np.empty((len(rngs), max_steps + 1, 2), dtype=np.float32)
    actions = np.empty_like(states)
    states[:, 0] = starts
    lengths = np.full(len(rngs), max_steps + 1)
    for step in range(max_steps):
        actions[:, step] = expert.actions(states[:, step], goal_array, noise_array[:, step])
        states[:, step + 1] = move(states[:, step], actions[:, step])
        done = reached(states[:, step + 1], goal_array)
        lengths = np.where(done, np.minimum(lengths, step + 2), lengths)
    return states, actions, lengths


class TwoRoomBatch:
    """N agents that are stepped and rendered together; see `lewm.envs.EnvBatch`."""

    def __init__(self, count: int, image_size: int = 224) -> None:
        if count < 1:
            raise ValueError(f"count: expected at least 1, got {count}")
        self.count = count
        self.image_size = image_size
        self._renderer = Renderer(image_size)
        self._positions = np.full((count, 2), SIZE / 4, dtype=np.float32)

    def set_states(self, states: NDArray[Any]) -> None:
        """See `lewm.envs.EnvBatch.set_states`."""
        array = np.array(states, dtype=np.float32)
        if array.shape != (self.count, 2):
            raise ValueError(f"states: expected ({self.count}, 2), got {array.shape}")
        if not np.isfinite(array).all():
            raise ValueError("states: expected finite numbers, got NaN or infinity")
        self._positions = array

    def get_states(self) -> NDArray[np.float64]:
        """See `lewm.envs.EnvBatch.get_states`."""
        return self._positions.astype(np.float64)

    def step(self, actions: NDArray[Any], rows: NDArray[np.intp] | None = None) -> None:
        """See `lewm.envs.EnvBatch.step`."""
        selected = rows_for(rows, self.count)
        self._positions[selected] = move(self._positions[selected], np.asarray(actions, dtype=np.float32))

    def render(self, rows: NDArray[np.intp] | None = None) -> Frame:
        """See `lewm.envs.EnvBatch.render`."""
        return self._renderer.render(self._positions[rows_for(rows, self.count)])

    def close(self) -> None:
        """Nothing to free."""
