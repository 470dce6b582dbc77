"""A member that came back with an older copy of its own directory (F8): noticed, told, bound.

Whoever led knows what each voter had acknowledged. A voter whose log does not reach that any
more was restored from a backup or a snapshot of its machine. It is told, records durably how far
it once was, and from there on is a member that lost entries to damage (C12): it votes as if it
held them, does not campaign, and takes no gaps. Its raised term makes the leader that counted
it step down; the next one counts from nothing (decision 0024).
"""

from __future__ import annotations

from copycat.protocol.peer import AppendReply, LogPosition, LogRegressed
from copycat.raft.acknowledgements import acknowledged_by
from copycat.raft.effects import EndShipping, PeerRegressed, RecordLoss
from copycat.raft.events import LossRecorded
from copycat.raft.progress import Progress, ProgressState
from copycat.raft.state import NOBODY, TERM_MAX, State
from copycat.types import NO_ENTRY, EntryId, MemberId, ServerState

__all__ = [
    "is_well_formed",
    "on_log_position",
    "on_log_regressed",
    "on_loss_recorded",
    "on_reachable",
    "on_reply",
    "shows_regression",
]


# ---- the one that was told of acknowledgements -------------------------------------------------


def shows_regression(raft: State, progress: Progress, message: AppendReply) -> bool:
    """Whether this answer proves that the log of the peer lacks what it acknowledged.

    Only an answer to a request that was sent after the acknowledgement had arrived: answers and
    requests that overtook each other on the way prove nothing. From there on each request
    follows an entry at or above match_index. A log that holds that one either accepts it and is
    durable so far, or names in its hint an entry at or above it, in term and in index: terms in
    a log never fall.
    """
    if message.request <= progress.match_request or not progress.match_index:
        return False
    if message.accepted:
        return message.match_index < progress.match_index
    return acknowledged_by(progress, raft.terms, raft.current_term).lacks(message.hint)


def on_reply(raft: State, peer: MemberId, progress: Progress, message: AppendReply) -> bool:
    """Look at an answer of this term before anything of it is used; whether it may be.

    What the peer promised before is gone, perhaps with a newer term that it had seen: until it
    holds its acknowledged entries again it counts neither for commits nor for reads.
    """
    if not shows_regression(raft, progress, message):
        if message.accepted and message.request > progress.match_request:
            progress.has_regressed = False
        return True
    acknowledged = acknowledged_by(progress, raft.terms, raft.current_term).entry
    is_news = not progress.has_regressed
    _discount(raft, peer, progress)
    if is_news:
        last = EntryId(0, message.match_index) if message.accepted else message.hint
        raft.effects.append(PeerRegressed(peer, acknowledged, last))
    raft.send(peer, LogRegressed(raft.current_term, acknowledged))
    return False


def _discount(raft: State, peer: MemberId, progress: Progress) -> None:
    """It counts for nothing. A snapshot that is on its way was meant for the log before: what is
    said of it may be of the process before, so it ends, and a later answer begins another."""
    if progress.state is ProgressState.SNAPSHOT:
        raft.effects.append(EndShipping(peer, done=False))
        progress.mark_lost()
    progress.regress()


def on_log_position(raft: State, sender: MemberId, message: LogPosition) -> None:
    """A peer says, on a new link, where its log ends: compare it with what it acknowledged.

    A log may lose acknowledged entries to a leader of a later term, and the hard state knows
    that term before; so only a log that followed no leader since has lost them by itself.
    """
    known = list(raft.acknowledgements.by_peer.get(sender, ()))
    progress = raft.leader_state.progress[sender] if raft.leader_state is not None else None
    if progress is not None and progress.match_index:
        known.append(acknowledged_by(progress, raft.terms, raft.current_term))
    missing = [one for one in known if message.term <= one.term and one.lacks(message.last)]
    raft.acknowledgements.unconfirmed.pop(sender, None)
    if not missing:
        return
    if progress is not None and progress.match_index and known[-1] in missing:
        _discount(raft, sender, progress)  # an answer to a later request may end it
    acknowledged = max(one.entry for one in missing)
    raft.effects.append(PeerRegressed(sender, acknowledged, message.last))
    raft.acknowledgements.unconfirmed[sender] = acknowledged
    raft.send(sender, LogRegressed(raft.current_term, acknowledged))


def on_reachable(raft: State, peer: MemberId) -> None:
    """The link to `peer` is open: tell the peer again what it lacks, once.

    A leader to whom the peer's log proved itself since then does not. A leader that only will
    compare the next answer does: it may stop to lead before that answer comes, and another member
    may have told the peer of less meanwhile (seed 3017).
    """
    acknowledged = raft.acknowledgements.unconfirmed.pop(peer, NO_ENTRY)
    if acknowledged == NO_ENTRY:
        return
    progress = raft.leader_state.progress[peer] if raft.leader_state is not None else None
    if progress is None or progress.has_regressed or not progress.match_index:
        raft.send(peer, LogRegressed(raft.current_term, acknowledged))


# ---- the one that regressed --------------------------------------------------------------------


def is_well_formed(message: LogRegressed) -> bool:
    """Whether somebody who led could have said it."""
    return (
        1 <= message.acknowledged.term <= message.term
        and 1 <= message.acknowledged.index < TERM_MAX
    )


def on_log_regressed(raft: State, sender: MemberId, message: LogRegressed) -> None:
    """Somebody to whom this member acknowledged the named entry says that it should have it.

    Nothing is believed that this log contradicts: if it holds the entry, the message is late, or
    what was lost has come back. If its last entry is less, it does not vote for less from here
    on; its term is raised when that is durable, so that a crash cannot leave the one without the
    other. If it is not (entries of a term that lost are here again), then whoever it votes for
    has all that it acknowledged, and only the leader has to count anew.
    """
    acknowledged = message.acknowledged
    if raft.leader_state is not None:
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


def on_loss_recorded(raft: State, event: LossRecorded) -> None:
    """It is durable: raise the term, so that a leader that counts what was lost steps down."""
    if raft.eligibility.on_loss_recorded():
        raft.draw_election_timeout()
    if event.term > raft.current_term:
        raft.become_follower(event.term, NOBODY)
