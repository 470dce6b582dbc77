"""What a member says of itself: to operators, to clients that it cannot serve, to its logger.

* `Status` is what an operator may ask for.
* `RecoveryStatus` knows which entries this directory lacks because its disk lost them, and which
  members came back with an older copy of their directory. The core decides when a member has
  everything again (C12, F8). This class logs that, and writes and deletes the record of the loss.
* `Outage` knows which peers are reachable and have room, and since when no leader is known. A
client that cannot be served always gets an answer with the reason.
"""

from __future__ import annotations

import logging
from collections.abc import Set as AbstractSet
from functools import partial

import msgspec

from copycat.config import RaftOptions
from copycat.errors import DirectoryRefusedError, require
from copycat.protocol.client import Refusal
from copycat.protocol.member_record import MemberRecord, member_name
from copycat.raft.configuration import Configuration
from copycat.raft.core import Raft
from copycat.raft.effects import PeerRegressed, RecordLoss, StopForGood
from copycat.raft.eligibility import Restriction
from copycat.raft.events import GapsKnown, LossAccepted, LossRecorded
from copycat.raft.regression import can_do_without
from copycat.replica.connections import RefusalReason
from copycat.replica.driver import Driver
from copycat.replica.host import Inbox, Lane
from copycat.replica.log_clock import LogClock
from copycat.replica.members import Judgement, MemberTable
from copycat.replica.options import MemberStores
from copycat.replica.proposals import WriteStall
from copycat.storage.interface import ReplicaLog
from copycat.types import Durability, EntryId, MemberId, MemberType, ServerState

__all__ = ["ElectionObstacles", "Outage", "RecoveryStatus", "Status"]

_LOG = logging.getLogger("copycat.replica")

REFUSED_STATE = (
    "This member has stopped under this id; the others have a majority without it.\n"
    "Nothing in its directory was changed."
)

AGAIN_MS = 5_000
"""How often the missing entries are logged."""

SILENT_ELECTIONS = 4
"""A member without a leader asks the others for votes once an election timeout or so. A member
that sent nothing for so many of these timeouts counts as unreachable, even if its link is open:
its process may be stopped."""


_NO_STALL = WriteStall()


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """One member at one moment. Indexes as in `copycat.types`; addresses are `host:port`."""

    address: str
    state: ServerState
    term: int
    leader: str
    """Address of the leader, or empty."""
    first_index: int
    last_index: int
    durable_index: int
    """What this process saw synced. With durability "fsync" nothing above it is acknowledged; in
    the weaker modes a power loss may take what lies above it."""
    commit_index: int
    last_applied: int
    sessions: int
    members: tuple[str, ...]
    unreachable: tuple[str, ...]
    """Members to which this one has no link now."""
    storage_full: bool = False
    """The disk has no room for more entries: only queries are served (F12)."""
    durability: Durability = Durability.FSYNC
    """When an acknowledgement leaves: only "fsync" waits for the disk."""
    snapshot_index: int = 0
    """What the newest snapshot covers that was read back; 0 for none."""
    deletion_floor: int = 0
    """Deletions up to here may be deleted from the log: every member has them for good (C23)."""
    missing_entries: str = ""
    """Entries that damage took and no leader has given back so far; until then this member does
    not campaign, and votes only for one that has them (C12). Empty: nothing is missing."""
    regressed: tuple[str, ...] = ()
    """Members that came back with an older copy of their directory and do not have again what they
    had acknowledged, as far as this one knows; it may be one of them (F8)."""
    full_disks: tuple[str, ...] = ()
    """Members whose disks are full, as far as this one knows: a leader hears it of all that it
    reaches. With too many of them nothing can be committed, and only queries are served (F12)."""
    member: MemberId
    """The id of this member."""
    leader_member: MemberId = MemberId(0)
    """The id of the leader; 0 while none is known."""
    unreachable_members: frozenset[MemberId] = frozenset()
    """The ids of those in `unreachable`."""
    unavailable: frozenset[MemberId] = frozenset()
    """The ids of those that the leader does not hear, as its entries say that are applied here
    (C38). Of a reserve, which has no entries: those to which it has no link."""
    configuration: Configuration
    """The newest configuration of which this member knows that it is committed; `members` are
    those of the newest one."""
    applied_time_ms: int = 0
    """Log time at the entry `last_applied`."""
    feeder: str = ""
    """Address of the member that this one asks for entries and snapshots, since it is passive or
    far behind; empty: the leader sends them (C27)."""
    feeder_member: MemberId = MemberId(0)
    """The id of that member; 0: nobody."""

    def of_stopped(self) -> Status:
        """The same of a member that has stopped since: it has no links, and knows no leader."""
        return msgspec.structs.replace(
            self,
            state=ServerState.INACTIVE,
            leader="",
            leader_member=MemberId(0),
            feeder="",
            feeder_member=MemberId(0),
            unreachable=(),
            unreachable_members=frozenset(),
            unavailable=frozenset(),
        )


