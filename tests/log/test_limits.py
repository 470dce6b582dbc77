"""A log at its limits: no descriptors, no space, no room in 32 bits, names that are not its own.

Each of these once ended a healthy log, or kept one from opening.
"""

from __future__ import annotations

import random
import struct
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from copycat.errors import CorruptLogError, DiskError, DiskFullError
from copycat.storage._native import Env, FaultEnv, NativeLog, crc32c, open_log
from copycat.types import Release
from tests.log.contract import batch, contents, durable, expected, grow
from tests.log.contract_compaction import compact, limits, sealed
from tests.log.test_native import DIRECTORY
from tests.log.test_recovery_rows import frame_of, image, killed

LOST = f"{DIRECTORY}/lost+found"


def opened(env: Env, *, min_free_space: int = 0, read_only: bool = False) -> NativeLog:
    return open_log(
        env,
        DIRECTORY,
        max_segment_size=16384,
        max_entries_per_segment=4,
        min_free_space=min_free_space,
        read_only=read_only,
    )


def fresh() -> tuple[FaultEnv, NativeLog]:
    env = FaultEnv(1)
    env.make_directory(DIRECTORY)
    return env, opened(env)


def names(env: FaultEnv, suffix: str) -> list[str]:
    return [name for name in env.list(DIRECTORY) if name.endswith(suffix)]


def test_f29_no_descriptor_for_an_index_file_ends_no_sync() -> None:
    env, log = fresh()
    grow(log, 6)
    ticket = log.begin_sync()
    ticket.run()
    env.fail("open", 1, "EMFILE")
    assert log.end_sync(ticket) == 6
    grow(log, 1)
    assert durable(log) == 7
    assert contents(log) == expected(1, 8)


@pytest.mark.parametrize(("after", "fault"), [(7, ("open", 1)), (2, ("read", 2))])
def test_f29_a_truncation_reads_nothing_at_its_end(after: int, fault: tuple[str, int]) -> None:
    """The entry that it ends with was read a second time, behind the new tail: what failed there
    ended the log for want of a descriptor, or left segments that do not meet."""
    env, log = fresh()
    grow(log, 8)
    durable(log)
    env.fail(*fault, "EIO")  # no file is opened; one read is the first that checks
    log.truncate(after)
    with pytest.raises(DiskError):  # the fault was not met
        env.open(f"{DIRECTORY}/manifest").read(0, 1)
    assert contents(log) == expected(1, after + 1)
    durable(log)
    env.crash(1)
    assert contents(opened(env)) == expected(1, after + 1)


def test_f14_an_index_file_that_cannot_be_read_is_rebuilt() -> None:
    env, log = fresh()
    grow(log, 6)
    log.close()
    env.fail("open", 3, "EIO")  # manifest, segment, its index
    log = opened(env)
    assert log.report.rebuilt_indexes == 1
    assert contents(log) == expected(1, 7)


def test_f12_leftovers_go_before_a_full_disk_refuses_the_open() -> None:
    env, log = fresh()
    grow(log, 2)
    durable(log)
    log.prepare_spare()
    env.crash_process()
    env.set_free_space(0)
    with pytest.raises(DiskFullError):
        opened(env)
    assert names(env, ".spare") == []
    env.set_free_space(1 << 30)
    assert contents(opened(env)) == expected(1, 3)


def test_f12_a_roll_that_has_no_space_for_a_manifest_is_refused() -> None:
    """Without syncs, a second roll brings the first to the disk: the manifest found no space in
    its middle, and a log that had a segment ready for the entry was ended by it."""
    env, log = fresh()
    grow(log, 4)
    log.prepare_spare()
    grow(log, 4)
    log.prepare_spare()
    env.set_free_space((1 << 20) - 1)
    env.fail("write", 1, "ENOSPC")
    assert not log.has_room(100)
    with pytest.raises(DiskFullError):
        grow(log, 1)
    assert contents(log) == expected(1, 9)
    env.set_free_space(1 << 30)
    with pytest.raises(DiskFullError):
        env.create("/disk/other").write(0, b"the fault was not met")
    assert log.has_room(100)
    grow(log, 1)
    assert durable(log) == 9
    env.crash(1)
    assert contents(opened(env)) == expected(1, 10)


