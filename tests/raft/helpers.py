"""One core in a vacuum: built from a list of terms, stepped by hand."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from copycat.config import RaftOptions
from copycat.protocol.peer import (
    AppendEntries,
    AppendReply,
    PeerMessage,
    PreVoteReply,
    VoteReply,
)
from copycat.raft import membership
from copycat.raft.configuration import Configuration
from copycat.raft.core import Raft
from copycat.raft.effects import Effect, Replicate, Send
from copycat.raft.events import Received, Saved, Sent, Synced, Tick
from copycat.raft.initial_state import InitialState
from copycat.raft.state import orders_for
from copycat.types import NO_ENTRY, EntryId, MemberId, ServerState, Span
from tests.raft.cluster import runs_of
from tests.raft.laws import Entry

__all__ = [
    "OPTIONS",
    "adopt",
    "append",
    "complete_io",
    "core",
    "elect",
    "leader",
    "of",
    "receive",
    "sends",
    "ship",
]

OPTIONS = RaftOptions(election_timeout_ms=100, heartbeat_interval_ms=20, window=2)

E = TypeVar("E")


def core(
    *terms: int,
    member: int = 1,
    voters: int = 3,
    current_term: int = 0,
    voted_for: int = 0,
    fresh: bool = False,
    young: bool = False,
    seed: int = 0,
) -> Raft:
    """A core whose log has entries of these terms; past the wait at a start unless `young`."""
    raft = Raft(
        MemberId(member),
        Configuration.of(*map(MemberId, range(1, voters + 1))),
        OPTIONS,
        InitialState(
            current_term=max(current_term, *terms) if terms else current_term,
            voted_for=MemberId(voted_for),
            term_runs=runs_of([Entry(term, "") for term in terms]),
            last_index=len(terms),
            fresh=fresh,
        ),
        seed=seed,
    )
    if not young:
        raft.election_at_ms += 100
        assert raft.step(Tick(100)) == []
    return raft


def adopt(raft: Raft, configuration: Configuration) -> list[Effect]:
    """From now on `configuration` is committed, as if the log had begun with it."""
    effects: list[Effect] = []
    raft.effects = effects
    raft.configurations.rows = [configuration]
    raft.committed_configuration = raft.known_configuration = configuration
    raft.orders = orders_for(configuration, raft.member)
    membership.on_log_changed(raft)
    raft.draw_election_timeout()
    raft.effects = []
    return effects


def receive(
    raft: Raft, sender: int, message: PeerMessage, *, has_gaps: bool = False
) -> list[Effect]:
    if isinstance(message, AppendEntries) and not message.leader:
        message = msgspec.structs.replace(message, leader=MemberId(sender))
    return raft.step(Received(MemberId(sender), message, has_gaps))


def complete_io(raft: Raft) -> list[Effect]:
    """All saves and syncs end."""
    return [*raft.step(Saved(raft.save_ticket)), *raft.step(Synced(raft.sync_ticket))]


def append(
    term: int, request: int, prev: tuple[int, int], terms: list[int], commit: int = 0
) -> AppendEntries:
    """AppendEntries with entries of one term after `prev` (term, index), of who sends them."""
    span_term = terms[0] if terms else term
    first = prev[1] + 1
    span = Span(span_term, first, first + len(terms))
    return AppendEntries(term, MemberId(0), request, EntryId(*prev), span, commit)


def of(effects: list[Effect], kind: type[E]) -> list[E]:
    """The effects of one kind."""
    return [effect for effect in effects if isinstance(effect, kind)]


def sends(effects: list[Effect]) -> list[tuple[int, PeerMessage]]:
    """What is sent, and to whom; without what every answer says of the log beside that."""
    return [(effect.peer, _short(effect.message)) for effect in of(effects, Send)]


def _short(message: PeerMessage) -> PeerMessage:
    if not isinstance(message, AppendReply):
        return message
    return msgspec.structs.replace(message, last=NO_ENTRY, commit_index=0)


def ship(raft: Raft, effects: list[Effect]) -> list[Effect]:
    """Answer every Replicate with entries by a Sent of all of it, and so on."""
    more: list[Effect] = []
    for effect in of(effects, Replicate):
        if effect.span.length:
            answer = raft.step(Sent(effect.peer, effect.span))
            more += [*answer, *ship(raft, answer)]
    return more


def leader(*terms: int, voters: int = 3) -> tuple[Raft, list[Effect]]:
    """Member 1, just elected with the votes of all; its no-op is shipped and synced."""
    raft = core(*terms, voters=voters)
    return raft, elect(raft)


def elect(raft: Raft) -> list[Effect]:
    """A follower wins the votes of all; its no-op is shipped and synced."""
    raft.campaign_within(0, 1)
    effects = raft.step(Tick(1))
    for peer in raft.peers:
        receive(raft, peer, PreVoteReply(raft.current_term, raft.pre_vote_number, True))
    effects = raft.step(Saved(raft.save_ticket))
    for peer in raft.peers:
        effects += receive(raft, peer, VoteReply(raft.current_term, True))
    assert raft.state is ServerState.LEADER
    effects += ship(raft, effects)
    effects += raft.step(Synced(raft.sync_ticket))
    return effects
