"""C39: when a leader gives the place of a live voter to another member."""

from __future__ import annotations

from collections.abc import Mapping

from copycat.protocol.member_record import HealingPolicy
from copycat.raft.changes import ConfigurationChange, goal_holds
from copycat.raft.configuration import Configuration
from copycat.raft.healing import HealingCause, HealingPlan, HealingStep, MemberSight
from copycat.raft.spread import spread
from copycat.types import ChangeKind, MemberId, MemberType
from tests.raft.test_healing import (
    ACTIVE,
    AWAY,
    ENTRY,
    NEAR,
    NEXT,
    PASSIVE,
    POLICY,
    A,
    B,
    C,
    D,
    E,
    F,
    after_step,
    change,
    configuration,
    plan,
    step,
)

SPREAD = POLICY._replace(target_passive=0)
SLOW = SPREAD._replace(replace_slow_after_ms=5_000)


def uneven(policy: HealingPolicy = SPREAD) -> Configuration:
    """Zone z came back: its member is passive now, and two of the voters are in zone x."""
    return configuration(voters="a@x b@y c@x", passive="d@z", policy=policy)


def test_c39_a_voter_of_the_fullest_domain_goes_when_another_domain_has_none() -> None:
    now = uneven()
    first = plan(now).next_step()
    assert first is not None
    assert (first.what, first.cause) == ("d:1 becomes active", HealingCause.UNEVEN)
    assert first.reason == (
        "it takes the place of c:1: 2 of the voters in x, and 0 of the voters in z"
    )
    half = after_step(now, first)
    assert [each.member for each in half.members if each.is_leaving] == [C], "A leads, and stays"
    assert step(half, leader=B) == "c:1 becomes passive", "whoever leads then"
    after = after_step(half, plan(half, leader=B).next_step())
    assert step(after) == "", "a voter in each zone"


def test_c39_each_half_of_a_swap_spreads_the_voters_no_worse() -> None:
    policy = SPREAD._replace(target_active=5)
    now = configuration(voters="a@x b@x c@x d@y e@y", passive="f@y", policy=policy)
    assert step(now) == "", "three and two is as even as five voters can be"
    now = configuration(voters="a@x b@x c@x d@x e@y", passive="f@y", policy=policy)
    first = plan(now).next_step()
    half = after_step(now, first)
    after = after_step(half, plan(half).next_step())
    heard = frozenset(now.ids)
    rows = [spread(each, heard, 5) for each in (now, half, after)]
    assert rows == sorted(rows)
    assert rows[0] < rows[-1]


def test_c39_two_domains_that_are_as_full_become_even_step_by_step() -> None:
    policy = SPREAD._replace(target_active=9)
    voters = "a@x b@x c@x d@x e@y f@y g@y h@y i@z"
    now = configuration(voters=voters, passive="j@z k@z", policy=policy)
    for _ in range(4):
        now = after_step(now, plan(now).next_step())
    counts = [each.failure_domain for each in now.members if each.type is ACTIVE]
    assert [counts.count(domain) for domain in "xyz"] == [3, 3, 3]
    assert step(now) == ""


def test_c39_no_live_voter_moves_unless_the_voters_are_spread_better() -> None:
    even = configuration(voters="a@x b@y c@z", passive="d@x e@w", policy=SPREAD)
    assert step(even) == "", "one domain for another is no gain"
    assert step(uneven(SPREAD._replace(rebalance=False))) == "", "it is switched off"
    unnamed = configuration(voters="a b c", passive="d@z", policy=SPREAD)
    assert step(unnamed) == "", "no voter names a domain"
    half_named = configuration(voters="a@x b@x c", passive="d@z", policy=SPREAD)
    assert step(half_named) == "", "the domains are being named"
    assert step(configuration(voters="a@x b@x c@y", passive="d", policy=SPREAD)) == ""


