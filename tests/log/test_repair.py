"""A member with others cuts what it cannot read, to fetch it again: F2, F3, F11, F17 and C12.

Five entries a segment, one an append: entries 1 to 5 are in the first file, 11 and later in the
tail. Every member here is one of three, but for those that are alone.
"""

from __future__ import annotations

from typing import Any

import pytest

from copycat.errors import (
    ConfigurationError,
    CorruptLogError,
    DiskError,
    DiskFullError,
    FormatVersionError,
)
from copycat.member.damage_scan import scan
from copycat.member.directory import MemberDirectory
from copycat.member.markers import INDEX_MAX, LOST_ENTRIES_FILE, NOTE_FILE
from copycat.member.verify import verify
from copycat.storage._native import FaultEnv
from copycat.storage.reader import segments
from copycat.storage.snapshot_store import SnapshotStore
from copycat.types import NO_ENTRY, EntryId, EntryKind, Span, StorageLevel
from tests.log.contract import batch, contents, durable, expected, grow
from tests.log.test_directory import PATH, image, open_member, save

LOG = f"{PATH}/log"
SNAPSHOTS = f"{PATH}/snapshots"
FIRST, RECORD, FRAME = 4096, 72, 32
ALONE: dict[str, Any] = {"members": ("a:1",)}


def snapshots_of(env: FaultEnv) -> dict[str, Any]:
    return {"snapshots": lambda: SnapshotStore(env, SNAPSHOTS)}


def used(env: FaultEnv, count: int = 13, *, kill: bool = True, **options: Any) -> None:
    """Term 3, `count` entries of term 2, durable and marked so; then a kill or a clean stop."""
    directory = open_member(env, **options)
    save(directory, 3, 9)
    grow(directory.log, count - 1, term=2)
    durable(directory.log)
    grow(directory.log, 1, term=2)
    durable(directory.log)
    directory.log.mark_idle()
    if kill:
        env.crash_process()
    else:
        directory.close()


def frame_at(env: FaultEnv, index: int) -> tuple[str, int]:
    """(path, offset) of an entry, each with a mark before it."""
    row = [row for row in segments(LOG, env=env) if row.first_index <= index][-1]
    return f"{LOG}/{row.name}", FIRST + (index - row.first_index) * RECORD + FRAME


def rot(env: FaultEnv, index: int, at: int = 33) -> None:
    path, offset = frame_at(env, index)
    env.corrupt(path, offset + at, 0x10)


def noted(env: FaultEnv, index: int, **options: Any) -> MemberDirectory:
    """A process that met entry `index` and stopped; then the next one."""
    directory = open_member(env, **options)
    path, offset = frame_at(env, index)
    note = directory.note(CorruptLogError("bad", path=path, offset=offset, index=index))
    assert note is not None
    directory.close()
    return open_member(env, **options)


def lost_upto(directory: MemberDirectory) -> EntryId:
    return NO_ENTRY if directory.lost_entries is None else directory.lost_entries.lost_upto


def test_f2_damage_in_the_tail_is_cut_and_recorded_as_lost() -> None:
    env = FaultEnv()
    used(env)
    rot(env, 12)
    damaged = {name: env.read_file(f"{LOG}/{name}") for name in env.list(LOG) if name != "lock"}
    directory = open_member(env)
    assert contents(directory.log) == expected(1, 12, 2)
    assert lost_upto(directory) == EntryId(2, 13)
    assert str(directory.lost_entries) == "entries 12 to 13"
    assert directory.hard_state.current_term == 4, "who counts on 12 must hear of a newer term"
    assert directory.hard_state.voted_for == 0
    assert not directory.fresh
    files = {name: env.read_file(f"{PATH}/log-damaged-1/{name}") for name in damaged}
    assert files == damaged, "the damaged log is kept as it was"
    assert verify(PATH, env=env).ok


def test_f2_durable_entries_of_the_tail_that_became_zeros_are_lost_and_no_end() -> None:
    """The scan of a damaged log looks behind the zeros for the mark that proves the damage."""
    env = FaultEnv()
    used(env)
    path, offset = frame_at(env, 12)
    data = bytearray(env.read_file(path))
    data[offset - FRAME : offset - FRAME + RECORD] = bytes(RECORD)
    env.replace_file(path, bytes(data))
    losses = scan(env, LOG).losses
    assert [(loss.first, loss.end) for loss in losses] == [(12, 13)]
    directory = open_member(env)
    assert contents(directory.log) == expected(1, 12, 2)
    assert lost_upto(directory) == EntryId(2, 13)


