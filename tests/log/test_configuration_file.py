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
    CONFIGURATION_FILE,
    NOTHING_STORED,
    ConfigurationFile,
    StoredConfigurations,
    is_sole_voter,
)
from copycat.member.identity import IDENTITY_FILES, Identity, read_identity, write_identity
from copycat.protocol.member_record import ConfigurationRecord, MemberRecord
from copycat.storage import FaultEnv
from copycat.types import EntryId, MemberId, MemberType, StorageLevel
from tests.log.test_directory import MEMBERS, PATH, image, open_member, used

FILE = f"{PATH}/{CONFIGURATION_FILE}"
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


@pytest.mark.parametrize("operations", range(8))
def test_c35_a_power_cut_leaves_the_old_or_the_new(operations: int) -> None:
    env, file = made()
    old, new, is_written = stored(FOUNDERS, FIRST), stored(FIRST, SECOND), True
    file.write(old)
    env.stop_after(operations)
    try:
        file.write(new)
    except DiskError:
        is_written = False
    env.crash(operations)
    env.stop_after(1 << 62)
    assert file.read() in ((new,) if is_written else (old, new))


@pytest.mark.parametrize(("operation", "error"), [("create", "ENOSPC"), ("sync", "EIO")])
def test_a_disk_that_does_not_take_it_leaves_what_was_there(operation: str, error: str) -> None:
    env, file = made()
    file.write(stored(FIRST))
    env.fail(operation, 1, error)
    with pytest.raises(DiskFullError if error == "ENOSPC" else DiskError):
        file.write(stored(FIRST, SECOND))
    assert file.read() == stored(FIRST)


def test_any_byte_that_is_wrong_is_noticed() -> None:
    env, file = made()
    file.write(stored(FOUNDERS, FIRST, SECOND))
    for offset in range(env.size(FILE)):
        env.corrupt(FILE, offset, 0x10)
        with pytest.raises(CorruptLogError):
            file.read()
        env.corrupt(FILE, offset, 0x10)
    assert file.read() == stored(FOUNDERS, FIRST, SECOND)


def test_c47_a_newer_version_is_named() -> None:
    env, file = made()
    env.replace_file(FILE, seal(b"COPYCNF\0", 2, b""))
    with pytest.raises(FormatVersionError, match="version 2"):
        file.read()
    later = (2).to_bytes(2, "little") + b"later"
    env.replace_file(
        FILE, seal(b"COPYCNF\0", 1, bytes(4) + len(later).to_bytes(4, "little") + later)
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
        env.replace_file(FILE, seal(b"COPYCNF\0", 1, body))
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
    assert f"{PATH}/{CONFIGURATION_FILE}" not in image(env)
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
    env.corrupt(FILE, 40, 1)
    directory = open_member(env)
    assert directory.configurations == NOTHING_STORED
    assert directory.log.last_index == 4
    directory.close()


def test_c35_a_member_with_its_log_in_memory_does_not_start_without_it() -> None:
    env = FaultEnv()
    used(env, level=StorageLevel.MEMORY)
    written(env, stored(FIRST))
    env.corrupt(FILE, 40, 1)
    before = image(env)
    with pytest.raises(CorruptLogError, match="configuration"):
        open_member(env, level=StorageLevel.MEMORY)
    assert image(env) == before


def test_who_is_the_only_voter_has_nobody_to_give_back_what_is_lost() -> None:
    env = FaultEnv()
    used(env)
    identity, _ = read_identity(env, PATH)
    assert identity is not None
    assert not is_sole_voter(env, PATH, identity)
    mine = MemberRecord(identity.member, MemberType.ACTIVE, "a:1")
    written(env, stored(FIRST._replace(members=(mine, B))))
    assert is_sole_voter(env, PATH, identity)
    written(env, stored(FIRST._replace(members=(mine, A))))
    assert not is_sole_voter(env, PATH, identity)