class RecoveryStatus:
    """What this directory lacks, and which other members lack what they had.

    stores: as the directory was opened. With the record of the entries that are lost, if there is
    one, and with what makes the record of a loss that a peer noticed.
    """

    def __init__(
        self,
        members: MemberTable,
        raft: Raft,
        log: ReplicaLog,
        inbox: Inbox,
        driver: Driver,
        stores: MemberStores,
    ) -> None:
        self._members = members
        self._raft = raft
        self._log = log
        self._inbox = inbox
        self._driver = driver
        lost_entries = self._lost_entries = stores.lost_entries
        self._new_record = stores.regressed
        self._again_ms = 0
        self._led_ms = -1
        """When a leader was known last, or when that was looked at for the first time."""
        self._leaderless_ms = 0
        self._is_removing = False
        self._waiting: RecordLoss | None = None
        """It is recorded as soon as the record of an earlier loss is deleted."""
        self._regressed: dict[MemberId, EntryId] = {}
        if lost_entries is not None and lost_entries.is_accepted:
            effects = raft.step(LossAccepted(lost_entries.lost_upto))
            require(not effects, "nothing follows from an accepted loss", effects=effects)

    @property
    def missing_entries(self) -> str:
        """The entries that are missing, in words; empty when none is."""
        return (
            str(self._lost_entries)
            if self._lost_entries is not None and self._raft.eligibility.is_recovering
            else ""
        )

    @property
    def way_out(self) -> str:
        """Who may have the missing entries, and what to do if nobody has; empty while a leader is
        known or may still be elected."""
        patience_ms = SILENT_ELECTIONS * self._raft.options.election_timeout_ms
        lost_entries, members = self._lost_entries, self._members
        if lost_entries is None or self._leaderless_ms < patience_ms:
            return ""
        away = [
            self._voter_text(each)
            for each in members.configuration.members
            if each.type is MemberType.ACTIVE
            and each.member != members.member
            and each.member not in members.links
        ]
        who = f"{' or '.join(away)}, which it cannot reach," if away else "another voter"
        return (
            f"no leader was elected for {self._leaderless_ms / 1000:.0f} s: it waits for {who} to"
            " come back with these entries; if nobody does, stop this member and run: copycat"
            f" recover {lost_entries.directory} --accept-missing-entries"
        )

    def _voter_text(self, voter: MemberRecord) -> str:
        rows = self._members.configuration.members
        name = member_name(voter.member, voter.address, [each.address for each in rows])
        is_lost = any(each.replaces == voter.member for each in rows)
        return f"{name} (whose disk was lost)" if is_lost else name

    @property
    def regressed(self) -> tuple[str, ...]:
        """Addresses of members that run on an older copy of their directory; perhaps this one."""
        mine = (
            {self._members.own_address}
            if self.missing_entries and self._lost_entries and self._lost_entries.is_regressed
            else set()
        )
        others = {self._members[peer] for peer in self._regressed if peer in self._members}
        return tuple(sorted(mine | others))

    def execute(self, effect: PeerRegressed | RecordLoss | StopForGood) -> None:
        """What the core found out about a directory that is an older copy of itself."""
        if isinstance(effect, RecordLoss):
            self._record(effect)
        elif isinstance(effect, StopForGood):
            raise self._regressed_for_good(effect.acknowledged)
        else:
            self._peer_regressed(effect)

    def judgement(self, member: MemberId) -> Judgement:
        """What this member may say of a directory of `member` that it refuses (C43)."""
        leader = self._raft.leader
        address = "" if leader in (0, self._members.member) else self._members.address(leader)
        return Judgement(can_do_without(self._raft, member), address)

    def _regressed_for_good(self, acknowledged: EntryId) -> DirectoryRefusedError:
        members, last_index = self._members, self._log.last_index
        return DirectoryRefusedError(
            f"this directory is an older copy of itself: member {members.member:032x} at"
            f" {members.own_address} had acknowledged entries up to {acknowledged.index} to the"
            f" leader, and has them up to {last_index} now",
            state=REFUSED_STATE,
            acknowledged_index=acknowledged.index,
            last_index=last_index,
        )

    def _peer_regressed(self, effect: PeerRegressed) -> None:
        """A voter lost what it had acknowledged to this member: log its name, once."""
        if self._regressed.get(effect.peer) == effect.acknowledged:
            return
        self._regressed[effect.peer] = effect.acknowledged
        _LOG.error(
            "%s: %s came back with an older copy of its directory: it had acknowledged entries up"
            " to %d, and has them up to %d now; it does not count until it has them again",
            self._members.own_address,
            self._members.address(effect.peer),
            effect.acknowledged.index,
            effect.last.index,
        )

    def _record(self, effect: RecordLoss) -> None:
        """This directory is an older copy of itself: make that durable, then tell the core."""
        if self._is_removing:
            self._waiting = effect
            return
        require(self._new_record is not None, "no directory to record a loss in", effect=effect)
        assert self._new_record is not None  # noqa: S101  # for the type checker
        first_index, earlier = self._raft.last.index + 1, self._lost_entries
        if earlier is not None:
            first_index = min(first_index, earlier.first_index)
        lost_entries = self._lost_entries = self._new_record(
            effect.lost_upto, first_index, effect.term
        )
        _LOG.error(
            "%s: this directory is an older copy of what it was (a restored backup, or a snapshot"
            " of the machine): %s had been acknowledged and are not here; it votes only for a"
            " member that has them, and waits for a leader to give them back",
            self._members.own_address,
            lost_entries,
        )
        self._inbox.run(Lane.ASIDE, lost_entries.write, partial(self._written, effect.term))

    def _written(self, term: int, _: None) -> None:
        self._driver.step(LossRecorded(term))

    def gaps_known(self) -> GapsKnown:
        """How far the gaps of this log prove what was committed (C22).

        Not where a loss was accepted: the entries that are there now are others.
        """
        valid_from, lost_entries = self._log.valid_from, self._lost_entries
        if (
            lost_entries is not None
            and lost_entries.is_accepted
            and valid_from >= lost_entries.first_index
        ):
            valid_from = 0
        return GapsKnown(valid_from)

    def keep(self, now_ms: int) -> None:
        """Now and then, in a turn: end the recovery, or log what is missing and why it waits."""
        self._look_at_peers()
        lost_entries, raft = self._lost_entries, self._raft
        if raft.leader or self._led_ms < 0:
            self._led_ms = now_ms
        self._leaderless_ms = now_ms - self._led_ms
        if lost_entries is None:
            return
        if not (raft.eligibility.is_recovering or raft.eligibility.has_accepted_loss):
            self._lost_entries = None
            self._is_removing = True
            self._inbox.run(Lane.ASIDE, lost_entries.clear, self._removed)
            outcome = "were given up" if lost_entries.is_accepted else "are here again"
            _LOG.warning(
                "%s: %s %s: it votes as ever", self._members.own_address, lost_entries, outcome
            )
        elif raft.eligibility.is_recovering and now_ms >= self._again_ms:
            self._again_ms = now_ms + AGAIN_MS
            _LOG.warning(
                "%s: %s %s (%d are here): it votes only for a member that has them, and waits"
                " for a leader to give them back%s",
                self._members.own_address,
                lost_entries,
                "are missing in this older copy"
                if lost_entries.is_regressed
                else "were damaged on this disk",
                self._log.last_index,
                f"; {way_out}" if (way_out := self.way_out) else "",
            )

    def _removed(self, _: None) -> None:
        self._is_removing = False
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            self._record(waiting)

    def _look_at_peers(self) -> None:
        """Forget members that have everything again, and all of them when another member leads."""
        raft = self._raft
        for peer, acknowledged in list(self._regressed.items()):
            address = self._members.address(peer)
            if not address:
                del self._regressed[peer]  # it is no member any more
            elif raft.match_index(peer) >= acknowledged.index:
                _LOG.warning("%s: %s has its entries again", self._members.own_address, address)
                del self._regressed[peer]
        if raft.leader not in (0, raft.member):
            self._regressed.clear()


