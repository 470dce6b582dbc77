"""Queries that wait: for a confirmed read index, a sequence, or an applied index.

A linearizable query asks the core for a read index after it arrived (C10) and is answered once
that index is applied. Every query also waits for the commands that its session
submitted before it, and never shows less than its client has seen.

What a query answers may be large. So those of one connection run in pieces: a piece ends when its
answers fill the connection, and the next one begins when there is room again. Until then they wait
here as requests.

When a query takes too long, its client asks again by another connection. It does
not run a second time: the answer of the first run leaves by the connection that asked last.
"""

from __future__ import annotations

from functools import partial

from copycat.machine.apply_result import MachineQuery, QueryAnswer
from copycat.machine.session_executor import SessionExecutor
from copycat.protocol.client import QueryRequest, QueryResult, Refusal
from copycat.replica.connections import RefusalReason, Replies, Route
from copycat.replica.host import REPLY_ROOM, Host, Inbox, Lane
from copycat.replica.session_index import SessionIndex
from copycat.types import ConsistencyLevel

__all__ = ["Queries"]


WAITING_MAX = 65536
"""Queries that wait for an index or a sequence which may never come."""
WAITING_NBYTES_MAX = 64 << 20
"""Bytes of their operations."""
TURN_NBYTES_MAX = 8 << 20
"""Answers of so many bytes, of all connections, are enough for one turn."""
PIECE_MAX = 256
"""Queries that the machine is asked at once, while their answers are small."""


class _Waiting:
    """One query and what it waits for; `index` is -1 until the core gave a read index."""

    __slots__ = ("index", "ran_for", "request", "route", "seen", "turn")

    def __init__(self, route: Route, request: QueryRequest, index: int, turn: int) -> None:
        self.route = route
        """The route by which it was asked last."""
        self.ran_for = route
        """The route to which its piece belonged when it ran."""
        self.request = request
        self.seen = request.index
        """What its client has seen; the answer is no older."""
        self.index = index
        self.turn = turn
        """In which turn it came."""

    def asked_again(self, route: Route, request: QueryRequest) -> None:
        """The client asks again, perhaps by another connection.

        The request may name an earlier command than before: the callers of later commands gave up
        before these were sent, so a sequence that high may never be used.
        """
        self.route = route
        self.seen = max(self.seen, request.index)
        if request.sequence < self.request.sequence:
            self.request = request
        if self.index >= 0:
            self.index = max(self.index, self.seen)


