"""Release by key: which entry is the newest of each key, and when it is gone by itself.

A keyed command overwrites its key blindly (C21), so it releases the entry before it. A tombstone
and an expiry delete: they go later than what they delete (C23). A command that reads its key,
or one that raised, stays until the key is overwritten the next time.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from heapq import heapify, heappop, heappush
from typing import Any

from copycat.errors import ApplicationError
from copycat.machine.keyed import Keyed, Special
from copycat.machine.release_tracker import ReleaseTracker
from copycat.machine.sessions import Pending
from copycat.machine.timers import duration_ms
from copycat.protocol.operations import Operation
from copycat.types import Release

__all__ = ["Entry", "KeyTable", "Row"]

Entry = tuple[int, int, int, Hashable]
"""(index, class, session, key) of a keyed entry that is live. Of plain values: the collector of
garbage does not look at it."""

_STALE_MAX = 64
"""Expiries in the heap beyond twice those that are due, before it is swept."""
_DELETES = 8
"""Added to the class of an entry that deletes its key."""
_ANY = int(Release.ANY)
_SEQUENTIAL = int(Release.SEQUENTIAL)
_UNKNOWN = int(Release.UNKNOWN)

Row = tuple[Callable[..., Any], Callable[[Any], tuple[Any, ...]], Keyed]


class KeyTable:
    """The keys of one machine, in one key space."""

    def __init__(
        self,
        ledger: ReleaseTracker,
        entry_ms: Callable[[], int],
        raised: Callable[[object, BaseException], None],
    ) -> None:
        """raised: is given what a key's own __hash__ or __eq__ raised, with its place."""
        self._raised = raised
        self._ledger = ledger
        self._entry_ms = entry_ms
        self.latest: dict[Hashable, Entry] = {}
        self.joined: dict[Hashable, list[Entry]] = {}
        """Of some keys: entries that the next overwrite releases together with the latest."""
        self.dues: dict[Hashable, tuple[int, int]] = {}
        """(due_ms, index) of the keys that will expire."""
        self._heap: list[tuple[int, int, Hashable]] = []
        self._queue: list[Entry] = []
        self.chains: dict[Hashable, list[Pending]] = {}
        """Of some keys: released entries that may still be in the log when it is deleted."""
        self.strict: set[Hashable] = set()
        """Keys of which an entry goes with a snapshot only: so does their deletion."""

    # ---- while an entry is applied ---------------------------------------------------------

    def perform(self, index: int, session: int, operation: Operation[Any], row: Row) -> Any:
        """Call the handler and move the key. Whatever is raised is the command's result."""
        handler, arguments, (key_of, how, special) = row
        key = key_of(operation)
        try:
            old = self.latest.get(key)
        except TypeError:
            raise ApplicationError(_unhashable(operation, key)) from None
        if special is not None:
            call = handler, arguments
            return self._perform_special(operation, call, (index, how, session, key), special)
        try:
            result = handler(*arguments(operation))
        except BaseException:
            self._join(key, self._entry(index, how, session, key))
            raise
        if self._ledger.pinned == index:
            how = _UNKNOWN
        # First what may raise (the key's __hash__ and __eq__): then nothing is released.
        self.latest[key] = (index, how, session, key)
        if self.joined or self.dues:
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
        index, how, session, key = entry
        handler, arguments = call
        if special.how is not None:
            how = special.how(operation)
        delay = None if special.expires is None else special.expires(operation)
        due_ms = 0 if delay is None else self._entry_ms() + duration_ms("expires", delay, 0)
        try:
            result = handler(*arguments(operation))
        except BaseException:
            self._join(key, self._entry(index, how, session, key))
            raise
        entry = self._entry(index, how, session, key)
        if special.reads:
            self._join(key, entry)
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
            self.dues[key] = (due_ms, index)
            heappush(self._heap, (due_ms, index, key))
            if len(self._heap) > 2 * len(self.dues) + _STALE_MAX:
                self._sweep()
        return result

    def _sweep(self) -> None:
        """Take out what was overwritten before it was due, or the heap grows with every write."""
        self._heap = [(due_ms, index, key) for key, (due_ms, index) in self.dues.items()]
        heapify(self._heap)

    def _forget(self, key: Hashable) -> None:
        """What else belonged to what the key was."""
        self._queue += self.joined.pop(key, ())
        self.dues.pop(key, None)

    def _entry(self, index: int, how: int, session: int, key: Hashable) -> Entry:
        return index, _UNKNOWN if self._ledger.pinned == index else how, session, key

    def _join(self, key: Hashable, entry: Entry) -> None:
        self.joined.setdefault(key, []).append(entry)

    def next_expired(self, now_ms: int) -> tuple[int, Hashable] | None:
        """(due_ms, key) of the next key whose time is over; it is forgotten now."""
        heap, dues = self._heap, self.dues
        while heap and heap[0][0] < now_ms:
            due_ms, index, key = heappop(heap)
            try:
                if dues.get(key) == (due_ms, index):
                    del dues[key]
                    self._expire(key)
                    return due_ms, key
            except BaseException as error:  # noqa: BLE001  (the key's own __eq__)
                self._raised("a key that expires", error)
        return None

    def _expire(self, key: Hashable) -> None:
        index, how, session, _ = self.latest.pop(key)
        joined = self.joined.pop(key, [])
        # The deletion is older than what joined it, so order does not protect it: only a
        # snapshot does.
        if joined:
            how = _UNKNOWN
        self._queue += [(other, _UNKNOWN, owner, key) for other, _, owner, _ in joined]
        self._queue.append((index, how | _DELETES, session, key))

    @property
    def next_ms(self) -> int:
        """The first log time at which a key expires; 0 when none will."""
        heap = self._heap
        try:
            while heap and self.dues.get(heap[0][2]) != heap[0][:2]:
                heappop(heap)
        except BaseException as error:  # noqa: BLE001  (the key's own __eq__)
            self._raised("a key that expires", error)  # early is harmless: nothing expires then
        return heap[0][0] + 1 if heap else 0

    # ---- at the end of an entry ------------------------------------------------------------

    def settle(self) -> None:
        """Hand the entries that were released to the ledger, in the order of their release."""
        queue = self._queue
        if not queue:
            return
        ledger = self._ledger
        at_once, get = ledger.shortcut()
        owner, stays = -1, (0, 0, 0)
        for index, how, session, key in queue:
            if session != owner:
                record, owner = get(session), session
                stays = (0, 0, 0) if record is None else record.stays
            if how == _ANY and at_once is not None and index not in stays:
                at_once(index)  # nearly all of them
                continue
            try:
                if how < _DELETES:
                    self._supersede(index, Release(how), session, key)
                else:
                    self._delete(index, how - _DELETES, session, key)
            except BaseException as error:  # noqa: BLE001  (the key's own __hash__ or __eq__)
                self._raised("a key that is released", error)  # the entry stays in the log
        self._queue = []

    def _supersede(self, index: int, how: Release, session: int, key: Hashable) -> None:
        how, pending = self._ledger.release(index, how, session)
        if pending is not None:
            self._prune(key)
            self.chains.setdefault(key, []).append(pending)
        if how >= Release.SNAPSHOT:
            self.strict.add(key)

    def _prune(self, key: Hashable) -> None:
        """Forget entries of the key that went to the log since."""
        chain = self.chains.pop(key, [])
        if any(other.how >= Release.SNAPSHOT for other in chain if not other.obstacles):
            self.strict.add(key)
        rest = [other for other in chain if other.obstacles]
        if rest:
            self.chains[key] = rest

    def _delete(self, index: int, how: int, session: int, key: Hashable) -> None:
        is_strict = key in self.strict
        self.strict.discard(key)
        final = Release.UNKNOWN if is_strict or how > _SEQUENTIAL else Release.SEQUENTIAL
        self._ledger.release_deletion(index, final, session, self.chains.pop(key, ()))

    # ---- what the digest and a snapshot see ------------------------------------------------

    def rows(self) -> list[tuple[int, int]]:
        """(index, due_ms or -1) of the newest entry of every key, by index: part of the digest."""
        due_of = {index: due_ms for due_ms, index in self.dues.values()}
        live = sorted(entry[0] for entry in self.latest.values())
        return [(index, due_of.get(index, -1)) for index in live]

    def restore(self, rows: list[tuple[Any, int, int, int, int]]) -> None:
        """(key, index, class, session, due_ms or -1) of a snapshot, in place of everything."""
        self.latest = {key: (index, how, session, key) for key, index, how, session, _ in rows}
        self.dues = {row[0]: (row[4], row[1]) for row in rows if row[4] >= 0}
        self._sweep()
        self.joined.clear()
        self._queue.clear()

    def forget_joined(self) -> None:
        """A snapshot is taken: what joined a key goes with it, so nobody has to count it.

        If the snapshot is never completed such entries stay, and what deletes them must too.
        """
        for key in list(self.chains):
            self._prune(key)
        self.strict.update(self.joined)
        self.joined.clear()


def _unhashable(operation: Operation[Any], key: object) -> str:
    name = operation.__operation_name__
    return f"{name}: its key is a {type(key).__name__}, which cannot be hashed"
