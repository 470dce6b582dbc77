"""What listeners of a cluster are called with, from one configuration to the next."""

from __future__ import annotations

from functools import partial

import pytest

from copycat.protocol.member_record import MemberRecord
from copycat.raft.configuration import Configuration
from copycat.server.cluster_events import ClusterEvents
from copycat.server.member import Member, Verb
from copycat.server.member_listeners import MemberListeners
from copycat.types import EntryId, MemberId, MemberStatus, MemberType, MemberTypeLike

A, B, C = MemberId(1), MemberId(2), MemberId(3)


async def no_change(
    verb: Verb, record: MemberRecord, entry: EntryId, type: MemberTypeLike | None
) -> None:
    raise AssertionError("nobody asks for a change here")


class Heard:
    """Events of one server, with what was heard of them."""

    def __init__(self) -> None:
        self.listeners = MemberListeners()
        self.events = ClusterEvents(self.member, self.listeners)
        self.lines: list[str] = []
        self.events.joins.add(lambda one: self.lines.append(f"join {one.name} {one.type}"))
        self.events.leaves.add(lambda one: self.lines.append(f"leave {one.name} {one.type}"))
        self.events.elections.add(lambda one: self.lines.append(f"leader {one.name}"))
        for member, name in ((A, "a"), (B, "b"), (C, "c")):
            self.listeners.types(member).add(partial(self.typed, name))

    def typed(self, name: str, type: MemberType) -> None:
        self.lines.append(f"{name} {type}")

    def member(self, record: MemberRecord, entry: EntryId) -> Member:
        return Member(record, entry, MemberStatus.AVAILABLE, no_change, self.listeners)

    def take(self) -> list[str]:
        lines, self.lines = self.lines, []
        return lines


@pytest.fixture
def heard() -> Heard:
    heard = Heard()
    heard.events.started(configuration(0, A="active"))
    return heard


def configuration(index: int, **types: str) -> Configuration:
    ids = {"A": A, "B": B, "C": C}
    records = [
        MemberRecord(ids[name], MemberType(type), f"{name.lower()}:1", min(index, 1))
        for name, type in types.items()
    ]
    return Configuration.from_members(records, EntryId(min(index, 1), index))


def test_c35_listeners_hear_of_each_difference(heard: Heard) -> None:
    heard.events.configuration_committed(configuration(4, A="active", B="reserve"))
    assert heard.take() == ["join b:1 reserve", "b reserve"]
    heard.events.configuration_committed(configuration(6, A="active", B="passive"))
    assert heard.take() == ["b passive"]
    heard.events.configuration_committed(configuration(8, A="active"))
    assert heard.take() == ["leave b:1 inactive", "b inactive"]


def test_a_member_that_was_away_hears_of_the_difference(heard: Heard) -> None:
    heard.events.configuration_committed(configuration(20, B="active", C="passive"))
    assert heard.take() == [
        "leave a:1 inactive",
        "a inactive",
        "join b:1 active",
        "b active",
        "join c:1 passive",
        "c passive",
    ]


def test_what_was_heard_is_no_news_after_another_start(heard: Heard) -> None:
    later = configuration(4, A="active", B="passive")
    heard.events.configuration_committed(later)
    heard.take()
    heard.events.started(configuration(0, A="active"))
    heard.events.configuration_committed(later)
    assert heard.take() == []


def test_each_election_is_heard_once(heard: Heard) -> None:
    heard.events.leader_elected(A, 3)
    heard.events.leader_elected(MemberId(0), 4)
    heard.events.leader_elected(A, 3)
    heard.events.leader_elected(A, 5)
    assert heard.take() == ["leader a:1", "leader a:1"]


def test_a_leader_is_heard_of_when_a_configuration_names_it(heard: Heard) -> None:
    """It was added while this member was away. Before that it has no address here."""
    heard.events.leader_elected(B, 3)
    assert heard.take() == []
    heard.events.configuration_committed(configuration(4, A="active", B="active"))
    assert heard.take() == ["join b:1 active", "b active", "leader b:1"]
    heard.events.configuration_committed(configuration(6, A="active", B="active", C="active"))
    assert heard.take() == ["join c:1 active", "c active"]


def test_the_status_of_a_member_is_heard_by_its_own_listeners(heard: Heard) -> None:
    seen: list[MemberStatus] = []
    heard.member(MemberRecord(B, MemberType.ACTIVE, "b:1"), EntryId(0, 0)).on_status_change(
        seen.append
    )
    heard.events.status_changed(B, MemberStatus.UNAVAILABLE)
    heard.events.status_changed(A, MemberStatus.UNAVAILABLE)
    heard.events.status_changed(B, MemberStatus.AVAILABLE)
    assert seen == [MemberStatus.UNAVAILABLE, MemberStatus.AVAILABLE]
