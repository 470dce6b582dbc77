"""What a log takes of its disk: nothing piles up behind crashed starts, and `size` says it."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path

import pytest

from copycat.config import Storage
from copycat.errors import DiskError
from copycat.log.log import Log
from copycat.storage._native import Env, FaultEnv, NativeLog, open_log
from copycat.types import EntryId
from tests.log.contract import batch, contents, durable, expected, grow
from tests.log.test_native import DIRECTORY

MIB = 1 << 20
SEGMENT = 32 * MIB
CRASHES = 40
TAIL = 4 * MIB
"""What a start allocates ahead."""
BLOCK = 4096
PER_CRASH = 4 * BLOCK
"""A header, a block of entries, an index file and the lengthening of the manifest."""


def on_disk(folder: Path) -> int:
    return sum(max(each.stat().st_size, each.stat().st_blocks * 512) for each in folder.iterdir())


def usage(env: FaultEnv) -> int:
    return sum(env.size(f"{DIRECTORY}/{name}") for name in env.list(DIRECTORY))


def opened(env: Env, directory: str = DIRECTORY, size: int = SEGMENT) -> NativeLog:
    return open_log(env, directory, max_segment_size=size, max_entries_per_segment=1 << 20)


def killed(path: Path, *, entries: int) -> None:
    """A start that appends so much and dies of SIGKILL."""
    child = os.fork()
    if child == 0:
        try:
            log = Log.open(path)
            for _ in range(entries):
                log.append(b"five!")
        finally:
            os.kill(os.getpid(), signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL


@pytest.mark.slow
@pytest.mark.forks
@pytest.mark.parametrize("entries", [0, 1])
def test_starts_that_were_killed_leave_a_constant_number_of_bytes(
    tmp_path: Path, entries: int
) -> None:
    for crashes in range(1, CRASHES + 1):
        killed(tmp_path, entries=entries)
        assert on_disk(tmp_path) <= 2 * TAIL + crashes * entries * PER_CRASH
    with Log.open(tmp_path) as log:
        assert [entry.data for entry in log] == [b"five!"] * CRASHES * entries
        assert log.size == sum(each.stat().st_blocks * 512 for each in tmp_path.iterdir())
        assert log.content_size < log.size
        assert log.size <= TAIL + 2 * BLOCK + CRASHES * entries * PER_CRASH


@pytest.mark.parametrize("size", [8192, 16384, MIB, SEGMENT])
@pytest.mark.parametrize("power", [False, True])
def test_crashed_starts_leave_a_constant_number_of_bytes(size: int, power: bool) -> None:
    env = FaultEnv(2)
    env.make_directory(DIRECTORY)
    tail = min(size, TAIL)
    for crash in range(1, CRASHES + 1):
        log = opened(env, size=size)
        grow(log, 1)
        durable(log)
        if power:
            env.crash(crash)
        else:
            env.crash_process()
        # A power loss may bring back what was removed without a sync of the directory.
        assert usage(env) <= (5 if power else 3) * tail + crash * PER_CRASH
    assert contents(opened(env, size=size)) == expected(1, CRASHES + 1)


@pytest.mark.slow
@pytest.mark.parametrize("clean", [False, True])
def test_a_recovery_that_dies_again_and_again_leaves_a_constant_number_of_bytes(
    clean: bool,
) -> None:
    """Each had made a new file before it died; what a pending manifest might name was kept."""
    for step in range(1, 14):
        env = FaultEnv(5)
        env.make_directory(DIRECTORY)
        log = opened(env, size=MIB)
        grow(log, 5)
        durable(log)
        log.truncate(3)  # a pending manifest, which no sync follows
        if clean:
            log.close()
        env.crash_process()
        for _ in range(CRASHES):
            env.stop_after(step)
            with suppress(DiskError):
                opened(env, size=MIB)
            env.crash_process()
            env.stop_after(1 << 40)
            assert usage(env) <= 5 * MIB, step
        assert contents(opened(env, size=MIB)) == expected(1, 4)


def test_torn_bytes_are_kept_of_a_few_crashes_only() -> None:
    env = FaultEnv(7)
    env.make_directory(DIRECTORY)
    for crash in range(30):
        log = opened(env, size=MIB)
        durable(log)
        end = log.last_index
        log.append(batch(end + 1, bytes(30_000)))
        name = max(
            (name for name in env.list(DIRECTORY) if name.endswith(".log")),
            key=lambda name: int(name.split("-")[0]),
        )
        env.crash_process()
        env.corrupt(f"{DIRECTORY}/{name}", 4096 + 200 + 64, 1 + crash)
    log = opened(env, size=MIB)
    names = env.list(f"{DIRECTORY}/lost+found")
    assert len(names) == 4
    assert max(int(name.split("-")[0]) for name in names) > 25, "the newest are"
    assert log.disk_usage >= sum(env.size(f"{DIRECTORY}/lost+found/{name}") for name in names)


def sealed_usage(env: FaultEnv, log: NativeLog) -> int:
    return sum(env.size(f"{DIRECTORY}/{row[0]}-{row[1]}.log") for row in log.segments() if row[5])


def sync_and_remove_obsolete(log: NativeLog) -> None:
    durable(log)
    while log.has_obsolete_files():
        log.remove_obsolete_files()


def test_truncations_give_back_what_is_behind_them() -> None:
    env = FaultEnv(1)
    env.make_directory(DIRECTORY)
    log = opened(env, size=MIB)
    for term in range(1, 31):
        log.append(batch(log.last_index + 1, b"%d" % term, bytes(200_000), term=term))
        sync_and_remove_obsolete(log)
        log.truncate(log.last_index - 1)
        sync_and_remove_obsolete(log)
    assert sealed_usage(env, log) <= 30 * 2 * BLOCK
    assert log.disk_usage <= 2 * MIB + 30 * PER_CRASH
    before = contents(log)
    env.crash(4)
    assert contents(opened(env, size=MIB)) == before


@pytest.mark.parametrize("seed", range(30))
def test_a_power_loss_around_a_file_that_is_cut_loses_nothing(seed: int) -> None:
    for step in range(12):
        env = FaultEnv(seed)
        env.make_directory(DIRECTORY)
        log = opened(env, size=MIB)
        grow(log, 4)
        log.append(batch(5, bytes(300_000)))
        durable(log)
        env.stop_after(step)
        with suppress(DiskError):
            log.truncate(4)
            sync_and_remove_obsolete(log)
        env.crash(seed)
        rows = contents(opened(env, size=MIB))
        assert rows[:4] == expected(1, 5)
        assert len(rows) in {4, 5}


def test_resets_and_many_rolls_leave_a_constant_number_of_bytes() -> None:
    env = FaultEnv(1)
    env.make_directory(DIRECTORY)
    log = opened(env, size=MIB)
    for number in range(1, 20):
        log.append(batch(log.last_index + 1, b"x"))
        log.reset(EntryId(1, number * 100))
        sync_and_remove_obsolete(log)
        assert log.disk_usage <= 2 * MIB + PER_CRASH
    items = [bytes(600_000)] * 10  # each leaves two fifths of its segment
    for item in items:
        log.append(batch(log.last_index + 1, item))
        sync_and_remove_obsolete(log)
    assert sealed_usage(env, log) <= 9 * (600_000 + 3 * BLOCK)


def test_an_old_directory_is_cut_at_its_next_start() -> None:
    """As 5da3045 left it: segments that were sealed early keep all that was allocated."""
    env = FaultEnv(1)
    env.make_directory(DIRECTORY)
    log = opened(env, size=SEGMENT)
    grow(log, 3)
    durable(log)
    log.truncate(2)
    durable(log)  # the cut waits for a thread, and the process dies before it
    grow(log, 2)
    durable(log)
    env.crash_process()
    assert sealed_usage(env, log_of(env)) <= 3 * 2 * BLOCK
    read_only = open_log(
        env, DIRECTORY, max_segment_size=SEGMENT, max_entries_per_segment=8, read_only=True
    )
    assert contents(read_only) == contents(log_of(env.clone()))


def log_of(env: FaultEnv) -> NativeLog:
    opened(env)
    env.crash_process()
    return opened(env)


def test_a_reader_changes_no_size() -> None:
    env = FaultEnv(1)
    env.make_directory(DIRECTORY)
    log = opened(env, size=MIB)
    grow(log, 3)
    durable(log)
    log.truncate(1)
    durable(log)
    env.crash_process()
    before = env.digest
    reader = open_log(
        env, DIRECTORY, max_segment_size=MIB, max_entries_per_segment=8, read_only=True
    )
    assert contents(reader) == expected(1, 2)
    assert env.digest == before


def test_size_counts_spares_and_what_is_allocated(tmp_path: Path) -> None:
    with Log.open(tmp_path, max_segment_size=MIB) as log:
        before = log.size
        assert before >= MIB
        log._native.prepare_spare()
        assert log.size >= before + MIB
        assert log.content_size == BLOCK
    memory = Log.open(tmp_path / "m", storage=Storage(directory=str(tmp_path), level="memory"))
    memory.append(b"a")
    assert memory.size == memory.content_size > 0
