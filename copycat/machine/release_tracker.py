"""Which entries the machine needs no more, and which must stay although it let them go.

A released entry goes to the log at once unless something else still needs it (C19 to C21):

* its session's sequence, acknowledgement or activity stands on it (`SessionRecord.holds`);
* it is a deletion, and something that it deletes has not gone to the log yet.

An entry whose application touched a timer, or that decided something no later entry repeats, is
pinned: it goes as UNKNOWN, under a snapshot only (C20, decision 0012).
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable
from heapq import heappop, heappush

from copycat.machine.sessions import Pending, SessionRecord, SessionTable
from copycat.protocol.operations import CompactionMode
from copycat.types import Release

__all__ = ["ReleaseTracker", "is_deletion", "release_of"]

_RELEASES = {
    CompactionMode.QUORUM: Release.ANY,
    CompactionMode.FULL: Release.SETTLED,
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


def is_deletion(how: Release) -> bool:
    """Whether entries of this class may not go before what they delete."""
    return how in {Release.SEQUENTIAL, Release.UNKNOWN}


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
        self.pinned = 0
        """The newest entry that touched a timer (C20)."""
        self.pins: set[int] = set()
        """All of them since the last `settle`."""
        self.late_pins: set[int] = set()
        """Entries pinned after their application that are not released yet."""
        self.is_strict = False
        """An entry that goes with a snapshot only was released by hand, by its mode or since it
        is pinned: deletions by hand wait for a snapshot too, since nobody says what they delete.
        For ever: members take their snapshots at different entries, and must decide alike."""
        self.kept: dict[int, Pending | None] = {}
        """Keyed entries that the user acquired; the Pending once their key let them go."""
        self._out: dict[Release, array[int]] = {how: array("Q") for how in Release}
        self._by_hand: list[tuple[int, int, Release, int, bool]] = []
        """(released at, index, class, session, is pinned)"""
        self.hand_held: list[int] = []
        self.hand_gone: set[int] = set()
        self.hand_waiting: list[tuple[int, Release]] = []

    # ---- what is said while an entry is applied --------------------------------------------

    def pin_holder(self, record: SessionRecord, index: int) -> None:
        """Something was decided by what entry `index` left in `record`: it stays."""
        for pending in record.held:
            if pending.index == index:
                pending.how = Release.UNKNOWN
                self.is_strict |= pending.by_hand
                return
        self.late_pins.add(index)

    def release_by_hand(self, index: int, how: Release, session: int, *, is_pinned: bool) -> None:
        """The user's machine let a commit go."""
        self._by_hand.append((self._entry(), index, how, session, is_pinned))

    # ---- at the end of an entry, when the sessions have moved ------------------------------

    def release(self, index: int, how: Release, session: int) -> tuple[Release, Pending | None]:
        """Entry `index` is not needed by the machine. (its final class, what holds it back)"""
        if self.late_pins and index in self.late_pins:
            self.late_pins.discard(index)
            how = Release.UNKNOWN
        record = self._sessions.get(session)
        if record is not None and record.holds(index):
            pending = Pending(index, how)
            record.held.append(pending)
        elif index not in self.kept:
            self._out[how].append(index)
            return how, None
        else:
            pending = Pending(index, how)
            pending.obstacles = 0
        if index in self.kept:
            self.kept[index] = pending
            pending.obstacles += 1
        return how, pending

    def shortcut(
        self,
    ) -> tuple[Callable[[int], None] | None, Callable[[int], SessionRecord | None]]:
        """(takes an index of class ANY that no session holds, finds a session).

        The first is None while single entries must be looked at (`release`).
        """
        is_plain = not self.late_pins and not self.kept
        return self._out[Release.ANY].append if is_plain else None, self._sessions.get

    def unkeep(self, index: int) -> None:
        """The user let go of a keyed entry that it had acquired."""
        pending = self.kept.pop(index)
        if pending is not None:
            self.step(pending)

    def release_deletion(
        self, index: int, how: Release, session: int, deleted: Iterable[Pending]
    ) -> None:
        """The same of an entry that deletes: not before all of `deleted` went to the log."""
        if index in self.late_pins:
            self.late_pins.discard(index)
            how = Release.UNKNOWN
        pending = Pending(index, how)
        for other in deleted:
            if other.how >= Release.SNAPSHOT:
                pending.how = Release.UNKNOWN
            if other.obstacles:
                other.waiters.append(pending)
                pending.obstacles += 1
        if index in self.kept:
            self.kept[index] = pending
            pending.obstacles += 1
        record = self._sessions.get(session)
        if record is not None and record.holds(index):
            record.held.append(pending)
        else:
            self.step(pending)

    def without_effect(self, first: int, count: int) -> None:
        """Entries that no replay misses."""
        for index in range(first, first + count):
            how = Release.UNKNOWN if index in self.pins else Release.ANY
            self._out[how].append(index)

    def keep_alive(self, record: SessionRecord, index: int) -> None:
        """A keep-alive: all that it did is in `record`."""
        how = Release.UNKNOWN if index == self.pinned else Release.ANY
        record.held.append(Pending(index, how))

    def moved(self, record: SessionRecord) -> None:
        """`record` stands on newer entries, or has ended (then it is not in the table)."""
        held, record.held = record.held, []
        is_open = self._sessions.get(record.session) is record
        for pending in held:
            if is_open and record.holds(pending.index):
                record.held.append(pending)
            else:
                self.step(pending)

    def settle(self) -> None:
        """Take in what was released by hand during the entry."""
        if self._by_hand:
            self._settle_by_hand()
        if self.pins:
            self.pins.clear()

    def _settle_by_hand(self) -> None:
        released, self._by_hand = self._by_hand, []
        # Entry by entry, so that cuts do not show; in one the oldest first, for a deletion may
        # let itself go before what it deletes.
        for _, index, mode, session, is_pinned in sorted(released):
            how = mode
            if is_pinned or index in self.pins or index in self.late_pins:
                self.late_pins.discard(index)
                how = Release.UNKNOWN
            self.is_strict |= how >= Release.SNAPSHOT
            pending = Pending(index, how, by_hand=True)
            record = self._sessions.get(session)
            if record is not None and record.holds(index):
                record.held.append(pending)
                heappush(self.hand_held, index)
            else:
                self._emit_by_hand(pending)

    def step(self, pending: Pending) -> None:
        """One obstacle is gone."""
        pending.obstacles -= 1
        if pending.obstacles:
            return
        if pending.by_hand:
            self.hand_gone.add(pending.index)
            self._emit_by_hand(pending)
            self._wake()
        else:
            self._out[pending.how].append(pending.index)
        for waiter in pending.waiters:
            if pending.how >= Release.SNAPSHOT:
                waiter.how = Release.UNKNOWN
            self.step(waiter)

    def _emit_by_hand(self, pending: Pending) -> None:
        how = pending.how
        if is_deletion(how):
            if self.is_strict:
                how = Release.UNKNOWN
            if pending.index > self._oldest_held():
                heappush(self.hand_waiting, (pending.index, how))
                return
        self._out[how].append(pending.index)

    def _oldest_held(self) -> int:
        while self.hand_held and self.hand_held[0] in self.hand_gone:
            self.hand_gone.discard(heappop(self.hand_held))
        return self.hand_held[0] if self.hand_held else 1 << 64

    def _wake(self) -> None:
        oldest = self._oldest_held()
        while self.hand_waiting and self.hand_waiting[0][0] < oldest:
            index, how = heappop(self.hand_waiting)
            self._out[Release.UNKNOWN if self.is_strict else how].append(index)

    def reset(self) -> None:
        """Forget everything: a snapshot takes its place."""
        self.__init__(  # type: ignore[misc]
            self._sessions, self._entry, snapshottable=self.snapshottable
        )

    def take(self) -> list[tuple[Release, array[int]]]:
        """What the log may be told since the last time, by class."""
        found = [(how, indexes) for how, indexes in self._out.items() if indexes]
        for how, _ in found:
            self._out[how] = array("Q")
        return found
