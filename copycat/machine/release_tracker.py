"""Which entries the machine no longer needs, and which of them the log must keep for now.

Released and deletable
----------------------
An entry is *released* when the state no longer depends on it: a later command overwrote its key,
the machine released the commit, or the entry had no effect from the start. A released entry is
*deletable* once nothing else depends on it; only then is the log told of it (`take_releases`).
Between the two stands a `PendingRelease` with a count of obstacles. An obstacle is one of these:

* **The session** (C19). The session's sequence, its acknowledgement or its activity is that of
  this entry (`SessionRecord.entries_needed`). A replay of the log without the entry would lose
  it. The obstacle is removed when the session moves on to a newer entry, or ends
  (`recheck`); until then the record holds the pending release in `session_releases`.
* **What the entry deletes.** A deletion (a tombstone, a key that expired) must not be deleted
  before the entries that it deletes, or a replay would bring the key back. Each such entry that
  is pending itself counts as one obstacle of the deletion, and lists it in `waiters`.
* **The user.** A keyed entry whose commit was acquired stays until it is released as often.

When the last obstacle is removed (`remove_obstacle`), the entry is added to the list of its
policy, and its waiters lose one obstacle each.

Policies
--------
`Release` says what a compaction must wait for: ANY is the weakest, UNKNOWN the strictest. The
command's `CompactionMode` gives the policy (`release_of`), and two rules make it stricter:

* **Snapshot only** (C20). An entry whose application scheduled, cancelled or fired a timer, or
  that decided something which no later entry repeats, is released as UNKNOWN: only a snapshot
  can stand for it (decision 0012). `snapshot_only_index` and `snapshot_only_indexes` name the
  entries of the slice at hand, `late_snapshot_only` those that were found out later.
* **A deletion is as strict as what it deletes.** If one of the deleted entries waits for a
  snapshot, the deletion does too.

Releases by hand
----------------
A machine without keys calls `commit.release()`, and nobody says which entry deletes which. So
every deletion by hand waits for all older entries that were released by hand and are pending
(`by_hand_pending`, `by_hand_waiting`); and once one of them was snapshot-only, all deletions by
hand are, for ever: members take their snapshots at different entries, and must decide alike.

Order
-----
A release inside an entry counts from the end of that entry on: first what sessions no longer need,
then keys that were overwritten, then releases by hand, the oldest entry first. So it does not show
how entries were cut into runs.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable
from heapq import heapify, heappop, heappush
from typing import TypeAlias

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
    """Whether an entry of this policy must not be deleted before what it deletes."""
    return policy in {Release.SEQUENTIAL, Release.UNKNOWN}


ReleaseByHand: TypeAlias = tuple[int, int, Release, int, bool]
"""One `commit.release()`, until the end of the entry in which it was called: (index of that entry,
index of the released entry, policy, session, whether only a snapshot may replace the released
entry). A plain tuple: there may be one for each command."""


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
        self.forget()

    def forget(self) -> None:
        """Nothing was released yet: the machine is new, or a snapshot takes its place."""
        self.is_open = False
        self.snapshot_only_index = 0
        """The newest entry that touched a timer (C20)."""
        self.snapshot_only_indexes: set[int] = set()
        """All such entries since the last `end_entry`."""
        self.late_snapshot_only: set[int] = set()
        """Entries that became snapshot-only after their application, and are not released."""
        self.deletions_need_snapshot = False
        """An entry released by hand was snapshot-only: deletions by hand are, for ever."""
        self.acquired: dict[int, PendingRelease | None] = {}
        """Keyed entries that the user acquired, with a `PendingRelease` once the key is done."""
        self._deletable: dict[Release, array[int]] = {policy: array("Q") for policy in Release}
        """What the log is told of next. Invariant: no obstacle is left for any of them."""
        self._by_hand: list[ReleaseByHand] = []
        self.by_hand_pending: list[int] = []
        """A heap of the entries released by hand that a session needs."""
        self.by_hand_done: set[int] = set()
        """Those of them that no session needs any more, and that are not the oldest."""
        self.by_hand_waiting: list[tuple[int, Release]] = []
        """A heap of deletions by hand that wait for an older entry in `by_hand_pending`."""

    def restore(
        self,
        records: Iterable[SessionRecord],
        acquired: dict[int, PendingRelease | None],
        late_snapshot_only: Iterable[int],
        waiting: list[tuple[int, Release]],
        *,
        deletions_need_snapshot: bool,
    ) -> None:
        """Put what a snapshot says in place of everything. records: with their releases."""
        self.forget()
        self.by_hand_pending = [
            each.index for record in records for each in record.session_releases if each.by_hand
        ]
        heapify(self.by_hand_pending)
        self.by_hand_waiting = waiting
        heapify(self.by_hand_waiting)
        self.acquired = acquired
        self.late_snapshot_only = set(late_snapshot_only)
        self.deletions_need_snapshot = deletions_need_snapshot

    # ---- while an entry is applied ---------------------------------------------------------

    def require_snapshot(self, record: SessionRecord, index: int) -> None:
        """What entry `index` left in `record` decided something that no later entry repeats: only
        a snapshot may delete the entry."""
        for pending in record.session_releases:
            if pending.index == index:
                pending.policy = Release.UNKNOWN
                self.deletions_need_snapshot |= pending.by_hand
                return
        self.late_snapshot_only.add(index)

    def release_by_hand(
        self, index: int, policy: Release, session: int, *, is_snapshot_only: bool
    ) -> None:
        """The machine released a commit for the last time."""
        self._by_hand.append((self._entry(), index, policy, session, is_snapshot_only))

    # ---- at the end of an entry, when the sessions have moved ------------------------------

    def release(
        self, index: int, policy: Release, session: int
    ) -> tuple[Release, PendingRelease | None]:
        """Release entry `index`: the machine does not need it.

        Returns the policy that the entry has in the end, and the pending release while something
        else needs the entry; None when it is deletable at once.
        """
        if self.late_snapshot_only and index in self.late_snapshot_only:
            self.late_snapshot_only.discard(index)
            policy = Release.UNKNOWN
        record = self._sessions.get(session)
        if record is not None and record.needs_entry(index):
            pending = PendingRelease(index, policy)
            record.session_releases.append(pending)
        elif index not in self.acquired:
            self._deletable[policy].append(index)
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
        """The fast path of `KeyTable.end_entry`: two functions.

        The first takes the index of an entry with policy ANY that no session needs; it is None
        while each entry must go through `release`. The second finds a session's record.
        """
        is_plain = not self.late_snapshot_only and not self.acquired
        return self._deletable[Release.ANY].append if is_plain else None, self._sessions.get

    def release_acquired(self, index: int) -> None:
        """The machine released a keyed entry that it had acquired."""
        pending = self.acquired.pop(index)
        if pending is not None:
            self.remove_obstacle(pending)

    def release_deletion(
        self, index: int, policy: Release, session: int, deleted: Iterable[PendingRelease]
    ) -> None:
        """Release an entry that deletes its key: not before all of `deleted` are deletable."""
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
        """Release entries that had no effect: no replay misses them."""
        for index in range(first, first + count):
            policy = Release.UNKNOWN if index in self.snapshot_only_indexes else Release.ANY
            self._deletable[policy].append(index)

    def keep_alive(self, record: SessionRecord, index: int) -> None:
        """Release a keep-alive: `record` has everything that it changed."""
        policy = Release.UNKNOWN if index == self.snapshot_only_index else Release.ANY
        record.session_releases.append(PendingRelease(index, policy))

    def recheck(self, record: SessionRecord) -> None:
        """The session moved on to newer entries, or ended: look again at its pending releases.

        A session that ended is not in the table any more, and needs no entry.
        """
        session_releases, record.session_releases = record.session_releases, []
        is_open = self._sessions.get(record.session) is record
        for pending in session_releases:
            if is_open and record.needs_entry(pending.index):
                record.session_releases.append(pending)
            else:
                self.remove_obstacle(pending)

    def end_entry(self) -> None:
        """The entry is applied: accept what the machine released by hand in it."""
        if self._by_hand:
            self._accept_by_hand()
        if self.snapshot_only_indexes:
            self.snapshot_only_indexes.clear()

    def _accept_by_hand(self) -> None:
        released, self._by_hand = self._by_hand, []
        # Entry by entry, so that cuts do not show. In one entry the oldest first, for the machine
        # may release a deletion before what it deletes.
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
        """Count one obstacle less. An entry without obstacles is deletable, and its waiters have
        one obstacle less, too."""
        pending.obstacles -= 1
        if pending.obstacles:
            return
        if pending.by_hand:
            self.by_hand_done.add(pending.index)
            self._emit_by_hand(pending)
            self._release_waiting_deletions()
        else:
            self._deletable[pending.policy].append(pending.index)
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
        self._deletable[policy].append(pending.index)

    def _oldest_pending(self) -> int:
        while self.by_hand_pending and self.by_hand_pending[0] in self.by_hand_done:
            self.by_hand_done.discard(heappop(self.by_hand_pending))
        return self.by_hand_pending[0] if self.by_hand_pending else 1 << 64

    def _release_waiting_deletions(self) -> None:
        oldest = self._oldest_pending()
        while self.by_hand_waiting and self.by_hand_waiting[0][0] < oldest:
            index, policy = heappop(self.by_hand_waiting)
            self._deletable[Release.UNKNOWN if self.deletions_need_snapshot else policy].append(
                index
            )

    def take_releases(self) -> list[tuple[Release, array[int]]]:
        """The releases since the last call that the log may be told of, by policy."""
        releases = [(policy, indexes) for policy, indexes in self._deletable.items() if indexes]
        for policy, _ in releases:
            self._deletable[policy] = array("Q")
        return releases
