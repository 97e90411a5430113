"""What a run's folder holds that a report can show."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from lewm.checkpoint.atomic import write_file
from lewm.errors import Error
from lewm.training.log import read_metrics

__all__ = ["Sources", "find_sources", "read_json", "remember_command"]

_COMMANDS_FILE = "commands.txt"
_SKIPPED = ("tensorboard", "checkpoints", "published", "parts")


@dataclass(frozen=True)
class Sources:
    """Files of results, each list in order of path."""

    folder: Path
    training: Path | None
    """Folder with metrics.csv and config.yaml."""
    evaluations: list[Path]
    probes: list[Path]
    surprises: list[Path]
    decoded: list[Path]

    @property
    def title(self) -> str:
        """Name of the run."""
        return self.folder.resolve().name

    @cached_property
    def config(self) -> dict[str, Any]:
        """The training settings; {} if there are none."""
        path = None if self.training is None else self.training / "config.yaml"
        if path is None or not path.is_file():
            return {}
        try:
            content = yaml.safe_load(path.read_text())
        except yaml.YAMLError as error:
            raise Error(f"{path}: not readable as YAML: {error}") from None
        return content if isinstance(content, dict) else {}

    @cached_property
    def metrics(self) -> list[dict[str, float]]:
        """Rows of the training log."""
        path = None if self.training is None else self.training / "metrics.csv"
        rows = [] if path is None or not path.is_file() else read_metrics(path)
        for row in rows:
            if not ({"epoch", "seconds"} <= row.keys() and row.keys() & {"loss", "val_loss"}):
                raise Error(f"{path}: expected epoch, seconds and a loss in every row, got {', '.join(row)}")
        return rows

    @property
    def model_file(self) -> Path:
        """What the other commands take; where it will be, if training has not finished."""
        candidates = [self.folder / "model.safetensors"]
        if self.training is not None:
            candidates += [self.training / name for name in ("model.safetensors", "model.pt")]
        return next((path for path in candidates if path.is_file()), candidates[min(1, len(candidates) - 1)])

    @property
    def data_file(self) -> Path:
        """Episodes to evaluate on: those of the quickstart, else those that were trained on."""
        held_out = self.folder / "eval.h5"
        return held_out if held_out.is_file() else Path(self.config.get("data") or "DATA.h5")

    @property
    def commands(self) -> list[str]:
        """Command lines that made the results, oldest files first."""
        lines: list[str] = []
        for path in _found(self.folder, _COMMANDS_FILE):
            lines += path.read_text("utf-8", "replace").splitlines()
        for path in self.evaluations + self.probes + self.surprises:
            settings = read_json(path).get("settings")
            command = settings.get("command_line") if isinstance(settings, dict) else None
            lines += [command] if isinstance(command, str) else []
        return list(dict.fromkeys(lines))


def find_sources(folder: Path) -> Sources:
    """Looks through the folder of a run.

    Raises:
        FileNotFoundError: there is no such folder, or it holds no results.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder")
    training = next((path.parent for path in _found(folder, "metrics.csv")), None)
    sources = Sources(
        folder,
        training,
        _found(folder, "results.json"),
        _found(folder, "probe.json"),
        _found(folder, "surprise.json"),
        _found(folder, "decoded*.png"),
    )
    if training is None and not any(
        (sources.evaluations, sources.probes, sources.surprises, sources.decoded)
    ):
        raise FileNotFoundError(
            f"{folder}: expected results of lewm train, eval, probe, surprise or decode, found none"
        )
    return sources


def remember_command(folder: Path, line: str) -> None:
    """Adds a command line to those that the report of a folder shows."""
    path = folder / _COMMANDS_FILE
    before = path.read_bytes() if path.is_file() else b""
    write_file(path, before + f"{line}\n".encode("utf-8", "surrogateescape"))


def read_json(path: Path) -> dict[str, Any]:
    """The object in a file of results. Raises lewm.Error if there is none."""
    try:
        content = json.loads(path.read_text())
    except ValueError as error:
        raise Error(f"{path}: not readable as JSON: {error}") from None
    if not isinstance(content, dict):
        raise Error(f"{path}: expected an object, got {type(content).__name__}")
    return content


def _found(folder: Path, pattern: str) -> list[Path]:
    hits = folder.rglob(pattern)
    return sorted(path for path in hits if not set(_SKIPPED) & set(path.relative_to(folder).parts[:-1]))
