"""Changes of the members, drawn from the seed: asked of any member, about any member.

Each is asked as a user would ask it: by the configuration that the asked member knows, mostly,
and now and then by an older one. A newcomer is a host that was not started so far: it takes what
some member knows of the cluster, starts from an empty disk, and asks to be added.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from copycat.member.configuration_file import StoredConfigurations
from copycat.protocol.client import (
    ChangeRefused,
    ChangeRequest,
    ClusterView,
    ServerMessage,
    TransferRequest,
)
from copycat.protocol.member_record import ConfigurationRecord, HealingPolicy
from copycat.raft.configuration import Configuration
from copycat.seeded_random import SimRandom
from copycat.sim.host import SimHost
from copycat.sim.options import SeedOptions
from copycat.sim.world import MS, Trace, World
from copycat.types import (
    NO_ENTRY,
    ChangeKind,
    ChangeRefusal,
    EntryId,
    MemberId,
    MemberType,
)

__all__ = ["Churn"]

AGAIN_US = 500 * MS
TRIES_MAX = 40
"""So often a newcomer asks to be added."""
STEPS = {
    MemberType.ACTIVE: (
        (ChangeKind.DEMOTE, MemberType.PASSIVE),
        (ChangeKind.DEMOTE, MemberType.RESERVE),
    ),
    MemberType.PASSIVE: (
        (ChangeKind.PROMOTE, MemberType.ACTIVE),
        (ChangeKind.DEMOTE, MemberType.RESERVE),
    ),
    MemberType.RESERVE: (
        (ChangeKind.PROMOTE, MemberType.PASSIVE),
        (ChangeKind.PROMOTE, MemberType.ACTIVE),
    ),
}
"""What may be asked about a member of each type."""


class Churn:
    """Asks for changes among `hosts`, the last of which, `options.joiners`, are no founders."""

    def __init__(
        self,
        hosts: Sequence[SimHost],
        ids: Sequence[MemberId],
        options: SeedOptions,
        world: World,
        random: SimRandom,
        trace: Trace,
    ) -> None:
        self._hosts = hosts
        self._ids = ids
        self._options = options
        self._has_policy = False
        """A policy of healing was set."""
        self._waiting = list(range(len(hosts) - options.joiners, len(hosts)))
        """Numbers of those that have not asked to be added."""
        self._joining: set[int] = set()
        """Those that ask."""
        self._world = world
        self._random = random
        self._trace = trace
        self._is_over = False

    def calm(self) -> None:
        """No more changes are asked for; those that were asked for may still be made."""
        self._is_over = True

    def next_change(self) -> None:
        """Ask for one change, or start one newcomer."""
        asked = self._asked()
        if asked is None:
            return
        if self._options.has_zones:
            self._next_of_zones(asked)
        elif self._options.heals and self._random.chance(100_000 if self._has_policy else 700_000):
            self._set_policy(asked)
        elif self._waiting and self._random.chance(400_000):
            self._start_newcomer(asked)
        else:
            self._change(asked)

    def _next_of_zones(self, asked: SimHost) -> None:
        """A policy, newcomers, and seldom anything that a user wants otherwise."""
        random = self._random
        if not self._has_policy or random.chance(50_000):
            self._set_policy(asked)
        if self._waiting:
            self._start_newcomer(asked)
        elif random.chance(250_000):
            self._change(asked)

    def _asked(self) -> SimHost | None:
        """A member that runs, or none."""
        able = [one for one in self._hosts if one.replica is not None and not one.is_paused]
        return self._random.pick(able) if able else None

    # --- changes ------------------------------------------------------------------------------

    def _change(self, asked: SimHost) -> None:
        known = asked.alive.members.committed
        record = self._random.pick(known.members)
        if self._random.chance(150_000):
            kind, goal = ChangeKind.REMOVE, MemberType.INACTIVE
        else:
            kind, goal = self._random.pick(STEPS[record.type])
        base = known.entry
        if self._random.chance(50_000):
            base = EntryId(base.term, base.index + 1) if base.index else NO_ENTRY
        request = ChangeRequest(0, kind, record.member, goal, base)
        self._trace.mark(f"asked to {kind.name.lower()}")
        done = partial(self._answered, asked, asked.process, request)
        asked.alive.request(request, done)

    def _set_policy(self, asked: SimHost) -> None:
        """Leaders heal, mostly: soon enough for the faults of a seed, which are short."""
        random, timeout_ms = self._random, self._options.raft.election_timeout_ms
        policy = HealingPolicy(
            random.between(0, len(self._hosts)),
            random.between(0, 3),
            timeout_ms * random.between(3, 12),
            timeout_ms * random.between(1, 6),
            timeout_ms * random.pick((0, 10, 20)),
            is_on=random.chance(900_000),
        )
        if self._options.has_zones:  # as many voters as there are, and no long waits
            policy = policy._replace(
                target_active=len(asked.alive.members.committed.voters),
                target_passive=random.below(2),
                heal_after_ms=timeout_ms * random.between(3, 6),
                heal_interval_ms=timeout_ms * random.between(1, 2),
                replace_slow_after_ms=timeout_ms * random.pick((0, 1, 2)),
                rebalance=random.chance(900_000),
                is_on=True,
            )
        base = asked.alive.members.committed.entry
        goal = MemberType.INACTIVE
        request = ChangeRequest(0, ChangeKind.POLICY, MemberId(0), goal, base, policy=policy)
        asked.alive.request(request, partial(self._answered, asked, asked.process, request))

    def _answered(
        self, asked: SimHost, process: int, request: ChangeRequest, answer: ServerMessage
    ) -> None:
        name = request.kind.name.lower()
        if isinstance(answer, ClusterView):
            self._trace.mark(f"{name} done")
            self._has_policy |= request.kind is ChangeKind.POLICY
        elif isinstance(answer, ChangeRefused):
            self._trace.mark(f"{name} refused: {answer.refusal.name}")
            is_leader = answer.refusal is ChangeRefusal.LEADER_ITSELF
            if is_leader and asked.process == process and asked.replica is not None:
                asked.replica.request(TransferRequest(0, MemberId(0)), self._ignore)
        else:
            self._trace.mark(f"{name} not served")

    @staticmethod
    def _ignore(answer: ServerMessage) -> None:
        """A transfer has its own marks."""

    # --- newcomers ------------------------------------------------------------------------------

    def _start_newcomer(self, known_by: SimHost) -> None:
        number = self._waiting.pop(0)
        members = known_by.alive.members
        host = self._hosts[number]
        self._trace.mark("newcomer started")
        record = record_of(members.committed, members.cluster_incarnation)
        host.join(StoredConfigurations((record,)))
        self._joining.add(number)
        goal = self._random.pick((MemberType.PASSIVE, MemberType.PASSIVE, MemberType.RESERVE))
        self._world.after(self._random.around(100 * MS), self._ask_to_join, number, goal, 0)

    def _ask_to_join(self, number: int, goal: MemberType, tries: int) -> None:
        if number not in self._joining or tries >= TRIES_MAX:
            return
        self._world.after(AGAIN_US, self._ask_to_join, number, goal, tries + 1)
        asked = self._asked()
        if asked is None or asked.number in self._joining:
            return
        member, address = self._ids[number], self._hosts[number].options.address
        base = asked.alive.members.committed.entry
        request = ChangeRequest(0, ChangeKind.ADD, member, goal, base, address)
        asked.alive.request(request, partial(self._joined, number, request))

    def _joined(self, number: int, request: ChangeRequest, answer: ServerMessage) -> None:
        if isinstance(answer, ClusterView):
            self._trace.mark("add done")
            self._joining.discard(number)
        elif isinstance(answer, ChangeRefused):
            self._trace.mark(f"add refused: {answer.refusal.name}")
            if answer.refusal is ChangeRefusal.MEMBER_ID_REUSED:
                self._joining.discard(number)  # it was added, and removed since


def record_of(configuration: Configuration, incarnation: int) -> ConfigurationRecord:
    """What a directory stores of a configuration."""
    return ConfigurationRecord(
        configuration.entry, incarnation, configuration.members, configuration.policy
    )
