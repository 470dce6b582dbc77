"""The parts of a member, put together: what a replica and its carrier work with."""

from __future__ import annotations

from collections.abc import Callable

from copycat.machine.apply_result import ApplyResult
from copycat.machine.session_executor import SessionExecutor
from copycat.member.ballast_file import BallastFile
from copycat.member.markers import LostEntries
from copycat.raft.configuration import Configuration
from copycat.raft.core import Raft
from copycat.raft.initial_state import InitialState
from copycat.replica.applier import Applier
from copycat.replica.delivery import Delivery
from copycat.replica.driver import ReplicaParts
from copycat.replica.host import Host
from copycat.replica.inbox import Inbox
from copycat.replica.log_clock import LogClock
from copycat.replica.options import ReplicaOptions
from copycat.replica.proposals import Admission, Limits, ProposalQueue
from copycat.replica.queries import Queries
from copycat.replica.replication import EntrySender
from copycat.replica.replies import Replies
from copycat.replica.sync_scheduler import SyncScheduler
from copycat.storage.interface import Batch, HardStateStore, ReplicaLog
from copycat.storage.recent_batches import BatchReader, RecentBatches
from copycat.storage.snapshot_store import SnapshotStore
from copycat.types import NO_ENTRY, MemberId

__all__ = ["assemble", "core_of"]


def core_of(
    member: MemberId,
    options: ReplicaOptions,
    *,
    log: ReplicaLog,
    hard_state: HardStateStore,
    covered: int,
    snapshots: SnapshotStore | None,
    fresh: bool,
    lost: bool,
    lost_entries: LostEntries | None,
    seed: int,
) -> Raft:
    """The core over the log and the hard state as they were opened.

    covered: index of the snapshot that was installed; 0 for none.
    """
    return Raft(
        member,
        Configuration.bootstrap(options.members_by_id),
        options.raft,
        InitialState(
            current_term=hard_state.current_term,
            voted_for=hard_state.voted_for,
            term_runs=log.term_runs(),
            first_index=log.first_index,
            last_index=log.last_index,
            before=log.before,
            snapshot_index=covered,
            oldest_snapshot_index=0 if snapshots is None else snapshots.oldest_index,
            fresh=fresh,
            lost=lost,
            lost_upto=NO_ENTRY if lost_entries is None else lost_entries.lost_upto,
            is_older_copy=lost_entries is not None and lost_entries.is_regressed,
        ),
        seed=seed,
    )


def assemble(
    options: ReplicaOptions,
    *,
    raft: Raft,
    log: ReplicaLog,
    hard_state: HardStateStore,
    executor: SessionExecutor,
    host: Host,
    clock: LogClock,
    ballast: BallastFile | None,
    slice_done: Callable[[ApplyResult], None],
) -> ReplicaParts:
    """The parts that work with each other only, in the order in which they need each other."""
    inbox, replies = Inbox(host), Replies(host)
    limits = Limits(
        inflight_commands_max=options.inflight_commands_max,
        inflight_bytes_max=options.inflight_bytes_max,
    )
    proposal_queue = ProposalQueue(
        limits,
        session_timeout_ms=options.session_timeout_ms,
        cluster_name=options.cluster_name,
        members=tuple(options.members_by_id.values()),
        admission=Admission(executor.commands.refusals, options.max_entry_size),
        replies=replies,
        delivery=Delivery(host, executor, replies=replies, inbox=inbox),
    )
    proposal_queue.sessions.load(executor.session_rows())
    recent = RecentBatches[Batch](
        options.entry_buffer_size, options.recent_bytes_max, keeps_newest=True
    )
    batch_reader = BatchReader(log, recent, options.batch_bytes_max)
    return ReplicaParts(
        raft=raft,
        log=log,
        durable=SyncScheduler(
            log,
            hard_state,
            host,
            durability=options.durability,
            sync_interval_ms=options.sync_interval_ms,
            ballast=ballast,
        ),
        clock=clock,
        batch_reader=batch_reader,
        entry_sender=EntrySender(batch_reader, host),
        applier=Applier(executor, batch_reader, inbox, slice_done, options.skips),
        proposal_queue=proposal_queue,
        queries=Queries(executor, proposal_queue.sessions, host, replies, inbox),
        host=host,
        inbox=inbox,
        replies=replies,
    )
