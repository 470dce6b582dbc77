"""What each restriction forbids, and what lifts it: the object alone, without a core."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from copycat.raft.configuration import Configuration
from copycat.raft.eligibility import NEVER, PERMISSIONS, Eligibility, Restriction
from copycat.types import NO_ENTRY, EntryId, MemberId

ME, B, C, STRANGER = (MemberId(number) for number in (1, 2, 3, 9))
THREE = Configuration.of(ME, B, C)
WITHOUT = Configuration.of(B, C, non_voters=(ME,))
LAST, LOST = EntryId(3, 5), EntryId(4, 7)

Change = Callable[[Eligibility], object]


def eligibility(
    *, fresh: bool = False, lost: bool = False, lost_upto: EntryId = NO_ENTRY, voters: int = 3
) -> Eligibility:
    """Of a member whose hard state has reached term 5. voters: 0: two others vote, it does not."""
    configuration = Configuration.of(*map(MemberId, range(1, voters + 1))) if voters else WITHOUT
    return Eligibility(
        ME, configuration, current_term=5, fresh=fresh, lost=lost, lost_upto=lost_upto
    )


def fresh() -> Eligibility:
    return eligibility(fresh=True)


def lost() -> Eligibility:
    return eligibility(lost=True)


def recovering() -> Eligibility:
    return eligibility(lost_upto=LOST)


def loss_accepted() -> Eligibility:
    made = recovering()
    made.accept_loss(LOST)
    return made


def non_voter() -> Eligibility:
    return eligibility(voters=0)


def copy_from_before_the_first_election() -> Eligibility:
    made = fresh()
    assert made.report_loss(LOST, NO_ENTRY)
    return made


def reachable(peer: MemberId, *, fresh: bool = False, lost: bool = False) -> Change:
    return lambda one: one.on_reachable(peer, THREE, fresh=fresh, lost=lost, last=LAST)


def at(peer: MemberId, log_end: EntryId = NO_ENTRY) -> Change:
    """`peer` said where its log ends."""
    return lambda one: one.on_log_position(peer, log_end, THREE, LAST)


def all_lost() -> Eligibility:
    made = lost()
    for peer in (B, C):
        reachable(peer, lost=True)(made)
        at(peer, LAST)(made)
    return made


def less_left() -> Eligibility:
    made = all_lost()
    assert at(C, LOST)(made)
    return made


def unreachable(peer: MemberId) -> Change:
    return lambda one: one.on_unreachable(peer)


@pytest.mark.parametrize(
    ("make", "restrictions", "vote_floor", "may_campaign", "accepts_gaps"),
    [
        (eligibility, (), LAST, True, True),
        (fresh, (Restriction.FRESH,), NEVER, False, True),
        (lost, (Restriction.LOST,), NEVER, False, False),
        (all_lost, (Restriction.ALL_LOST,), LAST, True, False),
        (less_left, (Restriction.LESS_LEFT,), LAST, False, False),
        (recovering, (Restriction.RECOVERING,), LOST, False, False),
        (loss_accepted, (Restriction.LOSS_ACCEPTED,), LAST, True, False),
        (non_voter, (Restriction.NON_VOTER,), LAST, False, True),
        (
            copy_from_before_the_first_election,
            (Restriction.FRESH, Restriction.RECOVERING),
            NEVER,
            False,
            False,
        ),
    ],
)
def test_what_each_restriction_forbids(
    make: Callable[[], Eligibility],
    restrictions: tuple[Restriction, ...],
    vote_floor: EntryId,
    may_campaign: bool,
    accepts_gaps: bool,
) -> None:
    one = make()
    assert one.restrictions == restrictions
    assert one.vote_floor(LAST) == vote_floor
    assert one.may_vote is (vote_floor != NEVER)
    assert (one.may_campaign, one.accepts_gaps) == (may_campaign, accepts_gaps)


@pytest.mark.parametrize(
    ("make", "changes", "restrictions"),
    [
        # A majority of empty logs, itself included, proves that nothing was ever committed.
        (fresh, [reachable(B, fresh=True)], ()),
        (fresh, [reachable(B, lost=True)], (Restriction.FRESH,)),
        (fresh, [reachable(B)], (Restriction.FRESH,)),
        (fresh, [reachable(STRANGER, fresh=True)], (Restriction.FRESH,)),
        (fresh, [unreachable(B), reachable(C, fresh=True)], ()),
        (fresh, [Eligibility.on_incarnation_committed], ()),
        (fresh, [lambda one: one.on_entry(9)], (Restriction.FRESH,)),
        # Of the logs that hold no more than a lost one, every voter's is needed, at once.
        (lost, [reachable(B, lost=True)], (Restriction.LOST,)),
        (lost, [at(B), at(C), reachable(B, lost=True)], (Restriction.LOST,)),
        (lost, [reachable(B, lost=True), reachable(C, fresh=True), at(B)], (Restriction.LOST,)),
        (
            lost,
            [reachable(B, lost=True), reachable(C, fresh=True), at(B), at(C)],
            (Restriction.ALL_LOST,),
        ),
        # Where a log ends may be said before the link to it is open.
        (
            lost,
            [at(C, LOST), at(B), reachable(B, lost=True), reachable(C, lost=True)],
            (Restriction.LESS_LEFT,),
        ),
        (
            lost,
            [at(B), at(C), reachable(B, lost=True), reachable(C)],
            (Restriction.LOST,),
        ),
        (
            lost,
            [at(B), at(C), reachable(B, lost=True), unreachable(B), reachable(C, lost=True)],
            (Restriction.LOST,),
        ),
        (all_lost, [lambda one: one.on_durable(EntryId(4, 9))], (Restriction.ALL_LOST,)),
        (all_lost, [lambda one: one.on_durable(EntryId(5, 1))], ()),
        (less_left, [lambda one: one.on_durable(EntryId(5, 1))], ()),
        (lost, [Eligibility.on_incarnation_committed], (Restriction.LOST,)),
        (lost, [Eligibility.on_loss_recorded], (Restriction.LOST,)),
        (lost, [lambda one: one.on_entry(4)], (Restriction.LOST,)),
        (lost, [lambda one: one.on_entry(5)], ()),
        (recovering, [lambda one: one.on_durable(EntryId(4, 6))], (Restriction.RECOVERING,)),
        (recovering, [lambda one: one.on_durable(EntryId(3, 900))], (Restriction.RECOVERING,)),
        (recovering, [lambda one: one.on_durable(LOST)], ()),
        (recovering, [lambda one: one.on_durable(EntryId(5, 1))], ()),
        (recovering, [lambda one: one.on_committed(LOST)], (Restriction.RECOVERING,)),
        (recovering, [lambda one: one.accept_loss(LOST)], (Restriction.LOSS_ACCEPTED,)),
        (loss_accepted, [lambda one: one.on_durable(LOST)], (Restriction.LOSS_ACCEPTED,)),
        (
            loss_accepted,
            [lambda one: one.on_committed(EntryId(4, 6))],
            (Restriction.LOSS_ACCEPTED,),
        ),
        (loss_accepted, [lambda one: one.on_committed(LOST)], ()),
        (non_voter, [lambda one: one.on_configuration(THREE)], ()),
        (non_voter, [lambda one: one.on_configuration(WITHOUT)], (Restriction.NON_VOTER,)),
        # It is no new directory, and is bound by what it lost from when that is recorded.
        (
            copy_from_before_the_first_election,
            [Eligibility.on_loss_recorded],
            (Restriction.RECOVERING,),
        ),
    ],
)
def test_what_lifts_each_restriction(
    make: Callable[[], Eligibility], changes: list[Change], restrictions: tuple[Restriction, ...]
) -> None:
    one = make()
    before = one.restrictions
    answers = [change(one) for change in changes]
    assert one.restrictions == restrictions
    if len(restrictions) < len(before):
        assert answers[-1] is True, "the caller draws a new election timeout"


@pytest.mark.parametrize("make", [fresh, all_lost])
def test_what_was_lifted_leaves_nothing_behind(make: Callable[[], Eligibility]) -> None:
    one = make()
    one.on_reachable(B, THREE, fresh=True, lost=False)
    one.on_reachable(C, THREE, fresh=True, lost=False)
    one.on_durable(EntryId(5, 1))
    assert (one.contacted_voters, one.lost_below_term) == (frozenset(), 0)
    assert not one.on_reachable(B, THREE, fresh=True, lost=False)


@pytest.mark.parametrize("make", [eligibility, recovering])
def test_a_report_of_a_loss_binds_only_a_log_that_lacks_it(
    make: Callable[[], Eligibility],
) -> None:
    one = make()
    least = one.vote_floor(LAST)
    assert not one.report_loss(least, LAST)
    assert not one.report_loss(EntryId(2, 900), LAST)
    assert one.unrecorded_loss == NO_ENTRY
    more = EntryId(least.term, least.index + 1)
    assert one.report_loss(more, LAST)
    assert (one.unrecorded_loss, one.vote_floor(LAST)) == (more, more)
    assert one.restrictions == (Restriction.RECOVERING,)


@pytest.mark.parametrize(("is_fresh", "is_lost"), [(True, False), (False, True)])
def test_a_lone_voter_has_nobody_to_ask(is_fresh: bool, is_lost: bool) -> None:
    assert eligibility(fresh=is_fresh, lost=is_lost, voters=1).restrictions == ()


def test_c35_the_newest_configuration_counts_when_every_log_is_lost() -> None:
    """Whoever was away while the members changed must not begin again with the members before."""
    entry = EntryId(4, 20)
    changed = THREE._replace(entry=entry)
    one = Eligibility(ME, changed, current_term=5, fresh=False, lost=True, lost_upto=NO_ENTRY)
    assert one.position(LAST) == LAST
    for peer in (B, C):
        one.on_reachable(peer, changed, fresh=False, lost=True, last=LAST)
        one.on_log_position(peer, LAST, changed, LAST)
    assert one.position(LAST) == one.vote_floor(LAST) == entry
    one.on_durable(EntryId(5, 1))
    assert one.vote_floor(EntryId(5, 1)) == EntryId(5, 1)


@pytest.mark.parametrize("proved", [all_lost, less_left])
def test_c30_a_member_that_joins_votes_when_every_log_is_lost_and_takes_no_gaps(
    proved: Callable[[], Eligibility],
) -> None:
    one = lost()
    one.on_configuration(THREE, is_joining=True)
    assert not one.may_vote
    one = proved()
    may_campaign = one.may_campaign
    one.on_configuration(THREE, is_joining=True)
    assert one.may_vote
    assert one.may_campaign is may_campaign
    assert one.is_joining
    assert not one.accepts_gaps


def test_c13_a_lone_voter_that_joined_may_lead_again() -> None:
    alone = Configuration.of(ME)._replace(entry=EntryId(4, 20))
    one = Eligibility(ME, alone, current_term=5, fresh=False, lost=True, lost_upto=NO_ENTRY)
    one.on_configuration(alone, is_joining=True)
    assert one.may_campaign


def test_every_restriction_has_a_row_and_no_message_reaches_the_floor_of_nobody() -> None:
    assert set(PERMISSIONS) == set(Restriction)
    assert EntryId((1 << 64) - 1, (1 << 64) - 1) < NEVER
