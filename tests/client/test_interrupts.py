"""Ctrl-C at any bytecode of any verb leaves the blocking client usable or closed.

No lock stays taken, no thread stays behind, and nothing takes effect twice.
"""

from __future__ import annotations

import asyncio
import gc
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any, Self

import pytest

from copycat import ClientState, ClosedSessionError, ConfigurationError, blocking
from tests.log.interrupts import alarm_calls
from tests.server.cluster import Book, free_address, server

pytestmark = pytest.mark.slow

PATIENCE_S = 20.0


@contextmanager
def one_server(path: Path) -> Iterator[str]:
    """A server in a thread of its own; its address."""
    address = free_address()
    started, loop = threading.Event(), asyncio.new_event_loop()
    end_reason = asyncio.Event()

    async def serve() -> None:
        async with server(path / "one", address) as member:
            await member.bootstrap()
            started.set()
            await end_reason.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    assert started.wait(PATIENCE_S)
    try:
        yield address
    finally:
        loop.call_soon_threadsafe(end_reason.set)
        thread.join(PATIENCE_S)
        loop.close()


def is_run_by_collector(frame: FrameType | None) -> bool:
    """Whether it is a finalizer or a callback of the collector (hypothesis has one), or called by
    such: Python only prints what is raised there."""
    callbacks = [getattr(callback, "__code__", None) for callback in gc.callbacks]
    while frame is not None:
        code = frame.f_code
        if code.co_name == "__del__" or code.co_filename.endswith(
            ("weakref.py", "_weakrefset.py")
        ):
            return True
        if code in callbacks:
            return True
        frame = frame.f_back
    return False


class Interrupt:
    """Raises KeyboardInterrupt at bytecode number `at` of what is called inside."""

    def __init__(self, at: int) -> None:
        self.left = at
        self.has_fired = False

    def _trace(self, frame: FrameType, event: str, _: Any) -> Any:
        if event == "call" and is_run_by_collector(frame):
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            self.left -= 1
            if self.left == 0:
                self.has_fired = True
                raise KeyboardInterrupt
        return self._trace

    def __enter__(self) -> Self:
        self._before = sys.gettrace()
        sys.settrace(self._trace)
        return self

    def __exit__(self, *exc: object) -> None:
        sys.settrace(self._before)


def interrupted(verb: Callable[[], object], stride: int) -> Iterator[bool]:
    """Call `verb` again and again, each time interrupted later, until it gets through."""
    at = 1
    while True:
        interrupt = Interrupt(at)
        with suppress(KeyboardInterrupt), interrupt:
            verb()
        yield interrupt.has_fired
        if not interrupt.has_fired:
            return
        at += stride


def client_threads() -> int:
    """Threads of blocking clients; the server in this process starts some of its own."""
    return sum(thread.name == "copycat-client" for thread in threading.enumerate())


def wait_until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < end, [thread.name for thread in threading.enumerate()]
        gc.collect()
        time.sleep(0.005)


def test_finalizers_and_what_they_call_are_not_interrupted() -> None:
    """Like that of an event loop, whose `__del__` calls `is_closed()`; nor is what the collector
    calls."""
    begun: list[int] = []
    finished: list[int] = []

    class Garbage:
        def __init__(self) -> None:
            self.cycle = self

        def __del__(self) -> None:
            begun.append(id(self))
            self.finish()

        def finish(self) -> None:
            finished.append(id(self))

    phases: list[str] = []

    def collecting(phase: str, _: dict[str, int]) -> None:
        phases.append(phase)

    def verb() -> None:
        Garbage()
        gc.collect()

    gc.callbacks.append(collecting)
    try:
        fired = list(interrupted(verb, 1))
        gc.collect()
    finally:
        gc.callbacks.remove(collecting)
    assert phases.count("start") == phases.count("stop") > 10
    assert len(fired) > 10, "what is no finalizer is interrupted at each bytecode"
    assert begun, "the finalizer was called"
    assert finished == begun


@pytest.mark.parametrize("name", ["submit", "submit_many", "submit_future", "query", "recover"])
def test_an_interrupted_call_leaves_the_client_usable(tmp_path: Path, name: str) -> None:
    number = 0

    def verb() -> None:
        nonlocal number
        number += 2
        match name:
            case "submit":
                client.submit(Book.add(number))
            case "submit_many":
                client.submit_many([Book.add(number), Book.add(number + 1)])
            case "submit_future":
                client.submit_future(Book.add(number)).result()
            case "query":
                client.submit(Book.count(), consistency="sequential")
            case _:
                client.recover()

    with one_server(tmp_path) as address:
        client = blocking.connect(address)
        count = 0
        for has_fired in interrupted(verb, 3):
            count += has_fired
            if count % 5 == 0:
                assert client.submit(Book.count(), timeout=PATIENCE_S) >= 0
        assert count >= 20, "every bytecode is tried"
        applied = client.submit(Book.all(), timeout=PATIENCE_S)
        assert len(applied) == len(set(applied)), "nothing took effect twice"
        client.close()
        assert client_threads() == 0
        with pytest.raises(ClosedSessionError, match="is closed"):
            verb()


