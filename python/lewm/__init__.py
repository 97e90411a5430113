"""lewm: train LeWorldModel from pixels and plan in its latent space, fast.

``import lewm`` needs numpy alone. Names that need more (torch, h5py, gymnasium) are imported when they are first
touched, and say what to install when it is missing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from lewm._version import __version__

if TYPE_CHECKING:  # what a type checker sees of the names below
    from lewm.build import build_info as build_info
    from lewm.build import cmake_dir as cmake_dir
    from lewm.build import get_include as get_include
    from lewm.checkpoint import convert as convert
    from lewm.checkpoint import save as save
    from lewm.config import LeWMConfig as LeWMConfig
    from lewm.controller import Controller as Controller
    from lewm.data import EpisodeWriter as EpisodeWriter
    from lewm.data import TrajectoryDataset as TrajectoryDataset
    from lewm.errors import Error as Error
    from lewm.model import Model as Model
    from lewm.model import load as load
    from lewm.nn import LeWM as LeWM
    from lewm.nn import SIGReg as SIGReg
    from lewm.nn.sigreg import sigreg as sigreg
    from lewm.planner import Plan as Plan
    from lewm.planner import Planner as Planner
    from lewm.recorded import RecordedActions as RecordedActions
    from lewm.training import train as train

# Public name -> (module that defines it, extra that brings what the module imports; "" for numpy alone).
_PUBLIC = {
    "LeWMConfig": ("lewm.config", ""),
    "Error": ("lewm.errors", ""),
    "Model": ("lewm.model", ""),
    "load": ("lewm.model", ""),
    "Plan": ("lewm.planner", ""),
    "Planner": ("lewm.planner", ""),
    "Controller": ("lewm.controller", ""),
    "RecordedActions": ("lewm.recorded", ""),
    "save": ("lewm.checkpoint", ""),
    "convert": ("lewm.checkpoint", ""),
    "build_info": ("lewm.build", ""),
    "cmake_dir": ("lewm.build", ""),
    "get_include": ("lewm.build", ""),
    "LeWM": ("lewm.nn", "train"),
    "SIGReg": ("lewm.nn", "train"),
    "sigreg": ("lewm.nn", "train"),
    "train": ("lewm.training", "train"),
    "TrajectoryDataset": ("lewm.data", "train"),
    "EpisodeWriter": ("lewm.data", "train"),
}

__all__ = ["__version__", *_PUBLIC]


if not TYPE_CHECKING:  # it would give any name a type

    def __getattr__(name: str) -> Any:
        if name not in _PUBLIC:
            raise AttributeError(f"module 'lewm' has no attribute {name!r}")
        module, extra = _PUBLIC[name]
        try:
            value = getattr(importlib.import_module(module), name)
        except ModuleNotFoundError as error:
            if not extra or (error.name or "").startswith("lewm"):
                raise
            raise ImportError(f"lewm.{name} needs {error.name}: pip install 'lewm[{extra}]'") from error
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted(__all__)
