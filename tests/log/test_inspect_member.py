"""Where a start refuses, `verify` says damage; where it continues, `verify` asks for no backup."""

from __future__ import annotations

import errno

import pytest

from copycat.errors import CorruptLogError, DiskError
from copycat.member.damage_scan import scan
from copycat.member.directory import MemberDirectory
from copycat.member.hard_state import HARD_STATE_FILES
from copycat.member.identity import IDENTITY_FILES
from copycat.member.verify import verify
from copycat.storage._native import FaultEnv
from copycat.storage.reader import Damage, entries, segments
from copycat.storage.snapshot_store import SnapshotStore
from copycat.types import EntryId, StorageLevel
from tests.log.contract import durable, grow
from tests.log.test_directory import PATH, open_member, refused, save
from tests.log.test_inspect import written
from tests.log.test_native import DIRECTORY, open_small

ALONE = ("a:1",)


def used(env: FaultEnv) -> None:
    """A member without others: a vote, twelve entries, and a clean stop."""
    directory = open_member(env, members=ALONE)
    save(directory, 1, 1)
    grow(directory.log, 12)
    durable(directory.log)
    directory.close()


def only(env: FaultEnv, path: str = PATH) -> Damage:
    (damage,) = verify(path, env=env).damage
    return damage


def cut_file(env: FaultEnv, path: str, size: int) -> None:
    """Leave the first `size` bytes, as a copy does that was not complete."""
    data = env.read_file(path)[:size]
    env.remove(path)
    env.create(path).write(0, data)


def tail_of(env: FaultEnv, directory: str) -> str:
    return f"{directory}/{segments(directory, env=env)[-1].name}"


# --- a file that was cut short -----------------------------------------------------------------


@pytest.mark.parametrize("back", [0, 1, 3])
def test_f3_a_tail_that_was_cut_is_damage_behind_its_last_whole_entry(back: int) -> None:
    env = written()
    row = segments(DIRECTORY, env=env)[-1]
    last = list(entries(DIRECTORY, env=env))[-1 - back]
    end = (last.offset + len(last.frame) + 7) & ~7
    path = tail_of(env, DIRECTORY)
    cut_file(env, path, end)
    damage = only(env, DIRECTORY)
    assert (damage.row, damage.path) == ("F3", path)
    assert (damage.offset, damage.index) == (end, last.index + 1)
    assert damage.what == f"the file has {end:,} of at least 16,384 bytes"
    assert row.first_index <= last.index
    with pytest.raises(CorruptLogError, match="bytes of at least"):
        open_small(env)


def test_f3_a_tail_that_lost_only_zeros_is_damage_too() -> None:
    env = written()
    path = tail_of(env, DIRECTORY)
    cut_file(env, path, 16383)
    damage = only(env, DIRECTORY)
    assert (damage.offset, damage.index) == (16383, 22)
    with pytest.raises(CorruptLogError, match="bytes of at least"):
        open_small(env)


def test_f3_torn_bytes_before_the_cut_are_not_called_the_end() -> None:
    env = written()
    last = list(entries(DIRECTORY, env=env))[-1]
    path = tail_of(env, DIRECTORY)
    cut_file(env, path, last.offset + 34)
    damage = only(env, DIRECTORY)
    assert (damage.row, damage.index) == ("F3", last.index)
    assert verify(DIRECTORY, env=env).torn_bytes == 0, "nobody knows that they were never durable"


# --- what stands beside the log ----------------------------------------------------------------


@pytest.mark.parametrize(("names", "row"), [(IDENTITY_FILES, "F7"), (HARD_STATE_FILES, "F6")])
def test_f6_f7_both_copies_missing_are_damage(names: tuple[str, ...], row: str) -> None:
    env = FaultEnv()
    used(env)
    for name in names:
        env.remove(f"{PATH}/{name}")
    damage = only(env)
    assert (damage.row, damage.path, damage.what) == (
        row,
        f"{PATH}/{names[0]}",
        "both copies are missing",
    )
    refused(env, CorruptLogError, members=ALONE)


def test_f7_neither_vote_nor_identity_beside_a_log_is_damage() -> None:
    env = FaultEnv()
    used(env)
    for name in (*HARD_STATE_FILES, *IDENTITY_FILES):
        env.remove(f"{PATH}/{name}")
    assert only(env).row == "F7"
    refused(env, CorruptLogError, members=ALONE)


@pytest.mark.parametrize("name", [*IDENTITY_FILES, *HARD_STATE_FILES])
def test_f5_one_copy_missing_is_told_as_one_that_is_rotten(name: str) -> None:
    env = FaultEnv()
    used(env)
    env.remove(f"{PATH}/{name}")
    assert only(env) == Damage(f"{PATH}/{name}", -1, 0, "this copy is missing", "F5")
    open_member(env, members=ALONE).close()
    assert verify(PATH, env=env).ok


