"""A cleaned member and a replay of the whole history: from `valid_from` on they are equal.

At the end of a seed in which something was cleaned, every member's disk is opened once more, as
after a power cut, and what it holds is replayed into a fresh executor: from each snapshot that it
keeps, and from the first entry if the log begins there. The replay applies every entry that was
ever committed. State, sessions, unacknowledged replies, keys and log time must be equal at every
place that is looked at, once a replay has passed the gaps before it (I20, I23).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from copycat.machine.session_executor import SessionExecutor
from copycat.sim.checkers.disk_model import DiskModel
from copycat.sim.checkers.sessions import SessionChecker
from copycat.sim.model import SimMachine
from copycat.sim.world import Trace
from copycat.storage import Batch, interface
from copycat.types import CompactionLimits, Release, Run, Span

__all__ = ["CommittedLog", "check_replay", "what_must_go"]

PLACES = 12
"""At so many indexes, about evenly spread, digests are compared, and at the ends of replays."""

COMMITTED_LOG = -1
"""The member number of the whole history in what a checker says."""

Reader = Callable[[int, int], Iterator[list[Run]]]
"""The runs of [first, end) of a log, batch by batch."""


def what_must_go(
    log: interface.ReplicaLog, disk_model: DiskModel, upto: int, acknowledged_index: int
) -> set[int]:
    """What a major compaction of this member, asked for now, has no reason to keep: released for
    good by this process, acknowledged, durable, and in a sealed segment of the front.

    upto: the last entry that its machine applied.
    """
    if upto > log.durable_index:
        return set()  # acknowledgements above what is durable do not count (C22)
    last = 0
    for segment in log.segment_stats(CompactionLimits(upto, 0, 0)):
        if not segment.is_sealed or segment.last_index > upto:
            break
        last = segment.last_index
    return {
        index
        for index, releases in disk_model.gaps.released.items()
        if log.first_index <= index <= last
        and any(
            r <= min(acknowledged_index, upto) and release_class is Release.ANY
            for r, release_class in releases
        )
    }


class Walked(Protocol):
    """What is read of a member's log."""

    @property
    def first_index(self) -> int: ...
    @property
    def valid_from(self) -> int: ...
    def read(self, first: int, end: int, max_bytes: int) -> interface.Batch: ...


class CommittedLog:
    """The whole history, as it was committed."""

    def __init__(self) -> None:
        self._batches: list[tuple[Span, bytes]] = []

    def committed(self, batch: interface.Batch) -> None:
        """The next batch. Copied: what a log maps may be lost with a power cut."""
        self._batches.append((batch.span, bytes(batch)))

    def read(self, first: int, end: int) -> Iterator[list[Run]]:
        """The runs of [first, end)."""
        for span, data in self._batches:
            begin, stop = max(first, span.first), min(end, span.end)
            if begin < stop:
                yield Batch.from_wire(data, span).runs(begin, stop)


def check_replay(
    disks: Sequence[tuple[int, Walked, Sequence[bytes]]],
    committed_log: CommittedLog,
    last_index: int,
    sessions: SessionChecker,
    trace: Trace,
) -> None:
    """Compare every member's disk with the whole history; InvariantError (I20).

    disks: of each member its number, its log as a restart would find it, and the snapshots that
    the restart could begin with. last_index: of what is committed.
    """
    end = last_index
    step = max(1, end // PLACES)
    places = {end, *range(step, end, step), *(log.valid_from for _, log, _ in disks)}
    compare = _Compare(sessions, sorted(places - {0}))
    compare.replay(COMMITTED_LOG, SessionExecutor(SimMachine()), committed_log.read)
    for number, log, snapshots in disks:
        reader = _reader(log)
        for data in snapshots:
            executor = SessionExecutor(SimMachine())
            executor.install(data)
            compare.replay(number, executor, reader)
            trace.mark("replay from a snapshot")
        # With snapshots, what a restart forgot to release lies below them: a log with gaps gives
        # no right replay from its first entry on (F17).
        if log.first_index == 1 and not (snapshots and log.valid_from):
            compare.replay(number, SessionExecutor(SimMachine()), reader)
            trace.mark("replay from the first entry")


def _reader(log: Walked) -> Reader:
    def read(first: int, end: int) -> Iterator[list[Run]]:
        while first < end:
            batch = log.read(first, end, 1 << 20)
            yield batch.runs(first, batch.span.end)
            first = batch.span.end

    return read


class _Compare:
    """Replays, and shows each digest that a log with gaps gives rightly."""

    def __init__(self, sessions: SessionChecker, stops: Sequence[int]) -> None:
        self._sessions = sessions
        self._stops = stops

    def replay(self, who: int, executor: SessionExecutor, read: Reader) -> None:
        for stop in self._stops:
            if stop <= executor.last_applied:
                continue
            for runs in read(executor.last_applied + 1, stop + 1):
                executor.apply(runs)
            if executor.last_applied >= executor.valid_from:
                self._sessions.digest(who, stop, executor.digest())
