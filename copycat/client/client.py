"""The asyncio client, a public class. `driver.py` connects its session to servers."""

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

from copycat.callbacks import check_callback
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
    """The session of a client, for its user."""

    def __init__(self, session: ClientSession) -> None:
        self._session = session

    @property
    def id(self) -> int:
        """The id of the session: the log index of its registration; 0 before it is open."""
        return self._session.session

    @property
    def timeout(self) -> float:
        """Seconds without a message from the client after which the cluster ends the session."""
        return self._session.timeout_ms / 1000

    @property
    def state(self) -> SessionState:
        """OPEN; UNSTABLE while the cluster does not confirm the session; EXPIRED or CLOSED."""
        if self._session.phase is SessionPhase.CLOSED:
            return SessionState.EXPIRED if self._session.is_expired else SessionState.CLOSED
        is_sure = self._session.phase is SessionPhase.OPEN and self._session.is_confirmed
        return SessionState.OPEN if is_sure else SessionState.UNSTABLE

    def __repr__(self) -> str:
        return f"<Session {self.id} {self.state}>"


class CopycatClient:
    """A client of a cluster, which submits operations in a session.

    A client may be made anywhere; after `connect` it belongs to the event loop that `connect` ran
    in. Each command takes effect exactly once within one session. When the session expires,
    `SessionExpiredError.pending` lists the commands whose outcome is unknown.

    members: addresses of some members; the client learns the others from them.
    client_id: a name that the state machine sees; by default random. cluster_name: servers of
    another cluster are refused; by default the first server decides. session_timeout: seconds
    without a message from the client after which the cluster ends the session. timeout: seconds
    that a submission waits when it has no timeout of its own; float("inf") waits as long as the
    session is open.
    connection_strategy: how long `connect` tries, by default 10 s. server_selection: which server
    to connect to. recovery_strategy: "recover" opens a new session after one has expired, "close"
    closes the client. max_entry_size: of an encoded operation, in bytes. insecure: must be True
    for an address outside of this machine, since TLS is not built yet.

    A client that was closed may be connected again: it keeps its listeners, its options and the
    members that it has learned, and opens a new session.
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
        self._listeners: Listeners[ClientState] = Listeners(log, ListenerTasks(log).start)
        self._driver: SessionDriver | None = None
        self._task: asyncio.Task[None] | None = None
        self._last = ClientSession()
        """The session of the last driver; `session` returns it while there is no driver."""
        self._learned: tuple[str, ...] = ()
        """The addresses of the members that the last driver has learned."""
        self._end_reason: tuple[str, str | None] = ("was never connected", None)
        """Why there is no driver, and a hint for the error that says so."""

    @property
    def state(self) -> ClientState:
        """CONNECTED; SUSPENDED while no server answers; or CLOSED."""
        return self._state

    @property
    def session(self) -> Session:
        """The session of this client; after its end, the last one."""
        return Session(self._last if self._driver is None else self._driver.session)

    def on_state_change(self, callback: Callable[[ClientState], object]) -> Listener:
        """Call `callback` with each new state, in the client's event loop.

        An `async def` becomes a task of that loop; what it raises is logged.
        """
        check_callback("on_state_change", callback, "a ClientState", awaited=True)
        return self._listeners.add(callback)

    def _set_state(self, state: ClientState) -> None:
        if state is not self._state:
            log.info("session %d: %s, was %s", self.session.id, state, self._state)
            self._state = state
            self._listeners.fire(state)

    # --- opening and closing ----------------------------------------------------------------

    async def connect(self, *members: AddressLike) -> Self:
        """Open a session; returns at once when one is open.

        members: addresses that replace the earlier ones. Errors, each with one line per address
        in `state`: NoLeaderError; QuorumLostError or DiskFullError when a server gave that
        reason; ConfigurationError when every server belongs to another cluster.
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
        """True while a driver runs in an event loop that is not closed."""
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
        """Close the session, then the connection. May be called more than once.

        Commands that were sent before are executed; operations that have no reply by then fail
        with ClosedSessionError. Takes at most about two seconds, also when no server answers.
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
        """Abandon this session, which then expires, and open a new one.

        Operations that wait fail with ClosedSessionError; operations that are submitted from now
        on wait for the new session. Raises what `connect` raises.
        """
        self._check_fork()
        if self._is_alive() and self._driver is not None:
            _check_loop(self._driver)
        await self._stop("recover() opens a new session", restart=True)
        return await self.connect()

    async def _stop(self, reason: str = "it was closed", *, restart: bool = False) -> None:
        """End the driver, which fails all operations that wait, and then wait for its task.

        restart: begin with a new driver before that wait.
        """
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
            "this client is for asyncio, and `with` cannot wait for it",
            hint="use `async with`, or copycat.blocking.CopycatClient without a loop",
        )

    def __exit__(self, *exc: object) -> None:
        """Never called, since `__enter__` raises."""

    # --- submitting --------------------------------------------------------------------------

    def submit(
        self,
        operation: Operation[R],
        *,
        consistency: ConsistencyLike | None = None,
        timeout: Duration | None = None,
    ) -> OperationFuture[R]:
        """Submit a command or a query; the call fixes its place in the order of the session.

        consistency: of a query, instead of that of its class. timeout: in seconds, instead of the
        client's.

        The call raises SerializationError or EntryTooLargeError for an operation that cannot be
        sent, OverloadedError when too much waits for answers, and ClosedSessionError when there
        is no session. The future raises ApplicationError when the machine raised. After the
        timeout it raises QuorumLostError, NoLeaderError or DiskFullError, or OperationTimeout
        when the cause is not known; `outcome_unknown` of that error says whether the command may
        still take effect. A command that was not sent by then is dropped.
        """
        driver = self._ready()
        session = driver.session
        encoded = encode_operation(operation, self._options.max_entry_size)
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
        if not driver.is_send_scheduled:
            driver.schedule()
        return future

    def submit_many(
        self, operations: Iterable[Operation[R]], *, timeout: Duration | None = None
    ) -> OperationFuture[list[R]]:
        """Submit commands; returns one future for the list of their results.

        When the machine raised for some of them, the future raises the first of these errors,
        whose field `results` has all results, with the errors in their places. After the timeout,
        the fields `pending` and `unsent` of the error list the commands whose outcome is unknown
        and those that were not sent. Other errors are those of `submit`.
        """
        driver = self._ready()
        commands = commands_of(operations)
        limit = self._options.max_entry_size
        encoded = [encode_operation(operation, limit) for operation in commands]
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
        if self._guard.is_child:  # the message is formatted only when it is needed
            self._guard.check(f"client {self._options.client_id}")

    def _ready(self) -> SessionDriver:
        if self._guard.is_child:
            self._check_fork()
        driver = self._driver
        if driver is None or driver.has_ended or driver.session.phase is SessionPhase.CLOSED:
            known = self._end_reason if driver is None else (driver.end_reason, driver.end_hint)
            raise ClosedSessionError(
                f"client {self._options.client_id} has no session: {known[0]}",
                hint=known[1] or "await client.connect() first, or use `async with`",
            )
        try:
            is_in_its_loop = asyncio.get_running_loop() is driver.loop
        except RuntimeError:
            is_in_its_loop = False
        if not is_in_its_loop:  # `_check_loop` is called only when it raises
            _check_loop(driver)
        return driver


def _addresses(members: Iterable[AddressLike]) -> tuple[Address, ...]:
    return tuple(dict.fromkeys(Address.parse(member) for member in members))


def commands_of(operations: Iterable[Operation[R]]) -> list[Operation[R]]:
    """The argument of `submit_many` as a list. ConfigurationError when an item is no command."""
    try:
        commands = list(operations)
    except TypeError:
        raise ConfigurationError(
            f"submit_many takes several commands, not {format_operations([operations])}",
            hint="give a list of commands, or use submit() for one",
        ) from None
    for operation in commands:
        if isinstance(operation, Query):
            raise ConfigurationError(
                f"submit_many takes commands; {format_operations([operation])} is a query",
                hint="call submit() for each query: queries need not be sent together",
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
            f"{where}: a client works only in the event loop that connected it",
            hint="use copycat.blocking.CopycatClient in threads and in code without a loop",
        )


def _timeout_seconds(timeout: Duration) -> float | None:
    """The timeout of one submission in seconds; None for an infinite one. ConfigurationError."""
    wait = seconds(timeout, "timeout")
    if math.isnan(wait):
        raise ConfigurationError("timeout (nan) must be seconds")
    if wait == -math.inf:  # as any negative number: the time is over at once
        return 0.0
    return wait if math.isfinite(wait) else None


def _arm(driver: SessionDriver, future: OperationFuture[Any], wait: float) -> None:
    """Start the timer of a submission that has a timeout of its own."""
    timer = driver.loop.call_later(max(0.0, wait), driver.time_out, future.ticket, wait)
    future.add_done_callback(partial(_disarm, timer))


def _disarm(timer: asyncio.TimerHandle, _: object) -> None:
    timer.cancel()


async def connect(*members: AddressLike, **options: Unpack[ClientSettings]) -> CopycatClient:
    """Return a connected client: close it, or use it in an `async with` statement."""
    return await CopycatClient(*members, **options).connect()