def test_f12_min_free_space_is_kept_for_opening() -> None:
    env, _ = killed(3, synced=2)
    env.set_free_space(8 << 20)
    log = opened(env, min_free_space=16 << 20)
    assert contents(log) == expected(1, 4)
    assert not log.has_room(1 << 20, in_new_segment=True)


def garbage(every: int, size: int = 60_000) -> tuple[FaultEnv, NativeLog, list[list[int]]]:
    """Sixty entries in sealed segments; all but each `every`th was released. And their ids."""
    env, log = fresh()
    for index in range(1, 62):
        log.append(batch(index, bytes(size)))
    durable(log)
    log.release([index for index in range(1, 61) if index % every], Release.ANY)
    return env, log, [sealed(log)]


def test_f13_a_full_disk_is_asked_for_what_stays_only() -> None:
    """Released entries of 3.6 MB come to a few bytes, but a rewrite wanted room for all of them: a
    full disk never became less full."""
    env, log, groups = garbage(1000)
    env.set_free_space((1 << 20) + (1 << 14))
    result = compact(log, limits(61), groups=groups)
    assert result.bytes_before > 3_000_000
    assert result.bytes_after < 5000


@pytest.mark.parametrize(("every", "size"), [(2, 60_000), (2, 0), (7, 100), (1, 1000), (60, 0)])
def test_f13_a_rewrite_is_refused_where_it_would_take_what_manifests_need(
    every: int, size: int
) -> None:
    env, log, groups = garbage(every, size)
    other = log.rewrite(groups, limits(61), major=True)
    other.run()
    made = sum(env.size(f"{DIRECTORY}/{groups[0][0]}-2.{kind}") for kind in ("log", "idx"))
    other.abandon()
    rewrite = log.rewrite(groups, limits(61), major=True)
    env.set_free_space((1 << 20) + made - 1)
    before = env.operations
    with pytest.raises(DiskFullError):
        rewrite.run()
    assert env.operations == before, "nothing was written"


def test_f12_spares_taken_for_a_batch_that_found_no_room_are_used_later() -> None:
    env, log = fresh()
    grow(log, 1)
    env.fail("write", 1, "ENOSPC")  # the header of the first of three segments
    with pytest.raises(DiskFullError):
        grow(log, 14, each=14)
    left = names(env, ".spare")
    assert len(left) > 1
    env.set_free_space(1 << 20)  # nothing new can be made: the ready ones serve
    grow(log, 9)
    assert contents(log) == expected(1, 11)


@pytest.mark.parametrize("operation", ["mkdir", "create", "write"])
@pytest.mark.parametrize("error", ["ENOSPC", "EACCES"])
def test_f1_torn_bytes_that_find_no_place_keep_no_log_closed(operation: str, error: str) -> None:
    env, path = killed(5, synced=2)
    env.corrupt(path, frame_of(4) + 33, 0x10)
    env.fail(operation, 1, error)
    assert contents(opened(env)) == expected(1, 4)


def test_f1_lost_bytes_are_kept_until_the_next_seal() -> None:
    env, path = killed(5, synced=2)
    env.corrupt(path, frame_of(4) + 33, 0x10)
    log = opened(env)
    grow(log, 1)
    durable(log)
    assert len(env.list(LOST)) == 1
    log.close()
    log = opened(env)
    assert len(env.list(LOST)) == 1, "a stop alone is no seal"
    grow(log, 4)
    assert len(env.list(LOST)) == 1, "not before the seal is durable"
    durable(log)
    log.remove_obsolete_files()
    assert env.list(LOST) == []


def test_c7_what_no_mark_proves_may_fill_several_segments() -> None:
    env, log = fresh()
    grow(log, 3)
    ticket = log.begin_sync()  # never ends: nothing later is proven
    for _ in range(6):
        grow(log, 4)
    assert len(log.segments()) > 5
    env.crash_process()
    del ticket
    log = opened(env)
    assert contents(log) == expected(1, 28)
    assert log.report.copied_entries == 27
    assert log.durable_index == 27
    sizes = {env.size(f"{DIRECTORY}/{name}") for name in names(env, ".log")}
    assert max(sizes) == 16384, "no segment grows with what is copied"
    env.crash(3)
    assert contents(opened(env)) == expected(1, 28)


