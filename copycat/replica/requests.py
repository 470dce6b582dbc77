"""Requests of clients: served here, forwarded to the leader, or refused."""

from __future__ import annotations

from collections.abc import Callable

from copycat.errors import EntryTooLargeError, ProtocolError
from copycat.protocol.client import (
    ClientMessage,
    ClusterRequest,
    Commands,
    CommandsRefused,
    Failure,
    QueryRequest,
    Refusal,
    Results,
    ServerMessage,
    ViewRequest,
)
from copycat.protocol.codec_client import (
    decode_client,
    decode_server,
    encode_client,
    encode_server,
)
from copycat.protocol.codec_peer import encode_forward
from copycat.protocol.framing import Frame, split_frame
from copycat.protocol.wire import FrameType
from copycat.raft.core import Raft
from copycat.replica.client_clusters import ClientClusters
from copycat.replica.cluster_requests import ClusterRequests
from copycat.replica.connections import Connections, RefusalReason, Replies, Route
from copycat.replica.host import Host, Inbox
from copycat.replica.local_requests import LocalRequests
from copycat.replica.members import MemberTable
from copycat.replica.options import ReplicaOptions
from copycat.replica.proposals import ProposalQueue
from copycat.replica.queries import Queries, must_lead
from copycat.replica.session_index import SessionIndex
from copycat.replica.status import Outage
from copycat.storage import check_commands
from copycat.types import MemberId, ServerState

__all__ = ["ForwardedRequests", "RequestRouter"]


class _Forwarded:
    """The requests of one connection that the leader has not answered."""

    __slots__ = ("requests", "sessions")

    def __init__(self) -> None:
        self.sessions: set[int] = set()
        """Whose commands were forwarded; results are not counted, so these stay."""
        self.requests: set[int] = set()
        """Numbers of the other requests."""


class ForwardedRequests:
    """Remembers which clients of this member wait for an answer of the leader."""

    def __init__(self, replies: Replies) -> None:
        self._replies = replies
        self._by_connection: dict[int, _Forwarded] = {}

    def add(self, connection: int, message: ClientMessage) -> None:
        """This request of a connection was forwarded to the leader."""
        forwarded = self._by_connection.setdefault(connection, _Forwarded())
        if isinstance(message, Commands):
            forwarded.sessions.add(message.session)
        else:
            forwarded.requests.add(message.request)

    def answered(self, connection: int, request: int) -> None:
        """The leader answered a numbered request."""
        forwarded = self._by_connection.get(connection)
        if forwarded is not None:
            forwarded.requests.discard(request)

    def connection_closed(self, connection: int) -> None:
        """Forget the requests of a closed connection."""
        self._by_connection.pop(connection, None)

    def fail_all(self, leader: str) -> None:
        """Tell every waiting client that its requests may be lost; `leader` is the new one."""
        by_connection, self._by_connection = self._by_connection, {}
        reason = "the leader that this request was passed to cannot be reached"
        for connection, forwarded in by_connection.items():
            route = Route(MemberId(0), connection)
            for session in sorted(forwarded.sessions):
                refusal = CommandsRefused(session, 1, Refusal.NO_LEADER, leader, reason)
                self._replies.send(route, refusal)
            for request in sorted(forwarded.requests):
                self._replies.send(route, Failure(request, Refusal.NO_LEADER, leader, reason))


_RUN_ANSWERS = frozenset({FrameType.RESULTS, FrameType.COMMANDS_REFUSED})
"""Answers that belong to a session's sequences, not to a numbered request."""
FORWARDED_NBYTES_MAX = 64 << 20
"""Unsent bytes of one client's connection above which answers of the leader are not added."""
SMALL_NBYTES = 4096
"""An answer up to this size always has room."""