def test_c4_a_log_with_configurations_is_repaired() -> None:
    env = FaultEnv()
    directory = open_member(env)
    log = directory.log
    for index in range(1, 10):
        is_configuration = index in {2, 3, 7}
        kind = EntryKind.CONFIGURATION if is_configuration else EntryKind.TICK
        log.append(batch(index, b"2:%d" % index, term=2, kind=kind))
    durable(log)
    log.mark_idle()
    env.crash_process()
    rot(env, 9)
    again = open_member(env)
    assert contents(again.log) == expected(1, 9, 2)
    assert again.log.read(3, 9, 1 << 20).span == Span(2, 3, 4)


def test_f11_damage_in_a_sealed_segment_is_repaired_at_the_next_start() -> None:
    env = FaultEnv()
    used(env, kill=False)
    rot(env, 3)
    rot(env, 8)
    directory = open_member(env)
    with pytest.raises(CorruptLogError) as caught:
        contents(directory.log)
    note = directory.note(caught.value)
    assert note is not None
    assert note.hint == "start it again: it will fetch entries 3 to 13 from the other members"
    directory.close()
    assert env.exists(f"{PATH}/{NOTE_FILE}")
    again = open_member(env)
    assert contents(again.log) == expected(1, 3, 2)
    assert lost_upto(again) == EntryId(2, 13)
    assert not env.exists(f"{PATH}/{NOTE_FILE}")
    assert verify(PATH, env=env).ok


def test_f11_what_was_met_counts_although_it_can_be_read_now() -> None:
    env = FaultEnv()
    used(env)
    again = noted(env, 7)
    assert contents(again.log) == expected(1, 7, 2)
    assert lost_upto(again) == EntryId(2, 13)


def test_f11_a_note_of_what_is_not_in_the_log_is_looked_at_and_goes() -> None:
    env = FaultEnv()
    used(env)
    directory = open_member(env)
    directory.note(CorruptLogError("bad", path=f"{LOG}/9-1.log", index=99))
    directory.close()
    again = open_member(env)
    assert again.lost_entries is None
    assert contents(again.log) == expected(1, 14, 2)
    assert not env.exists(f"{PATH}/{NOTE_FILE}")


def test_f11_only_damage_of_the_log_is_noted() -> None:
    env = FaultEnv()
    used(env)
    directory = open_member(env)
    assert directory.note(ValueError("no")) is None
    assert directory.note(CorruptLogError("bad", path=f"{SNAPSHOTS}/5-2.snap", index=5)) is None
    full = DiskError("no", path=f"{LOG}/1-1.log", operation="write", errno=5)
    assert directory.note(full) is None
    assert not env.exists(f"{PATH}/{NOTE_FILE}")
    sector = DiskError("no", path=f"{LOG}/1-1.log", operation="read", errno=5)
    assert directory.note(sector) is not None


def test_f11_a_sector_that_cannot_be_read_costs_its_file() -> None:
    env = FaultEnv()
    used(env)
    directory = open_member(env)
    name = segments(LOG, env=env)[1].name
    directory.note(DiskError("no", path=f"{LOG}/{name}", operation="read", errno=5))
    directory.close()
    # The manifest twice, then every file once; the one of entries 6 to 10 fails again.
    env.fail("read", 9, "EIO")
    again = open_member(env)
    assert again.lost_entries is not None
    assert again.log.last_index < 13


def test_f3_a_missing_segment_is_lost_up_to_its_end() -> None:
    env = FaultEnv()
    used(env)
    env.remove(f"{LOG}/{segments(LOG, env=env)[1].name}")
    directory = open_member(env)
    assert contents(directory.log) == expected(1, 6, 2)
    assert lost_upto(directory) == EntryId(2, 13)
    assert str(directory.lost_entries) == "entries 6 to 13"


@pytest.mark.parametrize("damage", ["gone", "header", "manifest", "no manifest", "all"])
def test_f3_where_the_end_is_not_known_nothing_of_this_term_is_enough(damage: str) -> None:
    env = FaultEnv()
    used(env)
    tail = f"{LOG}/{segments(LOG, env=env)[-1].name}"
    if damage == "gone":
        env.remove(tail)
    elif damage == "header":
        env.corrupt(tail, 20, 1)
    elif damage == "manifest":
        env.corrupt(f"{LOG}/manifest", 50, 1)
    elif damage == "no manifest":
        env.remove(f"{LOG}/manifest")
    else:
        for name in env.list(LOG):
            env.remove(f"{LOG}/{name}") if name != "lost+found" else None
    directory = open_member(env)
    assert lost_upto(directory) == EntryId(3, INDEX_MAX)
    last = 11 if damage in {"gone", "header"} else 1
    assert contents(directory.log) == expected(1, last, 2)
    assert str(directory.lost_entries) == f"entries from {last} on, up to the end of term 3"
    assert not directory.fresh


