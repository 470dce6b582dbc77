"""The asyncio client: the public face of a session. See `courier.py` for what moves it."""

from __future__ import annotations

import asyncio
import logging
import secrets
import uuid
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Any, Self, TypeVar

import msgspec

from copycat.client.courier import Courier
from copycat.client.options import (
    Backoff,
    ClientOptions,
    ClientState,
    RecoveryStrategy,
    ServerSelection,
)
from copycat.client.router import Router
from copycat.client.session import ClientSession, SessionPhase
from copycat.config import Address, AddressLike, Duration, seconds
from copycat.errors import ClosedSessionError, ConfigurationError, OperationTimeout
from copycat.handles import ForkGuard, Listener, Listeners
from copycat.protocol.operations import Operation, Query, encode_operation
from copycat.types import ConsistencyLevel, SessionState

__all__ = ["CopycatClient", "Session", "connect"]

R = TypeVar("R")

log = logging.getLogger("copycat.client")

GIVE_UP_S = 10.0
"""How long `connect` tries by default."""


class Session:
    """What a user may know of the session."""

    def __init__(self, session: ClientSession) -> None:
        self._session = session

    @property
    def id(self) -> int:
        """The log index of its registration; 0 before that."""
        return self._session.session

    @property
    def timeout(self) -> float:
        """Seconds of silence after which the cluster expires it."""
        return self._session.timeout_ms / 1000

    @property
    def state(self) -> SessionState:
        """OPEN; UNSTABLE while the cluster does not confirm it; EXPIRED or CLOSED at its end."""
        if self._session.phase is SessionPhase.CLOSED:
            return SessionState.EXPIRED if self._session.is_expired else SessionState.CLOSED
        is_sure = self._session.phase is SessionPhase.OPEN and self._session.is_stable
        return SessionState.OPEN if is_sure else SessionState.UNSTABLE

    def __repr__(self) -> str:
        return f"<Session {self.id} {self.state}>"


