"""C42: every start of a member is a number in its identity."""

from __future__ import annotations

import itertools
from functools import partial

import pytest

from copycat.config import member_id
from copycat.errors import CorruptLogError, StorageError
from copycat.member.configuration_file import StoredConfigurations
from copycat.member.directory import MemberDirectory
from copycat.member.identity import (
    IDENTITY_FILES,
    STARTS_MAX,
    Identity,
    read_identity,
    write_identity,
)
from copycat.protocol.member_record import ConfigurationRecord, DirectoryStart, MemberRecord
from copycat.storage import FaultEnv
from copycat.types import EntryId, MemberType

PATH = "/member"
MEMBER = member_id("test", "a:1")
NEW = Identity(cluster_name="test", address="a:1", members=("a:1",), member=MEMBER, incarnation=1)


def opened(env: FaultEnv, bits: int) -> MemberDirectory:
    return MemberDirectory.open(
        env,
        PATH,
        cluster_name="test",
        address="a:1",
        members=("a:1",),
        member=MEMBER,
        incarnation_source=partial(int, 7),
        start_source=partial(int, bits),
    )


def copy(env: FaultEnv, name: str) -> Identity:
    return Identity.decode(env.read_file(f"{PATH}/{name}"), name)


def test_c42_each_start_is_in_the_identity_before_anything_is_said() -> None:
    env = FaultEnv(3)
    for number in range(1, 5):
        directory = opened(env, 100 + number)
        assert directory.identity.starts[-1] == DirectoryStart(number, 100 + number)
        env.crash(number)  # nothing of it waits for a sync
        stored, missing = read_identity(env, PATH)
        assert stored == directory.identity
        assert not missing
    assert [each.number for each in directory.identity.starts] == [1, 2, 3, 4]


def test_c42_the_first_start_and_the_newest_ones_are_kept() -> None:
    """Nothing is dropped behind which a list could begin later: it would be let in then."""
    identity = NEW
    for number in range(1, STARTS_MAX + 6):
        identity = identity.with_start(number)
    numbers = [each.number for each in identity.starts]
    assert numbers == [1, *range(7, STARTS_MAX + 6)]
    assert Identity.decode(identity.encode(), "x") == identity


def test_c42_the_list_begins_with_the_committed_start_and_drops_none_that_is_written() -> None:
    identity = NEW
    for number in range(1, 8):
        identity = identity.with_start(number)
    committed, newest = identity.starts[2], identity.starts[4]
    for number in range(8, 2 * STARTS_MAX):
        identity = identity.with_start(number, (committed, newest))
    numbers = [each.number for each in identity.starts]
    assert numbers == [3, 5, *range(STARTS_MAX + 2, 2 * STARTS_MAX)]
    foreign = DirectoryStart(committed.number, 99)
    for number in range(2 * STARTS_MAX, 3 * STARTS_MAX):
        identity = identity.with_start(number, (foreign,))
    assert identity.starts[0] == committed, "a copy stays one"


def test_c42_a_start_reads_from_the_list_of_members_which_start_is_committed() -> None:
    env = FaultEnv(3)
    for number in range(1, 4):
        directory = opened(env, 100 + number)
        directory.close()
    committed = DirectoryStart(2, 102)
    record = MemberRecord(MEMBER, MemberType.ACTIVE, "a:1", start=committed)
    one = ConfigurationRecord(EntryId(1, 1), 9, (record,))
    directory.configuration_file.write(StoredConfigurations((one,)))
    assert [each.number for each in opened(env, 104).identity.starts] == [2, 3, 4]


def test_f27_a_crash_at_the_same_point_of_each_start_leaves_a_directory_that_opens() -> None:
    """Two starts that end between the two copies of the identity too."""
    for operations in itertools.count(1):
        env = FaultEnv(3)
        opened(env, 101).close()
        ends = 0
        for bits in (102, 103, 104):
            env.stop_after(operations)
            try:
                opened(env, bits).close()
            except StorageError:
                ends += 1
            env.crash(bits)
            env.stop_after(1 << 62)
            numbers = [copy(env, name).start_number for name in IDENTITY_FILES]
            assert abs(numbers[0] - numbers[1]) <= 1, "the copy that is behind is written first"
        before, _ = read_identity(env, PATH)
        assert before is not None
        after = opened(env, 105).identity
        assert after.starts == (*before.starts, DirectoryStart(before.start_number + 1, 105))
        if not ends:
            return


def test_c42_a_power_cut_between_the_two_copies_leaves_the_later_start() -> None:
    env = FaultEnv(3)
    env.make_directory(PATH)
    before = NEW.with_start(5)
    after = before.with_start(6)
    write_identity(env, PATH, before)
    write_identity(env, PATH, after, ("identity-a",))
    assert read_identity(env, PATH) == (after, ("identity-b",))
    write_identity(env, PATH, before.with_start(7), ("identity-b",))
    with pytest.raises(CorruptLogError, match="its two identities differ"):
        read_identity(env, PATH)
