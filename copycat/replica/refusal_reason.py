"""What a client is told when its request cannot be served. Values only."""

from __future__ import annotations

from typing import NamedTuple

from copycat.protocol.client import Refusal

__all__ = ["RefusalReason", "WriteStall"]


class RefusalReason(NamedTuple):
    """The fields of a refusal: see `protocol.client.Failure`."""

    code: Refusal
    reason: str = ""
    missing: tuple[str, ...] = ()
    since_ms: int = 0


class WriteStall(NamedTuple):
    """What full disks stop (F12): requests are refused for `reason`, unless that is empty."""

    reason: str = ""
    stops_commits: bool = False
    """Too few members take entries: what the leader has in its log cannot be committed either."""
