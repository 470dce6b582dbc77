"""The parts of a member, put together: what a replica and its carrier work with."""

from __future__ import annotations

from collections.abc import Callable

from copycat.log.interface import HardStateStore, ReplicaLog
from copycat.machine.executor import Executor
from copycat.machine.outcome import Outcome
from copycat.raft.raft import Raft
from copycat.replica.applier import Applier
from copycat.replica.carry import Parts
from copycat.replica.clock import LogClock
from copycat.replica.door import Door
from copycat.replica.durable import Durable
from copycat.replica.gateway import Gateway, Limits
from copycat.replica.host import Host
from copycat.replica.options import ReplicaOptions
from copycat.replica.queries import Answers, Queries
from copycat.replica.shipping import RecentBatches, Shipping

__all__ = ["assemble"]


def assemble(
    options: ReplicaOptions,
    *,
    raft: Raft,
    log: ReplicaLog,
    hard_state: HardStateStore,
    executor: Executor,
    host: Host,
    clock: LogClock,
    door: Door,
    members: tuple[str, ...],
    slice_done: Callable[[Outcome], None],
    queries_done: Callable[[Answers], None],
) -> Parts:
    """Everything but those who need all the parts. members: addresses of the voters."""
    limits = Limits(
        inflight_commands_max=options.inflight_commands_max,
        inflight_bytes_max=options.inflight_bytes_max,
    )
    gateway = Gateway(
        limits,
        session_timeout_ms=options.session_timeout_ms,
        members=members,
        answer=door.answer,
        cached=door.answer_cached,
    )
    gateway.sessions.load(executor.session_rows())
    recent = RecentBatches(log, options.recent_bytes_max, options.batch_bytes_max)
    return Parts(
        raft=raft,
        log=log,
        durable=Durable(
            log,
            hard_state,
            host,
            durability=options.durability,
            sync_interval_ms=options.sync_interval_ms,
        ),
        clock=clock,
        recent=recent,
        shipping=Shipping(recent, host),
        applier=Applier(executor, recent, host, slice_done),
        gateway=gateway,
        queries=Queries(executor, gateway.sessions, host, door.answer, queries_done),
        host=host,
    )