class ElectionObstacles:
    """Asked while no leader is known, for the clients that wait for one."""

    def __init__(self, members: MemberTable, raft: Raft, recovery: RecoveryStatus) -> None:
        self._members = members
        self._raft = raft
        self._recovery = recovery

    def texts(self) -> list[str]:
        """A clause for each obstacle; none when the next election may elect this member."""
        raft, address = self._raft, self._members.own_address
        restrictions = raft.eligibility.restrictions
        missing_entries = self._recovery.missing_entries
        clauses = []
        if raft.storage_full:
            clauses.append(f"the disk of {address} is full, so it does not campaign")
        if missing_entries:
            clauses.append(
                f"{address} misses {missing_entries} and votes only for a member that has them"
            )
        if missing_entries and self._recovery.way_out:
            clauses.append(self._recovery.way_out)
        if Restriction.LOST in restrictions:
            clauses.append(
                f"{address} may lack entries that it had acknowledged, and has no vote until a"
                " leader has sent it newer ones"
            )
        elif Restriction.LESS_LEFT in restrictions:
            clauses.append(
                f"every voter lost its log, and another one has more left of it than {address},"
                " which does not campaign"
            )
        elif Restriction.FRESH in restrictions:
            clauses.append(
                f"the directory of {address} is empty, and it has no vote until a leader or a"
                " majority with empty directories shows that nothing was lost"
            )
        if Restriction.NON_VOTER in restrictions:
            clauses.append(f"{address} is a member without a vote, so it does not campaign")
        clauses += [
            f"{peer} runs on an older copy of its directory and does not count until it has its"
            " entries again"
            for peer in self._recovery.regressed
            if peer != address
        ]
        return clauses


