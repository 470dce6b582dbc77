"""Who is let in: the cluster, the version, the founders, the member and its directory."""

from __future__ import annotations

import msgspec
import pytest

from copycat.config import member_id
from copycat.errors import (
    ConfigurationError,
    CopycatError,
    ProtocolError,
    VersionMismatchError,
    WrongDirectoryError,
)
from copycat.protocol.codec_hello import decode_hello_refused, encode_hello
from copycat.protocol.framing import split_frame
from copycat.protocol.peer import Hello
from copycat.protocol.wire import PROTOCOL_VERSIONS
from copycat.raft.configuration import Configuration
from copycat.replica.members import Handshake, Judgement, MemberTable, PeerRefused
from copycat.types import EntryId, MemberId

ADDRESSES = ("a:1", "b:1", "c:1")
LEADER = Judgement(is_final=True, leader="")
FOLLOWER = Judgement(is_final=False, leader="c:1")


def final_word(_member: MemberId) -> Judgement:
    return LEADER


def no_word(_member: MemberId) -> Judgement:
    return FOLLOWER


IDS = {address: member_id("test", address) for address in ADDRESSES}
CONFIGURATION = Configuration.bootstrap({IDS[address]: address for address in ADDRESSES})


def handshake(
    address: str, cluster_incarnation: int = 0, logged: dict[MemberId, int] | None = None
) -> Handshake:
    members = MemberTable(IDS[address], CONFIGURATION)
    members.cluster_incarnation = cluster_incarnation
    return Handshake(
        members, cluster_name="test", founders=ADDRESSES, incarnation=7, logged=logged or {}
    )


def hello(of: str, /, **changes: object) -> Hello:
    return msgspec.structs.replace(handshake(of).hello(fresh=True), **changes)


def test_a_founder_is_let_in_and_its_directory_is_to_be_committed() -> None:
    mine = handshake("a:1")
    mine.accept(split_frame(encode_hello(hello("b:1"))), no_word)
    assert mine.uncommitted_incarnations() == [(IDS["a:1"], 7), (IDS["b:1"], 7)]
    mine.record_incarnation(IDS["b:1"], 7)
    assert mine.uncommitted_incarnations() == [(IDS["a:1"], 7)]


@pytest.mark.parametrize(
    ("changes", "kind", "expected"),
    [
        ({"cluster_name": "x"}, WrongDirectoryError, 'b:1 is a member of cluster "x", a:1 of "t'),
        ({"protocol": (3, 3)}, VersionMismatchError, "b:1 speaks protocol 3 to 3, a:1 5 to 5"),
        ({"members": ("b:1",)}, ConfigurationError, "b:1 was started with members b:1; a:1 with"),
        ({"member": MemberId(5)}, WrongDirectoryError, "b:1 with member id 0+5 is no other"),
        ({"member": IDS["a:1"], "address": "a:1"}, WrongDirectoryError, "a:1 .* is no other"),
        ({"address": "c:1"}, WrongDirectoryError, "c:1 says that it is member .* at b:1"),
    ],
)
def test_who_is_refused_is_told_by_whom_and_why(
    changes: dict[str, object], kind: type[CopycatError], expected: str
) -> None:
    with pytest.raises(kind, match=expected):
        handshake("a:1").judge(hello("b:1", **changes))


@pytest.mark.parametrize("word", [LEADER, FOLLOWER])
def test_c43_a_refused_directory_hears_the_final_word_or_who_may_say_it(word: Judgement) -> None:
    mine, asked = handshake("a:1", logged={IDS["b:1"]: 8}), []

    def judgement(member: MemberId) -> Judgement:
        asked.append(member)
        return word

    with pytest.raises(PeerRefused) as caught:
        mine.accept(split_frame(encode_hello(hello("b:1"))), judgement)
    refused = decode_hello_refused(split_frame(caught.value.frame))
    assert (refused.code, asked) == ("directory-refused", [IDS["b:1"]])
    assert (refused.is_final, refused.leader) == word


def test_c43_only_a_refused_directory_is_ended() -> None:
    mine = handshake("a:1")
    with pytest.raises(PeerRefused) as caught:
        mine.accept(split_frame(encode_hello(hello("b:1", cluster_name="x"))), final_word)
    refused = decode_hello_refused(split_frame(caught.value.frame))
    assert (refused.code, refused.is_final, refused.leader) == ("wrong-directory", False, "")


def test_a_peer_of_another_version_is_refused_by_name_over_the_wire() -> None:
    older = encode_hello(hello("b:1", protocol=(1, PROTOCOL_VERSIONS[0] - 1)))
    with pytest.raises(PeerRefused) as caught:
        handshake("a:1").accept(split_frame(older), no_word)
    refused = decode_hello_refused(split_frame(caught.value.frame))
    assert refused.code == "version-mismatch"
    assert refused.reason.startswith("b:1 speaks protocol 1 to 4, a:1")


def test_c16_another_directory_under_a_known_id_is_refused() -> None:
    mine = handshake("a:1")
    mine.record_incarnation(IDS["b:1"], 8)
    with pytest.raises(WrongDirectoryError, match="b:1 came back with another directory"):
        mine.judge(hello("b:1"))
    only_logged = handshake("a:1", logged={IDS["b:1"]: 8})
    with pytest.raises(WrongDirectoryError, match="b:1 came back with another directory"):
        only_logged.judge(hello("b:1"))


