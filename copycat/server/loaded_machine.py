"""The machine of a member that starts: loaded, and checked against what its directory holds."""

from __future__ import annotations

import logging

from copycat.config import ServerOptions, Storage
from copycat.machine.machine import StateMachine
from copycat.machine.session_executor import SessionExecutor
from copycat.member.skips import read_skips
from copycat.replica.restore import check_log, install_newest
from copycat.storage import Env, allocation_refusals, watch_allocations
from copycat.storage.interface import ReplicaLog
from copycat.storage.snapshot_store import SnapshotStore
from copycat.types import SkippedEntry

__all__ = ["LoadedMachine"]

log = logging.getLogger("copycat.server")


class LoadedMachine:
    """One start's machine with its executor and its snapshots; any one thread."""

    def __init__(self, machine: StateMachine, options: ServerOptions, storage: Storage) -> None:
        self._machine = machine
        self._options = options
        self._storage = storage
        self._executor: SessionExecutor | None = None
        self._snapshots: SnapshotStore | None = None
        self.skips: tuple[SkippedEntry, ...] = ()
        """Entries at which the machine's code is not called, once there is an executor."""

    def executor(self, env: Env) -> SessionExecutor:
        """Made at the first call, which needs the lock of the directory: it says what to skip.

        ConfigurationError for a machine that is defined wrongly; what `read_skips` raises.
        """
        if self._executor is None:
            options = self._options
            self.skips = read_skips(env, self._storage.directory, options.cluster_name)
            for skip in self.skips:
                log.warning(
                    "%s: the state machine's code is not called at entry %d (term %d), which the"
                    " operator has this cluster skip",
                    options.address,
                    skip.index,
                    skip.term,
                )
            watch_allocations()
            self._executor = SessionExecutor(
                self._machine,
                refusals=allocation_refusals,
                in_main_thread=False,
                skips=[skip.index for skip in self.skips],
            )
        return self._executor

    def load_snapshot(self, env: Env, replica_log: ReplicaLog | None) -> bool:
        """Install the newest snapshot and read the log behind it; nothing on the disk changes.

        True when all of the log could be read. MachineMismatchError when the machine cannot read
        what it was given; what `executor` and `SessionExecutor.install` raise.
        """
        executor = self.executor(env)
        base = install_newest(self._store(env), executor)
        return replica_log is not None and check_log(replica_log, base, executor)

    def tidy_snapshots(self, env: Env) -> SnapshotStore:
        """The same snapshots, for the member that starts with them now."""
        store = self._store(env)
        store.tidy()
        return store

    def _store(self, env: Env) -> SnapshotStore:
        if self._snapshots is None:
            storage = self._storage
            self._snapshots = SnapshotStore(
                env,
                f"{storage.directory}/snapshots",
                compress=storage.compression == "lz4",
                retain_stale=storage.retain_stale_snapshots,
                tidies=False,
            )
        return self._snapshots

    def close(self) -> None:
        """The start failed: tell the machine, if it was loaded."""
        if self._executor is not None:
            self._executor.close()
