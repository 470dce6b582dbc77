"""F29: what the system has nothing left for is an error of that call, and of nothing else.

Each verb meets a shortage at each of its calls, one after the other: it fails as a whole or not at
all, the same call works afterwards, and what is in the log is what a model says.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest

from copycat.errors import ResourceError
from copycat.member.ballast_file import BallastFile
from copycat.storage._native import FaultEnv, NativeLog, open_hard_state, open_log
from copycat.storage.interface import Rewrite
from copycat.storage.snapshot_store import SnapshotStore
from copycat.types import CompactionLimits, EntryId, MemberId, Release
from tests.log.contract import batch, contents, durable, grow
from tests.log.test_native import DIRECTORY, open_small

SHORTAGES = [
    ("open", "EMFILE"),
    ("create", "EMFILE"),
    ("open_directory", "ENFILE"),
    ("list", "EMFILE"),
    ("lock", "ENOLCK"),
    ("map", "ENOMEM"),
    ("rename", "ENOMEM"),
    ("unlink", "ENOMEM"),
    ("allocate", "ENOMEM"),
]
CALLS = 14
"""More than any verb here makes of one kind."""


class Case(NamedTuple):
    """A verb: what it does to a log, and whether it met a shortage with each kind of call."""

    name: str
    act: Callable[[NativeLog], object]
    meets: frozenset[str]


def finish(log: NativeLog) -> None:
    """As `Log.sync`: a ticket that failed is run again."""
    ticket = log.sync_in_flight() or log.begin_sync()
    ticket.run()
    log.end_sync(ticket)


def rewritten(log: NativeLog) -> None:
    if log.sync_in_flight() is not None:
        finish(log)
    rewrite: Rewrite = log.rewrite([[1], [2]], LIMITS, major=True)
    try:
        rewrite.run()
        log.install(rewrite)
    except ResourceError:
        rewrite.abandon()
        raise
    finish(log)


def roll(log: NativeLog) -> None:
    grow(log, 40 - log.last_index, each=20)


def synced(log: NativeLog) -> None:
    if log.sync_in_flight() is None:
        roll(log)
    finish(log)


LIMITS = CompactionLimits(16, 16, 0)
CASES = [
    Case("append", lambda log: grow(log, 1), frozenset({"unlink"})),
    Case("roll", roll, frozenset({"create", "rename", "allocate"})),
    Case("sync", synced, frozenset({"create", "rename"})),
    Case("truncate", lambda log: log.truncate(19), frozenset({"create", "rename", "allocate"})),
    Case("truncate far", lambda log: log.truncate(3), frozenset({"create", "open", "rename"})),
    Case("trim", lambda log: log.trim(10), frozenset({"create"})),
    Case("reset", lambda log: log.reset(EntryId(9, 90)), frozenset({"create", "rename"})),
    Case("read", contents, frozenset({"open"})),
    Case("get", lambda log: [log.get(index) for index in range(1, 21)], frozenset({"open"})),
    Case("slots", lambda log: log.segments(), frozenset()),
    Case("rewrite", rewritten, frozenset({"create", "open"})),
    Case("spare", lambda log: log.prepare_spare(), frozenset({"create", "allocate"})),
    Case("usage", lambda log: log.disk_usage, frozenset({"list"})),
    Case("close", lambda log: log.close(), frozenset()),
]


def written() -> FaultEnv:
    """Two sealed segments and a tail of four entries, closed cleanly."""
    env = FaultEnv(3)
    env.make_directory(DIRECTORY)
    log = open_small(env)
    grow(log, 20)
    durable(log)
    log.close()
    return env


Contents = list[tuple[int, int, bytes]]


def seen(log: NativeLog) -> tuple[Contents, EntryId, EntryId]:
    return contents(log), log.before, log.last_entry


def opened(env: FaultEnv) -> NativeLog:
    log = open_small(env)
    log.release([2, 3, 9], Release.ANY)
    return log


def outcome(case: Case) -> tuple[Contents, EntryId, EntryId]:
    """The model: what is in the log after the verb, on a system that lacks nothing."""
    env = written()
    log = opened(env)
    case.act(log)
    log.close()
    return seen(open_small(env))


def is_short(act: Callable[[], object]) -> bool:
    """Whether it met a shortage; what that says is what the user needs."""
    try:
        act()
    except ResourceError as error:
        shortage = error
    else:
        return False
    assert shortage.retryable
    assert (
        "ulimit" in str(shortage.hint)
        or "memory" in str(shortage.hint)
        or "fs." in str(shortage.hint)
    )
    return True


def met_by(case: Case, operation: str, error: str, nth: int) -> bool:
    """Run the verb with that fault, and again if it was met; all else as if there was none."""
    expected, original = outcome(case), seen(open_small(written()))
    env = written()
    log = opened(env)
    env.fail(operation, nth, error)
    is_met = is_short(lambda: case.act(log))
    if is_met:
        # What consists of several calls may have come to the end of one of them.
        whole = (original, expected) if case.name in {"sync", "rewrite"} else (original,)
        assert seen(log) in whole
        image = env.clone()
        image.crash_process()
        assert seen(open_small(image)) in whole
        case.act(log)
    if is_short(log.close):
        is_met = True
        log.close()
    env.crash(nth)  # which forgets a fault that was not met
    again = open_small(env)
    assert again.report.clean
    assert seen(again) == expected, (operation, nth)
    again.append(batch(again.last_index + 1, b"next", term=9))
    assert last(again) == b"next"
    return is_met


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_f29_a_verb_that_meets_a_shortage_changes_nothing_and_may_follow_again(
    case: Case,
) -> None:
    met = {
        operation
        for operation, error in SHORTAGES
        for nth in range(1, CALLS)
        if met_by(case, operation, error, nth)
    }
    assert met >= case.meets


def last(log: NativeLog) -> bytes:
    row = log.get(log.last_index)
    assert row is not None
    return row[3]


@pytest.mark.parametrize("ending", ["clean", "killed", "lost", "read_only"])
def test_f29_an_open_that_meets_a_shortage_may_follow_again(ending: str) -> None:
    met = set()
    for operation, error in SHORTAGES:
        for nth in range(1, 30):
            env = written()
            before = contents(open_small(env))
            env.crash_process()
            if ending in {"killed", "lost"}:
                log = open_small(env)
                roll(log)
                before = contents(log)
                if ending == "killed":
                    env.crash_process()
                else:
                    durable(log)
                    env.crash(nth)
            env.fail(operation, nth, error)
            reads = ending == "read_only"
            try:
                log = open_like(env, read_only=reads)
            except ResourceError:
                met.add(operation)
                image = env.clone()
                image.crash(nth)
                assert contents(open_small(image))[:20] == before[:20]
                log = open_like(env, read_only=reads)
            if not is_short(lambda: contents(log)):  # noqa: B023 - called here
                assert contents(log) == before, (operation, nth)
            if is_short(log.close):
                log.close()
            env.crash(nth)
            assert contents(open_small(env)) == before
    assert met >= ({"open", "list"} if ending == "read_only" else {"open", "list", "lock"})
    if ending in {"killed", "lost"}:
        assert met >= {"create", "rename", "allocate", "open_directory"}


def open_like(env: FaultEnv, *, read_only: bool) -> NativeLog:
    return open_log(
        env,
        DIRECTORY,
        max_segment_size=16384,
        max_entries_per_segment=8,
        read_only=read_only,
    )


def test_f29_a_batch_of_many_segments_is_appended_whole_or_not_at_all() -> None:
    met = 0
    for nth in range(1, 12):
        env = written()
        log = open_small(env)
        before = contents(log)
        env.fail("create", nth, "EMFILE")
        payloads = [b"%d" % n for n in range(40)]
        try:
            log.append(batch(21, *payloads))
        except ResourceError:
            met += 1
            assert contents(log) == before
            assert not [name for name in env.list(DIRECTORY) if name.endswith(".pending")]
            log.append(batch(21, *payloads))
        assert [row[2] for row in contents(log)[20:]] == payloads
    assert met > 5


def test_f29_a_save_of_the_hard_state_that_meets_a_shortage_runs_again() -> None:
    met = set()
    for operation, error in SHORTAGES:
        for nth in range(1, 6):
            env = FaultEnv()
            env.make_directory(DIRECTORY)
            state = open_hard_state(env, DIRECTORY, create=True)
            env.fail(operation, nth, error)
            ticket = state.begin_save(4, MemberId(77))
            try:
                ticket.run()
            except ResourceError:
                met.add(operation)
                assert (state.current_term, state.voted_for) == (0, 0)
                ticket.run()
            state.end_save(ticket)
            assert (state.current_term, state.voted_for) == (4, 77)
            env.crash(nth)
            again = open_hard_state(env, DIRECTORY, create=False)
            assert (again.current_term, again.voted_for) == (4, 77)
    assert met == {"create", "open_directory", "rename"}


def test_f29_a_rewrite_of_the_hard_state_that_meets_a_shortage_may_follow_again() -> None:
    for nth in range(1, 3):
        env = FaultEnv()
        env.make_directory(DIRECTORY)
        state = open_hard_state(env, DIRECTORY, create=True)
        env.fail("create", nth, "EMFILE")
        with pytest.raises(ResourceError):
            state.rewrite()
        state.rewrite()
        ticket = state.begin_save(1, MemberId(5))
        ticket.run()
        state.end_save(ticket)
        assert state.voted_for == 5


def test_f29_a_directory_is_made_again_after_a_shortage() -> None:
    """Its name must reach the disk, also when the first try made it and could not sync it."""
    for nth in range(1, 4):
        env = FaultEnv()
        env.fail("open_directory", nth, "EMFILE")
        with pytest.raises(ResourceError):
            env.make_directory("/disk/a/b")
        env.make_directory("/disk/a/b")
        env.crash(nth)
        assert env.exists("/disk/a/b")


def test_f29_a_snapshot_that_meets_a_shortage_is_saved_by_the_next_try() -> None:
    met = set()
    for operation, error in SHORTAGES:
        for nth in range(1, 8):
            env = FaultEnv()
            store = SnapshotStore(env, "/disk/snapshots")
            store.admit(store.save(EntryId(1, 5), time_ms=1, data=b"before"))
            env.fail(operation, nth, error)

            def save(store: SnapshotStore = store) -> object:
                return store.admit(store.save(EntryId(1, 9), time_ms=2, data=b"state" * 1000))

            if is_short(save):
                met.add(operation)
                save()
            env.crash(nth)
            good = SnapshotStore(env, "/disk/snapshots").newest_good()
            assert good is not None
            assert (good[0].entry, good[1]) == (EntryId(1, 9), b"state" * 1000)
            assert not [name for name in env.list("/disk/snapshots") if name.endswith(".new")]
    assert met >= {"create", "open", "rename", "open_directory"}


def test_f29_a_ballast_file_that_meets_a_shortage_is_made_later() -> None:
    for operation in ("create", "allocate", "open_directory"):
        env = FaultEnv()
        env.make_directory(DIRECTORY)
        ballast = BallastFile(env, DIRECTORY, 1 << 20, 0)
        env.fail(operation, 1, "ENOMEM")
        assert not ballast.make()
        assert ballast.make()
        assert env.size(f"{DIRECTORY}/reserve") == 1 << 20
