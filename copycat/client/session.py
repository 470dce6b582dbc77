"""One session as the client sees it: what to send, and what has arrived. Sans-IO.

Nothing here is ever retried under another session (C18, I19): when the session is gone, all
that was sent and not answered fails with `SessionExpiredError`, whose `pending` lists it.
Times are milliseconds of a monotonic clock, handed in.
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
"""A relayed frame can be lost with the member that relayed it: unanswered for so long, it is
sent again, and the cluster answers from its cache what it already knows."""
RESEND_MS_MAX = 8000
SWITCH_AFTER_MS = 2000
"""A server without a leader for longer than elections take may be cut off: try another."""
DISCONNECTED_AFTER_MS = 5000
_TOO_LARGE = (
    "store the blob elsewhere and log a reference; the limit is a setting of the servers,"
    " storage.max_entry_size: whoever runs them can raise it, on every member"
)
STUCK_MS = 1000
"""No command was answered for so long, though some wait: sequential reads overtake them."""


class ClientSession(Submissions):
    """State of one session. `outgoing` and `received` are the two doors."""

    def __init__(self, outbox: Outbox | None = None, *, expired_hint: str | None = None) -> None:
        super().__init__(Outbox() if outbox is None else outbox)
        self._expired_hint = expired_hint
        """What the error of an expired session advises."""
        self._keep_alive_due_ms = 0
        self._is_keep_alive_unanswered = False
        """A keep-alive was sent and nothing at all has come since."""
        self._keep_alive_late_ms = 0
        """The most that a keep-alive left later than it was due: the loop was blocked."""
        self._confirmed_ms = 0
        """When the cluster last confirmed the session."""
        self._regression: Unavailability | None = None
        self._backoff_until_ms = 0
        self._refusals = 0
        self._leaderless_since_ms: int | None = None
        self._last_progress_ms = 0
        self._unanswered_since_ms = 0
        """When a command was last answered, or none waited."""
        self._resend_ms = RESEND_MS_MIN
        self._is_connected = False
        self.timeout_ms = 0
        self.index = 0
        """The highest log index seen in a reply: no later read goes below it."""
        self.cluster = ""
        """Name of the cluster that opened the session."""
        self.leader = ""
        self.members: tuple[str, ...] = ()
        self.is_expired = False
        self.is_confirmed = True
        """False after a keep-alive that failed or was not answered."""
        self.must_switch_server = False
        """The server at hand cannot serve this session now: try another one."""

    # --- the connection --------------------------------------------------------------------

    def opened(self, registered: Registered, now_ms: int) -> None:
        """REGISTER was answered: the session exists."""
        self.phase = SessionPhase.OPEN
        self.session = registered.session
        self.timeout_ms = registered.timeout_ms
        self.index = registered.session
        self.cluster = registered.cluster
        self._confirm(now_ms)
        self._follow(registered.leader, registered.members)
        self._keep_alive_due_ms = now_ms + self.timeout_ms // 3

    def connected(self, now_ms: int, *, fresh: bool = False) -> None:
        """A connection is up. Everything unanswered leaves again, in order.

        fresh: it just carried the registration. Otherwise a keep-alive goes first, so that
        the server learns at once where this session is.
        """
        self._is_connected = True
        if self.unavailability is DISCONNECTED:
            self.unavailability = None
        self._outbox.rewind(self._outbox.last_answered + 1)
        self._backoff_until_ms = 0
        self._resend_from(now_ms)
        self._queries.resend_all()
        self.must_switch_server = False
        self._is_keep_alive_unanswered = False
        if not fresh:
            self._keep_alive_due_ms = now_ms

    def disconnected(self) -> None:
        """The connection is gone; submissions wait for the next one."""
        self._is_connected = False
        if self.unavailability is None:
            self.unavailability = DISCONNECTED

    def no_server_reachable(self, now_ms: int) -> None:
        """No server could be reached: that counts once nothing better was heard for a while."""
        if (
            self.unavailability is None
            or now_ms - self.unavailability.seen_ms >= DISCONNECTED_AFTER_MS
        ):
            self.unavailability = DISCONNECTED

    def deadline_ms(self, *, is_full: bool = False) -> int:
        """When `outgoing` must be called although nothing happened."""
        if is_full:
            return self._keep_alive_due_ms
        deadline = min(self._keep_alive_due_ms, self._queries.due_ms)
        if self._outbox.last_sent > self._outbox.last_answered:
            deadline = min(deadline, self._last_progress_ms + self._resend_ms)
        if self._outbox.last_sent < self._outbox.last_submitted and self._backoff_until_ms:
            deadline = min(deadline, self._backoff_until_ms)
        return deadline

    def outgoing(self, now_ms: int, *, is_full: bool = False) -> list[ClientMessage]:
        """Everything to send now, in order; nothing while there is no connection.

        is_full: the socket takes no more. Keep-alives go all the same, to find out the dead.
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
            messages += self._outbox.frames(self.session, self._last_sendable())
        if self._queries and self._is_stuck(now_ms):
            self._queries.overtake()
        if self._queries.has_unsent or now_ms >= self._queries.due_ms:
            messages += self._queries.outgoing(
                now_ms,
                session=self.session,
                index=self.index,
                last_answered=self._outbox.last_answered,
            )
        return messages

    def _last_sendable(self) -> int | None:
        """In trouble only what was sent before, or one command, to see whether it is over: the
        outcome of the others stays known, should their callers give up."""
        if self.unavailability is None:
            return None
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
        return KeepAlive(self._request, self.session, self._outbox.last_answered, self.cluster)

    def _rewind_if_stalled(self, now_ms: int) -> None:
        outbox = self._outbox
        if outbox.is_idle or (
            outbox.last_sent == outbox.last_answered and self.unavailability is None
        ):
            self._unanswered_since_ms = now_ms
        if outbox.last_sent == outbox.last_answered:
            self._last_progress_ms = now_ms
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
        """The leader did what was asked: no trouble, unless it lacks commands it had answered."""
        self.is_confirmed = True
        self.unavailability = self._regression
        self._confirmed_ms = now_ms
        self._leaderless_since_ms = None

    def close(self) -> CloseSession:
        """The message that closes the session at the cluster."""
        self._request += 1
        return CloseSession(self._request, self.session)

    # --- replies ---------------------------------------------------------------------------

    def received(self, message: ServerMessage, now_ms: int) -> None:
        """Take one reply; raises ProtocolError. What it decides is in `take_finished`."""
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
                self._follow(message.leader, message.members)
            case Failure():
                self._on_failure(message, now_ms)
            case Registered() | SessionClosed():
                pass  # the answer to an earlier connection's question

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
            self._confirm(now_ms)  # any server answers the others, also one that is cut off
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
            self._fail_largest_command(message.reason)
            return
        self._assess_server(message, now_ms)
        outbox, expected = self._outbox, message.next_sequence
        if (
            message.code == Refusal.COMMAND
            and expected <= outbox.last_answered
            and not outbox.is_idle
        ):
            # A leader that is cut off says so too; then results of the next one end it.
            self.unavailability = self._regression = session_regressed(
                message.leader, expected, outbox.last_answered, now_ms
            )
        if outbox.rewind(message.next_sequence) or message.code in BACK_PRESSURE:
            # A first gap (frames overtook each other at an election) is closed at once; what
            # is refused again without progress waits longer each time.
            delay_ms = 0
            if self._refusals or message.code != Refusal.COMMAND:
                delay_ms = min(RETRY_MS_MIN << min(self._refusals, 6), RETRY_MS_MAX)
            self._refusals += 1
            self._backoff_until_ms = now_ms + delay_ms
            self._last_progress_ms = now_ms

    def _fail_largest_command(self, reason: str) -> None:
        """One of the commands is refused for good: its caller must know, the rest goes on."""
        outbox = self._outbox
        sequence, nbytes = outbox.largest()
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
        """What is the trouble, and is it time to try another server?"""
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
            # A keep-alive: whoever answers so has no leader.
            self.is_confirmed = False
            soon_ms = now_ms + max(1, self.timeout_ms // 10)
            self._keep_alive_due_ms = min(self._keep_alive_due_ms, soon_ms)
        elif message.code in RETRIED_QUERIES:
            # Reading twice hurts nobody, and whoever is in a hurry gives a timeout.
            self._queries.postpone(query, now_ms)
        else:
            error = refusal_error(message.code, message.reason, leader=message.leader)
            self._queries.finish(query, error, failed=True)

    # --- the end ---------------------------------------------------------------------------

    def expire(self, reason: str, now_ms: int | None = None) -> None:
        """The session is gone at the cluster: fail everything, retry nothing (C18)."""
        self.is_expired = True
        if now_ms is not None:
            ago_s, timeout_s = (now_ms - self._confirmed_ms) / 1000, self.timeout_ms / 1000
            reason += f"; last confirmed {ago_s:.1f} s ago, its timeout is {timeout_s:g} s"
        if self._keep_alive_late_ms > self.timeout_ms // 3:
            reason += f" (this event loop was blocked for {self._keep_alive_late_ms / 1000:.1f} s)"
        text = f"session {self.session} expired: {reason}"
        self._end(SessionExpiredError, text, self._expired_hint)

    def closed(self, reason: str = "") -> None:
        """This client closed the session, for that reason: whatever still waits fails."""
        reason = reason or (self.unavailability.text if self.unavailability is not None else "")
        text = f"session {self.session} was closed" if self.session else "no session was opened"
        self._end(ClosedSessionError, f"{text}: {reason}" if reason else text)

    def _follow(self, leader: str, members: tuple[str, ...]) -> None:
        self.leader = leader
        if members:
            self.members = members
