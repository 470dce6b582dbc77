"""Looking into a cleaned log: gaps are records, and files may be swapped while one reads."""

from __future__ import annotations

import shutil
import struct
from pathlib import Path

import pytest

from copycat.errors import CorruptLogError
from copycat.member.verify import index_damage, verify
from copycat.storage._native import Env, FaultEnv, crc32c
from copycat.storage.disk_format import SegmentInfo
from copycat.storage.reader import StoredEntry, compare, entries, last_records, records, segments
from tests.log.cleaned import clean_by_hand, gap_frame
from tests.log.contract import grow
from tests.log.test_directory import PATH, open_member, save
from tests.log.test_inspect import WHOLE, written
from tests.log.test_native import DIRECTORY, open_small


def cleaned() -> FaultEnv:
    """21 entries of terms 1 to 3, seven to a segment; of 1 to 14 only 6 and 9 stay."""
    env = written()
    clean_by_hand(env, DIRECTORY, 0, {6}, valid_from=20)
    clean_by_hand(env, DIRECTORY, 1, {9}, valid_from=18)
    return env


def layout(env: FaultEnv, first: int = 1) -> list[tuple[int, int, int]]:
    return [(r.index, r.end, r.term) for r in records(DIRECTORY, first, env=env)]


def overwrite(env: FaultEnv, victim: StoredEntry, frame: bytes) -> None:
    """As rot would: a disk in memory refuses a second write of any other kind."""
    for offset, (before, after) in enumerate(zip(victim.frame, frame, strict=True)):
        if before != after:
            env.corrupt(victim.path, victim.offset + offset, before ^ after)


def test_gaps_are_records_with_one_term_each() -> None:
    env = cleaned()
    assert layout(env)[:7] == [
        (1, 6, 1),
        (6, 7, 1),
        (7, 8, 1),
        (8, 9, 2),
        (9, 10, 2),
        (10, 15, 2),
        (15, 16, 3),
    ]
    gap = next(records(DIRECTORY, env=env))
    assert gap.is_gap
    assert (gap.end, gap.valid_from) == (6, 20)
    assert layout(env, 12)[0] == (10, 15, 2)
    rows = [(e.index, e.term, e.payload) for e in entries(DIRECTORY, env=env)]
    assert rows == [WHOLE[5], WHOLE[8], *WHOLE[14:]]


def test_verify_counts_entries_and_gaps() -> None:
    env = cleaned()
    report = verify(DIRECTORY, env=env)
    assert report.ok, report.damage
    assert (report.first_index, report.last_index, report.last_term) == (1, 21, 3)
    assert [check.entries for check in report.checks] == [1, 1, 7]
    assert [check.gaps for check in report.checks] == [6, 6, 0]
    assert report.valid_from == 20
    assert report.checks[0].row.version == 2


def test_a_row_that_knows_less_than_its_gaps_is_damage() -> None:
    env = written()
    clean_by_hand(env, DIRECTORY, 0, {6}, valid_from=20, row_valid_from=19)
    (damage,) = verify(DIRECTORY, env=env).damage
    assert (damage.path, damage.row) == (f"{DIRECTORY}/manifest", "F3")
    assert "valid from 20, its row says 19" in damage.what


def test_the_log_itself_takes_what_was_cleaned_by_hand() -> None:
    env = cleaned()
    log = open_small(env)
    assert (log.first_index, log.last_index, log.valid_from) == (1, 21, 20)
    log.close()
    report = verify(DIRECTORY, env=env)
    assert report.ok, report.damage


def test_a_damaged_gap_is_named() -> None:
    env = cleaned()
    gap = next(records(DIRECTORY, env=env))
    env.corrupt(gap.path, gap.offset + 33, 1)
    (damage,) = verify(DIRECTORY, env=env).damage
    assert (damage.path, damage.offset, damage.index) == (gap.path, gap.offset, 1)
    assert damage.row == "F2"


def test_a_gap_that_ends_where_it_begins_is_none() -> None:
    env = cleaned()
    gap = next(records(DIRECTORY, env=env))
    overwrite(env, gap, gap_frame(1, 1, 1, valid_from=9))
    (damage,) = verify(DIRECTORY, env=env).damage
    assert "a frame of kind 15 with index 1" in damage.what


