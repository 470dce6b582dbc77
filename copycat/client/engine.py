"""The thread of a blocking client: runs an event loop, takes calls and returns their results.

Ctrl-C may interrupt the main thread at any instruction, also between the acquisition of a lock and
its release. So there is no lock that both threads use more than once: calls and results pass
through deques, and each waiting caller has a lock of its own. A few times a second the engine
looks for calls whose caller was interrupted before it could wake the engine, and checks whether
its owner, the client, was garbage-collected.
"""

from __future__ import annotations

import _thread
import asyncio
import logging
import threading
import time
import weakref
from collections import deque
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import Any, Generic, TypeVar

from copycat.client.client import CopycatClient
from copycat.errors import ClosedSessionError, ConfigurationError, OperationTimeout
from copycat.shortages import SHORTAGES, shortage
from copycat.tracebacks import log_error

__all__ = ["BlockingFuture", "Call", "Engine", "Reply"]

R = TypeVar("R")

log = logging.getLogger("copycat.client")

TICK_S = 0.25
"""How often the engine looks for calls that it was not woken for."""
END_S = 10.0
"""How long `join` waits for the end of the thread; to close a session takes two seconds."""
_THREAD = "the thread of a blocking client"
NOTIFY_TRIES = 100


class Reply(Generic[R]):
    """The result of one call, which the engine's thread sets and another thread waits for."""

    __slots__ = ("_waiters", "error", "is_done", "value")

    def __init__(self) -> None:
        self._waiters: deque[_thread.LockType] = deque()
        self.is_done = False
        self.value: Any = None
        self.error: BaseException | None = None

    def set(self, value: Any, error: BaseException | None = None) -> None:
        """Set the result or the error, once, in the engine's thread."""
        self.value, self.error = value, error
        self.is_done = True
        with suppress(IndexError):
            while True:
                self._waiters.popleft().release()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for up to `timeout` seconds (None: for ever); True when it was set."""
        lock = _thread.allocate_lock()
        lock.acquire()
        self._waiters.append(lock)
        if self.is_done:  # perhaps it was set before the lock was in the deque
            return True
        return lock.acquire(timeout=-1 if timeout is None else max(0.0, timeout))

    def result(self) -> R:
        """The value; raises the error instead when there is one."""
        if self.error is None:
            value: R = self.value
            return value
        try:
            raise self.error
        finally:
            del self  # else the traceback and this frame keep each other alive


class Call(Generic[R]):
    """A call that the engine's loop is to make.

    start: returns an awaitable of the result.
    """

    __slots__ = ("future", "inner", "is_abandoned", "reply", "start")

    def __init__(self, start: Callable[[], Awaitable[R]]) -> None:
        self.start = start
        self.reply: Reply[R] = Reply()
        self.future: BlockingFuture[R] | None = None
        self.inner: asyncio.Future[R] | None = None
        self.is_abandoned = False
        """True after its caller was interrupted: it is not started any more."""

    def cancel(self) -> None:
        """Cancel the call if it was started. In the engine's thread."""
        if self.inner is not None:
            self.inner.cancel()


