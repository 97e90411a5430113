"""Recorded episodes: writing them, reading windows of them, and collecting them from environments.

Names are imported when first touched: only `TrajectoryDataset` and `read_batches` need torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lewm.data.batches import read_batches
    from lewm.data.collection import collect
    from lewm.data.dataset import TrajectoryDataset
    from lewm.data.episode_file import EpisodeFile
    from lewm.data.writer import EpisodeWriter

_MODULES = {
    "EpisodeFile": "lewm.data.episode_file",
    "EpisodeWriter": "lewm.data.writer",
    "TrajectoryDataset": "lewm.data.dataset",
    "collect": "lewm.data.collection",
    "read_batches": "lewm.data.batches",
}

__all__ = ["EpisodeFile", "EpisodeWriter", "TrajectoryDataset", "collect", "read_batches"]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'lewm.data' has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULES[name]), name)
    globals()[name] = value
    return value
