"""Serves what is asked about the members: who they are, changes of them, who shall lead.

A change is given to the core, which answers when its entry is committed, or says why it is not
made. A member that is to be added is dialled first, for the core adds nobody without a link.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import count
from typing import NamedTuple, assert_never

from copycat.protocol.client import (
    ChangeRefused,
    ChangeRequest,
    ClusterRequest,
    ClusterView,
    Failure,
    MemberView,
    Refusal,
    TransferRequest,
    ViewRequest,
)
from copycat.protocol.member_record import MemberRecord
from copycat.raft.changes import ConfigurationChange
from copycat.raft.configuration import Configuration
from copycat.raft.core import Raft
from copycat.raft.effects import ChangeFinished
from copycat.raft.events import ChangeRequested
from copycat.raft.pending_changes import WAITING_MAX
from copycat.replica.change_refusals import refusal_text
from copycat.replica.connections import RefusalReason, Replies, Route
from copycat.replica.driver import Driver
from copycat.replica.leadership_transfer import LeadershipTransfer, TransferOutcome
from copycat.replica.log_clock import LogClock
from copycat.replica.members import MemberTable
from copycat.replica.membership import Membership
from copycat.replica.options import ReplicaOptions
from copycat.replica.status import Outage, Status
from copycat.storage.interface import ReplicaLog
from copycat.types import ChangeKind, ChangeRefusal, MemberId, MemberType, ServerState

__all__ = ["ClusterRequests"]

DIAL_ELECTIONS = 5
"""So many election timeouts a member that is to be added may take to answer the leader's dial."""
NEWCOMERS_MAX = 8
"""So many members that are to be added are dialled at a time."""
MEMBER_NBYTES_MAX = 424
"""No record of a member has more bytes."""

_JUST_ELECTED = RefusalReason(
    Refusal.NO_LEADER, "the leader was just elected and has committed nothing yet"
)


class _Asked(NamedTuple):
    """A change that the core has not answered, or that waits for a link."""

    route: Route | None
    """None: nobody waits for the answer, since the leader asks itself."""
    request: int
    change: ConfigurationChange


class _Newcomer:
    """A member that is to be added and is being dialled."""

    def __init__(self, address: str, deadline_ms: int) -> None:
        self.address = address
        self.deadline_ms = deadline_ms
        self.asked: list[_Asked] = []