def test_f2_of_two_damages_the_first_decides() -> None:
    env = FaultEnv()
    used(env)
    env.remove(f"{LOG}/{segments(LOG, env=env)[1].name}")
    rot(env, 2)
    rot(env, 12)
    directory = open_member(env)
    assert contents(directory.log) == expected(1, 2, 2)
    assert lost_upto(directory) == EntryId(2, 13)


def test_f2_a_member_alone_refuses_and_nothing_changes() -> None:
    env = FaultEnv()
    used(env, **ALONE)
    rot(env, 12)
    before = image(env)
    with pytest.raises(CorruptLogError) as caught:
        open_member(env, **ALONE)
    assert caught.value.index == 12
    assert image(env) == before


def test_f7_a_newer_format_is_never_repaired() -> None:
    env = FaultEnv()
    used(env)
    env.corrupt(f"{LOG}/{segments(LOG, env=env)[0].name}", 8, 0x40)
    before = image(env)
    with pytest.raises(FormatVersionError):
        open_member(env)
    assert image(env) == before


def test_c12_entries_count_as_lost_until_the_log_reaches_as_far() -> None:
    env = FaultEnv()
    used(env)
    rot(env, 4)
    rot(env, 12)
    directory = open_member(env)
    assert lost_upto(directory) == EntryId(2, 13)
    grow(directory.log, 5, term=2)
    directory.close()
    again = open_member(env)
    assert lost_upto(again) == EntryId(2, 13), "8 of 13"
    assert again.hard_state.current_term == 4, "raised once"
    grow(again.log, 5, term=2)
    durable(again.log)
    again.close()
    whole = open_member(env)
    assert whole.lost_entries is None
    assert not env.exists(f"{PATH}/{LOST_ENTRIES_FILE}")
    assert contents(whole.log) == expected(1, 14, 2)


def test_c12_an_entry_of_a_later_term_is_as_much_too() -> None:
    env = FaultEnv()
    used(env)
    rot(env, 4)
    rot(env, 12)
    directory = open_member(env)
    grow(directory.log, 1, term=5)
    directory.close()
    assert open_member(env).lost_entries is None


def test_c12_damage_of_what_was_fetched_records_the_greater_of_both() -> None:
    env = FaultEnv()
    used(env)
    rot(env, 4)
    rot(env, 12)
    directory = open_member(env)
    grow(directory.log, 4, term=2)
    directory.close()
    again = noted(env, 5)
    assert lost_upto(again) == EntryId(2, 13)
    assert again.lost_entries is not None
    assert again.lost_entries.first_index == 4
    assert again.hard_state.current_term == 5, "it acknowledged 5 to a leader of term 4"


def test_c12_a_record_of_lost_entries_that_cannot_be_read_is_the_greatest() -> None:
    env = FaultEnv()
    used(env)
    rot(env, 12)
    open_member(env).close()
    env.corrupt(f"{PATH}/{LOST_ENTRIES_FILE}", 12, 1)
    for _ in range(2):
        directory = open_member(env)
        assert lost_upto(directory) == EntryId(4, INDEX_MAX)
        assert directory.hard_state.current_term == 5
        directory.close()
    env.remove(f"{PATH}/{LOST_ENTRIES_FILE}")


def test_f12_a_repair_without_room_leaves_the_damaged_log_where_it_is() -> None:
    env = FaultEnv()
    used(env)
    rot(env, 12)
    before = image(env)
    env.set_free_space(1000)
    with pytest.raises(DiskFullError, match="no room for the repaired log"):
        open_member(env)
    after = image(env)
    assert {name: after[name] for name in before} == before
    env.set_free_space(1 << 40)
    assert contents(open_member(env).log) == expected(1, 12, 2)


def test_a_start_that_is_refused_leaves_a_noted_damage_alone() -> None:
    env = FaultEnv()
    used(env)
    directory = open_member(env)
    directory.note(CorruptLogError("bad", path=f"{LOG}/1-1.log", index=3))
    directory.close()
    before = image(env)
    with pytest.raises(ConfigurationError):
        open_member(env, level=StorageLevel.MEMORY)
    assert image(env) == before