def test_c39_no_live_voter_moves_while_anything_is_missing() -> None:
    now = uneven()
    assert step(now, D) == ""
    assert step(now, far={D}) == ""
    assert step(now, resting={D}) == "", "its zone flaps"
    assert step(change(now, ChangeKind.DEMOTE, D, PASSIVE)) == "", "a user demoted it"
    sights = {B: NEAR, C: MemberSight(250, is_in_reach=True), D: NEAR}
    a_moment = HealingPlan(now, A, sights, bool)
    assert a_moment.next_step() is None, "a voter was not heard in the last round"
    dead = configuration(voters="a@x b@x c@x", passive="d@z", policy=SPREAD)
    assert step(dead, B) == "b:1 becomes passive"
    more = configuration(voters="a@x b@y c@x e@x", passive="d@z", policy=SPREAD)
    assert step(more) == "", "a user has given the vote to one more than the target"


def test_c39_the_voter_of_the_least_weight_goes_and_never_the_leader() -> None:
    now = configuration(voters="a@x b@x c@x", passive="d@y", policy=SPREAD)
    b = now.record(B)
    assert b is not None
    assert leaving(now) == {B}
    assert leaving(now.with_record(b._replace(weight=1), ENTRY)) == {C}
    assert leaving(now, leader=B) == {A}


def leaving(now: Configuration, leader: MemberId = A) -> set[MemberId]:
    half = after_step(now, plan(now, leader=leader).next_step())
    return {each.member for each in half.members if each.is_leaving}


def test_c39_a_user_ends_a_swap_of_live_voters() -> None:
    half = after_step(uneven(), plan(uneven()).next_step())
    wish = ConfigurationChange.promote(C, ACTIVE, ENTRY)
    assert not goal_holds(wish, half)
    stays = change(half, ChangeKind.PROMOTE, C, ACTIVE)
    assert step(stays) == "", "it is one voter more than the target, and the user wants it"
    for kind, member, to in (
        (ChangeKind.DEMOTE, D, PASSIVE),
        (ChangeKind.DEMOTE, B, PASSIVE),
        (ChangeKind.REMOVE, D, MemberType.INACTIVE),
    ):
        back = change(half, kind, member, to)
        assert not any(each.is_leaving for each in back.members), "no voter is too many"


def test_c39_the_other_half_waits_until_it_loses_no_voter() -> None:
    half = after_step(uneven(), plan(uneven()).next_step())
    assert step(half, D) == "d:1 becomes passive", "D died: C is one of the three, and stays"
    after = after_step(half, plan(half, {D}).next_step())
    assert not any(each.is_leaving for each in after.members)


def test_c39_no_reserve_comes_for_the_passive_member_that_got_the_vote() -> None:
    policy = POLICY._replace(target_passive=1)
    now = configuration(voters="a@x b@y c@x", passive="d@z", reserve="e@z", policy=policy)
    half = after_step(now, plan(now).next_step())
    sights = dict.fromkeys(half.others(A), NEAR)

    def keeps_c(after: Configuration) -> bool:
        return after.has_vote(C)

    blocked = HealingPlan(half, A, sights, keeps_c)
    assert blocked.next_step() is None, "C will be passive in a moment"


# ---- slow voters ------------------------------------------------------------------------------


def slow(
    now: Configuration,
    lags: Mapping[MemberId, tuple[int, frozenset[MemberId]]],
) -> HealingPlan:
    """lags: for how long, and who was nearer. A slow voter is in nobody's reach (C37), unless
    there are several, which had all that this leader had a moment ago."""
    sights = {each: MemberSight(0, is_in_reach=each not in lags) for each in now.others(A)}
    for each, (slow_ms, nearer) in lags.items():
        sights[each] = sights[each]._replace(slow_ms=slow_ms, nearer=nearer)

    def may_append(after: Configuration) -> bool:
        return after.has_quorum([each for each in now.voters if each not in lags])

    return HealingPlan(now, A, sights, may_append if len(lags) == 1 else bool)


def planned(healing: HealingPlan) -> HealingStep:
    actual = healing.next_step()
    assert actual is not None
    return actual


