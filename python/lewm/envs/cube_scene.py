"""OGBench's single-cube scene, built and compiled once per process.

OGBench keeps scene, controller and simulator state in one object, which takes seconds to make. Here that object is
shared, and every environment brings its own ``MjData``, which `simulation` puts in before anything is computed.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lewm.envs.mujoco_rendering import FrameRenderer, gl_backend
from lewm.errors import Error

__all__ = ["CAMERA", "CUBE_BODY", "renderer", "simulation"]

CAMERA = "front_pixels"
CUBE_BODY = "object_0"  # its name in OGBench's model
_ARM_COLOUR = (0.61, 0.28, 0.82)  # of the gripper in the published pictures
_FLOOR_COLOURS = ((0.08, 0.11, 0.16), (0.15, 0.18, 0.25))
_DETAIL_AT_64 = 0.006  # m: coarseness of the meshes in fast pictures of 64 px; finer in larger ones


def simulation(data: Any = None) -> Any:
    """OGBench's environment of this process, computing on ``data`` (``mujoco.MjData`` of its model) from now on.

    Raises:
        ModuleNotFoundError: ogbench or dm_control is not installed.
    """
    scene = _scene()
    if data is not None:
        scene._data = data
    return scene


@functools.cache
def _scene() -> Any:
    with contextlib.suppress(Error):  # simulating needs no pictures; drawing says what is missing
        gl_backend()  # before OGBench's imports choose for themselves
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # GLFW's, that there is no display
            from ogbench.manipspace.envs.cube_env import CubeEnv
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"lewm/Cube-v0 needs {error.name}: pip install 'lewm[envs]'", name=error.name
        ) from error

    class PublishedLook(CubeEnv):  # type: ignore[misc]
        """The cube scene in the colours of the published LeWM data."""

        def modify_mjcf_model(self, mjcf_model: Any) -> Any:
            grid = mjcf_model.find("texture", "grid")
            grid.rgb1, grid.rgb2 = _FLOOR_COLOURS
            for part in ("black", "pad_gray"):
                mjcf_model.find("material", f"ur5e/robotiq/{part}").rgba[:3] = _ARM_COLOUR
            return mjcf_model

    scene = PublishedLook(
        "single", ob_type="states", mode="data_collection", visualize_info=False, terminate_at_goal=False
    )
    scene.reset(seed=0)
    return scene


@functools.cache
def renderer(image_size: int, published: bool) -> FrameRenderer:
    """One renderer of a kind for all environments of a process."""
    model = copy.copy(simulation().model)
    # OpenGL knows no spot of 100 degrees; MuJoCo's call fails and leaves the light as it is, which is 180.
    model.light_cutoff[model.light_cutoff > 90] = 180
    if published:
        return FrameRenderer(model, CAMERA, image_size)
    _coarsen_meshes(model, _DETAIL_AT_64 * 64 / image_size)
    return FrameRenderer(
        model, CAMERA, image_size, multisamples=0, supersample=2, shadows=False, reflections=False
    )


def _coarsen_meshes(model: Any, cell: float) -> None:
    """Merges the vertices of each mesh that fall into one cell of a grid (``cell`` in m), in place.

    The arm has 190,000 triangles, which is most of a small picture's cost when a processor draws it. Merged vertices
    are represented by one of them, so that faces can be rewritten within the compiled model.
    """
    for mesh in range(model.nmesh):
        vertices = slice(model.mesh_vertadr[mesh], model.mesh_vertadr[mesh] + model.mesh_vertnum[mesh])
        first = model.mesh_faceadr[mesh]
        faces = slice(first, first + model.mesh_facenum[mesh])
        merged, kept = _merge_vertices(model.mesh_vert[vertices], model.mesh_face[faces], cell)
        if len(kept) == 0:
            continue  # smaller than a cell: leave it
        normals = model.mesh_facenormal[faces][kept]
        model.mesh_face[first : first + len(kept)] = merged[kept]
        model.mesh_facenormal[first : first + len(kept)] = normals
        model.mesh_facenum[mesh] = len(kept)


def _merge_vertices(
    vertices: NDArray[np.float32], faces: NDArray[np.int32], cell: float
) -> tuple[NDArray[np.int32], NDArray[np.intp]]:
    """Faces (F, 3) with each vertex replaced by the first of its cell, and the indices of those worth drawing."""
    cells = np.round(vertices / cell).astype(np.int64)
    _, first, inverse = np.unique(cells, axis=0, return_index=True, return_inverse=True)
    merged = first[inverse.reshape(-1)][faces].astype(np.int32)
    a, b, c = merged.T
    proper = np.flatnonzero((a != b) & (b != c) & (a != c))
    _, unique = np.unique(np.sort(merged[proper], axis=1), axis=0, return_index=True)
    return merged, proper[unique]
