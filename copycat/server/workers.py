"""The threads of a server, and the mailbox through which their results reach the event loop.

Threads run syncs, saves of the hard state, the user's machine and slow work. All results go
through one `Mailbox`, so that many results wake the loop once: to wake it takes as long as a fast
sync.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from copycat.errors import ResourceError

__all__ = ["INLINE_MEDIAN_S", "SHORTAGE_S", "Mailbox", "SyncPace", "Worker"]

INLINE_MEDIAN_S = 250e-6
"""A sync that takes less runs in the loop: to pass it to a thread and back would take longer."""
SHORTAGE_S = 0.1
"""How long a thread waits before it repeats what failed because the system lacked something
(F29)."""

log = logging.getLogger("copycat.server")

Done = Callable[[Any], None]


class Mailbox:
    """Calls that any thread posts, and that the loop makes in the order of the posts.

    after: called after each group of calls.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, after: Callable[[], None]) -> None:
        self._loop = loop
        self._after = after
        self._posts: deque[tuple[Done, Any]] = deque()
        self._is_signalled = False
        self._is_open = True

    def post(self, done: Done, value: Any) -> None:
        """Have the loop call `done(value)` soon; dropped after `close`. From any thread."""
        self._posts.append((done, value))
        # `_drain` clears the flag before it takes the posts, so no post is left without a call.
        if not self._is_signalled:
            self._is_signalled = True
            if self._is_open:
                with suppress(RuntimeError):  # the loop was closed meanwhile
                    self._loop.call_soon_threadsafe(self._drain)

    def _drain(self) -> None:
        self._is_signalled = False
        while self._posts and self._is_open:
            done, value = self._posts.popleft()
            done(value)
        if self._is_open:
            self._after()

    def later(self, call: Callable[[], None]) -> None:
        """Call `call()` after SHORTAGE_S, unless the mailbox is closed by then. In the loop
        only."""
        self._loop.call_later(SHORTAGE_S, lambda: call() if self._is_open else None)

    def close(self) -> None:
        """Drop all posts, now and later."""
        self._is_open = False
        self._posts.clear()


class Worker:
    """Daemon threads that run the jobs of one queue; each thread is started when it is needed.

    threads: how many at most; with one, jobs run in the order of the calls. When the system has no
    thread, the jobs wait and the start is tried again.
    failed: called in the loop with any other exception of a job; that thread then ends.
    retries: a job that raises ResourceError has done nothing, and is run again until it succeeds
    or the worker is closed.
    """

    def __init__(
        self,
        name: str,
        mailbox: Mailbox,
        failed: Done,
        *,
        threads: int = 1,
        retries: bool = False,
    ) -> None:
        self._name = name
        self._mailbox = mailbox
        self._failed = failed
        self._limit = threads
        self._retries = retries
        self._is_closing = threading.Event()
        self._jobs: queue.SimpleQueue[tuple[Callable[[], Any], Done] | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._jobs_in_progress = 0

    def run(self, work: Callable[[], Any], done: Done) -> None:
        """Call `work()` in a thread, then `done(result)` in the loop."""
        self._jobs_in_progress += 1
        self._jobs.put((work, done))
        self._grow()

    def _grow(self) -> None:
        """Start one more thread when there is a job for it."""
        if not self._jobs_in_progress > len(self._threads) < self._limit:
            return
        thread = threading.Thread(target=self._serve, name=self._name, daemon=True)
        try:
            thread.start()
        except (
            RuntimeError
        ) as error:  # no thread is left: the running ones do the job, or it waits
            log.warning(
                "thread %s cannot be started now, and is tried again: %s", self._name, error
            )
            self._mailbox.later(self._grow)
        else:
            self._threads.append(thread)

    def _serve(self) -> None:
        while True:
            job = self._jobs.get()
            if job is None:
                return
            work, done = job
            try:
                result = self._result(work)
            except BaseException as cause:  # noqa: BLE001  (the loop must hear of it)
                self._mailbox.post(self._failed, cause)
                return
            self._mailbox.post(partial(self._finished, done), result)

    def _result(self, work: Callable[[], Any]) -> Any:
        is_logged = False
        while True:
            try:
                return work()
            except ResourceError as shortage:
                if not self._retries:
                    raise
                if not is_logged:
                    log.warning("thread %s waits, and tries again: %s", self._name, shortage)
                    is_logged = True
                if self._is_closing.wait(SHORTAGE_S):
                    raise

    def _finished(self, done: Done, result: Any) -> None:
        self._jobs_in_progress -= 1
        done(result)

    async def close(self, timeout_s: float) -> bool:
        """End the threads after the queued jobs; False when one did not end within `timeout_s`."""
        self._is_closing.set()
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            if thread.is_alive():
                await asyncio.to_thread(thread.join, timeout_s)
        return not any(thread.is_alive() for thread in self._threads)


class SyncPace:
    """Decides by the median of the last syncs whether the next one runs in the loop or in a
    thread."""

    def __init__(self, inline_median_s: float = INLINE_MEDIAN_S) -> None:
        self._inline_median_s = inline_median_s
        self._recent: deque[float] = deque(maxlen=9)
        self._median = float("inf")

    @property
    def is_fast(self) -> bool:
        """True while the last syncs were fast; False before the third sync."""
        return self._median < self._inline_median_s

    def run_timed(self, run: Callable[[], None]) -> float:
        """Call `run()` in this thread; returns its seconds, for `record`."""
        began = time.perf_counter()
        run()
        return time.perf_counter() - began

    def record(self, seconds: float) -> None:
        """Count a sync that took so many seconds."""
        self._recent.append(seconds)
        if len(self._recent) >= 3:
            self._median = sorted(self._recent)[len(self._recent) // 2]
