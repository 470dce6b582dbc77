"""Strangers, and requests that are repeated, make nothing in a member grow without limit."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator
from types import FunctionType, MethodType
from typing import Any

import msgspec
import pytest

from copycat.protocol.client import ChangeRequest, ServerMessage, ViewRequest
from copycat.protocol.codec_client import encode_client
from copycat.protocol.codec_hello import encode_hello
from copycat.protocol.codec_peer import encode_forward, encode_peer
from copycat.protocol.framing import split_frame
from copycat.protocol.member_record import ConfigurationRecord
from copycat.protocol.peer import (
    AppendReply,
    ConfigurationNotice,
    Hello,
    InstallReply,
    LogPosition,
    LogRegressed,
    PeerMessage,
    PreVote,
    PreVoteReply,
    RequestVote,
    TimeoutNow,
    VoteReply,
)
from copycat.raft.configuration import MemberRecord
from copycat.raft.events import Reachable
from copycat.replica.members import Handshake
from copycat.types import NO_ENTRY, ChangeKind, EntryId, MemberId, MemberType
from tests.replica.clusters import Cluster, Member

WARM, MANY = 100, 2000
GROWTH_MAX = 20
"""By so much a container may differ between two moments, whatever happens."""
CONTAINERS = (dict, list, set, frozenset, deque, tuple)


def parts_of(value: Any) -> Iterator[tuple[str, Any]]:
    """What `value` refers to, each with its name."""
    if isinstance(value, dict):
        yield from (("[]", each) for each in value.values())
    elif isinstance(value, CONTAINERS):
        yield from (("[]", each) for each in value)
    elif type(value).__module__.startswith("copycat."):
        names = [name for kind in type(value).__mro__ for name in getattr(kind, "__slots__", ())]
        for name in {*names, *getattr(value, "__dict__", {})}:
            yield f".{name}", getattr(value, name, None)


def sizes(member: Member) -> Counter[str]:
    """How much is in each container of a replica, by where the container is."""
    totals: Counter[str] = Counter()
    seen = {id(member.host)}
    waiting: list[tuple[str, Any]] = [("replica", member.replica)]
    while waiting:
        path, value = waiting.pop()
        if id(value) in seen or isinstance(value, FunctionType | MethodType | type | str | int):
            continue
        seen.add(id(value))
        if isinstance(value, CONTAINERS):
            totals[path] += len(value)
        waiting += [(path + name, part) for name, part in parts_of(value)]
    return totals


def grown(before: Counter[str], after: Counter[str]) -> dict[str, tuple[int, int]]:
    return {
        path: (before[path], size)
        for path, size in after.items()
        if size - before[path] > GROWTH_MAX
    }


def drive(member: Member, step: Callable[[int], None]) -> None:
    """Many steps, after some that show what a member remembers of a few."""
    for number in range(WARM):
        step(number)
    before = sizes(member)
    for number in range(WARM, WARM + MANY):
        step(number)
    assert member.replica.stopped is None
    assert grown(before, sizes(member)) == {}


def changed_cluster() -> Cluster:
    cluster = Cluster(3)
    cluster.elect()
    cluster.add("127.0.0.1:4", MemberType.RESERVE)
    return cluster


def quiet(member: Member) -> None:
    """What it sends is of no interest."""
    member.host.sent.clear()
    member.host.replies.clear()
    member.host.calls.clear()


def words_of_a_stranger(term: int, name: EntryId) -> list[PeerMessage]:
    record = ConfigurationRecord(
        EntryId(term, 1 << 40), 1, (MemberRecord(MemberId(1), MemberType.ACTIVE, "a:1"),)
    )
    return [
        AppendReply(term, 1, True, 1, NO_ENTRY, storage_full=True),
        PreVote(term + 1, 1, name),
        PreVoteReply(term, 1, True, 5, 5, 5),
        RequestVote(term, NO_ENTRY, False),
        VoteReply(term, True, 5, 5, 5),
        TimeoutNow(term),
        InstallReply(term, 1, name, 0, True),
        LogPosition(term, name),
        LogRegressed(term, name),
        ConfigurationNotice(term - 1, MemberId(1), record),
    ]


@pytest.mark.slow
@pytest.mark.parametrize("leads", [True, False])
def test_c41_strangers(leads: bool) -> None:
    cluster = changed_cluster()
    leader = cluster.leader
    member = leader if leads else next(each for each in cluster.up if each is not leader)
    members = member.replica.members
    shake: Handshake = member.replica._handshake
    mine = shake.hello(fresh=False)
    term = member.replica.raft.current_term
    view = split_frame(encode_client(ViewRequest(1)))

    def step(number: int) -> None:
        stranger = MemberId((1 << 100) + number)
        hello: Hello = msgspec.structs.replace(
            mine, member=stranger, incarnation=number, address=f"127.0.0.1:{10_000 + number}"
        )
        member.replica.accept_peer(split_frame(encode_hello(hello)))
        member.turn(1)
        frames = [encode_peer(each) for each in words_of_a_stranger(term, NO_ENTRY)]
        for frame in (*frames, encode_forward(number, view)):
            member.replica.receive_peer(stranger, split_frame(frame))
        if number % 2:
            member.replica.outage.link_failed(stranger, f"refused {number}")
        else:
            member.replica.check_hello(stranger, split_frame(encode_hello(hello)))
            member.replica.peer_up(Reachable(stranger, fresh=False))
        member.stabilize(rounds=1)
        for frame in frames:
            member.replica.receive_peer(stranger, split_frame(frame))
        if not number % 2:
            member.replica.peer_down(stranger)
        # A link is dialled, and each time another member answers on it.
        impostor = msgspec.structs.replace(hello, member=MemberId((1 << 101) + number))
        with pytest.raises(Exception, match="answered on the link to"):
            member.replica.check_hello(stranger, split_frame(encode_hello(impostor)))
        member.turn()
        quiet(member)

    drive(member, step)
    assert len(member.host.dialled) <= len(members) + 16


@pytest.mark.slow
def test_c37_requests_to_add_members_that_nobody_reaches() -> None:
    cluster = changed_cluster()
    leader = cluster.leader
    base = leader.replica.members.committed.entry
    answers: list[ServerMessage] = []

    def step(number: int) -> None:
        request = ChangeRequest(
            number,
            ChangeKind.ADD,
            MemberId((1 << 100) + number),
            MemberType.PASSIVE,
            base,
            f"127.0.0.1:{10_000 + number}",
        )
        leader.replica.request(request, answers.append)
        cluster.run(1, 50)
        quiet(leader)

    drive(leader, step)
    assert len(leader.host.dialled) <= len(leader.replica.members) + 16
    assert WARM + MANY - len(answers) <= 16, "all others are answered"


@pytest.mark.slow
def test_c36_a_promotion_that_takes_hours_is_asked_for_again_and_again() -> None:
    cluster = Cluster(3)
    cluster.elect()
    member = cluster.add("127.0.0.1:4")
    leader = cluster.leader
    base = leader.replica.members.committed.entry
    cluster.ask(ChangeKind.PROMOTE, member, MemberType.ACTIVE)
    leader.turn()
    cluster.cut(member)
    answers: list[ServerMessage] = []

    def step(number: int) -> None:
        request = ChangeRequest(number, ChangeKind.PROMOTE, member.member, MemberType.ACTIVE, base)
        leader.replica.request(request, answers.append)
        cluster.run(1, 2)
        quiet(leader)

    drive(leader, step)
    assert WARM + MANY - len(answers) <= 64, "all others are answered"