class ClusterRequests:
    """Requests about the members, at the member that answers them. Called in turns only."""

    def __init__(
        self,
        options: ReplicaOptions,
        raft: Raft,
        log: ReplicaLog,
        driver: Driver,
        members: MemberTable,
        membership: Membership,
        transfer: LeadershipTransfer,
        replies: Replies,
        clock: LogClock,
        outage: Outage,
        status: Callable[[], Status],
    ) -> None:
        self._cluster_name = options.cluster_name
        self._version = options.version
        self._dial_ms = DIAL_ELECTIONS * options.raft.election_timeout_ms
        self._raft = raft
        self._log = log
        self._driver = driver
        self._members = members
        self._membership = membership
        self._transfer = transfer
        self._replies = replies
        self._clock = clock
        self._outage = outage
        self._status = status
        self._tokens = count(1)
        self._asked: dict[int, _Asked] = {}
        """By token: what the core has not answered."""
        self._newcomers: dict[MemberId, _Newcomer] = {}

    def request(self, route: Route, message: ClusterRequest) -> None:
        """Serve a request: a view anywhere, all else at the leader."""
        match message:
            case ViewRequest():
                if self._is_just_elected and not message.is_local:
                    self._replies.refuse(route, message, _JUST_ELECTED)
                else:
                    self._replies.send(route, self._view(message.request))
            case TransferRequest():
                done = partial(self._transferred, route, message.request)
                self._transfer.ask(message.to, done)
            case ChangeRequest():
                self._change(route, message)
            case _:
                assert_never(message)

    @property
    def _is_just_elected(self) -> bool:
        """Whether this leader may not know yet what the leader before committed: who asks for a
        view asks for a change next, and has to name the newest committed configuration."""
        leader_state = self._raft.leader_state
        return leader_state is not None and self._raft.commit_index < leader_state.noop_index

    # ---- changes -------------------------------------------------------------------------

    def _change(self, route: Route, message: ChangeRequest) -> None:
        change = ConfigurationChange(
            message.kind,
            message.member,
            message.type,
            message.base,
            message.address,
            policy=message.policy,
        )
        asked = _Asked(route, message.request, change)
        is_new = message.kind is ChangeKind.ADD and message.member not in self._members
        if is_new and not self._is_linked_at(message.member, message.address):
            self._dial(asked)
        else:
            self._ask(asked)

    def _ask(self, asked: _Asked) -> None:
        if self._raft.state is ServerState.LEADER and not self._has_room():
            if asked.route is None:
                return
            why = f"the disk of {self._members.own_address} is full"
            failure = Failure(asked.request, Refusal.DISK_FULL, self._replies.leader, why)
            self._replies.send(asked.route, failure)
            return
        change = asked.change
        if change.kind is ChangeKind.ADD:  # who is added has a link, and said it there (C42)
            place = self._members.place(change.member)
            change = change._replace(
                start=self._members.newest_start(change.member),
                failure_domain=place.failure_domain,
                weight=place.weight,
            )
        token = next(self._tokens)
        self._asked[token] = asked
        self._driver.step(ChangeRequested(token, change))

    def move(self, member: MemberId, address: str) -> None:
        """Write into the configuration that `member`, which has a link there, or is this leader,
        listens at `address` (C44), its newest start (C42), its failure domain and its weight. It
        is asked for again if it cannot be done now."""
        place = self._members.place(member)
        record = MemberRecord(
            member,
            MemberType.INACTIVE,
            address,
            start=self._members.newest_start(member),
            failure_domain=place.failure_domain,
            weight=place.weight,
        )
        committed = self._raft.committed_configuration
        self.ask_itself(ConfigurationChange.move(record, committed.entry))

    def ask_itself(self, change: ConfigurationChange) -> None:
        """This leader asks for a change by itself; nobody waits for the answer."""
        self._ask(_Asked(None, 0, change))

    def _has_room(self) -> bool:
        """Whether the log takes one more configuration (F12)."""
        return self._log.has_room(MEMBER_NBYTES_MAX * (len(self._members) + 2))

    def _is_linked_at(self, member: MemberId, address: str) -> bool:
        """Whether the link to this member stands at this address (C37)."""
        members = self._members
        return member in members.links and members.dialled_address(member) == address

    def _dial(self, asked: _Asked) -> None:
        """Have a link made to a member that is to be added, at the address that its record is to
        have; it is added when that link is up, and so has answered with this id."""
        member, address = asked.change.member, asked.change.address
        newcomer = self._newcomers.get(member)
        if newcomer is None and len(self._newcomers) >= NEWCOMERS_MAX:
            self._refuse(asked, ChangeRefusal.TOO_MANY)
        elif newcomer is not None and newcomer.address != address:
            self._refuse(asked, ChangeRefusal.IN_FLIGHT)
        elif newcomer is not None:
            newcomer.asked.append(asked)
            if len(newcomer.asked) > WAITING_MAX:
                self._refuse(newcomer.asked.pop(0), ChangeRefusal.TOO_MANY)
        else:
            deadline_ms = self._clock.now_ms + self._dial_ms
            newcomer = self._newcomers[member] = _Newcomer(address, deadline_ms)
            newcomer.asked.append(asked)
            self._membership.invite(member, address)

    def link_opened(self, peer: MemberId) -> None:
        """A link is up: perhaps to a member that is to be added."""
        newcomer = self._newcomers.get(peer)
        if newcomer is not None and self._is_linked_at(peer, newcomer.address):
            del self._newcomers[peer]
            for asked in newcomer.asked:
                self._ask(asked)

    def advance(self, now_ms: int) -> None:
        """Now and then: refuse to add whom no dial has reached in time."""
        for member, newcomer in list(self._newcomers.items()):
            if now_ms >= newcomer.deadline_ms:
                self._give_up(member, ChangeRefusal.NOT_CONNECTED)

    def step_down(self) -> None:
        """This member does not lead any more: whoever waits is to ask the next leader."""
        for member in list(self._newcomers):
            self._give_up(member, ChangeRefusal.NOT_LEADER)

    def _give_up(self, member: MemberId, refusal: ChangeRefusal) -> None:
        for asked in self._newcomers.pop(member).asked:
            self._refuse(asked, refusal)
        self._membership.end_invitation(member)

    def _refuse(self, asked: _Asked, refusal: ChangeRefusal) -> None:
        self._answer(asked, ChangeFinished(0, self._members.committed, refusal))

    def finished(self, effect: ChangeFinished) -> None:
        """The core answers a change."""
        self._answer(self._asked.pop(effect.token), effect)

    def _answer(self, asked: _Asked, effect: ChangeFinished) -> None:
        change, refusal = asked.change, effect.refusal
        if asked.route is None:
            return
        if refusal is None:
            self._replies.send(asked.route, self._view(asked.request))
            return
        link_reason = self._outage.link_reason(change.member)
        text = refusal_text(effect, change, self._members.own_address, link_reason)
        configuration = effect.configuration
        addresses = {each.member: each.address for each in configuration.members}
        missing = tuple(sorted(addresses.get(one, f"{one:032x}") for one in effect.missing))
        refused = ChangeRefused(
            asked.request,
            refusal,
            configuration.entry,
            self._replies.leader,
            text,
            missing,
            self._members_of(configuration),
        )
        self._replies.send(asked.route, refused)

    # ---- leadership ----------------------------------------------------------------------

    def _transferred(self, route: Route, request: int, outcome: TransferOutcome) -> None:
        if outcome.ok:
            self._replies.send(route, self._view(request))
            return
        code = Refusal.NOT_TRANSFERRED
        self._replies.send(route, Failure(request, code, outcome.leader, outcome.why))

    # ---- views ---------------------------------------------------------------------------

    def _view(self, request: int) -> ClusterView:
        status = self._status()
        configuration = status.configuration
        return ClusterView(
            request=request,
            member=self._members.member,
            state=status.state,
            term=status.term,
            leader=self._raft.leader,
            entry=configuration.entry,
            first_index=status.first_index,
            last_index=status.last_index,
            commit_index=status.commit_index,
            last_applied=status.last_applied,
            applied_time_ms=status.applied_time_ms,
            sessions=status.sessions,
            storage_full=status.storage_full,
            incarnation=self._members.cluster_incarnation,
            cluster=self._cluster_name,
            version=self._version,
            durability=str(status.durability),
            members=self._members_of(configuration),
            policy=configuration.policy,
            feeder=status.feeder_member,
            obstacles=self._outage.obstacles(),
        )

    def _members_of(self, configuration: Configuration) -> tuple[MemberView, ...]:
        links, me = self._members.links, self._members.member
        unavailable = self._status().unavailable
        return tuple(
            MemberView(
                each.member,
                each.type,
                each.address,
                each.since,
                each.is_promotable,
                each.member == me or each.member in links,
                self._match_index(each.member),
                each.member not in unavailable,
                each.replaces,
                self._is_slow(each),
                each.is_demoted,
                each.is_leaving,
                each.failure_domain,
                each.weight,
            )
            for each in configuration.members
        )

    def _is_slow(self, record: MemberRecord) -> bool:
        leader_state = self._raft.leader_state
        is_voter = record.type is MemberType.ACTIVE
        return leader_state is not None and is_voter and leader_state.heard.is_slow(record.member)

    def _match_index(self, member: MemberId) -> int:
        if self._raft.state is not ServerState.LEADER:
            return 0
        return self._raft.match_index(member)
