"""Members that keep snapshots, over disks in memory."""

from __future__ import annotations

import copy
from typing import Any

from copycat.errors import SerializationError
from copycat.machine.kv import KeyValueStore
from copycat.machine.session_executor import SessionExecutor
from copycat.machine.state_stream import PieceWriter
from copycat.member.markers import LostEntries, read_lost_entries
from copycat.member.time_note import TimeFile
from copycat.replica.replica import Replica
from copycat.storage._native import FaultEnv, NativeLog, open_log
from copycat.storage.snapshot_store import SnapshotStore
from copycat.types import EntryId, MemberId
from tests.replica.harness import Network, Node

__all__ = ["Disk", "Disks", "StubbornExecutor"]

LOG, SNAPSHOTS = "/member/log", "/member/snapshots"


class StubbornExecutor(SessionExecutor):
    """The real one, and a test may say that it has an obstacle."""

    def __init__(self) -> None:
        super().__init__(KeyValueStore())
        self.obstacle = ""

    def write_snapshot(self, write_piece: PieceWriter) -> None:
        if self.obstacle:
            raise SerializationError(self.obstacle)
        super().write_snapshot(write_piece)


class Disk:
    """One member's disk, and the node that runs on it."""

    def __init__(self, address: str, members: tuple[str, ...], threshold: int) -> None:
        self.env = FaultEnv(5)
        self.env.make_directory(LOG)
        self.address = address
        self.members = members
        self.threshold = threshold
        self.node: Node
        self.start(fresh=len(members) > 1)

    def start(
        self,
        *,
        fresh: bool = False,
        hard_state: Any = None,
        lost_entries: LostEntries | None = None,
    ) -> Node:
        """A new process on what the disk holds; it keeps its hard state."""
        self.log: NativeLog = open_log(
            self.env, LOG, max_segment_size=16384, max_entries_per_segment=8
        )
        self.store = SnapshotStore(self.env, SNAPSHOTS)
        self.executor = StubbornExecutor()
        self.node = Node(
            self.address,
            self.members,
            log=self.log,
            executor=self.executor,
            snapshots=self.store,
            snapshot_threshold=self.threshold,
            fresh=fresh,
            hard_state=hard_state,
            lost_entries=lost_entries,
            regressed=self._record,
            time_file=TimeFile(self.env, "/member"),
        )
        return self.node

    def restart(self, seed: int = 1) -> Node:
        """Power loss, then a new process."""
        hard_state = self.node.hard_state
        self.env.crash(seed)
        lost_entries = read_lost_entries(self.env, "/member", hard_state.current_term)
        return self.start(hard_state=hard_state, lost_entries=lost_entries)

    def _record(self, lost_upto: EntryId, first_index: int, term: int) -> LostEntries:
        return LostEntries(
            self.env,
            "/member",
            lost_upto,
            first_index=first_index,
            term=term,
            is_regressed=True,
        )

    def take_image(self) -> None:
        """A copy of the disk as a power loss now would leave it."""
        self._image = (self.env.clone(), copy.copy(self.node.hard_state))
        self._image[0].crash(3)

    def restore_image(self) -> Node:
        """A new process on that copy (F8)."""
        self.env, hard_state = self._image
        return self.start(hard_state=hard_state)

    def accept_loss(self) -> Node:
        """An operator gives up what is missing (`copycat recover --accept-missing-entries`)."""
        lost_entries = read_lost_entries(self.env, "/member", self.node.hard_state.current_term)
        assert lost_entries is not None
        assert not lost_entries.is_accepted
        lost_entries.accept_loss()
        return self.restart()

    def cut(self, index: int) -> Node:
        """Entry `index` and what follows are damaged: a new process that lacks them (0017)."""
        self.env.crash(1)
        log = open_log(self.env, LOG, max_segment_size=16384, max_entries_per_segment=8)
        last = log.last_entry
        log.truncate(index - 1)
        log.close()
        hard_state = self.node.hard_state
        hard_state.end_save(hard_state.begin_save(hard_state.current_term + 1, MemberId(0)))
        lost_entries = LostEntries(
            self.env, "/member", last, first_index=index, term=hard_state.current_term
        )
        lost_entries.write()
        return self.start(hard_state=hard_state, lost_entries=lost_entries)

    def take(self) -> Any:
        """A snapshot on demand, or why there is none."""
        answers: list[Any] = []
        self.replica.take_snapshot(answers.append)
        self.node.turn()
        self.node.stabilize()
        return answers[0]

    @property
    def replica(self) -> Replica:
        return self.node.replica

    @property
    def snapshots(self) -> list[str]:
        return self.env.list(SNAPSHOTS) if self.env.exists(SNAPSHOTS) else []


class Disks(Network):
    """A network of members that keep snapshots."""

    def __init__(self, count: int = 3, threshold: int = 0) -> None:
        self.disks: dict[MemberId, Disk] = {}
        super().__init__(count, lambda address, members: self._make(address, members, threshold))

    def _make(self, address: str, members: tuple[str, ...], threshold: int) -> Node:
        disk = Disk(address, members, threshold)
        self.disks[disk.node.member] = disk
        return disk.node

    def damage(self, member: MemberId, index: int) -> None:
        """One member's disk loses an entry and all behind it; a new process, and its links."""
        self.cut(member)
        self.nodes[member] = self.disks[member].cut(index)
        self.mend(member)

    def regress(self, member: MemberId) -> None:
        """One member comes back with the copy that was taken of its disk; and its links."""
        self.cut(member)
        self.nodes[member] = self.disks[member].restore_image()
        self.mend(member)

    def restart(self, member: MemberId) -> None:
        """Power loss at one member, a new process, and its links again."""
        self.cut(member)
        self.nodes[member] = self.disks[member].restart()
        self.mend(member)
