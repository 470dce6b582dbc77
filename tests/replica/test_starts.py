"""C42: a restored or copied directory is told by its starts."""

from __future__ import annotations

import itertools

import msgspec
import pytest

from copycat.errors import WrongDirectoryError
from copycat.member.identity import STARTS_MAX, read_identity, write_identity
from copycat.protocol.codec_hello import decode_hello
from copycat.protocol.framing import split_frame
from copycat.protocol.member_record import DirectoryStart
from copycat.replica.members import PeerRefused
from copycat.storage import FaultEnv
from copycat.types import ChangeKind, EntryId, MemberType
from tests.replica.clusters import PATH, Cluster, Member


def changed() -> tuple[Cluster, Member]:
    """Three members that record their starts, in a cluster whose members were changed; and one of
    the followers."""
    cluster = Cluster(3, starts=True)
    cluster.elect()
    fourth = cluster.newcomer("127.0.0.1:4")
    cluster.change(ChangeKind.ADD, fourth, MemberType.RESERVE)
    cluster.change(ChangeKind.REMOVE, fourth, MemberType.INACTIVE)
    cluster.members.remove(fourth)
    run_until_written(cluster)
    return cluster, next(each for each in cluster.members if each is not cluster.leader)


def written(by: Member, of: Member) -> DirectoryStart:
    """The start of a member in the newest configuration of another one."""
    record = by.replica.raft.configuration.record(of.member)
    assert record is not None
    return record.start


def run_until_written(cluster: Cluster) -> None:
    for _ in range(60):
        pairs = itertools.product(cluster.up, cluster.up)
        if all(written(by, of) == of.replica.members.starts[-1] for by, of in pairs):
            cluster.run(4, 100)
            return
        cluster.run(4, 100)
    raise AssertionError([each.configuration for each in cluster.up])


def refused(by: Member, who: Member) -> str:
    with pytest.raises(PeerRefused) as caught:
        by.replica.accept_peer(split_frame(who.replica.hello()))
    return caught.value.message


def is_let_in(by: Member, who: Member) -> bool:
    return by.replica.accept_peer(split_frame(who.replica.hello()))[0] == who.member


def backed_up() -> tuple[Cluster, Member, FaultEnv]:
    """A cluster, a member that was started since its backup was made, and the backup."""
    cluster, member = changed()
    member.stop()
    backup = member.env.clone()
    member.start()
    cluster.restart(member)
    run_until_written(cluster)
    return cluster, member, backup


def test_c42_each_start_is_written_down_by_the_leader() -> None:
    cluster, member = changed()
    assert written(cluster.leader, member).number == 1
    entry = cluster.leader.configuration.entry
    for number in (2, 3):
        cluster.restart(member, cleanly=number == 2)
        run_until_written(cluster)
        assert written(cluster.leader, member).number == number
    assert cluster.leader.configuration.entry > entry
    cluster.restart(cluster.leader)
    cluster.elect()
    run_until_written(cluster)


def test_c42_restored() -> None:
    """A backup from before the last start is refused by all, also when the leader is not there."""
    cluster, member, backup = backed_up()
    cluster.append(2)
    leader = cluster.leader
    cluster.cut(leader)
    cluster.cut(member)
    member.env = backup
    member._random_bits = itertools.count(1000)
    member.start()
    (other,) = cluster.up
    assert "was restored from a backup" in refused(other, member)
    assert "was restored from a backup" in refused(leader, member)
    cluster.mend(member)
    cluster.run(60, 100)
    assert other.member not in member.replica.raft.links, "the two elect nobody"
    assert not member.replica.raft.leader
    cluster.mend(leader)
    cluster.elect()


