"""An exception from a signal handler may come between any two steps of a call: whatever was done
by then, the log is whole, what is in memory agrees with it, and nobody is left with a lock."""

from __future__ import annotations

import random
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from copycat.log.log import Entry, Log
from tests.log.interrupts import Interrupt, alarmed, everywhere

Verb = Callable[[Log], object]
SMALL: dict[str, Any] = {
    "max_segment_size": 8192,
    "max_entries_per_segment": 8,
    "min_free_space": 0,
    "entry_buffer_size": 64,
}


def is_free(log: Log) -> bool:
    """Whether another thread can take each of the log's locks, which its own threads released."""
    acquisitions: list[bool] = []

    def take() -> None:
        locks = [log._lock, log._sync_lock]
        locks += [log._compaction._running] if log._compaction is not None else []
        for lock in locks:
            acquisitions.append(lock.acquire(timeout=20))
            if acquisitions[-1]:
                lock.release()

    other = threading.Thread(target=take)
    other.start()
    other.join()
    return all(acquisitions)


def contents(log: Log) -> dict[int, Entry]:
    """What the log holds, by all ways of reading it, which must agree."""
    by_index = {entry.index: entry for entry in log}
    assert len(log) == len(by_index)
    for index in range(max(log.first_index - 2, 0), log.next_index + 2):
        assert log.get(index) == by_index.get(index)
        assert (index in log) == (index in by_index)
        if index in by_index:
            assert log[index] == by_index[index]
            assert next(log.read(index)) == by_index[index]
    assert log[:] == list(by_index.values())
    return by_index


def ready(path: Path, level: Any = "disk", **options: Any) -> Log:
    """A log of several segments, of which some are cleaned and some entries are released."""
    log = Log.open(path, level=level, **(SMALL | {"durability": "os"} | options))
    for n in range(40):
        log.append(b"%d" % n)
    log.release_many([n for n in range(1, 17) if n % 3])
    log.compactor.compact("major")
    log.release_many([n for n in range(17, 40) if n % 2])
    return log


def refill(log: Log) -> None:
    """Keep it at a size at which it can shrink and is quickly read."""
    if len(log) < 24:
        log.append_many([b"again %d" % n for n in range(24)])
    if len(log) > 36:
        log.truncate(log.first_index + 26)


@pytest.fixture(params=["disk", "memory"])
def log(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Log]:
    made = ready(tmp_path / "log", request.param)
    yield made
    made.close()


READS: list[Verb] = [
    lambda log: log.get(38),
    lambda log: log.get(5),
    lambda log: log[40],
    lambda log: log[12],
    lambda log: log[30:],
    lambda log: list(log.read(20)),
    lambda log: list(reversed(log)),
    lambda log: len(log),
    lambda log: 38 in log,
    lambda log: log.term(20),
    lambda log: log.segments,
    lambda log: (log.first_index, log.last_index, log.next_index, log.durable_index, log.size),
]


@pytest.mark.slow
@pytest.mark.parametrize("read", READS)
def test_a_read_that_is_interrupted_leaves_no_lock(log: Log, read: Verb) -> None:
    expected, whole = read(log), contents(log)

    def attempt(interrupt: Interrupt) -> None:
        answer = interrupt.run(lambda: read(log))
        assert interrupt.was_raised or answer == expected
        assert is_free(log)

    assert everywhere(attempt, step=3 if read is not READS[6] else 41) > 3
    assert contents(log) == whole


def appended(log: Log) -> None:
    log.append(b"new")


def appended_many(log: Log) -> None:
    log.append_many([b"%d" % n for n in range(20)])


def cut(log: Log) -> None:
    log.truncate(log.last_index - 3)


def cut_and_appended(log: Log) -> None:
    """Interrupted in between, an entry that was cut off must not be seen again."""
    log.truncate(log.last_index - 1)
    log.append(b"another")


def trimmed(log: Log) -> None:
    log.trim(log.segments[1].first_index)


def skipped(log: Log) -> None:
    log.skip(3)


def cleaned(log: Log) -> None:
    log.release(log.segments[1].last_index)
    log.compactor.compact("major")


def synced(log: Log) -> None:
    log.sync()


@pytest.mark.slow
@pytest.mark.parametrize("durability", ["os", "fsync", "interval"])
@pytest.mark.parametrize(
    "change", [appended, appended_many, cut, cut_and_appended, trimmed, skipped, cleaned, synced]
)
def test_a_change_that_is_interrupted_is_done_or_not(
    tmp_path: Path, change: Verb, durability: Any
) -> None:
    """Memory and disk agree afterwards, and the log takes more."""
    log = ready(tmp_path / "log", durability=durability)

    def attempt(interrupt: Interrupt) -> None:
        before = contents(log)
        interrupt.run(lambda: change(log))
        assert is_free(log)
        after = contents(log)
        if change in {appended, appended_many, skipped, synced}:
            assert all(after[index] == entry for index, entry in before.items())
        elif change in {trimmed, cleaned}:
            assert after.items() <= before.items()
        index = log.append(b"more")
        assert log[index] == log.get(index) == next(log.read(index)) == (index, 1, b"more")
        refill(log)

    step = 83 if change is cleaned else 5 if durability == "os" else 23
    assert everywhere(attempt, step=step) > 5
    last = contents(log)
    log.close()
    with Log.open(tmp_path / "log") as again:
        assert contents(again) == last


