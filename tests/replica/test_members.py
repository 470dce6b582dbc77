"""The table of members: what a configuration means for links, and what is asked of it."""

from __future__ import annotations

from copycat.raft.configuration import Configuration, MemberRecord
from copycat.replica.members import MemberTable
from copycat.types import EntryId, MemberId, MemberType

ME, B, C, D = map(MemberId, (1, 2, 3, 4))
FOUNDERS = Configuration.bootstrap({ME: "a:1", B: "b:1", C: "c:1"})


def test_the_founders() -> None:
    table = MemberTable(ME, FOUNDERS)
    assert table.own_address == "a:1"
    assert table.addresses == ("a:1", "b:1", "c:1")
    assert table.peers == {B: "b:1", C: "c:1"}
    assert table.address(D) == ""
    assert table.address(MemberId(0)) == ""


def test_another_configuration_says_which_links_begin_and_end() -> None:
    table = MemberTable(ME, FOUNDERS)
    moved = MemberRecord(C, MemberType.ACTIVE, "c:9")
    new = MemberRecord(D, MemberType.PASSIVE, "d:1")
    mine = MemberRecord(ME, MemberType.ACTIVE, "a:1")
    changes = table.adopt(Configuration.from_members([mine, moved, new], EntryId(2, 7)))
    assert changes.to_connect == (moved, new)
    assert changes.to_disconnect == (B, C)
    assert table.peers == {C: "c:9", D: "d:1"}


def test_another_type_is_no_reason_to_dial_again() -> None:
    table = MemberTable(ME, FOUNDERS)
    demoted = MemberRecord(C, MemberType.PASSIVE, "c:1")
    changes = table.adopt(Configuration.from_members([*FOUNDERS.members[:2], demoted]))
    assert changes == ((), ())


def test_c16_the_first_incarnation_that_was_committed_holds() -> None:
    table = MemberTable(ME, FOUNDERS)
    table.record_incarnation(B, 6)
    table.record_incarnation(B, 7)
    assert table.committed_incarnations == {B: 6}