class BlockingFuture(Future[R]):
    """The future of a blocking client; after a Ctrl-C in `result()` it may be called again."""

    def __init__(self, reply: Reply[R], owner: object, engine: Engine) -> None:
        super().__init__()
        self._reply = reply
        self._engine = engine
        self._owner = owner
        """Keeps the client alive while this future exists."""

    def result(self, timeout: float | None = None) -> R:
        """Wait for the result. TimeoutError after `timeout` seconds; the operation continues."""
        self._await(timeout)
        return self._reply.result()

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Wait for the end; returns the error, or None. TimeoutError after `timeout` seconds."""
        self._await(timeout)
        return self._reply.error

    def _await(self, timeout: float | None) -> None:
        if self.cancelled():
            super().result(0)  # raises CancelledError
        if not self._reply.is_done:
            self._engine.check_thread("result()")
        if not self._reply.wait(timeout):
            raise TimeoutError
        if self.cancelled():
            super().result(0)


class Engine:
    """Runs `client` in a thread until `stop`, or until `owner` is garbage-collected."""

    def __init__(self, client: CopycatClient, owner: object) -> None:
        self._client = client
        self._owner = weakref.ref(owner)
        self._calls: deque[Call[Any]] = deque()
        self._running: set[Call[Any]] = set()
        self._is_signalled = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wake: asyncio.Event | None = None
        self._thread: threading.Thread | None = None
        self._ident = 0
        self.is_stopping = False
        self.has_ended = False
        """True when no further call is started."""
        self.opened: Reply[None] = Reply()
        """The outcome of `connect`."""
        self.ended: Reply[None] = Reply()

    # --- from any thread ----------------------------------------------------------------------

    def launch(self) -> None:
        """Start the engine's thread from a helper thread, in which Ctrl-C does not interrupt.

        `opened` gets a ResourceError when the system has no thread or no event loop left.
        """
        try:
            _thread.start_new_thread(self._launch, ())
        except SHORTAGES as error:
            self._end(shortage(_THREAD, error))

    def _launch(self) -> None:
        try:
            thread = threading.Thread(target=self._run, name="copycat-client", daemon=True)
            thread.start()
        except SHORTAGES as error:
            self._end(shortage(_THREAD, error))
        else:
            self._thread = thread

    def _end(self, why: Exception) -> None:
        """The thread has ended, or could not be started: fail everything that waits with `why`."""
        self.has_ended = True
        if not self.opened.is_done:
            self.opened.set(None, why)
        self._fail_calls()
        self.ended.set(None)

    def enqueue(self, call: Call[Any]) -> None:
        """Have the loop start `call` soon, in the order of the calls of this method."""
        self._calls.append(call)
        if self.has_ended:
            self._fail_calls()
        elif not self._is_signalled:
            # If the caller is interrupted here, the next tick starts the call.
            self._is_signalled = True
            self._signal(self._start_calls)

    def abandon(self, call: Call[Any]) -> None:
        """Cancel a call whose caller was interrupted."""
        call.is_abandoned = True
        self._signal(call.cancel)

    def stop(self) -> None:
        """Have the thread close the client and end; does not wait."""
        self.is_stopping = True
        self._signal(self._wake_up)

    def join(self) -> None:
        """Wait for the end of the thread. OperationTimeout after END_S."""
        if not self.ended.wait(END_S):
            raise OperationTimeout(
                f"the client's thread did not end within {END_S:g} s",
                hint="check whether a callback of on_state_change blocks: it runs in that thread",
                outcome_unknown=False,
            )
        thread = self._thread
        while thread is not None and thread.is_alive():
            time.sleep(0.0005)  # only its last steps are left, which wait for nothing

    def check_thread(self, what: str) -> None:
        """ConfigurationError in the engine's own thread, where a wait would never end."""
        if _thread.get_ident() == self._ident:
            raise ConfigurationError(
                f"{what} was called in the client's own thread, by a callback: it would wait for"
                " itself",
                hint="use submit_future() and its add_done_callback(), or a thread of your own",
            )

    def _signal(self, callback: Callable[[], None]) -> None:
        loop = self._loop
        if loop is not None:
            with suppress(RuntimeError):  # the loop is closed, and nothing waits in it
                loop.call_soon_threadsafe(callback)

    # --- in its own thread --------------------------------------------------------------------

    def _run(self) -> None:
        self._ident = _thread.get_ident()
        try:
            loop = asyncio.new_event_loop()
        except SHORTAGES as error:
            self._end(shortage("the event loop of a blocking client", error))
            return
        try:
            try:
                self._wake = asyncio.Event()
                self._loop = loop
                loop.run_until_complete(self._serve())
            finally:
                self.has_ended = True
                loop.close()
        except BaseException:  # logged here; `_end` fails what waits
            log.exception("the thread of a blocking client stops after an error")
        finally:
            self._end(ClosedSessionError("the client was closed"))

    async def _serve(self) -> None:
        connecting = asyncio.ensure_future(self._client.connect())
        try:
            while not self._is_done and not connecting.done():
                await self._pause(connecting)
            if connecting.done():
                error = connecting.exception()
                self.opened.set(None, error)
                if error is not None:
                    return
            while not self._is_done:
                self._start_calls()
                await self._pause()
        finally:
            connecting.cancel()
            await asyncio.wait({connecting})
            self._start_calls()
            await self._client.close()
            await asyncio.sleep(0)  # run the callbacks of the futures that the close has completed

    @property
    def _is_done(self) -> bool:
        return self.is_stopping or self._owner() is None

    def _wake_up(self) -> None:
        if self._wake is not None:
            self._wake.set()

    async def _pause(self, *others: asyncio.Future[Any]) -> None:
        """Wait for the next tick, for a call, or for one of `others`."""
        if self._wake is None:
            return
        woken = asyncio.ensure_future(self._wake.wait())
        try:
            await asyncio.wait(
                {woken, *others}, timeout=TICK_S, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            woken.cancel()
        self._wake.clear()

    def _start_calls(self) -> None:
        self._is_signalled = False
        with suppress(IndexError):
            while True:
                self._start_call(self._calls.popleft())

    def _start_call(self, call: Call[Any]) -> None:
        if call.is_abandoned or (call.future is not None and not _begin(call.future)):
            return
        try:
            call.inner = asyncio.ensure_future(call.start())
        except Exception as error:  # noqa: BLE001  (raised in the caller's thread)
            self._answer(call, None, error)
            return
        self._running.add(call)
        call.inner.add_done_callback(partial(self._on_done, call))

    def _on_done(self, call: Call[Any], inner: asyncio.Future[Any]) -> None:
        self._running.discard(call)
        if inner.cancelled():
            self._answer(call, None, ClosedSessionError("the call was cancelled"))
        elif (error := inner.exception()) is not None:
            self._answer(call, None, error)
        else:
            self._answer(call, inner.result(), None)

    def _answer(self, call: Call[Any], value: Any, error: BaseException | None) -> None:
        call.reply.set(value, error)
        if call.future is not None:
            self._notify(call.future, call.reply, NOTIFY_TRIES)

    def _notify(self, future: BlockingFuture[Any], reply: Reply[Any], tries: int) -> None:
        """Complete `future` as a `concurrent.futures.Future`, unless its lock stays taken.

        A caller that was interrupted may never release that lock, so the engine must not wait for
        it, and tries again for a while.
        """
        if _is_free(future):
            try:
                if reply.error is not None:
                    future.set_exception(reply.error)
                else:
                    future.set_result(reply.value)
            except BaseException as error:  # noqa: BLE001  (callbacks may raise anything)
                log_error(log, logging.ERROR, error, "a callback of a future raised")
        elif tries and self._loop is not None and not self.has_ended:
            self._loop.call_later(0.01, self._notify, future, reply, tries - 1)

    def _fail_calls(self) -> None:
        with suppress(KeyError):
            while True:
                call = self._running.pop()
                self._answer(call, None, ClosedSessionError("the client is closed"))
        with suppress(IndexError):
            while True:
                call = self._calls.popleft()
                if call.future is None or _begin(call.future):
                    self._answer(call, None, ClosedSessionError("the client is closed"))


def _is_free(future: Future[Any]) -> bool:
    """True when no thread has the lock of this future."""
    condition = future._condition  # noqa: SLF001  (no public method avoids a wait for it)
    if not condition.acquire(blocking=False):
        return False
    condition.release()
    return True


def _begin(future: Future[Any]) -> bool:
    """Mark the future as running; False when it was cancelled before."""
    return not _is_free(future) or future.set_running_or_notify_cancel()
