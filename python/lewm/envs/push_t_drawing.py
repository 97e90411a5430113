"""Push-T as pictures, drawn with numpy alone.

The published pictures are drawn on a 512 x 512 canvas without antialiasing and shrunk to 224 x 224 with bilinear
interpolation, which reads four canvas pixels for each output pixel. `PushTPainter` computes just those canvas pixels.
Frames of up to 128 px average the canvas over each output pixel instead, because bilinear interpolation would drop the
4 px outlines between its samples.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lewm.envs.push_t_physics import (
    AGENT_RADIUS,
    ARENA,
    WALL_HIGH,
    WALL_LOW,
    WALL_RADIUS,
    block_corners,
)

__all__ = ["COLOURS", "TARGET_POSE", "PushTPainter"]

COLOURS = {
    "background": (255, 255, 255),
    "wall": (211, 211, 211),
    "target": (144, 238, 144),
    "block": (119, 136, 153),
    "agent": (65, 105, 225),
}
TARGET_POSE = (256.0, 256.0, math.pi / 4)  # px, px, rad: where the green T is painted on the table

_AREA_UP_TO = 128  # px: frames this small average over each pixel's area
_AREA_SAMPLES = 256  # samples across the canvas that an averaged frame has at least
_OUTLINE = 2.0  # px, half the thickness of the block's outline
_AGENT_RIM = 4.0  # px, width of the agent's darker rim


class PushTPainter:
    """Draws Push-T states as square frames.

    Args:
        image_size: side of the frames, in pixels.
        draw_target: whether the green T is painted on the table.
        colours: RGB values that replace entries of `COLOURS`.
    """

    def __init__(
        self,
        image_size: int,
        draw_target: bool = True,
        colours: dict[str, tuple[int, int, int]] | None = None,
    ) -> None:
        unknown = sorted(set(colours or {}) - set(COLOURS))
        if unknown:
            raise ValueError(f"colours: expected some of {sorted(COLOURS)}, got {unknown[0]!r}")
        self._colours = {name: np.array(rgb) for name, rgb in {**COLOURS, **(colours or {})}.items()}
        self._size = image_size
        self._at, self._weights = _samples(image_size)  # (size, k) canvas coordinates, (size, k)
        self._per_pixel = self._at.shape[1]
        self._axis = self._at.reshape(-1)
        canvas = self._empty_table(draw_target)
        self._table = canvas
        self._table_frame = self._shrink(canvas, slice(0, image_size), slice(0, image_size))

    def draw(self, agent: NDArray[Any], pose: NDArray[Any]) -> NDArray[np.uint8]:
        """The frame (size, size, 3) with the agent at ``agent`` (x, y) and the block at ``pose`` (x, y, angle)."""
        canvas = self._table.copy()
        frame = self._table_frame.copy()
        corners = np.round(block_corners(np.asarray(pose, dtype=np.float64)))
        dirty = [self._window(corners.min(axis=(0, 1)) - 3, corners.max(axis=(0, 1)) + 3)]
        for part in corners:
            self._paint_part(canvas, part)
        centre = np.round(np.asarray(agent, dtype=np.float64))
        dirty.append(self._window(centre - AGENT_RADIUS - 1, centre + AGENT_RADIUS + 1))
        self._paint_agent(canvas, centre)
        for rows, columns in dirty:
            frame[rows, columns] = self._shrink(canvas, rows, columns)
        return frame

    def _empty_table(self, draw_target: bool) -> NDArray[np.uint8]:
        count = self._axis.size
        canvas = np.empty((count, count, 3), np.uint8)
        canvas[:] = self._colours["background"]
        if draw_target:
            for part in np.round(block_corners(np.array(TARGET_POSE))):
                canvas[self._outside(part, self._axis, self._axis) <= 0.5] = self._colours["target"]
        on_line = [np.abs(self._axis - line) <= WALL_RADIUS for line in (WALL_LOW, WALL_HIGH)]
        within = (self._axis >= WALL_LOW - WALL_RADIUS) & (self._axis <= WALL_HIGH + WALL_RADIUS)
        wall = np.logical_or(*on_line) & within
        canvas[wall[:, None] & within] = self._colours["wall"]
        canvas[within[:, None] & wall] = self._colours["wall"]
        return canvas

    def _paint_part(self, canvas: NDArray[np.uint8], corners: NDArray[np.float64]) -> None:
        """Fills one rectangle with a lighter shade and draws its outline over the edge."""
        rows, columns = self._canvas_window(corners.min(axis=0) - 3, corners.max(axis=0) + 3)
        patch = canvas[rows, columns]
        outside = self._outside(corners, self._axis[rows], self._axis[columns])
        patch[outside <= _OUTLINE] = self._colours["block"]
        patch[outside < -_OUTLINE] = _lighter(self._colours["block"])

    def _paint_agent(self, canvas: NDArray[np.uint8], centre: NDArray[Any]) -> None:
        rows, columns = self._canvas_window(centre - AGENT_RADIUS - 1, centre + AGENT_RADIUS + 1)
        patch = canvas[rows, columns]
        # A disc of radius r covers 2r canvas pixels, so its middle lies half a pixel before the centre's pixel.
        squared = (self._axis[rows, None] - centre[1] + 0.5) ** 2 + (
            self._axis[columns] - centre[0] + 0.5
        ) ** 2
        patch[squared <= AGENT_RADIUS**2] = self._colours["agent"]
        patch[squared <= (AGENT_RADIUS - _AGENT_RIM) ** 2] = _lighter(self._colours["agent"])

    @staticmethod
    def _outside(
        corners: NDArray[np.float64], ys: NDArray[np.float64], xs: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """How far canvas points (len(ys), len(xs)) lie beyond the nearest edge of a convex polygon; negative inside."""
        centre = corners.mean(axis=0)
        result = np.full((len(ys), len(xs)), -np.inf)
        for start, end in zip(corners, np.roll(corners, -1, axis=0), strict=True):
            edge = (end - start) / np.linalg.norm(end - start)
            normal = np.array([edge[1], -edge[0]])
            if normal @ (centre - start) > 0:
                normal = -normal
            np.maximum(
                result, ((ys - start[1]) * normal[1])[:, None] + (xs - start[0]) * normal[0], out=result
            )
        return result

    def _window(self, low: NDArray[Any], high: NDArray[Any]) -> tuple[slice, slice]:
        """Rows and columns of the frame whose pixels may show canvas points between ``low`` and ``high`` (x, y)."""
        scale = self._size / ARENA
        first = np.clip(np.floor(low * scale).astype(int) - 1, 0, self._size)
        last = np.clip(np.ceil(high * scale).astype(int) + 2, 0, self._size)
        return slice(first[1], last[1]), slice(first[0], last[0])

    def _canvas_window(self, low: NDArray[Any], high: NDArray[Any]) -> tuple[slice, slice]:
        """The same window, counted in samples."""
        rows, columns = self._window(low, high)
        k = self._per_pixel
        return slice(rows.start * k, rows.stop * k), slice(columns.start * k, columns.stop * k)

    def _shrink(self, canvas: NDArray[np.uint8], rows: slice, columns: slice) -> NDArray[np.uint8]:
        """The frame's pixels in a window, as weighted means of their samples."""
        k = self._per_pixel
        patch = canvas[rows.start * k : rows.stop * k, columns.start * k : columns.stop * k].astype(
            np.float32
        )
        height, width = rows.stop - rows.start, columns.stop - columns.start
        patch = (patch.reshape(height, k, width * k, 3) * self._weights[rows, :, None, None]).sum(axis=1)
        patch = (patch.reshape(height, width, k, 3) * self._weights[None, columns, :, None]).sum(axis=2)
        return np.rint(patch).astype(np.uint8)


def _samples(size: int) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """Canvas coordinates (size, k) that each row or column of a frame reads, and their weights (size, k)."""
    scale = ARENA / size
    pixel = np.arange(size)[:, None]
    if size <= _AREA_UP_TO:
        k = math.ceil(_AREA_SAMPLES / size)
        at = (pixel + (np.arange(k) + 0.5) / k) * scale - 0.5
        return at, np.full((size, k), 1 / k, np.float32)
    middle = (pixel + 0.5) * scale - 0.5
    first = np.floor(middle)
    fraction = (middle - first).astype(np.float32)
    at = np.clip(first + np.array([0.0, 1.0]), 0, ARENA - 1)
    return at, np.concatenate([1 - fraction, fraction], axis=1)


def _lighter(colour: NDArray[Any]) -> NDArray[np.uint8]:
    return np.minimum(1.2 * colour, 255).astype(np.uint8)
