"""Queries that wait for their moment: a confirmed read index, a sequence, an applied index.

A linearizable query asks the core for a read index after it arrived (C10) and is answered once
that index is applied (X3, X4, X6). Every query also waits for the commands that its session
submitted before it, and never shows less than its client has seen (Q1, Q4).
"""

from __future__ import annotations

from collections.abc import Callable

from copycat.machine.executor import Executor
from copycat.machine.outcome import QueryAnswer, QueryAsk
from copycat.protocol.client import Failure, QueryRequest, QueryResult, Refusal, ServerMessage
from copycat.replica.host import Host
from copycat.replica.sessions import Route, SessionMirror
from copycat.types import ConsistencyLevel

__all__ = ["Answers", "Queries"]


WAITING_MAX = 65536
"""Queries that wait for an index or a sequence which may never come (S14)."""


class _Waiting:
    """One query and what it waits for; `index` is -1 until the core gave a read index."""

    __slots__ = ("index", "request", "route")

    def __init__(self, route: Route, request: QueryRequest, index: int) -> None:
        self.route = route
        self.request = request
        self.index = index


Answers = tuple[list[_Waiting], list[QueryAnswer]]
"""Queries and their answers, in the same order: opaque to everybody but `Queries`."""


class Queries:
    """All queries that this member serves itself."""

    def __init__(
        self,
        executor: Executor,
        sessions: SessionMirror,
        host: Host,
        answer: Callable[[Route, ServerMessage], None],
        done: Callable[[Answers], None],
    ) -> None:
        self._executor = executor
        self._sessions = sessions
        self._host = host
        self._answer = answer
        self._done = done
        self._token = 0
        self._unconfirmed: dict[int, list[_Waiting]] = {}
        """Linearizable queries by the token that the core was asked with."""
        self._arrived: list[_Waiting] = []
        """Linearizable queries of this turn: they share the next token."""
        self._ready: list[_Waiting] = []
        self.leader = ""

    def ask(self, route: Route, request: QueryRequest) -> None:
        """Take a query that this member may serve (see `must_lead`)."""
        if len(self._ready) + len(self._arrived) >= WAITING_MAX:
            reason = f"{WAITING_MAX} queries wait already"
            self._answer(route, Failure(request.request, Refusal.OVERLOADED, self.leader, reason))
        elif must_lead(request):
            self._arrived.append(_Waiting(route, request, -1))
        else:
            self._ready.append(_Waiting(route, request, request.index))

    @property
    def is_waiting(self) -> bool:
        """Some query waits for entries to be applied."""
        return bool(self._ready)

    def next_token(self) -> int | None:
        """The token for the reads that arrived since the last one; None when none did."""
        if not self._arrived:
            return None
        self._token += 1
        self._unconfirmed[self._token] = self._arrived
        self._arrived = []
        return self._token

    def confirmed(self, token: int, index: int) -> None:
        """The core gave a read index to this token and all before it."""
        for known in [known for known in self._unconfirmed if known <= token]:
            for waiting in self._unconfirmed.pop(known):
                waiting.index = max(index, waiting.request.index)
                self._ready.append(waiting)

    def fail_unconfirmed(self, leader: str) -> None:
        """This member does not lead any more: nobody will confirm these (X26)."""
        self.leader = leader
        failed = [waiting for group in self._unconfirmed.values() for waiting in group]
        for waiting in (*failed, *self._arrived):
            reason = "leadership was lost before the read was confirmed"
            failure = Failure(waiting.request.request, Refusal.NO_LEADER, leader, reason)
            self._answer(waiting.route, failure)
        self._unconfirmed.clear()
        self._arrived.clear()

    def route_gone(self, route: Route) -> None:
        """A connection closed: its queries have nobody to answer."""
        self._ready = [waiting for waiting in self._ready if waiting.route != route]

    def serve(self, last_applied: int) -> None:
        """Send every query whose moment has come to the executor, as one piece of work."""
        due: list[_Waiting] = []
        later: list[_Waiting] = []
        for waiting in self._ready:
            (due if self._is_due(waiting, last_applied) else later).append(waiting)
        if not due:
            return
        self._ready = later
        asks = [
            QueryAsk(number, waiting.request.session, bytes(waiting.request.operation))
            for number, waiting in enumerate(due)
        ]
        executor = self._executor
        self._host.apply(lambda: (due, executor.query(asks)), self._done)

    def _is_due(self, waiting: _Waiting, last_applied: int) -> bool:
        request = waiting.request
        if last_applied < max(waiting.index, request.session):
            return False
        view = self._sessions.get(request.session)
        return view is None or view.sequence >= request.sequence

    def answered(self, result: Answers) -> None:
        """The executor's answers came back (called in a turn)."""
        for waiting, answer in zip(*result, strict=True):
            number = waiting.request.request
            if answer.unknown_session:
                code = Refusal.UNKNOWN_SESSION
                failure = Failure(number, code, self.leader, "no such session")
                self._answer(waiting.route, failure)
            else:
                self._answer(waiting.route, QueryResult(number, answer.index, answer.body))


def must_lead(request: QueryRequest) -> bool:
    """Whether only the leader may serve it. Lease reads are served as linearizable ones."""
    return request.consistency is not ConsistencyLevel.SEQUENTIAL
