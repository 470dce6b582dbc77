"""Release by key: which entry is the newest of each key, and when the key expires.

A keyed command overwrites its key blindly (C21), so it releases the entry before it. A tombstone
and an expiry delete: their entries are deleted later than those that they delete (C23). The
entry of a command that reads its key, or that raised, stays until the key is next overwritten.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from heapq import heapify, heappop, heappush
from typing import Any

from copycat.errors import ApplicationError
from copycat.machine.keyed import Keyed, Special
from copycat.machine.release_tracker import ReleaseTracker
from copycat.machine.sessions import PendingRelease
from copycat.machine.timers import duration_ms
from copycat.protocol.operations import Operation
from copycat.types import Release

__all__ = ["Entry", "KeyTable", "Row"]

Entry = tuple[int, int, int, Hashable]
"""(index, policy, session, key) of a keyed entry that is live. Of plain values: the collector of
garbage does not look at it."""

_STALE_MAX = 64
"""Expiries in the heap beyond twice those that are due, before it is swept."""
_DELETES = 8
"""Added to the policy of an entry that deletes its key."""
_ANY = int(Release.ANY)
_SEQUENTIAL = int(Release.SEQUENTIAL)
_UNKNOWN = int(Release.UNKNOWN)

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
        self.latest: dict[Hashable, Entry] = {}
        self.dependents: dict[Hashable, list[Entry]] = {}
        """Per key: further entries to release together with the latest one when the key is next
        overwritten."""
        self.expiries: dict[Hashable, tuple[int, int]] = {}
        """(due_ms, index) of the keys that will expire."""
        self._heap: list[tuple[int, int, Hashable]] = []
        self._queue: list[Entry] = []
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
            return self._perform_special(operation, call, (index, policy, session, key), special)
        try:
            result = handler(*arguments(operation))
        except BaseException:
            self._add_dependent(key, self._entry(index, policy, session, key))
            raise
        if self._release_tracker.snapshot_only_index == index:
            policy = _UNKNOWN
        # First what may raise (the key's __hash__ and __eq__): then nothing is released.
        self.latest[key] = (index, policy, session, key)
        if self.dependents or self.expiries:
            self._forget(key)
        if old is not None:
            self._queue.append(old)
        return result

    def _perform_special(
        self,
        operation: Operation[Any],
        call: tuple[Callable[..., Any], Callable[[Any], tuple[Any, ...]]],
        entry: Entry,
        special: Special,
    ) -> Any:
        index, policy, session, key = entry
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
            self._queue.append((index, entry[1] | _DELETES, session, key))
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

    def _entry(self, index: int, policy: int, session: int, key: Hashable) -> Entry:
        return (
            index,
            _UNKNOWN if self._release_tracker.snapshot_only_index == index else policy,
            session,
            key,
        )

    def _add_dependent(self, key: Hashable, entry: Entry) -> None:
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
        index, policy, session, _ = self.latest.pop(key)
        dependents = self.dependents.pop(key, [])
        # The deletion is older than what joined it, so order does not protect it: only a
        # snapshot does.
        if dependents:
            policy = _UNKNOWN
        self._queue += [(other, _UNKNOWN, owner, key) for other, _, owner, _ in dependents]
        self._queue.append((index, policy | _DELETES, session, key))

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
        for index, policy, session, key in queue:
            if session != owner:
                record, owner = get(session), session
                entries_needed = (0, 0, 0) if record is None else record.entries_needed
            if policy == _ANY and at_once is not None and index not in entries_needed:
                at_once(index)  # nearly all of them
                continue
            try:
                if policy < _DELETES:
                    self._supersede(index, Release(policy), session, key)
                else:
                    self._delete(index, policy - _DELETES, session, key)
            except BaseException as error:  # noqa: BLE001  (the key's own __hash__ or __eq__)
                self._log_error("a key that is released", error)  # the entry stays in the log
        self._queue = []

    def _supersede(self, index: int, policy: Release, session: int, key: Hashable) -> None:
        policy, pending = self._release_tracker.release(index, policy, session)
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

    def _delete(self, index: int, policy: int, session: int, key: Hashable) -> None:
        needs_snapshot = key in self.snapshot_only
        self.snapshot_only.discard(key)
        final = Release.UNKNOWN if needs_snapshot or policy > _SEQUENTIAL else Release.SEQUENTIAL
        self._release_tracker.release_deletion(
            index, final, session, self.pending_releases.pop(key, ())
        )

    # ---- what the digest and a snapshot see ------------------------------------------------

    def rows(self) -> list[tuple[int, int]]:
        """(index, due_ms or -1) of the newest entry of every key, by index: part of the digest."""
        due_of = {index: due_ms for due_ms, index in self.expiries.values()}
        live = sorted(entry[0] for entry in self.latest.values())
        return [(index, due_of.get(index, -1)) for index in live]

    def restore(self, rows: list[tuple[Any, int, int, int, int]]) -> None:
        """(key, index, policy, session, due_ms or -1) of a snapshot, in place of everything."""
        self.latest = {
            key: (index, policy, session, key) for key, index, policy, session, _ in rows
        }
        self.expiries = {row[0]: (row[4], row[1]) for row in rows if row[4] >= 0}
        self._sweep()
        self.dependents.clear()
        self._queue.clear()

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
