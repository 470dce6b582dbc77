"""When the thread of a bare log compacts, and what it survives."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from copycat.config import Storage
from copycat.errors import ResourceError
from copycat.log.compactor import CompactionThread
from copycat.log.log import Log
from copycat.storage._native import FaultEnv, NativeLog, run_locked
from copycat.storage.compaction import CompactionOptions, CompactionScheduler
from copycat.types import Compaction
from tests.log.test_native import DIRECTORY, open_small

MIB = 1 << 20
MANY = 2000
"""Releases that make a run due before its interval."""


class Looked:
    """What the thread decides: whether it has looked and waits, and the runs that it begins."""

    def __init__(self, thread: CompactionThread, monkeypatch: pytest.MonkeyPatch) -> None:
        self._event = threading.Event()
        self.runs: list[Compaction] = []
        self._next_ms = thread._scheduler.next_ms
        self._scheduler = thread._scheduler
        monkeypatch.setattr(thread._scheduler, "next_ms", self._waits)
        monkeypatch.setattr(thread, "_try", self._begins)

    def _waits(self, now_ms: float) -> float:
        self._event.set()
        return self._next_ms(now_ms)

    def _begins(self, compaction: Compaction) -> bool:
        self.runs.append(compaction)
        self._scheduler.back_off(time.monotonic() * 1000)
        return True

    def wait(self) -> list[Compaction]:
        """The runs that it has begun until it waits."""
        assert self._event.wait(30)
        self._event.clear()
        return self.runs


def opened(storage: Storage) -> tuple[FaultEnv, Log, CompactionThread]:
    env = FaultEnv(1)
    env.make_directory(DIRECTORY)
    log = Log(open_small(env), DIRECTORY, storage, read_only=False)
    log.append_many([b"%d" % n for n in range(40)])
    return env, log, log._compaction_thread()


def release(log: Log, thread: CompactionThread, count: int) -> None:
    run_locked(log._lock, thread.release, count)


def test_a_nearly_full_disk_makes_a_run_that_is_due_a_major_one_and_none_due_by_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else a log whose user releases entry by entry would be rewritten whole once a second."""
    env, log, thread = opened(Storage(min_free_space=MIB))
    looked = Looked(thread, monkeypatch)
    env.set_free_space(2 * MIB - 1)
    log.release(2)
    assert looked.wait() == []
    release(log, thread, MANY)
    while not looked.wait():
        pass
    assert looked.runs == [Compaction.MAJOR]
    log.close()


def test_a_run_that_is_due_is_minor_while_the_disk_has_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    env, log, thread = opened(Storage(min_free_space=MIB))
    looked = Looked(thread, monkeypatch)
    env.set_free_space(2 * MIB)
    release(log, thread, MANY)
    while not looked.wait():
        pass
    assert looked.runs == [Compaction.MINOR]
    log.close()


def test_the_intervals_begin_with_the_first_release(monkeypatch: pytest.MonkeyPatch) -> None:
    """A log that was open for hours before has nothing that a run could delete."""
    _, log, thread = opened(Storage())
    options = CompactionOptions.of(Storage())
    thread._scheduler = CompactionScheduler(options, time.monotonic() * 1000 - 36_000_000)
    looked = Looked(thread, monkeypatch)
    log.release(2)
    assert looked.wait() == []
    log.close()


class Short:
    """A log that has no descriptor for the first `count` looks at its segments."""

    def __init__(self, log: NativeLog, count: int) -> None:
        self._log = log
        self.count = count

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    def segment_stats(self, limits: Any) -> Any:
        if self.count:
            self.count -= 1
            raise ResourceError("too many open files", errno=24, operation="open")
        return self._log.segment_stats(limits)


def test_f29_a_shortage_before_a_run_delays_it_and_does_not_end_the_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("copycat.storage.compaction.BACK_OFF_MS", 10)
    _, log, thread = opened(Storage())
    native: Any = thread._log
    short: Any = Short(native, 3)
    thread._log = short
    log.release_many(range(2, 20))
    release(log, thread, MANY)
    end_s = time.monotonic() + 30
    while log.compactor.last_report is None and time.monotonic() < end_s:
        assert log.compactor.failure is None
        time.sleep(0.01)
    assert log.compactor.last_report is not None
    assert short.count == 0
    assert thread.thread is not None
    assert thread.thread.is_alive()
    log.close()
