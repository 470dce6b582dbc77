"""What the peers of a member acknowledged to it, as far as this process remembers (F8).

A member whose disk was replaced by an older copy cannot know that its log once held more. The
members to which it acknowledged entries know, and tell it (`copycat/raft/regression.py`).
"""

from __future__ import annotations

from typing import NamedTuple

from copycat.raft.leader_state import LeaderState
from copycat.raft.progress import Progress
from copycat.raft.term_index import TermIndex
from copycat.types import EntryId, MemberId

__all__ = ["Acknowledged", "Acknowledgements", "acknowledged_by"]

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

    __slots__ = ("by_peer", "log_term", "unconfirmed")

    def __init__(self, log_term: int) -> None:
        self.log_term = log_term
        """Newest term in which a leader may have had this log drop entries.

        At the start that of the hard state; of an older copy that knows what it is, that of what
        it owes, for it raised its term by itself since.
        """
        self.by_peer: dict[MemberId, tuple[Acknowledged, ...]] = {}
        """Of each peer in the order of the terms: a later one counts beside an earlier one that is
        greater, for an older copy may be put back again before it has everything."""
        self.unconfirmed: dict[MemberId, EntryId] = {}
        """What a peer lacks that said on its own link where its log ends: a message to it may have
        been lost, for the link to it may still be the one to its earlier process."""

    def remember(self, leader_state: LeaderState, terms: TermIndex) -> None:
        """This member stops to lead: remember what each peer acknowledged to it.

        terms: of its log, which still is the one of that leadership.
        """
        for peer, progress in leader_state.progress.items():
            if progress.match_index:
                last = acknowledged_by(progress, terms, leader_state.term)
                earlier = self.by_peer.get(peer, ())
                greater = [one for one in earlier if one.entry > last.entry]
                self.by_peer[peer] = (*greater[-MEMORIES_MAX:], last)


def acknowledged_by(progress: Progress, terms: TermIndex, term: int) -> Acknowledged:
    """What the peer acknowledged to this member, the leader of `term`, whose log has `terms`."""
    index = progress.match_index
    if index < terms.before.index:
        return Acknowledged(term, EntryId(terms.before.term, index), is_exact=False)
    return Acknowledged(term, terms.entry_at(index), is_exact=True)
