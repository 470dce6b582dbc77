"""What the leader appends next: which requests of clients become entries, and in which order.

The leader admits the requests of sessions only after its own no-op is applied (C18): from then on
it knows every (session, sequence) in its log, so no command is logged twice, and none while a
command before it is missing. Until then requests wait here. Other members forward requests to the
leader untouched.

Every member updates its `SessionIndex` here when a slice was applied, since any member may be the
next leader; only a leader has proposals, and requests that wait to be answered.
"""

from __future__ import annotations

import sys
from collections import OrderedDict, deque
from collections.abc import Sequence
from io import BytesIO
from struct import pack, unpack_from
from typing import NamedTuple

from copycat.errors import require
from copycat.machine.apply_result import (
    ApplyResult,
    RunReply,
    SessionEnded,
    SessionKeptAlive,
    SessionOpened,
)
from copycat.machine.envelope import (
    encode_availability,
    encode_close,
    encode_expire,
    encode_incarnation,
    encode_keep_alive,
    encode_register,
)
from copycat.machine.reading import OperationReader
from copycat.protocol.client import (
    CloseSession,
    Commands,
    Failure,
    KeepAlive,
    KeptAlive,
    Refusal,
    Register,
    Registered,
    SessionClosed,
)
from copycat.replica.connections import Connections, RefusalReason, Replies, Route
from copycat.replica.members import MemberTable
from copycat.replica.options import ReplicaOptions
from copycat.replica.session_index import SessionIndex, SessionView
from copycat.storage.interface import EncodeItem
from copycat.types import EntryKind, MemberId

__all__ = [
    "Admission",
    "Limits",
    "Proposal",
    "ProposalQueue",
    "WriteStall",
    "take_first",
    "take_new",
]


class Admission:
    """Keeps out of the log what the leader's machine cannot read, and nothing else.

    Of a run with a bad command the good ones keep their sequences and effects: the bad one's
    place is taken by a stand-in, which has no effect on any member and whose result says why.

    reader: of the leader's own machine.
    """

    def __init__(self, reader: OperationReader, max_entry_size: int) -> None:
        self._reader = reader
        self._max_entry_size = max_entry_size

    def take(
        self, message: Commands, expected: int, count_max: int = sys.maxsize
    ) -> tuple[int, bytes | memoryview]:
        """(count, body) to log of the commands from sequence `expected` on."""
        count, body = take_first(*take_new(message, expected), count_max)
        operations = split(count, body)
        refused = self._reader.refusals(operations)
        if not refused:
            return count, body
        for at, stand_in in refused.items():
            # Empty is a stand-in too, and fits below any limit.
            operations[at] = stand_in if len(stand_in) <= self._max_entry_size else b""
        lengths = pack(f"<{count}I", *map(len, operations))
        return count, b"".join([lengths, *operations])


def split(count: int, body: bytes | memoryview) -> list[bytes]:
    """The operations of a run whose lengths add up."""
    lengths = unpack_from(f"<{count}I", body)
    data = BytesIO(body)
    data.seek(4 * count)
    return list(map(data.read, lengths))


def take_first(
    count: int, body: bytes | memoryview, count_max: int
) -> tuple[int, bytes | memoryview]:
    """The same of the first `count_max` commands at most."""
    if count <= count_max:
        return count, body
    nbytes = sum(unpack_from(f"<{count_max}I", body))
    view = memoryview(body)
    return count_max, b"".join([view[: 4 * count_max], view[4 * count :][:nbytes]])


def take_new(message: Commands, expected: int) -> tuple[int, bytes | memoryview]:
    """(count, body) of the commands from sequence `expected` on.

    A client that resends cuts its runs where it likes, so a run may begin with commands that
    are logged and end with new ones. `body` is `lengths u32[count]`, then the operations.
    """
    skip = expected - message.first_sequence
    require(0 <= skip < message.count, "no new command", skip=skip, count=message.count)
    if skip == 0:
        return message.count, message.body
    body = memoryview(message.body)
    lengths_end = 4 * message.count
    skipped = sum(unpack_from(f"<{skip}I", body))
    new = body[4 * skip : lengths_end].tobytes() + body[lengths_end + skipped :].tobytes()
    return message.count - skip, new


