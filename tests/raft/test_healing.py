"""C39: the next step of a leader that heals, for one configuration and what the leader sees."""

from __future__ import annotations

from collections.abc import Collection

from copycat.protocol.member_record import HealingPolicy, MemberRecord
from copycat.raft.changes import (
    ConfigurationChange,
    goal_holds,
    next_configuration,
    with_vote,
    without_flag,
)
from copycat.raft.configuration import Configuration
from copycat.raft.healing import HealingPlan, HealingStep, MemberSight
from copycat.types import ChangeKind, ChangeRefusal, EntryId, MemberId, MemberType

A, B, C, D, E, F = map(MemberId, range(1, 7))
ACTIVE, PASSIVE, RESERVE = MemberType.ACTIVE, MemberType.PASSIVE, MemberType.RESERVE
POLICY = HealingPolicy(3, 1, 30_000, 10_000, 60_000, is_on=True)
AWAY = MemberSight(30_000, is_in_reach=False)
NEAR = MemberSight(0, is_in_reach=True)
ENTRY, NEXT = EntryId(2, 40), EntryId(2, 41)


def configuration(
    *, voters: str = "", passive: str = "", reserve: str = "", policy: HealingPolicy = POLICY
) -> Configuration:
    """Members are letters; `c@zone` names a domain."""
    rows = [(text, kind) for kind, word in ((ACTIVE, voters), (PASSIVE, passive),
            (RESERVE, reserve)) for text in word.split()]  # fmt: skip
    members = []
    for text, kind in rows:
        letter, _, domain = text.partition("@")
        member = MemberId(ord(letter) - ord("a") + 1)
        members.append(MemberRecord(member, kind, f"{letter}:1", failure_domain=domain))
    return Configuration.from_members(members, ENTRY, policy)


def plan(
    now: Configuration,
    away: Collection[MemberId] = (),
    *,
    far: Collection[MemberId] = (),
    resting: Collection[MemberId] = (),
    leader: MemberId = A,
) -> HealingPlan:
    """A majority is what C37 asks for: voters that are heard, without one that is new."""
    sights = {
        each: AWAY if each in away else MemberSight(0, is_in_reach=each not in far)
        for each in now.others(leader)
    }

    def may_append(after: Configuration) -> bool:
        return after.has_quorum([each for each in now.voters if each not in away])

    return HealingPlan(now, leader, sights, may_append, resting)


def step(now: Configuration, *away: MemberId, **options: object) -> str:
    """The next step: what becomes of whom."""
    planned = plan(now, away, **options).next_step()  # type: ignore[arg-type]
    return "" if planned is None else planned.what


def change(
    now: Configuration, kind: ChangeKind, member: MemberId, to: MemberType
) -> Configuration:
    """What a user's change makes of it."""
    after = next_configuration(ConfigurationChange(kind, member, to, ENTRY), now, NEXT)
    assert not isinstance(after, ChangeRefusal)
    return after


def after_step(now: Configuration, planned: HealingStep | None) -> Configuration:
    """The configuration after a step, and after the vote that it leads to."""
    assert planned is not None
    after = next_configuration(planned.change, now, NEXT)
    assert not isinstance(after, ChangeRefusal)
    flagged = [each.member for each in after.members if each.is_promotable]
    return with_vote(flagged[0], after, NEXT) if flagged else after


def test_c39_of_three_voters_the_dead_one_goes_first() -> None:
    now = configuration(voters="a b c", passive="d")
    planned = plan(now, {C})
    first = planned.next_step()
    assert first is not None
    assert (first.what, first.reason) == ("c:1 becomes passive", "c:1 was not heard for 30.0 s")
    after = after_step(now, first)
    assert step(after, C) == "d:1 becomes active"
    assert step(after_step(after, plan(after, {C}).next_step()), C) == ""


def test_c39_of_five_voters_the_replacement_comes_first_and_the_next_leader_finishes() -> None:
    policy = POLICY._replace(target_active=5, target_passive=0)
    now = configuration(voters="a b c d e", passive="f", policy=policy)
    first = plan(now, {E}).next_step()
    assert first is not None
    assert first.what == "f:1 becomes active"
    half = after_step(now, first)
    record = half.record(E)
    assert record is not None
    assert record.is_leaving
    assert step(half, E, leader=B) == "e:1 becomes passive"
    assert step(half, leader=B) == "e:1 becomes passive", "it answers again, and is replaced"
    instead = plan(half, {C}, leader=B).next_step()
    assert instead is not None
    assert instead.what == "c:1 becomes passive", "E is one of the five that are heard"
    assert not any(each.is_leaving for each in after_step(half, instead).members)