class Outage:
    """Which peers are reachable and have room, and for how long no leader was known."""

    def __init__(
        self,
        members: MemberTable,
        clock: LogClock,
        options: RaftOptions,
        obstacles: ElectionObstacles | None = None,
    ) -> None:
        self._obstacles = obstacles
        self._members = members
        self._clock = clock
        self._silent_ms = SILENT_ELECTIONS * options.election_timeout_ms
        self._received_ms: dict[MemberId, int] = {}
        """Invariant: of peers that are dialled only, see `forget`."""
        self._reasons: dict[MemberId, str] = {}
        self._leaderless_ms = clock.now_ms
        self._leader = MemberId(0)
        self.full_peers: set[MemberId] = set()
        """Peers that answered the leader, this member, that their disks are full."""

    def frame_received(self, peer: MemberId) -> bool:
        """A frame of this peer arrived; whether this member keeps a link to it."""
        if peer not in self._received_ms and not self._members.is_dialled(peer):
            return False
        self._received_ms[peer] = self._clock.now_ms
        return True

    def forget(self, peer: MemberId) -> None:
        """This member keeps no link to this peer any more."""
        self._received_ms.pop(peer, None)
        self._reasons.pop(peer, None)
        self.full_peers.discard(peer)

    def is_member(self, peer: MemberId) -> bool:
        """Whether a configuration that this member knows names this peer."""
        return peer in self._members

    def received_ms(self, peer: MemberId) -> int:
        """When a frame of this peer arrived last; 0 for none."""
        return self._received_ms.get(peer, 0)

    def link_up(self, peer: MemberId) -> None:
        """The link to this peer is open."""
        self._members.links.add(peer)
        self._reasons.pop(peer, None)
        self.frame_received(peer)

    def link_down(self, peer: MemberId) -> None:
        """It broke."""
        self._members.links.discard(peer)

    def link_failed(self, peer: MemberId, reason: str) -> None:
        """The peer was dialled, and this is why there is no link."""
        if self._members.is_dialled(peer):
            self._reasons[peer] = reason

    def link_reason(self, peer: MemberId) -> str:
        """Why the last dial of this peer failed; empty when it did not, or was never made."""
        return self._reasons.get(peer, "")

    def unlinked(self) -> list[str]:
        """Addresses of the peers that this member cannot write to."""
        return [self._members[peer] for peer in self.unlinked_members()]

    def unlinked_members(self) -> list[MemberId]:
        """The ids of the same peers, in the same order."""
        return [peer for peer in self._members.peers if peer not in self._members.links]

    def leader_changed(self, leader: MemberId) -> bool:
        """This member leads, or (0) none that is known; whether it is another than before."""
        is_other = leader != self._leader
        if is_other and not leader:
            self._leaderless_ms = self._clock.now_ms
        self._leader = leader
        if is_other:
            self.full_peers.clear()
        return is_other

    def disk_reported(self, peer: MemberId, *, is_full: bool) -> None:
        """A follower said with its answer whether its disk is full."""
        if is_full and self.is_member(peer):
            self.full_peers.add(peer)
        else:
            self.full_peers.discard(peer)

    def full_disks(self, *, is_full: bool) -> tuple[str, ...]:
        """Addresses of the members in reach whose disks are full, as far as this one knows: a
        leader hears it of all. is_full: whether this member's disk is."""
        linked = self.full_peers & self._members.links
        full = [self._members[peer] for peer in linked if peer in self._members]
        return tuple(sorted([self._members.own_address, *full] if is_full else full))

    def write_stall(self, *, is_full: bool) -> WriteStall:
        """Whether full disks stop the cluster that this member leads, and whose they are."""
        if not is_full and not self.full_peers:
            return _NO_STALL
        members = self._members
        full = self.full_disks(is_full=is_full)
        able = {members.member} | (members.links - self.full_peers)  # it has room for its own log
        is_any_full = not self.full_peers.isdisjoint(members.links)
        stops_commits = is_any_full and not members.configuration.has_quorum(able)
        if not is_full and not stops_commits:
            return _NO_STALL
        verb = "disk of {} is" if len(full) == 1 else "disks of {} are"
        reason = f"the {verb.format(' and '.join(full))} full"
        if stops_commits:
            takers = able - {members.member} if is_full else able
            reason += f": {_count(takers, members)} take entries,"
            reason += f" {members.configuration.quorum_size} needed"
            if away := sorted(self.unlinked()):
                reason += f"; unreachable: {', '.join(away)}"
        return WriteStall(reason, stops_commits)

    def explain(self) -> RefusalReason:
        """Why a request for the leader cannot be served here now."""
        peers, configuration = self._members.peers, self._members.configuration
        if self._leader:
            where = peers.get(self._leader)
            reason = f"no link to the leader {where}" if where else "this member is just elected"
            return RefusalReason(Refusal.NO_LEADER, reason, (), 0)
        since_ms = self._clock.now_ms - self._leaderless_ms
        missing = [peer for peer in peers if not self._is_reachable(peer, since_ms)]
        up = {self._members.member} | (peers.keys() - missing)
        missing = [peer for peer in missing if configuration.has_vote(peer)]
        names, obstacles = ", ".join(self._name(peer) for peer in missing), self.obstacles()
        if configuration.has_quorum(up):
            reason = f"no leader has been known for {since_ms / 1000:.1f} s"
            reason += f"; unreachable: {names}" if missing else ""
            reason += f"; {obstacles}" if obstacles else ""
            return RefusalReason(Refusal.NO_LEADER, reason, (), since_ms)
        reason = (
            f"{_count(up, self._members)} reachable, {configuration.quorum_size} needed;"
            f" no leader for {since_ms / 1000:.1f} s;"
            f" unreachable: {names}"
        )
        reason += f"; {obstacles}" if obstacles else ""
        addresses = tuple(sorted(peers[peer] for peer in missing))
        return RefusalReason(Refusal.NO_QUORUM, reason, addresses, since_ms)

    def obstacles(self) -> str:
        """Why this member does not help to elect a leader, while none is known, in words."""
        if self._leader or self._obstacles is None:
            return ""
        return "; ".join(self._obstacles.texts())

    def _is_reachable(self, peer: MemberId, leaderless_ms: int) -> bool:
        if peer not in self._members.links:
            return False
        silent_ms = self._clock.now_ms - self._received_ms.get(peer, 0)
        return min(leaderless_ms, silent_ms) < self._silent_ms

    def _name(self, peer: MemberId) -> str:
        reason = self._reasons.get(peer)
        if reason is None and peer in self._members.links:
            reason = "connected, but silent"
        return f"{self._members[peer]} ({reason})" if reason else self._members[peer]


def _count(ids: AbstractSet[MemberId], members: MemberTable) -> str:
    """How many of the members that vote are among `ids`: these are what a majority is made of."""
    voters = members.configuration.voters
    noun = "members" if len(voters) == len(members) else "voting members"
    return f"{sum(voter in ids for voter in voters)} of {len(voters)} {noun}"
