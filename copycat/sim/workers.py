"""What a simulated member hands to its threads, and when it hears that the work is done.

Each piece of work is an event of the world with a drawn latency. The member hears of it at the
same moment, or, where a seed holds such answers back, a while later: in between it may have
received a new term, lost its leadership, cut its log or installed a snapshot. How often an answer
came that late is counted by kind (`trace.marks`).
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, TypeVar, assert_never

import msgspec

from copycat.errors import StorageError
from copycat.machine.apply_result import ApplyResult
from copycat.replica.host import Lane
from copycat.replica.replica import Replica
from copycat.sim.checkers.disk_model import DiskModel
from copycat.sim.disk import SimDisk
from copycat.sim.world import Trace, World
from copycat.storage.interface import SaveTicket, SyncTicket
from copycat.types import ServerState

__all__ = ["MOVES", "QUICKER", "Submitter", "Workers"]

T = TypeVar("T")

MOVES = ("a new term", "a lost leadership", "a truncation", "a reset", "an install")
"""What may have happened to a member between the beginning of a piece of work and its answer."""

QUICKER = ("snapshot published, entries were quicker", "snapshot installed, entries were quicker")
"""What a snapshot that arrived covers was committed here meanwhile."""


class _Begun(NamedTuple):
    """A piece of work that was handed over, and where the member stood then."""

    thread: str
    term: int
    leads: bool
    truncations: int
    resets: int
    installs: int
    commit_index: int


class _LateAnswer(msgspec.Struct, eq=False):
    """An answer that is held back. is_first: for itself; else behind one of its thread."""

    begun: _Begun
    since: _Begun
    is_first: bool
    kind: str
    heard: Callable[..., None]
    args: tuple[object, ...]


class Submitter(Protocol):
    """The member that hands work to its threads (`SimHost`)."""

    disk: SimDisk

    @property
    def disk_model(self) -> DiskModel: ...
    @property
    def alive(self) -> Replica: ...
    def soon(self, delay_us: int, callback: Callable[..., None], *args: object) -> None: ...
    def applied(self, result: ApplyResult) -> None: ...


class Workers:
    """The threads of one member, all its processes one after the other."""

    def __init__(self, host: Submitter, world: World, trace: Trace) -> None:
        self._host = host
        self._world = world
        self._trace = trace
        self._installs = 0
        self._queue: deque[tuple[Callable[[], Any], Callable[[Any], None], _Begun]] = deque()
        self._late_answers: list[_LateAnswer] = []
        """Answers that the member has not received, in the order in which the work was done."""
        self.running: Counter[str] = Counter()
        """How many pieces of work the member waits for, by thread."""

    def forget(self) -> None:
        """The process ended, and its threads with it."""
        self._queue.clear()
        self.running.clear()
        self._late_answers.clear()

    # --- what the replica asks for (copycat.replica.host.Host) ------------------------------

    def sync(self, ticket: SyncTicket) -> None:
        delay_us = self._host.disk.sync_delay_us()
        begun = self._begin("sync")
        if delay_us is None:
            self._run_ticket(begun, ticket, self._host.alive.synced)
        else:
            self._host.soon(delay_us, self._run_ticket, begun, ticket, self._host.alive.synced)

    def save(self, ticket: SaveTicket) -> None:
        delay_us, begun = self._host.disk.save_delay_us(), self._begin("save")
        self._host.soon(delay_us, self._run_ticket, begun, ticket, self._host.alive.saved)

    def _run_ticket(
        self, begun: _Begun, ticket: SyncTicket | SaveTicket, heard: Callable[[Any], None]
    ) -> None:
        try:
            ticket.run()
        except StorageError as cause:
            self._host.alive.failed(cause)
            return
        self._answer(begun, begun.thread, heard, ticket)

    def run(self, lane: Lane, work: Callable[[], T], done: Callable[[T], None]) -> None:
        match lane:
            case Lane.APPLY:
                self._apply(work, done)
            case Lane.ASIDE:
                begun, delay_us = self._begin("aside"), self._host.disk.aside_delay_us()
                self._host.soon(delay_us, self._aside, begun, work, done)
            case Lane.COMPACT:
                begun, delay_us = self._begin("compact"), self._host.disk.compact_delay_us()
                self._host.soon(delay_us, self._compact, begun, work, done)
            case _:
                assert_never(lane)

    def _apply(self, work: Callable[[], Any], done: Callable[[Any], None]) -> None:
        self._queue.append((work, done, self._begin("apply")))
        if len(self._queue) == 1:
            self._host.soon(self._host.disk.apply_delay_us(), self._apply_next)

    def _apply_next(self) -> None:
        work, done, begun = self._queue[0]
        result = work()
        kind = self._host.disk.seen.take()
        self._queue.popleft()
        if self._queue:
            self._host.soon(self._host.disk.apply_delay_us(), self._apply_next)
        if isinstance(result, ApplyResult):
            kind = "slice applied"
            self._host.applied(result)
        self._answer(begun, kind, done, result)

    def _aside(self, begun: _Begun, work: Callable[[], T], done: Callable[[T], None]) -> None:
        try:
            result = work()
        except StorageError as cause:
            self._host.alive.failed(cause)
            return
        self._answer(begun, self._host.disk.seen.take(), done, result)

    def _compact(self, begun: _Begun, work: Callable[[], T], done: Callable[[T], None]) -> None:
        """The answer of the work is what failed, or None; a failure stops no member (F13)."""
        disk = self._host.disk
        disk.before_rewrite()
        result = work()
        disk.after_rewrite(failed=result is not None)
        self._answer(begun, "rewrite", done, result)

    # --- the answer -----------------------------------------------------------------------

    def _begin(self, thread: str) -> _Begun:
        self.running[thread] += 1
        return self._moment(thread)

    def _moment(self, thread: str) -> _Begun:
        raft, disk_model = self._host.alive.raft, self._host.disk_model
        leads = raft.state is ServerState.LEADER
        return _Begun(
            thread,
            raft.current_term,
            leads,
            disk_model.truncations,
            disk_model.resets,
            self._installs,
            raft.commit_index,
        )

    def _answer(self, begun: _Begun, kind: str, heard: Callable[..., None], *args: object) -> None:
        """The work is done: give the member the answer, now or later."""
        hold_us = self._host.disk.hold_us(kind)
        is_behind = begun.thread == "apply" and any(
            one.begun.thread == "apply" for one in self._late_answers
        )
        if hold_us <= 0 and not is_behind:
            self._hear(begun, kind, heard, *args)
            return
        late_answer = _LateAnswer(
            begun, self._moment(begun.thread), hold_us > 0, kind, heard, args
        )
        self._late_answers.append(late_answer)
        if hold_us > 0:
            self._trace.mark(f"held back: {kind}")
            self._host.soon(hold_us, self._let_go, late_answer)

    @property
    def is_holding(self) -> bool:
        """Some answers are held back."""
        return bool(self._late_answers)

    def look(self) -> None:
        """Something happened at this member: deliver the answers that waited for that."""
        if not self._host.disk.holds_until_moved:
            return
        for late_answer in [one for one in self._late_answers if one.is_first]:
            if _moves(late_answer.since, self._moment(late_answer.begun.thread)):
                self._let_go(late_answer)

    def calm(self) -> None:
        """Deliver all answers, and hold none back from now on."""
        while self._late_answers:
            self._let_go(self._late_answers[-1])

    def _let_go(self, late_answer: _LateAnswer) -> None:
        """Give the member this answer, and those that wait behind it for the same thread."""
        if late_answer not in self._late_answers:
            return
        if late_answer.begun.thread == "apply":
            thread = [one for one in self._late_answers if one.begun.thread == "apply"]
            going = thread[: thread.index(late_answer) + 1]  # first in, first out
            rest = thread[len(going) :]
            while rest and not rest[0].is_first:
                going.append(rest.pop(0))
        else:
            going = [late_answer]
        for one in going:
            self._late_answers.remove(one)
            self._hear(one.begun, one.kind, one.heard, *one.args)

    def _hear(self, begun: _Begun, kind: str, heard: Callable[..., None], *args: object) -> None:
        now = self._moment(begun.thread)
        self.running[begun.thread] -= 1
        if now != begun:
            for move in _moves(begun, now):
                self._trace.mark(f"late: {kind} after {move}")
        if kind in ("snapshot published", "snapshot installed"):
            if begun.commit_index < self._host.disk_model.snapshot.index <= now.commit_index:
                self._trace.mark(f"{kind}, entries were quicker")
            self._installs += kind == "snapshot installed"
        heard(*args)


def _moves(begun: _Begun, now: _Begun) -> list[str]:
    """What happened to the member between the two moments (see `MOVES`)."""
    happened = (
        now.term != begun.term,
        begun.leads and not now.leads,
        now.truncations != begun.truncations,
        now.resets != begun.resets,
        now.installs != begun.installs,
    )
    return [move for move, did in zip(MOVES, happened, strict=True) if did]
