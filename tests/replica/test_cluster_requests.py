"""What is asked about the members: answered here, passed on to the leader, or refused."""

from __future__ import annotations

from copycat.errors import StaleConfigurationError
from copycat.protocol.change_errors import change_error
from copycat.protocol.client import (
    ChangeRefused,
    ChangeRequest,
    ClusterRequest,
    ClusterView,
    Failure,
    Refusal,
    ServerMessage,
    TransferRequest,
    ViewRequest,
)
from copycat.protocol.codec_peer import encode_peer
from copycat.protocol.framing import split_frame
from copycat.protocol.member_record import ConfigurationRecord, MemberRecord
from copycat.protocol.peer import ConfigurationNotice
from copycat.types import (
    ChangeKind,
    ChangeRefusal,
    EntryId,
    MemberId,
    MemberType,
    ServerState,
)
from tests.replica.clusters import Cluster
from tests.replica.disks import Disks
from tests.replica.harness import CLIENT, Node


def three() -> tuple[Disks, Node, list[Node]]:
    net = Disks()
    leader = net.elect()
    net.stabilize(100)
    return net, leader, [node for node in net.nodes.values() if node is not leader]


def asked(net: Disks, node: Node, message: ClusterRequest) -> list[ServerMessage]:
    """What a request of the member's own process is answered."""
    answers: list[ServerMessage] = []
    node.replica.request(message, answers.append)
    for _ in range(4):
        net.stabilize(50)
    return answers


def test_the_leader_shows_the_members_and_how_far_they_are() -> None:
    net, leader, _ = three()
    (view,) = asked(net, leader, ViewRequest(0))
    assert isinstance(view, ClusterView)
    assert view.member == view.leader == leader.member
    assert view.state is ServerState.LEADER
    assert [one.type for one in view.members] == [MemberType.ACTIVE] * 3
    assert {one.match_index for one in view.members} == {view.last_index}
    assert all(one.is_reachable for one in view.members)


def test_a_follower_passes_a_request_of_its_own_process_on() -> None:
    net, leader, (follower, _) = three()
    (view,) = asked(net, follower, ViewRequest(0))
    assert isinstance(view, ClusterView)
    assert view.member == leader.member
    (local,) = asked(net, follower, ViewRequest(0, is_local=True))
    assert isinstance(local, ClusterView)
    assert local.member == follower.member
    assert {one.match_index for one in local.members} == {0}


def test_a_client_of_a_follower_is_answered_by_the_leader() -> None:
    net, leader, (follower, _) = three()
    follower.client(ViewRequest(5))
    net.stabilize(50)
    views = [one for at, one in follower.host.replies if at == CLIENT]
    assert [(type(one), one.request) for one in views if isinstance(one, ClusterView)] == [
        (ClusterView, 5)
    ]
    assert isinstance(views[0], ClusterView)
    assert views[0].member == leader.member


def test_without_a_leader_a_member_shows_what_it_knows_and_passes_nothing_on() -> None:
    net = Disks()
    node = next(iter(net.nodes.values()))
    node.turn()
    (view,) = asked_alone(node, ViewRequest(0))
    assert isinstance(view, ClusterView)
    assert view.leader == 0
    (failure,) = asked_alone(node, TransferRequest(0, MemberId(0)))
    assert isinstance(failure, Failure)
    assert failure.code in (Refusal.NO_LEADER, Refusal.NO_QUORUM)


def asked_alone(node: Node, message: ClusterRequest) -> list[ServerMessage]:
    answers: list[ServerMessage] = []
    node.replica.request(message, answers.append)
    node.turn()
    return answers


def test_a_request_that_the_leader_takes_away_with_it_is_answered() -> None:
    net, leader, (follower, _) = three()
    answers: list[ServerMessage] = []
    follower.replica.request(TransferRequest(0, leader.member), answers.append)
    follower.turn()
    net.cut(leader.member)
    for _ in range(60):
        net.stabilize(100)
    (failure,) = answers
    assert isinstance(failure, Failure)
    assert failure.code == Refusal.NO_LEADER
    assert "cannot be reached" in failure.reason


def test_leadership_is_handed_over_on_request() -> None:
    net, leader, (heir, _) = three()
    (view,) = asked(net, leader, TransferRequest(0, heir.member))
    assert isinstance(view, ClusterView)
    assert view.leader == heir.member
    (again,) = asked(net, leader, TransferRequest(0, heir.member))
    assert isinstance(again, ClusterView), "the answer was lost: it leads already"
    assert again.term == view.term
    (failure,) = asked(net, heir, TransferRequest(0, MemberId(99)))
    assert isinstance(failure, Failure)
    assert failure.code == Refusal.NOT_TRANSFERRED


def test_a_request_for_another_cluster_is_refused() -> None:
    net, leader, _ = three()
    leader.client(ViewRequest(5, "another"))
    net.stabilize(50)
    (failure,) = [one for at, one in leader.host.replies if at == CLIENT]
    assert isinstance(failure, Failure)
    assert failure.code == Refusal.WRONG_CLUSTER


# --- changes ---------------------------------------------------------------------------------


def grown() -> Cluster:
    cluster = Cluster(3)
    cluster.elect()
    return cluster