def test_c42_restart_loop() -> None:
    """Whatever supervises a restored directory starts it again and again: it stays refused."""
    cluster, member, backup = backed_up()
    hello = decode_hello(split_frame(member.replica.hello()))
    judge = cluster.leader.replica._handshake.judge
    assert judge(hello) == member.member
    identity, _ = read_identity(backup, PATH)
    assert identity is not None
    for number in range(3 * STARTS_MAX):
        identity = identity.with_start(1000 + number)
        with pytest.raises(WrongDirectoryError, match="was restored from a backup"):
            judge(msgspec.structs.replace(hello, starts=identity.starts))


def test_c42_a_member_that_was_started_often_is_let_in() -> None:
    """Its directory knows which start is committed, and its list never lacks that one."""
    cluster, member = changed()
    cluster.cut(member)
    for _ in range(3):
        member.stop()
        member.start()
    member.stop()
    identity, _ = read_identity(member.env, PATH)
    assert identity is not None
    for number in range(3 * STARTS_MAX):
        identity = identity.with_start(1000 + number)
    write_identity(member.env, PATH, identity)
    member.start()
    assert len(member.replica.members.starts) == STARTS_MAX
    assert is_let_in(cluster.leader, member)
    cluster.mend(member)
    run_until_written(cluster)
    cluster.restart(member)
    assert len(member.replica.members.starts) == 2, "what is committed is known here"


def test_c42_cloned() -> None:
    """Two processes with copies of one directory: the second one that comes is refused."""
    cluster, member = changed()
    member.stop()
    copy = member.env.clone()
    member.start()
    cluster.restart(member)
    run_until_written(cluster)
    clone = Member(member.address, member.founders, starts=True, salt=500)
    clone.env = copy
    clone.address = "127.0.0.1:44"
    clone.start()
    assert "it is a copy" in refused(cluster.leader, clone)
    cluster.run(20, 100)
    assert cluster.leader.host.dialled[member.member] == member.address


def test_c42_an_entry_that_is_not_committed_counts_until_it_is_dropped() -> None:
    cluster, member = changed()
    table = cluster.leader.replica.members
    now = table.configuration
    record = now.record(member.member)
    assert record is not None
    entry = EntryId(now.entry.term, now.entry.index + 1)
    another = record._replace(start=DirectoryStart(1, 99))
    table.adopt(now.with_record(another, entry))
    assert "it is a copy" in refused(cluster.leader, member)
    table.adopt(now)
    assert is_let_in(cluster.leader, member)


def test_c42_a_lagging_start_is_no_proof() -> None:
    """A list that begins behind the start that is known here says that this member is behind."""
    cluster, member = changed()
    judge = cluster.leader
    hello = decode_hello(split_frame(member.replica.hello()))
    known = written(judge, member)
    starts = tuple(DirectoryStart(known.number + n, 7000 + n) for n in range(1, 4))
    later = type(hello)(
        **{name: getattr(hello, name) for name in hello.__struct_fields__} | {"starts": starts}
    )
    assert judge.replica._handshake.judge(later) == member.member
    same = (DirectoryStart(known.number, 6999), *starts)
    other = type(hello)(
        **{name: getattr(hello, name) for name in hello.__struct_fields__} | {"starts": same}
    )
    with pytest.raises(WrongDirectoryError, match="it is a copy"):
        judge.replica._handshake.judge(other)
    assert is_let_in(judge, member)


def test_c42_a_newcomer_is_added_with_its_start_and_a_restart_stales_no_request() -> None:
    cluster, member = changed()
    fourth = cluster.newcomer("127.0.0.1:5")
    cluster.change(ChangeKind.ADD, fourth, MemberType.PASSIVE)
    base = cluster.leader.replica.members.committed.entry
    assert written(cluster.leader, fourth).number == 1
    cluster.restart(member)
    run_until_written(cluster)
    assert cluster.leader.replica.members.committed.entry > base
    answers = cluster.ask(ChangeKind.DEMOTE, fourth, MemberType.RESERVE, base)
    cluster.run(20, 50)
    assert cluster.leader.types[fourth.address] == "reserve", answers


