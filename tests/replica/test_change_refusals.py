"""Each refusal of a change is a sentence with the real values, and an error of its own type."""

from __future__ import annotations

import pytest

from copycat.errors import CopycatError
from copycat.protocol.change_errors import change_error
from copycat.protocol.client import ChangeRefused, MemberView
from copycat.protocol.member_record import MemberRecord
from copycat.raft.changes import ConfigurationChange
from copycat.raft.configuration import Configuration
from copycat.raft.effects import ChangeFinished
from copycat.replica.change_refusals import refusal_text
from copycat.types import ChangeRefusal, EntryId, MemberId, MemberType

A, B, C, D = (MemberId(number) for number in range(1, 5))
NOW = Configuration.from_members(
    [
        MemberRecord(A, MemberType.ACTIVE, "a:1"),
        MemberRecord(B, MemberType.ACTIVE, "b:1"),
        MemberRecord(C, MemberType.PASSIVE, "c:1", 40),
    ],
    EntryId(3, 40),
)
BASE = EntryId(2, 31)


def error_of(
    refusal: ChangeRefusal, change: ConfigurationChange, *, link_reason: str = ""
) -> CopycatError:
    missing = (B,) if refusal is ChangeRefusal.NO_MAJORITY else ()
    effect = ChangeFinished(7, NOW, refusal, missing, B if missing else MemberId(0))
    text = refusal_text(effect, change, "a:1", link_reason)
    members = tuple(MemberView(each.member, each.type, each.address) for each in NOW.members)
    addresses = tuple("b:1" for _ in missing)
    return change_error(ChangeRefused(0, refusal, NOW.entry, "a:1", text, addresses, members))


PROMOTE = ConfigurationChange.promote(C, MemberType.ACTIVE, BASE)
DEMOTE = ConfigurationChange.demote(A, MemberType.PASSIVE, BASE)
REMOVE = ConfigurationChange.remove(A, BASE)
ADD = ConfigurationChange.add(MemberRecord(D, MemberType.PASSIVE, "d:1"), BASE)


@pytest.mark.parametrize(
    ("refusal", "change", "code", "words"),
    [
        (ChangeRefusal.NOT_LEADER, REMOVE, "not-leader", "before a:1 is removed"),
        (ChangeRefusal.NO_OWN_TERM_COMMIT, PROMOTE, "no-leader", "a:1 was just elected"),
        (ChangeRefusal.IN_FLIGHT, PROMOTE, "change-in-progress", "c:1 becomes active only"),
        (
            ChangeRefusal.STALE_BASE,
            PROMOTE,
            "stale-configuration",
            "entry 40 of term 3, and the change names entry 31 of term 2",
        ),
        (ChangeRefusal.UNKNOWN_MEMBER, ADD, "unknown-member", "no member d:1 (a:1, b:1, c:1)"),
        (ChangeRefusal.MEMBER_ID_REUSED, ADD, "member-id-reused", f"{D:032x} of d:1"),
        (ChangeRefusal.WRONG_TYPE, PROMOTE, "wrong-member-type", "c:1 is passive"),
        (ChangeRefusal.LAST_VOTER, DEMOTE, "last-voter", "a:1 is the only voter"),
        (ChangeRefusal.LEADER_ITSELF, DEMOTE, "transfer-first", "a:1 leads"),
        (ChangeRefusal.NOT_CONNECTED, ADD, "member-unreachable", "no connection to d:1: refused"),
        (
            ChangeRefusal.NO_MAJORITY,
            PROMOTE,
            "majority-at-risk",
            "if c:1 becomes active, too few voters are in reach",
        ),
        (ChangeRefusal.TIMED_OUT, PROMOTE, "promotion-timeout", "c:1 came no nearer"),
        (ChangeRefusal.SUPERSEDED, PROMOTE, "change-superseded", "c:1 was made passive"),
        (ChangeRefusal.TOO_MANY, PROMOTE, "change-in-progress", "wait at a:1"),
    ],
)
def test_a_refusal_says_what_happened(
    refusal: ChangeRefusal, change: ConfigurationChange, code: str, words: str
) -> None:
    error = error_of(refusal, change, link_reason="refused")
    assert error.code == code
    assert words in error.message
    assert error.hint


def test_an_id_that_is_in_use_says_where() -> None:
    elsewhere = ConfigurationChange.add(MemberRecord(C, MemberType.PASSIVE, "d:1"), BASE)
    error = error_of(ChangeRefusal.MEMBER_ID_REUSED, elsewhere)
    assert error.message == f"the member id {C:032x} of d:1 is that of c:1"
    assert error_of(ChangeRefusal.MEMBER_ID_REUSED, ADD).message.endswith("that was removed")


def test_every_refusal_is_tried() -> None:
    (mark,) = test_a_refusal_says_what_happened.pytestmark  # type: ignore[attr-defined]
    assert {row[0] for row in mark.args[1]} == set(ChangeRefusal)


def test_an_error_shows_the_members_of_now() -> None:
    error = error_of(ChangeRefusal.NO_MAJORITY, PROMOTE)
    assert error.message.endswith("for a majority (missing: b:1); demote b:1 first")
    assert error.missing == ("b:1",)
    assert error.render().splitlines()[1] == ("  active a:1 (leader) b:1 (missing) · passive c:1")


def test_two_members_at_one_address_are_told_apart() -> None:
    """The disk of B was lost, and C has taken its place."""
    there = [
        MemberRecord(A, MemberType.ACTIVE, "a:1"),
        MemberRecord(B, MemberType.ACTIVE, "b:1"),
        MemberRecord(C, MemberType.PASSIVE, "b:1", 40),
    ]
    now = Configuration.from_members(there, EntryId(3, 40))
    effect = ChangeFinished(7, now, ChangeRefusal.NO_MAJORITY, (B,), B)
    text = refusal_text(effect, PROMOTE, "a:1", "")
    assert text.startswith("if b:1 (id 00000000) becomes active, too few voters")
    assert text.endswith("(missing: b:1 (id 00000000)); demote b:1 (id 00000000) first")
    views = [
        MemberView(each.member, each.type, each.address, is_reachable=each.member != B)
        for each in there
    ]
    refused = ChangeRefused(
        0, ChangeRefusal.NO_MAJORITY, now.entry, "a:1", text, ("b:1",), tuple(views)
    )
    state = "active a:1 (leader) b:1 (id 00000000) (missing) · passive b:1 (id 00000000)"
    assert change_error(refused).state == state
