"""Data policies of Push-T: random actions near the block, and a pusher that reaches goals."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lewm.envs.base import GoalEnv, Policy
from lewm.envs.push_t_physics import (
    ACTION_SCALE,
    AGENT_RADIUS,
    BLOCK_CENTROID,
    BLOCK_PARTS,
    WALL_HIGH,
    WALL_LOW,
    PushTWorld,
    block_distance,
    rotation,
)

__all__ = ["MixedPolicy", "NearBlockPolicy", "PusherPolicy"]

_REACH = 100.0  # px: near_block's targets lie in a square this far around the block


class NearBlockPolicy:
    """Uniform actions whose targets are moved into a square of +-100 px around the block: the published policy."""

    def reset(self, env: GoalEnv, rng: np.random.Generator) -> None:
        """See `Policy.reset`."""
        self._rng = rng

    def act(self, env: GoalEnv) -> NDArray[np.float32]:
        """See `Policy.act`."""
        state = env.get_state()
        agent, block = state[:2], state[2:4]
        target = agent + self._rng.uniform(-1.0, 1.0, 2) * ACTION_SCALE
        target = np.clip(target, block - _REACH, block + _REACH)
        return np.clip((target - agent) / ACTION_SCALE, -1.0, 1.0).astype(np.float32)


@dataclass(frozen=True)
class _Push:
    """Start at ``start`` (x, y) px and send ``action`` (2,) ``steps`` times."""

    start: NDArray[np.float64]
    action: NDArray[np.float32]
    steps: int


class PusherPolicy:
    """Pushes the block into the goal's pose, then walks to the goal's agent position.

    It picks points on the block's edge, simulates a push from each along the inward direction, walks around the block
    to the start of the one that brings the block closest to the goal, pushes, and chooses anew. Actions carry some
    noise, so that the data covers more than the shortest ways.
    """

    noise = 0.05  # standard deviation, in units of action

    _CANDIDATES = 20
    _PUSH_ACTION = 0.4  # length of a push's action; about 16 px a step once it moves
    _PUSH_STEPS = 8
    _CLEARANCE = 8.0  # px between agent and block where a push starts
    _TURN_WEIGHT = 45.0  # px of position error that one radian counts as
    _SOLVED = 8.0  # px: pose error below which the block is left alone

    def reset(self, env: GoalEnv, rng: np.random.Generator) -> None:
        """See `Policy.reset`."""
        self._rng = rng
        self._push: _Push | None = None
        self._pushed = 0

    def act(self, env: GoalEnv) -> NDArray[np.float32]:
        """See `Policy.act`."""
        state, goal = env.get_state(), env.goal
        action = self._intend(state, goal) + self._rng.normal(0.0, self.noise, 2)
        return np.clip(action, -1.0, 1.0).astype(np.float32)

    def _intend(self, state: NDArray[np.float64], goal: NDArray[np.float64]) -> NDArray[Any]:
        if self._push is None:
            if self._pose_error(state[2:5], goal[2:5]) < self._SOLVED:
                return _walk(state, goal[:2])
            self._push = self._choose(state, goal)
            self._pushed = 0
        if self._pushed == 0 and np.linalg.norm(self._push.start - state[:2]) > self._CLEARANCE:
            return _walk(state, self._push.start)
        self._pushed += 1
        action = self._push.action
        if self._pushed >= self._push.steps:
            self._push = None
        return action

    def _choose(self, state: NDArray[np.float64], goal: NDArray[np.float64]) -> _Push:
        """The simulated push that ends closest to the goal, walking distance and duration counted a little."""
        best, best_cost = None, math.inf
        for start, direction in self._edge_points(state[2:5]):
            action = (self._PUSH_ACTION * direction).astype(np.float32)
            world = PushTWorld(np.concatenate([start, state[2:5], np.zeros(5)]))
            effort = 0.01 * float(np.linalg.norm(start - state[:2]))
            for step in range(1, self._PUSH_STEPS + 1):
                world.advance(action)
                cost = self._pose_error(world.state[2:5], goal[2:5]) + 0.2 * step + effort
                if cost < best_cost:
                    best, best_cost = _Push(start, action, step), cost
        assert best is not None  # there is at least one candidate and its costs are finite
        return best

    def _edge_points(
        self, pose: NDArray[np.float64]
    ) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
        """Starts (2,) beside the block and unit push directions (2,); those within the walls if there are any."""
        turn = rotation(float(pose[2]))
        points = []
        for _ in range(self._CANDIDATES):
            local, normal = _random_edge_point(self._rng)
            start = turn @ (local + normal * (AGENT_RADIUS + self._CLEARANCE)) + pose[:2]
            tilt = rotation(self._rng.uniform(-0.4, 0.4))
            points.append((start, tilt @ turn @ -normal))
        free = [
            (start, direction)
            for start, direction in points
            if start.min() > WALL_LOW + AGENT_RADIUS
            and start.max() < WALL_HIGH - AGENT_RADIUS
            and block_distance(start[None], pose)[0] > AGENT_RADIUS
        ]
        return free or points

    def _pose_error(self, pose: NDArray[np.float64], goal: NDArray[np.float64]) -> float:
        """Distance of the block's centroids in px, plus the angle between the poses in radians * `_TURN_WEIGHT`."""
        turn = (pose[2] - goal[2] + math.pi) % (2 * math.pi) - math.pi
        return float(np.linalg.norm(_centroid(pose) - _centroid(goal))) + self._TURN_WEIGHT * abs(turn)


