"""The lazy threads of a bare log: one of each, which ends when it is told to."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from copycat.log.background import FileMaintenance, SyncTimer
from copycat.log.compactor import CompactionThread, Compactor
from copycat.log.log import Log
from copycat.types import Compaction


def is_locked(log: Log) -> bool:
    """Whether other threads have to wait for the log's lock now."""
    acquisitions: list[bool] = []

    def take() -> None:
        acquisitions.append(log._lock.acquire(timeout=0))
        if acquisitions[0]:
            log._lock.release()

    other = threading.Thread(target=take)
    other.start()
    other.join()
    return not acquisitions[0]


@pytest.mark.parametrize(
    ("kind", "verb"),
    [
        (CompactionThread, "__init__"),
        (CompactionThread, "release"),
        (CompactionThread, "commit"),
        (SyncTimer, "start"),
        (FileMaintenance, "start_if_needed"),
    ],
)
def test_what_begins_a_thread_once_is_called_by_one_thread_at_a_time(
    tmp_path: Path, kind: type, verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    locked: list[bool] = []
    wrapped = getattr(kind, verb)

    def watched(self: object, *arguments: object, **named: object) -> object:
        locked.append(is_locked(log))
        return wrapped(self, *arguments, **named)

    monkeypatch.setattr(kind, verb, watched)
    with Log.open(tmp_path, durability="interval") as log:
        log.append_many([b"one", b"two"])
        log.sync()
        log.release(1)
        log.commit(2)
    assert locked
    assert all(locked)


def test_threads_that_clean_at_once_share_one_compactor(tmp_path: Path) -> None:
    """Two of them would rewrite the same segments, and only one would end with the log."""
    together = threading.Barrier(8)
    compactors: list[Compactor] = []

    def clean(index: int) -> None:
        together.wait()
        log.release(index)
        log.compactor.compact(Compaction.MAJOR)
        compactors.append(log.compactor)

    with Log.open(tmp_path, max_segment_size=16384, max_entries_per_segment=8) as log:
        log.append_many(b"%d" % n for n in range(200))
        threads = [threading.Thread(target=clean, args=(n,)) for n in range(1, 9)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        assert len(compactors) == 8, "none was refused since another one rewrites"
        assert len(set(map(id, compactors))) == 1
        assert [log.get(n) for n in range(1, 9)] == [None] * 8
        thread = log._compaction_thread().thread
    assert thread is not None
    assert not thread.is_alive()


def test_a_stop_between_two_steps_of_the_timer_is_not_lost() -> None:
    stopped = threading.Event()

    class Dirty(threading.Event):
        def clear(self) -> None:  # as when `stop` runs right before it
            stopped.set()
            self.set()
            super().clear()

    dirty = Dirty()
    dirty.set()
    timer = SyncTimer(lambda: 0, 0.0)
    worker = threading.Thread(target=timer._work, args=(dirty, stopped), daemon=True)
    worker.start()
    worker.join(10)
    assert not worker.is_alive()
