"""The state of one member, and the few changes of it that every role shares.

All of it is plain data: integers, names of entries, and small containers of them. A checkpoint of
a member is a pickle of it, and two members with equal state answer equal events equally.
"""

from __future__ import annotations

from collections import deque

from copycat.config import RaftOptions
from copycat.errors import require, unreachable
from copycat.protocol.peer import LogRegressed, PeerMessage
from copycat.raft.acknowledgements import Acknowledgements
from copycat.raft.configuration import Configuration, name_of
from copycat.raft.configuration_table import ConfigurationTable
from copycat.raft.effects import (
    Effect,
    RoleChanged,
    SaveHardState,
    Send,
    StandingOrders,
    Sync,
)
from copycat.raft.eligibility import Eligibility
from copycat.raft.initial_state import InitialState
from copycat.raft.leader_state import NEVER_MS, LeaderState
from copycat.raft.term_index import TermIndex
from copycat.raft.transfer import Transfer, on_step_down
from copycat.seeded_random import SplitMix64
from copycat.types import EntryId, MemberId, MemberType, ServerState

__all__ = ["NOBODY", "TERM_MAX", "PreVoteRound", "State", "orders_for"]

NOBODY = MemberId(0)

TERM_MAX = (1 << 63) - 1
"""The greatest term, and the greatest index, that disk and wire have room for."""


def orders_for(configuration: Configuration, member: MemberId) -> StandingOrders:
    """What `configuration` says of `member`."""
    record = configuration.record(member)
    if record is None:
        return StandingOrders(configuration.entry, MemberType.INACTIVE, 0)
    return StandingOrders(configuration.entry, record.type, record.since)


class PreVoteRound:
    """A PreVote round in flight. A follower has it: no role and no term has changed yet."""

    __slots__ = ("round", "term", "votes")

    def __init__(self, number: int, term: int, member: MemberId) -> None:
        self.round = number
        """The number that an answer must repeat."""
        self.term = term
        """The term in which an election would be held."""
        self.votes = frozenset({member})
        """Who would vote for this member, itself included."""


