"""Which cluster a client means, and whether that is this one: by name and by incarnation (C41).

One name may have been used twice: the members of a cluster were replaced, and somebody starts the
first ones again with empty disks. A session of the old cluster has a number that may be another
client's session in the new one, so nothing of it may be executed there.

A client names its cluster when it opens a session, and with the first frame of each later
connection. What it says counts for all that comes by that connection.
"""

from __future__ import annotations

from copycat.protocol.client import (
    ClientMessage,
    CloseSession,
    Commands,
    KeepAlive,
    QueryRequest,
    Refusal,
    Register,
)
from copycat.protocol.cluster_incarnation import is_recovered
from copycat.raft.core import Raft
from copycat.replica.connections import RefusalReason, Route
from copycat.replica.members import MemberTable

__all__ = ["ClientClusters"]

_WITHOUT_CLUSTER = (Commands, CloseSession, QueryRequest)
"""They name no cluster: what the connection named counts."""


class ClientClusters:
    """Called in turns. Remembers of each connection of this member what its client named."""

    def __init__(self, raft: Raft, members: MemberTable, cluster_name: str) -> None:
        self._raft = raft
        self._members = members
        self._cluster_name = cluster_name
        self._names: dict[int, str] = {}
        """Connection -> the name of the other cluster that its client means."""
        self._incarnations: dict[int, int] = {}
        """Connection -> the incarnation that its client means, while that is not shown to be this
        cluster's."""
        self._without: set[int] = set()
        """Connections with a session of a cluster that had no incarnation, while this cluster
        never was without."""

    def refusal(self, route: Route, message: ClientMessage) -> RefusalReason | None:
        """Why this request is not served; None when it is one for this cluster."""
        if isinstance(message, _WITHOUT_CLUSTER) and not (
            self._names or self._incarnations or self._without
        ):
            return None  # nearly always
        named = message.incarnation if isinstance(message, Register | KeepAlive) else 0
        is_without = (
            isinstance(message, KeepAlive)
            and not named
            and is_recovered(self._members.cluster_incarnation)
        )
        if route.peer:  # that member looks at what else comes by the connection
            return self._replaced(0) if is_without else self._refusal_of(named, message)
        connection = route.token
        if is_without:
            self._without.add(connection)
        elif isinstance(message, Register):
            self._without.discard(connection)
        if not isinstance(message, _WITHOUT_CLUSTER):
            if message.cluster not in ("", self._cluster_name):
                self._names[connection] = message.cluster
            if named:
                self._incarnations[connection] = named
        if (name := self._names.get(connection)) is not None:
            reason = f'this is a member of cluster "{self._cluster_name}", not of "{name}"'
            return RefusalReason(Refusal.WRONG_CLUSTER, reason)
        if connection in self._without:
            return self._replaced(0)
        named = self._incarnations.get(connection, 0)
        if named and named == self._members.cluster_incarnation:
            del self._incarnations[connection]
            return None
        return self._refusal_of(named, message)

    def _refusal_of(self, named: int, message: ClientMessage) -> RefusalReason | None:
        """named: the incarnation that the client means; 0: it knows none."""
        own = self._members.cluster_incarnation
        if named in (0, own):
            return None
        address = self._members.own_address
        leader_state = self._raft.leader_state
        if own or (
            leader_state is not None and self._raft.commit_index >= leader_state.noop_index
        ):
            return self._replaced(named)
        if leader_state is None and isinstance(message, Register | KeepAlive):
            return None  # the leader knows
        reason = f"{address} does not know yet which incarnation its cluster has"
        return RefusalReason(Refusal.NO_LEADER, reason)

    def _replaced(self, named: int) -> RefusalReason:
        own, address = self._members.cluster_incarnation, self._members.own_address
        is_now = f"has incarnation {own:032x}" if own else "has no incarnation"
        was = f"one with incarnation {named:032x}" if named else "one without an incarnation"
        cluster = f'the cluster "{self._cluster_name}" of {address}'
        reason = f"{cluster} {is_now}, and the session is of {was}"
        if is_recovered(own):
            reason += ": an operator made this cluster from one member of another"
        return RefusalReason(Refusal.CLUSTER_REPLACED, reason)

    def connection_closed(self, connection: int) -> None:
        """A client's connection to this member closed."""
        self._without.discard(connection)
        self._names.pop(connection, None)
        self._incarnations.pop(connection, None)
