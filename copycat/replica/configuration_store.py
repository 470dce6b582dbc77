"""What a member's directory knows of its cluster: who the members are, and which cluster it is.

The core decides which configuration is the newest, and which is committed. This store writes both
to the file `configuration` (C35), and the incarnation of the cluster to the identity (C41), with
the next sync: before anything is acknowledged that was appended since, in every mode.

The core's values name no cluster. The leader that writes the first configuration of a log takes
the incarnation of its own directory, 128 random bits which no other directory has, and every later
one repeats it. Where an operator made a new cluster of one member (C46), those before that entry
are of another cluster, and all that is committed is of the new one. So one number beside the
core's table is enough: that of the newest configuration, and never of one below what is committed.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from copycat.errors import require
from copycat.member.configuration_file import StoredConfigurations
from copycat.protocol.cluster_incarnation import first_incarnation
from copycat.protocol.codec_configuration import encode_configuration
from copycat.protocol.member_record import ConfigurationRecord
from copycat.raft.configuration import BOOTSTRAP, Configuration
from copycat.replica.known_configurations import KnownConfigurations, configuration_of
from copycat.replica.options import MemberStores
from copycat.replica.sync_scheduler import SyncScheduler

__all__ = ["ConfigurationStore"]


class ConfigurationStore:
    """Called in turns. newest: the configuration that the core begins with."""

    def __init__(
        self,
        stores: MemberStores,
        sync_scheduler: SyncScheduler,
        known: KnownConfigurations,
        newest: Configuration,
    ) -> None:
        self._file = stores.configuration_file
        self._record_cluster = stores.record_cluster
        self._directory_incarnation = stores.incarnation
        self._stored = self._durable = stores.configurations
        """What the file will hold after the next sync, and what it holds."""
        self._stored_incarnation = stores.cluster_incarnation
        self._sync_scheduler = sync_scheduler
        self._committed = known.committed
        self._newest = newest
        self._incarnation = known.incarnation
        """Of the cluster, by the newest configuration; 0 while that is the founders'."""
        self._is_wiped = False
        """Whether the next start is to delete log and state: only that start takes it back."""
        self._then: Callable[[], None] | None = None
        self._store()

    @property
    def cluster_incarnation(self) -> int:
        """Which cluster this is: by the newest configuration that is committed; 0: none is."""
        return self._incarnation if self._committed.entry != BOOTSTRAP else 0

    def record(self, configuration: Configuration | ConfigurationRecord) -> ConfigurationRecord:
        """A configuration that this member has, with its cluster."""
        incarnation = 0 if configuration.entry == BOOTSTRAP else self._incarnation
        return ConfigurationRecord(
            configuration.entry, incarnation, configuration.members, configuration.policy
        )

    def new_record(self, configuration: Configuration) -> ConfigurationRecord:
        """The same of one that this leader appends now: the first one names the cluster (C41)."""
        incarnation = self._incarnation or first_incarnation(self._directory_incarnation)
        return ConfigurationRecord(
            configuration.entry, incarnation, configuration.members, configuration.policy
        )

    def encoded(self, configuration: Configuration) -> bytes:
        """What a snapshot holds, in which `configuration` is in force; empty for the founders'."""
        if configuration.entry == BOOTSTRAP:
            return b""
        return encode_configuration(self.record(configuration))

    # ---- what the core says --------------------------------------------------------------

    def appended(self, record: ConfigurationRecord) -> None:
        """An entry that holds this was appended, and the next `Sync` is to cover it. One below the
        newest that is committed is history, and perhaps that of another cluster (C46)."""
        if record.entry >= self._committed.entry:
            self._incarnation = record.cluster_incarnation
        self.changed(configuration_of(record))

    def announced(self, record: ConfigurationRecord) -> None:
        """A leader says that this one is committed, and the core has accepted that."""
        if self.cluster_incarnation == 0:
            self._incarnation = record.cluster_incarnation

    def changed(self, configuration: Configuration) -> None:
        """`configuration` is the newest now; perhaps an older one than before."""
        self._newest = configuration
        if configuration.entry == self._committed.entry == BOOTSTRAP:
            self._incarnation = 0
        self._store()

    def committed(self, configuration: Configuration) -> None:
        """`configuration` is committed."""
        if configuration.entry > self._committed.entry:
            self._committed = configuration
            self._store()

    def wipe(self, configuration: Configuration, then: Callable[[], None]) -> None:
        """By `configuration`, which is committed, this member has no log and no state. `then` is
        called, in a turn, when the directory says so durably."""
        require(
            configuration.entry >= self._committed.entry,
            "C33: a log is deleted by an older configuration than the newest committed one",
            configuration=configuration.entry,
            committed=self._committed.entry,
        )
        self._committed, self._newest = configuration, configuration
        self._is_wiped = True
        self._then = then
        self._store()

    # ---- the file ------------------------------------------------------------------------

    def _store(self) -> None:
        if self._newest.entry == BOOTSTRAP and not self._stored.records:
            return  # the identity names the founders
        records = [self.record(self._committed)]
        if self._newest.entry > self._committed.entry:
            records.append(self.record(self._newest))
        stored = StoredConfigurations(tuple(records), self._is_wiped)
        if stored == self._stored and self._then is None:
            return
        self._stored = stored
        write = partial(self._write, stored, self.cluster_incarnation)
        self._sync_scheduler.request_write(write, self._on_written)

    def _write(self, stored: StoredConfigurations, incarnation: int) -> None:
        """In the thread that syncs."""
        if self._file is not None:
            self._file.write(stored)
        self._durable = stored
        if self._record_cluster is not None and incarnation not in (0, self._stored_incarnation):
            self._record_cluster(incarnation)
            self._stored_incarnation = incarnation

    def _on_written(self) -> None:
        if self._durable != self._stored:
            return  # a later request is under way
        then, self._then = self._then, None
        if then is not None:
            then()
