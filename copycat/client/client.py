"""The asyncio client: the public face of a session. See `driver.py` for what moves it."""

from __future__ import annotations

import asyncio
import logging
import math
import secrets
import uuid
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NoReturn, Self, TypeVar, Unpack

import msgspec

from copycat.client.completion import FOREVER_MS
from copycat.client.driver import SessionDriver
from copycat.client.future import OperationFuture
from copycat.client.options import (
    TIMEOUT_S,
    Backoff,
    ClientOptions,
    ClientSettings,
    ClientState,
    RecoveryLike,
    RecoveryStrategy,
    SelectionLike,
    ServerSelection,
)
from copycat.client.server_selector import ServerSelector
from copycat.client.session import ClientSession, SessionPhase
from copycat.client.unavailability import format_operations
from copycat.config import Address, AddressLike, Duration, choice, seconds
from copycat.errors import ClosedSessionError, ConfigurationError
from copycat.fork_guard import ForkGuard
from copycat.listener_tasks import ListenerTasks
from copycat.listeners import Listener, Listeners
from copycat.protocol.operations import Operation, Query, encode_operation
from copycat.types import ConsistencyLevel, ConsistencyLike, SessionState

__all__ = ["CopycatClient", "Session", "commands_of", "connect"]

R = TypeVar("R")

log = logging.getLogger("copycat.client")


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
        is_sure = self._session.phase is SessionPhase.OPEN and self._session.is_confirmed
        return SessionState.OPEN if is_sure else SessionState.UNSTABLE

    def __repr__(self) -> str:
        return f"<Session {self.id} {self.state}>"


