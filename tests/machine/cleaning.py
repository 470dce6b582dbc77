"""Logs with everything that cleaning must respect, and the logs that cleaning makes of them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

from copycat.machine import Commit, Scheduled, StateMachine, command
from copycat.machine.envelope import (
    encode_close,
    encode_expire,
    encode_keep_alive,
    encode_register,
)
from copycat.machine.session_executor import SessionExecutor
from copycat.protocol.operations import CompactionMode, Operation, encode_operation
from copycat.types import EntryKind, Release, Run
from tests.machine.runs import Entry, extend

__all__ = [
    "Busy",
    "Cleaned",
    "Log",
    "clean",
    "frames",
    "full_digests",
    "gaps_of",
    "legal",
]


class Busy(StateMachine):
    """Keys, keys that expire, deletions, reads of keys, commits kept by hand, timers."""

    def __init__(self) -> None:
        self.values: dict[str, int] = {}
        self.newest: dict[str, Commit[Any]] = {}
        self.pending: dict[str, Scheduled] = {}
        self.rung: list[str] = []
        self.total = 0

    @command(key="key")
    def put(self, key: str, value: int) -> int | None:
        before = self.values.get(key)
        self.values[key] = value
        return before

    @command(key="key")
    def pick(self, key: str, value: int) -> None:
        """Raises for odd values, after having written for some."""
        if value % 4 == 3:
            self.values[key] = -value
        if value % 2:
            raise ValueError(key)
        self.values[key] = value

    @command(key="key", expires="seconds")
    def lend(self, key: str, value: int, seconds: float | None) -> None:
        self.values[key] = value

    @command(key="key", tombstone=True)
    def drop(self, key: str) -> bool:
        return self.values.pop(key, None) is not None

    @command(key="key", reads=True)
    def bump(self, key: str) -> int:
        self.values[key] = self.values.get(key, 0) + 1
        return self.values[key]

    @command(key="key")
    def alarm(self, key: str, value: int, delay: float) -> None:
        """A blind write with a timer: only a snapshot replaces its entry (C20)."""
        self.values[key] = value
        self.pending[key] = self.executor.schedule(delay, partial(self._ring, key))

    @command(key="key", tombstone=True)
    def hush(self, key: str) -> None:
        """A deletion that cancels a timer."""
        self.values.pop(key, None)
        if key in self.pending:
            self.pending.pop(key).cancel()

    def _ring(self, key: str) -> None:
        self.rung.append(f"{key}@{self.context.index}")
        self.pending.pop(key, None)

    @command(compaction=CompactionMode.RELEASE)
    def hold(self, name: str) -> None:
        """By hand: the newest commit of a name is kept, the one before released."""
        old = self.newest.get(name)
        self.newest[name] = self.commit
        if old is not None:
            old.release()

    @command(compaction=CompactionMode.SNAPSHOT)
    def shelve(self, name: str) -> None:
        """The same, and what was released goes with a snapshot only."""
        old = self.newest.get(name)
        self.newest[name] = self.commit
        if old is not None:
            old.release()

    @command(compaction=CompactionMode.TOMBSTONE)
    def let_go(self, name: str) -> None:
        """By hand: a deletion, which releases itself too."""
        old = self.newest.pop(name, None)
        if old is not None:
            old.release()
        self.commit.release()

    @command
    def count(self, step: int) -> int:
        """Never released: it goes with a snapshot."""
        self.total += step
        return self.total

    def on_key_expired(self, key: Any) -> None:
        self.values.pop(key, None)


class Log:
    """Writes what leaders write (C18, C25): no sequence is missing, and time never decreases."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.time_ms = 1000
        self.sequences: dict[int, int] = {}
        self.acked: dict[int, int] = {}
        self.active: dict[int, int] = {}
        self.clients: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self.entries)

    def add(self, kind: EntryKind, payload: bytes = b"") -> int:
        self.entries.append((kind, self.time_ms, 0, 0, 0, payload))
        return len(self.entries)

    def register(self, client_id: str) -> int:
        session = self.add(EntryKind.REGISTER, encode_register(client_id, 5000))
        old = self.clients.get(client_id)
        if old is not None:
            del self.sequences[old]
        self.clients[client_id] = session
        self.sequences[session] = self.acked[session] = 0
        self.active[session] = session
        return session

    def command(
        self, session: int, operation: Operation[Any] | bytes, *, ack: int = 0, behind: int = 0
    ) -> None:
        """ack: how many of its pending replies the client has; behind: how many of these it does
        not say, since it wrote the frame before it had them."""
        if session in self.sequences:
            done = self.sequences[session]
            self.acked[session] = min(done, self.acked[session] + ack)
            self.sequences[session] = done + 1
            sequence, acked = done + 1, max(0, self.acked[session] - behind)
            self.active[session] = len(self.entries) + 1
        else:
            sequence, acked = 1, 0
        payload = operation if isinstance(operation, bytes) else encode_operation(operation)
        entry = (EntryKind.COMMAND, self.time_ms, session, sequence, acked, payload)
        self.entries.append(entry)

    def again(self, session: int, back: int) -> None:
        """A command that is there already, as a client resends it; it says less than it knew."""
        done = [e for e in self.entries if e[0] == EntryKind.COMMAND and e[2] == session]
        if done and session in self.sequences:
            entry = done[-1 - back % len(done)]
            self.entries.append((entry[0], self.time_ms, *entry[2:]))

    def keep_alive(self, session: int, *, ack: int = 0) -> None:
        if session in self.sequences:
            self.acked[session] = min(self.sequences[session], self.acked[session] + ack)
            self.active[session] = len(self.entries) + 1
        acked = self.acked.get(session, 0)
        self.add(EntryKind.KEEP_ALIVE, encode_keep_alive(session, acked))

    def noop(self) -> None:
        index = self.add(EntryKind.NOOP)
        self.active.update(dict.fromkeys(self.sequences, index))

    def close(self, session: int) -> None:
        self.add(EntryKind.CLOSE, encode_close(session))
        self._ended(session)

    def expire(self, session: int, *, late: bool) -> None:
        """late: the session was active since the leader looked, so it has no effect."""
        seen = self.active.get(session, 0) - int(late)
        self.add(EntryKind.EXPIRE, encode_expire(session, seen))
        if not late:
            self._ended(session)

    def _ended(self, session: int) -> None:
        if self.sequences.pop(session, None) is not None:
            self.clients = {c: s for c, s in self.clients.items() if s != session}


