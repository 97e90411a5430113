"""Pictures of MuJoCo scenes without a display.

MuJoCo draws through OpenGL, which needs a context. On Linux that is EGL (a GPU, or Mesa's software renderer) or else
OSMesa; `gl_backend` finds out which of them works here before anything is drawn, unless ``MUJOCO_GL`` names one.

A process has one context, and every `FrameRenderer` selects its own frame buffer in it before it draws: the
second of two ``mujoco.Renderer`` objects may otherwise read the first one's pictures. With EGL, a context that another
package had made current is current again afterwards.
"""

from __future__ import annotations

import atexit
import contextlib
import copy
import ctypes
import ctypes.util
import functools
import importlib
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lewm.errors import Error

__all__ = ["FrameRenderer", "gl_backend"]

_CONTEXT_MODULES = {
    "egl": "mujoco.egl",
    "osmesa": "mujoco.osmesa",
    "glfw": "mujoco.glfw",
    "wgl": "mujoco.glfw",
    "cgl": "mujoco.cgl",
}
_INSTALL_HINT = (
    "install EGL and Mesa's software renderer (Debian and Ubuntu: apt-get install libegl1 libgl1 libgl1-mesa-dri) "
    "or the slower OSMesa (apt-get install libosmesa6)"
)
_EGL_PLATFORM_DEVICE = 0x313F


@functools.cache
def gl_backend() -> str:
    """How MuJoCo draws in this process: "egl", "osmesa", "glfw", "wgl" or "cgl".

    ``MUJOCO_GL`` decides if it is set; else it is set to what works, so that other MuJoCo packages follow.

    Raises:
        lewm.Error: nothing works, with what to install; or ``MUJOCO_GL`` has a value that cannot draw.
    """
    wanted = os.environ.get("MUJOCO_GL", "").lower().strip()
    if wanted and wanted not in _CONTEXT_MODULES:
        raise Error(
            f"MUJOCO_GL: expected one of {', '.join(sorted(_CONTEXT_MODULES))} to draw, got {wanted!r}"
        )
    _load_triton_first()
    if wanted:
        return wanted
    if sys.platform == "darwin":
        found = "cgl"
    elif sys.platform == "win32":
        found = "wgl"
    elif _egl_has_device():
        found = "egl"
    elif ctypes.util.find_library("OSMesa"):
        found = "osmesa"
    elif os.environ.get("DISPLAY"):
        found = "glfw"
    else:
        raise Error(f"MuJoCo cannot draw here: neither EGL nor OSMesa works; {_INSTALL_HINT}")
    os.environ["MUJOCO_GL"] = found
    return found


def _load_triton_first() -> None:
    """Imports triton, where it is installed, before OpenGL.

    Mesa's software renderer brings LLVM as a shared library and triton (with a CUDA build of torch) brings its own;
    the process crashes where triton is loaded second, as torch does at its first optimizer.
    """
    with contextlib.suppress(ImportError):
        importlib.import_module("triton")


def _egl_has_device() -> bool:
    """Whether some EGL device can be opened; asked through ctypes, as PyOpenGL cannot be loaded a second time."""
    try:
        egl = ctypes.CDLL(ctypes.util.find_library("EGL") or "libEGL.so.1")
    except OSError:
        return False
    egl.eglGetProcAddress.restype = ctypes.c_void_p
    query = egl.eglGetProcAddress(b"eglQueryDevicesEXT")
    get_display = egl.eglGetProcAddress(b"eglGetPlatformDisplayEXT")
    if not query or not get_display:
        return False
    query_devices = ctypes.CFUNCTYPE(
        ctypes.c_uint, ctypes.c_int, ctypes.POINTER(ctypes.c_void_p), ctypes.POINTER(ctypes.c_int)
    )(query)
    platform_display = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)(
        get_display
    )
    devices, count = (ctypes.c_void_p * 32)(), ctypes.c_int(0)
    if not query_devices(32, devices, ctypes.byref(count)):
        return False
    egl.eglInitialize.argtypes = [ctypes.c_void_p] * 3
    return any(
        (display := platform_display(_EGL_PLATFORM_DEVICE, device, None))
        and egl.eglInitialize(display, None, None)
        for device in devices[: count.value]
    )


def _context_module(backend: str) -> Any:
    try:
        return importlib.import_module(_CONTEXT_MODULES[backend])
    except Exception as error:  # libraries that are missing show as errors of any kind
        raise _cannot_draw(backend, error) from error


@functools.cache
def _gl_context() -> tuple[Any, int]:
    """The OpenGL context of this process, and the process's number."""
    backend = gl_backend()
    module = _context_module(backend)
    try:
        context = module.GLContext(64, 64)
        context.make_current()
    except Exception as error:  # each backend has its own kinds of failure
        raise _cannot_draw(backend, error) from error
    atexit.register(_forget, context)
    return context, os.getpid()