class CopycatClient:
    """A session with a cluster. Made anywhere, used in the event loop that `connect` ran in.

    members: addresses of some members; the others are learned. Exactly-once holds for each
    command of one session; when it expires, `SessionExpiredError.pending` lists what has an
    unknown outcome, and a new session is opened (recovery_strategy "close" does not).

    cluster_name: refuse servers of any other cluster; without it that of the first server counts.
    timeout: seconds that a submission waits when it gives none itself; float("inf") waits for as
    long as the session lives. connection_strategy: by default `connect` tries for 10 s.
    A client that was closed may be connected again: listeners, options and the members that it
    learned stay, its session is another one.
    """

    def __init__(
        self,
        *members: AddressLike,
        client_id: str | None = None,
        cluster_name: str | None = None,
        session_timeout: Duration = 5.0,
        timeout: Duration = TIMEOUT_S,
        connection_strategy: Backoff | None = None,
        server_selection: SelectionLike = ServerSelection.ANY,
        recovery_strategy: RecoveryLike = RecoveryStrategy.RECOVER,
        max_entry_size: int = 1 << 20,
        insecure: bool = False,
    ) -> None:
        self._options = ClientOptions(
            members=_addresses(members),
            client_id=uuid.uuid4().hex if client_id is None else client_id,
            cluster_name="" if cluster_name is None else cluster_name,
            session_timeout=seconds(session_timeout, "session_timeout"),
            timeout=seconds(timeout, "timeout"),
            backoff=Backoff() if connection_strategy is None else connection_strategy,
            selection=choice(ServerSelection, server_selection, "server_selection"),
            recovery=choice(RecoveryStrategy, recovery_strategy, "recovery_strategy"),
            max_entry_size=max_entry_size,
            insecure=insecure,
        )
        self._guard = ForkGuard()
        self._state = ClientState.CLOSED
        self._listeners: Listeners[ClientState] = Listeners(
            log, "a ClientState", ListenerTasks(log).start
        )
        self._driver: SessionDriver | None = None
        self._task: asyncio.Task[None] | None = None
        self._last = ClientSession()
        """The last driver's session, once that driver has ended."""
        self._learned: tuple[str, ...] = ()
        """Members that the cluster named to the last driver."""
        self._end_reason: tuple[str, str | None] = ("was never connected", None)
        """Why there is no session, and what to do."""

    @property
    def state(self) -> ClientState:
        """CONNECTED, SUSPENDED while no server answers, or CLOSED."""
        return self._state

    @property
    def session(self) -> Session:
        """The session in use."""
        return Session(self._last if self._driver is None else self._driver.session)

    def on_state_change(self, callback: Callable[[ClientState], object]) -> Listener:
        """Call back with each new state, in the client's loop.

        An `async def` becomes a task of that loop; what it raises is logged.
        """
        return self._listeners.add(callback)

    def _set_state(self, state: ClientState) -> None:
        if state is not self._state:
            log.info("session %d: %s, was %s", self.session.id, state, self._state)
            self._state = state
            self._listeners.fire(state)

    # --- opening and closing ----------------------------------------------------------------

    async def connect(self, *members: AddressLike) -> Self:
        """Open a session; returns at once when there is one.

        members: instead of those given before. Raises NoLeaderError, with one line in `state`
        for what each address answered; QuorumLostError when a server said so; DiskFullError.
        """
        self._check_fork()
        driver = self._driver if self._is_alive() else None
        if driver is None:
            await self._stop("")
            driver = self._start(_addresses(members))
        else:
            _check_loop(driver)
        try:
            await asyncio.shield(driver.opened)
        except BaseException:
            if self._driver is driver:
                await self._stop("it could not connect")
            raise
        return self

    def _is_alive(self) -> bool:
        """The session is served, or is being opened, in a loop that still runs."""
        driver, task = self._driver, self._task
        if driver is None or task is None or task.done():
            return False
        return not driver.loop.is_closed()

    def _start(self, addresses: tuple[Address, ...]) -> SessionDriver:
        addresses = addresses or self._options.members
        if not addresses:
            raise ConfigurationError(
                "no member's address was given",
                hint='give at least one: CopycatClient("10.0.0.1:8700"), or connect("host:port")',
            )
        self._options = options = msgspec.structs.replace(self._options, members=addresses)
        selector = ServerSelector(
            map(str, addresses), options.selection, options.backoff, seed=secrets.randbits(64)
        )
        selector.follow("", self._learned)
        driver = self._driver = SessionDriver(options, selector, self._set_state)
        self._task = driver.loop.create_task(driver.run())
        return driver

    async def close(self) -> None:
        """Close the session at the cluster, then everything else. Closing twice is fine.

        Commands that were sent before are applied; what has no reply by then fails with
        ClosedSessionError. Takes at most about two seconds, whoever answers.
        """
        self._check_fork()
        driver = self._driver
        if driver is None:
            return
        if not self._is_alive():
            await self._stop()
            return
        _check_loop(driver)
        try:
            await driver.close_session()
        finally:
            await self._stop()

    async def recover(self) -> Self:
        """Leave this session to expire and open a new one.

        What waits fails with ClosedSessionError; what is submitted from now on waits for the new
        session. Raises what `connect` raises.
        """
        self._check_fork()
        if self._is_alive() and self._driver is not None:
            _check_loop(self._driver)
        await self._stop("recover() opens a new session", restart=True)
        return await self.connect()

    async def _stop(self, reason: str = "it was closed", *, restart: bool = False) -> None:
        """End the session here; everything that waits hears of it before this waits itself."""
        task, self._task = self._task, None
        driver, self._driver = self._driver, None
        if driver is not None:
            self._last = driver.session
            self._learned = driver.members
            driver.end(reason)
            self._end_reason = driver.end_reason, driver.end_hint
        if restart:
            self._start(())
        if task is not None and not task.done() and not task.get_loop().is_closed():
            task.cancel()
            await asyncio.wait({task})

    async def __aenter__(self) -> Self:
        return await self.connect()

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    def __enter__(self) -> NoReturn:
        raise ConfigurationError(
            "this client is for asyncio: `with` cannot wait",
            hint="use `async with`, or copycat.blocking.CopycatClient without a loop",
        )

    def __exit__(self, *exc: object) -> None:
        """Never reached: see `__enter__`."""

    # --- submitting --------------------------------------------------------------------------

    def submit(
        self,
        operation: Operation[R],
        *,
        consistency: ConsistencyLike | None = None,
        timeout: Duration | None = None,
    ) -> OperationFuture[R]:
        """Submit a command or query; its place in the order is fixed at the call.

        Raises SerializationError and EntryTooLargeError at once, before anything is sent, and
        OverloadedError where too much waits for an answer already. The result, when awaited,
        raises what the machine raised as ApplicationError.

        timeout: seconds, else the client's. Who waits longer gets the cause: QuorumLostError,
        NoLeaderError, DiskFullError, or OperationTimeout where none is known. `outcome_unknown`
        of the error says whether a command may still take effect; one that was never sent is
        dropped, and a query never has an effect.
        """
        driver = self._ready()
        session = driver.session
        encoded = encode_operation(operation, self._options.max_entry_size)
        session.check_room(1, len(encoded))
        wait = None if timeout is None else _timeout_seconds(timeout)
        deadline_ms = driver.deadline_ms() if timeout is None else FOREVER_MS
        future: OperationFuture[R] = OperationFuture(loop=driver.loop)
        future.owner = driver
        if isinstance(operation, Query):
            level = operation.consistency() if consistency is None else consistency
            level = choice(ConsistencyLevel, level, "consistency")
            future.ticket = session.query(future, operation, encoded, level, deadline_ms)
        elif consistency is not None:
            raise ConfigurationError(
                f"consistency= is for queries; {format_operations([operation])} is a command",
                hint="leave it out: every command is linearizable",
            )
        else:
            future.ticket = session.submit(future, operation, encoded, deadline_ms)
        if wait is not None:
            _arm(driver, future, wait)
        driver.schedule()
        return future

    def submit_many(
        self, operations: Iterable[Operation[R]], *, timeout: Duration | None = None
    ) -> OperationFuture[list[R]]:
        """Submit commands with one future for all results, in order.

        When the machine raised for one of them, the first such error is raised; its field
        `results` has all results, with the errors in their places. When the time is over, the
        fields `pending` and `unsent` list what has an unknown outcome and what was never sent.
        """
        driver = self._ready()
        commands = commands_of(operations)
        limit = self._options.max_entry_size
        encoded = [encode_operation(operation, limit) for operation in commands]
        driver.session.check_room(len(encoded), sum(map(len, encoded)))
        wait = None if timeout is None else _timeout_seconds(timeout)
        deadline_ms = driver.deadline_ms() if timeout is None else FOREVER_MS
        future: OperationFuture[list[R]] = OperationFuture(loop=driver.loop)
        if not commands:
            future.set_result([])
            return future
        future.owner = driver
        future.ticket = driver.session.submit_many(future, commands, encoded, deadline_ms)
        if wait is not None:
            _arm(driver, future, wait)
        driver.schedule()
        return future

    def _check_fork(self) -> None:
        if self._guard.is_child:  # the message is made when it is needed
            self._guard.check(f"client {self._options.client_id}")

    def _ready(self) -> SessionDriver:
        self._check_fork()
        driver = self._driver
        if driver is None or driver.has_ended or driver.session.phase is SessionPhase.CLOSED:
            known = self._end_reason if driver is None else (driver.end_reason, driver.end_hint)
            raise ClosedSessionError(
                f"client {self._options.client_id} has no session: {known[0]}",
                hint=known[1] or "await client.connect() first, or use `async with`",
            )
        _check_loop(driver)
        return driver


