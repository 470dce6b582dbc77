"""A member that came back with an older copy of its own directory (F8).

Every member that led knows what each voter acknowledged to it. A voter whose log does not reach
that far any more was restored from a backup or from a snapshot of its machine. The member that
notices this sends it `LogRegressed`. The voter records durably how far its log once reached, and
from there on it is RECOVERING (`copycat/raft/eligibility.py`): it votes only for a log that
reaches as far, does not campaign, and takes no gaps. It also raises its term, so that the leader
that counted what is missing steps down, and the next leader counts from nothing
(docs/decisions/0024).

That is for a cluster that needs the voter. A leader that hears a majority without it says so, and
the voter stops for good under its id (C42, docs/decisions/0033): it may have forgotten more than
what it acknowledged to this leader.
"""

from __future__ import annotations

from copycat.protocol.peer import AppendReply, LogPosition, LogRegressed
from copycat.raft import leader_members
from copycat.raft.acknowledgements import acknowledged_by
from copycat.raft.effects import EndShipping, PeerRegressed, RecordLoss, StopForGood
from copycat.raft.events import LossRecorded
from copycat.raft.progress import Progress, ProgressState
from copycat.raft.state import NOBODY, TERM_MAX, State, orders_for
from copycat.types import NO_ENTRY, EntryId, MemberId, ServerState

__all__ = [
    "can_do_without",
    "is_well_formed",
    "on_log_position",
    "on_log_regressed",
    "on_loss_recorded",
    "on_reachable",
    "on_reply",
    "shows_regression",
]


# ---- the member to which entries were acknowledged ---------------------------------------------


def shows_regression(raft: State, progress: Progress, message: AppendReply) -> bool:
    """Whether this answer proves that the log of the peer lacks what the peer acknowledged.

    Only an answer to a request that was sent after the acknowledgement had arrived proves it:
    answers and requests may overtake each other. Each later request follows an entry at or above
    match_index. A log that has the entry at match_index either accepts such a request and is
    durable up to there, or its hint is at or above that entry, in term and in index, since terms
    in a log never fall.
    """
    if message.request <= progress.match_request or not progress.match_index:
        return False
    if message.accepted:
        return message.match_index < progress.match_index
    return acknowledged_by(progress, raft.terms, raft.current_term).lacks(message.hint)


def on_reply(raft: State, peer: MemberId, progress: Progress, message: AppendReply) -> bool:
    """Check an answer of this term for a regression; True when the leader may use the answer.

    A peer whose log regressed may also have lost a newer term that it had seen. Until it has its
    acknowledged entries again it counts neither for commits nor for reads.
    """
    reaches = message.accepted and message.match_index >= progress.match_index
    if reaches and not progress.has_regressed:
        return True  # nearly always
    if not shows_regression(raft, progress, message):
        if message.accepted and message.request > progress.match_request:
            progress.has_regressed = False
        return True
    if raft.leader_state is not None and progress.match_index < progress.orders.since:
        leader_members.begin_anew(raft, raft.leader_state, peer)  # see `on_log_position`
        return False
    acknowledged = acknowledged_by(progress, raft.terms, raft.current_term).entry
    was_counted = not progress.has_regressed
    _discount(raft, peer, progress)
    if was_counted:
        last = EntryId(0, message.match_index) if message.accepted else message.hint
        raft.effects.append(PeerRegressed(peer, acknowledged, last))
    is_final = can_do_without(raft, peer)
    raft.send(peer, LogRegressed(raft.current_term, acknowledged, is_final))
    return False


def can_do_without(raft: State, peer: MemberId) -> bool:
    """C43: whether this member leads, has committed an entry of its term, and has heard a majority
    without `peer` within an election timeout. Only then its word ends a member.

    Others whose log regressed do not count: they may be ending by the same word.
    """
    leader_state = raft.leader_state
    if leader_state is None or raft.commit_index < leader_state.noop_index:
        return False
    since_ms = raft.now_ms - raft.options.election_timeout_ms
    heard = [
        each
        for each, progress in leader_state.progress.items()
        if each != peer
        and not progress.has_regressed
        and progress.state is not ProgressState.LOST
        and progress.acked_request
        and progress.last_contact_ms >= since_ms
    ]
    return raft.configuration.has_quorum((raft.member, *heard))


def _discount(raft: State, peer: MemberId, progress: Progress) -> None:
    """The peer counts for nothing from here on.

    A snapshot on its way to the peer was meant for the log before the regression, and an answer
    about it may come from the process before. So the transfer ends, and a later rejection begins
    another one.
    """
    if progress.state is ProgressState.SNAPSHOT:
        raft.effects.append(EndShipping(peer, done=False))
        progress.mark_lost()
    progress.regress()


