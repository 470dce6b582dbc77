"""Carries one client's session over whichever server serves it: the loop, clock and sockets.

The protocol is in `session.py` and `router.py`. One frame of commands leaves a loop turn,
whatever was submitted in it; futures are completed in one pass for what one read delivered.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from copycat.client.connection import Connection
from copycat.client.options import ClientOptions, ClientState, RecoveryStrategy
from copycat.client.router import Router
from copycat.client.session import ClientSession, SessionPhase
from copycat.errors import NoLeaderError, ProtocolError
from copycat.protocol.client import Failure, Register, Registered, SessionClosed
from copycat.protocol.codec import decode_server, encode_client
from copycat.protocol.framing import Frame

__all__ = ["Courier"]

log = logging.getLogger("copycat.client")
log.addHandler(logging.NullHandler())

CONNECT_S = 2.0
"""For one TCP connection to open."""
REGISTER_S = 5.0
CLOSE_S = 2.0


def _now_ms() -> int:
    return time.monotonic_ns() // 1_000_000


class Courier:
    """From `run` on it keeps the session served until it is cancelled or the session is gone.

    opened: done when the first session is open, or failed when there will be none.
    """

    def __init__(
        self, options: ClientOptions, router: Router, on_state: Callable[[ClientState], None]
    ) -> None:
        self._options = options
        self._router = router
        self._on_state = on_state
        self._loop = asyncio.get_running_loop()
        self._connection: Connection | None = None
        self._registering: asyncio.Future[None] | None = None
        self._closing: tuple[int, asyncio.Future[None]] | None = None
        self._pump_is_scheduled = False
        self._timer: asyncio.TimerHandle | None = None
        self.session = ClientSession()
        self.opened: asyncio.Future[None] = self._loop.create_future()

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop that all of this belongs to."""
        return self._loop

    def schedule(self) -> None:
        """Something was submitted: it leaves at the end of this loop turn."""
        if not self._pump_is_scheduled:
            self._pump_is_scheduled = True
            self._loop.call_soon(self._pump)

    def _pump(self) -> None:
        """Send what may be sent; arm the timer for the next time."""
        self._pump_is_scheduled = False
        connection, session = self._connection, self.session
        if connection is None or session.phase is not SessionPhase.OPEN:
            return
        messages = session.outgoing(_now_ms(), is_full=connection.is_paused)
        if messages:
            connection.write([encode_client(message) for message in messages])
        if session.wants_switch:
            self._router.avoid(connection.address)
            connection.close("it cannot serve this session now")
        elif not session.is_stable:
            self._on_state(ClientState.SUSPENDED)
        self._arm(session.deadline_ms(is_full=connection.is_paused))

    def _arm(self, deadline_ms: int) -> None:
        delay = max(0, deadline_ms - _now_ms()) / 1000
        when = self._loop.time() + delay
        if self._timer is not None:
            if self._timer.when() <= when:
                return  # it fires earlier, finds nothing to do, and is armed again
            self._timer.cancel()
        self._timer = self._loop.call_at(when, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._pump()

    def settle(self) -> None:
        """Complete the futures of everything that was decided."""
        for sink, value, failed in self.session.take_finished():
            if sink is None or sink.done():
                continue
            if failed:
                sink.set_exception(value)
            else:
                sink.set_result(value)

    async def close_session(self) -> None:
        """Ask the cluster to close the session, and wait a little for the answer."""
        connection = self._connection
        if connection is None or self.session.phase is not SessionPhase.OPEN:
            return
        self._pump()
        message = self.session.close()
        done: asyncio.Future[None] = self._loop.create_future()
        self._closing = message.request, done
        connection.write([encode_client(message)])
        await asyncio.wait({done, connection.lost}, timeout=CLOSE_S, return_when="FIRST_COMPLETED")

    def end(self) -> None:
        """Whatever still waits fails; nothing is left behind."""
        if self.session.phase is not SessionPhase.CLOSED:
            self.session.closed()
        self.settle()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._on_state(ClientState.CLOSED)

    # --- the connection ----------------------------------------------------------------------

    async def run(self) -> None:
        """Serve until cancelled, until the session is gone, or until it cannot be opened."""
        try:
            await self._stay_connected()
        except asyncio.CancelledError:
            raise
        except Exception as error:  # the caller of connect(), or the log, must hear of it
            if not self.opened.done():
                self.opened.set_exception(error)
            else:
                log.exception("session %d: the client stops", self.session.session)
            self.end()
        finally:
            self._drop_connection("the client was closed")

    async def _stay_connected(self) -> None:
        started = time.monotonic()
        while True:
            self._give_up_if_due(time.monotonic() - started)
            address, delay = self._router.next()
            if delay:
                await asyncio.sleep(delay)
            try:
                await self._serve(address)
            except (OSError, TimeoutError, NoLeaderError, ProtocolError) as error:
                self._router.failed(address, str(error) or type(error).__name__)
            finally:
                self._drop_connection("")
            if self.session.phase is SessionPhase.CLOSED:
                if self._options.recovery is RecoveryStrategy.CLOSE:
                    self.end()
                    return
                self.session = ClientSession()
            if self.opened.done():
                self._on_state(ClientState.SUSPENDED)

    def _give_up_if_due(self, elapsed: float) -> None:
        router = self._router
        if (
            not self.opened.done()
            and router.rounds
            and router.is_round_over
            and elapsed >= self._options.backoff.give_up_after
        ):
            reasons = "\n".join(f"{a}: {reason}" for a, reason in router.failures.items())
            raise NoLeaderError(
                f"no server opened a session in {elapsed:.1f} s ({len(router.failures)} tried)",
                state=reasons,
            )

    async def _serve(self, address: str) -> None:
        """Use one server for as long as it serves; returns or raises when it does not."""
        async with asyncio.timeout(CONNECT_S):
            connection = await Connection.open(address, self._on_frames)
        self._connection = connection
        connection.on_writable = self._pump
        if self.session.phase is SessionPhase.WAITING:
            await self._register(connection)
        else:
            self.session.connected(_now_ms())
            self._pump()
        await connection.lost
        if connection.reason:
            log.debug("connection to %s: %s", address, connection.reason)
            self._router.failed(address, connection.reason)

    async def _register(self, connection: Connection) -> None:
        self._registering = asyncio.get_running_loop().create_future()
        options = self._options
        register = Register(1, options.client_id, round(options.session_timeout * 1000))
        connection.write([encode_client(register)])
        try:
            async with asyncio.timeout(REGISTER_S):
                await asyncio.wait(
                    {self._registering, connection.lost}, return_when="FIRST_COMPLETED"
                )
            if self._registering.done():
                self._registering.result()
            else:
                self._registering.cancel()
                raise NoLeaderError(connection.reason)
        finally:
            self._registering = None

    def _drop_connection(self, reason: str) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            self.session.disconnected()
            connection.on_writable = lambda: None
            connection.close(reason)

    def _on_frames(self, frames: list[Frame]) -> None:
        now_ms, session = _now_ms(), self.session
        for frame in frames:
            message = decode_server(frame)
            if session.phase is SessionPhase.WAITING and isinstance(message, Registered | Failure):
                self._on_registered(message, now_ms)
                continue
            if self._closing is not None and isinstance(message, SessionClosed | Failure):
                request, done = self._closing
                if message.request == request and not done.done():
                    done.set_result(None)
                    continue
            session.received(message, now_ms)
        self.settle()
        if session.phase is SessionPhase.CLOSED:
            self._on_expired()
            return
        if session.phase is SessionPhase.OPEN:
            if session.is_stable and self._closing is None:
                self._on_state(ClientState.CONNECTED)
            self._router.follow(session.leader, session.members)
            self._pump()

    def _on_registered(self, message: Registered | Failure, now_ms: int) -> None:
        registering = self._registering
        if registering is None or registering.done():
            return
        if isinstance(message, Failure):
            self._router.follow(message.leader, ())
            registering.set_exception(
                NoLeaderError(f"{message.reason} (refusal code {message.code})")
            )
            return
        registering.set_result(None)
        self.session.opened(message, now_ms)
        self.session.connected(now_ms, fresh=True)
        self._router.succeeded()
        self._on_state(ClientState.CONNECTED)
        if not self.opened.done():
            self.opened.set_result(None)

    def _on_expired(self) -> None:
        """The cluster forgot the session; its callers were told by `settle`."""
        log.warning("session %d expired", self.session.session)
        if self._options.recovery is RecoveryStrategy.RECOVER:
            self.session = ClientSession()
            self._on_state(ClientState.SUSPENDED)
        if self._connection is not None:
            self._connection.close("the session expired")
