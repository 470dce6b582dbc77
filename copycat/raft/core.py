"""`Raft.step(event) -> [effects]`: the term rule, and each event to the role that answers it.

A pure function of its state and the event: integers in, integers out. No bytes, no clock but
`Tick`, no random numbers but those of its seed. It never raises on what a peer says: nonsense
is counted in `ignored`; a broken law inside raises InvariantError, and the member stops.
"""

from __future__ import annotations

from typing import assert_never

from copycat.protocol.peer import (
    AppendEntries,
    AppendReply,
    ConfigurationNotice,
    InstallReply,
    InstallSnapshot,
    LogPosition,
    LogRegressed,
    PreVote,
    PreVoteReply,
    RequestVote,
    TimeoutNow,
    VoteReply,
)
from copycat.raft import (
    change_requests,
    election,
    feeding,
    follower,
    install_snapshot,
    leader,
    leader_members,
    leader_transfer,
    membership,
    regression,
)
from copycat.raft.effects import Effect
from copycat.raft.events import (
    ChangeRequested,
    Compacted,
    EntriesFed,
    Event,
    GapsKnown,
    IncarnationCommitted,
    LeaderHeard,
    LossAccepted,
    LossRecorded,
    OldestSnapshotChanged,
    PeerHeard,
    Proposed,
    Reachable,
    ReadRequested,
    Received,
    Saved,
    Sent,
    SnapshotInstalled,
    SnapshotShipping,
    StorageFull,
    Synced,
    Tick,
    TransferRequested,
    Unreachable,
)
from copycat.raft.state import NOBODY, State
from copycat.types import MemberId, ServerState

__all__ = ["Raft"]


class Raft(State):
    """One member's consensus. Plain data: `pickle.dumps(raft)` is a checkpoint."""

    __slots__ = ()

    @property
    def can_propose(self) -> bool:
        """Whether `Proposed` would be answered by an `Append`."""
        return self.leader_state is not None and self.leader_state.transfer_to == NOBODY

    @property
    def timeout_ms(self) -> int:
        """Milliseconds until the core would act by itself: how long the host may sleep."""
        leader_state = self.leader_state
        deadline_ms = (
            self.own_deadline_ms if leader_state is None else leader.deadline_ms(leader_state)
        )
        if self.transfer is not None:
            deadline_ms = min(deadline_ms, self.transfer.until_ms)
        return max(0, deadline_ms - self.now_ms)

    @property
    def position(self) -> LogPosition:
        """What is said first on a new link: a peer may know that this log once held more (F8)."""
        return LogPosition(self.acknowledgements.log_term, self.last)

    def match_index(self, peer: MemberId) -> int:
        """What `peer` is known to hold durably; 0 when unknown, or when not leading."""
        if peer == self.member:
            return self.durable_index
        progress = self.leader_state.progress.get(peer) if self.leader_state is not None else None
        return progress.counted_index if progress is not None else 0

    def step(self, event: Event) -> list[Effect]:
        """Take one event; the effects are to be carried out in list order."""
        effects: list[Effect] = []
        self.effects = effects
        match event:
            case Received():
                _on_received(self, event)
            case Sent():
                leader.on_sent(self, event.peer, event.span)
            case Synced():
                _on_synced(self, event)
            case Tick():
                _on_tick(self, event)
            case Proposed():
                leader.on_proposed(self, event.count)
            case ReadRequested():
                leader.on_read_requested(self, event.token)
            case EntriesFed():
                feeding.on_entries_fed(self, event)
            case Saved():
                _on_saved(self, event.ticket)
            case Reachable():
                _on_reachable(self, event)
            case IncarnationCommitted():
                if self.eligibility.on_incarnation_committed():
                    self.draw_election_timeout()
            case Unreachable():
                _on_unreachable(self, event.peer)
            case StorageFull():
                _on_storage_full(self, event.full)
            case Compacted():
                leader.on_compacted(self, event.first_index)
            case GapsKnown():
                install_snapshot.on_gaps_known(self, event.valid_from)
            case LossAccepted():
                self.eligibility.accept_loss(event.lost_upto)
                self.draw_election_timeout()
            case LossRecorded():
                regression.on_loss_recorded(self, event)
            case OldestSnapshotChanged():
                install_snapshot.on_oldest_snapshot_changed(self, event.oldest_index)
            case LeaderHeard() | PeerHeard():
                _on_heard(self, event)
            case SnapshotShipping():
                install_snapshot.on_snapshot_shipping(self, event)
            case SnapshotInstalled():
                install_snapshot.on_snapshot_installed(self, event)
                self.check_recovered()
                self.note_entry(event.entry.term)
            case TransferRequested():
                leader_transfer.on_transfer_requested(self, event.to)
            case ChangeRequested():
                change_requests.on_change_requested(self, event.token, event.change)
            case _:
                assert_never(event)
        if self.eligibility.restrictions:  # a member has none, nearly always
            self.check_accepted_loss()
        self.effects = []
        return effects


