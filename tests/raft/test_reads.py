"""Rounds: what came before a round rides it, what came after waits for the next."""

from __future__ import annotations

from copycat.raft.effects import ReadReady, Replicate
from copycat.raft.events import ReadRequested, Tick
from copycat.raft.read_index import ReadRounds
from tests.raft.helpers import leader, of, receive
from tests.raft.test_leader import accept


def test_tokens_join_the_next_round() -> None:
    reads = ReadRounds()
    reads.wait(1)
    reads.wait(2)
    assert reads.wants_round
    reads.begin(10, 5)
    reads.wait(3)
    assert not reads.wants_round
    assert reads.confirmed() == (2, 5)
    assert reads.wants_round


def test_no_round_before_the_own_no_op_is_committed() -> None:
    raft, _ = leader(1, 1)
    assert raft.step(ReadRequested(7)) == []
    effects = receive(raft, 2, accept(raft, 2, 3))
    assert of(effects, ReadReady) == []
    heartbeats = [effect for effect in of(effects, Replicate) if effect.span.length == 0]
    assert {heartbeat.peer for heartbeat in heartbeats} == {2, 3}
    assert all(heartbeat.leader_commit == 3 for heartbeat in heartbeats)


def test_only_answers_to_requests_of_the_round_or_later_confirm() -> None:
    raft, _ = leader()
    receive(raft, 2, accept(raft, 2, 1))
    late = accept(raft, 3, 1)
    effects = raft.step(ReadRequested(1))
    assert of(effects, ReadReady) == []
    assert of(receive(raft, 3, late), ReadReady) == []
    assert of(receive(raft, 3, accept(raft, 3, 1)), ReadReady) == [ReadReady(1, 1)]


def test_a_lost_round_is_confirmed_by_the_next_heartbeat() -> None:
    raft, _ = leader()
    receive(raft, 2, accept(raft, 2, 1))
    raft.step(ReadRequested(1))
    raft.step(Tick(20))
    assert of(receive(raft, 2, accept(raft, 2, 1)), ReadReady) == [ReadReady(1, 1)]