def test_c7_entries_above_the_segment_size_are_copied_too() -> None:
    env, log = fresh()
    for size in (10, 30_000, 10, 10):
        log.append(batch(log.last_index + 1, bytes(size)))
    before = contents(log)
    env.crash_process()
    log = opened(env)
    assert contents(log) == before
    env.crash(1)
    assert contents(opened(env)) == before


def test_a_spare_that_is_ready_after_the_close_is_nobodys() -> None:
    env, log = fresh()
    log.close()
    log.prepare_spare()
    assert names(env, ".spare") == []


@pytest.mark.parametrize(
    "name",
    [
        "18446744073709551615-1.log",
        "18446744073709551614-1.idx",
        "4611686018427387904-1.log",
        "manifest-18446744073709551615.pending",
        "99999999999999999999999-1.log",
    ],
)
def test_f4_names_that_no_log_gives_are_left(name: str) -> None:
    env, log = fresh()
    grow(log, 6)
    log.close()
    env.create(f"{DIRECTORY}/{name}").write(0, b"garbage")
    for _ in range(3):
        log = opened(env)
        grow(log, 4, term=2)
        env.crash_process()
    assert name in env.list(DIRECTORY)


def rows_of(env: FaultEnv, change: Callable[[bytearray], None]) -> FaultEnv:
    """The manifest changed, with a checksum that fits: what only a hostile hand writes."""
    path = f"{DIRECTORY}/manifest"
    data = bytearray(env.read_file(path))
    change(data)
    data[12:16] = struct.pack("<I", crc32c(data[16:]))
    env.replace_file(path, bytes(data))
    return env


def last_row_sealed(data: bytearray) -> None:
    row = len(data) - 64
    first = struct.unpack_from("<Q", data, row + 32)[0]
    struct.pack_into("<I", data, row + 28, 1)
    struct.pack_into("<QQ", data, row + 40, first, 4200)


def no_more_rows(data: bytearray) -> None:
    struct.pack_into("<I", data, 32, 0xFFFFFFFF)


def beyond_32_bits(data: bytearray) -> None:
    struct.pack_into("<Q", data, 40 + 48, 1 << 33)


def same_id_twice(data: bytearray) -> None:
    data[40 + 64 + 16 : 40 + 64 + 24] = data[40 + 16 : 40 + 24]


def last_of_64_bits(data: bytearray) -> None:
    struct.pack_into("<Q", data, 40 + 40, (1 << 64) - 1)


def generation_of_64_bits(data: bytearray) -> None:
    struct.pack_into("<Q", data, 16, (1 << 64) - 1)


@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.parametrize(
    "change",
    [
        last_row_sealed,
        no_more_rows,
        beyond_32_bits,
        same_id_twice,
        last_of_64_bits,
        generation_of_64_bits,
    ],
)
def test_f2_a_hostile_manifest_is_a_typed_error(
    change: Callable[[bytearray], None], read_only: bool
) -> None:
    env, log = fresh()
    grow(log, 6)
    log.close()
    rows_of(env, change)
    before = image(env)
    with pytest.raises(CorruptLogError):
        opened(env, read_only=read_only)
    assert image(env) == before


def test_an_index_that_lies_with_a_good_checksum_cuts_at_the_right_byte() -> None:
    env, log = fresh()
    grow(log, 6)
    log.close()
    (name, *_) = names(env, ".idx")
    path = f"{DIRECTORY}/{name}"
    data = bytearray(env.read_file(path))
    runs, count = struct.unpack_from("<I", data, 44)[0], struct.unpack_from("<Q", data, 72)[0]
    slots = 88 + 16 * runs
    assert len(data) == slots + 8 * count
    struct.pack_into("<I", data, slots + 8, 4096)  # of the second entry
    struct.pack_into("<I", data, 80, crc32c(data[slots:]))
    struct.pack_into("<I", data, 12, crc32c(data[16:slots]))
    env.replace_file(path, bytes(data))
    log = opened(env)
    log.truncate(2)
    grow(log, 1, term=2)
    durable(log)
    env.crash_process()
    log = opened(env)
    assert contents(log) == expected(1, 3) + expected(3, 4, term=2)


