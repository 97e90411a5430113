"""What an evaluation has finished, kept on disk so that a killed one goes on with the episodes that are missing."""

from __future__ import annotations

import io
import json
import re
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lewm.checkpoint.atomic import write_file
from lewm.evaluation.runner import Outcome

__all__ = ["Parts", "join"]

_SETTINGS = "parts.json"
_FILM = "film_"
_PART = re.compile(r"\d+_.+_\d{4,}\.npz")


class Parts:
    """Outcomes of consecutive tasks in a folder, a file per seed, agent and part.

    Args:
        folder: None: nothing is kept.
        settings: all that decides the outcomes. Parts of an evaluation with other settings are not loaded.
    """

    def __init__(self, folder: Path | None, settings: dict[str, Any]) -> None:
        self._folder = folder
        if folder is None:
            return
        self._settings = json.dumps(settings, indent=2, sort_keys=True, default=str)
        path = folder / _SETTINGS
        self._begun = path.is_file() and path.read_text() == self._settings

    def begin(self) -> None:
        """Makes the folder, and removes parts of an evaluation with other settings; before the first `save`."""
        if self._folder is None or self._begun:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        for file in self._folder.iterdir():
            if _PART.fullmatch(file.name):
                file.unlink()
        write_file(self._folder / _SETTINGS, self._settings.encode())
        self._begun = True

    def load(self, seed: int, agent: str, part: int) -> tuple[Outcome, float] | None:
        """The part's outcome and the seconds that it took; None if it is not there, or damaged."""
        path = self._path(seed, agent, part)
        if path is None or not self._begun or not path.is_file():
            return None
        try:
            with np.load(path, allow_pickle=False) as arrays:
                films = {
                    int(name.removeprefix(_FILM)): list(arrays[name])
                    for name in arrays.files
                    if name.startswith(_FILM)
                }
                outcome = Outcome(arrays["success"], arrays["steps"], arrays["final_states"], films)
                return outcome, float(arrays["seconds"])
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
            return None

    def save(self, seed: int, agent: str, part: int, outcome: Outcome, seconds: float) -> None:
        """Keeps a finished part."""
        path = self._path(seed, agent, part)
        if path is None:
            return
        arrays: dict[str, Any] = {
            "success": outcome.success,
            "steps": outcome.steps,
            "final_states": outcome.final_states,
            "seconds": np.array(seconds),
        }
        arrays |= {f"{_FILM}{row}": np.stack(frames) for row, frames in outcome.films.items()}
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays)
        write_file(path, buffer.getvalue())

    def _path(self, seed: int, agent: str, part: int) -> Path | None:
        return None if self._folder is None else self._folder / f"{seed}_{agent}_{part:04d}.npz"


def join(outcomes: Sequence[Outcome]) -> Outcome:
    """The outcome of all tasks from those of consecutive parts; films are numbered within their part."""
    films: dict[int, list[NDArray[np.uint8]]] = {}
    first = 0
    for outcome in outcomes:
        films |= {first + row: frames for row, frames in outcome.films.items()}
        first += len(outcome.success)
    return Outcome(
        np.concatenate([outcome.success for outcome in outcomes]),
        np.concatenate([outcome.steps for outcome in outcomes]),
        np.concatenate([outcome.final_states for outcome in outcomes]),
        films,
    )