class CopycatClient:
    """A session with a cluster. Made anywhere, used in the event loop that `connect` ran in.

    members: addresses of some members; the others are learned. Exactly-once holds for each
    command of one session; when it expires, `SessionExpiredError.pending` lists what has an
    unknown outcome. Default `connection_strategy`: try for 10 s, then NoLeaderError.
    """

    def __init__(
        self,
        *members: AddressLike,
        client_id: str | None = None,
        session_timeout: Duration = 5.0,
        connection_strategy: Backoff | None = None,
        server_selection: ServerSelection = ServerSelection.ANY,
        recovery_strategy: RecoveryStrategy = RecoveryStrategy.CLOSE,
        max_entry_size: int = 1 << 20,
        tls: object = None,
        insecure: bool = False,
    ) -> None:
        if tls is not None:
            raise ConfigurationError(
                "tls= is not built yet", hint="use loopback, or insecure=True on a trusted network"
            )
        self._options = ClientOptions(
            members=tuple(map(Address.parse, members)),
            client_id=uuid.uuid4().hex if client_id is None else client_id,
            session_timeout=seconds(session_timeout),
            backoff=connection_strategy or Backoff(give_up_after=GIVE_UP_S),
            selection=ServerSelection(server_selection),
            recovery=RecoveryStrategy(recovery_strategy),
            max_entry_size=max_entry_size,
            insecure=insecure,
        )
        self._guard = ForkGuard(f"client {self._options.client_id}")
        self._state = ClientState.CLOSED
        self._listeners: Listeners[ClientState] = Listeners(log)
        self._courier: Courier | None = None
        self._driver: asyncio.Task[None] | None = None
        self._last = ClientSession()
        """The session of the last courier, once that is gone."""

    @property
    def state(self) -> ClientState:
        """CONNECTED, SUSPENDED while no server answers, or CLOSED."""
        return self._state

    @property
    def session(self) -> Session:
        """The session in use."""
        return Session(self._last if self._courier is None else self._courier.session)

    def on_state_change(self, callback: Callable[[ClientState], None]) -> Listener:
        """Call back with each new state, in the client's loop."""
        return self._listeners.add(callback)

    def _set_state(self, state: ClientState) -> None:
        if state is not self._state:
            log.info("session %d: %s, was %s", self.session.id, state, self._state)
            self._state = state
            self._listeners.fire(state)

    # --- opening and closing ----------------------------------------------------------------

    async def connect(self, *members: AddressLike) -> Self:
        """Open a session; returns at once when there is one. Raises NoLeaderError."""
        self._guard.check()
        if self._courier is None or self._driver is None or self._driver.done():
            addresses = tuple(map(Address.parse, members)) or self._options.members
            if not addresses:
                raise ConfigurationError("no member's address was given")
            options = msgspec.structs.replace(self._options, members=addresses)
            router = Router(
                map(str, addresses), options.selection, options.backoff, seed=secrets.randbits(64)
            )
            self._courier = Courier(options, router, self._set_state)
            self._driver = self._courier.loop.create_task(self._courier.run())
        try:
            await asyncio.shield(self._courier.opened)
        except BaseException:
            await self._stop()
            raise
        return self

    async def close(self) -> None:
        """Close the session at the cluster, then everything else. Closing twice is fine.

        Commands that were sent before are applied; what has no reply by then fails with
        ClosedSessionError.
        """
        self._guard.check()
        if self._courier is not None:
            try:
                await self._courier.close_session()
            finally:
                await self._stop()

    async def recover(self) -> Self:
        """Leave this session to expire and open a new one (B17)."""
        await self._stop()
        return await self.connect()

    async def _stop(self) -> None:
        driver, self._driver = self._driver, None
        courier, self._courier = self._courier, None
        if driver is not None:
            driver.cancel()
            await asyncio.wait({driver})
        if courier is not None:
            self._last = courier.session
            courier.end()
            if not courier.opened.done():
                courier.opened.cancel()

    async def __aenter__(self) -> Self:
        return await self.connect()

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    # --- submitting --------------------------------------------------------------------------

    def submit(
        self,
        operation: Operation[R],
        *,
        consistency: ConsistencyLevel | None = None,
        timeout: Duration | None = None,
    ) -> Awaitable[R]:
        """Submit a command or query; its place in the order is fixed at the call.

        Raises SerializationError and EntryTooLargeError at once, before anything is sent.
        The awaitable raises what the machine raised as ApplicationError. Without `timeout`
        (seconds) it waits as long as the session lives; OperationTimeout means that the
        outcome is unknown.
        """
        courier = self._ready()
        session, loop = courier.session, courier.loop
        encoded = encode_operation(operation, self._options.max_entry_size)
        future: asyncio.Future[R] = loop.create_future()
        if isinstance(operation, Query):
            level = operation.consistency() if consistency is None else consistency
            request = session.query(future, operation, encoded, ConsistencyLevel(level))
            future.add_done_callback(partial(_query_done, courier, session, request))
        elif consistency is not None:
            raise ConfigurationError(f"consistency= is for queries; {operation!r} is a command")
        else:
            session.submit(future, operation, encoded)
        if timeout is not None:
            wait = seconds(timeout)
            timer = loop.call_later(wait, _time_out, future, operation, wait)
            future.add_done_callback(lambda _: timer.cancel())
        courier.schedule()
        return future

    def submit_many(self, operations: Iterable[Operation[R]]) -> Awaitable[list[R]]:
        """Submit commands with one future for all results, in order.

        When the machine raised for one of them, the first such error is raised; its field
        `results` has all results, with the errors in their places.
        """
        courier = self._ready()
        session, loop = courier.session, courier.loop
        taken = list(operations)
        future: asyncio.Future[list[R]] = loop.create_future()
        limit = self._options.max_entry_size
        encoded = [encode_operation(operation, limit) for operation in taken]
        for operation in taken:
            if isinstance(operation, Query):
                raise ConfigurationError(f"submit_many takes commands; {operation!r} is a query")
        if taken:
            session.submit_many(future, taken, encoded)
            courier.schedule()
        else:
            future.set_result([])
        return future

    def _ready(self) -> Courier:
        self._guard.check()
        loop = asyncio.get_running_loop()
        courier = self._courier
        if courier is None or courier.session.phase is SessionPhase.CLOSED:
            raise ClosedSessionError(
                f"client {self._options.client_id} has no session",
                hint="await client.connect() first, or use `async with`",
            )
        if loop is not courier.loop:
            raise ConfigurationError(
                "the client belongs to another event loop",
                hint="use it in the loop that connected it, or copycat.blocking in threads",
            )
        return courier


def _query_done(
    courier: Courier, session: ClientSession, request: int, future: asyncio.Future[Any]
) -> None:
    session.abandon(request)
    if session is courier.session:
        courier.settle()


def _time_out(future: asyncio.Future[Any], operation: object, wait: float) -> None:
    if not future.done():
        future.set_exception(
            OperationTimeout(f"{operation!r} had no answer within {wait:g} s", operation=operation)
        )


async def connect(*members: AddressLike, **options: Any) -> CopycatClient:
    """A connected client; close it, or use it with `async with`."""
    return await CopycatClient(*members, **options).connect()
