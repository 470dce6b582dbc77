"""The core: `Raft.step(event) -> [effects]`. Integers in, integers out; no I/O, no clock."""

from __future__ import annotations

__all__: list[str] = []