def test_f27_a_first_start_that_was_cut_off_is_no_damage() -> None:
    env = FaultEnv()
    open_member(env, members=ALONE).close()
    for name in IDENTITY_FILES:
        env.remove(f"{PATH}/{name}")
    assert verify(PATH, env=env).ok
    env.remove(f"{PATH}/{HARD_STATE_FILES[1]}")
    assert verify(PATH, env=env).ok
    assert open_member(env, members=ALONE).fresh


def test_a_bare_log_in_a_folder_named_log_is_no_member() -> None:
    env = FaultEnv()
    env.make_directory("/disk/mine")
    env.make_directory("/disk/mine/log")
    log = open_small(env, "/disk/mine/log")
    grow(log, 3)
    log.close()
    assert verify("/disk/mine", env=env).ok


def empty(env: FaultEnv) -> None:
    for name in env.list(f"{PATH}/log"):
        env.remove(f"{PATH}/log/{name}")


def test_f3_an_identity_without_a_log_is_damage() -> None:
    env = FaultEnv()
    used(env)
    empty(env)
    damage = only(env)
    assert (damage.row, damage.path) == ("F3", f"{PATH}/log")
    refused(env, CorruptLogError, members=ALONE)
    env.rename(f"{PATH}/log", f"{PATH}/away")
    assert only(env) == damage
    refused(env, CorruptLogError, members=ALONE)


def test_a_member_whose_log_was_in_memory_has_none() -> None:
    env = FaultEnv()
    open_member(env, members=ALONE, level=StorageLevel.MEMORY).close()
    with pytest.raises(FileNotFoundError):
        verify(PATH, env=env)


# --- snapshots that the log needs --------------------------------------------------------------


def trimmed(env: FaultEnv) -> MemberDirectory:
    """The log begins at 6; two snapshots cover what was before."""
    used(env)
    store = SnapshotStore(env, f"{PATH}/snapshots")
    for index in (5, 7):
        store.admit(store.save(EntryId(1, index), time_ms=7, data=b"state"))
    directory = open_member(env, members=ALONE)
    directory.log.trim(6)
    durable(directory.log)
    directory.close()
    assert segments(PATH, env=env)[0].first_index == 6
    assert verify(PATH, env=env).ok
    return directory


def out_of_reach(env: FaultEnv) -> bool:
    damage = Damage(
        f"{PATH}/snapshots",
        -1,
        0,
        "the log begins at 6, and no snapshot covers what was before it",
        "F17",
    )
    return damage in verify(PATH, env=env).damage


def test_f17_a_trimmed_log_without_snapshots_is_damage() -> None:
    env = FaultEnv()
    trimmed(env)
    env.remove(f"{PATH}/snapshots/7-1.snap")
    assert verify(PATH, env=env).ok, "the one before it is enough"
    env.remove(f"{PATH}/snapshots/5-1.snap")
    assert out_of_reach(env)


def test_f17_a_trimmed_log_whose_snapshots_are_bad_is_damage() -> None:
    env = FaultEnv()
    trimmed(env)
    env.corrupt(f"{PATH}/snapshots/7-1.snap", 80, 1)
    assert not out_of_reach(env)
    env.corrupt(f"{PATH}/snapshots/5-1.snap", 80, 1)
    assert out_of_reach(env)
    assert [one.index for one in verify(PATH, env=env).damage] == [5, 7, 0]


# --- what says nothing of the bytes ------------------------------------------------------------


def met(env: FaultEnv, operation: str, nth: int, error: str) -> DiskError | None:
    """What `verify` of a whole member raises when its nth `operation` fails; None when it makes
    fewer."""
    again = env.clone()
    again.fail(operation, nth, error)
    try:
        report = verify(PATH, env=again)
    except DiskError as cause:
        return cause
    assert report.ok
    return None


@pytest.mark.parametrize("operation", ["open", "read"])
@pytest.mark.parametrize("error", ["EACCES", "EMFILE"])
def test_f29_a_file_that_may_not_be_read_is_no_damage(operation: str, error: str) -> None:
    env = FaultEnv()
    trimmed(env)
    nth = 1
    while (cause := met(env, operation, nth, error)) is not None:
        assert cause.errno == getattr(errno, error)
        assert cause.hint not in {None, DiskError.default_hint}
        nth += 1
    assert nth > 8, "every file is opened and read"


@pytest.mark.parametrize("nth", range(1, 6))
def test_f29_a_repair_cuts_nothing_that_it_may_not_read(nth: int) -> None:
    env = written()
    env.fail("open", nth, "EMFILE")  # the manifest, twice, and three segments
    with pytest.raises(DiskError):
        scan(env, DIRECTORY)


def test_f14_a_bad_sector_is_damage() -> None:
    rows = []
    for nth in range(1, 9):
        env = written()
        env.fail("read", nth, "EIO")
        rows.append(only(env, DIRECTORY).row)
    assert set(rows) == {"F3", "F2", "F14"}, "the manifest, a segment, its index"
