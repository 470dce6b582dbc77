"""The public log over a disk that fails: F9, F12, and its two background threads."""

from __future__ import annotations

from typing import Any

import pytest

from copycat.config import Storage
from copycat.errors import DiskError, DiskFullError, LogPoisonedError
from copycat.log.log import Log
from copycat.storage._native import FaultEnv, open_log
from copycat.types import Durability
from tests.log.contract import batch
from tests.log.test_native import DIRECTORY, open_small


def over(env: FaultEnv, **options: Any) -> Log:
    return Log(open_small(env), DIRECTORY, Storage(**options), read_only=False)


def data(log: Log) -> list[bytes]:
    return [entry.data for entry in log]


def test_f9_a_failed_sync_stops_the_log() -> None:
    env = FaultEnv()
    log = over(env)
    log.append(b"a")
    env.fail("sync", 1, "EIO")
    with pytest.raises(DiskError):
        log.append(b"b")
    assert log.durable_index == 1
    for verb in (lambda: log.append(b"c"), log.sync, lambda: log.truncate(1)):
        with pytest.raises(LogPoisonedError):
            verb()
    log.close()
    env.crash_process()
    with over(env) as log:
        assert data(log)[:1] == [b"a"]
        assert log.append(b"next") == log.last_index


def test_f12_a_full_disk_refuses_and_the_log_goes_on() -> None:
    env = FaultEnv()
    with over(env) as log:
        log.append(b"a")
        env.fail("write", 1, "ENOSPC")
        with pytest.raises(DiskFullError):
            log.append(b"b")
        assert data(log) == [b"a"]
        assert log.append(b"c") == 2
    with over(env) as log:
        assert data(log) == [b"a", b"c"]


def test_a_spare_that_cannot_be_made_stops_nothing() -> None:
    env = FaultEnv()
    with over(env) as log:
        env.fail("zero_fill", 1, "ENOSPC")
        items = [b"%d" % n for n in range(40)]
        for item in items:
            log.append(item)
        assert data(log) == items


def test_f9_a_failed_sync_of_the_timer_is_told_by_the_next_append() -> None:
    env = FaultEnv()
    native = open_log(env, DIRECTORY, max_segment_size=1 << 20, max_entries_per_segment=1000)
    storage = Storage(durability=Durability.INTERVAL, sync_interval=0.001)
    log = Log(native, DIRECTORY, storage, read_only=False)  # too large to want a spare
    env.fail("sync", 1, "EIO")
    log.append(b"a")
    timer = log._timer.thread
    assert timer is not None
    timer.join(10)
    assert not timer.is_alive()
    assert isinstance(log._timer.failure, DiskError)
    with pytest.raises(LogPoisonedError):
        log.append(b"b")
    assert log.durable_index == 0
    log.close()


def test_a_truncation_is_durable_when_it_returns() -> None:
    for seed in range(20):
        env = FaultEnv()
        log = over(env)
        log.append_many([b"a", b"b", b"c"])
        log.truncate(1)
        env.crash(seed)
        with over(env) as log:
            assert data(log) == [b"a"]


def test_a_power_loss_costs_os_durability_only_what_was_not_synced() -> None:
    env = FaultEnv()
    log = over(env, durability="os")
    log.append_many([b"a", b"b"])
    log.sync()
    log.append(b"c")
    env.crash(3)
    with over(env) as log:
        assert data(log) in ([b"a", b"b"], [b"a", b"b", b"c"])


def test_a_sync_that_a_signal_interrupted_is_ended_by_the_next() -> None:
    """Ctrl-C between two calls left the ticket in flight: each later sync was refused."""
    with over(FaultEnv()) as log:
        log.append(b"a")
        native = log._native
        native.append(batch(2, b"b"))
        native.begin_sync()  # and KeyboardInterrupt here
        assert log.append(b"c") == 3
        assert log.durable_index == 3
        assert data(log) == [b"a", b"b", b"c"]
