"""A bare log lets go of what its user released: on demand, by itself, across a restart."""

from __future__ import annotations

import errno
import threading
from pathlib import Path
from typing import Any

import pytest

from copycat.errors import ConfigurationError, DiskFullError
from copycat.log.log import Log
from copycat.types import Compaction, CompactionReport


def filled(path: Path, count: int = 400, **options: Any) -> Log:
    """`count` entries of 100 bytes in segments of 8 KiB, nothing by itself."""
    log = Log.open(path, max_segment_size=16384, **options)
    for start in range(0, count, 20):
        log.append_many(b"%d" % n + bytes(100) for n in range(start + 1, start + 21))
    return log


def test_released_entries_go_and_the_others_stay(tmp_path: Path) -> None:
    with filled(tmp_path) as log:
        before, unreleased = log.size, range(5, 401, 10)
        log.release_many([n for n in range(1, 401) if n not in unreleased])
        report = log.compactor.compact(Compaction.MAJOR)
        assert report.segments_after < report.segments_before
        marks = 128  # of the syncs around the run
        assert 0 < report.bytes_reclaimed <= before - log.size + marks
        assert log.get(1) is None
        with pytest.raises(IndexError, match="was deleted"):
            log[1]
        entries = list(log)
        assert [e.index for e in entries if e.index in unreleased] == list(unreleased)
        assert all(e.data.startswith(b"%d\0" % e.index) for e in entries)
        tail = log.segments[-1].first_index
        assert [e.index for e in entries if e.index < tail] == [n for n in unreleased if n < tail]
        assert all(row.is_compacted for row in log.segments[:-1])
        assert (log.first_index, log.last_index, len(log)) == (1, 400, len(entries))
    with Log.open(tmp_path) as log:
        assert list(log) == entries
        assert log.append(b"next") == 401


def test_a_minor_run_takes_what_is_worth_it_only(tmp_path: Path) -> None:
    with filled(tmp_path) as log:
        first, second = log.segments[0], log.segments[1]
        log.release_many(range(first.first_index, first.last_index))
        log.release(second.first_index)
        log.compactor.compact()
        assert log.segments[0].is_compacted
        assert not log.segments[1].is_compacted
        assert log.segments[1].release_count == 1
        assert log.get(first.last_index) is not None


def test_nothing_above_what_was_committed_goes(tmp_path: Path) -> None:
    with filled(tmp_path) as log:
        border = log.segments[0].last_index
        log.commit(border)
        log.release_many(range(1, 401))
        log.compactor.compact(Compaction.MAJOR)
        assert log.compactor.compact_index == border
        assert log.get(border) is None
        assert log.get(border + 1) is not None


def test_appends_go_on_while_it_is_rewritten(tmp_path: Path) -> None:
    with filled(tmp_path, 2000) as log:
        log.release_many(range(1, 2000))
        running = threading.Thread(target=log.compactor.compact, args=(Compaction.MAJOR,))
        running.start()
        indexes = [log.append(b"meanwhile") for _ in range(50)]
        running.join()
        assert [log[n].data for n in indexes] == [b"meanwhile"] * 50
        assert log.get(1) is None


def test_it_runs_by_itself_when_enough_was_released(tmp_path: Path) -> None:
    with filled(tmp_path, 3000, compaction_threshold=0.3) as log:
        ran = threading.Event()
        thread = log._compaction_thread()
        run = thread._run

        def watched(compaction: Compaction, is_scheduled: bool) -> CompactionReport:
            report = run(compaction, is_scheduled)
            ran.set()
            return report

        thread._run = watched  # type: ignore[method-assign]
        log.release_many(range(1, 2900))
        assert ran.wait(20)
        assert log.get(1) is None


def test_f13_a_run_without_room_is_tried_again_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It had forgotten what was released: nothing ran before the next interval."""
    monkeypatch.setattr("copycat.storage.compaction.BACK_OFF_MS", 10)
    with filled(tmp_path, 3000, compaction_threshold=0.3) as log:
        attempts, cleaned = list[Compaction](), threading.Event()
        thread = log._compaction_thread()
        run = thread._run

        def full_twice(compaction: Compaction, is_scheduled: bool) -> CompactionReport:
            attempts.append(compaction)
            with pytest.MonkeyPatch.context() as patch:
                if len(attempts) <= 2:
                    patch.setattr(thread, "_log", NoRoom(thread._log))
                report = run(compaction, is_scheduled)
            cleaned.set()
            return report

        thread._run = full_twice  # type: ignore[method-assign]
        log.release_many(range(1, 2900))
        assert cleaned.wait(20)
        assert len(attempts) == 3
        assert log.compactor.failure is None
        assert log.get(1) is None


class NoRoom:
    """A log whose rewrites find the disk full."""

    def __init__(self, log: Any) -> None:
        self._log = log

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    def rewrite(self, *args: Any, **options: Any) -> NoRoom:
        self._rewrite = self._log.rewrite(*args, **options)
        return self

    def run(self) -> None:
        raise DiskFullError("no space left", errno=errno.ENOSPC)

    def abandon(self) -> None:
        self._rewrite.abandon()


def test_skip_leaves_a_gap_that_stays(tmp_path: Path) -> None:
    with Log.open(tmp_path) as log:
        log.append(b"one")
        log.skip(10)
        assert log.append(b"twelve") == 12
        assert log.get(5) is None
        assert [e.index for e in log] == [1, 12]
        with pytest.raises(ValueError, match="at least one"):
            log.skip(0)
    with Log.open(tmp_path, read_only=True) as log:
        assert [e.index for e in log] == [1, 12]
        with pytest.raises(ConfigurationError, match="read_only"):
            log.release(1)


def test_a_log_in_memory_is_cleaned_too(tmp_path: Path) -> None:
    with filled(tmp_path, level="memory") as log:
        log.release_many(range(1, 300))
        assert log.compactor.compact(Compaction.MAJOR).bytes_reclaimed > 0
        assert log.get(1) is None
        assert log.get(400) is not None
