"""F29 for a whole process: its limit of open files, and threads that cannot be started."""

from __future__ import annotations

import os
import resource
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from copycat.errors import ResourceError
from copycat.log.log import Log
from copycat.storage._native import NativeLog
from copycat.types import Durability
from tests.log.forked import in_child

pytestmark = pytest.mark.forks


def without_descriptors(act: Callable[[], object]) -> bool:
    """Call it while the process may open no file; whether that was refused, by name."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        act()
    except ResourceError as error:
        shortage = error
    else:
        return False
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert shortage.retryable
    assert "ulimit -n" in str(shortage.hint)
    assert "open files" in str(shortage)
    return True


def data(log: Log) -> list[bytes]:
    return [entry.data for entry in log]


def appended(path: Path, durability: Durability) -> None:
    refused = 0
    items = [b"%d" % n for n in range(200)]
    with Log.open(path, max_segment_size=16384, durability=durability) as log:
        for item in items:
            for act in (
                lambda item=item: log.append(item * 300),
                log.sync,
                lambda: log.trim(0),
                lambda: log[1],
                lambda: log.size,
            ):
                if without_descriptors(act):
                    refused += 1
                    act()
        assert data(log) == [item * 300 for item in items]
        assert log.durable_index == 200
        assert without_descriptors(lambda: log.truncate(150))
        assert log.last_index == 200
        log.truncate(150)
        assert without_descriptors(lambda: log.trim(100))
        assert log.first_index == 1
        log.trim(100)
        assert data(log) == [item * 300 for item in items[log.first_index - 1 : 150]]
        first, payloads = log.first_index, data(log)
    assert refused > 20
    assert without_descriptors(lambda: Log.open(path))
    assert without_descriptors(lambda: Log.open(path, read_only=True))
    with Log.open(path) as log:
        assert (log.first_index, data(log)) == (first, payloads)
        without_descriptors(log.close)


@pytest.mark.slow
@pytest.mark.parametrize("durability", list(Durability))
def test_f29_a_process_without_descriptors_loses_nothing(
    tmp_path: Path, durability: Durability
) -> None:
    in_child(lambda: appended(tmp_path / "log", durability))


def test_f29_a_close_without_descriptors_is_clean(tmp_path: Path) -> None:
    def closed() -> None:
        log = Log.open(tmp_path, max_segment_size=16384)
        log.append_many(b"x" * 1000 for _ in range(100))
        without_descriptors(log.close)
        log.close()

    in_child(closed)
    with Log.open(tmp_path) as log:
        assert log.last_index == 100
        native = log._native
        assert isinstance(native, NativeLog)
        assert native.report.clean


class NoThreads:
    """`threading.Thread.start` fails as it does at the limit of a process, while `is_on`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_on = True
        start = threading.Thread.start

        def refused(thread: threading.Thread) -> None:
            if self.is_on:
                raise RuntimeError("can't start new thread")
            start(thread)

        monkeypatch.setattr(threading.Thread, "start", refused)


def test_f29_an_append_whose_timer_cannot_start_appends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    none = NoThreads(monkeypatch)
    with Log.open(tmp_path, durability="interval") as log:
        for _ in range(3):
            with pytest.raises(ResourceError, match="copycat-sync") as caught:
                log.append(b"a")
            assert caught.value.retryable
            assert "ulimit -u" in str(caught.value.hint)
            assert log.last_index == 0
        none.is_on = False
        log.append(b"a")
        assert data(log) == [b"a"]


@pytest.mark.slow
def test_f29_spares_and_compactions_wait_for_a_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("copycat.log.background.SHORTAGE_S", 0.0)
    monkeypatch.setattr("copycat.log.compactor.SHORTAGE_S", 0.0)
    none = NoThreads(monkeypatch)
    items = [b"%d" % n * 100 for n in range(300)]
    with Log.open(tmp_path, max_segment_size=16384) as log:
        for item in items:
            log.append(item)
        for index in range(1, 100):
            log.release(index)
        assert "can't start new thread" in caplog.text
        assert data(log) == items
        none.is_on = False
        log.append(b"last")
        log.release(100)
        assert log._maintenance.thread is not None
        assert log._compaction is not None
        assert log._compaction.thread is not None
    with Log.open(tmp_path) as log:
        assert log.last_index == 301
