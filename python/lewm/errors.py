"""The error of lewm's own; bad arguments raise ValueError or TypeError, missing files FileNotFoundError."""

from __future__ import annotations

__all__ = ["Error"]


class Error(RuntimeError):
    """A file that is not what it claims to be, a request this build cannot serve, or a plan without finite costs."""