LogRequest = Register | KeepAlive | CloseSession | Commands
"""Requests that become entries."""


TIMEOUT_MS_MIN = 100
TIMEOUT_MS_MAX = 86_400_000
"""A session's timeout is clamped to these, whatever its client asks for."""

REGISTRATIONS_MAX = 4096
"""Clients whose newest REGISTER is remembered."""

REPLIES_NBYTES_MAX = 64 << 20
"""No more commands of a session are logged while it holds so many bytes of replies."""

REPLIES_TOTAL_NBYTES_MAX = 8 * REPLIES_NBYTES_MAX
"""The same of all sessions together that hold much."""

FRAME_OVERHEAD = 64
"""Bytes that an entry may add to its operation in the log: header, envelope, padding."""


class Limits:
    """Back-pressure, per session and for those that wait for a leader to be ready."""

    def __init__(self, *, inflight_commands_max: int, inflight_bytes_max: int) -> None:
        self.inflight_commands_max = inflight_commands_max
        self.inflight_bytes_max = inflight_bytes_max
        self.waiting_max = 65536
        self.waiting_bytes_max = 4 * inflight_bytes_max
        """Requests that wait for this leader's no-op: one that replays a long log is not
        ready for a while, and every client sends all that it has."""
        self.total_bytes_max = 4 * inflight_bytes_max
        """Commands that are logged and not applied, of all sessions together."""
        self.replies_bytes_max = REPLIES_NBYTES_MAX
        """Replies of one session that its client has not acknowledged (F24)."""
        self.replies_total_bytes_max = REPLIES_TOTAL_NBYTES_MAX
        """The same of all sessions that hold much."""


class Proposal:
    """Entries that wait to be appended, in order, each with the requests that it answers."""

    __slots__ = ("count", "frames_nbytes_max", "item", "nbytes", "waiter")

    def __init__(
        self, item: EncodeItem, nbytes: int, waiter: tuple[Route, int] | None = None
    ) -> None:
        self.item = item
        self.count = item[4]
        self.nbytes = nbytes
        self.frames_nbytes_max = nbytes + FRAME_OVERHEAD * self.count
        """What it can become in the log."""
        self.waiter = waiter


class WriteStall(NamedTuple):
    """What full disks stop (F12): requests are refused for `reason`, unless that is empty."""

    reason: str = ""
    stops_commits: bool = False
    """Too few members take entries: what the leader has in its log cannot be committed either."""


class Registrations:
    """The newest REGISTER of each client that registered here lately.

    A client that gets no answer to a REGISTER asks another member. If the first REGISTER, late on
    its way, is received after the second, it must not become an entry: it would end the session
    that the second one opened, and that the client uses.
    """

    def __init__(self) -> None:
        self._newest: OrderedDict[str, tuple[int, int]] = OrderedDict()
        """client id -> (instance, request), in the order in which they were received."""

    def newest_before(self, message: Register) -> int:
        """The highest request that the same client object sent before `message`, which is
        remembered; -1: none is known."""
        instance, newest = self._newest.pop(message.client_id, (0, -1))
        if not message.instance or message.instance != instance:
            newest = -1
        self._newest[message.client_id] = message.instance, max(newest, message.request)
        if len(self._newest) > REGISTRATIONS_MAX:
            self._newest.popitem(last=False)
        return newest


