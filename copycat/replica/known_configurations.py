"""Which configurations a member knows when it starts: from its snapshot, its log and its file.

The newest snapshot holds the configuration that is in force at its index, and the log the entries
behind it; a read of the log stops at each of them (C4). The file `configuration` counts where the
log does not reach so far: for a reserve, for a member that is joining, for one whose log was in
memory, and for one that lost a part of its log (C35).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from copycat.errors import CorruptLogError, DiskError, ProtocolError
from copycat.protocol.codec_configuration import decode_configuration
from copycat.protocol.member_record import ConfigurationRecord
from copycat.raft.configuration import BOOTSTRAP, Configuration, name_of
from copycat.replica.options import MemberStores, ReplicaOptions
from copycat.storage.interface import Batch, ReplicaLog
from copycat.types import EntryId, EntryKind

__all__ = [
    "KnownConfigurations",
    "configuration_of",
    "entry_configuration",
    "known_configurations",
]

_READ_NBYTES = 1 << 20
_KIND_AT = 30
"""Where a frame says what it is."""


class KnownConfigurations(NamedTuple):
    """What the core begins with, and of which cluster it is."""

    first: Configuration
    """The founders' configuration; of a member that was no founder, the one that it was given, or
    the oldest of its log when its file cannot be read."""
    rows: tuple[Configuration, ...]
    """The one in force at the snapshot, unless it is the founders', and that of each entry above,
    oldest first."""
    stored: Configuration | None
    """The newest one of the file that counts."""
    committed: Configuration
    """The newest that is known to be committed: in force at the snapshot, or by the file."""
    incarnation: int
    """Of the cluster, by the newest of all; 0 when that is the founders' configuration."""


def configuration_of(record: ConfigurationRecord) -> Configuration:
    """What the core knows of these bytes."""
    return Configuration.from_members(record.members, record.entry, record.policy)


def entry_configuration(batch: Batch) -> ConfigurationRecord | None:
    """The configuration that the entry of this batch holds; None when it holds another thing.

    VersionMismatchError for one of an unknown version (C47); ProtocolError.
    """
    span = batch.span
    if span.length != 1 or memoryview(batch)[_KIND_AT] != EntryKind.CONFIGURATION:
        return None  # a configuration travels alone (C4)
    (run,) = batch.runs(span.first, span.end)
    what = f"entry {span.first}"
    record = decode_configuration(run.payloads[0], what)
    if record.entry != EntryId(span.term, span.first) or not record.cluster_incarnation:
        raise ProtocolError(f"{what} of term {span.term} names itself {record.entry}")
    return record


def known_configurations(
    options: ReplicaOptions, stores: MemberStores, covered: int
) -> KnownConfigurations:
    """Read what the directory knows. covered: index of the snapshot that was installed; 0: none.

    CorruptLogError when nothing says who the members are: the identity names the founders only
    where they were never changed.
    """
    in_force = list(_in_force(stores, covered))
    records = stores.configurations.records
    was_changed = bool(records or in_force or stores.cluster_incarnation)
    rows = [*in_force, *_entries(stores.log, covered, is_strict=was_changed)]
    if not rows and not records and (stores.cluster_incarnation or not options.members):
        raise CorruptLogError(
            f"{options.address}, member {options.own_id:032x} of {options.cluster_name}: the file"
            " with the list of members is missing or cannot be read, and no snapshot and none of"
            f" the entries {stores.log.first_index} to {stores.log.last_index} holds such a list:"
            " nothing in this directory says who the members are now",
            state="This member did not start; its log was not changed.",
            hint="join a new member, with another directory, and remove this one",
        )
    if not (stores.lost or stores.lost_entries):
        records = records[:1]  # what the log does not hold was never acknowledged, or cut off
    stored = records[-1] if records else None
    newest = max([*rows, *records], key=name_of, default=None)
    _check_cluster(options, stores, newest)
    if options.members:
        first = Configuration.bootstrap(options.members_by_id)
    else:
        first = configuration_of(records[0] if records else rows[0])
    return KnownConfigurations(
        first,
        tuple(map(configuration_of, rows)),
        None if stored is None or stored.entry == BOOTSTRAP else configuration_of(stored),
        _committed(first, in_force, records),
        0 if newest is None else newest.cluster_incarnation,
    )


def _check_cluster(
    options: ReplicaOptions, stores: MemberStores, newest: ConfigurationRecord | None
) -> None:
    """CorruptLogError when the newest configuration is of another cluster than the identity: the
    log ends before the entry that made the new cluster (C46), and the file cannot be read."""
    expected = stores.cluster_incarnation
    if newest is None or expected in (0, newest.cluster_incarnation):
        return
    raise CorruptLogError(
        f"{options.address}, member {options.own_id:032x}: its identity is of the cluster"
        f" {expected:032x}, and the newest list of members that can be read is of cluster"
        f" {newest.cluster_incarnation:032x}",
        state="This member did not start; its log was not changed.",
        hint="join a new member, with another directory, and remove this one",
    )


def _committed(
    first: Configuration,
    in_force: list[ConfigurationRecord],
    records: tuple[ConfigurationRecord, ...],
) -> Configuration:
    known = [configuration_of(each) for each in (*in_force, *records[:1])]
    return max([first, *known], key=name_of)


def _in_force(stores: MemberStores, covered: int) -> Iterator[ConfigurationRecord]:
    """At the snapshot, if that is not the founders' configuration."""
    newest = stores.snapshots.newest if stores.snapshots is not None and covered else None
    if newest is not None and newest.configuration:
        what = f"the configuration in the snapshot of {newest.entry.index} entries"
        yield decode_configuration(newest.configuration, what)


def _entries(log: ReplicaLog, covered: int, *, is_strict: bool) -> Iterator[ConfigurationRecord]:
    """In the log, above the snapshot.

    is_strict: False ends at what cannot be read, if nothing else says that the members were ever
    changed. The member stops when it comes to that entry, and the next start repairs the log.
    """
    index, end = max(log.first_index, covered + 1), log.last_index + 1
    while index < end:
        try:
            batch = log.read(index, end, _READ_NBYTES)
        except (CorruptLogError, DiskError):
            if is_strict:
                raise
            return
        index = batch.span.end
        try:
            record = entry_configuration(batch)
        except ProtocolError as error:
            raise CorruptLogError(error.message, index=batch.span.first) from error
        if record is not None:
            yield record
