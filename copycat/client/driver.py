"""Connects one client's session to servers: event loop, clock and sockets.

`session.py` decides what to send, and `server_selector.py` which server to use. All commands of
one turn of the loop are sent in one frame, and all results of one read complete in one pass.
"""

from __future__ import annotations

import asyncio
import logging
import math
import secrets
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from copycat.client.completion import FOREVER_MS, Call
from copycat.client.connection import CLOSED, Connection
from copycat.client.options import ClientOptions, ClientState, RecoveryStrategy
from copycat.client.server_selector import ServerSelector
from copycat.client.session import ClientSession, SessionPhase
from copycat.client.unavailability import (
    DISCONNECTED,
    Unavailability,
    connect_error,
    unavailability_of,
)
from copycat.errors import (
    ClosedSessionError,
    ClusterReplacedError,
    CopycatError,
    SessionExpiredError,
)
from copycat.protocol.client import (
    CommandsRefused,
    Failure,
    Refusal,
    Register,
    Registered,
    ServerMessage,
    SessionClosed,
)
from copycat.protocol.codec_client import decode_server, encode_client
from copycat.protocol.framing import Frame

__all__ = ["SessionDriver"]

log = logging.getLogger("copycat.client")
log.addHandler(logging.NullHandler())

REGISTER_S_MIN = 1.0
REGISTER_S_MAX = 5.0
"""The shortest and the longest time that one server gets to open a session."""
CLOSE_S = 2.0

_RECOVER = "await client.recover() opens a new session"
_EXPIRED = SessionExpiredError.default_hint
_EXPIRED_HINTS = {
    RecoveryStrategy.CLOSE: f'{_RECOVER}; recovery_strategy="recover" does so by itself',
    RecoveryStrategy.RECOVER: "the client opens a new session by itself; read the state before you"
    " repeat pending operations",
}


class _RegistrationFailed(Exception):
    """A server did not open a session.

    unavailability: what the server said about its cluster, if it said something.
    """

    def __init__(self, reason: str, unavailability: Unavailability | None = None) -> None:
        super().__init__(reason)
        self.unavailability = unavailability


def _now_ms() -> int:
    return time.monotonic_ns() // 1_000_000


