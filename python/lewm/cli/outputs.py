"""Checks of where a command is to write, made before it does any work."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

__all__ = ["check_file", "check_folder", "check_inputs"]


def check_folder(path: Path) -> None:
    """Raises NotADirectoryError if a file lies where the folder is to be made, or above it."""
    there = next(place for place in (path, *path.parents) if place.exists())
    if not there.is_dir():
        raise NotADirectoryError(f"--out: expected a folder, {there} is a file")


def check_file(path: Path, argument: str = "--out") -> None:
    """Raises an OSError if the file cannot be: a folder has its name, or it is to lie in one that is not there."""
    if path.is_dir():
        raise IsADirectoryError(f"{argument}: expected a file, {path} is a folder")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{argument}: no folder {path.parent}")


def check_inputs(
    path: Path, inputs: Iterable[str | os.PathLike[str]], suffix: str, argument: str = "--out"
) -> None:
    """Raises ValueError if the file is one of the inputs, or lies in a folder among them and has another suffix than
    what the command writes."""
    for given in map(Path, inputs):
        if not path.exists() or not given.exists():
            continue
        inside = path.suffix != suffix and given.resolve() in path.resolve().parents
        if inside or path.samefile(given):
            raise ValueError(f"{argument}: {path} would overwrite the input {given}")