class Queries:
    """All queries that this member serves itself."""

    def __init__(
        self,
        executor: SessionExecutor,
        sessions: SessionIndex,
        host: Host,
        replies: Replies,
        inbox: Inbox,
    ) -> None:
        self._executor = executor
        self._sessions = sessions
        self._host = host
        self._replies = replies
        self._inbox = inbox
        self._token = 0
        self._unconfirmed: dict[int, list[_Waiting]] = {}
        """Linearizable queries by the token that the core was asked with."""
        self.arrived: list[_Waiting] = []
        """Linearizable queries of this turn: they share the next token."""
        self._ready: list[_Waiting] = []
        self._running: set[Route] = set()
        """Connections with a piece under way."""
        self._turn = 0
        self._known: dict[tuple[int, int], _Waiting] = {}
        """(session, request) of all that are not answered."""
        self._nbytes = 0

    def add(self, route: Route, request: QueryRequest) -> None:
        """Take a query that this member may serve (see `must_lead`)."""
        key = request.session, request.request
        known = self._known.get(key)
        if known is not None and bytes(known.request.operation) == bytes(request.operation):
            known.asked_again(route, request)
            if known.turn != self._turn:
                return  # it still waits here, and is answered once
        nbytes = self._nbytes + len(request.operation)
        if len(self._known) >= WAITING_MAX or nbytes > WAITING_NBYTES_MAX:
            reason = f"{len(self._known)} queries wait already"
            self._replies.refuse(route, request, RefusalReason(Refusal.OVERLOADED, reason))
            return
        waiting = _Waiting(route, request, request.index, self._turn)
        self._known[key], self._nbytes = waiting, nbytes
        if must_lead(request):
            waiting.index = -1
            self.arrived.append(waiting)
        else:
            self._ready.append(waiting)

    def _forget(self, waiting: _Waiting) -> None:
        """The query is answered, or no client waits for the answer."""
        self._nbytes -= len(waiting.request.operation)
        key = waiting.request.session, waiting.request.request
        if self._known.get(key) is waiting:
            del self._known[key]

    @property
    def is_waiting(self) -> bool:
        """Some query waits for entries to be applied."""
        return bool(self._ready)

    def next_token(self) -> int:
        """The token for the reads that arrived since the last one."""
        self._token += 1
        self._unconfirmed[self._token] = self.arrived
        self.arrived = []
        return self._token

    def confirmed(self, token: int, index: int) -> None:
        """The core gave a read index to this token and all before it."""
        for known in [known for known in self._unconfirmed if known <= token]:
            for waiting in self._unconfirmed.pop(known):
                waiting.index = max(index, waiting.seen)
                self._ready.append(waiting)

    def step_down(self) -> None:
        """This member does not lead: the reads that wait for a confirmation will not get one."""
        reason = "leadership was lost before the read was confirmed"
        self.refuse_unconfirmed(RefusalReason(Refusal.NO_LEADER, reason))

    def refuse_unconfirmed(self, why: RefusalReason) -> None:
        """Answer all queries that wait for a read index with why they do not get one."""
        failed = [waiting for group in self._unconfirmed.values() for waiting in group]
        for waiting in (*failed, *self.arrived):
            self._forget(waiting)
            self._replies.refuse(waiting.route, waiting.request, why)
        self._unconfirmed.clear()
        self.arrived.clear()

    def connection_closed(self, route: Route) -> None:
        """A connection closed: drop its queries."""
        unanswered = [waiting for waiting in self._ready if waiting.route == route]
        if unanswered:
            self._ready = [waiting for waiting in self._ready if waiting.route != route]
            for waiting in unanswered:
                self._forget(waiting)

    def serve(self, last_applied: int) -> None:
        """Give every query that need not wait, and whose answer has room, to the executor."""
        self._turn += 1
        if not self._ready:
            return
        due: list[_Waiting] = []
        later: list[_Waiting] = []
        may_run: dict[Route, bool] = {}
        for waiting in self._ready:
            route = waiting.route
            if route not in may_run:
                is_free = route not in self._running
                may_run[route] = is_free and self._host.has_room(route.peer, route.token)
            is_due = may_run[route] and self._is_due(waiting, last_applied)
            (due if is_due else later).append(waiting)
        if not due:
            return
        self._ready = later
        for waiting in due:
            waiting.ran_for = waiting.route
            self._running.add(waiting.route)
        work = partial(answer_what_fits, self._executor, due)
        self._inbox.run(Lane.APPLY, work, partial(self._answered, due))

    def _is_due(self, waiting: _Waiting, last_applied: int) -> bool:
        request = waiting.request
        if last_applied < max(waiting.index, request.session):
            return False
        view = self._sessions.get(request.session)
        return view is None or view.sequence >= request.sequence

    def _answered(self, due: list[_Waiting], answers: list[QueryAnswer | None]) -> None:
        """The executor's answers came back, in the same order; None: it found no room."""
        left: list[_Waiting] = []
        for waiting, answer in zip(due, answers, strict=True):
            self._running.discard(waiting.ran_for)
            is_older = answer is not None and answer.index < waiting.seen
            if answer is None or (is_older and not answer.unknown_session):
                left.append(waiting)
                continue
            self._forget(waiting)
            if answer.unknown_session:
                why = RefusalReason(Refusal.UNKNOWN_SESSION, "no such session")
                self._replies.refuse(waiting.route, waiting.request, why)
            else:
                number = waiting.request.request
                self._replies.send(waiting.route, QueryResult(number, answer.index, answer.body))
        if left:
            self._ready = left + self._ready  # they came first


def answer_what_fits(executor: SessionExecutor, due: list[_Waiting]) -> list[QueryAnswer | None]:
    """Ask the machine, in order; None for each query whose connection is filled by answers
    before it, or when there are enough for one turn of the loop. At least one is answered. Runs
    beside the loop."""
    answers: list[QueryAnswer | None] = [None] * len(due)
    filled: dict[Route, int] = {}
    start, count, total = 0, 1, 0
    while start < len(due) and total < TURN_NBYTES_MAX:
        asks = [
            MachineQuery(number, waiting.request.session, bytes(waiting.request.operation))
            for number, waiting in enumerate(due[start : start + count], start)
            if filled.get(waiting.ran_for, 0) < REPLY_ROOM
        ]
        start += count
        nbytes = 0
        for answer in executor.query(asks):
            answers[answer.token] = answer
            route = due[answer.token].ran_for
            filled[route] = filled.get(route, 0) + len(answer.body)
            nbytes += len(answer.body)
        total += nbytes
        # How large answers are is known when they are there: begin with one, and double.
        count = min(2 * count, PIECE_MAX) if 4 * nbytes < REPLY_ROOM else 1
    return answers


def must_lead(request: QueryRequest) -> bool:
    """Whether only the leader may serve it."""
    return request.consistency is not ConsistencyLevel.SEQUENTIAL
