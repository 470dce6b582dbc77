"""The same client for code without an event loop: its own classes, its own loop in a thread."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from concurrent.futures import Future
from functools import partial
from typing import Any, Self, TypeVar

from copycat.client import client as asynchronous
from copycat.client.client import Session
from copycat.client.options import ClientState
from copycat.config import AddressLike, Duration
from copycat.errors import ClosedSessionError
from copycat.handles import ForkGuard, Listener
from copycat.protocol.operations import Operation
from copycat.types import ConsistencyLevel

__all__ = ["CopycatClient", "connect"]

R = TypeVar("R")


class CopycatClient:
    """Connected when the constructor returns; safe to share between threads.

    Options are those of the asyncio client. Results of one thread's calls come in order.
    """

    def __init__(self, *members: AddressLike, **options: Any) -> None:
        self._client = asynchronous.CopycatClient(*members, **options)
        self._guard = ForkGuard("a blocking client")
        self._loop = asyncio.new_event_loop()
        self._calls: deque[tuple[Callable[[], Awaitable[Any]], Future[Any]]] = deque()
        self._is_signalled = False
        self._is_closed = False
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run_loop, name="copycat-client", daemon=True)
        self._thread.start()
        try:
            self._run(self._client.connect())
        except BaseException:
            self.close()
            raise

    def _run_loop(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()

    def _run(self, work: Coroutine[Any, Any, R]) -> R:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    @property
    def state(self) -> ClientState:
        """CONNECTED, SUSPENDED while no server answers, or CLOSED."""
        return self._client.state

    @property
    def session(self) -> Session:
        """The session in use."""
        return self._client.session

    def on_state_change(self, callback: Callable[[ClientState], None]) -> Listener:
        """Call back with each new state, in the client's own thread."""
        return self._client.on_state_change(callback)

    def submit(
        self,
        operation: Operation[R],
        *,
        consistency: ConsistencyLevel | None = None,
        timeout: Duration | None = None,
    ) -> R:
        """Submit and wait for the result; errors as in the asyncio client."""
        return self._call(
            lambda: self._client.submit(operation, consistency=consistency, timeout=timeout)
        ).result()

    def submit_many(self, operations: Iterable[Operation[R]]) -> list[R]:
        """Submit commands and wait for all results, in order."""
        taken = list(operations)
        return self._call(lambda: self._client.submit_many(taken)).result()

    def submit_future(self, operation: Operation[R]) -> Future[R]:
        """Submit without waiting; thousands may be in flight."""
        return self._call(lambda: self._client.submit(operation))

    def _call(self, start: Callable[[], Awaitable[R]]) -> Future[R]:
        self._guard.check()
        future: Future[R] = Future()
        with self._lock:
            if self._is_closed:
                raise ClosedSessionError("the client is closed")
            self._calls.append((start, future))
            if not self._is_signalled:
                self._is_signalled = True
                self._loop.call_soon_threadsafe(self._start_calls)
        return future

    def _start_calls(self) -> None:
        with self._lock:
            calls, self._calls = self._calls, deque()
            self._is_signalled = False
        for start, future in calls:
            if not future.set_running_or_notify_cancel():
                continue
            try:
                inner = asyncio.ensure_future(start())
            except Exception as error:  # noqa: BLE001  (belongs to the caller's thread)
                future.set_exception(error)
                continue
            inner.add_done_callback(partial(_pass_on, future))

    def close(self) -> None:
        """Close the session and the thread. Closing twice is fine."""
        self._guard.check()
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
        try:
            self._run(self._client.close())
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _pass_on(future: Future[Any], inner: asyncio.Future[Any]) -> None:
    if inner.cancelled():
        future.set_exception(ClosedSessionError("the client was closed"))
        return
    error = inner.exception()
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(inner.result())


def connect(*members: AddressLike, **options: Any) -> CopycatClient:
    """A connected client; close it, or use it in a `with` statement."""
    return CopycatClient(*members, **options)
