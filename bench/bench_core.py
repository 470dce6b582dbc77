"""The core alone: what one turn of a leader and its followers costs, without bytes or disk."""

from __future__ import annotations

from typing import Any

from copycat.config import RaftOptions
from copycat.protocol.peer import AppendEntries, AppendReply
from copycat.raft.configuration import Configuration
from copycat.raft.core import Raft
from copycat.raft.effects import Append, Replicate, SaveHardState, Send, Sync
from copycat.raft.events import Proposed, Reachable, Received, Saved, Sent, Synced, Tick
from copycat.raft.initial_state import InitialState
from copycat.types import MemberId, ServerState

VOTERS = tuple(MemberId(n) for n in (1, 2, 3))
TURNS = 1000


def bench_turn(benchmark: Any) -> None:
    """Propose, sync, and a durable reply of both followers: four steps of the leader."""
    leader = _elected()

    def turns() -> None:
        for _ in range(TURNS):
            replicates = []
            tickets = []
            for effect in leader.step(Proposed(64)):
                if isinstance(effect, Replicate) and effect.span.first < effect.span.end:
                    replicates.append(effect)
                elif isinstance(effect, Sync):
                    tickets.append(effect.ticket)
            for effect in replicates:
                leader.step(Sent(effect.peer, effect.span))
            leader.step(Synced(tickets[-1]))
            for effect in replicates:
                reply = AppendReply(
                    leader.current_term,
                    effect.request,
                    accepted=True,
                    match_index=effect.span.last,
                    hint=effect.prev,
                )
                leader.step(Received(effect.peer, reply))
        assert leader.commit_index == leader.last.index

    benchmark.pedantic(turns, rounds=20, warmup_rounds=1)
    per_turn_us = benchmark.stats.stats.median / TURNS * 1e6
    benchmark.extra_info.update(durability="none", turn_us=round(per_turn_us, 2), steps=6)


def _elected() -> Raft:
    cores = {
        member: Raft(
            member,
            Configuration.of(*VOTERS),
            RaftOptions(),
            InitialState(),
            seed=member,
        )
        for member in VOTERS
    }
    pending: list[tuple[MemberId, Any]] = [
        (member, Reachable(peer, fresh=False))
        for member in VOTERS
        for peer in VOTERS
        if peer != member
    ]
    for _ in range(100):
        if any(core.state is ServerState.LEADER and core.commit_index for core in cores.values()):
            break
        pending += [(member, Tick(50)) for member in VOTERS]
        while pending:
            member, event = pending.pop(0)
            for effect in cores[member].step(event):
                pending += _answers(member, cores[member], effect)
    return next(core for core in cores.values() if core.state is ServerState.LEADER)


def _answers(member: MemberId, core: Raft, effect: Any) -> list[tuple[MemberId, Any]]:
    match effect:
        case SaveHardState():
            return [(member, Saved(effect.ticket))]
        case Sync():
            return [(member, Synced(effect.ticket))]
        case Send():
            return [(effect.peer, Received(member, effect.message))]
        case Replicate():
            message = AppendEntries(
                core.current_term,
                member,
                effect.request,
                effect.prev,
                effect.span,
                effect.leader_commit,
            )
            sent = [(member, Sent(effect.peer, effect.span))] if effect.span.length else []
            return [*sent, (effect.peer, Received(member, message))]
        case Append() | _:
            return []
