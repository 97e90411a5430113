"""Processes that tests start."""

from __future__ import annotations

import os
import sys

__all__ = ["environment"]


def environment(**changes: str) -> dict[str, str]:
    """Of a process that imports what this one imports, with these variables changed."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **changes}
