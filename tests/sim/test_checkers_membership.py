"""Each law of changing members has a case in which its checker reports a fault."""

from __future__ import annotations

from typing import Any

import pytest

from copycat.errors import InvariantError
from copycat.protocol.member_record import MemberRecord
from copycat.raft.configuration import Configuration
from copycat.sim.checkers.membership import MembershipChecker
from copycat.types import EntryId, MemberId, MemberType, ServerState

IDS = [MemberId(number + 1) for number in range(4)]


def configuration(term: int, index: int, *types: str) -> Configuration:
    """types: a letter for each member, in the order of the ids; "-" for no member."""
    words = {"A": MemberType.ACTIVE, "P": MemberType.PASSIVE, "R": MemberType.RESERVE}
    records = [
        MemberRecord(member, words[letter], f"m{member}:1")
        for member, letter in zip(IDS, types, strict=False)
        if letter != "-"
    ]
    return Configuration.from_members(records, EntryId(term, index))


FOUNDERS = configuration(0, 0, "A", "A", "A")


class Log:
    def __init__(self, *terms: int) -> None:
        self.terms = terms

    @property
    def last_index(self) -> int:
        return len(self.terms)

    def term_at(self, index: int) -> int:
        return self.terms[index - 1] if index else 0


class View:
    def __init__(self, number: int, **facts: Any) -> None:
        self.number = number
        self.state = ServerState.FOLLOWER
        self.term = 1
        self.commit_index = 0
        self.configuration = FOUNDERS
        self.committed_configuration = FOUNDERS
        vars(self).update(facts)


class World:
    def __init__(self, *terms: int) -> None:
        self.entries: list[tuple[int, int]] = []
        self.checker = MembershipChecker(FOUNDERS, IDS, self.entries, [Log(*terms)] * 4)

    def show(self, number: int = 0, **facts: Any) -> None:
        view = View(number, **facts)
        self.checker.learn(view)
        self.checker.check(view)

    def lead(self, configuration: Configuration, commit_index: int, **facts: Any) -> None:
        facts.setdefault("term", configuration.entry.term)
        self.show(
            state=ServerState.LEADER,
            configuration=configuration,
            commit_index=commit_index,
            **facts,
        )

    def commit(self, configuration: Configuration, *terms: int) -> None:
        """Entries of these terms are committed; the last one holds `configuration`."""
        self.entries += [(term, 0) for term in terms]
        self.checker.committed_entry(configuration)


def test_a_change_as_it_should_be() -> None:
    world = World(1, 1, 1)
    world.show()
    first, second = (
        configuration(1, 2, "A", "A", "A", "P"),
        configuration(1, 3, "A", "A", "A", "A"),
    )
    world.lead(first, 1)
    world.commit(first, 1, 1)
    assert world.checker.newest_committed.entry == (1, 2)
    world.lead(second, 2)
    assert world.checker.type_of(3) is MemberType.PASSIVE
    world.commit(second, 1)
    assert world.checker.type_of(3) is MemberType.ACTIVE
    assert world.checker.changes == 2


def test_i11_one_change_at_a_time() -> None:
    world = World(1, 1, 1)
    world.lead(configuration(1, 2, "A", "A", "A", "P"), 1)
    with pytest.raises(InvariantError, match="a second change while the first is not committed"):
        world.lead(configuration(1, 3, "A", "A", "A"), 1)


def test_i11_no_change_before_an_entry_of_the_own_term() -> None:
    world = World(1, 1, 2, 2)
    world.show()
    with pytest.raises(InvariantError, match="before an entry of the leader's term"):
        world.lead(configuration(2, 4, "A", "A"), 2)


def test_i11_majorities_of_neighbours_meet() -> None:
    world = World(1, 1)
    world.lead(FOUNDERS, 1, term=1)
    with pytest.raises(InvariantError, match="whose majorities need not meet"):
        world.lead(configuration(1, 2, "A"), 1)


def test_i11_no_id_comes_back() -> None:
    world = World(1, 1, 1)
    without = configuration(1, 2, "A", "A")
    world.lead(without, 1)
    world.commit(without, 1, 1)
    with pytest.raises(InvariantError, match="a member id is used again"):
        world.lead(configuration(1, 3, "A", "A", "P"), 2)


def test_i11_one_name_is_one_configuration() -> None:
    world = World(1, 1)
    world.lead(configuration(1, 2, "A", "A", "A", "P"), 1)
    with pytest.raises(InvariantError, match="two configurations of one name"):
        world.show(1, configuration=configuration(1, 2, "A", "A", "A", "R"))


def test_i11_nothing_is_taken_for_committed_that_is_not() -> None:
    world = World(1, 1)
    later = configuration(1, 2, "A", "A", "A", "P")
    world.lead(later, 1)
    with pytest.raises(InvariantError, match="taken for committed that is not"):
        world.show(1, configuration=later, committed_configuration=later)


def test_i13_who_has_no_vote_does_not_campaign() -> None:
    world = World(1, 1)
    passive = configuration(1, 2, "A", "A", "A", "P")
    world.lead(passive, 1)
    world.commit(passive, 1, 1)
    known = {"configuration": passive, "committed_configuration": passive}
    with pytest.raises(InvariantError, match="a member without a vote campaigns"):
        world.show(3, state=ServerState.CANDIDATE, **known)


def test_i11_an_entry_holds_what_members_know_of_it() -> None:
    world = World(1, 1)
    world.lead(configuration(1, 2, "A", "A", "A", "P"), 1)
    with pytest.raises(InvariantError, match="that its entry does not hold"):
        world.commit(configuration(1, 2, "A", "A", "A", "R"), 1, 1)


def test_c35_listeners_hear_of_what_their_member_knows() -> None:
    world = World(1, 1)
    later = configuration(1, 2, "A", "A", "A", "P")
    world.show(1)
    world.lead(later, 1)
    world.commit(later, 1, 1)
    with pytest.raises(InvariantError, match="what its listeners have not heard"):
        world.show(1, configuration=later, committed_configuration=later)
    world.checker.heard(1, later)
    world.show(1, configuration=later, committed_configuration=later)
    with pytest.raises(InvariantError, match="hear of an older configuration"):
        world.checker.heard(1, FOUNDERS)


def test_i22_what_counts_for_a_deletion_is_every_member_with_a_log() -> None:
    world = World(1, 1)
    later = Configuration.from_members(
        [
            *FOUNDERS.members[:2],
            FOUNDERS.members[2]._replace(type=MemberType.RESERVE),
            MemberRecord(IDS[3], MemberType.PASSIVE, "m4:1", since=9),
        ],
        EntryId(1, 9),
    )
    assert world.checker.had_by_all([7, 6, 5, 0]) == 5
    world.entries += [(1, 0)] * 9
    world.checker.committed_entry(later)
    assert world.checker.had_by_all([7, 6, 0, 0]) == 6, "the reserve has no log"
    assert world.checker.had_by_all([9, 9, 0, 0]) == 8, "the newcomer joins above what went before"
