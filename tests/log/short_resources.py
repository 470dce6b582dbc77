"""F29 over the real calls: the nth descriptor, map, or allocation is refused, for each n.

test_short_calls.py runs this file in a process of its own, with short_calls.cpp preloaded.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import pytest

from copycat.errors import ResourceError
from copycat.log.log import Log
from copycat.storage._native import Env, NativeLog, open_hard_state
from copycat.types import EntryId, MemberId, Release
from tests.log.contract import contents, durable, grow
from tests.log.short_calls import ShortCalls
from tests.log.test_native import open_small
from tests.log.test_shortage import CASES, Case, finish, seen

KINDS = [("open", "EMFILE"), ("map", "ENOMEM"), ("new", "ENOMEM")]
HALVES = {"roll", "sync", "rewrite"}
"""What consists of several calls, or may be in the log in part (OutOfMemoryError)."""


@pytest.fixture
def calls() -> ShortCalls:
    return ShortCalls()


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """Two sealed segments and a tail of four entries, closed cleanly."""
    log = open_small(Env(), str(tmp_path / "image"))
    grow(log, 20)
    durable(log)
    log.close()
    return tmp_path / "image"


@contextmanager
def copied(image: Path) -> Iterator[str]:
    copy = image.with_name("copy")
    shutil.copytree(image, copy)
    yield str(copy)
    shutil.rmtree(copy)


def opened(directory: str) -> NativeLog:
    log = open_small(Env(), directory)
    log.release([2, 3, 9], Release.ANY)
    return log


def is_refused(calls: ShortCalls, kind: str, act: Callable[[], object]) -> bool:
    """Whether `act` fails as it should where one is lacking, with the cause."""
    try:
        act()
    except (ResourceError, MemoryError) as error:
        refusal = error
    else:
        return False
    assert calls.is_met(kind)
    # A path that has no memory on its way in is the interpreter's own MemoryError.
    assert type(refusal) is MemoryError or (
        isinstance(refusal, ResourceError) and refusal.retryable
    )
    assert isinstance(refusal, MemoryError) == (kind == "new")
    return True


@pytest.mark.parametrize("kind", KINDS, ids=[kind for kind, _ in KINDS])
@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_a_verb_that_is_refused_something_may_follow_again(
    case: Case, kind: tuple[str, str], image: Path, calls: ShortCalls
) -> None:
    with copied(image) as directory:
        original = seen(open_small(Env(), directory))
    with copied(image) as directory:
        log = opened(directory)
        case.act(log)
        log.close()
        expected = seen(open_small(Env(), directory))
    for nth in count(1):
        with copied(image) as directory:
            log = opened(directory)
            calls.fail(kind[0], nth, kind[1])
            if is_refused(calls, kind[0], lambda: case.act(log)):  # noqa: B023 - called here
                now = seen(log)
                if case.name in HALVES:
                    assert now[0] in (original[0], expected[0], expected[0][: len(now[0])])
                else:
                    assert now == original
                case.act(log)
                is_met = True
            else:
                is_met = calls.is_met(kind[0])
            log.close()
            again = open_small(Env(), directory)
            assert again.report.clean
            assert seen(again) == expected, nth
            again.close()
        if not is_met:
            break


@pytest.mark.parametrize("kind", KINDS, ids=[kind for kind, _ in KINDS])
@pytest.mark.parametrize("is_clean", [True, False])
def test_an_open_or_a_close_that_is_refused_something_may_follow_again(
    kind: tuple[str, str], is_clean: bool, image: Path, calls: ShortCalls
) -> None:
    if not is_clean:
        log = open_small(Env(), str(image))
        grow(log, 20, each=20)
        finish(log)
        grow(log, 3)
        shutil.copytree(image, image.with_name("killed"))
        image = image.with_name("killed")
        log.close()
    with copied(image) as directory:
        expected = contents(open_small(Env(), directory))
    for verb in ("open", "close", "append"):
        for nth in count(1):
            with copied(image) as directory:
                if verb != "open":
                    log = open_small(Env(), directory)
                calls.fail(kind[0], nth, kind[1])
                act = {
                    "open": lambda: open_small(Env(), directory),
                    "close": lambda: log.close(),  # noqa: B023
                    "append": lambda: grow(log, 1),  # noqa: B023
                }[verb]
                is_met = is_refused(calls, kind[0], act) or calls.is_met(kind[0])
                log = open_small(Env(), directory) if verb == "open" else log
                log.close()
                rows = contents(open_small(Env(), directory))
                assert rows[: len(expected)] == expected
            if not is_met:
                break


@pytest.mark.parametrize("kind", KINDS, ids=[kind for kind, _ in KINDS])
def test_a_save_that_is_refused_something_runs_again(
    kind: tuple[str, str], tmp_path: Path, calls: ShortCalls
) -> None:
    for nth in count(1):
        directory = tmp_path / str(nth)
        directory.mkdir()
        state = open_hard_state(Env(), str(directory), create=True)
        ticket = state.begin_save(3, MemberId(9))
        calls.fail(kind[0], nth, kind[1])
        is_met = is_refused(calls, kind[0], ticket.run)
        if is_met:
            ticket.run()
        is_met = is_met or calls.is_met(kind[0])
        state.end_save(ticket)
        again = open_hard_state(Env(), str(directory), create=False)
        assert (again.current_term, again.voted_for) == (3, 9)
        if not is_met:
            break


def test_a_log_whose_thread_cannot_start_goes_on(tmp_path: Path, calls: ShortCalls) -> None:
    items = [b"%d" % n * 300 for n in range(60)]
    with Log.open(tmp_path, durability="interval", max_segment_size=16384) as log:
        calls.fail("thread", 1, "EAGAIN")
        with pytest.raises(ResourceError, match="can't start new thread"):
            log.append(items[0])
        assert log.last_index == 0
        for nth, item in enumerate(items, 1):
            calls.fail("thread", 1, "EAGAIN")
            if nth < 3:
                calls.is_met("thread")
            log.append(item)
        calls.is_met("thread")
        assert [entry.data for entry in log] == items
    with Log.open(tmp_path) as log:
        assert [entry.data for entry in log] == items


def test_an_append_is_whole_or_not_there(tmp_path: Path, calls: ShortCalls) -> None:
    """What a caller does: the same append again, until it is told that it was done."""
    items = [b"%d" % n * 100 for n in range(400)]
    refused = 0
    with Log.open(tmp_path, max_segment_size=16384) as log:
        for nth, item in enumerate(items):
            calls.fail("open", 1 + nth % 7, "EMFILE")
            try:
                assert log.append(item) == nth + 1
            except ResourceError:
                refused += 1
                assert log.next_index == nth + 1
                assert log.append(item) == nth + 1
        calls.is_met("open")
        assert [entry.data for entry in log] == items
        assert log[1] == (1, 1, items[0])
        assert EntryId(1, 400) == log._native.last_entry
    assert refused > 3