@contextlib.contextmanager
def _others_context_kept() -> Iterator[None]:
    """Afterwards the EGL context that is current now is current again: dm_control makes its own current once, and would
    go on in ours."""
    if gl_backend() != "egl":
        yield
        return
    egl = _context_module("egl").EGL
    context, display = egl.eglGetCurrentContext(), egl.eglGetCurrentDisplay()
    surfaces = [egl.eglGetCurrentSurface(kind) for kind in (egl.EGL_DRAW, egl.EGL_READ)]
    try:
        yield
    finally:
        if context and context.address != _gl_context()[0]._context.address:
            egl.eglMakeCurrent(display, *surfaces, context)


def _forget(context: Any) -> None:
    """Leaves a context to the end of the process: its own finalizer would need modules that are gone by then."""
    context._context = None


def _cannot_draw(backend: str, error: Exception) -> Error:
    return Error(
        f"MuJoCo cannot draw with MUJOCO_GL={backend} ({type(error).__name__}: {error}); {_INSTALL_HINT}, "
        f"or set MUJOCO_GL to another of {sorted(_CONTEXT_MODULES)}"
    )


class FrameRenderer:
    """Draws states of one model as square frames from one camera.

    Args:
        model: the ``mujoco.MjModel``; a copy of it is drawn.
        camera: the camera's name.
        image_size: side of the frames, in pixels.
        multisamples: samples per pixel that OpenGL takes, 0 or 4 in most drivers.
        supersample: each pixel is the mean of ``supersample`` x ``supersample`` drawn ones.
        shadows: whether lights cast shadows.
        reflections: whether reflecting materials mirror the scene.

    Raises:
        lewm.Error: on drawing: OpenGL does not work here, or was in use when this process was forked.
    """

    _MAX_GEOMS = 2000

    def __init__(
        self,
        model: Any,
        camera: str,
        image_size: int,
        *,
        multisamples: int = 4,
        supersample: int = 1,
        shadows: bool = True,
        reflections: bool = True,
    ) -> None:
        import mujoco

        self._mujoco = mujoco
        self._model = copy.copy(model)  # its offscreen settings are overwritten
        self._own_colours = model.geom_rgba.copy()
        self._size = image_size
        self._supersample = supersample
        self._multisamples = multisamples
        self._side = image_size * supersample
        self._camera = mujoco.MjvCamera()
        self._camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
        self._camera.fixedcamid = model.camera(camera).id
        self._options = mujoco.MjvOption()
        self._scene = mujoco.MjvScene(model, self._MAX_GEOMS)
        self._scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = shadows
        self._scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = reflections
        self._rectangle = mujoco.MjrRect(0, 0, self._side, self._side)
        self._buffer = np.empty((self._side, self._side, 3), np.uint8)
        self._context: Any = None

    def draw(self, data: Any, colours: Mapping[str, Sequence[float]] | None = None) -> NDArray[np.uint8]:
        """A frame, (image_size, image_size, 3) uint8 RGB, of ``data`` (``mujoco.MjData``, forward kinematics done).

        Args:
            data: the state.
            colours: RGBA, 0 to 1, that bodies have in this frame, by name.
        """
        mujoco = self._mujoco
        self._model.geom_rgba[:] = self._own_colours
        for body, rgba in (colours or {}).items():
            self._model.geom_rgba[self._model.geom_bodyid == self._model.body(body).id] = rgba
        mujoco.mjv_updateScene(
            self._model, data, self._options, None, self._camera, mujoco.mjtCatBit.mjCAT_ALL, self._scene
        )
        with _others_context_kept():
            self._select()
            mujoco.mjr_render(self._rectangle, self._scene, self._context)
            mujoco.mjr_readPixels(self._buffer, None, self._rectangle, self._context)
        upright = self._buffer[::-1]  # OpenGL's first row is the lowest
        k, n = self._supersample, self._size
        if k == 1:
            return upright.copy()
        sums = upright.reshape(n, k, n, k, 3).sum(axis=(1, 3), dtype=np.uint16)
        return ((sums + k * k // 2) // (k * k)).astype(np.uint8)

    def _select(self) -> None:
        """Makes this renderer's buffer the one that is drawn into, in this process's context."""
        mujoco = self._mujoco
        context, process = _gl_context()
        if process != os.getpid():
            raise Error("OpenGL was in use before this process was forked: start worker processes by 'spawn'")
        context.make_current()
        if self._context is None:
            self._model.vis.global_.offwidth = self._side
            self._model.vis.global_.offheight = self._side
            self._model.vis.quality.offsamples = self._multisamples
            try:
                self._context = mujoco.MjrContext(self._model, mujoco.mjtFontScale.mjFONTSCALE_100)
            except mujoco.FatalError as error:  # GLFW makes contexts that are none
                raise _cannot_draw(gl_backend(), error) from error
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._context)
