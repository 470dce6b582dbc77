"""Packed segments: what a compaction leaves with compression, and all who read it (decision 0020).

The contract runs over them in tests/log/test_native.py, crashes and flips in
tests/log/test_crash_compaction.py, the block coder in tests/log/test_lz4.py.
"""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any

import lz4.block
import pytest

from copycat import Compaction
from copycat.cli.log.verify import segment_state
from copycat.errors import CorruptLogError, FormatVersionError
from copycat.log.entries import Entry
from copycat.log.log import Log
from copycat.member.damage_scan import scan
from copycat.member.verify import verify
from copycat.storage._native import Env, FaultEnv, NativeLog, crc32c, open_log
from copycat.storage.disk_format import SegmentInfo
from copycat.storage.reader import entries, records, segments
from copycat.types import EntryKind, Release
from tests.log.contract import batch, contents, durable
from tests.log.contract_compaction import compact, limits, sealed
from tests.log.test_native import DIRECTORY

BLOCK = 16384
PACKED = f"{DIRECTORY}/1-2.log"
SIZES = {"max_segment_size": 256 << 10, "max_entries_per_segment": 1 << 20}


def payloads(count: int, *, noise: int = 0) -> list[bytes]:
    """Text like entries of many sizes; `noise` bytes of each do not compress."""
    rng = random.Random(3)
    return [
        b'{"user": %d, "open": true, "tags": []}' % rng.randrange(10**6) * rng.randrange(1, 30)
        + rng.randbytes(noise)
        for _ in range(count)
    ]


def opened(env: Env, *, mapped: bool = False, compress: bool = True, **options: Any) -> NativeLog:
    return open_log(env, DIRECTORY, mapped=mapped, compress=compress, **{**SIZES, **options})


def filled(env: FaultEnv, items: list[bytes], **options: Any) -> NativeLog:
    """A log of `items`; the last of them are in its tail."""
    env.make_directory(DIRECTORY)
    log = opened(env, **options)
    for first in range(0, len(items), 16):
        log.append(batch(first + 1, *items[first : first + 16], kind=EntryKind.TICK))
    durable(log)
    return log


def packed(count: int = 2000, *, noise: int = 0) -> tuple[FaultEnv, NativeLog, list[bytes]]:
    """Nothing goes and all that is sealed is rewritten, each segment for itself."""
    env = FaultEnv(5)
    items = payloads(count, noise=noise)
    log = filled(env, items)
    compact(log, limits(0))
    durable(log)
    return env, log, items


def rows(items: list[bytes]) -> list[tuple[int, int, bytes]]:
    return [(index, 1, item) for index, item in enumerate(items, 1)]


def all_of(log: NativeLog) -> list[tuple[int, int, bytes]]:
    return [
        (entry[0], part.span.term, entry[3])
        for part in log.scan(log.first_index, log.last_index + 1)
        for entry in part.entries()
    ]


def test_all_that_can_be_read_is_as_before() -> None:
    env, log, items = packed()
    assert len(log.segments()) > 3
    for mapped in (False, True):
        assert all_of(log) == rows(items)
        rng = random.Random(1)
        for index in [rng.randint(1, len(items)) for _ in range(300)]:
            assert log.entry(index, Entry) == Entry(index, 1, items[index - 1])
        for index in range(400, 800):
            assert log.entry(index, Entry) == Entry(index, 1, items[index - 1])
        log.close()
        log = opened(env, mapped=mapped, compress=False)
        assert log.report.rebuilt_indexes == 0


def test_it_is_smaller_and_says_so() -> None:
    env, log, items = packed()
    plain = filled(FaultEnv(5), items, compress=False)
    names = [f"{DIRECTORY}/{row[0]}-{row[1]}.log" for row in log.segments()]
    on_disk = sum(env.size(name) for name in names[:-1])
    assert log.size == on_disk + log.segments()[-1][4] < plain.size / 2
    log.close()
    log = opened(env)
    assert log.size == on_disk + log.segments()[-1][4]


def test_its_file_is_what_the_reference_says() -> None:
    """docs/reference/disk-format.md, field by field."""
    env, log, _ = packed()
    id_, version, first, _, end, _ = log.segments()[0]
    data = env.read_file(PACKED)
    assert data[:12] == b"COPYPAK\0" + bytes([3, 0, 0, 0])

    def number(at: int, size: int) -> int:
        return int.from_bytes(data[at : at + size], "little")

    assert number(12, 4) == crc32c(data[16:80])
    assert [number(32, 8), number(40, 4), number(44, 4)] == [id_, version, BLOCK]
    assert [number(48, 8), number(56, 8)] == [first, end]
    table, blocks = number(64, 8), number(72, 4)
    assert number(76, 4) == crc32c(data[table:])
    assert len(data) == table + 12 * blocks
    plain = b""
    for block in range(blocks):
        at, size, crc = (number(table + 12 * block + 4 * field, 4) for field in range(3))
        stored = data[at : at + size]
        assert crc == crc32c(data[16:32] + block.to_bytes(4, "little") + stored)
        plain += lz4.block.decompress(stored, uncompressed_size=min(BLOCK, end - block * BLOCK))
    assert plain[:8] == b"COPYSEG\0"
    assert plain[16:32] == data[16:32]
    assert len(plain) == end


