"""A member that came back with an older copy of its own directory (F8): noticed, told, bound.

Whoever led knows what each voter had acknowledged. A voter whose log does not reach that any
more was restored from a backup or a snapshot of its machine. It is told, records durably how far
it once was, and from there on is a member that lost entries to damage (C12): it votes as if it
held them, does not campaign, and takes no holes. Its raised term makes the leader that counted
it step down; the next one counts from nothing (decision 0024).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from copycat.protocol.peer import AppendReply, LogPosition, LogRegressed
from copycat.raft.effects import EndShipping, PeerRegressed, RecordLoss
from copycat.raft.progress import ProgressState
from copycat.raft.timers import TERM_MAX
from copycat.types import NO_ENTRY, EntryId, MemberId, ServerState

if TYPE_CHECKING:
    from copycat.raft.events import LossRecorded
    from copycat.raft.leader_state import LeaderState
    from copycat.raft.progress import Progress
    from copycat.raft.state import State

__all__ = [
    "Acknowledgements",
    "is_well_formed",
    "note_acknowledged",
    "on_log_position",
    "on_log_regressed",
    "on_loss_recorded",
    "on_reply",
    "shows_regression",
]


MEMORIES_MAX = 8
"""So many earlier acknowledgements of one peer are remembered beside its last one."""


class Acknowledged(NamedTuple):
    """What a peer acknowledged to a leader of `term`: entries up to `entry`."""

    term: int
    entry: EntryId
    """Its own name, or a greater one where the leader's log does not reach back to it."""
    is_exact: bool

    def lacks(self, last: EntryId) -> bool:
        """Whether a log that still holds it cannot have `last` at the end, or as a hint."""
        return last.index < self.entry.index or (self.is_exact and last.term < self.entry.term)


class Acknowledgements:
    """What this process knows of who acknowledged what to it; a restart forgets it."""

    __slots__ = ("by_peer", "log_term", "recording", "untold")

    def __init__(self, log_term: int) -> None:
        self.log_term = log_term
        """Newest term in which a leader may have had this log drop entries.

        At the start that of the hard state; of an older copy that knows what it is, that of what
        it owes, for it raised its term by itself since.
        """
        self.by_peer: dict[MemberId, tuple[Acknowledged, ...]] = {}
        """Of each peer in the order of the terms: a later one counts beside an earlier one that is
        greater, for an older copy may be put back again before it has everything."""
        self.recording = NO_ENTRY
        """Of this member: what it was told, and is not durable in its directory yet."""
        self.untold: dict[MemberId, EntryId] = {}
        """What a peer lacks that said on its own link where its log ends: a message to it may have
        been lost, for the link to it may still be the one to its earlier process."""


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
    return _acknowledged(raft, progress).lacks(message.hint)


def on_reply(raft: State, peer: MemberId, progress: Progress, message: AppendReply) -> bool:
    """Look at an answer of this term before anything of it is used; whether it may be.

    What the peer promised before is gone, perhaps with a newer term that it had seen: until it
    holds its acknowledged entries again it counts neither for commits nor for reads.
    """
    if not shows_regression(raft, progress, message):
        if message.accepted and message.request > progress.match_request:
            progress.has_regressed = False
        return True
    acknowledged = _acknowledged(raft, progress).entry
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


def _acknowledged(raft: State, progress: Progress) -> Acknowledged:
    terms, index = raft.terms, progress.match_index
    if index < terms.before.index:
        return Acknowledged(raft.current_term, EntryId(terms.before.term, index), is_exact=False)
    return Acknowledged(raft.current_term, terms.entry_at(index), is_exact=True)


def note_acknowledged(raft: State, leader_state: LeaderState) -> None:
    """This member stops to lead: remember what each peer acknowledged to it."""
    for peer, progress in leader_state.progress.items():
        if progress.match_index:
            last = _acknowledged(raft, progress)._replace(term=leader_state.term)
            known = raft.acknowledgements.by_peer.get(peer, ())
            greater = [one for one in known if one.entry > last.entry]
            raft.acknowledgements.by_peer[peer] = (*greater[-MEMORIES_MAX:], last)


def on_log_position(raft: State, sender: MemberId, message: LogPosition) -> None:
    """A peer says, on a new link, where its log ends: compare it with what it acknowledged.

    A log may lose acknowledged entries to a leader of a later term, and the hard state knows
    that term before; so only a log that followed no leader since has lost them by itself.
    """
    known = list(raft.acknowledgements.by_peer.get(sender, ()))
    progress = raft.leader_state.progress[sender] if raft.leader_state is not None else None
    if progress is not None and progress.match_index:
        known.append(_acknowledged(raft, progress))
    missing = [one for one in known if message.term <= one.term and one.lacks(message.last)]
    raft.acknowledgements.untold.pop(sender, None)
    if not missing:
        return
    if progress is not None and progress.match_index and known[-1] in missing:
        _discount(raft, sender, progress)  # an answer to a later request may end it
    acknowledged = max(one.entry for one in missing)
    raft.effects.append(PeerRegressed(sender, acknowledged, message.last))
    raft.acknowledgements.untold[sender] = acknowledged
    raft.send(sender, LogRegressed(raft.current_term, acknowledged))


def on_reachable(raft: State, peer: MemberId) -> None:
    """The link to `peer` is open: say again what it lacks, once. A leader to whom the peer
    acknowledged something since needs not: it compares each answer (`shows_regression`)."""
    acknowledged = raft.acknowledgements.untold.pop(peer, NO_ENTRY)
    if acknowledged == NO_ENTRY:
        return
    progress = raft.leader_state.progress[peer] if raft.leader_state is not None else None
    if progress is None or not progress.match_index:
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
    if raft.vote_floor < acknowledged:
        raft.lost_upto = acknowledged
        raft.acknowledgements.recording = acknowledged
        raft.pre_vote_round = None
        if raft.state is not ServerState.FOLLOWER:
            raft.become_follower(raft.current_term, MemberId(0))
        raft.effects.append(RecordLoss(acknowledged, raft.current_term + 1))
    elif (
        raft.leader == sender
        and raft.acknowledgements.recording == NO_ENTRY
        and raft.terms.term_at(acknowledged.index) != acknowledged.term
        and acknowledged.index > raft.terms.before.index
    ):
        raft.become_follower(raft.current_term + 1, MemberId(0))


def on_loss_recorded(raft: State, event: LossRecorded) -> None:
    """It is durable: raise the term, so that a leader that counts what is gone steps down.

    A copy from before the first election takes itself for new (C16). It is not, and is bound by
    what it was told: with its vote somebody can lead who gives it that.
    """
    raft.acknowledgements.recording = NO_ENTRY
    if not raft.lost_below_term:
        raft.become_eligible()
    if event.term > raft.current_term:
        raft.become_follower(event.term, MemberId(0))
