"""Who hears, in turns, what changes about the cluster as one member knows it."""

from __future__ import annotations

from typing import Protocol

from copycat.raft.configuration import Configuration
from copycat.types import MemberId, MemberStatus

__all__ = ["ClusterListener"]


class ClusterListener(Protocol):
    """Added with `Replica.on_cluster_change`. It is called in the middle of turns: it must be
    quick, and must not call the replica."""

    def configuration_committed(self, configuration: Configuration) -> None:
        """`configuration` is committed, and this member knows it."""
        ...

    def leader_changed(self, leader: MemberId, term: int) -> None:
        """`leader` leads `term`; 0 when nobody is known to lead."""
        ...

    def status_changed(self, member: MemberId, status: MemberStatus) -> None:
        """An entry is applied that says that the leader hears `member` again, or not any more
        (C38)."""
        ...