def test_a_manifest_is_of_the_version_of_what_it_names() -> None:
    """What has no packed segment is read by builds that do not know them."""
    env, log, items = packed()
    manifest = f"{DIRECTORY}/manifest"
    assert env.read_file(manifest)[8] == 3
    log.trim(log.segments()[-1][2])
    durable(log)
    assert env.read_file(manifest)[8] == 2
    log.close()
    assert opened(env).last_index == len(items)


def test_noise_stays_plain() -> None:
    env = FaultEnv(5)
    items = [random.Random(n).randbytes(3000) for n in range(300)]
    log = filled(env, items)
    compact(log, limits(0))
    durable(log)
    assert not any(row.packed for row in segments(DIRECTORY, env=env))
    assert env.read_file(f"{DIRECTORY}/manifest")[8] == 2
    assert all_of(log) == rows(items)


@pytest.mark.parametrize("noisy", [False, True], ids=["text first", "noise first"])
def test_what_turns_out_to_save_too_little_is_written_plain(noisy: bool) -> None:
    """After the first MiB, or at the end: the rewrite begins anew."""
    text = [b"copycat" * 400] * 150
    noise = [random.Random(n).randbytes(2800) for n in range(1400)]
    items = [*noise, *text] if noisy else [*text, *noise]
    env = FaultEnv(5)
    log = filled(env, items, max_segment_size=64 << 20)
    assert log.segments()[0][4] > 4_000_000
    compact(log, limits(0))
    durable(log)
    assert [row.version for row in segments(DIRECTORY, env=env)] == [2, 1]
    assert not any(row.packed for row in segments(DIRECTORY, env=env))
    assert all_of(log) == rows(items)


def test_a_packed_segment_is_rewritten_again() -> None:
    env, log, items = packed()
    left = rows(items)
    for third in range(3):
        drops = range(1 + third, len(items) - 400, 3)
        log.release(drops, Release.ANY)
        ids = sealed(log)
        groups = [ids[at : at + 2] for at in range(0, len(ids), 2)]
        before = log.size
        result = compact(log, limits(log.last_index), groups=groups)
        durable(log)
        assert result.entries_dropped > 0
        assert result.bytes_before - result.bytes_after == before - log.size > 0
        left = [row for row in left if row[0] not in drops or row[0] >= log.segments()[-1][2]]
        assert all_of(log) == left
    log.close()
    assert all_of(opened(env)) == left


def test_a_truncation_and_a_trim_into_packed_segments() -> None:
    env, log, items = packed()
    second = log.segments()[1]
    log.trim(second[2])
    log.truncate(second[2] + 20)
    log.append(batch(log.last_index + 1, b"anew", term=2))
    durable(log)
    expected = [*rows(items)[second[2] - 1 : second[2] + 20], (second[2] + 21, 2, b"anew")]
    assert all_of(log) == expected
    env.crash(1)
    log = opened(env)
    assert all_of(log) == expected
    assert verify(DIRECTORY, env=env).ok


def test_f14_its_index_is_made_again_from_it() -> None:
    env, log, items = packed()
    log.close()
    env.remove(f"{DIRECTORY}/1-2.idx")
    log = opened(env)
    assert log.report.rebuilt_indexes == 1
    assert all_of(log) == rows(items)


def test_tools_read_it_with_another_decoder() -> None:
    env, log, items = packed()
    assert [(e.index, e.term, e.payload) for e in entries(DIRECTORY, env=env)] == rows(items)
    assert [e.index for e in entries(DIRECTORY, 1500, env=env)][:2] == [1500, 1501]
    report = verify(DIRECTORY, env=env)
    assert report.ok, report.damage
    assert report.checks[0].nbytes == env.size(PACKED)
    assert [segment_state(check) for check in report.checks[-2:]] == ["packed", "tail"]
    places = {record.index: record.offset for record in records(DIRECTORY, env=env)}
    slots = log.index_array(1)
    assert [places[index] for index in range(1, len(slots) + 1)] == list(slots["offset"])


def blocks_of(env: FaultEnv, row: SegmentInfo) -> list[tuple[int, int]]:
    """(offset, stored size) of each block of a packed segment."""
    data = env.read_file(f"{DIRECTORY}/{row.name}")
    table = int.from_bytes(data[64:72], "little")
    words = [int.from_bytes(data[at : at + 4], "little") for at in range(table, len(data), 4)]
    return list(zip(words[::3], words[1::3], strict=True))


