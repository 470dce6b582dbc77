"""Any order of events of a small cluster of cores, within bounds: a search for a broken law.

Members vote at any time, whoever they hear: every election asks as if a leader had handed over, so
no timer keeps an order of events from being tried. A message is delivered at any time, or never.
A disk answers at once, and a crash loses nothing but what a process knows: how far is committed
above its snapshot. A member that shall delete its log does so in a new process.

A state is what the members know, which messages are under way, and what was ever committed.
States that differ only in clocks and random numbers are one.
"""

from __future__ import annotations

import copy
import dataclasses
import random
from typing import NamedTuple

from copycat.config import RaftOptions
from copycat.protocol.peer import AppendEntries, PeerMessage
from copycat.raft import election
from copycat.raft.changes import ConfigurationChange
from copycat.raft.configuration import Configuration
from copycat.raft.core import Raft
from copycat.raft.effects import (
    Append,
    Commit,
    Effect,
    Replicate,
    RoleChanged,
    SaveHardState,
    Send,
    Sync,
)
from copycat.raft.events import (
    ChangeRequested,
    Event,
    OldestSnapshotChanged,
    Proposed,
    Reachable,
    Received,
    Saved,
    Sent,
    Synced,
    Tick,
)
from copycat.raft.initial_state import InitialState
from copycat.raft.invariants import check, observe
from copycat.types import EntryId, MemberId, ServerState, Span
from tests.raft.laws import law

__all__ = ["Bounds", "Explorer"]

OPTIONS = RaftOptions(election_timeout_ms=1_000_000, heartbeat_interval_ms=10, window=4)

STALE_WALKS_MAX = 30
WALK_MAX = 60
"""So many events in one walk: some change nothing, and could be tried for ever."""


class Bounds(NamedTuple):
    """What a search stays within."""

    terms: int = 3
    entries: int = 2
    """Without configurations: by how much a log may grow."""
    heartbeats: int = 1
    crashes: int = 0


class Parcel(NamedTuple):
    """A message that was sent and not received."""

    source: MemberId
    target: MemberId
    message: PeerMessage
    configuration: Configuration | None


class Member(NamedTuple):
    """One member: its core, which is never stepped, and what tells its state from another one."""

    core: Raft
    key: tuple[object, ...]
    log: tuple[int, ...]
    """The term of each entry."""
    commit_index: int
    term: int
    is_leader: bool
    may_campaign: bool


class Move(NamedTuple):
    """One event of one member."""

    member: MemberId
    kind: str
    parcel: Parcel | None = None
    """What is received."""


class World(NamedTuple):
    """One state of the cluster."""

    members: tuple[Member, ...]
    network: frozenset[Parcel]
    committed: tuple[int, ...]
    """The term of each entry that any leader ever committed."""
    leaders: tuple[tuple[int, MemberId], ...]
    """(term, member) of each election that was won."""
    changes: int
    """How many changes were asked for."""
    heartbeats: int
    crashes: int


