"""Why the cluster does not serve a client now, from what its servers answered."""

from __future__ import annotations

from copycat.protocol.client import Refusal

__all__ = ["BACK_PRESSURE", "RETRIED"]

BACK_PRESSURE = frozenset({Refusal.OVERLOADED, Refusal.DISK_FULL})
"""Not now: ask the same server again a little later."""

RETRIED = frozenset(
    {
        Refusal.NO_LEADER,
        Refusal.NO_QUORUM,
        Refusal.ILLEGAL_MEMBER_STATE,
        Refusal.QUERY,
        *BACK_PRESSURE,
    }
)
"""Refusals of a query after which it is asked again: it changes nothing."""
