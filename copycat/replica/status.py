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
    snapshot_index: int = 0
    """What the newest snapshot covers that was read back; 0 for none."""
    deletion_floor: int = 0
    """Deletions up to here may be cleaned away: every member has them for good (C23)."""
    missing_entries: str = ""
    """Entries that damage took and no leader has given back so far; until then this member does
    not campaign, and votes only for one that has them (C12). Empty: nothing is missing."""
    regressed: tuple[str, ...] = ()
    """Members that came back with an older copy of their directory and do not have again what they
    had acknowledged, as far as this one knows; it may be one of them (F8)."""
    full_disks: tuple[str, ...] = ()
    """Members whose disks are full, as far as this one knows: a leader hears it of all that it
    reaches. With too many of them nothing can be committed, and only queries are served (F12)."""