@pytest.mark.slow
@pytest.mark.parametrize("change", [appended, appended_many, cut_and_appended, trimmed, cleaned])
def test_a_change_in_memory_that_is_interrupted_is_done_or_not(
    tmp_path: Path, change: Verb
) -> None:
    log = ready(tmp_path / "log", "memory")

    def attempt(interrupt: Interrupt) -> None:
        before = contents(log)
        interrupt.run(lambda: change(log))
        after = contents(log)
        if change in {trimmed, cleaned}:
            assert after.items() <= before.items()
        assert is_free(log)
        index = log.append(b"more")
        assert log[index].data == b"more"
        refill(log)

    assert everywhere(attempt, step=997 if change is cleaned else 31) > 5
    log.close()


@pytest.mark.slow
def test_an_open_that_is_interrupted_lets_go_of_the_directory(tmp_path: Path) -> None:
    ready(tmp_path / "log").close()

    def attempt(interrupt: Interrupt) -> None:
        log = interrupt.run(lambda: Log.open(tmp_path / "log", **SMALL))
        if log is not None:
            log.close()  # type: ignore[attr-defined]
        Log.open(tmp_path / "log").close()

    assert everywhere(attempt, step=23) > 20


@pytest.mark.slow
@pytest.mark.parametrize("durability", ["os", "interval"])
def test_a_close_that_is_interrupted_is_called_again(tmp_path: Path, durability: Any) -> None:
    path = tmp_path / "log"
    ready(path).close()

    def attempt(interrupt: Interrupt) -> None:
        log = Log.open(path, durability=durability, **SMALL)
        log.append(b"x")
        log.release(20)
        interrupt.run(log.close)
        log.close()
        assert log.closed
        with pytest.raises(ValueError, match="is closed"):
            log.append(b"y")
        Log.open(path, read_only=False).close()  # nobody holds it

    assert everywhere(attempt, step=17) > 8


def noted(event: threading.Event, result: Any) -> Callable[..., Any]:
    def call(*_: object) -> Any:
        event.set()
        return result

    return call


@pytest.mark.slow
def test_the_threads_of_a_log_begin_again_after_an_interrupt(tmp_path: Path) -> None:
    """Whatever stopped them from beginning, or from being told."""
    synced, cleaned = threading.Event(), threading.Event()
    with Log.open(tmp_path / "log", min_free_space=0) as log:
        log.append_many(b"%d" % n for n in range(1100))

    def attempt(interrupt: Interrupt) -> None:
        log = Log.open(tmp_path / "log", durability="interval", sync_interval=0.001)
        log._timer._sync = noted(synced, 0)
        log._compaction_thread()._run = noted(cleaned, None)  # type: ignore[method-assign]

        def both() -> None:
            log.append(b"x")
            log.release_many(range(1, 1100))

        interrupt.run(both)
        for event in (synced, cleaned):
            event.clear()
        log.append(b"y")
        log.release_many(range(1, 1100))
        assert synced.wait(20)
        assert cleaned.wait(20)
        log.close()

    assert everywhere(attempt, step=13) > 8


def test_a_signal_that_python_drops_is_no_failure() -> None:
    """The handler runs within a callback of a weak reference: nobody can catch what it raises."""

    def wait(_: object) -> None:
        until = time.monotonic() + 20
        while time.monotonic() < until:
            pass

    class Thing:
        """What is deleted."""

    def verb() -> None:
        thing = Thing()
        watch = weakref.ref(thing, wait)
        del thing
        were_dropped.append(watch() is None)

    were_dropped: list[bool] = []
    alarmed(verb, 0.001)
    assert were_dropped == [True]


@pytest.mark.slow
def test_real_signals_at_random_moments(tmp_path: Path) -> None:
    """Hundreds of interrupts by a timer, over all verbs that change the log."""
    rng = random.Random(8)
    verbs = [appended, appended_many, cut, cut_and_appended, trimmed, skipped, cleaned, synced]
    log = ready(tmp_path / "log")
    for _ in range(300):
        verb = rng.choice(verbs)
        alarmed(partial(verb, log), rng.uniform(20e-6, 1500e-6))
        refill(log)
        tail = range(max(log.first_index, log.last_index - 20), log.next_index)
        assert [log.get(n) for n in tail if n in log] == list(log.read(tail[0]))
    assert is_free(log)
    last = contents(log)
    log.close()
    with Log.open(tmp_path / "log") as again:
        assert contents(again) == last