def test_the_last_records_are_read_from_the_end() -> None:
    env = cleaned()
    last = last_records(DIRECTORY, 9, env=env)
    assert [r.index for r in last] == [9, 10, *range(15, 22)]
    odd = last_records(DIRECTORY, 3, lambda r: r.index % 2 == 1 and not r.is_gap, env=env)
    assert [r.index for r in odd] == [17, 19, 21]
    assert len(last_records(DIRECTORY, 99, env=env)) == len(layout(env))


# --- files that go while one reads --------------------------------------------------------------


def test_a_compaction_under_a_reader_is_followed() -> None:
    env = written()
    reader = records(DIRECTORY, env=env)
    seen = [next(reader).index for _ in range(3)]
    clean_by_hand(env, DIRECTORY, 1, {9, 12}, valid_from=20)
    rest = [(r.index, r.end) for r in reader]
    assert seen == [1, 2, 3]
    assert rest[:6] == [(4, 5), (5, 6), (6, 7), (7, 8), (8, 9), (9, 10)]
    assert rest[6:9] == [(10, 12), (12, 13), (13, 15)]
    assert rest[-1] == (21, 22)


def test_a_trim_under_a_reader_is_followed() -> None:
    env = written()
    reader = records(DIRECTORY, env=env)
    next(reader)
    log = open_small(env)
    log.trim(17)
    log.close()
    assert [r.index for r in reader] == [2, 3, 4, 5, 6, 7, *range(15, 22)]


def test_a_lost_file_is_no_compaction() -> None:
    env = written()
    reader = records(DIRECTORY, env=env)
    next(reader)
    env.remove(f"{DIRECTORY}/{segments(DIRECTORY, env=env)[1].name}")
    with pytest.raises(CorruptLogError) as caught:
        list(reader)
    assert caught.value.index == segments(DIRECTORY, env=env)[1].first_index


# --- index files, marks, copies, snapshots ------------------------------------------------------


@pytest.mark.parametrize("offset", [0, 12, 40, 60, 76, 100])
def test_every_part_of_an_index_is_held_against_its_segment(offset: int) -> None:
    env = written()
    row = segments(DIRECTORY, env=env)[0]
    path = f"{DIRECTORY}/{row.id}-{row.version}.idx"
    assert env.exists(path)
    env.corrupt(path, offset, 1)
    (damage,) = verify(DIRECTORY, env=env).damage
    assert (damage.path, damage.row) == (path, "F14")
    env.remove(path)
    assert verify(DIRECTORY, env=env).ok  # a cache: the next open makes it


def test_a_mark_that_covers_other_frames_is_damage() -> None:
    env = written()
    victim = next(entries(DIRECTORY, 2, env=env))
    other = bytearray(victim.frame)
    other[32] ^= 1
    other[:4] = crc32c(bytes(other[4:])).to_bytes(4, "little")
    overwrite(env, victim, bytes(other))
    (damage,) = verify(DIRECTORY, env=env).damage
    assert "frames that their mark covers" in damage.what
    assert damage.index == 1


def test_rows_of_a_member_are_told_apart() -> None:
    env = FaultEnv()
    directory = open_member(env)
    save(directory, 1, 1)
    directory.close()
    env.corrupt(f"{PATH}/hard-state-a", 40, 1)
    assert [d.row for d in verify(PATH, env=env).damage] == ["F5"]
    env.corrupt(f"{PATH}/hard-state-b", 40, 1)
    assert [d.row for d in verify(PATH, env=env).damage] == ["F6", "F6"]
    env.corrupt(f"{PATH}/identity-a", 40, 1)
    env.corrupt(f"{PATH}/identity-b", 40, 1)
    assert [d.row for d in verify(PATH, env=env).damage] == ["F6", "F6", "F7", "F7"]
    env.remove(f"{PATH}/hard-state-a")
    env.remove(f"{PATH}/hard-state-b")
    assert [d.row for d in verify(PATH, env=env).damage] == ["F6", "F7", "F7"]


