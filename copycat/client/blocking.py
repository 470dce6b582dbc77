"""The blocking client, for code without an event loop: it runs an asyncio client in a thread."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import Future
from functools import partial
from typing import Any, NoReturn, Self, TypeVar, Unpack

from copycat.callbacks import check_callback
from copycat.client import client as asynchronous
from copycat.client.client import Session
from copycat.client.engine import BlockingFuture, Call, Engine
from copycat.client.options import ClientSettings, ClientState
from copycat.config import AddressLike, Duration
from copycat.errors import ClosedSessionError, ConfigurationError
from copycat.fork_guard import ForkGuard
from copycat.listeners import Listener
from copycat.protocol.operations import Operation
from copycat.types import ConsistencyLike

__all__ = ["CopycatClient", "connect"]

R = TypeVar("R")


class CopycatClient:
    """A client whose calls block; it may be shared between threads.

    The constructor takes the options of `copycat.CopycatClient`, and returns when a session is
    open. It raises what `connect` of that client raises, and ResourceError when the system has no
    thread or file descriptor left.

    Operations of one thread take effect in the order of the calls. Ctrl-C may interrupt any call:
    the client stays usable, and an operation that was not sent yet is dropped, while the outcome
    of one that was sent is unknown. A closed client cannot be connected again.
    """

    def __init__(self, *members: AddressLike, **options: Unpack[ClientSettings]) -> None:
        self._client = asynchronous.CopycatClient(*members, **options)
        self._guard = ForkGuard()
        self._is_closed = False
        self._engine = engine = Engine(self._client, self)
        try:
            engine.launch()
            engine.opened.wait()
            engine.opened.result()
        except BaseException as error:
            engine.stop()
            if isinstance(error, Exception):
                engine.join()
            raise

    @property
    def state(self) -> ClientState:
        """CONNECTED; SUSPENDED while no server answers; or CLOSED."""
        return self._client.state

    @property
    def session(self) -> Session:
        """The session of this client; after its end, the last one."""
        return self._client.session

    def on_state_change(self, callback: Callable[[ClientState], None]) -> Listener:
        """Call `callback` with each new state, in the client's own thread: it must not block.

        ConfigurationError for an `async def`, since the application has no event loop here.
        """
        check_callback("on_state_change", callback, "a ClientState", awaited=False)
        return self._client.on_state_change(callback)

    def submit(
        self,
        operation: Operation[R],
        *,
        consistency: ConsistencyLike | None = None,
        timeout: Duration | None = None,
    ) -> R:
        """Submit an operation and return its result; errors are those of the asyncio client."""
        submit = self._client.submit
        return self._wait(
            "submit", partial(submit, operation, consistency=consistency, timeout=timeout)
        )

    def submit_many(
        self, operations: Iterable[Operation[R]], *, timeout: Duration | None = None
    ) -> list[R]:
        """Submit commands and return their results in order; errors are those of the asyncio
        client."""
        submit, commands = self._client.submit_many, asynchronous.commands_of(operations)
        return self._wait("submit_many", partial(submit, commands, timeout=timeout))

    def submit_future(
        self,
        operation: Operation[R],
        *,
        consistency: ConsistencyLike | None = None,
        timeout: Duration | None = None,
    ) -> Future[R]:
        """Submit an operation without waiting for its result; thousands may be in flight."""
        submit = self._client.submit
        call = Call(partial(submit, operation, consistency=consistency, timeout=timeout))
        future = call.future = BlockingFuture(call.reply, self, self._engine)
        self._start("submit_future", call)
        return future

    def recover(self) -> Self:
        """Abandon this session and open a new one; raises what the constructor raises."""
        self._wait("recover", self._recover)
        return self

    async def _recover(self) -> None:
        # A caller that is interrupted must not leave the client without a session.
        await asyncio.shield(asyncio.ensure_future(self._client.recover()))

    def _start(self, what: str, call: Call[Any]) -> None:
        self._guard.check("a blocking client")
        if self._is_closed:
            raise ClosedSessionError(
                f"{what}(): the client is closed", hint="make a new blocking client"
            )
        try:
            self._engine.enqueue(call)
        except BaseException:
            self._engine.abandon(call)
            raise

    def _wait(self, what: str, start: Callable[[], Awaitable[R]]) -> R:
        self._engine.check_thread(f"{what}()")
        call: Call[R] = Call(start)
        try:
            self._start(what, call)
            call.reply.wait()
        except BaseException:
            self._engine.abandon(call)
            raise
        return call.reply.result()

    def close(self) -> None:
        """Close the session and end the thread. May be called more than once.

        A call that is interrupted is completed in the background; a further call waits for its
        end.
        """
        self._guard.check("a blocking client")
        self._engine.check_thread("close()")
        self._is_closed = True
        self._engine.stop()
        self._engine.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    async def __aenter__(self) -> NoReturn:
        raise ConfigurationError(
            "a blocking client would block the event loop that it is used in",
            hint="use copycat.CopycatClient with `async with`",
        )

    async def __aexit__(self, *exc: object) -> None:
        """Never called, since `__aenter__` raises."""


def connect(*members: AddressLike, **options: Unpack[ClientSettings]) -> CopycatClient:
    """Return a connected blocking client: close it, or use it in a `with` statement."""
    return CopycatClient(*members, **options)
