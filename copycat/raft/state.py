"""The state of one member, and the few changes of it that every role shares.

All of it is plain data: integers, names of entries, and small containers of them. A checkpoint of
a member is a pickle of it, and two members with equal state answer equal events equally.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from copycat.config import RaftOptions
from copycat.errors import require
from copycat.protocol.peer import PeerMessage
from copycat.raft.acknowledgements import Acknowledgements
from copycat.raft.configuration import Configuration
from copycat.raft.effects import Effect, RoleChanged, SaveHardState, Send, Sync
from copycat.raft.eligibility import Eligibility
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
    """What `Raft` knows. Outside `copycat.raft` every attribute is read-only.

    Invariant: terms.before.index <= commit_index <= terms.last_index, and durable_index <=
    terms.last_index (I4). Invariant: current_term and voted_for change only together with a
    SaveHardState effect, and nothing of the new term leaves before that is saved (I2, C9).
    """

    __slots__ = (
        "accepted_request",
        "acknowledgements",
        "cluster_deletion_floor",
        "commit_ceiling",
        "commit_index",
        "configuration",
        "current_term",
        "drawn_at_ms",
        "durable_index",
        "effects",
        "election_at_ms",
        "eligibility",
        "ignored",
        "installed_index",
        "leader",
        "leader_active_until_ms",
        "leader_state",
        "member",
        "now_ms",
        "oldest_snapshot_index",
        "options",
        "peers",
        "pending_sends",
        "pre_vote_number",
        "pre_vote_round",
        "random",
        "reported_index",
        "save_requested_ms",
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
        oldest_snapshot_index: int = 0,
        lost: bool = False,
        lost_upto: EntryId = NO_ENTRY,
        regressed: bool = False,
    ) -> None:
        require(member in configuration.ids, "no member of this configuration", member=member)
        self.member = member
        self.configuration = configuration
        self.peers = configuration.others(member)
        self.options = options
        self.random = SplitMix64(seed ^ (member & ((1 << 64) - 1)) ^ (member >> 64))
        self.effects: list[Effect] = []
        self.ignored = 0
        """How many messages of peers were nonsense, forged or hopelessly late."""
        self.terms = TermIndex(term_runs, first_index, last_index, before)
        self._begin_log(snapshot_index, oldest_snapshot_index)
        self.accepted_request = 0
        self.verified_index = 0
        """Up to this index the log is known to equal the log of this term's leader (C2)."""
        self.reported_index = 0
        """The highest match_index that this member reported to the leader of this term."""
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
        self.storage_full = False
        """F12: the disk of this member has no room for more entries."""
        self.eligibility = Eligibility(
            member,
            configuration,
            current_term=self.current_term,
            fresh=fresh,
            lost=lost,
            lost_upto=lost_upto,
        )
        self.check_recovered()

    def _begin_log(self, snapshot_index: int, oldest_snapshot_index: int) -> None:
        terms = self.terms
        require(
            terms.before.index <= snapshot_index <= terms.last_index,
            "the log does not continue the snapshot that was loaded",
            before=terms.before,
            snapshot_index=snapshot_index,
            last_index=terms.last_index,
        )
        self.durable_index = self.synced_index = terms.last_index
        """`synced_index`: entries up to here survive a loss of power, in the weaker modes of
        durability too. `durable_index`: entries up to here count as durable in the chosen mode."""
        self.sync_ticket = 0
        self.syncs: deque[tuple[int, int, int]] = deque()
        """Syncs under way, oldest first: (ticket, last index and time of the request)."""
        self.commit_index = snapshot_index
        self.commit_ceiling = snapshot_index
        """Up to here entries are verified and committed, but perhaps not durable here yet: the
        commit index follows when they are (C2, C24)."""
        self.installed_index = snapshot_index
        """The newest entry that is known to be committed because a snapshot covers it."""
        self.oldest_snapshot_index = oldest_snapshot_index
        """Index of the oldest snapshot that a restart could begin with; 0 for none (C23)."""
        self.cluster_deletion_floor = 0
        """The highest deletion floor that any leader computed, this member or another: every
        voter has every deletion up to it (C23)."""

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
        self.save_requested_ms = 0
        """When the oldest save was requested that is not on the disk yet."""
        # Messages that wait for a save, each with the save's ticket. The length is bounded even
        # if the disk never answers: the oldest message is dropped then, as a network may do.
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
        """C23: deletions up to this index may be deleted from the log of this member.

        It is never above the commit index, and never above the oldest snapshot on the disk, for a
        restart replays this log from that snapshot on.
        """
        deletion_floor = min(self.cluster_deletion_floor, self.commit_index)
        return (
            min(deletion_floor, self.oldest_snapshot_index)
            if self.oldest_snapshot_index
            else deletion_floor
        )

    def stable_index(self, match_index: int) -> int:
        """Up to where this member's state stays, whatever restart happens, when its log is durable
        up to `match_index`: a restart keeps those entries or a snapshot that covers them."""
        stable_index = min(match_index, self.synced_index)
        return (
            min(stable_index, self.oldest_snapshot_index)
            if self.oldest_snapshot_index
            else stable_index
        )

    def note_entry(self, term: int) -> None:
        """The log, or a snapshot, has an entry of `term` and all that its leader had before it."""
        if self.eligibility.is_lost and self.eligibility.on_entry(term):
            self.draw_election_timeout()

    def check_recovered(self) -> None:
        """More is durable here: perhaps the log has all again that its disk lost."""
        entry = self.terms.entry_at(self.durable_index)
        if self.eligibility.on_durable(entry):
            self.draw_election_timeout()

    def check_accepted_loss(self) -> None:
        """More is committed, or durable: perhaps the log has what its disk lost, or what took its
        place in every log."""
        index = min(self.commit_index, self.durable_index, self.synced_index)
        self.eligibility.on_committed(self.terms.entry_at(index))

    @property
    def has_vote(self) -> bool:
        """Whether this member is a voter: only voters campaign. Any member answers those who ask
        for its vote, since a log is what a vote is judged by; whoever asks counts voters only."""
        return self.configuration.has_vote(self.member)

    @property
    def hears_leader(self) -> bool:
        """Whether a leader was heard within the least election timeout, or may have been before
        this process began (C11)."""
        return (
            self.now_ms < self.leader_active_until_ms or self.now_ms < self.startup_wait_until_ms
        )

    @property
    def is_saving(self) -> bool:
        """Whether term or vote are not on the disk yet: no message of the term may leave (C9)."""
        return self.saved_ticket < self.save_ticket

    @property
    def disk_age_ms(self) -> int:
        """For how long the disk has owed an answer: to the oldest sync or save (F15).

        Not since that was asked for, if it waited behind one that was answered later: a disk
        that is slow and alive is no reason to change the leader for another one like it.
        """
        waiting_since_ms = max(self.syncs[0][2], self.synced_at_ms) if self.syncs else self.now_ms
        if self.is_saving:
            waiting_since_ms = min(waiting_since_ms, self.save_requested_ms)
        return self.now_ms - waiting_since_ms

    @property
    def has_healthy_disk(self) -> bool:
        """Whether this member could lead: it can append (F12), and its disk is in time (F15)."""
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
        may_campaign = self.has_vote and self.eligibility.may_campaign
        return self.election_at_ms if may_campaign else NEVER_MS

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
            self.save_requested_ms = self.now_ms
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
        """Send `message` now, or as soon as the term that it names is on the disk (C9, I2)."""
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
