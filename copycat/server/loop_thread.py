"""An event loop in a thread of its own, and calls into it from the application's loop.

A member with a loop of its own works while the application's loop is blocked. All code of the
member runs in that thread; the callbacks of the application run in the application's loop.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from copycat.server.loop_lag import LoopLag
from copycat.shortages import SHORTAGES, shortage

__all__ = ["LoopThread"]

T = TypeVar("T")

END_S = 10.0
"""How long to wait for the end of the thread."""


class _OwnLoop:
    """One event loop with its thread. ResourceError when either cannot be made."""

    def __init__(self, name: str) -> None:
        try:
            self.loop: asyncio.AbstractEventLoop = asyncio.new_event_loop()
        except SHORTAGES as error:
            raise shortage(f"the event loop of {name}", error) from error
        self._stop = asyncio.Event()
        self.thread = threading.Thread(target=self._run, name=name, daemon=True)
        try:
            self.thread.start()
        except SHORTAGES as error:
            self.loop.close()
            raise shortage(f"thread {name}", error) from error

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self.loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        await self._stop.wait()

    def stop(self) -> None:
        """End the loop, and with it the thread; does not wait for the end."""
        self.loop.call_soon_threadsafe(self._stop.set)


class LoopThread:
    """Starts a loop in a thread at the first `run`; ends it when no `run` is left and `is_idle()`.

    name: of the member. limit_s: when the application's loop is blocked for so many seconds, that
    is logged.
    """

    def __init__(self, name: str, limit_s: float, is_idle: Callable[[], bool]) -> None:
        self._name = name
        self._limit_s = limit_s
        self._is_idle = is_idle
        self._own_loop: _OwnLoop | None = None
        self._calls = 0
        self._application: asyncio.AbstractEventLoop | None = None
        self._loop_lag: LoopLag | None = None

    @property
    def is_current_thread(self) -> bool:
        """True for a caller in the thread of the loop."""
        return self._own_loop is not None and self._own_loop.thread is threading.current_thread()

    async def run(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run `work()` in the member's loop, called from the application's loop.

        Returns or raises what `work()` does. A call that is cancelled cancels `work()`, and waits
        for its end.
        """
        own_loop = self._started()
        self._calls += 1
        try:
            return await _run_in(own_loop.loop, work)
        finally:
            self._calls -= 1
            if not self._calls and self._is_idle() and self._own_loop is own_loop:
                await self._end(own_loop)

    def _started(self) -> _OwnLoop:
        application = asyncio.get_running_loop()
        if self._own_loop is None:
            self._own_loop = _OwnLoop(f"copycat-loop-{self._name}")
        if self._application is not application:
            self._application = application
            self._stop_watching()
            text = "the member continues in its own thread"
            self._loop_lag = LoopLag(self._name, self._limit_s, text)
            self._loop_lag.start()
        return self._own_loop

    def _stop_watching(self) -> None:
        if self._loop_lag is not None:
            self._loop_lag.close()
            self._loop_lag = None

    async def _end(self, own_loop: _OwnLoop) -> None:
        self._own_loop, self._application = None, None
        self._stop_watching()
        own_loop.stop()
        await asyncio.shield(asyncio.to_thread(own_loop.thread.join, END_S))

    def call(self, work: Callable[[], T]) -> T:
        """Call `work()`, which must be quick, in the thread of the loop, and return its result.

        From any thread. When the loop does not run, `work()` is called in the caller's thread.
        """
        own_loop = self._own_loop
        if own_loop is None or self.is_current_thread:
            return work()
        answer: concurrent.futures.Future[T] = concurrent.futures.Future()

        def begin() -> None:
            try:
                answer.set_result(work())
            except BaseException as error:  # noqa: BLE001  (raised in the caller's thread)
                answer.set_exception(error)

        with suppress(RuntimeError):  # the loop ended a moment ago
            own_loop.loop.call_soon_threadsafe(begin)
        while own_loop.thread.is_alive():
            if concurrent.futures.wait([answer], 0.05).done:
                return answer.result()
        return work()  # the loop has ended

    def call_back(self, callback: Callable[[T], None], value: T) -> None:
        """Call `callback(value)` in the application's loop; nothing when that loop has ended."""
        application = self._application
        if application is not None:
            with suppress(RuntimeError):
                application.call_soon_threadsafe(callback, value)


async def _run_in(
    loop: asyncio.AbstractEventLoop, work: Callable[[], Coroutine[Any, Any, T]]
) -> T:
    here = asyncio.get_running_loop()
    done: asyncio.Future[asyncio.Task[T]] = here.create_future()
    tasks: list[asyncio.Task[T]] = []

    def set_result(task: asyncio.Task[T]) -> None:
        if not done.done():
            done.set_result(task)

    def ended(task: asyncio.Task[T]) -> None:
        with suppress(RuntimeError):  # the application's loop ended under its call
            here.call_soon_threadsafe(set_result, task)

    def begin() -> None:
        task = loop.create_task(work())
        tasks.append(task)
        task.add_done_callback(ended)

    def cancel() -> None:
        for task in tasks:
            task.cancel()

    loop.call_soon_threadsafe(begin)
    try:
        await asyncio.wait({done})
    except asyncio.CancelledError:
        loop.call_soon_threadsafe(cancel)
        while not done.done():  # the cancelled work closes what it has opened first
            with suppress(asyncio.CancelledError):
                await asyncio.wait({done})
        if not done.result().cancelled():
            done.result().exception()  # retrieved here, since no caller will do it
        raise
    return done.result().result()
