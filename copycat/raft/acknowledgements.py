"""What the peers of a member acknowledged to it, as far as this process remembers (F8).

A member whose disk was replaced by an older copy cannot know that its log once held more. The
members to which it acknowledged entries know, and report it (`copycat/raft/regression.py`).
"""

from __future__ import annotations

from typing import NamedTuple

from copycat.raft.configuration import Configuration
from copycat.raft.leader_state import LeaderState
from copycat.raft.progress import Progress
from copycat.raft.term_index import TermIndex
from copycat.types import INDEX_END, EntryId, MemberId

__all__ = ["Acknowledged", "Acknowledgements", "acknowledged_by"]

MEMORIES_MAX = 8
"""So many earlier acknowledgements of one peer are remembered beside its last one."""


class Acknowledged(NamedTuple):
    """What a peer acknowledged to a leader of `term`: entries up to `entry`."""

    term: int
    entry: EntryId
    """The name of the last such entry, or a greater name if the leader's log does not reach back
    to that entry."""
    is_exact: bool

    def lacks(self, last: EntryId) -> bool:
        """Whether a log that ends with `last`, or names it as a hint, must have lost `entry`."""
        return last.index < self.entry.index or (self.is_exact and last.term < self.entry.term)


class Acknowledgements:
    """What this process knows of who acknowledged what to it; a restart forgets it."""

    __slots__ = ("by_peer", "log_term", "unconfirmed")

    def __init__(self, log_term: int) -> None:
        self.log_term = log_term
        """Newest term in which a leader may have had this log drop entries.

        At the start it is the term of the hard state. A member that knows that its directory is
        an older copy has raised that term by itself, so it begins with the term of what it lost.
        """
        self.by_peer: dict[MemberId, tuple[Acknowledged, ...]] = {}
        """For each peer, in the order of the terms. An earlier acknowledgement that is greater
        than a later one still counts, since a directory may be replaced by an older copy again
        before its log has everything."""
        self.unconfirmed: dict[MemberId, EntryId] = {}
        """What was reported to a peer that may not have received it: the link to the peer may
        still have been the one to its earlier process."""

    def remember(self, leader_state: LeaderState, terms: TermIndex) -> dict[MemberId, EntryId]:
        """This member stops leading: remember what each peer acknowledged to it.

        terms: the log of this member, which has not changed since it led. The result names what
        each peer acknowledged that may lack it and not know that: a new link to the peer opened,
        and nothing was compared since, for what the peer said first may be lost or late; or the
        peer lacked it, and has not shown that the entries are back, for the report may be lost.
        From another member such a peer may have heard of fewer entries, and with those alone it
        would vote for a log that lacks the others (F8). So it is told what it acknowledged; a
        peer that has the entry takes that for a late message.
        """
        unaware: dict[MemberId, EntryId] = {}
        for peer, progress in leader_state.progress.items():
            if progress.match_index:
                last = acknowledged_by(progress, terms, leader_state.term)
                earlier = self.by_peer.get(peer, ())
                greater = [each for each in earlier if each.entry > last.entry]
                self.by_peer[peer] = (*greater[-MEMORIES_MAX:], last)
                if progress.is_uncompared or progress.has_regressed:
                    unaware[peer] = last.entry
                if progress.has_regressed:
                    self.unconfirmed[peer] = last.entry
        return unaware

    def follow_members(self, committed: Configuration) -> None:
        """Who has no log by the committed configuration, or was given a new one since, does not
        have what it acknowledged before, and that is no fault of its disk (C30, C33)."""
        for peer in list(self.by_peer):
            record = committed.record(peer)
            since = record.since if record is not None and record.is_stateful else INDEX_END
            if since == 0:
                continue
            later = tuple(each for each in self.by_peer[peer] if each.entry.index >= since)
            if later:
                self.by_peer[peer] = later
            else:
                del self.by_peer[peer]
            unconfirmed = self.unconfirmed.get(peer)
            if unconfirmed is not None and unconfirmed.index < since:
                del self.unconfirmed[peer]


def acknowledged_by(progress: Progress, terms: TermIndex, term: int) -> Acknowledged:
    """What the peer acknowledged to this member, the leader of `term`, whose log has `terms`."""
    index = progress.match_index
    if index < terms.before.index:
        return Acknowledged(term, EntryId(terms.before.term, index), is_exact=False)
    return Acknowledged(term, terms.entry_at(index), is_exact=True)
