"""The laws of cleaning: what may be a gap, in whose log, and for how long (I22, I23, F16).

`Gaps` knows which entries of one member's log are gaps, and which of them a power cut may bring
back. `CompactionLaws` judges each entry that is deleted, by the facts at the moment at which its
rewrite was frozen: the machine released it, every reply that could depend on it is acknowledged
(C21), and if it deletes something, every member has it on its disk (C23). The facts come from
outside of the member: from what its executor released, from the disks, and from the reference.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

from copycat.sim.checkers.log_history import Gap, LogHistory, violated
from copycat.storage.interface import Batch
from copycat.types import CompactionLimits, Release, TermRun

__all__ = [
    "NOTHING_GOES",
    "Cleanable",
    "CompactedMember",
    "CompactionLaws",
    "Frozen",
    "Gaps",
    "Reference",
    "Write",
    "walk",
]


class Cleanable(Protocol):
    """What is asked of a log that was cleaned (`ReplicaLog`)."""

    @property
    def first_index(self) -> int: ...
    @property
    def last_index(self) -> int: ...
    def read(self, first: int, end: int, max_bytes: int) -> Batch: ...
    def term_runs(self) -> list[TermRun]: ...


class Reference(Protocol):
    """What only the committed log can say; `SessionChecker` replays it."""

    def acknowledged_index(self) -> int:
        """Up to this index every reply of every session is acknowledged (C21)."""
        ...

    def needs_snapshot(self, index: int) -> bool:
        """Whether only a snapshot may replace the entry (C19)."""
        ...

    def key_writes(self) -> Mapping[Hashable, Sequence[Write]]:
        """By key, in order: each entry that may write it. One that expires comes twice: when
        it wrote, and when it deleted."""
        ...


class Write(NamedTuple):
    """An entry that may write a key, or deletes it.

    at: its index.  due_ms: log time after which what it wrote expires; 0 for never.
    reads: it changes what is there, if anything, and not when that expired.
    """

    at: int
    deletes: bool
    time_ms: int = 0
    due_ms: int = 0
    reads: bool = False


class Frozen(NamedTuple):
    """The facts when a rewrite of the segments from `first` to `last` was frozen."""

    limits: CompactionLimits
    is_major: bool
    first: int
    last: int
    applied: int
    durable: int
    index_after_power_loss: int
    """Every member has its log, or a snapshot, up to here on its disk, or had it before damage
    (decision 0017)."""
    acknowledged_index: int


class Gaps:
    """The gaps of one member's log: `since[index]` is the install that made it one.

    0: it is durable as long as the entries around it are, for it was appended or recovered.
    """

    def __init__(self) -> None:
        self.since: dict[int, int] = {}
        self.installs = 0
        self.durable = 0
        """Installs that a power cut does not undo any more."""
        self.unread: Frozen | None = None
        """The newest install, if the power failed before its result was read."""
        self.released: dict[int, list[tuple[int, Release]]] = {}
        """(r, class) by index: the machine of this process released the entry after entry r."""

    def note_released(self, r: int, releases: Iterable[tuple[Release, Iterable[int]]]) -> None:
        """A slice that ended with entry `r` released these."""
        for release_class, indexes in releases:
            for index in indexes:
                self.released.setdefault(index, []).append((r, release_class))

    def within(self, first: int, end: int) -> bool:
        """Whether one of the entries from `first` to `end` is a gap."""
        return bool(self.since) and any(index in self.since for index in range(first, end))

    def appended(self, first: int, end: int, gaps: Sequence[Gap]) -> None:
        """Entries and gaps from `first` to `end` are at the end of the log now."""
        if self.since:
            for index in range(first, end):
                self.since.pop(index, None)
        for gap in gaps:
            self.since.update(dict.fromkeys(range(gap.first, gap.end), 0))

    def recovered(self, gaps: set[int], front: int, proven: int) -> set[int]:
        """Which of `gaps`, the gaps above `front`, no install explains; then adopt them.

        Up to `proven` they must be what one of the installs that may be the last one on the disk
        left, all of it or nothing (F16); one install more, if the result of the last was not read.
        """
        known = {index: at for index, at in self.since.items() if front < index <= proven}
        below = {index for index in gaps if index <= proven}
        extra = below - known.keys() if self.unread is not None else set()
        if not extra:
            stages = range(self.durable, self.installs + 1)
            if all(below != {i for i, at in known.items() if at <= stage} for stage in stages):
                raise violated(
                    "I24",
                    "neither the old segments nor the new ones after a crash",
                    missing=sorted(known.keys() - below)[:8],
                    invented=sorted(below - known.keys())[:8],
                    installs=(self.durable, self.installs),
                )
        elif known.keys() - below:
            raise violated("I24", "a part of an install after a crash", gaps=len(extra))
        self.since = dict.fromkeys(gaps, 0)
        self.installs = self.durable = 0
        return extra


class CompactedMember(Protocol):
    """What is known of a member whose log is compacted (`DiskModel`)."""

    member: int
    history: LogHistory
    durable: int
    gaps: Gaps
    last_applied: Callable[[], int]
    valid_from: Callable[[], int]

    @property
    def last_index(self) -> int: ...
    @property
    def had(self) -> int: ...
    @property
    def replayed_after(self) -> int: ...


class _Nobody:
    """A reference that knows of no acknowledged reply."""

    def acknowledged_index(self) -> int:
        return 0

    def needs_snapshot(self, index: int) -> bool:
        return index > 0

    def key_writes(self) -> Mapping[Hashable, Sequence[Write]]:
        return {}


class CompactionLaws:
    """One for a world."""

    def __init__(self, disk_models: Sequence[CompactedMember], reference: Reference) -> None:
        self._disk_models = disk_models
        self._reference = reference

    def freeze(
        self,
        member: CompactedMember,
        limits: CompactionLimits,
        where: tuple[int, int],
        *,
        is_major: bool,
    ) -> Frozen:
        """The facts now. C22: nothing is deleted above what is applied and durable, and
        nothing at all while the log is replayed."""
        applied = member.last_applied()
        valid_from = member.valid_from()
        if limits.horizon > (min(applied, member.durable) if applied >= valid_from else 0):
            raise violated(
                "I23",
                "a cleaning above its horizon",
                member=member.member,
                limits=limits,
                applied=applied,
                durable=member.durable,
                valid_from=valid_from,
            )
        return Frozen(
            limits,
            is_major,
            *where,
            applied,
            member.durable,
            min((one.had for one in self._disk_models), default=0),
            self._reference.acknowledged_index(),
        )

    def dropped(self, member: CompactedMember, frozen: Frozen, deleted: Mapping[int, int]) -> None:
        """`deleted` (index: valid_from of its gap) left the log with a rewrite."""
        for index, valid_from in deleted.items():
            release_class, r = self._judge(member, frozen, index)
            if valid_from < r:
                raise violated(
                    "I23",
                    "a gap that is said to be right before what made up for it",
                    member=member.member,
                    index=index,
                    valid_from=valid_from,
                    released_at=r,
                )
            before = member.history.deletions.get(index, release_class)
            member.history.deletions[index] = max(release_class, before)
        self.check_order(member)

    def _judge(self, member: CompactedMember, frozen: Frozen, index: int) -> tuple[Release, int]:
        """(class, released at) by which `index` may be deleted; a violation if it may not."""
        releases = member.gaps.released.get(index, [])
        known = [(r, release_class) for r, release_class in releases if r <= frozen.applied]
        rule, why = "I23", ""
        if index > min(frozen.limits.horizon, frozen.applied, frozen.durable):
            why = "an entry was deleted that is above the horizon"
        elif self._reference.needs_snapshot(index):
            why = "an entry was deleted that a session or the cluster stands on (C19)"
        elif not known:
            why = "an entry was deleted that the machine still needs"
        elif all(r > frozen.acknowledged_index for r, _ in known):
            why = "an entry was deleted before the replies were acknowledged (C21)"
        else:
            known = [
                (r, release_class) for r, release_class in known if r <= frozen.acknowledged_index
            ]
            for r, release_class in sorted(known, key=lambda one: one[1]):
                if release_class is Release.ANY:
                    return release_class, r
                if (
                    release_class in {Release.STABLE, Release.SEQUENTIAL}
                    and index <= frozen.index_after_power_loss
                ):
                    if release_class is Release.STABLE or frozen.is_major:
                        return release_class, r
                    why = "a minor compaction deleted a deletion"
            if not why and any(release_class < Release.SNAPSHOT for _, release_class in known):
                rule, why = "I22", "a deletion was deleted that some member does not have (C23)"
            why = why or "an entry was deleted that only a snapshot may replace"
        raise violated(
            rule, why, member=member.member, index=index, released=releases, frozen=frozen
        )

    def appended(self, member: CompactedMember, gaps: Sequence[Gap]) -> None:
        """A member is sent gaps: only where another log has a gap, and never of a deletion
        (C23)."""
        deletions = member.history.deletions
        for gap in gaps:
            for index in range(gap.first, gap.end):
                release_class = deletions.get(index)
                if release_class is None:
                    raise violated(
                        "I23", "a gap that nobody made", member=member.member, index=index
                    )
                if release_class is not Release.ANY:
                    raise violated(
                        "I22",
                        "a member is fed around a deletion",
                        member=member.member,
                        index=index,
                    )

    def check_order(self, member: CompactedMember) -> None:
        """A deletion is never deleted before what it deleted, or a replay brings that back.

        Entries that an earlier deletion in the log deletes too need not be checked for a later
        one, nor those that expired before.
        """
        gaps, front = member.gaps.since, member.replayed_after
        if not gaps:
            return
        for key, writes in self._reference.key_writes().items():
            there: Write | None = None
            for write in writes:
                if write.at > member.last_index:
                    continue
                if write.at <= front or write.at not in gaps:
                    if not write.reads or there is None:
                        there = None if write.deletes or write.at <= front else write
                elif write.deletes and there and not 0 < there.due_ms < write.time_ms:
                    raise violated(
                        "I22",
                        "a deletion was deleted before what it deletes",
                        member=member.member,
                        key=key,
                        deletion=write,
                        there=there,
                    )


NOTHING_GOES = CompactionLaws((), _Nobody())
"""Where nobody says which entries may be deleted."""


def walk(log: Cleanable, first: int, end: int) -> Iterator[Batch]:
    """Batches of all that the log holds from `first` to `end`."""
    while first < end:
        batch = log.read(first, end, 1 << 20)
        yield batch
        first = batch.span.end