class State:
    """What `Raft` knows. Outside `copycat.raft` every attribute is read-only.

    member: this one.  first: the founders' configuration, or, for a member that was no founder,
    the one that it was given when it asked to join.  seed: of the random numbers that the election
    timeouts are made of; the id of the member makes it another sequence for each.
    """

    __slots__ = (
        "accepted_request",
        "acknowledgements",
        "cluster_deletion_floor",
        "commit_ceiling",
        "commit_index",
        "committed_configuration",
        "configuration",
        "configurations",
        "current_term",
        "drawn_at_ms",
        "durable_index",
        "effects",
        "election_at_ms",
        "eligibility",
        "feeder",
        "ignored",
        "installed_index",
        "is_reserve",
        "is_wiping",
        "known_configuration",
        "leader",
        "leader_active_until_ms",
        "leader_commit",
        "leader_state",
        "links",
        "member",
        "next_configuration_index",
        "now_ms",
        "oldest_snapshot_index",
        "options",
        "orders",
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
        first: Configuration,
        options: RaftOptions,
        initial: InitialState,
        *,
        seed: int,
    ) -> None:
        self.member = member
        self.configurations = ConfigurationTable(
            first, initial.configurations, initial.stored_configuration
        )
        """All that the log holds, as a table over it (C35)."""
        self.configuration = self.configurations.newest
        """The newest that this member knows, committed or not: who votes counts by it."""
        self.peers = self.configuration.others(member)
        """Invariant: all other members of the committed configuration of the log and of every
        newer one, in the order of the newest. A leader has those besides whose removal it
        committed and who do not know it so far."""
        self.links: frozenset[MemberId] = frozenset()
        """Who has a link to this member, member or not (C37)."""
        self.options = options
        self.random = SplitMix64(seed ^ (member & ((1 << 64) - 1)) ^ (member >> 64))
        """Invariant: nothing else is random, so equal events lead to equal effects."""
        self.effects: list[Effect] = []
        """What the step under way has asked for so far, in the order of execution."""
        self.ignored = 0
        """How many messages of peers were nonsense, forged or hopelessly late."""
        self._init_log(initial)
        self._init_role()
        self._init_hard_state(initial)
        self.acknowledgements = Acknowledgements(
            initial.lost_upto.term if initial.is_older_copy else self.current_term
        )
        """What peers acknowledged to this member, and what it may have dropped itself (F8)."""
        self._init_timers()
        self.eligibility = Eligibility(
            member,
            self.configuration,
            current_term=self.current_term,
            fresh=initial.fresh,
            lost=initial.lost,
            lost_upto=initial.lost_upto,
        )
        """What this member may vote for, whether it may campaign, and whether it takes gaps."""
        self._init_membership(initial.committed_configuration)
        self.check_recovered()

    def _init_log(self, initial: InitialState) -> None:
        terms = TermIndex(
            initial.term_runs, initial.first_index, initial.last_index, initial.before
        )
        snapshot_index = initial.snapshot_index
        require(
            terms.before.index <= snapshot_index <= terms.last_index,
            "the log does not continue the snapshot that was loaded",
            before=terms.before,
            snapshot_index=snapshot_index,
            last_index=terms.last_index,
        )
        self.terms = terms
        """The term of each entry of the log. Invariant: terms of entries never fall, and the last
        one is at most `current_term`."""
        self.durable_index = terms.last_index
        """Entries up to here are durable in the chosen mode. Invariant: it is at most the last
        index, and this member acknowledges nothing above it (C1, I10)."""
        self.synced_index = terms.last_index
        """Entries up to here survive a loss of power, in the weaker modes of durability too."""
        self.sync_ticket = 0
        """The newest `Sync` that was asked for."""
        self.syncs: deque[tuple[int, int, int]] = deque()
        """Syncs under way, oldest first: (ticket, last index and time of the request). Invariant:
        the index is at most where the log was truncated to since (C6)."""
        self.commit_index = snapshot_index
        """Invariant: terms.before.index <= commit_index <= terms.last_index, it never falls (I4),
        and what is at or below it never changes (I10)."""
        self.commit_ceiling = snapshot_index
        """Up to here entries are verified and committed, but perhaps not durable here yet: the
        commit index follows when they are (C2, C24). Invariant: it never falls."""
        self.installed_index = snapshot_index
        """The newest entry that is known to be committed because a snapshot covers it. Invariant:
        at most the commit index (I12)."""
        self.oldest_snapshot_index = initial.oldest_snapshot_index
        """Index of the oldest snapshot that a restart could begin with; 0 for none (C23)."""
        self.cluster_deletion_floor = 0
        """The highest deletion floor that any leader computed, this member or another. Invariant:
        it never falls, and every voter has every deletion up to it (C23, I22)."""
        self.storage_full = False
        """F12: the disk of this member has no room for more entries."""
        self.accepted_request = 0
        """The newest request of this term's leader whose entries were accepted."""
        self.verified_index = 0
        """Up to this index the log is known to equal the log of this term's leader (C2).
        Invariant: 0 in a new term."""
        self.reported_index = 0
        """The highest match_index that this member reported to the leader of this term. Invariant:
        0 in a new term."""

    def _init_membership(self, stored: Configuration | None) -> None:
        """stored: what the directory says is committed."""
        self.configurations.trim(self.terms.first_index)
        committed = self.configurations.at(self.commit_index)
        self.committed_configuration = committed
        """The newest of the log that is known to be committed."""
        self.next_configuration_index = self.configurations.next_index(self.commit_index)
        """Index of the first configuration entry that is not known to be committed; above every
        index when there is none."""
        self.known_configuration = max((committed, stored or committed), key=name_of)
        """The newest that is known to be committed, by the log or by a leader's word, be it to an
        earlier process. Invariant: its name never falls."""
        self.orders = orders_for(self.known_configuration, self.member)
        """What the newest committed configuration says of this member, as far as it heard.
        Invariant: its name is at or above that of `known_configuration`."""
        self.is_reserve = not self.is_stateful
        """C33: it knows that it has no log: it acknowledges nothing, and has no vote."""
        self.is_wiping = False
        """Log and state shall be deleted: this member is silent, and the next process begins
        without them."""
        self.peers = self.other_members()
        self.follow_restrictions()

    def _init_role(self) -> None:
        self.state = ServerState.FOLLOWER
        self.leader = NOBODY
        """Who leads this term, as far as this member knows. Invariant: once known it stays the
        same for the rest of the term, or is unknown again (I1)."""
        self.feeder = NOBODY
        """Whom the last heartbeat of a leader named as the member to ask for entries (C27)."""
        self.leader_commit = 0
        """The commit index that the last message of a leader named."""
        self.leader_state: LeaderState | None = None
        """Invariant: there is one exactly while this member leads."""
        self.votes: frozenset[MemberId] = frozenset()
        """Who voted for this member in this term; it counts itself when its vote is durable."""
        self.pre_vote_round: PreVoteRound | None = None
        """Invariant: only a follower has one."""
        self.pre_vote_number = self.random.next() >> 32
        """Of the newest round, so that answers to an earlier process do not count."""
        self.term_seen = 0
        """The highest term that an answer to a PreVote named."""
        self.transfer: Transfer | None = None
        """A transfer for which this member gave up its role, until it is known who leads."""

    def _init_hard_state(self, initial: InitialState) -> None:
        # An entry of term t was written only by a member that had seen t, so the term is at least
        # the last entry's. A vote of ours in t would have been saved before it left, so none did.
        last_term = self.terms.last_term
        self.current_term = max(initial.current_term, last_term)
        """Invariant: it never falls, and moves only together with a SaveHardState effect; nothing
        of the new term leaves before that is saved (I2, C9)."""
        self.voted_for = initial.voted_for if initial.current_term >= last_term else NOBODY
        """Invariant: within a term it changes at most once, from nobody (I2)."""
        self.save_ticket = 0
        """The newest `SaveHardState` that was asked for."""
        self.saved_ticket = 0
        """Saves up to this one are on the disk."""
        self.save_requested_ms = 0
        """When the oldest save was requested that is not on the disk yet."""
        self.pending_sends: deque[tuple[int, Send]] = deque(maxlen=256)
        """Messages that wait for a save, each with the ticket of the save. The length is bounded
        even if the disk never answers: the oldest is dropped then, as a network may do."""

    def _init_timers(self) -> None:
        self.now_ms = 0
        """The sum of all ticks. Invariant: it never falls (C11)."""
        self.drawn_at_ms = -1
        """When the election timeout was last drawn; -1 lets it be drawn again in this turn."""
        self.synced_at_ms = 0
        """When a sync was last answered."""
        self.slow_until_ms = 0
        """F15: until then this member does not campaign, for its disk was too slow to lead."""
        self.startup_wait_until_ms = self.options.election_timeout_ms if self.peers else 0
        """C11: a member that starts may have heard a leader a moment before it stopped."""
        self.leader_active_until_ms = self.startup_wait_until_ms
        """Until then a leader counts as active, and this member votes for nobody else."""
        self.election_at_ms = 0
        """When this member asks for votes, unless it hears a leader before."""
        if self.peers:
            self.draw_election_timeout()

    # ---- what may be asked -----------------------------------------------------------

    @property
    def last(self) -> EntryId:
        """The last entry of the log, durable or not."""
        return self.terms.last

    @property
    def vote_position(self) -> EntryId:
        """What an election compares with the logs of others: `last`, nearly always."""
        return self.eligibility.position(self.terms.last)

    @property
    def deletion_floor(self) -> int:
        """C23: deletions up to this index may be deleted from the log of this member.

        It is never above the commit index, and never above the oldest snapshot on the disk, for a
        restart replays this log from that snapshot on.
        """
        deletion_floor = min(self.cluster_deletion_floor, self.commit_index)
        oldest_index = self.oldest_snapshot_index
        return min(deletion_floor, oldest_index) if oldest_index else deletion_floor

    def stable_index(self, match_index: int) -> int:
        """Up to where this member's state stays, whatever restart happens, when its log is good
        up to `match_index`: a restart keeps those entries or a snapshot that covers them. Of a
        member that led, the commit index may be above what is durable here.

        0 while it joins: its state may lack deletions that it was never asked about (C30).
        """
        if self.eligibility.restrictions and self.eligibility.is_joining:
            return 0
        stable_index = min(match_index, self.durable_index, self.synced_index)
        return (
            min(stable_index, self.oldest_snapshot_index)
            if self.oldest_snapshot_index
            else stable_index
        )

    def note_entry(self, term: int) -> None:
        """The log, or a snapshot, has an entry of `term` and all that its leader had before it."""
        if self.eligibility.restrictions and self.eligibility.on_entry(term):
            self.draw_election_timeout()

    def check_recovered(self) -> None:
        """More is durable here: perhaps the log has all again that its disk lost."""
        if not self.eligibility.restrictions:
            return  # nearly always
        if self.eligibility.is_joining:
            self.follow_restrictions()
        if self.eligibility.on_durable(self.terms.entry_at(self.durable_index)):
            self.draw_election_timeout()

    def check_accepted_loss(self) -> None:
        """More is committed, or durable: perhaps the log has what its disk lost, or what took its
        place in every log."""
        index = min(self.commit_index, self.durable_index, self.synced_index)
        self.eligibility.on_committed(self.terms.entry_at(index))

    # ---- what this member is ---------------------------------------------------------

    @property
    def own_record(self) -> StandingOrders:
        """What the newest configuration says of this member: a leader's word about a committed
        one, or a configuration of its own, whichever has the greater name."""
        newest = self.configuration
        if self.orders.configuration >= newest.entry:
            return self.orders
        return orders_for(newest, self.member)

    @property
    def is_stateful(self) -> bool:
        """Whether this member is ACTIVE or PASSIVE, as far as it heard."""
        return self.own_record.member_type.is_stateful

    @property
    def is_joining(self) -> bool:
        """C30: whether the durable log does not hold the entry that made this member stateful.

        The index of that entry is not enough: the log may reach it with entries that no leader
        will keep. A configuration of the log that names the same `since` follows that entry.
        """
        since = self.own_record.since
        if since == 0 or not self.is_stateful:
            return False
        for row in self.configurations.rows:
            record = row.record(self.member)
            if record is not None and record.is_stateful and record.since == since:
                return row.entry.index > self.durable_index
        return True

    def follow_restrictions(self) -> None:
        """What this member is to the cluster, or how far its log reaches, is another thing now."""
        if self.eligibility.on_configuration(
            self.configuration, is_joining=self.is_joining, is_reserve=self.is_reserve
        ):
            self.draw_election_timeout()

    def other_members(self) -> tuple[MemberId, ...]:
        """All others of the committed configuration of the log and of every newer one."""
        rows = self.configurations.above(self.commit_index)
        known = [self.configuration, *reversed(rows), self.committed_configuration]
        members = dict.fromkeys(member for row in known for member in row.ids)
        members.pop(self.member, None)
        return tuple(members)

    @property
    def is_sole_voter(self) -> bool:
        """Whether its own vote is a majority: nobody else can lead, whoever else is a member."""
        return self.configuration.has_quorum((self.member,))

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
        """For how long the oldest sync or save has waited for the disk (F15).

        Time that it waited behind a sync that was answered later does not count: a disk that is
        slow but answers is no reason to change the leader for another one like it.
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
        return not (self.storage_full or (is_slow and not self.is_sole_voter))

    # ---- timers ----------------------------------------------------------------------

    def draw_election_timeout(self) -> None:
        """Wait [E, 2E) from now (paper section 9.3: randomness breaks split votes)."""
        if self.drawn_at_ms != self.now_ms:  # once a turn is random enough
            timeout_ms = self.options.election_timeout_ms
            self.drawn_at_ms = self.now_ms
            self.election_at_ms = self.now_ms + timeout_ms + self.random.below(timeout_ms)

    def campaign_within(self, low_ms: int, high_ms: int) -> None:
        """Ask for votes in [low, high) from now, but not within the wait after a start (C11)."""
        self.drawn_at_ms = -1
        self.election_at_ms = max(
            self.now_ms + low_ms + self.random.below(high_ms - low_ms), self.startup_wait_until_ms
        )

    @property
    def own_deadline_ms(self) -> int:
        """When a follower or candidate acts on its own."""
        eligibility = self.eligibility
        if not eligibility.restrictions or eligibility.may_campaign:
            return self.election_at_ms
        return NEVER_MS

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
            self.pending_sends.clear()  # messages of a term that is over
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
        """`Saved(ticket)`: the messages that waited for this save are sent now."""
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
            unreachable("a sync ended that was never asked for", ticket=ticket, newest=newest)
        self.synced_at_ms = self.now_ms
        self.synced_index = synced_index
        before = self.durable_index
        syncs = self.syncs
        while syncs and syncs[0][0] <= ticket:
            self.durable_index = max(self.durable_index, syncs.popleft()[1])
        return self.durable_index > before

    # ---- roles -----------------------------------------------------------------------

    def become_follower(self, term: int, leader: MemberId, voted_for: MemberId = NOBODY) -> None:
        """Follow `leader` (zero when unknown) in `term`; drop the state of any other role.

        `voted_for` counts only when the term moves: one save then carries both.
        """
        if term > self.current_term:
            self.save_hard_state(term, voted_for)
        leader_state = self.leader_state
        if leader_state is not None:
            self.leader_state = None  # reads and proposals under way are not answered any more
            unaware = self.acknowledgements.remember(leader_state, self.terms)
            for peer, acknowledged in unaware.items():
                self.send(peer, LogRegressed(self.current_term, acknowledged))
            self.effects += leader_state.changes.end(self.known_configuration)
            self.peers = self.other_members()
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