class ProposalQueue:
    """What the leader is to append, in order, and the requests that wait for an answer to it."""

    def __init__(
        self,
        options: ReplicaOptions,
        members: MemberTable,
        reader: OperationReader,
        sessions: SessionIndex,
        connections: Connections,
        replies: Replies,
    ) -> None:
        self._limits = Limits(
            inflight_commands_max=options.inflight_commands_max,
            inflight_bytes_max=options.inflight_bytes_max,
        )
        self._session_timeout_ms = options.session_timeout_ms
        self._cluster_name = options.cluster_name
        self._members = members
        self._sessions = sessions
        self._connections = connections
        self._replies = replies
        self._registrations = Registrations()
        self._admission = Admission(reader, options.max_entry_size)
        self.proposals: deque[Proposal] = deque()
        self.write_stall_reason: RefusalReason | None = None
        """Why nothing new is taken now: full disks (F12). Queries continue."""
        self._admitting = False
        self._noop = (0, 0)
        """(index, log time) of this leader's no-op until it is applied; zeros before and after."""
        self._total_nbytes = 0
        self._waiting: deque[tuple[Route, LogRequest]] = deque()
        self._waiting_nbytes = 0
        self._last_applied = 0
        self._waiters: deque[tuple[int, Route, int]] = deque()
        """(index, route, request) of appended registers, keep-alives and closes."""

    # ---- requests ---------------------------------------------------------------------

    def request(self, route: Route, message: LogRequest) -> None:
        """The leader received a request that becomes an entry."""
        if self._admitting:
            self._admit(route, message)
            return
        if self.write_stall_reason:
            self._replies.refuse(route, message, self.write_stall_reason)
            return
        nbytes = len(message.body) if isinstance(message, Commands) else 0
        limits = self._limits
        if (
            len(self._waiting) >= limits.waiting_max
            or self._waiting_nbytes + nbytes > limits.waiting_bytes_max
        ):
            self._refuse(route, message, Refusal.OVERLOADED, "too many requests wait")
            return
        self._waiting_nbytes += nbytes
        self._waiting.append((route, message))

    def _refuse(self, route: Route, message: LogRequest, code: Refusal, reason: str) -> None:
        """Answer that nothing of this request was logged here."""
        # Of commands the code says it all, and there may be thousands of such answers.
        reason = "" if isinstance(message, Commands) else reason
        self._replies.refuse(route, message, RefusalReason(code, reason))

    def _admit(self, route: Route, message: LogRequest) -> None:
        match message:
            case Commands():
                self._admit_commands(route, message)
            case _ if self.write_stall_reason:
                self._replies.refuse(route, message, self.write_stall_reason)
            case _ if len(self._waiters) + len(self.proposals) >= self._limits.waiting_max:
                self._refuse(route, message, Refusal.OVERLOADED, "too many requests wait")
            case Register():
                newest = self._registrations.newest_before(message)
                if message.request < newest:
                    reason = "the client has sent a later REGISTER"
                    self._refuse(route, message, Refusal.SUPERSEDED, reason)
                if message.request <= newest:
                    return  # a duplicate of the newest is answered with it
                timeout_ms = message.timeout_ms or self._session_timeout_ms
                timeout_ms = max(TIMEOUT_MS_MIN, min(timeout_ms, TIMEOUT_MS_MAX))
                body = encode_register(message.client_id, timeout_ms)
                self._propose(EntryKind.REGISTER, body, (route, message.request))
            case KeepAlive() | CloseSession():
                view = self._sessions.get(message.session)
                if view is not None:
                    self._connections.set_route(view.session, route)
                elif self._is_past(message.session):
                    self._refuse(route, message, Refusal.UNKNOWN_SESSION, "no such session")
                    return
                waiter = (route, message.request)
                if isinstance(message, KeepAlive):
                    if view is not None:
                        view.acked_sequence = max(view.acked_sequence, message.acked_sequence)
                    body = encode_keep_alive(message.session, message.acked_sequence)
                    self._propose(EntryKind.KEEP_ALIVE, body, waiter)
                else:
                    self._propose(EntryKind.CLOSE, encode_close(message.session), waiter)

    def _is_past(self, session: int) -> bool:
        """Whether a session that is not open here can be called unknown for good.

        Its id is the index of its REGISTER. At or below what is applied here, the log itself
        has ended it. Above that, another leader may have opened it: one that was cut off and
        does not know yet must not end a session (I19); its keep-alive becomes an entry, which
        takes effect only if a majority has it.
        """
        return session <= self._last_applied

    def _admit_commands(self, route: Route, message: Commands) -> None:
        view = self._sessions.get(message.session)
        if view is None:
            if self._is_past(message.session):
                self._refuse(route, message, Refusal.UNKNOWN_SESSION, "no such session")
            else:
                self._refuse(
                    route, message, Refusal.NO_LEADER, "the session is not known here yet"
                )
            return
        self._connections.set_route(view.session, route)
        first, last = message.first_sequence, message.first_sequence + message.count - 1
        expected = view.request_sequence + 1
        if first > expected:
            why = RefusalReason(Refusal.COMMAND)
            self._replies.refuse_commands(route, view.session, expected, why)
            return
        if first <= view.sequence:  # applied before: the first result again, never a second
            self._connections.resend(view.session, first, min(last, view.sequence))
        if self.write_stall_reason and last > view.sequence:
            self._replies.refuse_commands(route, view.session, expected, self.write_stall_reason)
            return
        if last < expected:
            return  # what is in flight is answered when it is applied
        nbytes, room = len(message.body), self._room(view)
        if room < 1 or self._is_full(view, last, nbytes):
            self._acknowledge(view, message.acked_sequence)
            self._refuse_more(view, route, expected)
            return
        count, body = self._admission.take(message, expected, room)
        nbytes = max(nbytes, len(body))
        view.admitted(expected + count - 1, nbytes)
        view.acked_sequence = max(view.acked_sequence, message.acked_sequence)
        self._total_nbytes += nbytes
        kind = int(EntryKind.COMMAND)
        item = (kind, view.session, expected, message.acked_sequence, count, body)
        self.proposals.append(Proposal(item, nbytes))
        if view.request_sequence < last:
            self._refuse_more(view, route, view.request_sequence + 1)

    def _refuse_more(self, view: SessionView, route: Route, next_sequence: int) -> None:
        """Too much is under way: the client sends again from `next_sequence`, a little later."""
        why = RefusalReason(Refusal.OVERLOADED)
        self._replies.refuse_commands(route, view.session, next_sequence, why)

    def _room(self, view: SessionView) -> int:
        """How many commands of a session may be logged now, by the size of its replies (F24).

        A reply of an open session is never dropped, so a session that acknowledges nothing gets no
        further command into the log.
        """
        unacked_nbytes, limits = self._sessions.unacked_nbytes_of(view), self._limits
        waiting = view.request_sequence - view.sequence
        room = (limits.replies_bytes_max - unacked_nbytes) // view.reply_nbytes - waiting
        if not unacked_nbytes and not waiting:
            return max(1, room)  # one reply alone always fits
        return room if self._sessions.unacked_total_nbytes <= limits.replies_total_bytes_max else 0

    def _acknowledge(self, view: SessionView, acked_sequence: int) -> None:
        """Log what refused commands acknowledge; otherwise no reply could be deleted."""
        if acked_sequence > view.acked_sequence:
            view.acked_sequence = acked_sequence
            self._propose(EntryKind.KEEP_ALIVE, encode_keep_alive(view.session, acked_sequence))

    def _is_full(self, view: SessionView, last: int, nbytes: int) -> bool:
        """Whether a run up to sequence `last` has to wait for those in flight.

        When nothing is in flight the run need not wait: otherwise a client that sends a run longer
        than a limit would be refused for ever.
        """
        limits = self._limits
        if view.inflight and (
            last - view.sequence > limits.inflight_commands_max
            or view.inflight_nbytes + nbytes > limits.inflight_bytes_max
        ):
            return True
        return self._total_nbytes > 0 and self._total_nbytes + nbytes > limits.total_bytes_max

    def _propose(
        self, kind: EntryKind, body: bytes, waiter: tuple[Route, int] | None = None
    ) -> None:
        self.proposals.append(Proposal((int(kind), 0, 0, 0, 1, body), len(body), waiter))

    # ---- what the leader writes of itself ------------------------------------------------

    def propose_expiries(self, now_ms: int) -> None:
        """Write an EXPIRE for every session that was silent too long (I19, C25)."""
        if self._admitting:
            for view in self._sessions.overdue(now_ms):
                body = encode_expire(view.session, view.active_index)
                self._propose(EntryKind.EXPIRE, body)

    def propose_tick(self) -> None:
        """Write a TICK: a timer is due and no traffic carries the time."""
        if self._admitting:
            self._propose(EntryKind.TICK, b"")

    def propose_incarnation(self, member: MemberId, incarnation: int) -> None:
        """Write a member's incarnation (C16)."""
        if self._admitting:
            self._propose(EntryKind.INCARNATION, encode_incarnation(member, incarnation))

    def propose_availability(self, member: MemberId, *, is_available: bool) -> None:
        """Write whether this leader hears a member (C38)."""
        if self._admitting:
            body = encode_availability(member, is_available=is_available)
            self._propose(EntryKind.AVAILABILITY, body)

    # ---- what comes back -------------------------------------------------------------------

    def appended(self, first_index: int, proposals: Sequence[Proposal]) -> None:
        """These proposals became entries, from `first_index` on."""
        index = first_index
        for proposal in proposals:
            if proposal.waiter is not None:
                self._waiters.append((index, *proposal.waiter))
            index += proposal.count

    def applied(self, outcome: ApplyResult) -> bool:
        """A slice was applied: update the `SessionIndex`, and answer requests that wait. True when
        the no-op of
        this leader is in it, so that it admits requests from now on (C18)."""
        self._last_applied = outcome.last_applied
        self._sessions.set_unacked(outcome.unacked_nbytes)
        opened: dict[int, SessionOpened] = {}
        touched: dict[int, SessionKeptAlive] = {}
        ended: list[SessionEnded] = []
        for change in outcome.changes:
            match change:
                case SessionOpened():
                    self._sessions.opened(change)
                    opened[change.session] = change
                case SessionKeptAlive():
                    self._sessions.touched(change)
                    touched[change.index] = change
                case SessionEnded():
                    ended.append(change)
                case _:
                    pass  # what is said of members is the replica's
        for reply in outcome.replies:
            self._reply(reply)
        # Only now: what a session did before its end in this slice has its replies.
        for end in ended:
            self._session_ended(end)
        closed = {end.index for end in ended}
        while self._waiters and self._waiters[0][0] <= outcome.last_applied:
            index, route, request = self._waiters.popleft()
            if index in opened:
                timeout_ms = opened[index].timeout_ms
                cluster = self._replies.leader, self._members.addresses, self._cluster_name
                incarnation = self._members.cluster_incarnation
                registered = Registered(request, index, timeout_ms, *cluster, incarnation)
                self._replies.send(route, registered)
            elif index in touched:
                leader, addresses = self._replies.leader, self._members.addresses
                incarnation = self._members.cluster_incarnation
                self._replies.send(route, KeptAlive(request, leader, addresses, incarnation))
            elif index in closed:
                self._replies.send(route, SessionClosed(request))
            else:
                self._fail(
                    route, request, RefusalReason(Refusal.UNKNOWN_SESSION, "no such session")
                )
        noop_index, noop_ms = self._noop
        if not noop_index or outcome.last_applied < noop_index:
            return False
        self._noop = (0, 0)
        self._lead(noop_index, noop_ms)
        return True

    def _reply(self, reply: RunReply) -> None:
        view = self._sessions.get(reply.session)
        if view is None:
            return  # it ended in an earlier slice
        self._total_nbytes -= view.applied(reply)
        self._connections.send(reply)

    def _session_ended(self, change: SessionEnded) -> None:
        view = self._sessions.ended(change)
        if view is not None:
            self._total_nbytes -= view.inflight_nbytes
        route = self._connections.route_of(change.session)
        if view is not None and route is not None and view.inflight:
            why = RefusalReason(Refusal.UNKNOWN_SESSION)
            self._replies.refuse_commands(route, view.session, 1, why)
        self._connections.session_ended(change.session)

    # ---- leadership ----------------------------------------------------------------------

    def noop_appended(self, index: int, time_ms: int) -> None:
        """This leader's no-op is in its log, with this log time."""
        self._noop = (index, time_ms)

    def _lead(self, noop_index: int, time_ms: int) -> None:
        """This leader's no-op is applied: admit, beginning with those that waited (C18)."""
        self._sessions.restart_timeouts(noop_index, time_ms)
        self._admitting = True
        self._waiting_nbytes = 0
        while self._waiting:
            self._admit(*self._waiting.popleft())

    def close_for(self, write_stall: WriteStall) -> None:
        """Take nothing new while disks are full, and say so to those whose requests wait.

        Commands in the log stay there: the refusal is of those after them.
        """
        why = self.write_stall_reason = RefusalReason(Refusal.DISK_FULL, write_stall.reason, (), 0)
        for view in self._sessions:
            route = self._connections.route_of(view.session)
            if route is not None and view.inflight:
                next_sequence = view.request_sequence + 1
                self._replies.refuse_commands(route, view.session, next_sequence, why)
        self._fail_waiters(why, logged=write_stall.stops_commits)

    def reopen(self) -> None:
        """No disk is full any more."""
        self.write_stall_reason = None

    def step_down(self) -> None:
        """This member does not lead any more: fail all that waits here, at once."""
        self._noop = (0, 0)
        self._admitting = False
        for view in self._sessions:
            route = self._connections.route_of(view.session)
            if route is not None and view.inflight:
                why = RefusalReason(Refusal.NO_LEADER)
                self._replies.refuse_commands(route, view.session, 1, why)
        reason = "this member is not the leader any more"
        self._fail_waiters(RefusalReason(Refusal.NO_LEADER, reason), logged=True)
        self._total_nbytes = 0
        self.proposals.clear()
        self._sessions.forget_requests()
        self._connections.forget_routes()

    def _fail_waiters(self, why: RefusalReason, *, logged: bool) -> None:
        """Answer the requests that wait to be appended and, if `logged`, those that were."""
        waiters = [each.waiter for each in self.proposals if each.waiter is not None]
        if logged:
            waiters = [(route, request) for _, route, request in self._waiters] + waiters
            self._waiters.clear()
        for route, request in waiters:
            self._fail(route, request, why)
        for route, message in self._waiting:
            self._replies.refuse(route, message, why)
        self.proposals = deque(each for each in self.proposals if each.waiter is None)
        self._waiting.clear()
        self._waiting_nbytes = 0

    def _fail(self, route: Route, request: int, why: RefusalReason) -> None:
        failure = Failure(request, why.code, self._replies.leader, why.reason)
        self._replies.send(route, failure)

    @property
    def admitting(self) -> bool:
        """True on a leader whose no-op is applied."""
        return self._admitting

    def put_back(self, proposals: list[Proposal]) -> None:
        """These proposals cannot be appended now; they stay at the front of the queue."""
        self.proposals.extendleft(reversed(proposals))

    def take(self, nbytes_max: int) -> list[Proposal]:
        """The next proposals for one batch: about `nbytes_max`, but at least one."""
        require(self.proposals, "nothing to propose")
        proposals = [self.proposals.popleft()]
        nbytes = proposals[0].nbytes
        while self.proposals and nbytes + self.proposals[0].nbytes <= nbytes_max:
            proposals.append(self.proposals.popleft())
            nbytes += proposals[-1].nbytes
        return proposals
