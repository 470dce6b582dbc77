"""Requests about the members: when they are sent again, and when that would be wrong."""

from __future__ import annotations

import asyncio
import socket

import pytest

from copycat.client import cluster_connection, membership
from copycat.client.cluster_connection import ClusterConnection
from copycat.client.connection import Connection
from copycat.client.membership import Membership
from copycat.errors import CopycatError, DiskFullError, NoLeaderError, OperationTimeout
from copycat.net import DialError
from copycat.protocol.change_errors import view_or_error
from copycat.protocol.client import (
    ClusterRequest,
    ClusterView,
    Failure,
    Refusal,
    TransferRequest,
    ViewRequest,
)
from copycat.types import EntryId, MemberId, ServerState


def view(leader: int, term: int = 1) -> ClusterView:
    return ClusterView(
        request=0,
        member=MemberId(1),
        state=ServerState.FOLLOWER,
        term=term,
        leader=MemberId(leader),
        entry=EntryId(0, 0),
        first_index=1,
        last_index=1,
        commit_index=1,
        last_applied=1,
        applied_time_ms=0,
        sessions=0,
        storage_full=False,
        incarnation=0,
        cluster="test",
        version="0.1.0",
        durability="fsync",
        members=(),
    )


class Refusing(ClusterConnection):
    """Every member answers with one failure."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(["a:1", "b:1", "c:1"])
        self.asked: list[str] = []
        self.failure = failure

    async def _ask_at(self, address: str, message: ClusterRequest) -> ClusterView | CopycatError:
        self.asked.append(address)
        return view_or_error(self.failure)


def test_a_request_that_was_refused_is_sent_to_the_others_unless_it_is_a_transfer() -> None:
    connection = Refusing(Failure(0, Refusal.NO_LEADER, "", "the leader cannot be reached"))
    for message, asked in (
        (ViewRequest(0), ["a:1", "b:1", "c:1"]),
        (TransferRequest(0, MemberId(0)), ["a:1"]),
        (TransferRequest(0, MemberId(0)), ["b:1"]),
    ):
        connection.asked.clear()
        with pytest.raises(NoLeaderError):
            asyncio.run(connection.ask(message))
        assert connection.asked == asked


def test_a_transfer_is_asked_of_the_next_member_when_the_first_cannot_be_reached() -> None:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    places = [f"127.0.0.1:{one.getsockname()[1]}" for one in sockets]
    for one in sockets:
        one.close()
    with pytest.raises(NoLeaderError) as raised:
        asyncio.run(ClusterConnection(places).ask(TransferRequest(0, MemberId(0))))
    assert [line.partition(": ")[0] for line in str(raised.value.state).splitlines()] == places


@pytest.mark.parametrize(
    ("code", "kind"),
    [(Refusal.NOT_TRANSFERRED, OperationTimeout), (Refusal.DISK_FULL, DiskFullError)],
)
def test_what_the_cluster_refuses_is_not_asked_again(
    code: Refusal, kind: type[CopycatError]
) -> None:
    """Both of these errors are OSErrors, and no sign that a member cannot be reached."""
    connection = Refusing(Failure(0, code, "a:1", "why it is not done"))
    with pytest.raises(kind, match="why it is not done"):
        asyncio.run(connection.ask(TransferRequest(0, MemberId(2))))
    assert connection.asked == ["a:1"]


def test_a_dial_has_the_time_that_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name may be resolved slowly, and have many addresses where nobody answers."""
    monkeypatch.setattr(cluster_connection, "SILENCE_S", 0.0)

    async def fails(*_: object) -> None:
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        raise DialError("no answer within 2 s")

    monkeypatch.setattr(Connection, "open", fails)
    with pytest.raises(NoLeaderError) as caught:
        asyncio.run(ClusterConnection(["a:1"]).ask(ViewRequest(0)))
    assert caught.value.state == "a:1: no answer within 2 s"


class Cluster:
    """Leadership moves with each transfer; the answers to some are lost."""

    def __init__(self, *, lost: int) -> None:
        self.lost = lost
        self.is_moved = True
        self.leader, self.term = 1, 1
        self.transfers = 0
        self.late_views = 0
        """So many views after the first transfer are of the leader before."""

    async def ask(self, message: ClusterRequest) -> ClusterView:
        if isinstance(message, TransferRequest):
            self.transfers += 1
            if self.is_moved:
                self.leader, self.term = message.to or self.leader % 3 + 1, self.term + 1
            if self.transfers <= self.lost:
                self.is_moved = True
                raise NoLeaderError("the leader cannot be reached")
        elif self.transfers and self.late_views:
            self.late_views -= 1
            return view(1, 1)
        return view(self.leader, self.term)


@pytest.mark.parametrize("to", [0, 3])
def test_c40_a_transfer_whose_answer_was_lost_is_not_made_twice(to: int) -> None:
    cluster = Cluster(lost=1)
    texts: list[str] = []
    transferred = Membership(cluster.ask, say=texts.append).transfer(MemberId(to))
    assert asyncio.run(transferred).leader == (to or 2)
    assert cluster.transfers == 1


def test_c40_who_leads_is_looked_at_right_before_a_transfer_is_made_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(membership, "AGAIN_S", 0.001)
    cluster = Cluster(lost=1)
    cluster.late_views = 1
    transferred = Membership(cluster.ask, say=print).transfer()
    assert asyncio.run(transferred).leader == 2
    assert cluster.transfers == 1


@pytest.mark.slow
def test_c40_a_transfer_that_was_not_made_is_asked_for_again() -> None:
    cluster = Cluster(lost=1)
    cluster.is_moved = False
    texts: list[str] = []
    transferred = Membership(cluster.ask, say=texts.append).transfer()
    assert asyncio.run(transferred).leader == 2
    assert cluster.transfers == 2
    assert texts == ["waiting: the leader cannot be reached"]


def test_who_leads_already_is_not_asked_to() -> None:
    cluster = Cluster(lost=0)
    transferred = Membership(cluster.ask, say=print).transfer(MemberId(1))
    assert asyncio.run(transferred).leader == 1
    assert cluster.transfers == 0