def _on_received(raft: Raft, event: Received) -> None:
    """The term rule (paper section 5.1), then the handler; the term comes first."""
    sender, message = event.sender, event.message
    term = message.term
    is_current = term == raft.current_term and term > 0  # nearly always
    if sender not in raft.peers and (
        sender in {NOBODY, raft.member} or not isinstance(message, _OF_STRANGERS)
    ):
        raft.ignored += 1
        return
    if not is_current and not (
        election.is_plausible(raft, message)
        and (isinstance(message, PreVote) or _may_move(raft, sender, term))
    ):
        raft.ignored += 1
        if raft.leader_state is not None and sender in raft.leader_state.departing:
            # It has a higher term, so it follows this leader no more, whatever it is sent.
            leader_members.end_departure(raft, raft.leader_state, sender)
        return
    match message:
        case AppendEntries():
            if not follower.is_well_formed(message) or message.leader != sender:
                raft.ignored += 1  # nobody passes on the entries of another member
                return
            if term > raft.current_term:
                raft.become_follower(term, message.leader)
            follower.on_append_entries(raft, event, message)
        case AppendReply():
            if term > raft.current_term:
                raft.become_follower(term, NOBODY)
            elif term == raft.current_term:
                leader.on_append_reply(raft, sender, message)
        case PreVote() | PreVoteReply() | RequestVote() | VoteReply() | TimeoutNow():
            _on_election(raft, sender, message)
        case InstallSnapshot():
            if not install_snapshot.is_well_formed(message) or message.leader != sender:
                raft.ignored += 1
                return
            if term > raft.current_term:
                raft.become_follower(term, message.leader)
            install_snapshot.on_install_snapshot(raft, sender, message)
        case InstallReply():
            if term > raft.current_term:
                raft.become_follower(term, NOBODY)
            elif term == raft.current_term:
                leader.on_install_reply(raft, sender, message)
        case LogPosition():
            _on_log_position(raft, sender, message)
        case LogRegressed():
            if not regression.is_well_formed(message):
                raft.ignored += 1
                return
            if term > raft.current_term:
                raft.become_follower(term, NOBODY)
            regression.on_log_regressed(raft, sender, message)
        case ConfigurationNotice():
            _on_notice(raft, sender, message)
        case _:
            assert_never(message)


def _on_log_position(raft: Raft, sender: MemberId, message: LogPosition) -> None:
    """Compare it with what the sender acknowledged (F8), and with this log, if all were lost."""
    regression.on_log_position(raft, sender, message)
    if raft.eligibility.on_log_position(sender, message.last, raft.configuration, raft.last):
        raft.draw_election_timeout()


def _on_election(
    raft: Raft,
    sender: MemberId,
    message: PreVote | PreVoteReply | RequestVote | VoteReply | TimeoutNow,
) -> None:
    term = message.term
    match message:
        case PreVote():
            election.on_pre_vote(raft, sender, message)
            if raft.leader_state is not None and sender not in raft.peers:
                leader_members.answer_stranger(raft, raft.leader_state, sender)
        case PreVoteReply():
            election.on_pre_vote_reply(raft, sender, message)
        case RequestVote():
            election.on_request_vote(raft, sender, message)
        case VoteReply():
            if term > raft.current_term:
                raft.become_follower(term, NOBODY)
            else:
                election.on_vote_reply(raft, sender, message)
        case TimeoutNow():
            if term > raft.current_term:
                raft.become_follower(term, sender)
            election.on_timeout_now(raft, sender, message)
        case _:
            assert_never(message)


_OF_STRANGERS = (
    AppendEntries,
    ConfigurationNotice,
    InstallSnapshot,
    PreVote,
    PreVoteReply,
    RequestVote,
    TimeoutNow,
    VoteReply,
)
"""C32: these count although their sender is no member that this member knows. Who may lead and
who may ask for votes is judged by logs, and by the configuration of whoever counts the votes: a
majority may have elected, or need, a member that this one has not heard of."""


