"""What the replica does with the availability of members (C38), over pure cores.

An entry is the text `3 unavailable 140`: member, status, log time. A core's clock stands for log
time, so the clocks of all cores should agree.
"""

from __future__ import annotations

from copycat.raft.availability import StatusRow, next_row, status_to_write
from copycat.types import MemberId, MemberStatus, ServerState
from tests.raft.cluster import Cluster, Node

__all__ = ["Statuses"]


class Statuses:
    """Of one cluster."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.shown = 0
        """Index of the newest committed entry that `news` gave."""

    def write(self, number: int) -> None:
        """This leader proposes what differs from what it has applied."""
        node = self.cluster.nodes[number]
        leader_state = node.raft.leader_state
        if leader_state is None or node.commit_index < leader_state.noop_index:
            return
        rows = self.rows(node)
        waiting = [entry.payload.split()[0] for entry in node.log[node.commit_index :]]
        for member in node.raft.committed_configuration.ids:
            seen = leader_state.heard.status(member)
            if member == node.raft.member:
                seen = MemberStatus.AVAILABLE
            now_ms = node.raft.now_ms
            status = status_to_write(seen, rows.get(member), now_ms)
            if status is not None and str(member) not in waiting:
                self.cluster.propose(number, f"{member} {status.value} {now_ms}")

    def rows(self, node: Node) -> dict[MemberId, StatusRow]:
        """What the committed entries of this member say."""
        rows: dict[MemberId, StatusRow] = {}
        timeout_ms = self.cluster.options.election_timeout_ms
        for entry in node.log[: node.commit_index]:
            words = entry.payload.split()
            if len(words) == 3 and words[1] in set(MemberStatus):
                member, status = MemberId(int(words[0])), MemberStatus(words[1])
                row = next_row(rows.get(member), status, int(words[2]), timeout_ms)
                rows[member] = row
        return rows

    def news(self) -> list[str]:
        """The entries about members that a leader has committed since the last call."""
        lines: list[str] = []
        for node in self.cluster.nodes.values():
            if node.is_up and node.raft.state is ServerState.LEADER:
                for index in range(self.shown, node.commit_index):
                    words = node.log[index].payload.split()
                    if len(words) == 3 and words[1] in set(MemberStatus):
                        member, status, time_ms = words
                        lines.append(
                            f"{node.number} writes that {member} is {status} at {time_ms}"
                        )
                self.shown = max(self.shown, node.commit_index)
        return lines
