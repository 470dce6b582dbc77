"""Requests of clients: served here, forwarded to the leader, or refused."""

from __future__ import annotations

from collections.abc import Mapping

from copycat.errors import EntryTooLargeError, ProtocolError
from copycat.protocol.client import (
    ClientMessage,
    Commands,
    CommandsRefused,
    Failure,
    KeepAlive,
    QueryRequest,
    Refusal,
    Register,
    Results,
    ServerMessage,
)
from copycat.protocol.codec_client import decode_client, decode_server, encode_server
from copycat.protocol.codec_peer import encode_forward
from copycat.protocol.framing import Frame, split_frame
from copycat.protocol.wire import FrameType
from copycat.replica.driver import ReplicaParts
from copycat.replica.outage import Outage
from copycat.replica.queries import must_lead
from copycat.replica.refusal_reason import RefusalReason
from copycat.replica.replies import Replies
from copycat.replica.session_index import Route
from copycat.storage import check_commands
from copycat.types import MemberId, ServerState

__all__ = ["ForwardedRequests", "RequestRouter"]


class _Passed:
    """What one connection has under way at the leader."""

    __slots__ = ("requests", "sessions")

    def __init__(self) -> None:
        self.sessions: set[int] = set()
        self.requests: set[int] = set()


class ForwardedRequests:
    """Remembers who waits for the leader."""

    def __init__(self, replies: Replies) -> None:
        self._replies = replies
        self._passed: dict[int, _Passed] = {}

    def passed(self, connection: int, message: ClientMessage) -> None:
        """This request of a connection went to the leader."""
        passed = self._passed.setdefault(connection, _Passed())
        if isinstance(message, Commands):
            passed.sessions.add(message.session)
        else:
            passed.requests.add(message.request)

    def returned(self, connection: int, request: int) -> None:
        """The leader answered a numbered request."""
        passed = self._passed.get(connection)
        if passed is not None:
            passed.requests.discard(request)

    def connection_closed(self, connection: int) -> None:
        """Nobody waits there any more."""
        self._passed.pop(connection, None)

    def fail_all(self, leader: str) -> None:
        """Tell every waiting client that its requests may be lost; `leader` is the new one."""
        gone, self._passed = self._passed, {}
        for connection, passed in gone.items():
            reason = "the leader that this request was passed to is gone"
            for session in sorted(passed.sessions):
                refusal = CommandsRefused(session, 1, Refusal.NO_LEADER, leader, reason)
                self._replies.send(Route(MemberId(0), connection), refusal)
            for request in sorted(passed.requests):
                failure = Failure(request, Refusal.NO_LEADER, leader, reason)
                self._replies.send(Route(MemberId(0), connection), failure)


_RUN_ANSWERS = frozenset({FrameType.RESULTS, FrameType.COMMANDS_REFUSED})
"""Answers that belong to a session's sequences, not to a numbered request."""
RELAYED_NBYTES_MAX = 64 << 20
"""Unsent bytes of one client's connection above which answers of the leader are not added."""
SMALL_NBYTES = 4096
"""An answer up to this size always has room."""


