"""C1, C2 on one message: a heartbeat below an old tail proves and commits only its own range.

A leader in good order repairs an old tail so fast that few networks show the difference; so the
follower is asked directly. Both rules are seeded bugs (tests/bugs 01 and 02).
"""

from __future__ import annotations

from copycat.config import RaftOptions
from copycat.protocol.peer import AppendEntries, AppendReply
from copycat.raft.configuration import Configuration
from copycat.raft.core import Raft
from copycat.raft.effects import Commit, Send
from copycat.raft.events import Received
from copycat.raft.initial_state import InitialState
from copycat.types import EntryId, MemberId, Span, TermRun

A, B, C = MemberId(1), MemberId(2), MemberId(3)


def with_an_old_tail() -> Raft:
    """A holds 1..2 like everybody, and 3..6 of a term that lost."""
    return Raft(
        A,
        Configuration.of(A, B, C),
        RaftOptions(),
        InitialState(
            current_term=2,
            voted_for=C,
            term_runs=[TermRun(1, 1)],
            last_index=6,
        ),
        seed=1,
    )


def heartbeat(leader_commit: int) -> Received:
    return Received(C, AppendEntries(2, C, 1, EntryId(1, 2), Span(2, 3, 3), leader_commit))


def test_c2_commit_is_at_most_the_verified_range() -> None:
    effects = with_an_old_tail().step(heartbeat(leader_commit=4))
    assert [one.index for one in effects if isinstance(one, Commit)] == [2]


def test_c1_match_is_at_most_the_verified_range() -> None:
    effects = with_an_old_tail().step(heartbeat(leader_commit=0))
    replies = [one.message for one in effects if isinstance(one, Send)]
    (reply,) = [one for one in replies if isinstance(one, AppendReply)]
    assert reply.accepted
    assert reply.match_index == 2