def frames(
    entries: Sequence[Entry], gaps_: Sequence[tuple[int, int]], valid_from: int, longest: int = 1
) -> list[Run]:
    """The runs of a log in which [first, end) of every deleted range is a gap."""
    runs: list[Run] = []
    ends = dict(gaps_)
    index = 1
    while index <= len(entries):
        end = ends.get(index)
        if end is not None:
            time_ms = entries[end - 2][1]
            runs.append(Run(index, EntryKind.GAP, time_ms, 0, end, valid_from, []))
            index = end
            continue
        extend(runs, index, entries[index - 1], longest)
        index += 1
    return runs


def gaps_of(dropped: set[int]) -> list[tuple[int, int]]:
    """[first, end) of neighbouring indexes."""
    gaps: list[tuple[int, int]] = []
    for index in sorted(dropped):
        if gaps and gaps[-1][1] == index:
            gaps[-1] = (gaps[-1][0], index + 1)
        else:
            gaps.append((index, index + 1))
    return gaps


class Cleaned(NamedTuple):
    """What a whole log releases, and the acknowledged index at each index."""

    releases: list[tuple[int, int, Release]]
    """(released at, index, class)"""
    floors: list[int]


def clean(machine: StateMachine, entries: Sequence[Entry], longest: int = 1) -> Cleaned:
    """Apply all, run by run."""
    executor = SessionExecutor(machine)
    releases: list[tuple[int, int, Release]] = []
    floors = [0] * (len(entries) + 1)
    for run in frames(entries, [], 0, longest):
        outcome = executor.apply([run])
        at = outcome.last_applied
        for policy, indexes in outcome.releases:
            releases += [(at, index, policy) for index in indexes]
        floors[run.first_index : at + 1] = [executor.acknowledged_index()] * len(run.payloads)
    return Cleaned(releases, floors)


def legal(
    cleaned: Cleaned,
    horizon: int,
    deletion_floor: int,
    *,
    major: bool,
    released: set[int],
    upto: int,
) -> set[int]:
    """What one compaction within the limits may drop; without snapshots.

    wanted: released entries of the looser classes that it takes; entries in segments that it
    does not rewrite stay. Of deletions it takes all from the front up to `upto` or none, together
    with all else there: a major compaction judges whole segments, in order.
    """
    limit = min(horizon, cleaned.floors[horizon])
    # The stricter classes go with a snapshot only.
    reach = {
        Release.ANY: horizon,
        Release.STABLE: deletion_floor,
        Release.SEQUENTIAL: deletion_floor,
    }
    dropped: set[int] = set()
    for at, index, policy in cleaned.releases:
        in_front = major and index <= upto
        is_taken = in_front or (index in released and policy != Release.SEQUENTIAL)
        if at <= limit and is_taken and index <= reach.get(policy, 0):
            dropped.add(index)
    return dropped


def full_digests(
    machine: StateMachine, entries: Sequence[Entry], longest: int
) -> dict[int, bytes]:
    """The digest after every run of the whole log."""
    executor = SessionExecutor(machine)
    digests: dict[int, bytes] = {}
    for run in frames(entries, [], 0, longest):
        executor.apply([run])
        digests[executor.last_applied] = executor.digest()
    return digests
