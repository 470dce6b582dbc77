"""The state of one session in the client: decides what to send, and handles replies. No I/O.

No command is ever sent again under another session (C18): when the session has expired, commands
that were sent and not answered fail with `SessionExpiredError`, whose `pending` lists them. Times
are milliseconds of a monotonic clock, and are passed as arguments.
"""

from __future__ import annotations

from copycat.client.outbox import Outbox
from copycat.client.submissions import SessionPhase, Submissions
from copycat.client.unavailability import (
    BACK_PRESSURE,
    DISCONNECTED,
    RETRIED_QUERIES,
    SWITCH_AT_ONCE,
    Unavailability,
    session_regressed,
    unavailability_of,
)
from copycat.errors import (
    ClosedSessionError,
    ClusterReplacedError,
    CopycatError,
    EntryTooLargeError,
    ProtocolError,
    SessionExpiredError,
)
from copycat.protocol.client import (
    ClientMessage,
    CloseSession,
    CommandsRefused,
    Failure,
    KeepAlive,
    KeptAlive,
    QueryResult,
    Refusal,
    Registered,
    Results,
    ServerMessage,
    SessionClosed,
)
from copycat.protocol.results import decode_result, refusal_error
from copycat.types import ConsistencyLevel

__all__ = ["ClientSession", "SessionPhase"]

RETRY_MS_MIN = 10
RETRY_MS_MAX = 500
RESEND_MS_MIN = 1000
"""When no command was answered for so long, all unanswered ones are sent again: a forwarded frame
is lost when the member that forwards it stops. The wait doubles up to RESEND_MS_MAX."""
RESEND_MS_MAX = 8000
SWITCH_AFTER_MS = 2000
"""When a server has known no leader for so long, the client tries another server."""
DISCONNECTED_AFTER_MS = 5000
_TOO_LARGE = (
    "store the value elsewhere and log a reference to it; or have storage.max_entry_size, a"
    " setting of the servers, raised on every member"
)
STUCK_MS = 1000
"""When no command was answered for so long, though some wait, sequential queries overtake them."""