def test_c39_a_promotion_that_is_taken_back_takes_its_mark_back() -> None:
    policy = POLICY._replace(target_active=5)
    now = configuration(voters="a b c d e", passive="f", policy=policy)
    first = plan(now, {E}).next_step()
    assert first is not None
    flagged = next_configuration(first.change, now, NEXT)
    assert not isinstance(flagged, ChangeRefusal)
    for after in (
        without_flag(F, flagged, NEXT),
        change(flagged, ChangeKind.DEMOTE, F, PASSIVE),
        change(flagged, ChangeKind.REMOVE, F, MemberType.INACTIVE),
    ):
        assert not any(each.is_leaving for each in after.members)


def test_c39_nothing_happens_without_a_replacement_in_reach() -> None:
    now = configuration(voters="a b c", passive="d")
    assert step(now, C, D) == "", "two that are away do not trade places"
    assert step(now, C, far={D}) == ""
    assert step(now, C, resting={D}) == ""
    planned = plan(now, {C, D})
    planned.next_step()
    assert planned.obstacles[0] == "no passive member can take the place of c:1"


def test_c39_user_wins() -> None:
    now = configuration(voters="a b c d", passive="e")
    demoted = change(now, ChangeKind.DEMOTE, D, PASSIVE)
    assert step(demoted, C) == "c:1 becomes passive"
    assert plan(demoted, {C, E}).next_step() is None, "D was demoted by a user"
    promoted = change(demoted, ChangeKind.PROMOTE, D, PASSIVE)
    assert step(promoted, C, E) == "c:1 becomes passive"
    assert step(configuration(voters="a b c d", policy=POLICY._replace(target_passive=0))) == "", (
        "no live voter goes for the target"
    )


def test_c39_a_users_promotion_takes_the_mark_of_a_swap_away() -> None:
    policy = POLICY._replace(target_active=5, target_passive=0)
    now = configuration(voters="a b c d e", passive="f", policy=policy)
    half = after_step(now, plan(now, {E}).next_step())
    wish = ConfigurationChange.promote(E, ACTIVE, ENTRY)
    assert not goal_holds(wish, half)
    after = change(half, ChangeKind.PROMOTE, E, ACTIVE)
    assert goal_holds(wish, after)
    assert step(after) == ""


def test_c39_a_demotion_of_who_is_passive_already_is_a_users_word_too() -> None:
    now = configuration(voters="a b", passive="d")
    wish = ConfigurationChange.demote(D, PASSIVE, ENTRY)
    assert not goal_holds(wish, now)
    after = change(now, ChangeKind.DEMOTE, D, PASSIVE)
    assert goal_holds(wish, after)
    assert (step(now), step(after)) == ("d:1 becomes active", "")


def test_c39_the_best_candidate_spreads_the_voters_and_then_has_the_greatest_weight() -> None:
    now = configuration(voters="a@x b@y", passive="c@x d@y e@z f@z")
    assert step(now) == "e:1 becomes active"
    heavier = now.with_record(now.members[-1]._replace(weight=1), ENTRY)
    assert step(heavier) == "f:1 becomes active"
    elsewhere = now.with_record(now.members[2]._replace(weight=9), ENTRY)
    assert step(elsewhere) == "e:1 becomes active", "weights only order those that spread alike"


def test_c39_a_reserve_takes_the_place_of_the_passive_and_the_dead_one_is_suspended() -> None:
    now = configuration(voters="a b c", passive="d", reserve="e")
    assert step(now) == ""
    assert step(now, D) == "e:1 becomes passive"
    with_two = configuration(voters="a b c", passive="d e")
    assert step(with_two, D) == "", "it keeps its log until it is suspended"
    long_away = plan(with_two, {D})
    long_away = HealingPlan(
        with_two, A, {D: MemberSight(60_000, is_in_reach=False), E: NEAR}, bool
    )
    planned = long_away.next_step()
    assert planned is not None
    assert planned.what == "d:1 becomes reserve"


def test_c39_voters_that_are_enough_without_the_dead_one_need_no_replacement() -> None:
    now = configuration(voters="a b c d", policy=POLICY._replace(target_passive=0))
    assert step(now, D) == "d:1 becomes passive"


def test_c39_nothing_without_a_target_or_while_a_promotion_is_under_way() -> None:
    for policy in (
        POLICY._replace(is_on=False),
        POLICY._replace(target_active=0, target_passive=0),
    ):
        assert step(configuration(voters="a b c", passive="d", policy=policy), C) == ""
    only_passive = POLICY._replace(target_active=0, target_passive=1)
    assert step(configuration(voters="a b c", passive="d", policy=only_passive), C) == ""
    flagged = change(configuration(voters="a b c", passive="d"), ChangeKind.PROMOTE, D, ACTIVE)
    assert step(flagged, C) == ""