def test_f14_a_sparse_index_that_lies_with_a_good_checksum_ends_every_read() -> None:
    """Its starts may say anything: an empty read would be asked for again for ever."""
    env = FaultEnv(1)
    env.make_directory(DIRECTORY)
    log = open_log(env, DIRECTORY, max_segment_size=16384, max_entries_per_segment=12)
    grow(log, 30)
    durable(log)
    log.release([2, 3, 7], Release.ANY)
    compact(log, limits(30), groups=[sealed(log)[:1]])
    durable(log)
    log.close()
    (name,) = [name for name in names(env, ".idx") if name.startswith("1-2.")]
    path = f"{DIRECTORY}/{name}"
    good = env.read_file(path)
    runs, count = struct.unpack_from("<I", good, 44)[0], struct.unpack_from("<Q", good, 72)[0]
    slots = 88 + 16 * runs
    starts = slots + 8 * count
    assert len(good) == starts + 4 * count
    log = opened(env)
    truth = walked(log, 1, 1 << 20)
    log.close()
    rng = random.Random(7)
    for _ in range(200):
        data = bytearray(good)
        lies = [rng.choice([0, 1, 2, 5, 9, 11, 12, 40, 2**32 - 1]) for _ in range(count)]
        struct.pack_into(f"<{count}I", data, starts, *lies)
        struct.pack_into("<I", data, 80, crc32c(data[slots:]))
        struct.pack_into("<I", data, 12, crc32c(data[16:slots]))
        env.replace_file(path, bytes(data))
        log = opened(env)
        first = rng.randint(1, 12)
        behind = [each for each in truth if each[0] >= first]
        assert walked(log, first, rng.choice([1, 100, 300, 4000])) == behind
        assert walked(log, 1, 300) == truth
        log.close()


def walked(log: NativeLog, first: int, nbytes: int) -> list[tuple[int, int, int]]:
    """(index, term, crc) of every entry from `first` on, by reads that are not empty."""
    checksums = []
    while first <= log.last_index:
        batch = log.read(first, log.last_index + 1, nbytes)
        assert batch.span.first == first < batch.span.end
        checksums += batch.checksums()
        first = batch.span.end
    return checksums


def test_a_log_opens_in_a_short_zero_filled_segment_and_rolls_into_whole_ones() -> None:
    """Small appends are quicker into zeros; filling 32 MiB would make each open slow."""
    env = FaultEnv()
    env.make_directory(DIRECTORY)
    log = open_log(env, DIRECTORY, max_segment_size=32 << 20, max_entries_per_segment=1 << 20)
    assert env.size(f"{DIRECTORY}/1-1.log") == 4 << 20
    for _ in range(20):
        log.append(batch(log.last_index + 1, bytes(1000)))
    assert not log.wants_spare()
    before = log.last_index
    for _ in range(5):
        log.append(batch(log.last_index + 1, bytes(1 << 20)))
    assert next(row[3] for row in log.segments()) == before + 3
    assert env.size(f"{DIRECTORY}/2-1.log") == 32 << 20
    assert durable(log) == before + 5


def test_a_reader_beside_a_writer_never_reads_damage(tmp_path: Path) -> None:
    """Segments that were trimmed between its look at the manifest and at them are no damage."""
    place = str(tmp_path)
    log = open_log(Env(), place, max_segment_size=16384, max_entries_per_segment=4)
    stopped = threading.Event()
    seen: list[int] = []

    def look() -> None:
        while not stopped.is_set():
            reader = open_log(
                Env(), place, max_segment_size=16384, max_entries_per_segment=4, read_only=True
            )
            seen.append(reader.last_index)

    with ThreadPoolExecutor(2) as pool:
        reading = pool.submit(look)
        try:
            for _ in range(60):
                grow(log, 4)
                ticket = log.begin_sync()
                running = pool.submit(ticket.run)
                grow(log, 2)
                log.prepare_spare()
                running.result(10)
                log.end_sync(ticket)
                log.trim(max(1, log.last_index - 8))
        finally:
            stopped.set()
        reading.result(10)
    assert seen == sorted(seen)
    log.close()
