"""The shared moves: the vote's law, messages that wait for the disk, sync tickets."""

from __future__ import annotations

import pytest

from copycat.errors import InvariantError
from copycat.protocol.peer import VoteReply
from copycat.raft.events import UNBOUNDED
from copycat.types import MemberId, Span
from tests.raft.helpers import core


def test_i2_the_vote_law_fires() -> None:
    raft = core(current_term=3, voted_for=2)
    for term, voted_for in ((3, 1), (3, 0), (2, 1), (3, 2)):
        with pytest.raises(InvariantError, match="only together with the term"):
            raft.save_hard_state(term, MemberId(voted_for))
    raft.save_hard_state(4, MemberId(0))
    raft.save_hard_state(4, MemberId(1))


def test_held_messages_leave_in_order_each_with_its_save() -> None:
    raft = core()
    raft.save_hard_state(1, MemberId(0))
    raft.send(MemberId(2), VoteReply(1, False))
    raft.save_hard_state(1, MemberId(3))
    raft.send(MemberId(3), VoteReply(1, True))
    raft.effects = []
    raft.release(1)
    assert [getattr(effect, "peer", 0) for effect in raft.effects] == [2]
    assert raft.is_saving
    raft.release(2)
    assert [getattr(effect, "peer", 0) for effect in raft.effects] == [2, 3]
    assert not raft.is_saving


def test_the_newest_sync_answers_all_before_it() -> None:
    raft = core()
    for index in (1, 2, 3):
        raft.terms.append(Span(1, index, index + 1))
        raft.sync()
    assert raft.complete_syncs(2, UNBOUNDED)
    assert raft.durable_index == 2
    assert not raft.complete_syncs(1, UNBOUNDED)
    assert raft.complete_syncs(3, UNBOUNDED)
    assert raft.durable_index == 3
