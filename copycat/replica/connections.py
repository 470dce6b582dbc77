"""Which connection leads to the client of a session, and how results and refusals reach it.

Any member has clients of its own, whether it leads or not, and the leader also answers clients
of other members: those members forward requests to it, and pass the answers back. So a client is
found by its `Route`, and a session by the route that its newest request came by.

A result is sent at once when its connection has room. What finds no room is not put into a
buffer: the machine's reply cache has the result until the client acknowledges it, and the result
is read from there, piece by piece, whenever there is room again. So a burst of large results
waits where it is anyway, and one result alone always fits.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

from copycat.machine.apply_result import RunReply
from copycat.machine.session_executor import SessionExecutor
from copycat.protocol.client import (
    ClientMessage,
    Commands,
    CommandsRefused,
    Failure,
    Refusal,
    Register,
    Results,
    ServerMessage,
    SessionMessage,
)
from copycat.protocol.codec_client import encode_server
from copycat.protocol.codec_peer import encode_return
from copycat.protocol.results import PIECE_NBYTES, cut_results
from copycat.replica.host import REPLY_ROOM, Host, Inbox, Lane
from copycat.replica.local_requests import LocalRequests
from copycat.types import MemberId

__all__ = ["Connections", "RefusalReason", "Replies", "Route"]

RESULTS_NBYTES_MAX = PIECE_NBYTES
"""Above this the results of a run are sent in several frames."""
TURN_NBYTES_MAX = 8 << 20
"""One turn sends about so many bytes of results: the others are sent in later turns, so that other
work does not wait until they are copied."""
FETCHES_MAX = 8
"""Sessions whose replies are read from the cache at the same time, about REPLY_ROOM of each."""
FETCH_MAX = 8192
"""Commands whose replies are read from the cache at a time."""


class Route(NamedTuple):
    """Where a client can be answered.

    peer: 0 for a connection of this member; else the member that forwarded the request.  token:
    the number of the connection, given by the member that has it.
    """

    peer: MemberId
    token: int


class RefusalReason(NamedTuple):
    """Why a request is not served: the fields of a refusal, see `protocol.client.Failure`."""

    code: Refusal
    reason: str = ""
    missing: tuple[str, ...] = ()
    since_ms: int = 0


class Replies:
    """Sends answers: each by the connection, or by the link, that its request came by.

    It knows no part of the replica that answers clients, so each of them can be given it when it
    is built.
    """

    def __init__(self, host: Host, local_requests: LocalRequests) -> None:
        self._host = host
        self._local_requests = local_requests
        self.leader = ""
        """Address of the leader, as far as known: every refusal carries it. Empty: unknown."""

    def send(self, route: Route, message: ServerMessage) -> None:
        """Send an answer to where the request came from."""
        if not route.peer and self._local_requests.is_local(route.token):
            self._local_requests.answer(route.token, message)
            return
        frame = encode_server(message)
        if route.peer:
            # Lost when the link is down: the member that forwarded the request tells its client.
            self._host.send(route.peer, encode_return(route.token, frame), None)
        else:
            self._host.reply(route.token, frame)

    def refuse(self, route: Route, message: ClientMessage, why: RefusalReason) -> None:
        """Answer that nothing of this request was done, and why."""
        if isinstance(message, Commands):
            self.refuse_commands(route, message.session, message.first_sequence, why)
        else:
            code, reason, missing, since_ms = why
            failure = Failure(message.request, code, self.leader, reason, missing, since_ms)
            self.send(route, failure)

    def refuse_commands(
        self, route: Route, session: int, next_sequence: int, why: RefusalReason
    ) -> None:
        """The same for the commands of a session from `next_sequence` on."""
        code, reason, missing, since_ms = why
        self.send(
            route,
            CommandsRefused(session, next_sequence, code, self.leader, reason, missing, since_ms),
        )


class _Recipient:
    """The client of one session, and which of its results were sent there."""

    __slots__ = ("delivered", "is_fetching", "is_slow", "route", "session", "unsent")

    def __init__(self, session: int) -> None:
        self.session = session
        self.route: Route | None = None
        """Where the session's newest request came from; None: its connection closed."""
        self.delivered: tuple[int, int] | None = None
        """First and last of the newest neighbouring sequences whose results were written to
        `route`."""
        self.unsent: tuple[int, int] | None = None
        """First and last sequence whose results wait for room on `route`."""
        self.is_fetching = False
        """They are being read from the machine's cache."""
        self.is_slow = False
        """`route` had no room for a result."""

    def set_route(self, route: Route | None) -> None:
        """Send results by `route` from now on; the client asks again for those that waited for
        another route."""
        if route != self.route:
            self.route = route
            self.delivered = self.unsent = None
            self.is_slow = False

    def delivered_up_to(self, first: int, last: int) -> None:
        """The results of `first` to `last` were written to `route`."""
        earlier = self.delivered
        if earlier is not None and earlier[0] <= first <= earlier[1] + 1:
            self.delivered = earlier[0], max(earlier[1], last)
        else:
            self.delivered = first, last

    def after_delivered(self, first: int) -> int:
        """The first sequence from `first` on whose result was not written to `route`."""
        earlier = self.delivered
        if earlier is None or first < earlier[0]:
            return first
        return max(first, earlier[1] + 1)