def test_snapshots_are_verified() -> None:
    from copycat.storage.snapshot_store import SnapshotStore
    from copycat.types import EntryId

    env = FaultEnv()
    open_member(env).close()
    store = SnapshotStore(env, f"{PATH}/snapshots")
    store.save(EntryId(1, 9), time_ms=5, data=b"a" * 1000)
    store.save(EntryId(2, 20), time_ms=6, data=b"b" * 1000)
    report = verify(PATH, env=env)
    assert report.ok
    assert [(s.last_index, s.term, s.raw_nbytes) for s in report.snapshots] == [
        (9, 1, 1000),
        (20, 2, 1000),
    ]
    env.corrupt(f"{PATH}/snapshots/20-2.snap", 80, 1)
    (damage,) = verify(PATH, env=env).damage
    assert (damage.row, damage.index) == ("F17", 20)


def test_a_cleaned_log_is_compared_where_both_hold_the_entry(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("a", "b")]
    for path in paths:
        path.mkdir()
        log = open_small(Env(), str(path))
        grow(log, 12, each=3)
        log.close()
    clean_by_hand(Env(), str(paths[0]), 0, {2, 8}, valid_from=12)
    assert compare(paths, 12) is None
    shutil.rmtree(paths[1])
    paths[1].mkdir()
    log = open_small(Env(), str(paths[1]))
    grow(log, 7, each=3)
    grow(log, 5, term=2)
    log.close()
    difference = compare(paths, 12)
    assert difference is not None
    assert difference.index == 8


def sparse_index(row: SegmentInfo, slots: list[tuple[int, int, int, bool]]) -> bytes:
    """One slot a record, gaps among them, and where each starts."""
    body = b"".join(struct.pack("<II", o, size | gap << 31) for _, o, size, gap in slots)
    body += b"".join(struct.pack("<I", index - row.first_index) for index, *_ in slots)
    head = struct.pack("<16sQIIQ", row.uuid, row.id, row.version, 1, row.first_index)
    head += struct.pack("<QQQII", row.last_index + 1, 20, len(slots), crc32c(body), 1)
    head += struct.pack("<QQ", 1, row.first_index)
    return struct.pack("<8sII", b"COPYIDX\0", 2, crc32c(head)) + head + body


def test_the_index_of_a_cleaned_segment_has_a_slot_a_record() -> None:
    env = cleaned()
    row = segments(DIRECTORY, env=env)[0]
    frames = [r for r in records(DIRECTORY, env=env) if r.index <= row.last_index]
    slots = [(r.index, r.offset, len(r.frame) - 32, r.is_gap) for r in frames]
    path = f"{DIRECTORY}/{row.id}-{row.version}.idx"
    env.replace_file(path, sparse_index(row, slots))
    assert index_damage(env, DIRECTORY, row, slots) is None
    other = [*slots[:1], (6, slots[1][1] + 8, *slots[1][2:]), *slots[2:]]
    env.replace_file(path, sparse_index(row, other))
    damage = index_damage(env, DIRECTORY, row, slots)
    assert damage is not None
    assert "its slot of entry 6" in damage.what
    assert damage.offset == 88 + 16 + 8


# --- a log that ends before what its gaps know -------------------------------------------------


def zero_tail(env: FaultEnv) -> None:
    """All of the tail but its header, as a disk does that lost what it said was durable."""
    path = f"{DIRECTORY}/{segments(DIRECTORY, env=env)[-1].name}"
    for offset, byte in enumerate(env.read_file(path)):
        if offset >= 4096 and byte:
            env.corrupt(path, offset, byte)


def test_a_gap_proves_that_the_end_is_missing() -> None:
    env = cleaned()
    assert verify(DIRECTORY, env=env).missing_upto == 0
    zero_tail(env)
    report = verify(DIRECTORY, env=env)
    assert (report.last_index, report.missing_upto) == (14, 20)
    assert report.ok, "a log that was truncated looks so too"
    log = open_small(env)
    assert log.last_index == 14
    grow(log, 6, term=4)
    log.close()
    assert verify(DIRECTORY, env=env).missing_upto == 0


def test_what_damage_says_is_not_said_twice() -> None:
    env = cleaned()
    victim = next(entries(DIRECTORY, 18, env=env))
    env.corrupt(victim.path, victim.offset + 33, 1)
    report = verify(DIRECTORY, env=env)
    assert not report.ok
    assert report.missing_upto == 0
