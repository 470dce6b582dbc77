"""Any order of events of a small cluster of cores, within bounds: a search for a broken law.

Members vote at any time, whoever they hear: every election asks as if a leader had handed over, so
no timer keeps an order of events from being tried. A message that was sent may arrive at any time,
in any order, any number of times, or never. A crash loses what a process knows: how far is
committed above its snapshot, and what was not synced. A member that shall delete its log does so
in a new process, at any time.

A state is what the members are (`tests/raft/explore_member.py`), which messages were ever sent,
and what was ever committed. No symmetry is used: an id breaks a tie in the core.

A search begins at each state of a straight way, on which nothing is lost or late, and looks at all
orders of so many events from there on (`Explorer.search`). Another kind of message needs nothing
here; another kind of event, like a question of who is fed, is one more move (`Explorer.moves`,
`Explorer.made`) and one more step of a straight way.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import NamedTuple

from copycat.errors import InvariantError
from copycat.protocol.peer import RequestVote, VoteReply
from copycat.raft.changes import ConfigurationChange
from copycat.raft.configuration import Configuration
from copycat.raft.core import Raft
from copycat.raft.events import (
    ChangeRequested,
    EntriesFed,
    Event,
    OldestSnapshotChanged,
    Proposed,
    Received,
    Synced,
    Tick,
)
from copycat.raft.initial_state import InitialState
from copycat.types import MemberId
from tests.raft import explore_member
from tests.raft.explore_member import OPTIONS, Member, Outcome, Parcel
from tests.raft.laws import law

__all__ = ["Bounds", "Explorer", "Move", "World"]

STALE_WALKS_MAX = 30
WALK_MAX = 60
"""So many events in one walk: some change nothing, and could be tried for ever."""

HEARTBEAT = Tick(OPTIONS.heartbeat_interval_ms)


class Bounds(NamedTuple):
    """What a search stays within."""

    terms: int = 3
    entries: int = 2
    """Without configurations: by how much a log may grow."""
    heartbeats: int = 1
    crashes: int = 0
    syncs_at_once: bool = True
    """Whether a disk answers at once. If not, a sync ends by an event of its own, and a crash
    before that loses the entries, or not."""


class Step(NamedTuple):
    """One event of one member in one state, with numbers for states and messages."""

    state: int
    sent: int
    """The messages, a bit for each."""
    is_elected: bool
    committed: tuple[int, ...]


class Move(NamedTuple):
    """One event of one member."""

    at: int
    """Position of the member."""
    kind: str
    parcel: int = 0
    """Number of the message that is received."""


class World(NamedTuple):
    """One state of the cluster."""

    members: tuple[int, ...]
    """Number of each member's state."""
    network: int
    """Each message that was ever sent, a bit for each."""
    committed: tuple[int, ...] = ()
    """The term of each entry that any leader ever committed."""
    leaders: tuple[tuple[int, MemberId], ...] = ()
    """(term, member) of each election that was won."""
    changes: int = 0
    """How many changes were asked for."""
    heartbeats: int = 0
    crashes: int = 0


