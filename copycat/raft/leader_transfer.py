"""How a leader hands its leadership over: whom it chooses, and when it asks that member to
campaign.

A target is a voter of the newest and of the committed configuration (C40), so nobody that is
losing its vote or that may still lose it. A change that is in flight forbids no transfer.
"""

from __future__ import annotations

from copycat.protocol.peer import TimeoutNow
from copycat.raft.effects import TransferFailure, TransferFinished
from copycat.raft.leader_state import LeaderState
from copycat.raft.progress import ProgressState
from copycat.raft.state import NOBODY, State
from copycat.types import MemberId

__all__ = [
    "begin_transfer",
    "begin_transfer_when_full",
    "best_follower",
    "may_take_over",
    "on_transfer_requested",
    "send_timeout_now",
]


def on_transfer_requested(raft: State, to: MemberId) -> None:
    """Stop taking proposals, let the target catch up, then tell it to campaign."""
    leader_state = raft.leader_state
    if leader_state is not None and leader_state.transfer_to != NOBODY:
        leader_state.is_transfer_requested = True  # one answer ends both
        return
    target = to if to != NOBODY or leader_state is None else best_follower(raft, leader_state)
    if (
        leader_state is None
        or target not in leader_state.progress
        or not may_take_over(raft, target)
    ):
        raft.effects.append(TransferFinished(ok=False, failure=TransferFailure.NO_TARGET, to=to))
        return
    leader_state.is_transfer_requested, leader_state.is_transfer_to_any = True, to == NOBODY
    begin_transfer(raft, leader_state, target)


def may_take_over(raft: State, peer: MemberId) -> bool:
    """C40: whether `peer` is a voter by every configuration that may be in force."""
    return raft.configuration.has_vote(peer) and raft.committed_configuration.has_vote(peer)


def begin_transfer(raft: State, leader_state: LeaderState, target: MemberId) -> None:
    """From now on nothing is proposed, until `target` leads or an election timeout is over."""
    leader_state.transfer_to = target
    leader_state.transfer_at_ms = raft.now_ms + raft.options.election_timeout_ms
    send_timeout_now(raft, leader_state)


def begin_transfer_when_full(raft: State, leader_state: LeaderState) -> None:
    """F12: a leader whose disk is full hands over; after each try that fails it tries again.

    The follower that was tried last is chosen last: its disk may be as full as this one.
    """
    target = best_follower(raft, leader_state, after=leader_state.last_transfer_to)
    if target != NOBODY:
        leader_state.last_transfer_to = target
        begin_transfer(raft, leader_state, target)


def best_follower(raft: State, leader_state: LeaderState, after: MemberId = NOBODY) -> MemberId:
    """The voter that has most of the log, reachable ones first; zero when no follower has a vote.

    One that replays its log would lead without a state, and is chosen only when all others do so
    too. `after` is chosen only when no other voter can be reached.
    """
    best = NOBODY
    rank = (False, False, False, -1)
    for peer, progress in leader_state.progress.items():
        if not may_take_over(raft, peer):
            continue
        mine = (
            progress.state is not ProgressState.LOST and not progress.is_fed,
            not progress.is_replaying,
            peer != after,
            progress.counted_index,
        )
        if mine > rank:
            best, rank = peer, mine
    return best


def send_timeout_now(raft: State, leader_state: LeaderState) -> None:
    """Send TimeoutNow once the target has everything, and again with each heartbeat.

    A target whose link broke is sent none until it has answered again, and one that replays its
    log is sent none until it has a state (C40).
    """
    if leader_state.transfer_to == NOBODY:
        return
    progress = leader_state.progress[leader_state.transfer_to]
    if (
        progress.counted_index == raft.terms.last_index
        and progress.state is not ProgressState.LOST
        and not progress.is_fed
        and not progress.is_replaying
    ):
        raft.send(leader_state.transfer_to, TimeoutNow(raft.current_term))
