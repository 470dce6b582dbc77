"""What an operator may ask of a member, as one frozen value."""

from __future__ import annotations

import msgspec

from copycat.types import Durability, ServerState

__all__ = ["Status"]


class Status(msgspec.Struct, frozen=True):
    """One member at one moment. Indexes as in `copycat.types`; addresses are `host:port`."""

    address: str
    state: ServerState
    term: int
    leader: str
    """Address of the leader, or empty."""
    first_index: int
    last_index: int
    durable_index: int
    """What this process saw synced. With durability "fsync" nothing above it is acknowledged; in
    the weaker modes a power loss may take what lies above it."""
    commit_index: int
    last_applied: int
    sessions: int
    members: tuple[str, ...]
    unreachable: tuple[str, ...]
    """Members to which this one has no link now."""
    storage_full: bool = False
    """The disk has no room for more entries: only queries are served (F12)."""
    durability: Durability = Durability.FSYNC
    """When an acknowledgement leaves: only "fsync" waits for the disk."""
