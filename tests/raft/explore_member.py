"""One member of an exploration: the canonical states of its core, and each step of it made once.

A state of a core is everything in it: `canonical` writes constants over what can make no
difference to an exploration, and two cores are one state when all that is left is equal, slot by
slot. What is written over:

* the random numbers, and the times that are drawn with them: elections come at any time here;
* the numbers of saves and syncs that have ended, of which only the order counts;
* how many messages were ignored.

Time passes at a leader alone, by its heartbeats, and is a part of the state like all else.

So a step is a function of a state and an event, and is made once for all states of the cluster
that have this member in this state: most steps of a search are found in a table.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Mapping
from itertools import pairwise
from typing import NamedTuple, TypeVar, cast

from copycat.config import RaftOptions
from copycat.protocol.peer import AppendEntries, PeerMessage
from copycat.raft import election
from copycat.raft.configuration import Configuration
from copycat.raft.core import Raft
from copycat.raft.effects import (
    Commit,
    Effect,
    Replicate,
    RoleChanged,
    SaveHardState,
    Send,
    Sync,
)
from copycat.raft.events import (
    EntriesFed,
    Event,
    Reachable,
    Saved,
    Sent,
    Synced,
)
from copycat.raft.initial_state import InitialState
from copycat.raft.invariants import check, observe
from copycat.raft.leader_state import LeaderState
from copycat.types import MemberId, ServerState, Span, TermRun
from tests.raft.laws import law

__all__ = [
    "OPTIONS",
    "Member",
    "Outcome",
    "Parcel",
    "fed_by",
    "outcome_of",
    "restarted",
    "started",
    "state",
]

OPTIONS = RaftOptions(election_timeout_ms=1_000_000, heartbeat_interval_ms=10, window=4)

T = TypeVar("T")


class Parcel(NamedTuple):
    """A message that was sent."""

    source: MemberId
    target: MemberId
    message: PeerMessage
    configuration: Configuration | None


class Member(NamedTuple):
    """A canonical state: the core, which is never stepped, and what a search asks it for."""

    core: Raft
    log: tuple[int, ...]
    """The term of each entry."""
    rows: tuple[Configuration, ...]
    """The configurations in the log."""
    durable_index: int
    commit_index: int
    term: int
    is_leader: bool
    may_campaign: bool


class Outcome(NamedTuple):
    """What one event leads to at one member."""

    core: Raft
    sent: tuple[Parcel, ...]
    is_elected: bool
    committed: tuple[int, ...]
    """The terms of what it knows to be committed, if it leads and this grew."""


# ---- canonical states ---------------------------------------------------------------------------


def state(raft: Raft) -> tuple[tuple[object, ...], Member]:
    """The state of this core, as a key and as a member. The core is made canonical by it."""
    canonical(raft)
    log = tuple(raft.terms.term_at(index) for index in range(1, raft.terms.end))
    rows = raft.configurations.rows
    for before, after in pairwise(rows):
        changed = set(before.voters).symmetric_difference(after.voters)
        law(len(changed) <= 1, "C35 one vote at a time", before=before, after=after)
    member = Member(
        raft,
        log,
        tuple(rows[1:]),
        raft.durable_index,
        raft.commit_index,
        raft.current_term,
        raft.state is ServerState.LEADER,
        raft.eligibility.may_campaign,
    )
    key = _frozen(raft)
    assert isinstance(key, tuple)
    return key, member


def canonical(raft: Raft) -> None:
    """Write constants over what makes no difference."""
    raft.election_at_ms, raft.drawn_at_ms = 0, -1
    raft.random.state = raft.pre_vote_number = raft.ignored = 0
    if not raft.is_saving:
        raft.save_ticket = raft.saved_ticket = 0
    first = raft.syncs[0][0] - 1 if raft.syncs else raft.sync_ticket
    raft.syncs = deque((ticket - first, index, at_ms) for ticket, index, at_ms in raft.syncs)
    raft.sync_ticket -= first


_SLOTS: dict[type, tuple[str, ...]] = {}


def _slots(kind: type) -> tuple[str, ...]:
    """All slots of a class, and of those that it extends."""
    if kind not in _SLOTS:
        names = [name for each in kind.__mro__ for name in getattr(each, "__slots__", ())]
        _SLOTS[kind] = tuple(sorted(names))
    return _SLOTS[kind]


_PLAIN = (int, str, enum.Enum, type(None))


def _frozen(value: object) -> object:
    """The value as tuples, equal for equal values."""
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, tuple | list | deque):
        return tuple([_frozen(each) for each in value])
    if isinstance(value, frozenset | set):
        return tuple(sorted(value))
    if isinstance(value, Mapping):
        return tuple([(_frozen(key), _frozen(each)) for key, each in value.items()])
    if value is OPTIONS:
        return None
    slots = _slots(type(value))
    assert slots, f"no slots: {type(value)}"
    return (type(value).__name__, *[_frozen(getattr(value, name)) for name in slots])


def _copied(value: T) -> T:
    """What may be stepped. Values that never change are shared."""
    kind = type(value)
    if isinstance(value, list | deque | dict):
        copy = value.copy()
        for at, each in list(copy.items() if isinstance(copy, dict) else enumerate(copy)):
            copy[at] = _copied(each)
        return cast("T", copy)
    if isinstance(value, (*_PLAIN, tuple, frozenset, Mapping)) or value is OPTIONS:
        return value
    made = kind.__new__(kind)
    for name in _slots(kind):
        setattr(made, name, _copied(getattr(value, name)))
    if isinstance(made, LeaderState):
        made.progress = made.replicator.progress
    return made


# ---- processes ----------------------------------------------------------------------------------


def started(raft: Raft, members: tuple[MemberId, ...]) -> Raft:
    """The core has waited, and has links to all others."""
    raft.startup_wait_until_ms = 0
    for other in members:
        if other != raft.member:
            raft.step(Reachable(other, fresh=False))
    return raft


def restarted(before: Raft, first: Configuration, *, keeps: bool = True) -> Raft:
    """The next process: it begins with what the disk has, without a log if that was to be deleted.
    The file of the directory says what is committed; the log holds the rest.

    keeps: whether what was not synced is there, by luck.
    """
    initial = InitialState(
        current_term=before.current_term,
        voted_for=before.voted_for,
        stored_configuration=before.known_configuration,
        committed_configuration=before.known_configuration,
    )
    if not before.is_wiping:
        last_index = before.terms.last_index if keeps else before.durable_index
        runs = [TermRun(term, index) for term, index in before.terms.runs if index <= last_index]
        rows = before.configurations.rows[1:]
        initial = InitialState(
            current_term=before.current_term,
            voted_for=before.voted_for,
            stored_configuration=before.known_configuration,
            committed_configuration=before.known_configuration,
            term_runs=runs,
            last_index=last_index,
            snapshot_index=before.oldest_snapshot_index,
            oldest_snapshot_index=before.oldest_snapshot_index,
            configurations=[row for row in rows if row.entry.index <= last_index],
        )
    raft = Raft(before.member, first, OPTIONS, initial, seed=0)
    check(None, observe(raft))
    law(
        raft.known_configuration == before.known_configuration,
        "C28 a restart knows what is committed",
        member=raft.member,
        known=raft.known_configuration.entry,
        before=before.known_configuration.entry,
    )
    return started(raft, first.ids)


def fed_by(asker: Member, feeder: Member) -> EntriesFed | None:
    """What `feeder` answers to a question of `asker`, which takes it; None when it has nothing
    for it. No log of a search begins later than another, so entries always do."""
    core, terms = asker.core, feeder.core.terms
    record = feeder.core.known_configuration.record(core.member)
    follows = core.state is ServerState.FOLLOWER and not core.is_reserve
    if not follows or record is None or not record.is_stateful:
        return None
    if record.since != core.own_record.since:
        return None
    last = core.terms.entry_at(min(core.terms.last_index, feeder.commit_index))
    prev = terms.last_at_or_below(last)
    while core.terms.term_at(prev.index) != prev.term:
        prev = terms.last_at_or_below(core.terms.last_at_or_below(prev))
    first, end = prev.next, feeder.commit_index + 1
    if first >= end:
        is_news = prev.index > core.commit_ceiling
        empty = Span(feeder.term, first, first)
        return EntriesFed(feeder.core.member, feeder.term, prev, empty) if is_news else None
    by_index = {row.entry.index: row for row in feeder.rows}
    configuration = by_index.get(first)
    if configuration is not None:
        end = first + 1
    else:
        end = min([end, *(index for index in by_index if index > first)])
    span = terms.span_from(first, end)
    return EntriesFed(feeder.core.member, feeder.term, prev, span, configuration=configuration)


# ---- steps --------------------------------------------------------------------------------------


def outcome_of(core: Raft, event: Event | None, *, syncs_at_once: bool) -> Outcome:
    """What one event at this core leads to; None: it asks for votes, as if a leader had handed
    over.

    A save ends at once, and so does what was asked of the network: all is sent. A sync ends at
    once, or by an event of its own.
    """
    raft = _copied(core)
    facts = observe(raft)
    if event is None:
        effects: list[Effect] = []
        raft.effects = effects
        election.elect(raft, transfer=True)
    else:
        effects = raft.step(event)
    pending = list(effects)
    sent: list[Parcel] = []
    is_elected = False
    committed_index = 0
    while pending:
        effect = pending.pop(0)
        if isinstance(effect, RoleChanged) and effect.state is ServerState.LEADER:
            is_elected = True
        elif isinstance(effect, Commit) and raft.leader_state is not None:
            committed_index = effect.index
        for answer in _answers(raft, effect, sent, syncs_at_once=syncs_at_once):
            now = observe(raft)
            check(facts, now)
            facts = now
            pending += raft.step(answer)
    check(facts, observe(raft))
    committed = tuple(raft.terms.term_at(index) for index in range(1, committed_index + 1))
    return Outcome(raft, tuple(sent), is_elected, committed)


def _answers(
    raft: Raft, effect: Effect, sent: list[Parcel], *, syncs_at_once: bool
) -> list[Event]:
    """What the effect leads to at this member."""
    match effect:
        case Sync(ticket=ticket) if syncs_at_once:
            # Written, and synced later: so the deletion floor stays, and entries will do for a
            # member that joins.
            return [Synced(ticket, 0)]
        case SaveHardState(ticket=ticket):
            return [Saved(ticket)]
        case Send(peer=peer, message=message):
            sent.append(Parcel(raft.member, peer, message, None))
        case Replicate():
            return _shipped(raft, effect, sent)
        case _:
            pass
    return []


def _shipped(raft: Raft, effect: Replicate, sent: list[Parcel]) -> list[Event]:
    term, first, end = effect.span
    rows = [row for row in raft.configurations.rows[1:] if first <= row.entry.index < end]
    configuration = None
    if rows:  # a configuration travels alone (C4)
        end = rows[0].entry.index if rows[0].entry.index > first else first + 1
        configuration = rows[0] if rows[0].entry.index == first else None
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
        effect.feeder,
    )
    sent.append(Parcel(raft.member, effect.peer, message, configuration))
    return [Sent(effect.peer, Span(term, first, end))] if end > first else []
