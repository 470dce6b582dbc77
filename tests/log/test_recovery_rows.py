"""Faults and rules of docs/internals/rules.md that opening a log must hold.

One entry an append, so the records of a segment stand at known places: a mark of 32 bytes,
then a frame of 40 (header 32, payload of 3, padding).
"""

from __future__ import annotations

import itertools

import pytest

from copycat.errors import (
    CorruptLogError,
    DirectoryInUseError,
    DiskError,
    DiskFullError,
    LogPoisonedError,
)
from copycat.storage._native import FaultEnv, NativeLog, open_log
from copycat.types import TermRun
from tests.log.contract import batch, contents, durable, expected, grow
from tests.log.test_native import DIRECTORY, open_small

FIRST = 4096
RECORD = 72
FRAME = 32  # of the frame in its record


def frame_of(index: int) -> int:
    """File offset of the frame of entry `index` in the first segment."""
    return FIRST + (index - 1) * RECORD + FRAME


def image(env: FaultEnv) -> dict[str, bytes]:
    """Every file of the directory, but for the lock."""
    return {
        name: env.read_file(f"{DIRECTORY}/{name}")
        for name in env.list(DIRECTORY)
        if name not in {"lock", "lost+found"}
    }


def tail_path(log: NativeLog) -> str:
    segment_id, version, *_ = log.segments()[-1]
    return f"{DIRECTORY}/{segment_id}-{version}.log"


def fresh() -> tuple[FaultEnv, NativeLog]:
    env = FaultEnv(1)
    env.make_directory(DIRECTORY)
    return env, open_small(env)


def killed(count: int, *, synced: int) -> tuple[FaultEnv, str]:
    """`count` appends of one entry, a sync after the first `synced`; then SIGKILL."""
    env, log = fresh()
    grow(log, synced)
    durable(log)
    grow(log, count - synced)
    path = tail_path(log)
    env.crash_process()
    return env, path


def test_f1_a_torn_tail_is_dropped_and_kept_aside() -> None:
    env, path = killed(5, synced=2)
    env.corrupt(path, frame_of(4) + 33, 0x10)
    log = open_small(env)
    assert contents(log) == expected(1, 4)
    assert not log.report.clean
    assert log.report.dropped_from_index == 4
    assert log.report.dropped_bytes > RECORD
    names = env.list(f"{DIRECTORY}/lost+found")
    assert len(names) == 1
    torn = env.read_file(f"{DIRECTORY}/lost+found/{names[0]}")
    assert len(torn) == log.report.dropped_bytes
    assert b"1:5" in torn
    grow(log, 3, term=2)
    assert contents(log) == expected(1, 4) + expected(4, 7, term=2)


def test_f2_a_bad_frame_that_a_later_mark_covers_is_refused() -> None:
    env, path = killed(5, synced=2)
    env.corrupt(path, frame_of(2) + 33, 0x10)
    before = image(env)
    with pytest.raises(CorruptLogError) as caught:
        open_small(env)
    error = caught.value
    assert (error.path, error.offset, error.index) == (path, frame_of(2), 2)
    assert image(env) == before


def test_f2_an_idle_mark_proves_the_last_entry_durable() -> None:
    env, log = fresh()
    grow(log, 3)
    durable(log)
    log.mark_idle()
    path = tail_path(log)
    env.crash_process()
    env.corrupt(path, frame_of(3), 0x01)
    with pytest.raises(CorruptLogError, match="entry 3"):
        open_small(env)


def test_f2_a_bad_frame_in_a_sealed_segment_is_refused_when_read() -> None:
    env, log = fresh()
    grow(log, 20)
    log.close()
    env.corrupt(f"{DIRECTORY}/1-1.log", frame_of(3) + 33, 0x80)
    log = open_small(env)
    assert log.read(2, 3, 1).payloads() == [b"1:2"]
    with pytest.raises(CorruptLogError) as caught:
        log.get(3)
    assert (caught.value.offset, caught.value.index) == (frame_of(3), 3)
    with pytest.raises(CorruptLogError):
        log.read(1, 9, 1 << 20)
    assert log.last_index == 20


def test_f3_a_missing_segment_is_refused() -> None:
    env, log = fresh()
    grow(log, 20)
    log.close()
    env.remove(f"{DIRECTORY}/1-1.log")
    before = image(env)
    with pytest.raises(CorruptLogError, match="missing"):
        open_small(env)
    assert image(env) == before


@pytest.mark.parametrize("name", ["1-1.log", "3-1.log"])
def test_f3_a_segment_that_is_too_short_is_refused(name: str) -> None:
    env, log = fresh()
    grow(log, 20)
    log.close()
    path = f"{DIRECTORY}/{name}"
    env.replace_file(path, env.read_file(path)[:-8] if name == "3-1.log" else bytes(4100))
    before = image(env)
    with pytest.raises(CorruptLogError):
        open_small(env)
    assert image(env) == before