def test_c39_a_slow_voter_gives_its_place_to_a_member_that_was_nearer() -> None:
    policy = SLOW._replace(target_active=5)
    now = configuration(voters="a b c d e", passive="f", policy=policy)
    first = planned(slow(now, {C: (5_000, frozenset({F}))}))
    assert (first.what, first.cause) == ("f:1 becomes active", HealingCause.SLOW_VOTER)
    assert first.reason == "it takes the place of c:1: c:1 was behind for 5.0 s"
    half = after_step(now, first)
    assert step(half, leader=B) == "c:1 becomes passive"


def test_c39_of_three_voters_the_slow_one_goes_first() -> None:
    now = configuration(voters="a b c", passive="d", policy=SLOW)
    first = planned(slow(now, {C: (5_000, frozenset({D}))}))
    assert (first.what, first.reason) == ("c:1 becomes passive", "c:1 was behind for 5.0 s")
    after = after_step(now, first)
    assert step(after, resting={C}) == "d:1 becomes active"


def test_c39_slow_voters_stay_unless_it_is_switched_on_and_one_was_much_nearer() -> None:
    now = configuration(voters="a b c", passive="d", policy=SLOW)
    near = frozenset({D})
    assert slow(now, {C: (4_999, near)}).next_step() is None
    two = configuration(voters="a b c e", passive="d", policy=SLOW._replace(target_active=4))
    assert slow(two, {B: (9_000, near), C: (9_000, near)}).next_step() is None, "half of them"
    healing = slow(now, {C: (5_000, frozenset())})
    assert healing.next_step() is None
    assert healing.obstacles == [
        "c:1 is slow, and no passive member is much quicker and spreads the voters as well"
    ]
    off = configuration(voters="a b c", passive="d", policy=SPREAD)
    assert slow(off, {C: (60_000, near)}).next_step() is None


def test_c39_a_slow_voter_does_not_go_where_the_voters_would_be_spread_worse() -> None:
    near = frozenset({D, E})
    now = configuration(voters="a@x b@y c@z", passive="d@x e@y", policy=SLOW)
    assert slow(now, {C: (5_000, near)}).next_step() is None
    now = configuration(voters="a@x b@y c@z", passive="d@x e@z", policy=SLOW)
    after = after_step(now, planned(slow(now, {C: (5_000, near)})))
    assert step(after, resting={C}) == "e:1 becomes active"


# ---- lost directories -------------------------------------------------------------------------


def came_back() -> Configuration:
    """C lost its disk: D has come in its place, and C has a vote still."""
    now = configuration(voters="a b c", passive="d", policy=SPREAD)
    d = now.record(D)
    assert d is not None
    return now.with_record(d._replace(replaces=C), ENTRY)


def test_c39_a_directory_that_is_known_to_be_lost_is_removed() -> None:
    now = came_back()
    assert step(now, C) == "c:1 becomes passive"
    now = after_step(now, plan(now, {C}).next_step())
    now = after_step(now, plan(now, {C}).next_step())
    assert now.has_vote(D)
    last = plan(now, {C}).next_step()
    assert last is not None
    assert (last.what, last.cause) == ("c:1 is removed", HealingCause.LOST_DIRECTORY)
    assert last.reason == "its directory is lost, and d:1 has come in its place"
    after = after_step(now, last)
    assert after.ids == (A, B, D)
    assert step(after) == ""


def test_c39_who_answers_has_a_vote_or_was_demoted_by_a_user_is_not_removed() -> None:
    demoted = after_step(came_back(), plan(came_back(), {C}).next_step())
    full = after_step(demoted, plan(demoted, {C}).next_step())
    assert step(full) == "", "C answers, wherever its disk was"
    nearly = HealingPlan(full, A, {C: MemberSight(29_999, is_in_reach=False)}, bool)
    assert nearly.next_step() is None
    by_user = change(full, ChangeKind.DEMOTE, C, PASSIVE)
    assert step(by_user, C) == ""
    others = full.with_record(full.members[-1]._replace(replaces=MemberId(99)), NEXT)
    assert HealingPlan(others, A, {C: AWAY}, bool).next_step() is None, "nobody is in its place"
