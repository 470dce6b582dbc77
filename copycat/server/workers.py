"""Threads of a server: syncs, hard state, the user's machine, slow work; one way back.

Whatever a thread finishes goes to the loop through one `Mailbox`: many completions wake the
loop once (a hop between threads costs as much as a sync here).
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
"""A sync that answers faster costs less than the hop to a thread and back."""
SHORTAGE_S = 0.1
"""How long a thread waits before it tries again what the system had nothing left for (F29)."""

log = logging.getLogger("copycat.server")

Done = Callable[[Any], None]


class Mailbox:
    """Callables from any thread, run in the loop in order of arrival."""

    def __init__(self, loop: asyncio.AbstractEventLoop, after: Callable[[], None]) -> None:
        self._loop = loop
        self._after = after
        self._posts: deque[tuple[Done, Any]] = deque()
        self._is_signalled = False
        self._is_open = True

    def post(self, done: Done, value: Any) -> None:
        """Call `done(value)` in the loop soon; dropped after `close`. Thread-safe."""
        self._posts.append((done, value))
        # A reader that clears the flag drains after clearing it, so nothing is left behind.
        if not self._is_signalled:
            self._is_signalled = True
            if self._is_open:
                with suppress(RuntimeError):  # the loop was closed under a late thread
                    self._loop.call_soon_threadsafe(self._drain)

    def _drain(self) -> None:
        self._is_signalled = False
        while self._posts and self._is_open:
            done, value = self._posts.popleft()
            done(value)
        if self._is_open:
            self._after()

    def later(self, call: Callable[[], None]) -> None:
        """Call it in the loop after SHORTAGE_S, unless that was closed. In the loop."""
        self._loop.call_later(SHORTAGE_S, lambda: call() if self._is_open else None)

    def close(self) -> None:
        """Nothing more is delivered."""
        self._is_open = False
        self._posts.clear()


class Worker:
    """Daemon threads over one queue, each started when it is first needed.

    threads: how many; with one, jobs are done first in first out. A thread that cannot be started
    is tried again: the jobs wait.
    retries: a job that meets a shortage (ResourceError) did nothing and is done again, until there
    is what it needs or the worker is closed.
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
        """`work()` in a thread, then `done(result)` in the loop; errors go to `failed`."""
        self._jobs_in_progress += 1
        self._jobs.put((work, done))
        self._grow()

    def _grow(self) -> None:
        """One thread more when there is a job for it."""
        if not self._jobs_in_progress > len(self._threads) < self._limit:
            return
        thread = threading.Thread(target=self._serve, name=self._name, daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # none is left: those that are there do the job, or wait
            log.warning("thread %s is started later: %s", self._name, error)
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
            except BaseException as cause:  # noqa: BLE001  (never out of a thread)
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
                    log.warning("%s waits until it can go on: %s", self._name, shortage)
                    is_logged = True
                if self._is_closing.wait(SHORTAGE_S):
                    raise

    def _finished(self, done: Done, result: Any) -> None:
        self._jobs_in_progress -= 1
        done(result)

    async def close(self, patience: float) -> bool:
        """End after the jobs that are queued; False when that took longer than `patience`."""
        self._is_closing.set()
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            if thread.is_alive():
                await asyncio.to_thread(thread.join, patience)
        return not any(thread.is_alive() for thread in self._threads)


class SyncPace:
    """Decides where the next sync runs, by the median of the last ones."""

    def __init__(self, inline_median_s: float = INLINE_MEDIAN_S) -> None:
        self._inline_median_s = inline_median_s
        self._recent: deque[float] = deque(maxlen=9)
        self._median = float("inf")

    @property
    def is_fast(self) -> bool:
        """True when the disk has answered quickly of late; never before three syncs."""
        return self._median < self._inline_median_s

    def run_timed(self, run: Callable[[], None]) -> float:
        """Run a sync in the thread at hand; its seconds, for `record`."""
        began = time.perf_counter()
        run()
        return time.perf_counter() - began

    def record(self, seconds: float) -> None:
        """A sync took so long."""
        self._recent.append(seconds)
        if len(self._recent) >= 3:
            self._median = sorted(self._recent)[len(self._recent) // 2]
