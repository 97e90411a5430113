"""Shared by all tests."""

from __future__ import annotations

import os

# The tests' tensors are small: one torch thread is fastest, and keeps its arithmetic the same on every machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")
