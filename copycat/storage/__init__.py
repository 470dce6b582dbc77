"""Entries at rest: the native segmented log, the log in memory, snapshots, and their readers."""

from __future__ import annotations

from importlib.machinery import PathFinder

if PathFinder.find_spec("copycat.storage._native", __path__) is None:
    import platform

    raise ImportError(
        f"copycat's extension is not built for this Python ({platform.python_version()}, "
        f"{platform.machine()}) in {__path__[0]}; run `make build` in a clone, or "
        "`pip install .` to install it",
        name="copycat.storage._native",
    )

from copycat.storage._native import (
    Batch,
    Env,
    FaultEnv,
    allocation_refusals,
    check_commands,
    encode_batch,
    encode_gap,
    watch_allocations,
)

__all__ = [
    "Batch",
    "Env",
    "FaultEnv",
    "allocation_refusals",
    "check_commands",
    "encode_batch",
    "encode_gap",
    "watch_allocations",
]