def test_c41_who_is_to_be_added_need_not_know_which_cluster_it_is() -> None:
    """It asked who the members are, and somebody else was added before it was."""
    cluster = grown()
    early = cluster.newcomer("127.0.0.1:9")
    cluster.cut(early)
    cluster.add("127.0.0.1:4")
    cluster.mend(early)
    assert early.replica.members.cluster_incarnation == 0
    assert cluster.leader.replica.members.cluster_incarnation
    cluster.change(ChangeKind.ADD, early, MemberType.PASSIVE)
    assert early.types[early.address] == "passive"
    assert early.replica.members.cluster_incarnation


def test_c37_whom_the_leader_does_not_reach_is_not_added() -> None:
    cluster = grown()
    away = cluster.newcomer("127.0.0.1:9")
    cluster.cut(away)
    answers = cluster.ask(ChangeKind.ADD, away, MemberType.PASSIVE)
    cluster.run(150)
    (refused,) = answers
    assert isinstance(refused, ChangeRefused)
    assert refused.refusal is ChangeRefusal.NOT_CONNECTED
    assert f"has no connection to {away.address}" in refused.reason
    assert len(refused.members) == 3


def test_c37_the_link_must_stand_at_the_address_of_the_request() -> None:
    """Whoever waits to be added has a link already, at the address that it says itself. If the
    request has another one, perhaps by a slip, that one is dialled, and nothing is added."""
    cluster = grown()
    cluster.add("127.0.0.1:4")
    waiting = cluster.newcomer("127.0.0.1:9")
    cluster.run(10)
    leader = cluster.leader
    assert waiting.member in leader.replica.members.links
    base = leader.replica.members.committed.entry
    for address, why in (
        ("127.0.0.1:99", "no connection to 127.0.0.1:99"),
        ("127.0.0.1:4", "127.0.0.1:4 answered on the link to 127.0.0.1:4: it is member"),
    ):
        answers: list[ServerMessage] = []
        kind, to = ChangeKind.ADD, MemberType.PASSIVE
        leader.replica.request(
            ChangeRequest(1, kind, waiting.member, to, base, address), answers.append
        )
        cluster.run(150)
        (refused,) = answers
        assert isinstance(refused, ChangeRefused)
        assert refused.refusal is ChangeRefusal.NOT_CONNECTED
        assert why in refused.reason
    assert leader.replica.members.committed.entry == base
    cluster.change(ChangeKind.ADD, waiting, MemberType.PASSIVE)
    assert waiting.types[waiting.address] == "passive"


def test_c41_a_notice_that_the_core_ignores_names_no_cluster() -> None:
    """The founders know no incarnation of their cluster. A member of another cluster of the same
    name, which they hear since it may be one of theirs, does not give them its own."""
    cluster = grown()
    leader = cluster.leader
    stranger, term = MemberId(77), leader.replica.raft.current_term
    own = MemberRecord(stranger, MemberType.ACTIVE, "127.0.0.1:77")
    record = ConfigurationRecord(EntryId(term, 5), 7777, (own,))
    notice = encode_peer(ConfigurationNotice(term, stranger, record))
    for each in cluster.members:
        each.replica.receive_peer(stranger, split_frame(notice))
        each.turn()
    cluster.add("127.0.0.1:4")
    incarnation = leader.directory.identity.incarnation
    assert {each.replica.members.cluster_incarnation for each in cluster.up} == {incarnation}


def test_a_change_is_asked_of_any_member() -> None:
    cluster = grown()
    added = cluster.add("127.0.0.1:4", MemberType.RESERVE)
    follower = next(each for each in cluster.members[:3] if each is not cluster.leader)
    for asked, to in ((follower, MemberType.PASSIVE), (added, MemberType.ACTIVE)):
        answers: list[ServerMessage] = []
        base = asked.replica.members.committed.entry
        request = ChangeRequest(0, ChangeKind.PROMOTE, added.member, to, base)
        asked.replica.request(request, answers.append)
        cluster.run(60)
        (view,) = answers
        assert isinstance(view, ClusterView)
        assert view.member == cluster.leader.member
        assert {one.type for one in view.members if one.member == added.member} == {to}


def test_c36_a_stale_request_is_answered_with_the_present_members() -> None:
    cluster = grown()
    added = cluster.add("127.0.0.1:4")
    answers = cluster.ask(ChangeKind.DEMOTE, added, MemberType.RESERVE, EntryId(0, 0))
    cluster.run(5)
    (refused,) = answers
    assert isinstance(refused, ChangeRefused)
    error = change_error(refused)
    assert isinstance(error, StaleConfigurationError)
    assert error.entry == cluster.leader.replica.members.committed.entry
    assert (added.address, "passive") in error.members


def test_the_state_of_a_member_is_its_type_while_it_has_no_role() -> None:
    cluster = grown()
    states: list[ServerState] = []
    added = cluster.newcomer("127.0.0.1:4")
    assert added.replica.status().state is ServerState.INACTIVE
    added.replica.on_state_change(states.append)
    cluster.change(ChangeKind.ADD, added, MemberType.PASSIVE)
    cluster.change(ChangeKind.PROMOTE, added, MemberType.ACTIVE)
    assert states == [ServerState.PASSIVE, ServerState.FOLLOWER]
    cluster.change(ChangeKind.DEMOTE, added, MemberType.RESERVE)
    assert added.replica.status().state is ServerState.RESERVE
    assert added.directory.log.last_index == 0