class Explorer:
    """Searches the states that a cluster with this first configuration can come to.

    changes: what may be asked of whoever leads, each once, in this order.  history: what was asked
    before the search begins; all members know that it is committed. Behind the first of these
    every member with a log took a snapshot, so that a restart knows at least of that one.
    """

    def __init__(
        self,
        first: Configuration,
        changes: tuple[ConfigurationChange, ...] = (),
        bounds: Bounds = Bounds(),  # noqa: B008  # a value
        history: tuple[ConfigurationChange, ...] = (),
    ) -> None:
        self.first = first
        self.changes = changes
        self.bounds = bounds
        self.history = history
        self.first_size = 0
        """How long the leader's log is when the search begins."""
        self.by_name: dict[EntryId, Configuration] = {}
        self.seen: set[tuple[object, ...]] = set()

    def run(self, states: int, seed: int = 0) -> int:
        """Look at so many different states, in an order that the seed gives; how many there were.

        The first member leads already. The search walks from there, from event to event, until
        nothing more may happen, and then begins again; it ends when many walks find nothing new.
        """
        rng = random.Random(seed)
        first, stale = self.prepared(), 0
        while len(self.seen) < states and stale < STALE_WALKS_MAX:
            before = len(self.seen)
            world, moves = first, self.moves(first)
            for _ in range(WALK_MAX):
                if not moves:
                    break
                world = self.made(world, rng.choice(moves))
                self.seen.add(self.key(world))
                moves = self.moves(world)
            stale = stale + 1 if len(self.seen) == before else 0
        return len(self.seen)

    # ---- states ------------------------------------------------------------------------------

    def start(self) -> World:
        """Everybody is up, has links to all others, and has heard nobody."""
        members = []
        for member in self.first.ids:
            raft = Raft(member, self.first, OPTIONS, InitialState(), seed=0)
            members.append(self.member(self.connected(raft)))
        return World(tuple(members), frozenset(), (), (), 0, 0, 0)

    def led(self) -> World:
        """The first member was elected, and everybody knows that its first entry is committed."""
        return self.delivered(self.after(self.start(), self.first.ids[0], None), heartbeats=2)

    def prepared(self) -> World:
        """The same, and the first member made the changes of the history."""
        world, leader = self.led(), self.first.ids[0]
        for number, change in enumerate(self.history):
            base = world.members[0].core.committed_configuration.entry
            asked = ChangeRequested(-1 - number, change._replace(base=base))
            world = self.delivered(self.after(world, leader, asked), heartbeats=6)
            assert world.members[0].core.committed_configuration.entry > base, "not committed"
            if number == 0:
                world = self.with_snapshots(world)
        self.first_size = len(world.members[0].log)
        return world

    def delivered(self, world: World, heartbeats: int) -> World:
        """All messages arrive, and so do those after so many heartbeats of the first member."""
        for number in range(heartbeats + 1):
            while world.network:
                parcel = min(world.network, key=_order_of)
                world = self.made(world, Move(parcel.target, "receive", parcel))
            if number < heartbeats:
                heartbeat = Tick(OPTIONS.heartbeat_interval_ms)
                world = self.after(world, self.first.ids[0], heartbeat)
        return world

    def with_snapshots(self, world: World) -> World:
        """Every member with a log takes a snapshot of all that it knows to be committed."""
        for member, state in zip(self.first.ids, world.members, strict=True):
            if state.commit_index:
                event = OldestSnapshotChanged(state.commit_index)
                world = self.after(world, member, event)
        return world

    def connected(self, raft: Raft) -> Raft:
        raft.startup_wait_until_ms = 0
        for other in self.first.ids:
            if other != raft.member:
                raft.step(Reachable(other, fresh=False))
        return raft

    @staticmethod
    def key(world: World) -> tuple[object, ...]:
        return (tuple(member.key for member in world.members), *world[1:])

    @staticmethod
    def member(raft: Raft) -> Member:
        log = tuple(raft.terms.term_at(index) for index in range(1, raft.terms.end))
        return Member(
            raft,
            _key_of(raft, log),
            log,
            raft.commit_index,
            raft.current_term,
            raft.state is ServerState.LEADER,
            raft.eligibility.may_campaign,
        )

    # ---- what may happen next ----------------------------------------------------------------

    def moves(self, world: World) -> list[Move]:
        """Everything that may happen in this state."""
        bounds = self.bounds
        moves = [Move(parcel.target, "receive", parcel) for parcel in world.network]
        for member, state in zip(self.first.ids, world.members, strict=True):
            if not state.is_leader and state.term < bounds.terms and state.may_campaign:
                moves.append(Move(member, "campaign"))
            if world.crashes < bounds.crashes:
                moves.append(Move(member, "crash"))
            growth = len(state.log) - self.first_size - world.changes
            if state.is_leader and growth < bounds.entries:
                moves.append(Move(member, "propose"))
            if state.is_leader and world.heartbeats < bounds.heartbeats:
                moves.append(Move(member, "heartbeat"))
            if state.is_leader and world.changes < len(self.changes):
                moves.append(Move(member, "change"))
        return moves

    def made(self, world: World, move: Move) -> World:
        """The state that this leads to."""
        member, kind, parcel = move
        if parcel is not None:
            rest = world._replace(network=world.network - {parcel})
            received = Received(parcel.source, parcel.message, configuration=parcel.configuration)
            return self.after(rest, member, received)
        match kind:
            case "crash":
                return self.after_crash(world, member)
            case "propose":
                return self.after(world, member, Proposed(1))
            case "heartbeat":
                more = world._replace(heartbeats=world.heartbeats + 1)
                return self.after(more, member, Tick(OPTIONS.heartbeat_interval_ms))
            case "change":
                more = world._replace(changes=world.changes + 1)
                return self.after(more, member, self.asked(world, member))
            case _:
                return self.after(world, member, None)

    def asked(self, world: World, member: MemberId) -> ChangeRequested:
        """The next change, of whoever leads and knows the newest committed configuration."""
        raft = world.members[self.first.ids.index(member)].core
        base = raft.committed_configuration.entry
        change = self.changes[world.changes]._replace(base=base)
        return ChangeRequested(world.changes + 1, change)

    def after_crash(self, world: World, member: MemberId) -> World:
        at = self.first.ids.index(member)
        restarted = self.member(self.restarted(world.members[at].core))
        members = (*world.members[:at], restarted, *world.members[at + 1 :])
        return world._replace(members=members, crashes=world.crashes + 1)

    def restarted(self, before: Raft) -> Raft:
        """The next process: it begins with what the disk has, without a log if that was to be
        deleted. The file of the directory says what is committed; the log holds the rest."""
        initial = InitialState(
            current_term=before.current_term,
            voted_for=before.voted_for,
            stored_configuration=before.known_configuration,
            committed_configuration=before.known_configuration,
        )
        if not before.is_wiping:
            initial = dataclasses.replace(
                initial,
                term_runs=before.terms.runs,
                last_index=before.terms.last_index,
                snapshot_index=before.oldest_snapshot_index,
                oldest_snapshot_index=before.oldest_snapshot_index,
                configurations=before.configurations.rows[1:],
            )
        raft = Raft(before.member, self.first, OPTIONS, initial, seed=0)
        check(None, observe(raft))
        law(
            raft.known_configuration == before.known_configuration,
            "C28 a restart knows what is committed",
            member=raft.member,
            known=raft.known_configuration.entry,
            before=before.known_configuration.entry,
        )
        return self.connected(raft)

    def copied(self, core: Raft) -> Raft:
        """What may be stepped. Values that never change are shared."""
        values: list[object] = [OPTIONS, self.first, *self.by_name.values()]
        return copy.deepcopy(core, {id(value): value for value in values})

    def after(self, world: World, member: MemberId, event: Event | None) -> World:
        """The state after one event at one member; None: it asks for votes, if it may.

        The disk answers at once, and so does the network: all that was asked for is sent.
        """
        at = self.first.ids.index(member)
        raft = self.copied(world.members[at].core)
        network, leaders = set(world.network), dict(world.leaders)
        committed = world.committed
        facts = observe(raft)
        if event is None:
            effects: list[Effect] = []
            raft.effects = effects
            election.elect(raft, transfer=True)
        else:
            effects = raft.step(event)
        pending = list(effects)
        while pending:
            effect = pending.pop(0)
            if isinstance(effect, RoleChanged) and effect.state is ServerState.LEADER:
                self.elected(raft, leaders, committed)
            elif isinstance(effect, Commit) and raft.leader_state is not None:
                committed = self.committed(raft, effect.index, committed)
            for answer in self.execute(raft, effect, network):
                now = observe(raft)
                check(facts, now)
                facts = now
                pending += raft.step(answer)
        check(facts, observe(raft))
        if raft.is_wiping:
            raft = self.restarted(raft)
        changed = self.member(raft)
        law(
            changed.log[: changed.commit_index] == committed[: changed.commit_index],
            "I6 committed is for ever",
            member=member,
            log=changed.log,
            commit_index=changed.commit_index,
            committed=committed,
        )
        members = (*world.members[:at], changed, *world.members[at + 1 :])
        return world._replace(
            members=members,
            network=frozenset(network),
            committed=committed,
            leaders=tuple(sorted(leaders.items())),
        )

    # ---- effects -----------------------------------------------------------------------------

    def execute(self, raft: Raft, effect: Effect, network: set[Parcel]) -> list[Event]:
        """What the effect leads to at this member."""
        match effect:
            case Append(configuration=Configuration() as configuration):
                self.by_name[configuration.entry] = configuration
            case Sync(ticket=ticket):
                # Written, and synced later: so the deletion floor stays, and entries will do for
                # a member that joins.
                return [Synced(ticket, 0)]
            case SaveHardState(ticket=ticket):
                return [Saved(ticket)]
            case Send(peer=peer, message=message):
                network.add(Parcel(raft.member, peer, message, None))
            case Replicate():
                return self.ship(raft, effect, network)
            case _:
                pass
        return []

    def ship(self, raft: Raft, effect: Replicate, network: set[Parcel]) -> list[Event]:
        term, first, end = effect.span
        names = [EntryId(term, index) for index in range(first, end)]
        rows = [name.index for name in names if name in self.by_name]
        if rows:  # a configuration travels alone (C4)
            end = rows[0] if rows[0] > first else first + 1
        configuration = self.by_name.get(EntryId(term, first)) if end > first else None
        orders = effect.orders
        message = AppendEntries(
            raft.current_term,
            raft.member,
            effect.request,
            effect.prev,
            Span(term, first, end),
            effect.leader_commit,
            effect.deletion_floor,
            orders.configuration,
            0,
            orders.member_type,
            orders.since,
        )
        network.add(Parcel(raft.member, effect.peer, message, configuration))
        return [Sent(effect.peer, Span(term, first, end))] if end > first else []

    # ---- laws --------------------------------------------------------------------------------

    @staticmethod
    def elected(raft: Raft, leaders: dict[int, MemberId], committed: tuple[int, ...]) -> None:
        term = raft.current_term
        first = leaders.setdefault(term, raft.member)
        law(first == raft.member, "I1 one leader a term", term=term, first=first)
        log = tuple(raft.terms.term_at(index) for index in range(1, len(committed) + 1))
        law(log == committed, "I6 a leader lacks committed entries", log=log, committed=committed)

    @staticmethod
    def committed(raft: Raft, index: int, before: tuple[int, ...]) -> tuple[int, ...]:
        log = tuple(raft.terms.term_at(at) for at in range(1, index + 1))
        shorter = min(len(log), len(before))
        law(log[:shorter] == before[:shorter], "I6 committed is for ever", log=log, before=before)
        return max(log, before, key=len)


