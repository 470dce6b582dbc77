"""The lock of a log: it does what `threading.RLock` does, also when a signal interrupts a wait."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import pytest

from copycat.storage._native import ReentrantLock, run_locked


def in_thread(call: Callable[[], object]) -> object:
    """What `call` returns in a thread of its own."""
    results: list[object] = []
    other = threading.Thread(target=lambda: results.append(call()))
    other.start()
    other.join()
    return results[0]


def is_free(lock: ReentrantLock) -> bool:
    """Whether another thread can take the lock."""

    def take() -> bool:
        if not lock.acquire(timeout=0):
            return False
        lock.release()
        return True

    return bool(in_thread(take))


@contextmanager
def taken_by_another_thread(lock: ReentrantLock) -> Iterator[threading.Event]:
    """Another thread has the lock until the event is set."""
    is_taken, is_over = threading.Event(), threading.Event()

    def take() -> None:
        lock.acquire()
        is_taken.set()
        is_over.wait()
        lock.release()

    other = threading.Thread(target=take)
    other.start()
    is_taken.wait()
    yield is_over
    is_over.set()
    other.join()


@contextmanager
def handled(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """An alarm in a hundredth of a second, and what handles it."""
    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.01)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_one_thread_takes_it_several_times() -> None:
    lock = ReentrantLock()
    assert not lock.locked()
    assert lock.acquire()
    assert lock.acquire(timeout=0)
    assert lock.acquire(timeout=1)
    for _ in range(3):
        assert lock.locked()
        assert not is_free(lock)
        lock.release()
    assert not lock.locked()
    assert is_free(lock)


def test_what_runs_has_the_lock_and_leaves_it() -> None:
    lock = ReentrantLock()

    def divide(number: int) -> tuple[bool, float]:
        return is_free(lock), 1 / number

    assert run_locked(lock, divide, 2) == (False, 0.5)
    assert run_locked(lock, run_locked, lock, divide, 2) == (False, 0.5)
    with pytest.raises(ZeroDivisionError):
        run_locked(lock, divide, 0)
    assert is_free(lock)


def test_only_the_thread_that_took_it_releases_it() -> None:
    lock = ReentrantLock()
    with pytest.raises(RuntimeError, match="only the thread"):
        lock.release()
    with taken_by_another_thread(lock), pytest.raises(RuntimeError, match="only the thread"):
        lock.release()
    assert is_free(lock)


def test_a_wait_ends_in_time_or_when_the_lock_is_released() -> None:
    lock = ReentrantLock()
    with taken_by_another_thread(lock) as is_over:
        assert not lock.acquire(timeout=0)
        assert not lock.acquire(timeout=0.01)
        threading.Timer(0.01, is_over.set).start()
        assert lock.acquire()
    assert not is_free(lock)
    lock.release()


def test_an_interrupted_wait_does_not_take_the_lock() -> None:
    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    lock = ReentrantLock()
    with taken_by_another_thread(lock):
        with handled(interrupt), pytest.raises(KeyboardInterrupt):
            run_locked(lock, int)
        with pytest.raises(RuntimeError):
            lock.release()
    assert is_free(lock)


def test_a_wait_goes_on_after_a_signal_that_is_handled() -> None:
    lock = ReentrantLock()
    with taken_by_another_thread(lock) as is_over:

        def handle(number: int, frame: FrameType | None) -> None:
            is_over.set()

        with handled(handle):
            assert run_locked(lock, lock.locked)
        assert is_over.is_set()
    assert is_free(lock)


def test_threads_exclude_each_other() -> None:
    lock = ReentrantLock()
    count = 0

    def add() -> None:
        nonlocal count
        before = count
        is_free(ReentrantLock())  # another thread runs meanwhile
        count = before + 1

    threads = [
        threading.Thread(target=lambda: [run_locked(lock, add) for _ in range(5)])
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert count == 15
