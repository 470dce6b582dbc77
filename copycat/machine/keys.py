"""Release by key: which entry is the newest of each key, and when the key expires.

A keyed command overwrites its key blindly (C21), so it releases the entry before it. A tombstone
and an expiry delete: their entries are deleted later than those that they delete (C23). The
entry of a command that reads its key, or that raised, stays until the key is next overwritten.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from heapq import heapify, heappop, heappush
from typing import Any

import msgspec

from copycat.errors import ApplicationError
from copycat.machine.keyed import Keyed, Special
from copycat.machine.release_tracker import ReleaseTracker
from copycat.machine.sessions import PendingRelease
from copycat.machine.timers import duration_ms
from copycat.protocol.operations import Operation
from copycat.types import Release

__all__ = ["KeyEntry", "KeyTable", "Row"]


class KeyEntry(msgspec.Struct, gc=False):
    """A keyed entry that is live, or that is to be released at the end of the entry at hand.

    The garbage collector does not look at it: there may be millions, and none is in a cycle.
    """

    index: int
    policy: Release
    session: int
    key: Hashable
    deletes: bool = False
    """The entry deletes its key: it is deleted later than what it deletes."""


_STALE_MAX = 64
"""Expiries in the heap beyond twice those that are due, before it is swept."""
_ANY = Release.ANY

Row = tuple[Callable[..., Any], Callable[[Any], tuple[Any, ...]], Keyed]


class KeyTable:
    """The keys of one machine, in one key space."""

    def __init__(
        self,
        tracker: ReleaseTracker,
        entry_ms: Callable[[], int],
        log_error: Callable[[object, BaseException], None],
    ) -> None:
        """log_error: is given what a key's own __hash__ or __eq__ raised, with its place."""
        self._log_error = log_error
        self._release_tracker = tracker
        self._entry_ms = entry_ms
        self.latest: dict[Hashable, KeyEntry] = {}
        self.dependents: dict[Hashable, list[KeyEntry]] = {}
        """Per key: further entries to release together with the latest one when the key is next
        overwritten."""
        self.expiries: dict[Hashable, tuple[int, int]] = {}
        """(due_ms, index) of the keys that will expire."""
        self._heap: list[tuple[int, int, Hashable]] = []
        self._queue: list[KeyEntry] = []
        self.pending_releases: dict[Hashable, list[PendingRelease]] = {}
        """Per key: released entries that may still be in the log when the key is deleted."""
        self.snapshot_only: set[Hashable] = set()
        """Keys with an entry that needs a snapshot to be deleted: their deletion needs one too."""

    # ---- while an entry is applied ---------------------------------------------------------

    def perform(self, index: int, session: int, operation: Operation[Any], row: Row) -> Any:
        """Call the handler and move the key. Whatever is raised is the command's result."""
        handler, arguments, (key_of, policy, special) = row
        key = key_of(operation)
        try:
            old = self.latest.get(key)
        except TypeError:
            raise ApplicationError(_unhashable(operation, key)) from None
        if special is not None:
            call = handler, arguments
            return self._perform_special(operation, call, special, index, policy, session, key)
        try:
            result = handler(*arguments(operation))
        except BaseException:
            self._add_dependent(key, self._entry(index, policy, session, key))
            raise
        if self._release_tracker.snapshot_only_index == index:
            policy = Release.UNKNOWN
        # First what may raise (the key's __hash__ and __eq__): then nothing is released.
        self.latest[key] = KeyEntry(index, policy, session, key)
        if self.dependents or self.expiries:
            self._forget(key)
        if old is not None:
            self._queue.append(old)
        return result

    def _perform_special(
        self,
        operation: Operation[Any],
        call: tuple[Callable[..., Any], Callable[[Any], tuple[Any, ...]]],
        special: Special,
        index: int,
        policy: Release,
        session: int,
        key: Hashable,
    ) -> Any:
        handler, arguments = call
        if special.policy is not None:
            policy = special.policy(operation)
        delay = None if special.expires is None else special.expires(operation)
        due_ms = 0 if delay is None else self._entry_ms() + duration_ms("expires", delay, 0)
        try:
            result = handler(*arguments(operation))
        except BaseException:
            self._add_dependent(key, self._entry(index, policy, session, key))
            raise
        entry = self._entry(index, policy, session, key)
        if special.reads:
            self._add_dependent(key, entry)
            return result
        old = self.latest.pop(key, None)
        if old is not None:
            self._queue.append(old)
        self._forget(key)
        if special.is_tombstone:
            entry.deletes = True
            self._queue.append(entry)
            return result
        self.latest[key] = entry
        if delay is not None:
            self.expiries[key] = (due_ms, index)
            heappush(self._heap, (due_ms, index, key))
            if len(self._heap) > 2 * len(self.expiries) + _STALE_MAX:
                self._sweep()
        return result

    def _sweep(self) -> None:
        """Take out what was overwritten before it was due, or the heap grows with every write."""
        self._heap = [(due_ms, index, key) for key, (due_ms, index) in self.expiries.items()]
        heapify(self._heap)

    def _forget(self, key: Hashable) -> None:
        """The key's earlier value has ended: release its dependents, and drop its expiry."""
        self._queue += self.dependents.pop(key, ())
        self.expiries.pop(key, None)

    def _entry(self, index: int, policy: Release, session: int, key: Hashable) -> KeyEntry:
        if self._release_tracker.snapshot_only_index == index:
            policy = Release.UNKNOWN
        return KeyEntry(index, policy, session, key)

    def _add_dependent(self, key: Hashable, entry: KeyEntry) -> None:
        self.dependents.setdefault(key, []).append(entry)

    def next_expired(self, now_ms: int) -> tuple[int, Hashable] | None:
        """(due_ms, key) of the next key whose time is over; it is forgotten now."""
        heap, expiries = self._heap, self.expiries
        while heap and heap[0][0] < now_ms:
            due_ms, index, key = heappop(heap)
            try:
                if expiries.get(key) == (due_ms, index):
                    del expiries[key]
                    self._expire(key)
                    return due_ms, key
            except BaseException as error:  # noqa: BLE001  (the key's own __eq__)
                self._log_error("a key that expires", error)
        return None

    def _expire(self, key: Hashable) -> None:
        entry = self.latest.pop(key)
        dependents = self.dependents.pop(key, [])
        # The deletion is older than its dependents, so order does not protect it: only a
        # snapshot does.
        if dependents:
            entry.policy = Release.UNKNOWN
        for other in dependents:
            other.policy = Release.UNKNOWN
        entry.deletes = True
        self._queue += [*dependents, entry]

    @property
    def next_ms(self) -> int:
        """The first log time at which a key expires; 0 when none will."""
        heap = self._heap
        try:
            while heap and self.expiries.get(heap[0][2]) != heap[0][:2]:
                heappop(heap)
        except BaseException as error:  # noqa: BLE001  (the key's own __eq__)
            self._log_error("a key that expires", error)  # early is harmless: nothing expires then
        return heap[0][0] + 1 if heap else 0

    # ---- at the end of an entry ------------------------------------------------------------

    def end_entry(self) -> None:
        """Hand the entries that were released to the tracker, in the order of their release."""
        queue = self._queue
        if not queue:
            return
        tracker = self._release_tracker
        at_once, get = tracker.shortcut()
        owner, entries_needed = -1, (0, 0, 0)
        for entry in queue:
            index, session = entry.index, entry.session
            if session != owner:
                record, owner = get(session), session
                entries_needed = (0, 0, 0) if record is None else record.entries_needed
            if (
                entry.policy is _ANY
                and not entry.deletes
                and at_once is not None
                and index not in entries_needed
            ):
                at_once(index)  # nearly all of them
                continue
            try:
                if entry.deletes:
                    self._delete(entry)
                else:
                    self._supersede(entry)
            except BaseException as error:  # noqa: BLE001  (the key's own __hash__ or __eq__)
                self._log_error("a key that is released", error)  # the entry stays in the log
        self._queue = []

    def _supersede(self, entry: KeyEntry) -> None:
        """A later entry took the place of this one."""
        key = entry.key
        policy, pending = self._release_tracker.release(entry.index, entry.policy, entry.session)
        if pending is not None:
            self._prune(key)
            self.pending_releases.setdefault(key, []).append(pending)
        if policy >= Release.SNAPSHOT:
            self.snapshot_only.add(key)

    def _prune(self, key: Hashable) -> None:
        """Forget the key's entries that were released to the log since."""
        chain = self.pending_releases.pop(key, [])
        if any(other.policy >= Release.SNAPSHOT for other in chain if not other.obstacles):
            self.snapshot_only.add(key)
        rest = [other for other in chain if other.obstacles]
        if rest:
            self.pending_releases[key] = rest

    def _delete(self, entry: KeyEntry) -> None:
        """This entry deleted its key: it waits for the released entries of the key."""
        key = entry.key
        needs_snapshot = key in self.snapshot_only or entry.policy > Release.SEQUENTIAL
        self.snapshot_only.discard(key)
        final = Release.UNKNOWN if needs_snapshot else Release.SEQUENTIAL
        deleted = self.pending_releases.pop(key, ())
        self._release_tracker.release_deletion(entry.index, final, entry.session, deleted)

    # ---- what the digest and a snapshot see ------------------------------------------------

    def rows(self) -> list[tuple[int, int]]:
        """(index, due_ms or -1) of the newest entry of every key, by index: part of the digest."""
        due_of = {index: due_ms for due_ms, index in self.expiries.values()}
        live = sorted(entry.index for entry in self.latest.values())
        return [(index, due_of.get(index, -1)) for index in live]

    def restore(self, rows: list[tuple[KeyEntry, int]]) -> None:
        """(entry, due_ms or -1) of each key of a snapshot, in place of everything."""
        self.latest = {entry.key: entry for entry, _ in rows}
        self.expiries = {entry.key: (due_ms, entry.index) for entry, due_ms in rows if due_ms >= 0}
        self._sweep()
        self.dependents.clear()
        self._queue.clear()

    def restore_releases(
        self, pending: dict[Hashable, list[PendingRelease]], snapshot_only: set[Hashable]
    ) -> None:
        """The released entries of a snapshot that deletions wait for, in place of everything."""
        self.pending_releases = pending
        self.snapshot_only = snapshot_only

    def drop_dependents(self) -> None:
        """A snapshot is taken: it covers the dependents of every key, so they are not counted on.

        If the snapshot is never completed such entries stay, and what deletes them must too.
        """
        for key in list(self.pending_releases):
            self._prune(key)
        self.snapshot_only.update(self.dependents)
        self.dependents.clear()


def _unhashable(operation: Operation[Any], key: object) -> str:
    name = operation.__operation_name__
    return f"{name}: its key is a {type(key).__name__}, which cannot be hashed"
