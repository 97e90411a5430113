"""Recorded episodes: writing them, reading windows of them, and collecting them from environments."""

from __future__ import annotations

from lewm.data.dataset import TrajectoryDataset
from lewm.data.episode_file import EpisodeFile
from lewm.data.writer import EpisodeWriter

__all__ = ["EpisodeFile", "EpisodeWriter", "TrajectoryDataset"]