class Connections:
    """Finds the connection of a session, and delivers its results. Called in turns only.

    For a connection of this member it also knows which session was heard there last.
    """

    def __init__(
        self, host: Host, executor: SessionExecutor, replies: Replies, inbox: Inbox
    ) -> None:
        self._host = host
        self._executor = executor
        self._replies = replies
        self._inbox = inbox
        self._recipients: dict[int, _Recipient] = {}
        """By session: those that the leader, this member, answers."""
        self._session_of: dict[int, int] = {}
        """connection of this member -> the session that was heard there last."""
        self._requested_timeout_ms: dict[int, int] = {}
        """connection of this member -> the timeout that a REGISTER asked for there."""
        self._pending: dict[int, _Recipient] = {}
        """Sessions with results that wait for room or for a later turn; the one that was served
        last is the last."""
        self._fetches = 0
        """Under way in the apply thread."""
        self._turn_nbytes = 0
        """Of the results that were written in this turn."""

    # ---- who is where ------------------------------------------------------------------

    def request_received(self, connection: int, message: SessionMessage) -> None:
        """A request arrived by a connection of this member, whoever is to answer it."""
        if isinstance(message, Register):
            self._requested_timeout_ms[connection] = message.timeout_ms
        else:
            self._session_of[connection] = message.session

    def session_of(self, connection: int) -> int:
        """The session that was heard last by a connection of this member; 0 for none."""
        return self._session_of.get(connection, 0)

    def requested_timeout_ms(self, connection: int) -> int:
        """The timeout that a REGISTER asked for by this connection; 0 for none."""
        return self._requested_timeout_ms.get(connection, 0)

    def set_route(self, session: int, route: Route) -> None:
        """The newest request of a session came by `route`: its results leave by it."""
        recipient = self._recipients.get(session)
        if recipient is None:
            recipient = self._recipients[session] = _Recipient(session)
        recipient.set_route(route)

    def route_of(self, session: int) -> Route | None:
        """Where the client of a session can be answered; None when that is unknown."""
        recipient = self._recipients.get(session)
        return None if recipient is None else recipient.route

    def closed(self, route: Route) -> None:
        """A connection closed: its sessions are answered on their next one."""
        self._session_of.pop(route.token, None)
        self._requested_timeout_ms.pop(route.token, None)
        for recipient in self._recipients.values():
            if recipient.route == route:
                recipient.set_route(None)

    def session_ended(self, session: int) -> None:
        """No more results of this session follow; those that wait are still sent."""
        self._recipients.pop(session, None)

    def forget_routes(self) -> None:
        """This member does not lead any more: another one answers all sessions."""
        for recipient in self._recipients.values():
            recipient.set_route(None)
        self._recipients.clear()

    # ---- results -----------------------------------------------------------------------

    def send(self, reply: RunReply) -> None:
        """Commands of a session were applied: answer them now, or when there is room."""
        recipient = self._recipients.get(reply.session)
        if recipient is None or recipient.route is None:
            return
        if recipient.unsent is None:
            self._send(recipient, reply)
        else:  # behind what waits: results leave in the order of their commands
            last = reply.first_sequence + reply.count - 1
            self._send_later(recipient, reply.first_sequence, last)

    def resend(self, session: int, first: int, last: int) -> None:
        """The client asks again for the results of `first` to `last`, which were applied.

        A connection of this member that had no room is slow: what was written to it will arrive,
        and is not sent twice. A member that forwards requests may have lost it.
        """
        recipient = self._recipients.get(session)
        if recipient is None or recipient.route is None:
            return
        if recipient.is_slow and not recipient.route.peer:
            first = recipient.after_delivered(first)
        if first <= last:
            self._send_later(recipient, first, last)

    def _send_later(self, recipient: _Recipient, first: int, last: int) -> None:
        if recipient.unsent is not None:
            first, last = min(first, recipient.unsent[0]), max(last, recipient.unsent[1])
        recipient.unsent = first, last
        self._pending[recipient.session] = recipient

    def deliver(self) -> None:
        """End of a turn: read from the cache what has room now."""
        self._turn_nbytes = 0
        if not self._pending:
            return
        for session, recipient in list(self._pending.items()):
            route = recipient.route
            if route is None or recipient.unsent is None:
                recipient.unsent = None
                del self._pending[session]
            elif self._fetches >= FETCHES_MAX:
                break
            elif not recipient.is_fetching and self._host.has_room(route.peer, route.token):
                recipient.is_fetching = True
                self._fetches += 1
                self._pending[session] = self._pending.pop(session)
                first, last = recipient.unsent
                last = min(last, first + FETCH_MAX - 1)
                work = partial(self._executor.cached_replies, session, first, last, REPLY_ROOM)
                self._inbox.run(Lane.APPLY, work, partial(self._fetched, recipient, route, first))

    def _fetched(
        self, recipient: _Recipient, route: Route, first: int, replies: list[RunReply]
    ) -> None:
        recipient.is_fetching = False
        self._fetches -= 1
        if recipient.route != route or recipient.unsent is None:
            return  # the client has another connection now, and asks there
        next_unsent, last = recipient.unsent
        if not replies:
            recipient.unsent = None  # the session ended meanwhile
            return
        end = replies[-1].first_sequence + replies[-1].count
        if next_unsent == first:  # else the client asked meanwhile for more
            recipient.unsent = (end, last) if end <= last else None
        for reply in replies:
            if not self._send(recipient, reply):
                self._send_later(recipient, end - 1, end - 1)  # and all up to there
                break

    def _send(self, recipient: _Recipient, reply: RunReply) -> bool:
        """Send what fits; False when the rest waits for room."""
        route = recipient.route
        if route is None:
            return True
        for results in results_of(reply):
            first = results.first_sequence
            has_room = self._host.has_room(route.peer, route.token)
            if not has_room or self._turn_nbytes >= TURN_NBYTES_MAX:
                recipient.is_slow = recipient.is_slow or not has_room
                self._send_later(recipient, first, reply.first_sequence + reply.count - 1)
                return False
            self._turn_nbytes += len(results.body)
            self._replies.send(route, results)
            recipient.delivered_up_to(first, first + results.count - 1)
        return True


def results_of(reply: RunReply) -> Iterator[Results]:
    """The reply frames for a run of results: one, or several when it is large."""
    first_index, last_index = reply.first_index, reply.last_index
    if len(reply.body) <= RESULTS_NBYTES_MAX:
        first, count = reply.first_sequence, reply.count
        yield Results(reply.session, first, count, first_index, last_index, reply.body)
        return
    is_exact = last_index - first_index + 1 == reply.count
    sequence = reply.first_sequence
    for count, body in cut_results(reply.body, RESULTS_NBYTES_MAX):
        if is_exact:
            first_index = reply.first_index + sequence - reply.first_sequence
            last_index = first_index + count - 1
        yield Results(reply.session, sequence, count, first_index, last_index, body)
        sequence += count