class MixedPolicy:
    """Each episode draws one of the others: near_block or pusher, with equal chances."""

    def reset(self, env: GoalEnv, rng: np.random.Generator) -> None:
        """See `Policy.reset`."""
        self._policy: Policy = NearBlockPolicy() if rng.random() < 0.5 else PusherPolicy()
        self._policy.reset(env, rng)

    def act(self, env: GoalEnv) -> NDArray[np.float32]:
        """See `Policy.act`."""
        return self._policy.act(env)


def _random_edge_point(rng: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """A point on the T's outline and the outward normal there, both (2,) in the block's frame."""
    while True:
        x_low, y_low, x_high, y_high = BLOCK_PARTS[rng.integers(len(BLOCK_PARTS))]
        side = rng.integers(4)
        along = rng.uniform()
        x, y = x_low + along * (x_high - x_low), y_low + along * (y_high - y_low)
        point = np.array([(x, y_low), (x, y_high), (x_low, y), (x_high, y)][side])
        normal = np.array([(0.0, -1.0), (0.0, 1.0), (-1.0, 0.0), (1.0, 0.0)][side])
        outside = block_distance((point + normal)[None], np.zeros(3))[0]
        if outside > 0:  # otherwise the two parts touch here
            return point, normal


def _centroid(pose: NDArray[np.float64]) -> NDArray[np.float64]:
    return pose[:2] + rotation(float(pose[2])) @ np.array(BLOCK_CENTROID)


_AROUND = 105.0  # px, radius of the circle about the block's centroid on which the agent passes it
_BEARINGS = np.arange(24) * (2 * math.pi / 24)
_TOUCH = AGENT_RADIUS + 2.0  # px, distance to the block that a way keeps


def _walk(state: NDArray[np.float64], target: NDArray[np.float64]) -> NDArray[np.float64]:
    """The action (2,) of a step towards ``target`` that does not run into the block."""
    return _towards(state, _waypoint(state, target))


def _waypoint(state: NDArray[np.float64], target: NDArray[np.float64]) -> NDArray[np.float64]:
    """``target`` if the straight way is free, else the best point on the circle around the block that is in reach."""
    agent, pose = state[:2], state[2:5]
    centre = _centroid(pose)
    circle = centre + _AROUND * np.stack([np.cos(_BEARINGS), np.sin(_BEARINGS)], axis=1)
    ends = np.concatenate([target[None], circle])  # (25, 2)
    share = np.linspace(0.0, 1.0, 16)[:, None, None]
    ways = agent + share * (ends - agent)  # (16, 25, 2)
    # Where the way begins or ends closer to the block than it should, it may be that close all along.
    room = min(_TOUCH, *block_distance(np.stack([agent, target]), pose).tolist()) - 0.5
    free = (block_distance(ways.reshape(-1, 2), pose).reshape(ways.shape[:2]) > room).all(axis=0)
    if free[0] or not free.any():
        return target
    cost = np.linalg.norm(circle - agent, axis=1) + _way_round(circle, centre, target)
    cost[~free[1:]] = math.inf
    return circle[int(np.argmin(cost))]


def _way_round(
    circle: NDArray[np.float64], centre: NDArray[np.float64], target: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Way (24,) along the circle from each point to the target's bearing in px; beyond walls it counts fourfold."""
    beyond_wall = (circle.min(axis=1) < WALL_LOW) | (circle.max(axis=1) > WALL_HIGH)
    length = _AROUND * (2 * math.pi / len(circle)) * np.where(beyond_wall, 4.0, 1.0)
    bearing = math.atan2(*(target - centre)[::-1])
    goal = round(bearing / (2 * math.pi) * len(circle)) % len(circle)
    length = np.roll(length, -goal)  # the target's bearing comes first
    back = np.cumsum(length) - length
    onward = length.sum() - np.cumsum(length) + length[0]
    return np.roll(np.minimum(back, onward), goal)


def _towards(state: NDArray[np.float64], point: NDArray[np.float64]) -> NDArray[np.float64]:
    """The action that brings the agent's position control two thirds of the way to ``point`` in one step."""
    # Critically damped control at 10 rad/s for 0.1 s: dx = (1 - 2/e) * offset + (0.1/e) * velocity.
    coast = 0.1 / math.e * state[5:7]
    offset = (2 / 3) * (point - state[:2] - coast) / (1 - 2 / math.e)
    action = offset / ACTION_SCALE
    return action / max(1.0, float(np.abs(action).max()))
