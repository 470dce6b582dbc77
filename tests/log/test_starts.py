"""C42: every start of a member is a number in its identity."""

from __future__ import annotations

import itertools
from functools import partial

import pytest

from copycat.config import member_id
from copycat.errors import CorruptLogError
from copycat.member.directory import MemberDirectory
from copycat.member.identity import STARTS_MAX, Identity, read_identity, write_identity
from copycat.protocol.member_record import DirectoryStart
from copycat.storage import FaultEnv

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


def test_c42_the_newest_starts_are_kept() -> None:
    identity = NEW
    for number in itertools.islice(itertools.count(1), STARTS_MAX + 5):
        identity = identity.with_start(number)
    numbers = [each.number for each in identity.starts]
    assert numbers == [*range(6, STARTS_MAX + 6)]
    assert Identity.decode(identity.encode(), "x") == identity


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
