"""The file `configuration` of a member's directory, and the cluster's incarnation in its identity:
whole, old or new after every crash; and directories from before there was either."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest

from copycat.errors import (
    CorruptLogError,
    DiskError,
    DiskFullError,
    FormatVersionError,
    VersionMismatchError,
    WrongDirectoryError,
)
from copycat.member.checked_file import seal
from copycat.member.configuration_file import (
    CONFIGURATION_FILES,
    NOTHING_STORED,
    ConfigurationFile,
    StoredConfigurations,
    is_sole_voter,
    read_copy,
)
from copycat.member.identity import IDENTITY_FILES, Identity, read_identity, write_identity
from copycat.member.markers import DELETED_LOG_FILE
from copycat.protocol.member_record import ConfigurationRecord, MemberRecord
from copycat.storage import FaultEnv
from copycat.types import EntryId, MemberId, MemberType, StorageLevel
from tests.log.contract import durable, grow
from tests.log.test_directory import MEMBERS, PATH, image, open_member, used

COPIES = tuple(f"{PATH}/{name}" for name in CONFIGURATION_FILES)
A = MemberRecord(MemberId(1), MemberType.ACTIVE, "a:1")
B = MemberRecord(MemberId(2), MemberType.PASSIVE, "b:2", since=9)
FOUNDERS = ConfigurationRecord(EntryId(0, 0), 0, (A,))
FIRST = ConfigurationRecord(EntryId(2, 9), 77, (A, B))
SECOND = ConfigurationRecord(EntryId(3, 12), 77, (A, B._replace(is_promotable=True)))


def stored(*records: ConfigurationRecord, is_wiped: bool = False) -> StoredConfigurations:
    return StoredConfigurations(records, is_wiped)


def made() -> tuple[FaultEnv, ConfigurationFile]:
    env = FaultEnv()
    env.make_directory(PATH)
    return env, ConfigurationFile(env, PATH)


def test_what_was_written_is_there_after_a_power_cut() -> None:
    env, file = made()
    assert file.read() == NOTHING_STORED
    for each in (stored(FOUNDERS, FIRST), stored(FIRST, SECOND), stored(SECOND, is_wiped=True)):
        file.write(each)
        env.crash(1)
        assert file.read() == each


def written_until_a_power_cut(
    env: FaultEnv, file: ConfigurationFile, new: StoredConfigurations, operations: int
) -> bool:
    """The power fails after so many operations of the disk; whether `new` was written before."""
    is_written = True
    env.stop_after(operations)
    try:
        file.write(new)
    except DiskError:
        is_written = False
    env.crash(operations)
    env.stop_after(1 << 62)
    return is_written


@pytest.mark.parametrize("operations", range(20))
def test_c35_a_power_cut_leaves_the_old_or_the_new(operations: int) -> None:
    env, file = made()
    old, new = stored(FOUNDERS, FIRST), stored(FIRST, SECOND)
    file.write(old)
    is_written = written_until_a_power_cut(env, file, new, operations)
    assert file.read() in ((new,) if is_written else (old, new))


@pytest.mark.parametrize(("operation", "error"), [("create", "ENOSPC"), ("sync", "EIO")])
def test_a_disk_that_does_not_take_it_leaves_what_was_there(operation: str, error: str) -> None:
    env, file = made()
    file.write(stored(FIRST))
    env.fail(operation, 1, error)
    with pytest.raises(DiskFullError if error == "ENOSPC" else DiskError):
        file.write(stored(FIRST, SECOND))
    assert file.read() == stored(FIRST)


@pytest.mark.parametrize("operations", range(20))
def test_f12_a_disk_that_is_full_between_the_copies_leaves_the_newer_one(operations: int) -> None:
    env, file = made()
    old, new = stored(FIRST), stored(FIRST, SECOND)
    file.write(old)
    env.fail("create", 2, "ENOSPC")
    with pytest.raises(DiskFullError):
        file.write(new)
    env.crash(operations)
    assert file.read_copies() == (new, CONFIGURATION_FILES[1:])
    file.complete()
    assert file.read_copies() == (new, ())


@pytest.mark.parametrize("operations", range(20))
def test_f5_whichever_copy_rots_after_a_power_cut_the_other_is_enough(operations: int) -> None:
    """What was not reported as written may be there or not; what was is in both copies."""
    env, file = made()
    old, new = stored(FOUNDERS, FIRST), stored(FIRST, SECOND)
    file.write(old)
    is_written = written_until_a_power_cut(env, file, new, operations)
    for copy in COPIES:
        other = env.clone()
        flip(other, copy)
        again = ConfigurationFile(other, PATH)
        assert again.read() in ((new,) if is_written else (old, new))
        again.complete()
        assert again.read_copies()[1] == ()


def test_any_byte_that_is_wrong_is_noticed() -> None:
    env, file = made()
    file.write(stored(FOUNDERS, FIRST, SECOND))
    env.remove(COPIES[1])
    for offset in range(env.size(COPIES[0])):
        env.corrupt(COPIES[0], offset, 0x10)
        with pytest.raises(CorruptLogError):
            file.read()
        env.corrupt(COPIES[0], offset, 0x10)
    assert file.read() == stored(FOUNDERS, FIRST, SECOND)


def test_c47_a_newer_version_is_named() -> None:
    env, file = made()
    env.replace_file(COPIES[0], seal(b"COPYCNF\0", 2, b""))
    with pytest.raises(FormatVersionError, match="version 2"):
        file.read()
    later = (2).to_bytes(2, "little") + b"later"
    env.replace_file(
        COPIES[0], seal(b"COPYCNF\0", 1, bytes(4) + len(later).to_bytes(4, "little") + later)
    )
    with pytest.raises(VersionMismatchError, match="version 2"):
        file.read()


def test_what_is_no_list_of_configurations_is_damage() -> None:
    env, file = made()
    for body in (
        b"",
        bytes(4),
        b"\2\0\0\0",
        bytes(4) + b"\xff\xff\xff\xff",
        bytes(4) + b"\1\0\0\0x",
    ):
        env.replace_file(COPIES[0], seal(b"COPYCNF\0", 1, body))
        with pytest.raises(CorruptLogError):
            file.read()
    file.write(stored(SECOND, FIRST))
    with pytest.raises(CorruptLogError, match="not in order"):
        file.read()


# ---- the identity -------------------------------------------------------------------------------

IDENTITY = Identity(
    cluster_name="test", address="a:1", members=MEMBERS, member=MemberId(5), incarnation=6
)
OLD = bytes.fromhex(
    "434f505949444e008a4e5c0d010000003b00000000000000"
    "95a474657374a3613a3193a3613a31a3623a32a3633a33"
    "c41005000000000000000000000000000000c41006000000000000000000000000000000"
)
"""IDENTITY as copycat wrote it before there were incarnations of clusters."""


def test_c41_an_identity_without_an_incarnation_of_the_cluster_is_written_as_before() -> None:
    assert IDENTITY.encode() == OLD
    assert Identity.decode(OLD, "x") == IDENTITY
    known = IDENTITY.with_cluster_incarnation(99)
    assert known.encode()[12] == 2
    assert Identity.decode(known.encode(), "x") == known


def test_a_directory_of_founders_has_no_new_file_and_opens_again() -> None:
    env = FaultEnv()
    used(env)
    assert not set(COPIES) & set(image(env))
    assert env.read_file(f"{PATH}/identity-a")[12] == 1
    open_member(env).close()


@pytest.mark.parametrize("operations", range(16))
def test_c41_a_power_cut_leaves_an_identity_that_opens(operations: int) -> None:
    env = FaultEnv()
    used(env)
    before, _ = read_identity(env, PATH)
    assert before is not None
    known = before.with_cluster_incarnation(99)
    env.stop_after(operations)
    with contextlib.suppress(DiskError):
        write_identity(env, PATH, known)
    env.crash(operations)
    env.stop_after(1 << 62)
    identity, missing = read_identity(env, PATH)
    assert identity in (before, known)
    assert set(missing) <= set(IDENTITY_FILES)
    directory = open_member(env)
    assert directory.identity == identity
    directory.close()
    assert read_identity(env, PATH) == (identity, ())


def test_c41_two_incarnations_of_clusters_in_one_directory_are_damage() -> None:
    env = FaultEnv()
    used(env)
    before, _ = read_identity(env, PATH)
    assert before is not None
    write_identity(env, PATH, before.with_cluster_incarnation(99))
    write_identity(env, PATH, before.with_cluster_incarnation(98), ("identity-b",))
    with pytest.raises(CorruptLogError, match="differ"):
        read_identity(env, PATH)


# ---- the directory ------------------------------------------------------------------------------

JOINED: dict[str, Any] = {"members": (), "first": stored(FIRST)}


def written(env: FaultEnv, what: StoredConfigurations) -> None:
    ConfigurationFile(env, PATH).write(what)


def test_a_member_that_joins_begins_with_what_it_was_told() -> None:
    env = FaultEnv()
    directory = open_member(env, **JOINED)
    assert directory.configurations == stored(FIRST)
    assert directory.identity.cluster_incarnation == FIRST.cluster_incarnation
    assert directory.identity.members == ()
    directory.close()
    again = open_member(env, members=())
    assert again.configurations == stored(FIRST)
    assert not again.fresh or again.log.last_index == 0
    again.close()


@pytest.mark.parametrize("copy", COPIES)
@pytest.mark.parametrize("damage", ["flip", "lose"])
def test_f5_one_bad_copy_of_the_members_is_written_again(copy: str, damage: str) -> None:
    env = FaultEnv()
    open_member(env, **JOINED).close()
    (other,) = [each for each in COPIES if each != copy]
    if damage == "flip":
        flip(env, copy)
    else:
        env.remove(copy)
    directory = open_member(env, members=())
    assert directory.configurations == stored(FIRST)
    directory.close()
    assert env.read_file(copy) == env.read_file(other)
    flip(env, other)
    directory = open_member(env, members=())
    assert directory.configurations == stored(FIRST)
    directory.close()


@pytest.mark.parametrize("nth", [1, 2])
def test_f5_a_copy_that_cannot_be_read_counts_as_bad(nth: int) -> None:
    env, file = made()
    file.write(stored(FIRST))
    env.fail("read", nth, "EIO")
    assert file.read_copies() == (stored(FIRST), (CONFIGURATION_FILES[nth - 1],))
    assert file.read_copies() == (stored(FIRST), ())


def test_f27_a_founder_does_not_begin_with_what_a_joiner_left_that_was_cut_short() -> None:
    env = FaultEnv()
    env.make_directory(PATH)
    written(env, stored(FIRST))
    open_member(env).close()
    directory = open_member(env)
    assert directory.configurations == NOTHING_STORED
    directory.close()


def test_c41_a_crash_before_the_identity_names_the_cluster_is_made_good() -> None:
    env = FaultEnv()
    used(env)
    written(env, stored(FIRST))
    directory = open_member(env)
    assert directory.identity.cluster_incarnation == FIRST.cluster_incarnation
    directory.close()
    assert read_identity(env, PATH) == (directory.identity, ())


@pytest.mark.parametrize("operations", range(0, 60, 4))
def test_f27_a_first_start_of_one_that_was_cut_short_starts_over(operations: int) -> None:
    env = FaultEnv()
    env.stop_after(operations)
    with contextlib.suppress(DiskError):
        open_member(env, **JOINED).close()
    env.crash(operations)
    env.stop_after(1 << 62)
    directory = open_member(env, **JOINED)
    assert directory.configurations == stored(FIRST)
    assert directory.identity.cluster_incarnation == FIRST.cluster_incarnation
    directory.close()


@pytest.mark.parametrize("level", [StorageLevel.DISK, StorageLevel.MEMORY])
def test_c33_a_start_completes_a_wipe_and_keeps_term_and_vote(level: StorageLevel) -> None:
    env = FaultEnv()
    used(env, level=level)
    written(env, stored(FIRST, is_wiped=True))
    for _ in range(2):
        directory = open_member(env, level=level)
        assert directory.log.last_index == 0
        assert (directory.hard_state.current_term, directory.hard_state.voted_for) == (3, 9)
        assert not directory.lost
        assert directory.lost_entries is None
        directory.close()


@pytest.mark.parametrize("operations", range(0, 80, 3))
def test_c33_a_wipe_that_a_power_cut_ended_continues(operations: int) -> None:
    env = FaultEnv()
    used(env)
    written(env, stored(FIRST, is_wiped=True))
    env.stop_after(operations)
    with contextlib.suppress(DiskError):
        open_member(env).close()
    env.crash(operations)
    env.stop_after(1 << 62)
    directory = open_member(env)
    assert directory.log.last_index == 0
    assert (directory.hard_state.current_term, directory.hard_state.voted_for) == (3, 9)
    directory.close()


@pytest.mark.parametrize("level", [StorageLevel.DISK, StorageLevel.MEMORY])
def test_c33_the_order_to_delete_ends_with_the_deletion(level: StorageLevel) -> None:
    env = FaultEnv()
    used(env, level=level)
    written(env, stored(FIRST, is_wiped=True))
    directory = open_member(env, level=level)
    assert directory.configurations == stored(FIRST)
    assert directory.identity.cluster_incarnation == FIRST.cluster_incarnation
    for copy in COPIES:
        assert read_copy(env, copy) == stored(FIRST)
    assert env.exists(f"{PATH}/{DELETED_LOG_FILE}")
    directory.close()


def test_c33_what_is_acknowledged_after_a_wipe_survives_a_crash_anywhere() -> None:
    """The crash points of one start that deletes the log, and of what the member does then: the
    process is killed, or the power fails, after each operation of the disk."""
    for operations in range(200):
        for kill in (FaultEnv.crash_process, power_cut):
            env = FaultEnv()
            used(env)
            written(env, stored(FIRST, is_wiped=True))
            env.stop_after(operations)
            acknowledged = 0
            with contextlib.suppress(DiskError):
                directory = open_member(env)
                for last_index in (1, 2, 3):
                    grow(directory.log, 1, term=4)
                    durable(directory.log)
                    acknowledged = last_index
            is_complete = acknowledged == 3
            kill(env)
            env.stop_after(1 << 62)
            again = open_member(env)
            assert acknowledged <= again.log.last_index <= 3, operations
            assert again.log.last_index == 0 or again.log.last_entry.term == 4
            assert (again.hard_state.current_term, again.hard_state.voted_for) == (3, 9)
            assert again.configurations == stored(FIRST)
        if is_complete:
            break
    assert is_complete
    assert operations > 40


def power_cut(env: FaultEnv) -> None:
    env.crash(5)


def test_c33_the_log_alone_proves_nothing_once_it_was_deleted() -> None:
    """A founder that was wiped is sent the log from its beginning: an old entry of it gives the
    member a vote, and the entry that took it away has not arrived yet."""
    env = FaultEnv()
    used(env)
    written(env, stored(FIRST, is_wiped=True))
    directory = open_member(env)
    grow(directory.log, 2, term=1)
    durable(directory.log)
    directory.close()
    for damage in (FaultEnv.remove, flip):
        other = env.clone()
        for copy in COPIES:
            damage(other, copy)
        before = image(other)
        with pytest.raises(CorruptLogError, match="a leader once had its log deleted") as caught:
            open_member(other)
        assert image(other) == before
        assert "join a new member" in caught.value.render()


def flip(env: FaultEnv, path: str) -> None:
    env.corrupt(path, 40, 1)


def test_a_reserve_with_its_log_in_memory_has_lost_nothing() -> None:
    """It acknowledged nothing that counts: its term need not rise at each start."""
    env = FaultEnv()
    used(env, level=StorageLevel.MEMORY)
    written(env, stored(FIRST))
    directory = open_member(env, level=StorageLevel.MEMORY)
    assert not directory.lost
    assert directory.hard_state.current_term == 3
    directory.close()
    mine = B._replace(member=directory.identity.member, since=12)
    written(env, stored(FIRST, SECOND._replace(members=(A, mine))))
    directory = open_member(env, level=StorageLevel.MEMORY)
    assert directory.lost
    directory.close(lost=True)


def test_f7_nobody_deletes_the_log_of_another_member() -> None:
    env = FaultEnv()
    used(env)
    written(env, stored(FIRST, is_wiped=True))
    before = image(env)
    with pytest.raises(WrongDirectoryError):
        open_member(env, address="z:1")
    assert image(env) == before


def test_c35_a_file_that_cannot_be_read_is_no_loss_beside_a_log() -> None:
    env = FaultEnv()
    used(env)
    written(env, stored(FIRST))
    for copy in COPIES:
        env.corrupt(copy, 40, 1)
    directory = open_member(env)
    assert directory.configurations == NOTHING_STORED
    assert directory.log.last_index == 4
    directory.close()


def test_c35_a_member_with_its_log_in_memory_does_not_start_without_it() -> None:
    env = FaultEnv()
    used(env, level=StorageLevel.MEMORY)
    written(env, stored(FIRST))
    for copy in COPIES:
        env.corrupt(copy, 40, 1)
    before = image(env)
    with pytest.raises(CorruptLogError, match="configuration"):
        open_member(env, level=StorageLevel.MEMORY)
    assert image(env) == before


def test_who_is_the_only_voter_has_nobody_to_give_back_what_is_lost() -> None:
    env = FaultEnv()
    used(env)
    identity, _ = read_identity(env, PATH)
    assert identity is not None
    assert not is_sole_voter(NOTHING_STORED, identity)
    mine = MemberRecord(identity.member, MemberType.ACTIVE, "a:1")
    alone, two = FIRST._replace(members=(mine, B)), SECOND._replace(members=(mine, A))
    assert is_sole_voter(stored(alone), identity)
    assert not is_sole_voter(stored(two), identity)
    assert is_sole_voter(stored(alone, two), identity), "the second has no copy so far"
    assert is_sole_voter(stored(two, alone._replace(entry=EntryId(4, 20))), identity)
