"""The way back of a member whose disk was lost, or put back to an older copy (C42, C43).

Its id is given up for good. A host that was never started takes its place, as a process with an
empty directory would: under a new id, at the same address, and it asks to be added as PASSIVE.
Sometimes an operator then removes the old voter and gives the new member its vote.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from copycat.member.configuration_file import StoredConfigurations
from copycat.protocol.client import ChangeRefused, ChangeRequest, ClusterView, ServerMessage
from copycat.raft.configuration import Configuration
from copycat.raft.healing import is_healing
from copycat.seeded_random import SimRandom
from copycat.sim.churn import record_of
from copycat.sim.host import SimHost
from copycat.sim.world import MS, Trace, World
from copycat.types import ChangeKind, ChangeRefusal, MemberId, MemberType

__all__ = ["WayBack"]

AGAIN_US = 500 * MS
TRIES_MAX = 40
"""So often something is asked for."""


class WayBack:
    """Lets the last `spares` of `hosts` take the places of members that ended for good."""

    def __init__(
        self,
        hosts: Sequence[SimHost],
        ids: Sequence[MemberId],
        spares: int,
        world: World,
        random: SimRandom,
        trace: Trace,
    ) -> None:
        self._hosts = hosts
        self._ids = ids
        self._spares = list(range(len(hosts) - spares, len(hosts)))
        """Numbers of those that were not started."""
        self._world = world
        self._random = random
        self._trace = trace
        self._done: set[tuple[int, ChangeKind]] = set()
        """What a member (by number) needs not to be asked for any more."""

    def lose_disk(self) -> None:
        """The disk of one member is lost, if the others need neither it nor what was on it."""
        lost = [each for each in self._hosts if self._may_lose_disk(each)]
        if not lost or not self._spares:
            return
        host = self._random.pick(lost)
        voter = self._configuration(host).has_vote(self._ids[host.number])
        self._trace.mark("disk of a voter lost" if voter else "disk of a non-voter lost")
        host.lose_power()
        self.ended(host)

    def ended(self, host: SimHost) -> None:
        """The process of `host` ended, and never starts again under this id."""
        host.is_over = True
        if self._spares:
            spare = self._hosts[self._spares.pop(0)]
            self._world.after(self._random.around(500 * MS), self._come_back, host, spare, 0)

    def _configuration(self, host: SimHost) -> Configuration:
        return host.committed_configuration

    def _may_lose_disk(self, host: SimHost) -> bool:
        """Whether all members agree who the members are, a majority of them is there without this
        one, and no other disk has lost anything."""
        if host.replica is None or not self._is_whole(host):
            return False
        known = self._configuration(host)
        if is_healing(known.policy) and not self._are_voters_heard(known):
            return False
        others = [each for each in self._hosts if each is not host and each.was_started]
        for each in others:
            if each.is_over and known.record(self._ids[each.number]) is not None:
                if known.has_vote(self._ids[each.number]):
                    return False
                continue
            if each.is_over:
                continue
            if each.replica is None or not self._is_whole(each) or not each.may_vote:
                return False
            if {each.configuration.entry, self._configuration(each).entry} != {known.entry}:
                return False
        is_voter = known.has_vote(self._ids[host.number])
        return known.record(self._ids[host.number]) is not None and (
            not is_voter or len(known.voters) >= 3
        )

    def _are_voters_heard(self, known: Configuration) -> bool:
        """Whether leaders hear all voters. A leader that heals may demote the one that it does not
        hear, before it notices that another one is gone for good; then that one is needed for
        ever: two of three at a time are more than a cluster bears."""
        rafts = [each.replica.raft for each in self._hosts if each.replica is not None]
        leaders = [each.leader_state for each in rafts if each.leader_state is not None]
        return bool(leaders) and not any(
            each.heard.silent_rounds(voter) for each in leaders for voter in known.voters
        )

    @staticmethod
    def _is_whole(host: SimHost) -> bool:
        disk_model, disk = host.disk_model, host.disk
        return not (
            disk_model.has_unseen_damage
            or disk_model.loss.entries_before
            or disk.is_cut
            or disk.has_fault
        )

    # --- under a new id -----------------------------------------------------------------------

    def _asked(self) -> SimHost | None:
        able = [
            each
            for each in self._hosts
            if each.replica is not None
            and not each.is_paused
            and self._configuration(each).record(self._ids[each.number]) is not None
        ]
        return self._random.pick(able) if able else None

    def _come_back(self, old: SimHost, spare: SimHost, tries: int) -> None:
        """Ask a member who the members are, as long as none answers; then start."""
        asked = self._asked()
        if asked is None:
            if tries < TRIES_MAX:
                self._world.after(AGAIN_US, self._come_back, old, spare, tries + 1)
            return
        members = asked.alive.members
        if old.options.address not in [each.address for each in members.committed.members]:
            self._trace.mark("nobody names the address of a lost disk")
            return
        self._trace.mark("a member comes back under a new id")
        spare.take_place(old)
        record = record_of(members.committed, members.cluster_incarnation)
        spare.join(StoredConfigurations((record,)))
        self._world.after(self._random.around(100 * MS), self._ask_to_join, old, spare, 0)

    def _ask_to_join(self, old: SimHost, spare: SimHost, tries: int) -> None:
        self._ask(spare, ChangeKind.ADD, MemberType.PASSIVE, tries, partial(self._is_back, old))

    def _is_back(self, old: SimHost, spare: SimHost) -> None:
        self._trace.mark("a member came back after its disk was lost")
        if self._random.chance(600_000):
            self._ask(old, ChangeKind.REMOVE, MemberType.INACTIVE, 0, self._ignore)
            later = partial(
                self._ask, spare, ChangeKind.PROMOTE, MemberType.ACTIVE, 0, self._has_vote
            )
            self._world.after(AGAIN_US, later)

    def _has_vote(self, _spare: SimHost) -> None:
        self._trace.mark("a member that came back has its vote")

    def _ignore(self, _old: SimHost) -> None:
        """The old voter is removed."""

    def _ask(
        self, subject: SimHost, kind: ChangeKind, goal: MemberType, tries: int, done: object
    ) -> None:
        """Ask any member for the change, again and again until it is made."""
        if tries >= TRIES_MAX or (subject.number, kind) in self._done:
            return
        self._world.after(AGAIN_US, self._ask, subject, kind, goal, tries + 1, done)
        asked = self._asked()
        if asked is None or asked is subject or (kind is ChangeKind.ADD and not subject.is_up):
            return
        base = asked.alive.members.committed.entry
        address = subject.options.address if kind is ChangeKind.ADD else ""
        member = self._ids[subject.number]
        request = ChangeRequest(0, kind, member, goal, base, address)
        asked.alive.request(request, partial(self._answered, subject, kind, done))

    def _answered(
        self, subject: SimHost, kind: ChangeKind, done: object, answer: ServerMessage
    ) -> None:
        name = kind.name.lower()
        if isinstance(answer, ClusterView):
            if (subject.number, kind) not in self._done and callable(done):
                self._done.add((subject.number, kind))
                done(subject)
        elif isinstance(answer, ChangeRefused):
            self._trace.mark(f"{name} refused: {answer.refusal.name}")
            if answer.refusal in (ChangeRefusal.MEMBER_ID_REUSED, ChangeRefusal.UNKNOWN_MEMBER):
                self._done.add((subject.number, kind))  # somebody else has removed it
