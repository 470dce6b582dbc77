"""Loads the state machine of a member that starts, and checks that it can read the directory."""

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
    """The machine of one start, with its executor and its snapshots; for one thread at a time."""

    def __init__(self, machine: StateMachine, options: ServerOptions, storage: Storage) -> None:
        self._machine = machine
        self._options = options
        self._storage = storage
        self._executor: SessionExecutor | None = None
        self._snapshots: SnapshotStore | None = None
        self.skips: tuple[SkippedEntry, ...] = ()
        """Entries for which the machine's code is not called; known after the first `executor`."""

    def executor(self, env: Env) -> SessionExecutor:
        """The executor, which the first call makes with the entries that the directory says to
        skip.

        The directory must be locked. ConfigurationError for a machine that is defined wrongly;
        the errors of `read_skips`.
        """
        if self._executor is None:
            options = self._options
            self.skips = read_skips(env, self._storage.directory, options.cluster_name)
            for skip in self.skips:
                log.warning(
                    "%s: the state machine's code is not called at entry %d (term %d), since an"
                    " operator has told this cluster to skip it",
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
        """Install the newest snapshot, and check the log behind it; nothing on the disk changes.

        True when all of the log could be read. MachineMismatchError when the machine cannot read
        the snapshot or a command; the errors of `executor` and of `SessionExecutor.install`.
        """
        executor = self.executor(env)
        base = install_newest(self._store(env), executor)
        return replica_log is not None and check_log(replica_log, base, executor)

    def tidy_snapshots(self, env: Env) -> SnapshotStore:
        """The snapshots of the directory, after unfinished files were deleted: the start
        continues."""
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
        """The start failed: close the executor, if there is one."""
        if self._executor is not None:
            self._executor.close()