def test_f4_orphans_go_and_unknown_names_stay() -> None:
    env, log = fresh()
    grow(log, 3)
    log.close()
    obsolete_files = [
        "77-1.log",
        "77-1.idx",
        "manifest.new",
        "0123456789abcdef0123456789abcdef.spare",
    ]
    for name in (*obsolete_files, "notes.txt", "7-x.log"):
        env.replace_file(f"{DIRECTORY}/{name}", b"left over")
    log = open_small(env)
    assert sorted(log.report.obsolete_files) == sorted(obsolete_files)
    names = env.list(DIRECTORY)
    assert not set(obsolete_files) & set(names)
    assert {"notes.txt", "7-x.log"} <= set(names)
    grow(log, 20)
    assert min(row[0] for row in log.segments()[1:]) > 77, "an id is never used again"


def test_f9_a_failed_sync_poisons_and_the_rest_is_written_again() -> None:
    env, log = fresh()
    grow(log, 2)
    durable(log)
    grow(log, 2)
    ticket = log.begin_sync()
    env.fail("sync", 1, "EIO")
    with pytest.raises(DiskError):
        ticket.run()
    for verb in (lambda: grow(log, 1), log.begin_sync, lambda: log.get(1), log.mark_idle):
        with pytest.raises(LogPoisonedError, match="Input/output error"):
            verb()
    log.close()
    again = open_small(env)
    assert not again.report.clean
    assert again.report.copied_entries == 2
    assert contents(again) == expected(1, 5)
    env.crash(0)
    assert contents(open_small(env)) == expected(1, 5)


def test_f9_a_failed_directory_sync_poisons() -> None:
    env, log = fresh()
    grow(log, 12)
    ticket = log.begin_sync()
    env.fail("sync_directory", 1, "EIO")
    with pytest.raises(DiskError):
        ticket.run()
    with pytest.raises(LogPoisonedError):
        log.begin_sync()


@pytest.mark.parametrize("error", ["EIO", "SHORT"])
def test_f10_a_failed_write_poisons(error: str) -> None:
    env, log = fresh()
    grow(log, 2)
    env.fail("write", 1, error)
    with pytest.raises(DiskError):
        grow(log, 1)
    with pytest.raises(LogPoisonedError):
        durable(log)


def test_f12_a_full_disk_refuses_before_anything_changed() -> None:
    env, log = fresh()
    grow(log, 8)
    durable(log)
    before = (log.last_entry, log.term_runs(), contents(log), log.segments())
    env.set_free_space(1000)
    for _ in range(2):
        with pytest.raises(DiskFullError):
            log.append(batch(9, b"1:9"))
    with pytest.raises(DiskFullError):
        log.truncate(4)
    assert (log.last_entry, log.term_runs(), contents(log), log.segments()) == before
    env.set_free_space(1 << 40)
    grow(log, 4)
    durable(log)
    env.crash(0)
    assert contents(open_small(env)) == expected(1, 13)


def test_f12_a_write_that_finds_no_space_is_never_repeated_in_its_place() -> None:
    env, log = fresh()
    grow(log, 2)
    env.fail("write", 1, "ENOSPC")
    with pytest.raises(DiskFullError):
        grow(log, 1)
    grow(log, 2)  # FaultEnv refuses a second write over a byte
    durable(log)
    assert len(log.segments()) == 2
    env.crash(0)
    assert contents(open_small(env)) == expected(1, 5)


@pytest.mark.parametrize("harm", ["gone", "short", "slots", "header", "lies"])
def test_f14_an_index_is_rebuilt_and_never_trusted(harm: str) -> None:
    env, log = fresh()
    grow(log, 20)
    log.close()
    path = f"{DIRECTORY}/1-1.idx"
    data = env.read_file(path)
    if harm == "gone":
        env.remove(path)
    elif harm == "short":
        env.replace_file(path, data[:-8])
    elif harm == "lies":  # a good index, of another segment
        env.replace_file(path, env.read_file(f"{DIRECTORY}/2-1.idx"))
    else:
        env.corrupt(path, len(data) - 3 if harm == "slots" else 50, 0x40)
    log = open_small(env)
    assert contents(log) == expected(1, 21)
    assert log.report.rebuilt_indexes == 1
    log.close()


def test_f16_a_roll_or_a_truncation_is_there_as_a_whole_or_not_at_all() -> None:
    outcomes = set()
    for seed in range(60):
        env, log = fresh()
        grow(log, 6)
        durable(log)
        log.truncate(3)
        grow(log, 6, term=2, each=3)
        env.crash(seed)
        log = open_small(env)
        rows = contents(log)
        old, new = expected(1, 7), expected(1, 4) + expected(4, 10, term=2)
        assert rows == old or (rows == new[: len(rows)] and len(rows) >= 3), seed
        outcomes.add(len(rows))
    assert {6, 9} <= outcomes