def _addresses(members: Iterable[AddressLike]) -> tuple[Address, ...]:
    return tuple(dict.fromkeys(Address.parse(member) for member in members))


def commands_of(operations: Iterable[Operation[R]]) -> list[Operation[R]]:
    """What `submit_many` was given, as a list. ConfigurationError for what is no command."""
    try:
        commands = list(operations)
    except TypeError:
        raise ConfigurationError(
            f"submit_many takes many commands, not {format_operations([operations])}",
            hint="give a list of commands, or use submit() for one",
        ) from None
    for operation in commands:
        if isinstance(operation, Query):
            raise ConfigurationError(
                f"submit_many takes commands; {format_operations([operation])} is a query",
                hint="submit() each query: they are not logged, and need not be sent together",
            )
    return commands


def _check_loop(driver: SessionDriver) -> None:
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        loop = None
    if loop is not driver.loop:
        where = (
            "no event loop runs here"
            if loop is None
            else "the client belongs to another event loop"
        )
        raise ConfigurationError(
            f"{where}: it is used in the loop that connected it",
            hint="use copycat.blocking.CopycatClient in threads and in code without a loop",
        )


def _timeout_seconds(timeout: Duration) -> float | None:
    """Seconds of a timer for this submission alone; None for no end."""
    wait = seconds(timeout, "timeout")
    if math.isnan(wait):
        raise ConfigurationError("timeout (nan) must be seconds")
    if wait == -math.inf:  # its time was over long ago, as for any negative number
        return 0.0
    return wait if math.isfinite(wait) else None


def _arm(driver: SessionDriver, future: OperationFuture[Any], wait: float) -> None:
    """A timer for this submission alone."""
    timer = driver.loop.call_later(max(0.0, wait), driver.time_out, future.ticket, wait)
    future.add_done_callback(partial(_disarm, timer))


def _disarm(timer: asyncio.TimerHandle, _: object) -> None:
    timer.cancel()


async def connect(*members: AddressLike, **options: Unpack[ClientSettings]) -> CopycatClient:
    """A connected client; close it, or use it with `async with`."""
    return await CopycatClient(*members, **options).connect()
