"""Which entries the machine no longer needs, and which of them the log must keep for now.

The log is told of a released entry at once, unless something else still needs it (C19 to C21):

* its session's sequence, acknowledgement or activity stands on it (`SessionRecord.needs_entry`);
* it is a deletion, and the log was not yet told of everything that it deletes.

An entry whose application touched a timer, or that decided something no later entry repeats, is
pinned: it goes as UNKNOWN, under a snapshot only (C20, decision 0012).
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable
from heapq import heappop, heappush

from copycat.machine.sessions import PendingRelease, SessionRecord, SessionTable
from copycat.protocol.operations import CompactionMode
from copycat.types import Release

__all__ = ["ReleaseTracker", "is_deletion", "release_of"]

_RELEASES = {
    CompactionMode.QUORUM: Release.ANY,
    CompactionMode.FULL: Release.STABLE,
    CompactionMode.SEQUENTIAL: Release.SEQUENTIAL,
    CompactionMode.SNAPSHOT: Release.SNAPSHOT,
    CompactionMode.UNKNOWN: Release.UNKNOWN,
}


def release_of(mode: CompactionMode, *, keyed: bool, snapshottable: bool) -> Release:
    """The class of a command's mode.

    DEFAULT of a keyed command is ANY: what replaced it is in the log. Of another it is SNAPSHOT
    when the machine can be restored from one, else SEQUENTIAL.
    """
    if mode is not CompactionMode.DEFAULT:
        return _RELEASES[mode]
    if keyed:
        return Release.ANY
    return Release.SNAPSHOT if snapshottable else Release.SEQUENTIAL


def is_deletion(policy: Release) -> bool:
    """Whether entries of this class may not go before what they delete."""
    return policy in {Release.SEQUENTIAL, Release.UNKNOWN}


class ReleaseTracker:
    """The releases of one machine. What happens inside an entry counts from its end on."""

    def __init__(
        self, sessions: SessionTable, entry: Callable[[], int], *, snapshottable: bool
    ) -> None:
        """entry: the index of what is applied now."""
        self._sessions = sessions
        self._entry = entry
        self.snapshottable = snapshottable
        self.is_open = False
        """True while entries are applied: only then may a commit be released."""
        self.snapshot_only_index = 0
        """The newest entry that touched a timer (C20)."""
        self.snapshot_only_indexes: set[int] = set()
        """All of them since the last `end_entry`."""
        self.late_snapshot_only: set[int] = set()
        """Entries pinned after their application that are not released yet."""
        self.deletions_need_snapshot = False
        """An entry that goes with a snapshot only was released by hand, by its mode or since it
        is pinned: deletions by hand wait for a snapshot too, since nobody says what they delete.
        For ever: members take their snapshots at different entries, and must decide alike."""
        self.acquired: dict[int, PendingRelease | None] = {}
        """Keyed entries that the user acquired, with a `PendingRelease` once the key is done."""
        self._out: dict[Release, array[int]] = {policy: array("Q") for policy in Release}
        self._by_hand: list[tuple[int, int, Release, int, bool]] = []
        """(released at, index, policy, session, is pinned)"""
        self.by_hand_pending: list[int] = []
        self.by_hand_done: set[int] = set()
        self.by_hand_waiting: list[tuple[int, Release]] = []

    # ---- while an entry is applied ---------------------------------------------------------

    def require_snapshot(self, record: SessionRecord, index: int) -> None:
        """Something was decided by what entry `index` left in `record`: it stays."""
        for pending in record.session_releases:
            if pending.index == index:
                pending.policy = Release.UNKNOWN
                self.deletions_need_snapshot |= pending.by_hand
                return
        self.late_snapshot_only.add(index)

    def release_by_hand(
        self, index: int, policy: Release, session: int, *, is_snapshot_only: bool
    ) -> None:
        """The user's machine let a commit go."""
        self._by_hand.append((self._entry(), index, policy, session, is_snapshot_only))

    # ---- at the end of an entry, when the sessions have moved ------------------------------

    def release(
        self, index: int, policy: Release, session: int
    ) -> tuple[Release, PendingRelease | None]:
        """Entry `index` is not needed by the machine. (its final class, what holds it back)"""
        if self.late_snapshot_only and index in self.late_snapshot_only:
            self.late_snapshot_only.discard(index)
            policy = Release.UNKNOWN
        record = self._sessions.get(session)
        if record is not None and record.needs_entry(index):
            pending = PendingRelease(index, policy)
            record.session_releases.append(pending)
        elif index not in self.acquired:
            self._out[policy].append(index)
            return policy, None
        else:
            pending = PendingRelease(index, policy)
            pending.obstacles = 0
        if index in self.acquired:
            self.acquired[index] = pending
            pending.obstacles += 1
        return policy, pending

    def shortcut(
        self,
    ) -> tuple[Callable[[int], None] | None, Callable[[int], SessionRecord | None]]:
        """(takes an index of class ANY that no session holds, finds a session).

        The first is None while single entries must be looked at (`release`).
        """
        is_plain = not self.late_snapshot_only and not self.acquired
        return self._out[Release.ANY].append if is_plain else None, self._sessions.get

    def release_acquired(self, index: int) -> None:
        """The user let go of a keyed entry that it had acquired."""
        pending = self.acquired.pop(index)
        if pending is not None:
            self.remove_obstacle(pending)

    def release_deletion(
        self, index: int, policy: Release, session: int, deleted: Iterable[PendingRelease]
    ) -> None:
        """The same of an entry that deletes: not before all of `deleted` went to the log."""
        if index in self.late_snapshot_only:
            self.late_snapshot_only.discard(index)
            policy = Release.UNKNOWN
        pending = PendingRelease(index, policy)
        for other in deleted:
            if other.policy >= Release.SNAPSHOT:
                pending.policy = Release.UNKNOWN
            if other.obstacles:
                other.waiters.append(pending)
                pending.obstacles += 1
        if index in self.acquired:
            self.acquired[index] = pending
            pending.obstacles += 1
        record = self._sessions.get(session)
        if record is not None and record.needs_entry(index):
            record.session_releases.append(pending)
        else:
            self.remove_obstacle(pending)

    def release_without_effect(self, first: int, count: int) -> None:
        """Entries that no replay misses."""
        for index in range(first, first + count):
            policy = Release.UNKNOWN if index in self.snapshot_only_indexes else Release.ANY
            self._out[policy].append(index)

    def keep_alive(self, record: SessionRecord, index: int) -> None:
        """A keep-alive: all that it did is in `record`."""
        policy = Release.UNKNOWN if index == self.snapshot_only_index else Release.ANY
        record.session_releases.append(PendingRelease(index, policy))

    def recheck(self, record: SessionRecord) -> None:
        """`record` stands on newer entries, or has ended (then it is not in the table)."""
        session_releases, record.session_releases = record.session_releases, []
        is_open = self._sessions.get(record.session) is record
        for pending in session_releases:
            if is_open and record.needs_entry(pending.index):
                record.session_releases.append(pending)
            else:
                self.remove_obstacle(pending)

    def end_entry(self) -> None:
        """Take in what was released by hand during the entry."""
        if self._by_hand:
            self._accept_by_hand()
        if self.snapshot_only_indexes:
            self.snapshot_only_indexes.clear()

    def _accept_by_hand(self) -> None:
        released, self._by_hand = self._by_hand, []
        # Entry by entry, so that cuts do not show; in one the oldest first, for a deletion may
        # let itself go before what it deletes.
        for _, index, mode, session, is_snapshot_only in sorted(released):
            policy = mode
            if (
                is_snapshot_only
                or index in self.snapshot_only_indexes
                or index in self.late_snapshot_only
            ):
                self.late_snapshot_only.discard(index)
                policy = Release.UNKNOWN
            self.deletions_need_snapshot |= policy >= Release.SNAPSHOT
            pending = PendingRelease(index, policy, by_hand=True)
            record = self._sessions.get(session)
            if record is not None and record.needs_entry(index):
                record.session_releases.append(pending)
                heappush(self.by_hand_pending, index)
            else:
                self._emit_by_hand(pending)

    def remove_obstacle(self, pending: PendingRelease) -> None:
        """One obstacle less; at the last one the log is told of the entry."""
        pending.obstacles -= 1
        if pending.obstacles:
            return
        if pending.by_hand:
            self.by_hand_done.add(pending.index)
            self._emit_by_hand(pending)
            self._release_waiting_deletions()
        else:
            self._out[pending.policy].append(pending.index)
        for waiter in pending.waiters:
            if pending.policy >= Release.SNAPSHOT:
                waiter.policy = Release.UNKNOWN
            self.remove_obstacle(waiter)

    def _emit_by_hand(self, pending: PendingRelease) -> None:
        policy = pending.policy
        if is_deletion(policy):
            if self.deletions_need_snapshot:
                policy = Release.UNKNOWN
            if pending.index > self._oldest_pending():
                heappush(self.by_hand_waiting, (pending.index, policy))
                return
        self._out[policy].append(pending.index)

    def _oldest_pending(self) -> int:
        while self.by_hand_pending and self.by_hand_pending[0] in self.by_hand_done:
            self.by_hand_done.discard(heappop(self.by_hand_pending))
        return self.by_hand_pending[0] if self.by_hand_pending else 1 << 64

    def _release_waiting_deletions(self) -> None:
        oldest = self._oldest_pending()
        while self.by_hand_waiting and self.by_hand_waiting[0][0] < oldest:
            index, policy = heappop(self.by_hand_waiting)
            self._out[Release.UNKNOWN if self.deletions_need_snapshot else policy].append(index)

    def reset(self) -> None:
        """Forget everything: a snapshot takes its place."""
        self.__init__(  # type: ignore[misc]
            self._sessions, self._entry, snapshottable=self.snapshottable
        )

    def take_releases(self) -> list[tuple[Release, array[int]]]:
        """The releases since the last call that the log may be told of, by policy."""
        releases = [(policy, indexes) for policy, indexes in self._out.items() if indexes]
        for policy, _ in releases:
            self._out[policy] = array("Q")
        return releases