def test_f27_segments_without_a_manifest_are_refused() -> None:
    env, log = fresh()
    grow(log, 3)
    log.close()
    env.remove(f"{DIRECTORY}/manifest")
    before = image(env)
    with pytest.raises(CorruptLogError, match="manifest"):
        open_small(env)
    assert image(env) == before


def test_c6_only_a_mark_of_this_file_and_place_is_proof() -> None:
    env, path = killed(5, synced=2)
    data = bytearray(env.read_file(path))
    # The mark before entry 5 says 1..2 are durable. Moved by 8 bytes it says nothing.
    mark = data[frame_of(5) - FRAME : frame_of(5)]
    data[frame_of(2)] ^= 1
    for index in (3, 4, 5):
        data[frame_of(index) - FRAME : frame_of(index)] = bytes(FRAME)
    data[8192:8224] = mark
    env.replace_file(path, bytes(data))
    log = open_small(env)
    assert contents(log) == expected(1, 2)
    assert log.report.dropped_from_index == 2


def test_c6_a_sync_that_a_truncation_overtook_is_clamped() -> None:
    _, log = fresh()
    grow(log, 6)
    ticket = log.begin_sync()
    log.truncate(2)
    grow(log, 6, term=2)
    ticket.run()
    assert log.end_sync(ticket) == 2
    assert log.durable_index == 2
    assert durable(log) == 8
    assert log.term_runs() == [TermRun(1, 1), TermRun(2, 3)]


def test_c7_what_no_mark_proves_is_copied_and_synced_before_open_returns() -> None:
    env, path = killed(5, synced=2)
    log = open_small(env)
    assert not log.report.clean
    assert log.report.copied_entries == 3
    assert contents(log) == expected(1, 6)
    assert tail_path(log) != path, "nobody appends to a tail that was left uncleanly"
    for seed in range(20):
        crashed = env.clone()
        crashed.crash(seed)
        assert contents(open_small(crashed)) == expected(1, 6)


def test_c7_a_clean_stop_needs_no_copy_and_goes_on_in_the_same_file() -> None:
    env, log = fresh()
    grow(log, 3)
    path = tail_path(log)
    log.close()
    log = open_small(env)
    assert log.report.clean
    assert (log.report.copied_entries, tail_path(log)) == (0, path)
    grow(log, 2)
    durable(log)
    env.crash(0)
    again = open_small(env)
    assert not again.report.clean
    assert contents(again) == expected(1, 6)


def test_c7_an_open_without_a_close_is_an_unclean_stop() -> None:
    env, log = fresh()
    grow(log, 3)
    log.close()
    open_small(env)
    env.crash_process()
    assert not open_small(env).report.clean


def test_c8_a_new_segment_counts_only_with_its_manifest() -> None:
    old, new = expected(1, 7), [*expected(1, 6), (6, 2, b"2:6")]
    outcomes = set()
    for boundary, seed in itertools.product(range(12), range(10)):
        env, log = fresh()
        grow(log, 6)
        durable(log)
        log.truncate(5)
        log.append(batch(6, b"2:6", term=2))
        ticket = log.begin_sync()
        env.stop_after(boundary)
        try:
            ticket.run()
            is_synced = True
        except DiskError:
            is_synced = False
        env.crash(seed)
        rows = contents(open_small(env))
        assert rows == new or (not is_synced and rows in (old, old[:5])), (boundary, seed)
        outcomes.add((is_synced, len(rows), rows == new))
    assert {(False, 6, False), (False, 6, True), (True, 6, True)} <= outcomes


def test_c8_what_a_sync_covered_survives_every_power_loss() -> None:
    for seed in range(30):
        env, log = fresh()
        grow(log, 6)
        durable(log)
        log.truncate(5)
        log.append(batch(6, b"2:6", term=2))
        grow(log, 20, term=2, each=5)
        assert durable(log) == 26
        env.crash(seed)
        assert contents(open_small(env)) == expected(1, 6) + expected(6, 27, term=2)


def test_read_only_changes_nothing_and_takes_no_lock() -> None:
    env, log = fresh()
    grow(log, 20)
    durable(log)
    grow(log, 2)
    env.crash_process()
    env.replace_file(f"{DIRECTORY}/99-1.log", b"orphan")
    before, operations = image(env), env.operations
    frozen = open_log(
        env, DIRECTORY, max_segment_size=16384, max_entries_per_segment=8, read_only=True
    )
    assert contents(frozen) == expected(1, 23)
    with pytest.raises(ValueError, match="read-only"):
        frozen.append(batch(23, b"no"))
    assert (image(env), env.operations) == (before, operations)
    writer = open_small(env)
    with pytest.raises(DirectoryInUseError):
        open_small(env)
    writer.close()