def test_a_cluster_of_founders_writes_no_starts() -> None:
    cluster = Cluster(3, starts=True)
    cluster.elect()
    before = cluster.leader.replica.raft.last.index
    cluster.restart(next(each for each in cluster.members if each is not cluster.leader))
    cluster.run(30, 100)
    assert cluster.leader.replica.raft.last.index == before


def other_place(cluster: Cluster, member: Member, env: FaultEnv) -> Member:
    """A process at another address with a copy of the member's directory."""
    clone = Member(member.address, member.founders, starts=True, salt=500)
    clone.env, clone.address, clone.now_ms = env, "127.0.0.1:44", member.now_ms
    clone._random_bits = itertools.count(10**6)
    clone.start()
    return clone


def test_c42_a_backup_takes_no_place_while_its_member_restarts() -> None:
    """In a cluster of founders, which writes no start down: who heard the member remembers it."""
    cluster = Cluster(3, starts=True)
    cluster.elect()
    member = next(each for each in cluster.members if each is not cluster.leader)
    member.stop()
    backup = member.env.clone()
    cluster._drop_links(member)
    member.start()
    cluster.run(10, 100)
    clone = other_place(cluster, member, backup)
    hot = member.env.clone()
    cluster.cut(member)
    for each in cluster.up:
        assert "was restored from a backup" in refused(each, clone)
    assert cluster.leader.host.dialled[member.member] == member.address
    member.stop()
    member.start()
    assert is_let_in(cluster.leader, member)
    # what was copied since the last start proves nothing, and is not dialled at once
    clone = other_place(cluster, member, hot)
    for each in cluster.up:
        assert is_let_in(each, clone)
    cluster.run(90, 100)
    others = cluster.up
    assert {each.host.dialled[member.member] for each in others} == {member.address}
    cluster.mend(member)
    cluster.run(10, 100)
    assert all(member.member in each.replica.members.links for each in others)


def test_c42_a_start_that_was_heard_and_fell_out_of_the_list_proves_nothing() -> None:
    """A member that is started again and again, and not heard, in a cluster of founders."""
    cluster = Cluster(3, starts=True)
    cluster.elect()
    member = next(each for each in cluster.members if each is not cluster.leader)
    cluster.restart(member)
    cluster.run(10, 100)
    hello = decode_hello(split_frame(member.replica.hello()))
    judge = cluster.leader.replica._handshake.judge
    first, heard = hello.starts
    assert cluster.leader.replica.members.answers[member.member].starts[-1] == heard
    later = (first, *(DirectoryStart(number, 9) for number in range(3, 6)))
    assert judge(msgspec.structs.replace(hello, starts=later)) == member.member
    for other in ((first,), (first, DirectoryStart(heard.number, 99), *later[1:])):
        with pytest.raises(WrongDirectoryError, match="it is a copy"):
            judge(msgspec.structs.replace(hello, starts=other))


def test_c42_the_start_that_is_written_down_decides() -> None:
    """Two processes with copies of one directory begin with one number, and the other follower
    has heard the clone: that one leads next, and writes nothing else over the number."""
    cluster, member = changed()
    leader = cluster.leader
    (other,) = (each for each in cluster.members if each not in (leader, member))
    member.stop()
    copy = member.env.clone()
    member.start()
    clone = other_place(cluster, member, copy)
    original, cloned = (each.replica.members.starts[-1] for each in (member, clone))
    assert original.number == cloned.number
    assert original < cloned
    cluster._drop_links(member)
    clone_hello = decode_hello(split_frame(clone.replica.hello()))
    other.replica.members.answered(clone_hello)
    assert "it is a copy" in refused(other, member)
    for _ in range(30):
        cluster.run(2, 100)
        if written(other, member) == original:
            break
    assert written(other, member) == original
    assert is_let_in(other, member), "the entry decides"
    other.replica.members.answers[member.member] = clone_hello
    assert other.replica.members.newest_start(member.member) == original
