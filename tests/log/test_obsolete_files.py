"""Files that nothing needs any more go aside: no sync waits for that, and no failure of it ends
a log (F4)."""

from __future__ import annotations

from pathlib import Path

import pytest

from copycat.errors import DiskError, LogPoisonedError
from copycat.log.log import Log
from copycat.storage._native import FaultEnv, NativeLog
from copycat.storage.segment_files import remove_obsolete_files
from copycat.types import EntryId, Release
from tests.log.contract import contents, durable, expected, grow
from tests.log.contract_compaction import compact, limits
from tests.log.test_limits import fresh, names, opened
from tests.log.test_native import DIRECTORY


def trimmed() -> tuple[FaultEnv, NativeLog, list[str]]:
    """Entries 9 to 20 are left, in sealed segments of four; two files with their indexes are
    not needed any more, and nobody knows it for sure yet."""
    env, log = fresh()
    grow(log, 20)
    durable(log)
    before = names(env, ".log")[:2] + names(env, ".idx")[:2]
    log.trim(9)
    return env, log, before


def there(env: FaultEnv, files: list[str]) -> list[str]:
    return [name for name in files if env.exists(f"{DIRECTORY}/{name}")]


def test_they_are_none_before_the_manifest_is_durable() -> None:
    env, log, before = trimmed()
    assert log.wants_sync()
    assert not log.has_obsolete_files()
    ticket = log.begin_sync()
    assert not log.has_obsolete_files()
    ticket.run()
    log.end_sync(ticket)
    assert log.has_obsolete_files()
    assert there(env, before) == before, "a sync removes nothing"
    log.remove_obsolete_files()
    assert not log.has_obsolete_files()
    assert there(env, before) == []
    assert contents(log) == expected(9, 21)


def test_a_few_go_at_once() -> None:
    env, log = fresh()
    grow(log, 200)
    durable(log)
    files = len(env.list(DIRECTORY))
    log.reset(EntryId(1, 200))
    durable(log)
    calls = 0
    while log.has_obsolete_files():
        log.remove_obsolete_files()
        calls += 1
    assert calls > 5
    assert len(env.list(DIRECTORY)) < files / 10


@pytest.mark.parametrize("error", ["EIO", "EACCES"])
def test_one_that_cannot_be_removed_ends_no_log(
    error: str, caplog: pytest.LogCaptureFixture
) -> None:
    env, log, before = trimmed()
    durable(log)
    env.fail("unlink", 1, error)
    with pytest.raises(DiskError):
        log.remove_obsolete_files()
    env.fail("unlink", 1, error)
    while log.has_obsolete_files():
        remove_obsolete_files(log)
    assert "a file that nothing needs stays" in caplog.text
    assert len(there(env, before)) == 2
    grow(log, 1)
    assert durable(log) == 21
    log.close()
    log = opened(env)
    assert len(log.report.obsolete_files) == 2
    assert there(env, before) == []
    assert contents(log) == expected(9, 22)


def test_a_close_takes_the_rest_with_it_and_fails_for_none() -> None:
    env, log, before = trimmed()
    durable(log)
    env.fail("unlink", 2, "EIO")
    log.close()
    assert not log.has_obsolete_files()
    assert len(there(env, before)) == 1


def test_what_a_kill_leaves_goes_with_the_next_open() -> None:
    env, log, before = trimmed()
    durable(log)
    env.crash_process()
    log = opened(env)
    assert set(before) < set(log.report.obsolete_files)
    assert there(env, before) == []


def test_a_poisoned_log_removes_nothing_more() -> None:
    env, log, before = trimmed()
    durable(log)
    grow(log, 1)
    env.fail("sync", 1, "EIO")
    with pytest.raises(DiskError):
        durable(log)
    assert not log.has_obsolete_files()
    with pytest.raises(LogPoisonedError):
        log.remove_obsolete_files()
    assert there(env, before) == before


def test_a_compaction_leaves_them_to_whoever_has_the_time() -> None:
    env, log = fresh()
    grow(log, 20)
    durable(log)
    before = names(env, ".log")[:4]
    log.release(range(1, 17), Release.ANY)
    compact(log, limits(16), groups=[[1, 2, 3, 4]])
    durable(log)
    assert there(env, before) == before
    log.remove_obsolete_files()
    assert there(env, before) == []


def test_a_bare_log_removes_them_by_itself(tmp_path: Path) -> None:
    with Log.open(tmp_path, max_segment_size=16384) as log:
        for _ in range(20):
            log.append_many([bytes(1000)] * 15)
        files = len(list(tmp_path.glob("*.log")))
        log.trim(200)
        assert log.first_index > 1
        log._maintenance.stop()  # it waits for the thread, and for nobody else's
        assert len(list(tmp_path.glob("*.log"))) < files
        assert len(list(tmp_path.glob("*.log"))) <= len(log.segments)