class SessionDriver:
    """Keeps a session connected to a server, from `run` until its task is cancelled.

    on_state: called with each state of the client. opened: a future that is done when the first
    session is open, or fails with the reason why none was opened.
    """

    def __init__(
        self,
        options: ClientOptions,
        selector: ServerSelector,
        on_state: Callable[[ClientState], None],
    ) -> None:
        self._options = options
        self._selector = selector
        self._on_state = on_state
        self.loop = asyncio.get_running_loop()
        """The event loop that this driver and its futures belong to."""
        self._connection: Connection | None = None
        self._registering: asyncio.Future[None] | None = None
        self._close_request: tuple[int, asyncio.Future[None]] | None = None
        self.is_send_scheduled = False
        """Whether this turn of the loop ends with a send."""
        self._timer: asyncio.TimerHandle | None = None
        self._timer_ms = FOREVER_MS
        """When the timer fires; FOREVER_MS while there is none."""
        self._instance = secrets.randbits(64)
        self._registrations = 0
        self._cluster_name = options.cluster_name
        self._cluster_incarnation = 0
        """Of the cluster that this driver's sessions are of; 0 while that is not known."""
        self._replaced_since_ms = FOREVER_MS
        """Since when servers say that the cluster is another one, and none serves this client."""
        self._default_timeout_ms = FOREVER_MS
        if math.isfinite(options.timeout):
            self._default_timeout_ms = max(1, round(options.timeout * 1000))
        self.session = self._new_session()
        self.opened: asyncio.Future[None] = self.loop.create_future()
        self.has_ended = False
        self.end_reason = "it was closed"
        """Why the driver has ended. `end_hint`: what to do then."""
        self.end_hint: str | None = None

    def _new_session(self) -> ClientSession:
        hint = f"{_EXPIRED_HINTS[self._options.recovery]}\n{_EXPIRED}"
        return ClientSession(expired_hint=hint)

    @property
    def members(self) -> tuple[str, ...]:
        """Addresses of the members, as the cluster named them."""
        return self._selector.members

    def _report(self) -> str:
        """The last answer of each server, one line per address."""
        connection, lines = self._connection, self._selector.report()
        if connection is None:
            return lines
        unavailability = self.session.unavailability
        state = (
            "connected, but no answer"
            if unavailability is None
            else f"connected: {unavailability.text}"
        )
        others = [line for line in lines.splitlines() if not line.startswith(connection.address)]
        return "\n".join([f"{connection.address}: {state}", *others])

    # --- callers -----------------------------------------------------------------------------

    def deadline_ms(self) -> int:
        """The time at which the client's timeout ends for a submission that is made now."""
        if self._default_timeout_ms == FOREVER_MS:
            return FOREVER_MS
        return time.monotonic_ns() // 1_000_000 + self._default_timeout_ms

    def abandon(self, ticket: Call | int) -> None:
        """The caller of this call, or of the query with this number, was cancelled."""
        if isinstance(ticket, Call):
            self.session.abandon_call(ticket)
        else:
            self.session.abandon(ticket)
        self.schedule()

    def time_out(self, ticket: Call | int, wait: float) -> None:
        """Fail a call or a query whose own timeout of `wait` seconds is over."""
        session, servers = self.session, self._report()
        if isinstance(ticket, Call):
            session.give_up(ticket, _now_ms(), round(wait * 1000), servers)
        else:
            session.give_up_query(ticket, _now_ms(), round(wait * 1000), servers)
        self._send_outgoing()

    def schedule(self) -> None:
        """Have what was submitted sent at the end of this turn of the loop."""
        if not self.is_send_scheduled:
            self.is_send_scheduled = True
            self.loop.call_soon(self._send_outgoing)

    def _send_outgoing(self) -> None:
        """Fail what is overdue, send what is due, and set the timer for the next time."""
        self.is_send_scheduled = False
        connection, session = self._connection, self.session
        if session.phase is SessionPhase.CLOSED:
            return
        now_ms = _now_ms()
        deadline_ms = session.give_up_ms
        if now_ms >= deadline_ms:
            session.give_up_overdue(now_ms, self._default_timeout_ms, self._report())
            deadline_ms = session.give_up_ms
        is_full = connection is not None and connection.is_paused
        messages = session.outgoing(now_ms, is_full=is_full)
        if session.finished:
            self.complete()
        if connection is not None and session.phase is SessionPhase.OPEN:
            if messages:
                connection.write([encode_client(message) for message in messages])
            if session.must_switch_server:
                self._switch_server(connection)
            elif not session.is_confirmed:
                self._on_state(ClientState.SUSPENDED)
            deadline_ms = min(deadline_ms, session.deadline_ms(is_full=is_full))
        if deadline_ms < self._timer_ms:  # else the timer fires early, and is then set again
            self._arm(deadline_ms)

    def _switch_server(self, connection: Connection) -> None:
        """Close the connection to a server that cannot serve the session, and try another one."""
        self._selector.avoid(connection.address)
        unavailability = self.session.unavailability
        text = DISCONNECTED.text if unavailability is None else unavailability.text
        connection.close(f"it cannot serve this session now: {text}")

    def _arm(self, deadline_ms: int) -> None:
        if self._timer is not None:
            self._timer.cancel()
        delay = max(0, deadline_ms - _now_ms()) / 1000
        self._timer_ms = deadline_ms
        self._timer = self.loop.call_later(delay, self._on_timer)

    def _on_timer(self) -> None:
        self._timer, self._timer_ms = None, FOREVER_MS
        self._send_outgoing()

    def complete(self) -> None:
        """Complete the futures whose results are known."""
        for finished in self.session.take_finished():
            future: asyncio.Future[Any] | None = finished.future
            if future is None or future.done():
                continue
            if finished.failed:
                future.set_exception(finished.value)
            else:
                future.set_result(finished.value)

    async def close_session(self) -> None:
        """Ask the cluster to close the session, and wait up to CLOSE_S for the answer."""
        connection = self._connection
        if connection is None or self.session.phase is not SessionPhase.OPEN:
            return
        self._send_outgoing()
        message = self.session.close()
        done: asyncio.Future[None] = self.loop.create_future()
        self._close_request = message.request, done
        connection.write([encode_client(message)])
        await asyncio.wait({done, connection.lost}, timeout=CLOSE_S, return_when="FIRST_COMPLETED")

    def end(self, reason: str = "", hint: str | None = None) -> None:
        """End the driver: operations that wait fail with `reason`. hint: for the error of later
        calls."""
        if not self.has_ended:
            self.has_ended = True
            self.end_reason, self.end_hint = reason or self.end_reason, hint
        if self.session.phase is not SessionPhase.CLOSED:
            self.session.closed(reason)
        self.complete()
        if not self.opened.done():
            text = f"the client was closed while it connected: {self.end_reason}"
            self.opened.set_exception(ClosedSessionError(text))
            self.opened.exception()  # retrieved here, since perhaps nobody waits for it
        if self._timer is not None:
            self._timer.cancel()
            self._timer, self._timer_ms = None, FOREVER_MS
        self._on_state(ClientState.CLOSED)

    # --- the connection ----------------------------------------------------------------------

    async def run(self) -> None:
        """Run until the task is cancelled, the session has expired, or no session can be
        opened."""
        try:
            await self._stay_connected()
        except asyncio.CancelledError:
            self.end("the client's task was cancelled")
            raise
        except Exception as error:  # the caller of connect() gets it, or else the log
            if not self.opened.done():
                self.opened.set_exception(error)
                self.opened.exception()
            else:
                log.exception("session %d: the client stops after an error", self.session.session)
            self.end(str(error), error.hint if isinstance(error, CopycatError) else None)
        finally:
            self._drop_connection("the client was closed")

    async def _stay_connected(self) -> None:
        started = time.monotonic()
        while True:
            self._raise_if_connect_timed_out(time.monotonic() - started)
            address, delay = self._selector.next()
            if delay:
                await asyncio.sleep(delay)
            try:
                await self._serve(address)
            except _RegistrationFailed as refused:
                self._selector.failed(address, str(refused), refused.unavailability)
            except (OSError, CopycatError) as error:
                self._selector.failed(address, str(error) or type(error).__name__)
            finally:
                self._drop_connection("")
            if self.session.phase is SessionPhase.CLOSED:
                if self._options.recovery is RecoveryStrategy.CLOSE:
                    self._end_expired()
                    return
                self.session = self._new_session()
            if self._is_replaced(_now_ms()):
                self._end_replaced()
                return
            if self._selector.is_round_over:
                self.session.no_server_reachable(_now_ms())
            self.schedule()  # operations time out also while there is no connection
            if self.opened.done():
                self._on_state(ClientState.SUSPENDED)

    def _end_expired(self) -> None:
        at = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        reason = f"its session {self.session.session} was found expired at {at}"
        self.end(reason, _EXPIRED_HINTS[RecoveryStrategy.CLOSE])

    def _is_replaced(self, now_ms: int) -> bool:
        """Whether another cluster has replaced that of the sessions, as far as this client can
        find out: every server says that it is of another one (C41); or some say so, and those
        that may not be could not be reached for as long as a session lasts."""
        replaced, servers = self._selector.count_of(ClusterReplacedError)
        if not replaced:
            self._replaced_since_ms = FOREVER_MS
            return False
        self._replaced_since_ms = min(self._replaced_since_ms, now_ms)
        waited_s = (now_ms - self._replaced_since_ms) / 1000
        is_over = replaced == servers or waited_s >= self._options.session_timeout
        return is_over and self._selector.is_round_over

    def _end_replaced(self) -> None:
        text = next(
            each.text
            for each in self._selector.unavailable.values()
            if each.kind is ClusterReplacedError
        )
        self.session.replaced(text)
        self.end(text, ClusterReplacedError.default_hint)

    def _raise_if_connect_timed_out(self, elapsed: float) -> None:
        selector, limit = self._selector, self._options.backoff.give_up_after
        is_due = elapsed >= limit and (selector.is_round_over or elapsed >= 2 * limit > 0)
        if self.opened.done() or not selector.rounds or not is_due:
            return
        raise connect_error(
            elapsed,
            selector.unavailable.values(),
            servers=selector.report(),
            tried=len(selector.failures),
            now_ms=_now_ms(),
        )

    async def _serve(self, address: str) -> None:
        """Use the server at `address` until the connection ends; raises when no session is
        opened."""
        session, since_ms = self.session, _now_ms()
        connection = await Connection.open(address, self.on_frames, self._send_outgoing)
        self._connection = connection
        if self.session.phase is SessionPhase.WAITING:
            await self._register(connection)
        else:
            self.session.connected(_now_ms())
            self._send_outgoing()
        await connection.lost
        if session.confirmed_ms >= since_ms:
            self._replaced_since_ms = FOREVER_MS
            self._selector.served()
        if connection.reason:
            log.debug("connection to %s: %s", address, connection.reason)
            self._selector.failed(address, connection.reason, self.session.unavailability)

    async def _register(self, connection: Connection) -> None:
        registering = self._registering = self.loop.create_future()
        options = self._options
        timeout_ms = round(options.session_timeout * 1000)
        self._registrations += 1
        register = Register(
            self._registrations,
            options.client_id,
            timeout_ms,
            self._cluster_name,
            self._instance,
            self._cluster_incarnation,
        )
        connection.write([encode_client(register)])
        share_s = options.backoff.give_up_after / max(1, len(options.members))
        wait_s = min(max(share_s, REGISTER_S_MIN), REGISTER_S_MAX)
        try:
            await asyncio.wait(
                {registering, connection.lost}, timeout=wait_s, return_when="FIRST_COMPLETED"
            )
            if registering.done():
                registering.result()
            elif connection.is_protocol_violated:
                raise _RegistrationFailed(
                    f"not a copycat server, or another version: {connection.reason}"
                )
            elif connection.lost.done():
                raise _RegistrationFailed(
                    f"it closed the connection before it answered{_reason_text(connection)}"
                )
            else:
                raise _RegistrationFailed(f"connected, but no answer within {wait_s:.1f} s")
        finally:
            registering.cancel()
            self._registering = None

    def _drop_connection(self, reason: str) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            self.session.disconnected()
            connection.close(reason)

    def on_frames(self, frames: list[Frame]) -> None:
        """The frames of one read of the connection."""
        now_ms, session = _now_ms(), self.session
        for frame in frames:
            message = decode_server(frame)
            if session.phase is SessionPhase.WAITING and isinstance(message, Registered | Failure):
                self._on_registered(message, now_ms)
                continue
            if self._close_request is not None and self._answers_close(
                message, *self._close_request
            ):
                continue
            session.received(message, now_ms)
        self.complete()
        if session.phase is SessionPhase.CLOSED:
            self._on_expired()
            return
        if session.phase is SessionPhase.OPEN:
            self._cluster_incarnation = session.cluster_incarnation or self._cluster_incarnation
            if session.is_confirmed and self._close_request is None:
                self._on_state(ClientState.CONNECTED)
            self._selector.follow(session.leader, session.members)
            self._send_outgoing()

    def _answers_close(
        self, message: ServerMessage, request: int, done: asyncio.Future[None]
    ) -> bool:
        """True when `message` belongs to the close of the session: its answer, or an unknown
        session.

        A request that the server meets after it has closed the session is no expiry.
        """
        if isinstance(message, SessionClosed | Failure) and message.request == request:
            if not done.done():
                done.set_result(None)
            return True
        if isinstance(message, CommandsRefused | Failure):
            return message.code == Refusal.UNKNOWN_SESSION
        return False

    def _on_registered(self, message: Registered | Failure, now_ms: int) -> None:
        registering = self._registering
        if registering is None or registering.done():
            return
        if isinstance(message, Failure):
            self._selector.follow(message.leader, ())
            unavailability = unavailability_of(message, now_ms)
            reason = f"refused with code {message.code}"
            registering.set_exception(
                _RegistrationFailed(message.reason or reason, unavailability)
            )
            return
        registering.set_result(None)
        self.session.opened(message, now_ms)
        self.session.connected(now_ms, fresh=True)
        self._selector.succeeded()
        self._cluster_name = message.cluster
        self._on_state(ClientState.CONNECTED)
        if not self.opened.done():
            self.opened.set_result(None)

    def _on_expired(self) -> None:
        """The cluster has ended the session; `complete` has failed its operations."""
        log.warning("session %d expired", self.session.session)
        if self._options.recovery is RecoveryStrategy.RECOVER:
            self.session = self._new_session()
            self._on_state(ClientState.SUSPENDED)
        if self._connection is not None:
            self._connection.close("the session expired")


def _reason_text(connection: Connection) -> str:
    return "" if connection.reason == CLOSED else f" ({connection.reason})"
