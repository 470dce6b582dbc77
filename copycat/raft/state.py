"""The state of one member and the few moves that every role shares. Plain data throughout."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from copycat.config import RaftOptions
from copycat.errors import require
from copycat.protocol.peer import PeerMessage
from copycat.raft.acknowledgements import Acknowledgements
from copycat.raft.configuration import Configuration
from copycat.raft.effects import Effect, RoleChanged, SaveHardState, Send, Sync
from copycat.raft.leader_state import NEVER_MS, LeaderState
from copycat.raft.term_index import TermIndex
from copycat.raft.transfer import Transfer, on_step_down
from copycat.seeded_random import SplitMix64
from copycat.types import NO_ENTRY, EntryId, MemberId, ServerState, TermRun

__all__ = ["NOBODY", "TERM_MAX", "PreVoteRound", "State"]

NOBODY = MemberId(0)

TERM_MAX = (1 << 63) - 1
"""The greatest term, and the greatest index, that disk and wire have room for."""


class PreVoteRound:
    """A PreVote round in flight. It is a follower's: no role and no term changed yet."""

    __slots__ = ("round", "term", "votes")

    def __init__(self, number: int, term: int, member: MemberId) -> None:
        self.round = number
        self.term = term
        self.votes = frozenset({member})


class State:
    """What `Raft` knows. Outside `copycat.raft` every attribute is read-only."""

    __slots__ = (
        "accepted_loss",
        "accepted_request",
        "acknowledgements",
        "cluster_deletion_floor",
        "commit_ceiling",
        "commit_index",
        "configuration",
        "contacted_voters",
        "current_term",
        "drawn_at_ms",
        "durable_index",
        "effects",
        "election_at_ms",
        "ignored",
        "installed_index",
        "kept_index",
        "leader",
        "leader_active_until_ms",
        "leader_state",
        "lost_below_term",
        "lost_upto",
        "member",
        "now_ms",
        "options",
        "peers",
        "pending_sends",
        "pre_vote_number",
        "pre_vote_round",
        "random",
        "reported_index",
        "save_asked_ms",
        "save_ticket",
        "saved_ticket",
        "slow_until_ms",
        "startup_wait_until_ms",
        "state",
        "storage_full",
        "sync_ticket",
        "synced_at_ms",
        "synced_index",
        "syncs",
        "term_seen",
        "terms",
        "transfer",
        "verified_index",
        "voted_for",
        "votes",
    )

    def __init__(
        self,
        member: MemberId,
        configuration: Configuration,
        options: RaftOptions,
        *,
        current_term: int,
        voted_for: MemberId,
        term_runs: Sequence[TermRun],
        first_index: int,
        last_index: int,
        fresh: bool,
        seed: int,
        before: EntryId = NO_ENTRY,
        snapshot_index: int = 0,
        kept_index: int = 0,
        lost: bool = False,
        lost_upto: EntryId = NO_ENTRY,
        regressed: bool = False,
    ) -> None:
        voters = configuration.voters
        require(member in voters, "no voter of this configuration", member=member, voters=voters)
        self.member = member
        self.configuration = configuration
        self.peers = configuration.others(member)
        self.options = options
        self.random = SplitMix64(seed ^ (member & ((1 << 64) - 1)) ^ (member >> 64))
        self.effects: list[Effect] = []
        self.ignored = 0
        """How many messages of peers were nonsense, forged or hopelessly late."""
        self.terms = TermIndex(term_runs, first_index, last_index, before)
        self._begin_log(snapshot_index, kept_index)
        self.accepted_request = 0
        self.verified_index = 0
        """This log equals the leader's of this term up to here."""
        self.reported_index = 0
        """Highest match_index told to the leader of this term."""
        self.pre_vote_round: PreVoteRound | None = None
        self.pre_vote_number = self.random.next() >> 32
        self.term_seen = 0
        self.votes: frozenset[MemberId] = frozenset()
        self.leader_state: LeaderState | None = None
        self.transfer: Transfer | None = None
        self._begin_hard_state(current_term, voted_for)
        self.acknowledgements = Acknowledgements(
            lost_upto.term if regressed else self.current_term
        )
        self._begin_timers()
        self._begin_proof(fresh=fresh, lost=lost)
        self.lost_upto = lost_upto
        """C12: this log held so much before its disk lost some of it; NO_ENTRY: nothing is lost.

        The name of the last entry that it may ever have acknowledged, or a greater one.
        """
        self.accepted_loss = NO_ENTRY
        """As `lost_upto`, after an operator accepted that it is lost; NO_ENTRY: nothing is."""
        self.check_recovered()

    def _begin_proof(self, *, fresh: bool, lost: bool) -> None:
        self.storage_full = False
        """F12: nothing more can be appended here."""

        # C16: voters with empty logs that a fresh directory has met; empty once it may take part.
        self.contacted_voters = frozenset({self.member}) if fresh or lost else frozenset()
        if self.configuration.has_quorum(self.contacted_voters):  # it is the only voter
            self.contacted_voters = frozenset()
        self.lost_below_term = self.current_term if self.contacted_voters and lost else 0
        """Every entry that this member ever acknowledged is of a lower term; 0: none is lost."""

    def _begin_log(self, snapshot_index: int, kept_index: int) -> None:
        terms = self.terms
        require(
            terms.before.index <= snapshot_index <= terms.last_index,
            "the log does not continue the snapshot that was loaded",
            before=terms.before,
            snapshot_index=snapshot_index,
            last_index=terms.last_index,
        )
        self.durable_index = self.synced_index = terms.last_index
        """`synced_index`: a loss of power keeps what is below, in the weaker modes too."""
        self.sync_ticket = 0
        self.syncs: deque[tuple[int, int, int]] = deque()
        """(ticket, last index when it was asked for, when that was), oldest first."""
        self.commit_index = snapshot_index
        self.commit_ceiling = snapshot_index
        """Verified and committed, but perhaps not durable here yet (C2 and C24)."""
        self.installed_index = snapshot_index
        """Newest entry that is known to be committed because a snapshot covers it."""
        self.kept_index = kept_index
        """Oldest snapshot that a restart could fall back to; 0 for none (C23)."""
        self.cluster_deletion_floor = 0
        """Highest cleaning floor that a leader computed, this one or another (C23)."""

    def _begin_hard_state(self, current_term: int, voted_for: MemberId) -> None:
        # The log is a floor for the term: an entry of term t was written only by somebody who
        # had seen t. A vote of ours in t would have been saved before it left, so none did.
        last_term = self.terms.last_term
        self.current_term = max(current_term, last_term)
        self.voted_for = voted_for if current_term >= last_term else NOBODY
        self.state = ServerState.FOLLOWER
        self.leader = NOBODY
        self.save_ticket = 0
        self.saved_ticket = 0
        self.save_asked_ms = 0
        """When the oldest save was asked for that is not on the disk yet."""
        # Bounded, whatever the disk does: the oldest is lost then, as a network may lose it.
        self.pending_sends: deque[tuple[int, Send]] = deque(maxlen=256)

    def _begin_timers(self) -> None:
        self.now_ms = 0
        self.drawn_at_ms = -1
        self.synced_at_ms = 0
        """When a sync was last answered."""
        self.slow_until_ms = 0
        """F15: until then this member does not campaign, for its disk was too slow to lead."""
        self.startup_wait_until_ms = self.options.election_timeout_ms if self.peers else 0
        """C11: a member that starts may have heard a leader a moment before it went down."""
        self.leader_active_until_ms = self.startup_wait_until_ms
        self.election_at_ms = 0
        if self.peers:
            self.draw_election_timeout()

    # ---- what may be asked -----------------------------------------------------------

    @property
    def last(self) -> EntryId:
        """The last entry of the log, durable or not."""
        return self.terms.last

    @property
    def deletion_floor(self) -> int:
        """C23: deletions up to here may be cleaned away here; never above the commit index.

        Nor above the oldest snapshot kept here: a restart replays this log from there.
        """
        deletion_floor = min(self.cluster_deletion_floor, self.commit_index)
        return min(deletion_floor, self.kept_index) if self.kept_index else deletion_floor

    def stable_index(self, match_index: int) -> int:
        """What a restart of this member, durable up to `match_index`, does not fall behind."""
        stable_index = min(match_index, self.synced_index)
        return min(stable_index, self.kept_index) if self.kept_index else stable_index

    @property
    def is_fresh(self) -> bool:
        """C16: a directory without a past that may not take part yet.

        It cannot know whether it is new or was wiped; a wiped voter that votes again could elect
        a leader without the entries it once acknowledged. Two things prove it new: a majority
        of the list with empty logs, for then nothing was ever committed; or its incarnation in
        the log, for then the leader met it for the first time (docs/decisions/0009).
        """
        return bool(self.contacted_voters)

    @property
    def is_lost(self) -> bool:
        """Entries that it acknowledged may be missing: it must not vote with what is left.

        An entry of a term above all that it acknowledged ends this: its leader had everything
        that was ever committed before, and so has whoever holds that entry (decision 0016).
        """
        return self.lost_below_term > 0

    def note_entry(self, term: int) -> None:
        """An entry of `term` is here with all that its leader has before it: a snapshot's, too."""
        if self.lost_below_term and term >= self.lost_below_term:
            self.become_eligible()

    def become_eligible(self) -> None:
        """This log is known to hold what it promised: it may vote and campaign (C16)."""
        self.lost_below_term = 0
        if self.contacted_voters:
            self.contacted_voters = frozenset()
            self.draw_election_timeout()

    @property
    def is_recovering(self) -> bool:
        """Entries that were on this disk are damaged, and no leader has given them back so far.

        Unlike a lost member it knows up to where it held entries, and goes on voting as if it
        held them still: only for somebody who has as much (decision 0017).
        """
        return self.lost_upto != NO_ENTRY

    def accept_loss(self, lost_upto: EntryId) -> None:
        """An operator accepted the loss: it votes and campaigns with what it has."""
        self.lost_upto, self.accepted_loss = NO_ENTRY, lost_upto
        self.draw_election_timeout()

    @property
    def has_accepted_loss(self) -> bool:
        """What it gave up may still be missing here in a way that it is missing nowhere else.

        Not any more once an entry is committed here, durably, at or above all that it held: then
        all further leaders have this log up to there. One that is only appended may be replaced.
        """
        index = min(self.commit_index, self.durable_index, self.synced_index)
        return self.accepted_loss != NO_ENTRY and self.terms.entry_at(index) < self.accepted_loss

    @property
    def refuses_gaps(self) -> bool:
        """Holes of a leader's log are no substitute here: entries that this member lost may be
        deletions that went because it once had them, while it still has what they deleted.

        All that it ever had lies below where it stops to owe or to be lost, and so do these.
        """
        return self.is_recovering or self.is_lost or self.has_accepted_loss

    @property
    def vote_floor(self) -> EntryId:
        """Who has less than this gets no vote of ours (paper 5.4.1, C12)."""
        return max(self.terms.last, self.lost_upto)

    def check_recovered(self) -> None:
        """More is durable here, perhaps all that was owed: then this log speaks for itself.

        Its last entry is at or above what was owed, in the order of Raft. So it was copied from
        a leader that had all that this member ever acknowledged, or was that leader's own.
        """
        if (
            self.lost_upto != NO_ENTRY
            and self.terms.entry_at(self.durable_index) >= self.lost_upto
        ):
            self.lost_upto = NO_ENTRY
            self.draw_election_timeout()

    @property
    def hears_leader(self) -> bool:
        """A leader was heard within the least election timeout, or may have been (C11)."""
        return (
            self.now_ms < self.leader_active_until_ms or self.now_ms < self.startup_wait_until_ms
        )

    @property
    def is_saving(self) -> bool:
        """Term or vote are not on the disk yet: nothing of this term may leave (C9)."""
        return self.saved_ticket < self.save_ticket

    @property
    def disk_age_ms(self) -> int:
        """For how long the disk has owed an answer: to the oldest sync or save (F15).

        Not since that was asked for, if it waited behind one that was answered later: a disk
        that is slow and alive is no reason to change the leader for another one like it.
        """
        asked_ms = max(self.syncs[0][2], self.synced_at_ms) if self.syncs else self.now_ms
        if self.is_saving:
            asked_ms = min(asked_ms, self.save_asked_ms)
        return self.now_ms - asked_ms

    @property
    def may_campaign(self) -> bool:
        """Whether it could lead: it can append (F12), and its disk answers in time (F15)."""
        timeout_ms = self.options.election_timeout_ms
        is_slow = self.now_ms < self.slow_until_ms or self.disk_age_ms > timeout_ms
        return not (self.storage_full or (is_slow and self.peers))

    # ---- timers ----------------------------------------------------------------------

    def draw_election_timeout(self) -> None:
        """Wait [E, 2E) from now (paper section 9.3: randomness breaks split votes)."""
        if self.drawn_at_ms != self.now_ms:  # once a turn is random enough
            timeout_ms = self.options.election_timeout_ms
            self.drawn_at_ms = self.now_ms
            self.election_at_ms = self.now_ms + timeout_ms + self.random.below(timeout_ms)

    def campaign_within(self, low_ms: int, high_ms: int) -> None:
        """Let the next poll begin in [low, high) from now, but not inside the grace (C11)."""
        self.drawn_at_ms = -1
        self.election_at_ms = max(
            self.now_ms + low_ms + self.random.below(high_ms - low_ms), self.startup_wait_until_ms
        )

    @property
    def own_deadline_ms(self) -> int:
        """When a follower or candidate acts on its own."""
        return NEVER_MS if self.is_fresh or self.is_recovering else self.election_at_ms

    # ---- hard state and what waits for it --------------------------------------------

    def save_hard_state(self, term: int, voted_for: MemberId) -> None:
        """Move term or vote; a vote moves only with the term, or from nobody (I2)."""
        require(
            term > self.current_term
            or (term == self.current_term and self.voted_for == NOBODY and voted_for != NOBODY),
            "the vote changes only together with the term",
            term=term,
            voted_for=voted_for,
            current_term=self.current_term,
            vote=self.voted_for,
        )
        if term > self.current_term:
            self.pending_sends.clear()  # promises of a term that is over
            self.accepted_request = 0
            self.verified_index = 0
            self.reported_index = 0
        self.current_term = term
        self.voted_for = voted_for
        if not self.is_saving:
            self.save_asked_ms = self.now_ms
        self.save_ticket += 1
        self.effects.append(SaveHardState(term, voted_for, self.save_ticket))

    def release(self, ticket: int) -> None:
        """`Saved(ticket)`: what waited for it leaves now."""
        require(
            ticket <= self.save_ticket,
            "a save ended that was never asked for",
            ticket=ticket,
            newest=self.save_ticket,
        )
        self.saved_ticket = max(self.saved_ticket, ticket)
        pending = self.pending_sends
        while pending and pending[0][0] <= ticket:
            self.effects.append(pending.popleft()[1])

    def send(self, peer: MemberId, message: PeerMessage) -> None:
        """Say it now, or as soon as the term it speaks for is on the disk (C9, I2)."""
        effect = Send(peer, message)
        if self.saved_ticket < self.save_ticket:
            self.pending_sends.append((self.save_ticket, effect))
        else:
            self.effects.append(effect)

    # ---- data ------------------------------------------------------------------------

    def sync(self) -> None:
        """Ask for everything appended so far to be made durable."""
        self.sync_ticket += 1
        self.syncs.append((self.sync_ticket, self.terms.last_index, self.now_ms))
        self.effects.append(Sync(self.sync_ticket))

    def complete_syncs(self, ticket: int, synced_index: int) -> bool:
        """`Synced(ticket, synced_index)`: move durable_index; True when it moved.

        A ticket counts for what was in the log when it was asked for, less what was truncated
        since (C6): entries appended after the truncation wait for their own ticket.
        """
        if ticket > self.sync_ticket:
            newest = self.sync_ticket
            require(False, "a sync ended that was never asked for", ticket=ticket, newest=newest)
        self.synced_at_ms = self.now_ms
        self.synced_index = synced_index
        before = self.durable_index
        syncs = self.syncs
        while syncs and syncs[0][0] <= ticket:
            self.durable_index = max(self.durable_index, syncs.popleft()[1])
        return self.durable_index > before

    # ---- roles -----------------------------------------------------------------------

    def become_follower(self, term: int, leader: MemberId, voted_for: MemberId = NOBODY) -> None:
        """Follow `leader` (zero when unknown) in `term`; drop all that another role held.

        `voted_for` counts only when the term moves: one save then carries both.
        """
        if term > self.current_term:
            self.save_hard_state(term, voted_for)
        leader_state = self.leader_state
        if leader_state is not None:
            self.leader_state = None  # with it go reads, windows and proposals that nobody answers
            self.acknowledgements.remember(leader_state, self.terms)
            self.draw_election_timeout()
            until_ms = self.now_ms + self.options.election_timeout_ms
            outcome = on_step_down(leader_state, term, until_ms)
            if isinstance(outcome, Transfer):
                self.transfer = outcome
            elif outcome is not None:
                self.effects.append(outcome)
        self.pre_vote_round = None
        self.votes = frozenset()
        self.change_role(ServerState.FOLLOWER, leader)

    def change_role(self, state: ServerState, leader: MemberId) -> None:
        """Announce a change of role, term or leader, at the moment it happens."""
        self.state = state
        self.leader = leader
        self.effects.append(RoleChanged(state, self.current_term, leader))
        if self.transfer is not None and leader != NOBODY:
            self.effects.append(self.transfer.on_leader_known(leader, self.member))
            self.transfer = None
