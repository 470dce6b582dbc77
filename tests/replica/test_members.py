"""The table of members: what a configuration means for links, and what is asked of it."""

from __future__ import annotations

from copycat.config import member_id
from copycat.raft.configuration import Configuration, MemberRecord
from copycat.raft.effects import ConfigurationChanged, ConfigurationCommitted
from copycat.raft.progress import ProgressState
from copycat.replica.members import MemberTable
from copycat.types import EntryId, MemberId, MemberType
from tests.replica.harness import Network, Node

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
    newer = Configuration.from_members([mine, moved, new], EntryId(2, 7))
    changes = table.adopt(newer)
    assert changes.to_connect == (moved, new)
    assert changes.to_disconnect == (C,), "who is removed stays until that is committed"
    assert table.peers == {C: "c:9", D: "d:1", B: "b:1"}
    assert table.commit(newer) == ((), (B,))
    assert table.peers == {C: "c:9", D: "d:1"}


def test_c35_who_was_added_by_what_is_rolled_back_has_no_link_any_more() -> None:
    table = MemberTable(ME, FOUNDERS)
    new = MemberRecord(D, MemberType.PASSIVE, "d:1", since=7)
    added = Configuration.from_members([*FOUNDERS.members, new], EntryId(2, 7))
    assert table.adopt(added) == ((new,), ())
    assert table.type(D) is MemberType.INACTIVE, "it is passive when that is committed"
    table.links.add(D)
    assert table.adopt(FOUNDERS) == ((), (D,))
    assert table.links == set()


def test_who_is_no_member_any_more_has_no_link() -> None:
    table = MemberTable(ME, FOUNDERS)
    table.links |= {B, C}
    table.commit(Configuration.from_members(FOUNDERS.members[:2], EntryId(2, 7)))
    assert table.links == {B}


def test_the_directory_of_who_was_removed_is_not_offered_to_the_log() -> None:
    table = MemberTable(ME, FOUNDERS)
    table.greeted_incarnations.update({B: 6, C: 7})
    table.commit(Configuration.from_members(FOUNDERS.members[:2]))
    assert table.greeted_incarnations == {B: 6}


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


def test_links_begin_and_end_by_the_verbs_of_the_host() -> None:
    """At the start to all peers, later where a configuration says so."""
    addresses = tuple(f"127.0.0.1:{port}" for port in (1, 2, 3))
    node = Node(addresses[0], addresses)
    first, second, third = (member_id("test", address) for address in addresses)
    assert node.host.dialled == {second: addresses[1], third: addresses[2]}
    before = node.replica.raft.configuration.members
    moved = MemberRecord(third, MemberType.ACTIVE, "127.0.0.1:9")
    new = MemberRecord(D, MemberType.PASSIVE, "127.0.0.1:4")
    members = [*(each for each in before if each.member == first), moved, new]
    newer = Configuration.from_members(members, EntryId(1, 2))
    node.replica.on_member_effect(ConfigurationChanged(newer))
    assert second in node.host.dialled
    node.replica.on_member_effect(ConfigurationCommitted(newer))
    assert node.host.dialled == {third: "127.0.0.1:9", D: "127.0.0.1:4"}


def test_the_table_is_a_mapping_of_addresses_as_they_are_now() -> None:
    table = MemberTable(ME, FOUNDERS)
    assert dict(table) == {ME: "a:1", B: "b:1", C: "c:1"}
    table.commit(Configuration.of(ME, non_voters=(D,)))
    assert list(table) == [ME, D]
    assert [table.type(member) for member in (ME, D, B)] == [
        MemberType.ACTIVE,
        MemberType.PASSIVE,
        MemberType.INACTIVE,
    ]


def test_the_core_hears_that_the_link_to_a_member_that_moved_has_ended() -> None:
    """What was in flight to the old address may be lost: it is asked for again at the new one."""
    net = Network()
    leader = net.elect()
    peer, other = (node for node in net.nodes.values() if node is not leader)
    raft = leader.replica.raft
    assert raft.leader_state is not None
    assert raft.leader_state.progress[peer.member].state is ProgressState.REPLICATE
    moved = [
        each._replace(address="127.0.0.1:9") if each.member == peer.member else each
        for each in raft.configuration.members
    ]
    changed = ConfigurationChanged(Configuration.from_members(moved, EntryId(1, 2)))
    leader.replica.on_member_effect(changed)
    leader.turn(1)
    assert raft.leader_state.progress[peer.member].state is ProgressState.LOST
    assert raft.leader_state.progress[other.member].state is ProgressState.REPLICATE
    assert leader.replica.status().unreachable == ("127.0.0.1:9",)


def test_a_leader_that_moved_is_named_by_its_new_address() -> None:
    """To clients and to operators, although nothing else about the leader changed."""
    net = Network()
    leader = net.elect()
    records = leader.replica.raft.configuration.members
    moved = [
        each._replace(address="127.0.0.1:9") if each.member == leader.member else each
        for each in records
    ]
    changed = ConfigurationChanged(Configuration.from_members(moved, EntryId(1, 2)))
    leader.replica.on_member_effect(changed)
    assert leader.replica.status().leader == "127.0.0.1:9"


def test_a_member_is_found_by_the_address_that_it_has_now() -> None:
    table = MemberTable(ME, FOUNDERS)
    assert (table.member_at("b:1"), table.member_at("d:1")) == (B, MemberId(0))
    moved = [*FOUNDERS.members[:2], MemberRecord(C, MemberType.ACTIVE, "c:9")]
    table.adopt(Configuration.from_members(moved))
    assert (table.member_at("c:9"), table.member_at("c:1")) == (C, MemberId(0))