class RequestRouter:
    """Where the requests of clients come in: served here, forwarded to the leader, or refused."""

    def __init__(
        self,
        options: ReplicaOptions,
        members: MemberTable,
        raft: Raft,
        host: Host,
        inbox: Inbox,
        sessions: SessionIndex,
        connections: Connections,
        replies: Replies,
        proposal_queue: ProposalQueue,
        queries: Queries,
        outage: Outage,
        cluster_requests: ClusterRequests,
        local_requests: LocalRequests,
    ) -> None:
        self._members = members
        self._max_entry_size = options.max_entry_size
        self._raft = raft
        self._host = host
        self._inbox = inbox
        self._sessions = sessions
        self._connections = connections
        self._replies = replies
        self._proposal_queue = proposal_queue
        self._queries = queries
        self._outage = outage
        self._cluster_requests = cluster_requests
        self._local_requests = local_requests
        self._client_clusters = ClientClusters(raft, members, options.cluster_name)
        self.forwarded_requests = ForwardedRequests(replies)

    def receive(self, route: Route, frame: Frame) -> None:
        """Check and decode a frame now, and serve it in the next turn. Raises ProtocolError."""
        message = decode_client(frame)
        if isinstance(message, Commands):
            try:
                check_commands(message.body, message.count, self._max_entry_size)
            except EntryTooLargeError:
                self._inbox.put(self._replies.refuse, route, message, self._too_large())
                return
            except ValueError as cause:
                raise ProtocolError(f"a run of commands that does not add up: {cause}") from cause
        self._inbox.put(self._request, route, message, frame)

    def _too_large(self) -> RefusalReason:
        address, limit = self._members.own_address, self._max_entry_size
        reason = f"storage.max_entry_size of the server {address} is {limit}"
        return RefusalReason(Refusal.TOO_LARGE, reason)

    def request_local(
        self, message: ClusterRequest, done: Callable[[ServerMessage], None]
    ) -> None:
        """Serve a request of this process itself; `done` is called in a turn, with the answer."""
        route = Route(MemberId(0), self._local_requests.add(done))
        frame = split_frame(encode_client(message))
        self._inbox.put(self._request, route, message, frame)

    def _request(self, route: Route, message: ClientMessage, frame: Frame) -> None:
        refusal = self._client_clusters.refusal(route, message)
        if refusal is not None:
            self._replies.refuse(route, message, refusal)
            return
        if isinstance(message, ClusterRequest):
            if self._is_for_here(route, message):
                self._cluster_requests.request(route, message)
            else:
                self._forward(route, message, frame)
            return
        if not route.peer:
            self._connections.request_received(route.token, message)
        elif not self._outage.is_member(route.peer):
            # Who is no member, as far as this one knows, may ask about the members only (C41).
            self._replies.refuse(route, message, self._no_member(route.peer))
            return
        if isinstance(message, QueryRequest):
            if self._serves(message):
                write_stall_reason = self._proposal_queue.write_stall_reason
                if (
                    write_stall_reason
                    and must_lead(message)
                    and not self._proposal_queue.admitting
                ):
                    # Its first entry is not committed: a read index may never come (C10).
                    self._replies.refuse(route, message, write_stall_reason)
                else:
                    self._queries.add(route, message)
                return
        elif self._raft.state is ServerState.LEADER:
            self._proposal_queue.request(route, message)
            return
        self._forward(route, message, frame)

    def _no_member(self, peer: MemberId) -> RefusalReason:
        address = self._members.dialled_address(peer) or f"{peer:032x}"
        reason = f"{address} is no member of this cluster, so no request of its clients is served"
        return RefusalReason(Refusal.ILLEGAL_MEMBER_STATE, reason)

    def _is_for_here(self, route: Route, message: ClusterRequest) -> bool:
        """Whether this member answers: what concerns the cluster its leader answers; what may be
        answered anywhere, a member also answers while it knows no leader."""
        if self._raft.state is ServerState.LEADER:
            return True
        if not isinstance(message, ViewRequest):
            return False
        return message.is_local or bool(route.peer) or not self._raft.leader

    def _forward(self, route: Route, message: ClientMessage, frame: Frame) -> None:
        """Pass a request on to the leader, or refuse it."""
        leader = self._raft.leader
        may_forward = not route.peer and leader and self._raft.state is not ServerState.LEADER
        if may_forward and self._host.send(leader, encode_forward(route.token, frame), None):
            self.forwarded_requests.add(route.token, message)
            return
        self._replies.refuse(route, message, self._outage.explain())

    def _serves(self, query: QueryRequest) -> bool:
        if must_lead(query) or self._sessions.get(query.session) is None:
            # A session unknown here may only be unknown *yet*: the leader decides.
            return self._raft.state is ServerState.LEADER
        return not self._raft.eligibility.is_joining  # its state may be older than any other (C30)

    def receive_return(self, token: int, frame: bytes) -> None:
        """The leader's answer to a request that was forwarded to it. Raises ProtocolError."""
        inner = split_frame(frame)
        request, refusal = 0, b""
        if inner.type not in _RUN_ANSWERS:
            request = _request_of(decode_server(inner))
        if len(frame) > SMALL_NBYTES:
            refusal = encode_server(self._overloaded(inner))
        self._inbox.put(self._returned, token, request, frame, refusal)

    def _returned(self, token: int, request: int, frame: bytes, refusal: bytes) -> None:
        self.forwarded_requests.answered(token, request)
        if self._local_requests.is_local(token):
            self.forwarded_requests.connection_closed(token)  # no other request has this token
            self._local_requests.answer(token, decode_server(split_frame(frame)))
            return
        if refusal and not self._host.has_room(MemberId(0), token, FORWARDED_NBYTES_MAX):
            frame = refusal
        self._host.reply(token, frame)

    def _overloaded(self, answer: Frame) -> ServerMessage:
        """In place of an answer of the leader that the client's connection has no room for: the
        client asks again, and is served again when it has read what waits."""
        message = decode_server(answer)
        if isinstance(message, Results):
            code = Refusal.OVERLOADED
            first, leader = message.first_sequence, self._replies.leader
            return CommandsRefused(message.session, first, code, leader)
        reason = "more answers wait than this connection has room for"
        return Failure(_request_of(message), Refusal.OVERLOADED, self._replies.leader, reason)

    def timeout_ms(self, connection: int) -> int:
        """The timeout of the session that a client's connection serves; 0 when none is known."""
        view = self._sessions.get(self._connections.session_of(connection))
        if view is None:
            return self._connections.requested_timeout_ms(connection)
        return view.timeout_ms

    def connection_closed(self, route: Route) -> None:
        """A client's connection to this member closed."""
        self._connections.closed(route)
        self._queries.connection_closed(route)
        self.forwarded_requests.connection_closed(route.token)
        self._client_clusters.connection_closed(route.token)


def _request_of(answer: ServerMessage) -> int:
    """The number of the request that is answered; 0 where the commands of a session are."""
    return 0 if isinstance(answer, Results | CommandsRefused) else answer.request