class RequestRouter:
    """Where the requests of clients come in: served here, forwarded to the leader, or refused."""

    def __init__(
        self,
        parts: ReplicaParts,
        addresses: Mapping[MemberId, str],
        outage: Outage,
        *,
        max_entry_size: int,
        cluster_name: str,
    ) -> None:
        self._raft = parts.raft
        self._host = parts.host
        self._inbox = parts.inbox
        self._proposal_queue = parts.proposal_queue
        self._queries = parts.queries
        self._replies = parts.replies
        self._addresses = addresses
        self._outage = outage
        self._max_entry_size = max_entry_size
        self._cluster_name = cluster_name
        self._strangers: dict[int, str] = {}
        """connection of this member -> the other cluster that its client means."""
        self._sessions: dict[int, int] = {}
        """connection of this member -> the session that spoke there last."""
        self._asked_ms: dict[int, int] = {}
        """connection of this member -> the timeout that a REGISTER asked for there."""
        self.forwarded_requests = ForwardedRequests(parts.replies)

    @property
    def leader(self) -> str:
        """Address of the leader of the current term; empty when unknown."""
        return self._addresses.get(self._raft.leader, "")

    # ---- in ------------------------------------------------------------------------------

    def receive(self, route: Route, frame: Frame) -> None:
        """Check and decode at once, work in the next turn. Raises ProtocolError."""
        message = decode_client(frame)
        if isinstance(message, Commands):
            try:
                check_commands(message.body, message.count, self._max_entry_size)
            except EntryTooLargeError:
                self._inbox.put(self._proposal_queue.refuse_for, route, message, self._too_large())
                return
            except ValueError as cause:
                raise ProtocolError(f"a run of commands that does not add up: {cause}") from cause
        self._inbox.put(self._request, route, message, frame)

    def _too_large(self) -> RefusalReason:
        where = self._addresses[self._raft.member]
        reason = f"storage.max_entry_size of the server {where} is {self._max_entry_size}"
        return RefusalReason(Refusal.TOO_LARGE, reason, (), 0)

    def _request(self, route: Route, message: ClientMessage, frame: Frame) -> None:
        if not route.peer:
            if self._is_strange(route, message):
                return
            if isinstance(message, Register):
                self._asked_ms[route.token] = message.timeout_ms
            else:
                self._sessions[route.token] = message.session
        if isinstance(message, QueryRequest):
            if self._serves(message):
                write_stall_reason = self._proposal_queue.write_stall_reason
                if (
                    write_stall_reason
                    and must_lead(message)
                    and not self._proposal_queue.admitting
                ):
                    # Its first entry is not committed: a read index may never come (C10).
                    self._refuse_for(route, message, write_stall_reason)
                else:
                    self._queries.ask(route, message)
                return
        elif self._raft.state is ServerState.LEADER:
            self._proposal_queue.request(route, message)
            return
        leader = self._raft.leader
        may_pass = not route.peer and leader and self._raft.state is not ServerState.LEADER
        if may_pass and self._host.send(leader, encode_forward(route.token, frame), None):
            self.forwarded_requests.passed(route.token, message)
            return
        self._refuse_for(route, message, self._outage.explain())

    def _is_strange(self, route: Route, message: ClientMessage) -> bool:
        """Refuse a client of another cluster, and all that comes by its connection."""
        named = message.cluster if isinstance(message, Register | KeepAlive) else ""
        if named and named != self._cluster_name:
            self._strangers[route.token] = named
        meant = self._strangers.get(route.token)
        if meant is None:
            return False
        reason = f'this is a member of cluster "{self._cluster_name}", not of "{meant}"'
        self._refuse_for(route, message, RefusalReason(Refusal.WRONG_CLUSTER, reason, (), 0))
        return True

    def _serves(self, query: QueryRequest) -> bool:
        if must_lead(query) or self._proposal_queue.sessions.get(query.session) is None:
            # A session unknown here may only be unknown *yet*: the leader decides.
            return self._raft.state is ServerState.LEADER
        return True

    def _refuse_for(self, route: Route, message: ClientMessage, why: RefusalReason) -> None:
        if isinstance(message, QueryRequest):
            failure = Failure(
                message.request, why.code, self.leader, why.reason, why.missing, why.since_ms
            )
            self._replies.send(route, failure)
        else:
            self._proposal_queue.refuse_for(route, message, why)

    def receive_return(self, token: int, frame: bytes) -> None:
        """The leader's answer to a request that was passed on. Raises ProtocolError."""
        inner = split_frame(frame)
        request, refusal = 0, b""
        if inner.type not in _RUN_ANSWERS:
            request = getattr(decode_server(inner), "request", 0)
        if len(frame) > SMALL_NBYTES:
            refusal = encode_server(self._overloaded(inner))
        self._inbox.put(self._returned, token, request, frame, refusal)

    def _returned(self, token: int, request: int, frame: bytes, refusal: bytes) -> None:
        self.forwarded_requests.returned(token, request)
        if refusal and not self._host.has_room(MemberId(0), token, RELAYED_NBYTES_MAX):
            frame = refusal
        self._host.reply(token, frame)

    def _overloaded(self, answer: Frame) -> ServerMessage:
        """In place of a relayed answer that the client's connection has no room for: the client
        asks again, and is heard again when it has taken what waits."""
        message = decode_server(answer)
        if isinstance(message, Results):
            code = Refusal.OVERLOADED
            return CommandsRefused(message.session, message.first_sequence, code, self.leader)
        reason = "more answers wait than this connection has room for"
        number = getattr(message, "request", 0)
        return Failure(number, Refusal.OVERLOADED, self.leader, reason)

    def timeout_ms(self, connection: int) -> int:
        """The timeout of the session that a client's connection serves; 0 when none is known."""
        view = self._proposal_queue.sessions.get(self._sessions.get(connection, 0))
        return self._asked_ms.get(connection, 0) if view is None else view.timeout_ms

    def connection_closed(self, route: Route) -> None:
        """A client's connection closed."""
        self._sessions.pop(route.token, None)
        self._asked_ms.pop(route.token, None)
        self._proposal_queue.connection_closed(route)
        self._queries.connection_closed(route)
        self.forwarded_requests.connection_closed(route.token)
        self._strangers.pop(route.token, None)