def on_log_position(raft: State, sender: MemberId, message: LogPosition) -> None:
    """A peer says, on a new link, where its log ends: compare it with what it acknowledged.

    A leader of a later term may make a log drop entries that were acknowledged before, and the
    hard state has reached that term by then. So the log lost entries by itself only if its
    `term` is not above the term of the acknowledgement.

    What a member acknowledged below its `since`, it acknowledged while it joined, or before it was
    a reserve: it may begin again with an empty log as long as it joins (C30, C33).
    """
    since = orders_for(raft.known_configuration, sender).since
    acknowledgements = list(raft.acknowledgements.by_peer.get(sender, ()))
    progress = raft.leader_state.progress[sender] if raft.leader_state is not None else None
    if progress is not None and progress.match_index:
        acknowledgements.append(acknowledged_by(progress, raft.terms, raft.current_term))
    lacking = [
        each
        for each in acknowledgements
        if message.term <= each.term and each.entry.index >= since and each.lacks(message.last)
    ]
    raft.acknowledgements.unconfirmed.pop(sender, None)
    if progress is not None:
        progress.is_uncompared = False
    if not lacking:
        return
    acknowledged = max(each.entry for each in lacking)
    raft.effects.append(PeerRegressed(sender, acknowledged, message.last))
    if progress is not None and progress.match_index and acknowledgements[-1] in lacking:
        _discount(raft, sender, progress)  # an answer to a later request may end it
        if raft.leader_state is not None and can_do_without(raft, sender):
            # That answer proves it, and the final word follows (`on_reply`).
            raft.leader_state.replicator.send_heartbeat(raft, sender)
            return
    raft.acknowledgements.unconfirmed[sender] = acknowledged
    raft.send(sender, LogRegressed(raft.current_term, acknowledged))


def on_reachable(raft: State, peer: MemberId) -> None:
    """The link to `peer` is open: send `LogRegressed` once more, in case the first one was lost.

    A leader that has seen since then that the peer's log is complete sends nothing. A leader that
    has not compared an answer yet sends it: it may stop to lead before that answer comes, and
    another member may meanwhile have reported a lesser entry to the peer (seed 3017).
    """
    if raft.leader_state is not None and peer in raft.leader_state.progress:
        raft.leader_state.progress[peer].is_uncompared = True
    acknowledged = raft.acknowledgements.unconfirmed.pop(peer, NO_ENTRY)
    if acknowledged == NO_ENTRY or peer not in raft.peers:
        return
    progress = raft.leader_state.progress[peer] if raft.leader_state is not None else None
    if progress is None or progress.has_regressed or not progress.match_index:
        raft.send(peer, LogRegressed(raft.current_term, acknowledged))


# ---- the one that regressed --------------------------------------------------------------------


def is_well_formed(message: LogRegressed) -> bool:
    """Whether a member that led could have sent this message."""
    return (
        1 <= message.acknowledged.term <= message.term
        and 1 <= message.acknowledged.index < TERM_MAX
    )


def on_log_regressed(raft: State, sender: MemberId, message: LogRegressed) -> None:
    """A peer says that this member acknowledged an entry, and that its log lacks this entry now.

    If the log has the entry, the message is late, or the entry has been sent again: nothing is to
    be done. If the last entry of the log is less than the acknowledged one, this member votes for
    no lesser log from here on. Its term is raised when that is durable, so that a crash cannot
    leave the one without the other. If the last entry is not less, although the log lacks the
    acknowledged one (entries of a term that lost are here again), then whoever gets the vote of
    this member has all that it acknowledged, and only the leader has to count again from nothing.

    By the final word of the leader of this term it stops for good, if its log lacks the entry.
    """
    acknowledged = message.acknowledged
    if raft.leader_state is not None:
        return
    if message.is_final and message.term == raft.current_term and _lacks(raft, acknowledged):
        raft.become_follower(raft.current_term, NOBODY)
        raft.effects.append(StopForGood(acknowledged))
        return
    if raft.eligibility.report_loss(acknowledged, raft.last):
        raft.pre_vote_round = None
        if raft.state is not ServerState.FOLLOWER:
            raft.become_follower(raft.current_term, NOBODY)
        raft.effects.append(RecordLoss(acknowledged, raft.current_term + 1))
    elif (
        raft.leader == sender
        and raft.eligibility.unrecorded_loss == NO_ENTRY
        and raft.terms.term_at(acknowledged.index) != acknowledged.term
        and acknowledged.index > raft.terms.before.index
    ):
        raft.become_follower(raft.current_term + 1, NOBODY)


def _lacks(raft: State, entry: EntryId) -> bool:
    """Whether this log does not hold the entry. What a snapshot covers it holds."""
    if entry.index <= raft.terms.before.index:
        return False
    return raft.last.index < entry.index or raft.terms.term_at(entry.index) != entry.term


def on_loss_recorded(raft: State, event: LossRecorded) -> None:
    """It is durable: raise the term, so that a leader that counts what was lost steps down."""
    if raft.eligibility.on_loss_recorded():
        raft.draw_election_timeout()
    if event.term > raft.current_term:
        raft.become_follower(event.term, NOBODY)