class Explorer:
    """Searches the states that a cluster with this first configuration can come to.

    changes: what may be asked of whoever leads, each once, in this order.  history: what was asked
    before the search begins; all members know that it is committed, and what they sent until then
    does not arrive again. Behind the first of these every member with a log took a snapshot, so
    that a restart knows at least of that one.
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
        self.configurations: set[Configuration] = set()
        """All that any log ever held. Another order of events may give one name to another one."""
        self.members: list[Member] = []
        """By number."""
        self.numbers: dict[tuple[object, ...], int] = {}
        self.parcels: list[Parcel] = []
        """By number."""
        self.targets: list[int] = []
        """To which position each of them goes."""
        self.parcel_numbers: dict[Parcel, int] = {}
        self.votes: dict[int, tuple[MemberId, int, MemberId]] = {}
        """(voter, term, candidate) of each message that is a vote, by its number."""
        self.agreeing: set[tuple[int, int]] = set()
        """Pairs of states whose logs were compared."""
        self.steps: dict[tuple[int, object], Step] = {}
        """By the number of a state, and the event."""
        self.seen: dict[World, tuple[World, Move] | None] = {}
        """Every state that was met, with where it came from first; None: a search began there."""

    # ---- searches ----------------------------------------------------------------------------

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
                world = self.met(world, rng.choice(moves))
                moves = self.moves(world)
            stale = stale + 1 if len(self.seen) == before else 0
        return len(self.seen)

    def search(self, depth: int, way: Iterable[tuple[int, str]] = ()) -> Iterator[int]:
        """Look at every state that is at most `depth` events away from one of the straight way;
        how many different ones were seen so far, after each event."""
        frontier = list(dict.fromkeys(self.straight(self.prepared(), way)))
        self.seen.update(dict.fromkeys(frontier))
        yield len(self.seen)
        for _ in range(depth):
            size = len(self.seen)
            for world in frontier:
                for move in self.moves(world):
                    self.met(world, move)
            frontier = list(islice(self.seen, size, None))
            yield len(self.seen)

    def met(self, world: World, move: Move) -> World:
        """The state that this leads to. A broken law says how it came to that."""
        try:
            after = self.made(world, move)
        except (AssertionError, InvariantError) as error:
            error.add_note("\n".join(self.history_of(world, move)))
            raise
        self.seen.setdefault(after, (world, move))
        return after

    def history_of(self, world: World, move: Move) -> list[str]:
        """The events from where the search began, in words."""
        moves = [move]
        while before := self.seen.get(world):
            world, earlier = before
            moves.append(earlier)
        logs = [self.members[number].log for number in world.members]
        return [f"from logs {logs}", *map(self.words_of, reversed(moves))]

    def words_of(self, move: Move) -> str:
        member = self.first.ids[move.at]
        if move.kind != "receive":
            return f"{member}: {move.kind}"
        parcel = self.parcels[move.parcel]
        return f"{member} receives from {parcel.source}: {parcel.message}"

    # ---- where they begin --------------------------------------------------------------------

    def start(self) -> World:
        """Everybody is up, has links to all others, and has heard nobody."""
        rafts = [
            Raft(member, self.first, OPTIONS, InitialState(), seed=0) for member in self.first.ids
        ]
        numbers = [self.number(explore_member.started(raft, self.first.ids)) for raft in rafts]
        return World(tuple(numbers), 0)

    def led(self) -> World:
        """The first member was elected, and everybody knows that its first entry is committed."""
        return self.delivered(self.made(self.start(), Move(0, "campaign")), heartbeats=2)

    def prepared(self) -> World:
        """The same, and the first member made the changes of the history."""
        world = self.led()
        for number, change in enumerate(self.history):
            base = self.members[world.members[0]].core.committed_configuration.entry
            asked = ChangeRequested(-1 - number, change._replace(base=base))
            world = self.delivered(self.after(world, 0, asked), heartbeats=6)
            core = self.members[world.members[0]].core
            assert core.committed_configuration.entry > base, "not committed"
            if number == 0:
                world = self.with_snapshots(world)
        self.first_size = len(self.members[world.members[0]].log)
        return world._replace(network=0)

    def delivered(self, world: World, heartbeats: int) -> World:
        """All messages arrive, and so do those after so many heartbeats of the first member."""
        for number in range(heartbeats + 1):
            *_, world = self.quiet(world, 0)
            if number < heartbeats:
                world = self.after(world, 0, HEARTBEAT)
        return world

    def quiet(self, world: World, received: int) -> Iterator[World]:
        """Each message that is not among `received` arrives once, syncs end, and logs that shall
        be deleted are: the states on the way there."""
        yield world
        while True:
            rest = world.network & ~received
            at = next(self._at_once(world), None)
            if at is not None:
                world = self.made(world, at)
            elif rest:
                number = (rest & -rest).bit_length() - 1
                received |= 1 << number
                world = self.made(world, Move(self.targets[number], "receive", number))
            else:
                return
            yield world

    def _at_once(self, world: World) -> Iterator[Move]:
        for at, number in enumerate(world.members):
            core = self.members[number].core
            if core.is_wiping:
                yield Move(at, "delete")
            elif core.syncs:
                yield Move(at, "sync")

    def straight(self, world: World, way: Iterable[tuple[int, str]]) -> Iterator[World]:
        """The states of a way on which nothing is lost or late: the members at these positions
        take these events, one after the other."""
        yield world
        for at, kind in way:
            before = world
            world = self.made(before, Move(at, kind))
            assert world != before, f"{kind} at {at} changes nothing"
            for each in self.quiet(world, before.network):
                yield each
                world = each

    def with_snapshots(self, world: World) -> World:
        """Every member with a log takes a snapshot of all that it knows to be committed."""
        for at, number in enumerate(world.members):
            if self.members[number].commit_index:
                event = OldestSnapshotChanged(self.members[number].commit_index)
                world = self.after(world, at, event)
        return world

    # ---- what may happen next ----------------------------------------------------------------

    def moves(self, world: World) -> list[Move]:
        """Everything that may happen in this state. A message that changes nothing any more is
        left out."""
        bounds = self.bounds
        moves: list[Move] = []
        rest, steps = world.network, self.steps
        while rest:
            number = (rest & -rest).bit_length() - 1
            rest &= rest - 1
            at = self.targets[number]
            step = steps.get((world.members[at], number))
            if step is None or step.state != world.members[at] or step.sent & ~world.network:
                moves.append(Move(at, "receive", number))
        for at, state in enumerate(world.members):
            member = self.members[state]
            core = member.core
            if not member.is_leader and member.term < bounds.terms and member.may_campaign:
                moves.append(Move(at, "campaign"))
            if core.is_wiping:
                moves.append(Move(at, "delete"))
            elif world.crashes < bounds.crashes:
                moves.append(Move(at, "crash"))
                if member.durable_index < len(member.log):
                    moves.append(Move(at, "lose"))
            if core.syncs:
                moves.append(Move(at, "sync"))
            if self.fed(world, at) is not None:
                moves.append(Move(at, "feed"))
            growth = len(member.log) - self.first_size - world.changes
            if member.is_leader and growth < bounds.entries:
                moves.append(Move(at, "propose"))
            if member.is_leader and world.heartbeats < bounds.heartbeats:
                moves.append(Move(at, "heartbeat"))
            if member.is_leader and world.changes < len(self.changes):
                moves.append(Move(at, "change"))
        return moves

    def made(self, world: World, move: Move) -> World:
        """The state that this leads to."""
        at, kind, parcel = move
        before = world.members[at]
        match kind:
            case "receive":
                step = self.steps.get((before, parcel)) or self.step(before, parcel)
                return self.moved(world, at, step)
            case "crash" | "lose" | "delete":
                crashes = world.crashes + (kind != "delete")
                return self.moved(world._replace(crashes=crashes), at, self.step(before, kind))
            case "heartbeat":
                more = world._replace(heartbeats=world.heartbeats + 1)
                return self.after(more, at, HEARTBEAT)
            case "change":
                more = world._replace(changes=world.changes + 1)
                return self.after(more, at, self.asked(world, before))
            case "propose":
                return self.after(world, at, Proposed(1))
            case "sync":
                return self.after(world, at, Synced(1, 0))
            case "feed":
                event = self.fed(world, at)
                return world if event is None else self.after(world, at, event)
            case _:
                return self.moved(world, at, self.step(before, kind))

    def fed(self, world: World, at: int) -> EntriesFed | None:
        """What the feeder that its leader named answers to the member at this position."""
        asker = self.members[world.members[at]]
        if not asker.core.feeder:
            return None
        feeder = world.members[self.first.ids.index(asker.core.feeder)]
        return explore_member.fed_by(asker, self.members[feeder])

    def asked(self, world: World, state: int) -> ChangeRequested:
        """The next change, of whoever leads and knows the newest committed configuration."""
        base = self.members[state].core.committed_configuration.entry
        change = self.changes[world.changes]._replace(base=base)
        return ChangeRequested(world.changes + 1, change)

    # ---- steps of one member -----------------------------------------------------------------

    def after(self, world: World, at: int, event: Event) -> World:
        return self.moved(world, at, self.step(world.members[at], event))

    def step(self, before: int, event: object) -> Step:
        """What this event leads to: the number of a message, the name of a move, or an event."""
        known = self.steps.get((before, event))
        if known is None:
            core = self.members[before].core
            known = self.steps[before, event] = self.stepped(core, event)
        return known

    def stepped(self, core: Raft, event: object) -> Step:
        if event in ("crash", "lose", "delete"):
            raft = explore_member.restarted(core, self.first, keeps=event != "lose")
            return Step(self.number(raft), 0, is_elected=False, committed=())
        if isinstance(event, int):
            parcel = self.parcels[event]
            message, configuration = parcel.message, parcel.configuration
            event = Received(parcel.source, message, configuration=configuration)
        asked = None if event == "campaign" else event
        outcome = explore_member.outcome_of(
            core,
            asked,  # type: ignore[arg-type]  # any event
            syncs_at_once=self.bounds.syncs_at_once,
        )
        return self.numbered(outcome)

    def numbered(self, outcome: Outcome) -> Step:
        sent = 0
        for parcel in outcome.sent:
            sent |= 1 << self.parcel_number(parcel)
        return Step(self.number(outcome.core), sent, outcome.is_elected, outcome.committed)

    def number(self, raft: Raft) -> int:
        key, member = explore_member.state(raft)
        number = self.numbers.setdefault(key, len(self.members))
        if number == len(self.members):
            self.members.append(member)
            self.configurations.update(member.rows)
        return number

    def parcel_number(self, parcel: Parcel) -> int:
        number = self.parcel_numbers.setdefault(parcel, len(self.parcels))
        if number == len(self.parcels):
            self.parcels.append(parcel)
            self.targets.append(self.first.ids.index(parcel.target))
            vote = _vote_of(parcel)
            if vote is not None:
                self.votes[number] = vote
        return number

    # ---- the cluster after a step, and the laws across its members ---------------------------

    def moved(self, world: World, at: int, step: Step) -> World:
        members, network, committed, leaders, changes, heartbeats, crashes = world
        if step.state != members[at]:
            members = (*members[:at], step.state, *members[at + 1 :])
        if step.sent & ~network:
            self.check_votes(network, step.sent & ~network)
            network |= step.sent
        member = self.members[step.state]
        if step.is_elected:
            leaders = self.elected(leaders, member, committed)
        if len(step.committed) > len(committed):
            self.check_commit(members, step.committed, member, committed)
            committed = step.committed
        mine = member.log[: member.commit_index]
        law(
            mine == committed[: member.commit_index]
            and step.committed == committed[: len(step.committed)],
            "I6 committed is for ever",
            member=member.core.member,
            log=member.log,
            commit_index=member.commit_index,
            committed=committed,
        )
        for number in members:
            if (step.state, number) not in self.agreeing:
                self.check_logs(member, self.members[number])
                self.agreeing.add((step.state, number))
        return World(members, network, committed, leaders, changes, heartbeats, crashes)

    @staticmethod
    def elected(
        leaders: tuple[tuple[int, MemberId], ...], member: Member, committed: tuple[int, ...]
    ) -> tuple[tuple[int, MemberId], ...]:
        term, number = member.term, member.core.member
        by_term = dict(leaders)
        first = by_term.setdefault(term, number)
        law(first == number, "I1 one leader a term", term=term, first=first, second=number)
        log = member.log[: len(committed)]
        law(log == committed, "I6 a leader lacks committed entries", log=log, committed=committed)
        return tuple(sorted(by_term.items()))

    def check_commit(
        self,
        members: tuple[int, ...],
        mine: tuple[int, ...],
        leader: Member,
        before: tuple[int, ...],
    ) -> None:
        """I6, I7: it goes on with what was committed, and is durable on a majority."""
        law(mine[: len(before)] == before, "I6 committed is for ever", log=mine, before=before)
        ids = self.first.ids
        holders = [
            ids[at]
            for at, each in enumerate(map(self.members.__getitem__, members))
            if each.durable_index >= len(mine) and each.log[: len(mine)] == mine
        ]
        voters = leader.core.configuration
        law(voters.has_quorum(holders), "I6 durable on a majority", log=mine, holders=holders)

    @staticmethod
    def check_logs(one: Member, other: Member) -> None:
        """I5: two logs with the same term at an index are the same up to there. I11: and an entry
        is one configuration."""
        pairs = list(zip(one.log, other.log, strict=False))
        same = [at for at, (mine, its) in enumerate(pairs) if mine == its]
        law(not same or len(same) == same[-1] + 1, "I5 log matching", one=one.log, other=other.log)
        rows = {row.entry: row for row in one.rows}
        for row in other.rows:
            law(rows.get(row.entry, row) == row, "I11 one configuration an entry", entry=row.entry)

    def check_votes(self, network: int, sent: int) -> None:
        """I2: one vote a term."""
        for number, vote in self.votes.items():
            if sent >> number & 1:
                for other, earlier in self.votes.items():
                    is_there = (network | sent) >> other & 1
                    is_other = is_there and vote[:2] == earlier[:2] and vote != earlier
                    law(not is_other, "I2 one vote a term", vote=vote, earlier=earlier)


def _vote_of(parcel: Parcel) -> tuple[MemberId, int, MemberId] | None:
    """(voter, term, candidate) of a message that is a vote."""
    match parcel.message:
        case VoteReply(granted=True, term=term):
            return parcel.source, term, parcel.target
        case RequestVote(term=term):
            return parcel.source, term, parcel.source
        case _:
            return None
