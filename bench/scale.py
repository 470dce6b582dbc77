"""BENCH_SCALE shrinks every benchmark, so that the test suite can run each of them once."""

from __future__ import annotations

import os

__all__ = ["SCALE", "scaled"]

SCALE = float(os.environ.get("BENCH_SCALE", "1"))
"""1 for a measurement; 0.001 makes a smoke test of a few seconds, whose figures mean nothing."""


def scaled(count: int, least: int = 1) -> int:
    """`count` at full scale, and never less than `least`."""
    return max(least, round(count * SCALE))