def _may_move(raft: Raft, sender: MemberId, term: int) -> bool:
    """C32: whether a term that `sender` names may be followed. Only a leader asks who says it: a
    member that was removed must not end the leadership of those that removed it."""
    leader_state = raft.leader_state
    if leader_state is None or term <= raft.current_term:
        return True
    return sender in raft.peers and sender not in leader_state.departing


def _on_notice(raft: Raft, sender: MemberId, message: ConfigurationNotice) -> None:
    """The term rule, a sign of life, and what the leader says (C28)."""
    if message.leader != sender or not membership.is_well_formed(message):
        raft.ignored += 1
        return
    if message.term > raft.current_term:
        raft.become_follower(message.term, message.leader)
    if message.term < raft.current_term:
        membership.on_late_notice(raft, message)
    elif follower.hear_leader(raft, message.leader):
        membership.on_notice(raft, message)


def _on_heard(raft: Raft, event: LeaderHeard | PeerHeard) -> None:
    """A frame that the replica takes by itself: the term rule, and a sign of life."""
    is_known = event.sender in raft.peers or (
        isinstance(event, LeaderHeard) and event.sender not in {NOBODY, raft.member}
    )
    is_plausible = election.is_plausible_term(raft, event.term)
    if not (is_known and is_plausible and _may_move(raft, event.sender, event.term)):
        raft.ignored += 1
    elif isinstance(event, PeerHeard):
        install_snapshot.on_peer_heard(raft, event.sender, event.term)
    elif event.leader != event.sender:
        raft.ignored += 1  # nobody passes on the snapshot of another member
    else:
        install_snapshot.on_leader_heard(raft, event.leader, event.term)


def _on_saved(raft: Raft, ticket: int) -> None:
    raft.release(ticket)
    if not raft.is_saving:
        election.on_self_vote_saved(raft)


def _on_synced(raft: Raft, event: Synced) -> None:
    if not raft.complete_syncs(event.ticket, event.synced_index):
        return
    raft.check_recovered()
    if raft.leader_state is not None:
        leader.on_synced(raft, raft.leader_state)
    else:
        follower.on_synced(raft)


def _on_tick(raft: Raft, event: Tick) -> None:
    elapsed_ms = event.elapsed_ms
    if elapsed_ms > 0:
        raft.now_ms += elapsed_ms
    if raft.transfer is not None and raft.now_ms >= raft.transfer.until_ms:
        raft.effects.append(raft.transfer.on_timeout())
        raft.transfer = None
    if raft.leader_state is not None:
        raft.leader_state.recent_index = event.recent_index
        leader.on_tick(raft, raft.leader_state, elapsed_ms)
    elif raft.now_ms >= raft.own_deadline_ms:
        election.on_election_timeout(raft)


def _on_reachable(raft: Raft, event: Reachable) -> None:
    peer = event.peer
    raft.links |= {peer}
    regression.on_reachable(raft, peer)
    if raft.eligibility.on_reachable(
        peer, raft.configuration, fresh=event.fresh, lost=event.lost, last=raft.last
    ):
        raft.draw_election_timeout()
    if raft.leader_state is not None:
        leader.on_peer_reachable(raft, raft.leader_state, peer)
    elif peer in raft.peers:
        election.on_peer_reachable(raft, peer)


def _on_unreachable(raft: Raft, peer: MemberId) -> None:
    raft.links -= {peer}
    raft.eligibility.on_unreachable(peer)
    if raft.leader_state is not None:
        raft.leader_state.replicator.on_unreachable(raft, peer)
        if peer in raft.leader_state.departing:
            leader_members.end_departure(raft, raft.leader_state, peer)
    elif raft.leader == peer and peer != NOBODY and raft.state is ServerState.FOLLOWER:
        follower.on_leader_unreachable(raft)


def _on_storage_full(raft: Raft, full: bool) -> None:
    """F12: who cannot append must not become leader; who leads hands over in its next tick."""
    raft.storage_full = full
    if not full:
        return
    if raft.state is ServerState.CANDIDATE:
        raft.become_follower(raft.current_term, NOBODY)
    raft.pre_vote_round = None
    if raft.leader_state is not None:
        leader.on_tick(raft, raft.leader_state, 0)
