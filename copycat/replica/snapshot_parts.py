"""The parts of a replica that send, take and receive snapshots, built after each other."""

from __future__ import annotations

from typing import NamedTuple

from copycat.machine.session_executor import SessionExecutor
from copycat.raft.core import Raft
from copycat.replica.applier import Applier
from copycat.replica.configuration_store import ConfigurationStore
from copycat.replica.driver import Driver
from copycat.replica.feeder import Feeder
from copycat.replica.host import Host, Inbox
from copycat.replica.log_clock import LogClock
from copycat.replica.options import ReplicaOptions
from copycat.replica.session_index import SessionIndex
from copycat.replica.snapshot_receiver import IncarnationRecorder, SnapshotReceiver
from copycat.replica.snapshot_sender import SnapshotSender
from copycat.replica.snapshot_taker import SnapshotTaker
from copycat.replica.sync_scheduler import SyncScheduler
from copycat.storage.interface import ReplicaLog
from copycat.storage.recent_batches import BatchReader
from copycat.storage.snapshot_store import SnapshotStore

__all__ = ["SnapshotParts", "build_snapshots"]


class SnapshotParts(NamedTuple):
    """One of each."""

    sender: SnapshotSender
    feeder: Feeder
    taker: SnapshotTaker
    receiver: SnapshotReceiver


def build_snapshots(
    raft: Raft,
    log: ReplicaLog,
    clock: LogClock,
    host: Host,
    inbox: Inbox,
    driver: Driver,
    syncs: SyncScheduler,
    applier: Applier,
    sessions: SessionIndex,
    configurations: ConfigurationStore,
    reader: BatchReader,
    executor: SessionExecutor,
    store: SnapshotStore | None,
    options: ReplicaOptions,
    incarnations: IncarnationRecorder,
) -> SnapshotParts:
    """Each is given those that it needs. store: None when the member keeps no snapshots."""
    sender = SnapshotSender(raft, clock, host, inbox, driver, store)
    feeder = Feeder(raft, log, clock, host, inbox, reader, store, sender)
    taker = SnapshotTaker(
        raft,
        log,
        clock,
        inbox,
        syncs,
        applier,
        driver,
        store,
        executor,
        options,
        sender,
        configurations,
        feeder,
    )
    receiver = SnapshotReceiver(
        raft,
        log,
        clock,
        inbox,
        applier,
        sessions,
        driver,
        store,
        executor,
        taker,
        incarnations,
        configurations,
    )
    return SnapshotParts(sender, feeder, taker, receiver)