class ClientSession(Submissions):
    """The state of one session.

    `outgoing` returns the messages to send, and `received` handles a message that has arrived.
    """

    def __init__(self, outbox: Outbox | None = None, *, expired_hint: str | None = None) -> None:
        super().__init__(Outbox() if outbox is None else outbox)
        self._expired_hint = expired_hint
        """The hint of the error of an expired session."""
        self._keep_alive_due_ms = 0
        self._is_keep_alive_unanswered = False
        """True while no message has arrived since the last keep-alive was sent."""
        self._keep_alive_late_ms = 0
        """The most by which a keep-alive was sent too late, since the event loop was blocked."""
        self.confirmed_ms = 0
        """When the cluster last confirmed the session."""
        self._regression: Unavailability | None = None
        self._backoff_until_ms = 0
        self._refusals = 0
        self._leaderless_since_ms: int | None = None
        self._last_progress_ms = 0
        self._unanswered_since_ms = 0
        """The last time when a command was answered, or when no command waited."""
        self._resend_ms = RESEND_MS_MIN
        self._is_connected = False
        self.timeout_ms = 0
        self.index = 0
        """The highest log index in any reply: later queries see a state at least as new."""
        self.cluster = ""
        """The name of the cluster that opened the session."""
        self.cluster_incarnation = 0
        """Which cluster of that name it was (C41); 0 while that is not known."""
        self.leader = ""
        self.members: tuple[str, ...] = ()
        self.is_expired = False
        self.is_confirmed = True
        """False after a keep-alive that was refused or not answered."""
        self.must_switch_server = False
        """True when the connected server cannot serve this session now."""

    # --- the connection --------------------------------------------------------------------

    def opened(self, registered: Registered, now_ms: int) -> None:
        """The cluster has opened the session."""
        self.phase = SessionPhase.OPEN
        self.session = registered.session
        self.timeout_ms = registered.timeout_ms
        self.index = registered.session
        self.cluster = registered.cluster
        self.cluster_incarnation = registered.incarnation
        self._confirm(now_ms)
        self._follow(registered.leader, registered.members)
        self._keep_alive_due_ms = now_ms + self.timeout_ms // 3

    def connected(self, now_ms: int, *, fresh: bool = False) -> None:
        """A connection was opened: everything that is not answered is sent again, in order.

        fresh: the session was opened by this connection. Otherwise a keep-alive is sent first,
        which tells the cluster to which member this client is connected.
        """
        self._is_connected = True
        if self.unavailability is DISCONNECTED:
            self.unavailability = None
        self._outbox.connected()
        self._backoff_until_ms = 0
        self._resend_from(now_ms)
        self._queries.resend_all()
        self.must_switch_server = False
        self._is_keep_alive_unanswered = False
        if not fresh:
            self._keep_alive_due_ms = now_ms

    def disconnected(self) -> None:
        """The connection was closed: operations wait for the next one."""
        self._is_connected = False
        if self.unavailability is None:
            self.unavailability = DISCONNECTED

    def no_server_reachable(self, now_ms: int) -> None:
        """No server could be reached: the reason for errors, unless a server gave one recently."""
        if (
            self.unavailability is None
            or now_ms - self.unavailability.seen_ms >= DISCONNECTED_AFTER_MS
        ):
            self.unavailability = DISCONNECTED

    def deadline_ms(self, *, is_full: bool = False) -> int:
        """The time at which `outgoing` must be called although nothing happened."""
        if is_full:
            return self._keep_alive_due_ms
        deadline = min(self._keep_alive_due_ms, self._queries.due_ms)
        if self._outbox.last_sent > self._outbox.last_answered:
            deadline = min(deadline, self._last_progress_ms + self._resend_ms)
        if self._outbox.last_sent < self._outbox.last_submitted and self._backoff_until_ms:
            deadline = min(deadline, self._backoff_until_ms)
        return deadline

    def outgoing(self, now_ms: int, *, is_full: bool = False) -> list[ClientMessage]:
        """The messages to send now, in order; none while there is no connection.

        is_full: the socket accepts no more bytes. Then only keep-alives are sent, so that a
        server that has died is noticed.
        """
        if self._has_abandoned_calls:
            self._drop_abandoned()
        if not self._is_connected or self.phase is not SessionPhase.OPEN:
            return []
        messages: list[ClientMessage] = []
        if now_ms >= self._keep_alive_due_ms:
            messages.append(self._keep_alive(now_ms))
        if is_full:
            return messages
        if now_ms >= self._backoff_until_ms:
            self._backoff_until_ms = 0
            self._rewind_if_stalled(now_ms)
            last = None if self.unavailability is None else self._last_sendable()
            messages += self._outbox.frames(self.session, last)
        queries = self._queries
        if queries.nbytes and self._is_stuck(now_ms):
            queries.overtake()
        if now_ms >= queries.due_ms or (queries.nbytes and queries.has_unsent):
            messages += queries.outgoing(
                now_ms,
                session=self.session,
                index=self.index,
                last_answered=self._outbox.last_answered,
            )
        return messages

    def _last_sendable(self) -> int:
        """The last sequence that may be sent while the cluster does not execute commands.

        Commands that were sent before are sent again, or else one command, whose answer shows when
        the cluster executes commands again. Commands that were never sent can still be dropped
        when they time out.
        """
        return max(self._outbox.last_attempted, self._outbox.last_answered + 1)

    def _is_stuck(self, now_ms: int) -> bool:
        if self._outbox.is_idle:
            return False
        return self.unavailability is not None or now_ms - self._unanswered_since_ms >= STUCK_MS

    def _keep_alive(self, now_ms: int) -> KeepAlive:
        if self._is_keep_alive_unanswered:
            self.is_confirmed = False
            self.must_switch_server = True
        self._is_keep_alive_unanswered = True
        self._keep_alive_late_ms = max(self._keep_alive_late_ms, now_ms - self._keep_alive_due_ms)
        self._keep_alive_due_ms = now_ms + max(1, self.timeout_ms // 3)
        self._request += 1
        cluster = self.cluster, self.cluster_incarnation
        return KeepAlive(self._request, self.session, self._outbox.last_answered, *cluster)

    def _rewind_if_stalled(self, now_ms: int) -> None:
        outbox = self._outbox
        if outbox.last_sent == outbox.last_answered:
            self._last_progress_ms = now_ms
            if self.unavailability is None or outbox.is_idle:
                self._unanswered_since_ms = now_ms
        elif now_ms >= self._last_progress_ms + self._resend_ms:
            outbox.rewind(outbox.last_answered + 1)
            self._last_progress_ms = now_ms
            self._resend_ms = min(2 * self._resend_ms, RESEND_MS_MAX)

    def _resend_from(self, now_ms: int) -> None:
        self._last_progress_ms = now_ms
        self._resend_ms = RESEND_MS_MIN
        self._refusals = 0
        self._leaderless_since_ms = None

    def _confirm(self, now_ms: int) -> None:
        """The leader has served a request: there is no unavailability, except a regression."""
        self.is_confirmed = True
        self.unavailability = self._regression
        self.confirmed_ms = now_ms
        self._leaderless_since_ms = None

    def close(self) -> CloseSession:
        """The message that asks the cluster to close the session."""
        self._request += 1
        return CloseSession(self._request, self.session)

    # --- replies ---------------------------------------------------------------------------

    def received(self, message: ServerMessage, now_ms: int) -> None:
        """Handle a message from a server; `take_finished` then returns what it completes.

        ProtocolError when the message does not fit what was sent.
        """
        if self.phase is SessionPhase.CLOSED:
            return
        self._is_keep_alive_unanswered = False
        match message:
            case Results():
                self._on_results(message, now_ms)
            case CommandsRefused():
                self._on_refused(message, now_ms)
            case QueryResult():
                self._on_query_result(message, now_ms)
            case KeptAlive():
                self._confirm(now_ms)
                self.cluster_incarnation = message.incarnation or self.cluster_incarnation
                self._follow(message.leader, message.members)
            case Failure():
                self._on_failure(message, now_ms)
            case Registered() | SessionClosed():
                pass  # an answer to a request of an earlier connection

    def _on_results(self, message: Results, now_ms: int) -> None:
        if message.session != self.session:
            return
        outbox, first = self._outbox, message.first_sequence
        last = first + message.count - 1
        if first < 1 or message.count < 1 or last > outbox.last_attempted:
            raise ProtocolError(
                f"session {self.session}: results for sequences {first} to {last}, while"
                f" {outbox.last_attempted} were sent"
            )
        self.index = max(self.index, message.last_index)
        if last <= outbox.last_answered:
            return
        if not self._take_results(first, message):
            return
        self._resend_from(now_ms)
        self._unanswered_since_ms = now_ms
        self._regression = None
        self._confirm(now_ms)

    def _on_query_result(self, message: QueryResult, now_ms: int) -> None:
        self.index = max(self.index, message.index)
        query = self._queries.get(message.request)
        if query is None:
            return
        if query.level is not ConsistencyLevel.SEQUENTIAL:
            # A sequential query proves nothing: a server without a leader answers it too.
            self._confirm(now_ms)
        value = decode_result(message.body, query.result_type)
        self._queries.finish(query, value, failed=isinstance(value, CopycatError))

    # --- refusals --------------------------------------------------------------------------

    def _on_refused(self, message: CommandsRefused, now_ms: int) -> None:
        if message.session != self.session:
            return
        if message.code == Refusal.UNKNOWN_SESSION:
            self.expire("the cluster does not know it any more", now_ms)
            return
        self._follow(message.leader, ())
        if message.code == Refusal.TOO_LARGE:
            self._fail_largest_command(message)
            return
        self._assess_server(message, now_ms)
        outbox, expected = self._outbox, message.next_sequence
        if (
            message.code == Refusal.COMMAND
            and expected <= outbox.last_answered
            and not outbox.is_idle
        ):
            # It may be a deposed leader that lacks the newest commands; `_on_results` clears it
            # then.
            self.unavailability = self._regression = session_regressed(
                message.leader, expected, outbox.last_answered, now_ms
            )
        if outbox.rewind(message.next_sequence) or message.code in BACK_PRESSURE:
            # A first refusal is retried at once: frames can overtake each other at an election.
            # Further refusals without progress are retried after ever longer waits.
            delay_ms = 0
            if self._refusals or message.code != Refusal.COMMAND:
                delay_ms = min(RETRY_MS_MIN << min(self._refusals, 6), RETRY_MS_MAX)
            self._refusals += 1
            self._backoff_until_ms = now_ms + delay_ms
            self._last_progress_ms = now_ms

    def _fail_largest_command(self, message: CommandsRefused) -> None:
        """Servers refuse a frame for its largest command: fail it; the others continue."""
        outbox, reason = self._outbox, message.reason
        largest = outbox.largest_refused(message.next_sequence)
        if largest is None:
            return  # it has failed already: the frame was on its way then
        sequence, nbytes = largest
        if nbytes == 0:
            raise ProtocolError(f"an empty command ({sequence}) was refused as too large")
        outbox.empty(sequence)
        text = (
            f"command {sequence} of the session is {nbytes} bytes encoded;"
            f" {reason or 'the limit of the servers is lower'}; it was not applied"
        )
        error = EntryTooLargeError(text, hint=_TOO_LARGE, size=nbytes)
        self._completion.expect_refused(sequence, error)

    def _assess_server(self, message: CommandsRefused | Failure, now_ms: int) -> None:
        """Note why the server does not serve the session, and whether to try another server."""
        self.unavailability = unavailability_of(message, now_ms) or self.unavailability
        code = message.code
        if code in SWITCH_AT_ONCE:
            self.must_switch_server = True
        elif code in (Refusal.NO_LEADER, Refusal.NO_QUORUM):
            if self._leaderless_since_ms is None:
                self._leaderless_since_ms = now_ms
            if now_ms - self._leaderless_since_ms >= SWITCH_AFTER_MS:
                self.must_switch_server = True

    def _on_failure(self, message: Failure, now_ms: int) -> None:
        if message.code == Refusal.UNKNOWN_SESSION:
            self.expire(message.reason, now_ms)
            return
        self._follow(message.leader, ())
        self._assess_server(message, now_ms)
        query = self._queries.get(message.request)
        if query is None:
            # It refuses a keep-alive, since the server knows no leader.
            self.is_confirmed = False
            soon_ms = now_ms + max(1, self.timeout_ms // 10)
            self._keep_alive_due_ms = min(self._keep_alive_due_ms, soon_ms)
        elif message.code in RETRIED_QUERIES:
            # A query may be repeated: it changes nothing, and ends with its timeout.
            self._queries.postpone(query, now_ms)
        else:
            error = refusal_error(message.code, message.reason, leader=message.leader)
            self._queries.finish(query, error, failed=True)

    # --- the end ---------------------------------------------------------------------------

    def expire(self, reason: str, now_ms: int | None = None) -> None:
        """The session has expired: fail everything that waits (C18).

        now_ms: adds to the reason when the session was last confirmed.
        """
        self.is_expired = True
        if now_ms is not None:
            ago_s, timeout_s = (now_ms - self.confirmed_ms) / 1000, self.timeout_ms / 1000
            reason += f"; last confirmed {ago_s:.1f} s ago, its timeout is {timeout_s:g} s"
        if self._keep_alive_late_ms > self.timeout_ms // 3:
            reason += f" (this event loop was blocked for {self._keep_alive_late_ms / 1000:.1f} s)"
        text = f"session {self.session} expired: {reason}"
        self._end(SessionExpiredError, text, self._expired_hint)

    def replaced(self, reason: str) -> None:
        """The servers are of another cluster with the same name: fail everything that waits, and
        send nothing of it again (C41)."""
        session = f"session {self.session}" if self.session else "the last session"
        self._end(ClusterReplacedError, f"the cluster of {session} was replaced: {reason}")

    def closed(self, reason: str = "") -> None:
        """This client has closed the session: fail everything that waits, with `reason`."""
        reason = reason or (self.unavailability.text if self.unavailability is not None else "")
        text = f"session {self.session} was closed" if self.session else "no session was opened"
        self._end(ClosedSessionError, f"{text}: {reason}" if reason else text)

    def _follow(self, leader: str, members: tuple[str, ...]) -> None:
        self.leader = leader
        if members:
            self.members = members
