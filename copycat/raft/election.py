"""Elections: the PreVote round before one, the vote, the tally, and how others answer.

A PreVote round changes nobody's term and promises nothing: it only asks whether an election could
be won, so that a member that cannot win one never disturbs a healthy cluster.
"""

from __future__ import annotations

from copycat.protocol.peer import (
    LogPosition,
    PeerMessage,
    PreVote,
    PreVoteReply,
    RequestVote,
    TimeoutNow,
    VoteReply,
)
from copycat.raft import leader
from copycat.raft.state import NOBODY, TERM_MAX, PreVoteRound, State
from copycat.types import MemberId, ServerState

__all__ = [
    "elect",
    "is_plausible",
    "is_plausible_term",
    "on_election_timeout",
    "on_peer_reachable",
    "on_pre_vote",
    "on_pre_vote_reply",
    "on_request_vote",
    "on_self_vote_saved",
    "on_timeout_now",
    "on_vote_reply",
]


TERM_JUMP_MAX = 1 << 32
"""A term that jumps farther than this at once is nonsense: terms would run
out, and no honest cluster holds four billion elections while one member looks away."""


def on_election_timeout(raft: State) -> None:
    """No leader was heard (or an election ended without one): ask before campaigning.

    The next round begins sooner than the next election would, within [E/4, E): a PreVote round
    moves no term and takes no vote, so members that ask at the same time cannot split anything,
    and asking again soon costs a few messages. An election keeps [E, 2E) (paper section 5.2).
    """
    if raft.state is ServerState.CANDIDATE and raft.is_saving:
        raft.draw_election_timeout()  # the disk is slow; another term would not make it faster
        return
    raft.leader_active_until_ms = min(raft.leader_active_until_ms, raft.now_ms)
    if raft.state is not ServerState.FOLLOWER or raft.leader != NOBODY:
        raft.votes = frozenset()
        raft.change_role(ServerState.FOLLOWER, NOBODY)
    timeout_ms = raft.options.election_timeout_ms
    if not raft.has_healthy_disk:  # F12 and F15: a leader begins with an append and a sync
        raft.campaign_within(timeout_ms, 2 * timeout_ms)
        return
    if raft.is_sole_voter:
        elect(raft, transfer=False)
        return
    raft.campaign_within(timeout_ms // 4, timeout_ms)
    raft.pre_vote_number += 1
    term = max(raft.current_term, raft.term_seen) + 1
    raft.pre_vote_round = PreVoteRound(raft.pre_vote_number, term, raft.member)
    for peer in raft.configuration.others(raft.member):
        if raft.configuration.has_vote(peer):
            raft.send(peer, PreVote(term, raft.pre_vote_number, raft.vote_position))


def on_pre_vote(raft: State, sender: MemberId, message: PreVote) -> None:
    """Say whether this member would vote for `sender`: not while it hears a leader, and never as
    a leader (I16)."""
    granted = (
        raft.state is not ServerState.LEADER
        and not raft.hears_leader
        and message.last >= raft.eligibility.vote_floor(raft.last)
        and (
            message.term > raft.current_term
            or (message.term == raft.current_term and raft.voted_for in (NOBODY, sender))
        )
    )
    raft.send(sender, PreVoteReply(raft.current_term, message.round, granted))
    crossed = granted and raft.pre_vote_round is not None
    if crossed and (message.last, sender) > (raft.vote_position, raft.member):
        # Two PreVote rounds crossed. If both were granted, both members would campaign and split
        # the vote, so the one with the lesser log ends its own round, which costs nothing.
        raft.pre_vote_round = None
        timeout_ms = raft.options.election_timeout_ms
        raft.campaign_within(timeout_ms // 4, timeout_ms)


def on_pre_vote_reply(raft: State, sender: MemberId, message: PreVoteReply) -> None:
    """Tally a PreVote round. An answer may name a higher term: the next round asks beyond it.

    The term itself does not move. Without this, a member with the best log and an old term would
    ask for ever in a term in which nobody can vote any more.
    """
    raft.term_seen = max(raft.term_seen, message.term)
    pre_vote_round = raft.pre_vote_round
    if (
        pre_vote_round is None
        or message.round != pre_vote_round.round
        or raft.state is not ServerState.FOLLOWER
    ):
        return
    if message.granted:
        pre_vote_round.votes |= {sender}
        if raft.configuration.has_quorum(pre_vote_round.votes):
            elect(raft, transfer=False)


def elect(raft: State, *, transfer: bool) -> None:
    """Start an election. This member's own vote counts only when it is durable, and the requests
    leave only then (C9).

    transfer: a leader asked for it, so that members vote although they hear that leader.
    """
    term = max(raft.current_term, raft.term_seen) + 1
    if term > TERM_MAX:
        raft.ignored += 1  # terms ran out: `is_plausible` keeps this out of reach
        return
    raft.pre_vote_round = None
    raft.save_hard_state(term, raft.member)
    raft.votes = frozenset()
    raft.leader_active_until_ms = min(raft.leader_active_until_ms, raft.now_ms)
    raft.change_role(ServerState.CANDIDATE, NOBODY)
    timeout_ms = raft.options.election_timeout_ms
    raft.campaign_within(timeout_ms, 2 * timeout_ms)
    request = RequestVote(term, raft.vote_position, transfer)
    for peer in raft.configuration.others(raft.member):
        if raft.configuration.has_vote(peer):
            raft.send(peer, request)


def on_self_vote_saved(raft: State) -> None:
    """Everything of this term is on the disk: the candidate may count itself."""
    if raft.state is ServerState.CANDIDATE and raft.member not in raft.votes:
        _count(raft, raft.member)


def on_request_vote(raft: State, sender: MemberId, message: RequestVote) -> None:
    """Grant at most one vote a term, to a log at least as new (paper 5.2 and 5.4.1, C12).

    While this member hears a leader the request changes nothing, not even the term. An election
    that the leader itself asked for is the exception, for that leader takes no proposals any more.
    A member that has just been started makes no exception: its directory may be an older copy
    without its knowing (C11, F8).
    """
    term = message.term
    is_new = raft.now_ms < raft.startup_wait_until_ms
    if term > raft.current_term:
        is_led = raft.hears_leader or raft.state is ServerState.LEADER
        if is_new or (is_led and not message.transfer):
            raft.send(sender, VoteReply(raft.current_term, False))
            return
        granted = message.last >= raft.eligibility.vote_floor(raft.last)
        raft.become_follower(term, NOBODY, sender if granted else NOBODY)
    elif term == raft.current_term and raft.state is ServerState.FOLLOWER:
        is_free = not is_new if message.transfer else not raft.hears_leader
        may_grant = raft.voted_for == sender or (raft.voted_for == NOBODY and is_free)
        granted = may_grant and message.last >= raft.eligibility.vote_floor(raft.last)
        if granted and raft.voted_for == NOBODY:
            raft.save_hard_state(term, sender)
    else:
        granted = False
    if granted:
        raft.pre_vote_round = None
        raft.draw_election_timeout()
    raft.send(sender, VoteReply(raft.current_term, granted))


def on_vote_reply(raft: State, sender: MemberId, message: VoteReply) -> None:
    """Tally the election of this very term; anything else is too late."""
    if (
        raft.state is ServerState.CANDIDATE
        and message.term == raft.current_term
        and message.granted
    ):
        _count(raft, sender)


def _count(raft: State, voter: MemberId) -> None:
    raft.votes |= {voter}
    if raft.configuration.has_quorum(raft.votes) and not raft.is_saving:
        leader.become_leader(raft)


def on_timeout_now(raft: State, sender: MemberId, message: TimeoutNow) -> None:
    """The leader hands over: campaign at once, without a PreVote round (Ongaro section 3.10).

    A member that has just been started waits first (C11): the leader may mean the process before
    the restart, and the directory of this one may be an older copy (F8). The leader repeats the
    message with each heartbeat. A member that is fed is behind (C40).
    """
    if (
        raft.state is ServerState.FOLLOWER
        and message.term == raft.current_term
        and raft.leader in (NOBODY, sender)
        and raft.feeder == NOBODY
        and raft.now_ms >= raft.startup_wait_until_ms
        and raft.eligibility.may_campaign
        and raft.has_healthy_disk
    ):
        elect(raft, transfer=True)


def on_peer_reachable(raft: State, peer: MemberId) -> None:
    """A link came up while this member asks for votes: ask this peer too.

    The peer may have been asked before; a second answer changes nothing.
    """
    if raft.pre_vote_round is not None:
        raft.send(
            peer, PreVote(raft.pre_vote_round.term, raft.pre_vote_round.round, raft.vote_position)
        )
    elif raft.state is ServerState.CANDIDATE and not raft.is_saving:
        # A RequestVote that waits for the disk is sent to everybody when the disk answers.
        raft.send(peer, RequestVote(raft.current_term, raft.vote_position, False))


def is_plausible(raft: State, message: PeerMessage) -> bool:
    """Terms are positive, fit 63 bits and do not leap.

    Only who answers a question, or says where its log ends, may never have seen a term at all.
    """
    may_be_zero = isinstance(message, PreVoteReply | VoteReply | LogPosition)
    return is_plausible_term(raft, message.term, least=0 if may_be_zero else 1)


def is_plausible_term(raft: State, term: int, *, least: int = 1) -> bool:
    """Whether a member of this cluster can be in `term`."""
    return least <= term <= TERM_MAX and term - raft.current_term <= TERM_JUMP_MAX
