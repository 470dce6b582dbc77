"""The log under watch: what each member's disk really holds, kept beside the member.

`WatchedLog` and `WatchedHardState` stand between the replica and the native log. They change
nothing; they see every append, truncation and sync, and keep a `Shadow` of the directory that
outlives the member's process. I3, I5, I10 and I24 are decided against the shadow.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from copycat.errors import InvariantError
from copycat.log.interface import Batch, HardStateStore, ReplicaLog, SaveTicket, SyncTicket
from copycat.types import EntryId, MemberId, TermRun

__all__ = ["LogHistory", "Shadow", "WatchedHardState", "WatchedLog", "violated"]


def violated(rule: str, message: str, **values: object) -> InvariantError:
    """The error of a broken rule; `rule` is its number in faults.md section 3."""
    detail = ", ".join(f"{name}={value!r}" for name, value in values.items())
    return InvariantError(f"{rule}: {message} ({detail})", rule=rule)


class LogHistory:
    """Every entry that was ever appended anywhere: (index, term) names one content (I5)."""

    def __init__(self) -> None:
        self._seen: dict[tuple[int, int], tuple[int, int]] = {}

    def appended(self, who: int, prev_term: int, frames: Sequence[tuple[int, int, int]]) -> None:
        """`frames` (index, term, crc) were appended by `who` after an entry of prev_term."""
        seen = self._seen
        for index, term, crc in frames:
            content = (crc, prev_term)
            if seen.setdefault((index, term), content) != content:
                raise violated(
                    "I5",
                    "one (index, term), two contents or predecessors",
                    member=who,
                    index=index,
                    term=term,
                    crc_and_prev_term=content,
                    before=seen[(index, term)],
                )
            prev_term = term

    def require_known(self, who: int, index: int, prev_term: int, term: int, crc: int) -> None:
        """A recovered entry must once have been appended by somebody (I24)."""
        if self._seen.get((index, term)) != (crc, prev_term):
            raise violated(
                "I24",
                "recovery invented an entry",
                member=who,
                index=index,
                term=term,
                prev_term=prev_term,
                crc=crc,
                known=self._seen.get((index, term)),
            )


class Shadow:
    """What one member's directory holds, as far as an observer outside can know.

    entries: (term, crc) of index 1, 2, ...; `durable`: a power cut now keeps at least these.
    """

    def __init__(self, member: int, history: LogHistory) -> None:
        self.member = member
        self.history = history
        self.entries: list[tuple[int, int]] = []
        self.durable = 0
        self.promised = 0
        """The highest match_index that left this member and was not truncated since."""
        self.hard_state = (0, 0)
        """Durable (term, vote)."""
        self.saving: list[tuple[int, int]] = []
        """Saves that were begun and whose end is not known: a crash keeps any of them."""
        self.role: Callable[[], tuple[bool, int]] = lambda: (False, 0)
        """Whether the member leads, and its commit index, asked at the very moment."""
        self.truncations = 0
        self.tickets: list[_WatchedSync] = []

    @property
    def last_index(self) -> int:
        return len(self.entries)

    @property
    def term_floor(self) -> int:
        """The least term in which this member wakes up after a power cut now."""
        return max(self.hard_state[0], self.term_at(self.durable))

    def term_at(self, index: int) -> int:
        """Term of the entry at `index`; 0 before the first."""
        return self.entries[index - 1][0] if index else 0

    def announce(self, batch: Batch) -> list[tuple[int, int, int]]:
        """These frames may be on the disk from now on, even if the append does not return."""
        frames = batch.checksums()
        first = self.last_index + 1
        if [index for index, _, _ in frames] != list(range(first, first + len(frames))):
            raise violated("I4", "append not at the end", member=self.member, last=first - 1)
        prev_term = self.term_at(self.last_index)
        self.history.appended(self.member, prev_term, frames)
        return frames

    def append(self, frames: Sequence[tuple[int, int, int]]) -> None:
        self.entries.extend([(term, crc) for _, term, crc in frames])

    def truncate(self, after: int) -> None:
        leads, commit_index = self.role()
        if after < commit_index:
            raise violated(
                "I10",
                "truncation below the commit index",
                member=self.member,
                after=after,
                commit_index=commit_index,
            )
        if leads:
            raise violated("I10", "a leader truncates its own log", member=self.member)
        del self.entries[after:]
        self.truncations += 1
        self.durable = min(self.durable, after)
        self.promised = min(self.promised, after)
        for ticket in self.tickets:
            ticket.upto = min(ticket.upto, after)

    def crashed(self) -> None:
        """The process is gone: nothing in flight will be reported any more."""
        self.tickets.clear()
        self.role = lambda: (False, 0)

    def recovered(
        self, frames: Sequence[tuple[int, int, int]], hard_state: tuple[int, int]
    ) -> None:
        """Compare what an open found with what had to be there (I3, I24); then believe it."""
        found = [(term, crc) for _, term, crc in frames]
        kept = self.entries[: self.durable]
        if found[: self.durable] != kept:
            lost = next(
                (at for at, one in enumerate(kept) if at >= len(found) or found[at] != one), 0
            )
            raise violated(
                "I3" if self.promised > lost else "I24",
                "a durable entry is gone after a crash",
                member=self.member,
                index=lost + 1,
                durable=self.durable,
                promised=self.promised,
                recovered_last=len(found),
            )
        for at in range(self.durable, len(found)):
            index, term, crc = frames[at]
            prev_term = found[at - 1][0] if at else 0
            self.history.require_known(self.member, index, prev_term, term, crc)
        if hard_state not in (self.hard_state, *self.saving):
            raise violated(
                "I24",
                "recovery found a hard state that was never saved, or an older one",
                member=self.member,
                found=hard_state,
                durable=self.hard_state,
                in_flight=self.saving,
            )
        self.entries = found
        self.durable = len(found)
        self.hard_state = hard_state
        self.saving.clear()


class _WatchedSync:
    """A sync ticket that tells the shadow what became durable when it ran."""

    def __init__(self, inner: SyncTicket, shadow: Shadow) -> None:
        self.inner = inner
        self.upto = shadow.last_index
        self._shadow = shadow
        shadow.tickets.append(self)

    def run(self) -> None:
        self.inner.run()
        shadow = self._shadow
        if self in shadow.tickets:
            shadow.tickets.remove(self)
            shadow.durable = max(shadow.durable, self.upto)


class WatchedLog:
    """A `ReplicaLog` that passes everything on and lets the shadow see it."""

    def __init__(self, inner: ReplicaLog, shadow: Shadow) -> None:
        self.inner = inner
        self._shadow = shadow

    @property
    def first_index(self) -> int:
        return self.inner.first_index

    @property
    def last_index(self) -> int:
        return self.inner.last_index

    @property
    def last_entry(self) -> EntryId:
        return self.inner.last_entry

    @property
    def before(self) -> EntryId:
        return self.inner.before

    @property
    def valid_from(self) -> int:
        return self.inner.valid_from

    @property
    def durable_index(self) -> int:
        return self.inner.durable_index

    def read(self, first: int, end: int, max_bytes: int) -> Batch:
        return self.inner.read(first, end, max_bytes)

    def term_runs(self) -> list[TermRun]:
        return self.inner.term_runs()

    def has_room(self, nbytes: int, *, entries: int = 1, in_new_segment: bool = False) -> bool:
        return self.inner.has_room(nbytes, entries=entries, in_new_segment=in_new_segment)

    def wants_sync(self) -> bool:
        return self.inner.wants_sync()

    def wants_spare(self) -> bool:
        return self.inner.wants_spare()

    def prepare_spare(self) -> None:
        self.inner.prepare_spare()

    def trim(self, before: int) -> None:
        self.inner.trim(before)

    def append(self, batch: Batch) -> None:
        frames = self._shadow.announce(batch)
        self.inner.append(batch)
        self._shadow.append(frames)

    def begin_sync(self) -> SyncTicket:
        return _WatchedSync(self.inner.begin_sync(), self._shadow)

    def end_sync(self, ticket: SyncTicket) -> int:
        durable = self.inner.end_sync(ticket.inner if isinstance(ticket, _WatchedSync) else ticket)
        if durable > self._shadow.durable:
            raise violated(
                "I3",
                "the log claims more than was synced",
                member=self._shadow.member,
                durable_index=durable,
                platter=self._shadow.durable,
            )
        return durable

    def truncate(self, after: int) -> None:
        self._shadow.truncate(after)
        self.inner.truncate(after)

    def reset(self, entry: EntryId) -> None:
        self.inner.reset(entry)

    def mark_idle(self) -> None:
        self.inner.mark_idle()

    def close(self) -> None:
        self.inner.close()


class _WatchedSave:
    """A save ticket that tells the shadow which promise is now on the disk."""

    def __init__(self, inner: SaveTicket, shadow: Shadow, promise: tuple[int, int]) -> None:
        self.inner = inner
        self._shadow = shadow
        self._promise = promise
        shadow.saving.append(promise)

    def run(self) -> None:
        self.inner.run()
        shadow = self._shadow
        if self._promise in shadow.saving:
            del shadow.saving[: shadow.saving.index(self._promise) + 1]
            shadow.hard_state = self._promise


class WatchedHardState:
    """A `HardStateStore` that lets the shadow see every promise."""

    def __init__(self, inner: HardStateStore, shadow: Shadow) -> None:
        self.inner = inner
        self._shadow = shadow

    @property
    def current_term(self) -> int:
        return self.inner.current_term

    @property
    def voted_for(self) -> MemberId:
        return self.inner.voted_for

    def begin_save(self, term: int, voted_for: MemberId) -> SaveTicket:
        before = self._shadow.saving[-1] if self._shadow.saving else self._shadow.hard_state
        if term < before[0] or (term == before[0] and before[1] not in (0, voted_for)):
            raise violated(
                "I2",
                "the hard state goes back or changes its vote",
                member=self._shadow.member,
                before=before,
                after=(term, voted_for),
            )
        return _WatchedSave(
            self.inner.begin_save(term, voted_for), self._shadow, (term, voted_for)
        )

    def end_save(self, ticket: SaveTicket) -> None:
        self.inner.end_save(ticket.inner if isinstance(ticket, _WatchedSave) else ticket)