def test_an_interrupted_constructor_leaves_no_thread(tmp_path: Path) -> None:
    with one_server(tmp_path) as address:

        def verb() -> None:
            blocking.CopycatClient(address).close()

        for _ in interrupted(verb, 17):
            wait_until(lambda: client_threads() == 0)


def test_an_interrupted_close_goes_on_by_itself(tmp_path: Path) -> None:
    with one_server(tmp_path) as address:
        client = blocking.connect(address)

        def verb() -> None:
            client.close()

        for has_fired in interrupted(verb, 11):
            if has_fired:
                client.close()
            assert client_threads() == 0
            assert client.state is ClientState.CLOSED
            client = blocking.connect(address)
        client.close()


def test_signals_at_random_times_while_it_waits(tmp_path: Path) -> None:
    rng, calls, hits = random.Random(11), 0, 0

    def hit(*_: object) -> None:
        raise KeyboardInterrupt

    with one_server(tmp_path) as address, blocking.connect(address) as client:
        with alarm_calls(hit):
            while calls < 300:
                calls += 1
                try:
                    signal.setitimer(signal.ITIMER_REAL, rng.uniform(20e-6, 1500e-6))
                    client.submit(Book.add(calls))
                    client.submit_many([Book.add(-calls)])
                    signal.setitimer(signal.ITIMER_REAL, 0)
                except KeyboardInterrupt:
                    hits += 1
        applied = client.submit(Book.all(), timeout=PATIENCE_S)
        assert len(applied) == len(set(applied))
        assert hits > 20


def test_a_client_that_is_dropped_ends_its_thread(tmp_path: Path) -> None:
    with one_server(tmp_path) as address:
        client = blocking.connect(address)
        future = client.submit_future(Book.add(1))
        del client
        assert future.result(PATIENCE_S) == 1
        del future
        wait_until(lambda: client_threads() == 0)


def test_a_call_from_the_clients_own_thread_is_refused_instead_of_waiting(tmp_path: Path) -> None:
    heard: list[BaseException] = []

    def callback(_: ClientState) -> None:
        for call in (lambda: client.submit(Book.count()), client.close):
            try:
                call()
            except ConfigurationError as error:
                heard.append(error)

    with one_server(tmp_path) as address, blocking.connect(address) as client:
        client.on_state_change(callback)
        client.recover()
        assert len(heard) >= 2
        assert "own thread" in heard[0].args[0]


def test_a_result_that_its_own_thread_would_wait_for_is_refused(tmp_path: Path) -> None:
    heard: list[object] = []
    ended = threading.Event()

    def callback(first: Future[int]) -> None:
        heard.append(first.result())
        second = client.submit_future(Book.add(1))
        for wait in (second.result, second.exception):
            try:
                heard.append(wait())
            except ConfigurationError as error:
                heard.append(error.code)
        ended.set()

    with one_server(tmp_path) as address, blocking.connect(address) as client:
        client.submit_future(Book.add(1)).add_done_callback(callback)
        assert ended.wait(PATIENCE_S)
        assert heard == [1, "bad-config", "bad-config"]
        assert client.submit(Book.add(1)) == 3


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, asyncio.CancelledError])
def test_whatever_a_callback_raises_the_client_goes_on(
    tmp_path: Path, kind: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    def callback(_: object) -> None:
        raise kind

    with one_server(tmp_path) as address, blocking.connect(address) as client:
        client.on_state_change(callback)
        future = client.submit_future(Book.add(1))
        future.add_done_callback(callback)
        assert future.result(PATIENCE_S) == 1
        client.recover()
        assert client.submit(Book.add(1)) == 2
    messages = [record.getMessage() for record in caplog.records]
    assert "a callback of a future raised" in messages
    assert any(text.startswith("a listener raised for") for text in messages)


def test_a_call_behind_a_stuck_server_ends_and_so_does_close(tmp_path: Path) -> None:
    with one_server(tmp_path) as address:
        client = blocking.connect(address, timeout=0.3, session_timeout=20.0)
    with pytest.raises(Exception, match="no server is connected"):
        client.submit(Book.add(1))
    future = client.submit_future(Book.add(2), timeout=30.0)
    client.close()
    with pytest.raises(ClosedSessionError):
        future.result(PATIENCE_S)
