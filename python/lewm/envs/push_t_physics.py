"""Push-T's physics: a T-shaped block that a round agent pushes over a table without memory of speed.

The arena is 512 x 512 px, x to the right and y down, with walls 4 px thick whose centre lines lie at 5 and 506 px.
The agent is a disc of radius 15 px that follows commands whatever stands in its way (a kinematic body, which also
walks through walls). The block is two rectangles, in its own frame with the origin at the middle of the bar's outer
edge: the bar, 120 x 30 px, and the stem, 30 x 90 px, below it. Nothing has friction, and the space damps every
velocity to zero in each physics step, so the block moves only while it is pushed.

These are the numbers of the Push-T environment of Chi et al. (Diffusion Policy, arXiv 2303.04137) as the
published LeWM stack has them, the block's centre of gravity and moment of inertia included.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pymunk
from numpy.typing import NDArray

__all__ = [
    "ACTION_SCALE",
    "AGENT_RADIUS",
    "ARENA",
    "BLOCK_CENTROID",
    "BLOCK_PARTS",
    "STATE_DIM",
    "WALL_HIGH",
    "WALL_LOW",
    "WALL_RADIUS",
    "PushTWorld",
    "block_corners",
    "block_distance",
    "rotation",
]

ARENA = 512.0  # px, side of the arena
WALL_LOW, WALL_HIGH = 5.0, 506.0  # px, centre lines of the walls
WALL_RADIUS = 2.0  # px, half the walls' thickness
AGENT_RADIUS = 15.0  # px
ACTION_SCALE = 100.0  # px of target offset per unit of action
STATE_DIM = 10

# The block's rectangles in its own frame, px: (x low, y low, x high, y high).
BLOCK_PARTS = ((-60.0, 0.0, 60.0, 30.0), (-15.0, 30.0, 15.0, 120.0))
# Mean of the two rectangles' centres, which is where the published block balances.
BLOCK_CENTROID = (0.0, 45.0)

_PROPORTIONAL, _DERIVATIVE = 100.0, 20.0  # 1/s^2 and 1/s, gains of the agent's position control
_PHYSICS_STEP = 0.01  # s
_PHYSICS_STEPS = 10  # physics steps per control step
_MASS = 1.0


class PushTWorld:
    """A table with agent and block that starts in ``state`` (10,) and moves by `advance`.

    A state is agent xy (px), block xy (px, the origin of the block's frame), block angle (rad), agent velocity xy,
    block velocity xy (px/s), block angular velocity (rad/s). The first seven are the published layout; the last
    three matter for one physics step only. The solver starts each physics step from the contact impulses of the one
    before, which a state does not hold: a new world's contacts start cold.
    """

    def __init__(self, state: NDArray[np.float64]) -> None:
        x, y, block_x, block_y, angle, vx, vy, block_vx, block_vy, spin = map(float, state)
        self._space = pymunk.Space()
        self._space.gravity = (0.0, 0.0)
        self._space.damping = 0.0
        low, high = WALL_LOW, WALL_HIGH
        ring = [(low, high), (low, low), (high, low), (high, high), (low, high)]
        for start, end in pairwise(ring):
            self._space.add(pymunk.Segment(self._space.static_body, start, end, WALL_RADIUS))

        self._agent = pymunk.Body(body_type=pymunk.Body.KINEMATIC)
        self._agent.position = (x, y)
        self._agent.velocity = (vx, vy)
        self._space.add(self._agent, pymunk.Circle(self._agent, AGENT_RADIUS))

        bar, stem = (_corners(part) for part in BLOCK_PARTS)
        # The published block takes the bar's moment twice, once in place of the stem's.
        self._block = pymunk.Body(_MASS, 2 * pymunk.moment_for_poly(_MASS, bar))
        self._block.center_of_gravity = BLOCK_CENTROID
        self._block.angle = angle  # before the position: turning is about the centre of gravity
        self._block.position = (block_x, block_y)
        self._block.velocity = (block_vx, block_vy)
        self._block.angular_velocity = spin
        self._space.add(self._block, pymunk.Poly(self._block, bar), pymunk.Poly(self._block, stem))

    @property
    def state(self) -> NDArray[np.float64]:
        """The present state, (10,) float64, with the angle in [0, 2 pi)."""
        agent, block = self._agent, self._block
        return np.array(
            [
                *agent.position,
                *block.position,
                block.angle % (2 * math.pi),
                *agent.velocity,
                *block.velocity,
                block.angular_velocity,
            ]
        )

    def advance(self, action: NDArray[Any]) -> None:
        """One control step of 0.1 s towards the target that lies ``action`` (2,) * 100 px from the agent."""
        agent = self._agent
        x, y = agent.position
        target_x = x + float(action[0]) * ACTION_SCALE
        target_y = y + float(action[1]) * ACTION_SCALE
        for _ in range(_PHYSICS_STEPS):
            x, y = agent.position
            vx, vy = agent.velocity
            agent.velocity = (
                vx + (_PROPORTIONAL * (target_x - x) - _DERIVATIVE * vx) * _PHYSICS_STEP,
                vy + (_PROPORTIONAL * (target_y - y) - _DERIVATIVE * vy) * _PHYSICS_STEP,
            )
            self._space.step(_PHYSICS_STEP)


def rotation(angle: float) -> NDArray[np.float64]:
    """The matrix (2, 2) that turns the block's frame into the arena's."""
    cos, sin = math.cos(angle), math.sin(angle)
    return np.array([[cos, -sin], [sin, cos]])


def block_corners(pose: NDArray[np.float64]) -> NDArray[np.float64]:
    """Corners (2 parts, 4, 2) in px of the block at ``pose`` (x, y, angle), going around each part."""
    local = np.array([_corners(part) for part in BLOCK_PARTS])
    return local @ rotation(float(pose[2])).T + pose[:2]


def block_distance(points: NDArray[np.float64], pose: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distance in px of each of ``points`` (n, 2) to the block at ``pose`` (x, y, angle): (n,), negative inside."""
    local = (points - pose[:2]) @ rotation(float(pose[2]))
    distances = []
    for x_low, y_low, x_high, y_high in BLOCK_PARTS:
        centre = np.array([x_low + x_high, y_low + y_high]) / 2
        half = np.array([x_high - x_low, y_high - y_low]) / 2
        outside = np.abs(local - centre) - half
        distances.append(
            np.linalg.norm(np.maximum(outside, 0.0), axis=-1) + np.minimum(outside.max(axis=-1), 0.0)
        )
    return np.minimum(*distances)


def _corners(part: tuple[float, float, float, float]) -> list[tuple[float, float]]:
    x_low, y_low, x_high, y_high = part
    return [(x_low, y_high), (x_high, y_high), (x_high, y_low), (x_low, y_low)]
