"""A sync that hangs over the end of its log: the disk may come back after the log was closed, and
opened again in the same process."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from copycat.errors import CopycatError, DirectoryInUseError, DiskError, LogPoisonedError
from copycat.storage._native import FaultEnv, NativeLog, SyncTicket
from tests.log.contract import contents, durable, expected, grow
from tests.log.test_limits import fresh, opened
from tests.log.test_native import DIRECTORY

MANIFEST = f"{DIRECTORY}/manifest"


class Hung:
    """A sync in a thread of its own, which hangs in the nth file that it syncs."""

    def __init__(self, env: FaultEnv, log: NativeLog, nth: int) -> None:
        self.env = env
        self.nth = nth
        self.failure: CopycatError | None = None
        self._thread = threading.Thread(target=self._run, args=(log.begin_sync(),))
        env.hold_sync(nth)
        self._thread.start()
        env.await_blocked()

    def _run(self, ticket: SyncTicket) -> None:
        try:
            ticket.run()
        except CopycatError as error:
            self.failure = error

    def let_go(self) -> None:
        self.env.let_go()
        self._thread.join()


def rolled() -> tuple[FaultEnv, NativeLog]:
    """Its next sync covers a sealed segment, the tail and a new manifest: three files."""
    env, log = fresh()
    grow(log, 3)
    durable(log)
    grow(log, 4)
    assert log.wants_sync()
    return env, log


@pytest.fixture(params=[1, 2, 3], ids=["segment", "tail", "manifest"])
def closed_over(request: pytest.FixtureRequest) -> Iterator[Hung]:
    """A log that was poisoned and closed while its sync hung."""
    env, log = rolled()
    hung = Hung(env, log, request.param)
    env.fail("write", 1, "EIO")
    with pytest.raises(DiskError):
        grow(log, 1)
    log.close()  # hangs not
    yield hung
    hung.let_go()


def test_its_directory_has_no_next_owner_before_it_is_over(closed_over: Hung) -> None:
    """It put its old manifest over the one of the next owner, whose entries were acknowledged."""
    with pytest.raises(DirectoryInUseError):
        opened(closed_over.env)
    closed_over.let_go()
    log = opened(closed_over.env)
    assert contents(log)[:3] == expected(1, 4)
    last = log.last_index
    grow(log, 9)
    assert durable(log) == last + 9
    closed_over.env.crash(1)
    assert opened(closed_over.env).last_index == last + 9


def test_it_does_nothing_after_what_it_hangs_in(closed_over: Hung) -> None:
    env, is_last = closed_over.env, closed_over.nth == 3
    before = env.read_file(MANIFEST)
    closed_over.let_go()
    assert isinstance(closed_over.failure, LogPoisonedError) is not is_last
    assert (env.read_file(MANIFEST) == before) is not is_last


def test_nor_before_a_log_that_nobody_closed_is_forgotten() -> None:
    env, log = rolled()
    hung = Hung(env, log, 1)
    del log
    with pytest.raises(DirectoryInUseError):
        opened(env)
    hung.let_go()
    assert contents(opened(env)) == expected(1, 8)


def test_a_sync_that_begins_after_the_end_of_its_log_does_nothing() -> None:
    env, log = rolled()
    ticket = log.begin_sync()
    del log
    before = env.operations
    with pytest.raises(ValueError, match="closed"):
        ticket.run()
    assert env.operations == before
    assert contents(opened(env)) == expected(1, 8)