def test_clusters_with_one_name_are_told_apart_by_their_incarnations() -> None:
    """The founders were replaced, wiped and started anew: a new cluster with the old ids."""
    mine = handshake("a:1", cluster_incarnation=1)
    expected = f"b:1 is a member of another cluster .*{2:032x}, that of a:1 is {1:032x}"
    with pytest.raises(WrongDirectoryError, match=expected):
        mine.judge(hello("b:1", cluster_incarnation=2))
    assert mine.judge(hello("b:1", cluster_incarnation=1)) == IDS["b:1"]


def test_lists_of_founders_are_compared_only_while_nobody_knows_the_cluster() -> None:
    other_list = {"members": ("b:1", "d:1")}
    assert handshake("a:1", 1).judge(hello("b:1", **other_list)) == IDS["b:1"]
    known = hello("b:1", **other_list, cluster_incarnation=1)
    assert handshake("a:1").judge(known) == IDS["b:1"]
    with pytest.raises(ConfigurationError, match="was started with members"):
        handshake("a:1").judge(hello("b:1", **other_list))


def test_an_answer_of_somebody_else_is_not_the_peers() -> None:
    mine = handshake("a:1")
    frame = split_frame(encode_hello(hello("b:1")))
    assert mine.answered(IDS["b:1"], frame).peer == IDS["b:1"]
    with pytest.raises(ProtocolError, match="b:1 answered on the link to c:1"):
        mine.answered(IDS["c:1"], frame)


# ---- clusters whose members changed -------------------------------------------------------------


def joined(incarnation: int = 9) -> Handshake:
    """A member that was no founder."""
    members = MemberTable(MemberId(5), CONFIGURATION, address="d:1")
    members.cluster_incarnation = incarnation
    return Handshake(members, cluster_name="test", founders=(), incarnation=3, logged={})


def test_a_member_that_nobody_knows_is_heard_if_it_is_of_this_cluster() -> None:
    """Its configuration may be newer: whether it gets a vote is said by the logs."""
    stranger = joined().hello(fresh=False)
    assert handshake("a:1", cluster_incarnation=9).judge(stranger) == MemberId(5)
    assert handshake("a:1").judge(stranger) == MemberId(5), "a founder that was away"
    with pytest.raises(WrongDirectoryError, match="another cluster"):
        handshake("a:1", cluster_incarnation=8).judge(stranger)


def test_who_knows_no_cluster_and_is_no_founder_is_heard_by_founders_only() -> None:
    """It may be about to join, while the cluster has no incarnation."""
    stranger = joined(0).hello(fresh=True)
    assert handshake("a:1").judge(stranger) == MemberId(5)
    assert joined(0).judge(hello("a:1")) == IDS["a:1"]
    with pytest.raises(WrongDirectoryError, match=r"no member yet; .* empty dir") as refused:
        handshake("a:1", cluster_incarnation=9).judge(stranger)
    assert refused.type is WrongDirectoryError  # it tries again: its directory is not refused


def test_c41_a_founder_that_was_away_is_heard_by_the_incarnation_of_its_directory() -> None:
    """It was removed meanwhile, and knows no change; who has joined has no list of founders."""
    for mine in (handshake("a:1", cluster_incarnation=9), joined()):
        mine._members.commit(CONFIGURATION.without(IDS["b:1"], EntryId(1, 5)))
        with pytest.raises(WrongDirectoryError, match="it was removed before it ever took part"):
            mine.judge(hello("b:1"))
        mine.record_incarnation(IDS["b:1"], 7)
        assert mine.judge(hello("b:1")) == IDS["b:1"]
        with pytest.raises(WrongDirectoryError, match="no member of cluster"):
            mine.judge(hello("b:1", incarnation=8))


def test_the_directory_of_a_stranger_is_committed_when_it_is_a_member() -> None:
    mine = handshake("a:1", cluster_incarnation=9)
    mine.accept(split_frame(encode_hello(joined().hello(fresh=False))), no_word)
    assert mine.uncommitted_incarnations() == [(IDS["a:1"], 7)]


def test_an_empty_log_proves_nothing_once_members_were_changed() -> None:
    """It may be that of a reserve, whose log was deleted."""
    assert handshake("a:1").hello(fresh=True).fresh
    assert not handshake("a:1", cluster_incarnation=9).hello(fresh=True).fresh


def test_c41_founders_again() -> None:
    """A, B and C were replaced and wiped; A and B start again with the old list. They are a new
    cluster of the old name, with the old ids, and the old one lets none of them in."""
    again = [handshake(address, cluster_incarnation=2) for address in ("a:1", "b:1")]
    old = joined(incarnation=1)
    for one in again:
        frame = split_frame(encode_hello(one.hello(fresh=False)))
        with pytest.raises(PeerRefused) as caught:
            old.accept(frame, no_word)
        assert f"{2:032x}" in caught.value.message
        assert f"{1:032x}" in caught.value.message
        answer = split_frame(encode_hello(old.hello(fresh=False)))
        with pytest.raises(WrongDirectoryError, match=f"{1:032x}, that of .* is {2:032x}"):
            one.answered(MemberId(5), answer)