def _order_of(parcel: Parcel) -> tuple[int, int, str]:
    return parcel.source, parcel.target, repr(parcel.message)


def _key_of(raft: Raft, log: tuple[int, ...]) -> tuple[object, ...]:
    """What may make a difference later."""
    leader_state = raft.leader_state
    leading: tuple[object, ...] = ()
    if leader_state is not None:
        leading = (
            leader_state.noop_index,
            leader_state.replicator.request,
            leader_state.departing,
            tuple(each.entry for each in leader_state.changes.waiting),
            tuple(
                (member, each.round_request, each.round_index)
                for member, each in leader_state.changes.promotions.items()
            ),
            tuple(
                (
                    peer,
                    each.match_index,
                    each.next_index,
                    each.state,
                    each.scope,
                    each.hold_index,
                    each.orders,
                    each.last_request,
                    each.acked_request,
                    each.rewind_request,
                    each.notice_at_ms > raft.now_ms,
                    tuple(each.sent),
                )
                for peer, each in leader_state.progress.items()
            ),
        )
    return (
        raft.current_term,
        raft.voted_for,
        raft.state,
        raft.leader,
        log,
        raft.commit_index,
        raft.commit_ceiling,
        raft.verified_index,
        raft.accepted_request,
        raft.configuration.entry,
        raft.known_configuration.entry,
        raft.orders,
        raft.is_reserve,
        raft.votes,
        raft.eligibility.restrictions,
        leading,
    )
