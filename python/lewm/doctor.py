"""What this installation and machine can do, and what to install for what is missing."""

from __future__ import annotations

import ctypes
import ctypes.util
import platform
import sys
from importlib import metadata, util
from typing import Any

from lewm.build import build_info

__all__ = ["report"]

# Import name -> (distribution, what it is for, extra that brings it).
_PACKAGES = {
    "torch": ("torch", "training", "train"),
    "h5py": ("h5py", "HDF5 data", "train"),
    "hdf5plugin": ("hdf5plugin", "HDF5 files that others compressed", "train"),
    "yaml": ("pyyaml", "settings of a training", "train"),
    "tqdm": ("tqdm", "progress", "train"),
    "tensorboard": ("tensorboard", "training curves", "train"),
    "gymnasium": ("gymnasium", "environments", "envs"),
    "pymunk": ("pymunk", "Push-T", "envs"),
    "mujoco": ("mujoco", "Reacher and Cube", "envs"),
    "dm_control": ("dm_control", "Reacher", "envs"),
    "ogbench": ("ogbench", "Cube", "envs"),
    "matplotlib": ("matplotlib", "plots", "viz"),
    "imageio": ("imageio", "pictures and films", "viz"),
    "sklearn": ("scikit-learn", "probes", "viz"),
}
# Library -> (what it is for, Debian package).
_LIBRARIES = {
    "EGL": ("MuJoCo rendering without a screen (MUJOCO_GL=egl)", "libegl1 libgl1 libgl1-mesa-dri"),
    "OSMesa": ("the same where there is no EGL, slower (MUJOCO_GL=osmesa)", "libosmesa6"),
}


def report() -> dict[str, Any]:
    """Facts about this installation: ``system``, ``core``, ``gpu``, ``packages`` and ``libraries``.

    A package or library that is missing has ``version`` or ``found`` None and says in ``install`` what brings it.
    """
    return {
        "system": {
            "python": platform.python_version(),
            "platform": platform.platform(),
            "executable": sys.executable,
        },
        "core": build_info(),
        "gpu": {"nvidia": _nvidia_gpus()},
        "packages": {name: _package(name, *facts) for name, facts in _PACKAGES.items()},
        "libraries": {name: _library(name, *facts) for name, facts in _LIBRARIES.items()},
    }


def _package(name: str, distribution: str, purpose: str, extra: str) -> dict[str, str | None]:
    version = None
    if util.find_spec(name) is not None:
        try:
            version = metadata.version(distribution)
        except metadata.PackageNotFoundError:
            version = "unknown"
    return {"version": version, "for": purpose, "install": f"pip install 'lewm[{extra}]'"}


def _library(name: str, purpose: str, package: str) -> dict[str, str | None]:
    return {"found": ctypes.util.find_library(name), "for": purpose, "install": f"apt-get install {package}"}


def _nvidia_gpus() -> int:
    """How many NVIDIA GPUs the driver shows; 0 without a driver."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return 0
    return count.value