def test_f2_a_bad_block_is_told_with_byte_and_index_and_hides_nothing_else() -> None:
    env, log, items = packed()
    row = segments(DIRECTORY, env=env)[0]
    slots = log.index_array(row.id)
    ends = [int(slot["offset"]) + 32 + int(slot["size"]) for slot in slots]
    number = 4
    offset, size = blocks_of(env, row)[number]
    env.corrupt(PACKED, offset + size // 2, 1)
    first = next(at for at, end in enumerate(ends, 1) if end > number * BLOCK)
    last = max(at for at, slot in enumerate(slots, 1) if slot["offset"] < (number + 1) * BLOCK)

    def check(error: CorruptLogError) -> None:
        assert (error.path, error.offset, error.index) == (PACKED, offset, first)
        assert re.search(r"block 4: .*checksum", str(error))

    for mapped in (False, True):
        log.close()
        log = opened(env, mapped=mapped)
        bad = []
        for index in range(1, len(slots) + 1):
            try:
                assert log.entry(index, Entry) == Entry(index, 1, items[index - 1])
            except CorruptLogError as error:
                check(error)
                bad.append(index)
        assert bad == list(range(first, last + 1))
        with pytest.raises(CorruptLogError) as caught:
            contents(log)
        check(caught.value)
        with pytest.raises(CorruptLogError) as caught:
            log.rewrite([[row.id]], limits(0), major=False).run()
        assert (caught.value.offset, caught.value.index) == (offset, first)
    (damage,) = verify(DIRECTORY, env=env).damage
    assert (damage.path, damage.offset, damage.index, damage.row) == (PACKED, offset, first, "F2")
    log_scan = scan(env, DIRECTORY)  # what a member of a cluster would fetch again
    assert [(loss.first, loss.end) for loss in log_scan.losses] == [(first, row.last_index + 1)]
    assert [(run.first, run.end) for run in log_scan.runs][:2] == [
        (1, first),
        (row.last_index + 1, segments(DIRECTORY, env=env)[1].last_index + 1),
    ]
    assert len(list(log_scan.records(env, 1, first))) == first - 1
    with pytest.raises(CorruptLogError, match="block 4"):
        list(entries(DIRECTORY, env=env))
    assert next(entries(DIRECTORY, env=env)).index == 1


@pytest.mark.parametrize(
    ("at", "size", "value", "words"),
    [
        (44, 4, 1 << 17, "bounds"),  # bytes of a block
        (44, 4, 0, "bounds"),
        (56, 8, 1 << 40, "bounds"),  # plain bytes
        (56, 8, 8192, "bounds"),
        (64, 8, 1 << 40, "bytes"),  # where the table begins
        (72, 4, 1 << 31, "bounds"),  # blocks
        (32, 8, 9, "manifest names"),  # id
    ],
)
def test_f28_a_header_that_lies_is_refused_before_anything_is_allocated(
    at: int, size: int, value: int, words: str
) -> None:
    """Its checksum fits: only what the file's own size bears out is believed."""
    env, log, _ = packed(600)
    log.close()
    data = bytearray(env.read_file(PACKED))
    data[at : at + size] = value.to_bytes(size, "little")
    data[12:16] = crc32c(data[16:80]).to_bytes(4, "little")
    env.replace_file(PACKED, data)
    with pytest.raises(CorruptLogError, match=words) as caught:
        opened(env)
    assert caught.value.path == PACKED
    assert not verify(DIRECTORY, env=env).ok


def test_f28_a_table_that_lies_is_refused() -> None:
    env, log, _ = packed(600)
    log.close()
    whole = env.read_file(PACKED)
    table = int.from_bytes(whole[64:72], "little")
    for at, value in ((0, 1 << 31), (0, 3), (4, BLOCK + 1), (4, 0)):
        data = bytearray(whole)
        data[table + at : table + at + 4] = value.to_bytes(4, "little")
        data[76:80] = crc32c(data[table:]).to_bytes(4, "little")
        data[12:16] = crc32c(data[16:80]).to_bytes(4, "little")
        env.replace_file(PACKED, data)
        with pytest.raises(CorruptLogError, match="bounds"):
            opened(env)
        assert not verify(DIRECTORY, env=env).ok


def test_f7_a_later_version_of_it_is_refused_by_name() -> None:
    env, log, _ = packed(600)
    log.close()
    env.corrupt(PACKED, 8, 4)
    for look in (lambda: opened(env), lambda: list(entries(DIRECTORY, env=env))):
        with pytest.raises((FormatVersionError, CorruptLogError), match="version 7"):
            look()


def test_the_public_log_packs_unless_told_not_to(tmp_path: Path) -> None:
    items = payloads(1500)
    sizes = {}
    for compression in ("lz4", "none"):
        path = tmp_path / compression
        with Log.open(path, compression=compression, max_segment_size=1 << 17) as log:
            log.append_many(items)
            log.release_many(range(1, 600, 2))
            report = log.compactor.compact(Compaction.MAJOR)
            assert report.bytes_reclaimed > 0
            sizes[compression] = log.size
            entries = [log.get(index) for index in range(1, 1501)]
        with Log.open(path, level="mapped", compression="none") as log:
            assert [log.get(index) for index in range(1, 1501)] == entries
        assert sum(entry is None for entry in entries) == 300
        assert verify(path).ok
    assert sizes["lz4"] < 0.7 * sizes["none"]
