"""The version of lewm, in its one place."""

__version__ = "0.1.0"
