"""What a stopped member has, where the majority of its cluster is lost for good (C46).

Nothing is changed. An operator reads this of each survivor, and takes the one with the newest last
entry: the greatest term, then the greatest index. No later entry can have been acknowledged by a
majority that this one voted in, but what is only on the lost members is lost.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import TYPE_CHECKING, NamedTuple

from copycat.config import member_id
from copycat.errors import CopycatError, CorruptLogError, StorageError
from copycat.member.configuration_file import StoredConfigurations, read_configurations
from copycat.member.hard_state import best_copy
from copycat.member.identity import Identity
from copycat.member.markers import (
    LOST_ENTRIES_FILE,
    NOTE_FILE,
    UnsyncedAcks,
    read_unsynced_acks,
)
from copycat.member.new_cluster_file import NEW_CLUSTER_FILE, NewCluster
from copycat.member.open_sessions import OpenSession, OpenSessions
from copycat.member.operator_tools import identity_of
from copycat.member.verify import VerifyReport, verify
from copycat.protocol.codec_configuration import decode_configuration
from copycat.protocol.member_record import ConfigurationRecord, MemberRecord
from copycat.storage._native import open_log
from copycat.storage.reader import Damage, StoredEntry, records
from copycat.storage.snapshot_store import SnapshotStore
from copycat.types import NO_ENTRY, EntryId, EntryKind, MemberType

if TYPE_CHECKING:
    from copycat.storage._native import Env
    from copycat.storage.snapshot_store import Snapshot

__all__ = ["Obstacle", "Survivor", "examine"]


_TAKE_ANOTHER = "take another survivor: copycat recover --show DIR says what each of them has"
_START_ONCE = (
    "start this member once, and stop it again: a start repairs what can be repaired, and needs no"
    " other member"
)
_HARMFUL = frozenset({"F2", "F3", "F6", "F7"})


class Obstacle(NamedTuple):
    """Why no new cluster may be made of a directory, and what to do instead."""

    why: str
    hint: str


class Survivor(NamedTuple):
    """What one member's directory holds. Indexes are inclusive."""

    directory: str
    identity: Identity
    cluster_incarnation: int
    """Of the newest configuration; 0 when the members were never changed."""
    term: int
    """The member's: that of its hard state, or of its last entry."""
    last: EntryId
    committed: EntryId
    """The last entry that is known to be committed: by the newest snapshot, by what was deleted
    from the log, and by the list of members. NO_ENTRY: nothing says that of any entry."""
    configuration: ConfigurationRecord
    """The newest one that is known here: who the members were."""
    snapshot: EntryId
    """What the newest snapshot covers; NO_ENTRY without any."""
    sessions: tuple[OpenSession, ...]
    time_ms: int
    """Log time of the last entry."""
    report: VerifyReport | None
    """None: there is no log on the disk."""
    obstacles: tuple[Obstacle, ...]
    origin: NewCluster | None
    """What an operator made of the directory before."""

    @property
    def harm(self) -> tuple[Damage, ...]:
        """The damage that a start cannot make good from what else is here, as it does with an
        index file, with one of two copies, and with one of two snapshots."""
        if self.report is None:
            return ()
        is_covered = any(one.damage is None for one in self.report.snapshots)
        return tuple(
            one
            for one in self.report.damage
            if one.row in _HARMFUL or (one.row == "F17" and not (one.index and is_covered))
        )

    @property
    def is_only_voter(self) -> bool:
        """Whether nobody else has a vote by the newest configuration: what is durable here is
        committed."""
        voters = [
            each.member for each in self.configuration.members if each.type is MemberType.ACTIVE
        ]
        return voters == [self.identity.member]

    @property
    def address(self) -> str:
        """Where this member listens: it may have moved since its first start (C44)."""
        own = self.own
        return self.identity.address if own is None else own.address

    @property
    def own(self) -> MemberRecord | None:
        """What the configuration says of this member."""
        for each in self.configuration.members:
            if each.member == self.identity.member:
                return each
        return None


def examine(env: Env, directory: str, boot: str) -> Survivor:
    """Read all that counts. boot: the machine's boot id, or empty.

    What `identity_of` raises; CorruptLogError when the list of members cannot be read, and the log
    does not prove it either.
    """
    identity = identity_of(env, directory)
    try:
        report = verify(directory, env=env)
    except FileNotFoundError:
        report = None
    stored = read_configurations(env, directory, has_log=report is not None)
    reading = _Reading(env, directory, identity, stored, report)
    last, configuration = reading.last, reading.newest
    copy = None if _lacks_hard_state(report) else best_copy(env, directory)
    survivor = Survivor(
        directory,
        identity,
        configuration.cluster_incarnation,
        max(copy.current_term if copy is not None else 0, last.term),
        last,
        reading.committed,
        configuration,
        reading.snapshot_entry,
        reading.sessions.rows,
        reading.time_ms,
        report,
        (),
        _origin(env, directory),
    )
    return survivor._replace(obstacles=tuple(_obstacles(env, survivor, stored, reading, boot)))


def _lacks_hard_state(report: VerifyReport | None) -> bool:
    return report is not None and any(one.row == "F6" for one in report.damage)


def _origin(env: Env, directory: str) -> NewCluster | None:
    path = f"{directory}/{NEW_CLUSTER_FILE}"
    try:
        return NewCluster.read(env, path) if env.exists(path) else None
    except CopycatError:
        return None  # it tells a history, and nothing depends on it


class _Reading:
    """One pass over the newest snapshot and the log behind it."""

    def __init__(
        self,
        env: Env,
        directory: str,
        identity: Identity,
        stored: StoredConfigurations,
        report: VerifyReport | None,
    ) -> None:
        founders = tuple(_founder(identity, each) for each in identity.members)
        configurations = [ConfigurationRecord(NO_ENTRY, 0, founders), *stored.records]
        newest = self._newest_snapshot(env, directory)
        snapshot, content = (None, None) if newest is None else newest
        self.snapshot_entry = NO_ENTRY if snapshot is None else snapshot.entry
        if snapshot is not None and snapshot.configuration:
            what = f"the configuration in the snapshot of {snapshot.entry.index} entries"
            configurations.append(decode_configuration(snapshot.configuration, what))
        known = [self.snapshot_entry, *(each.entry for each in stored.records[:1])]
        self.sessions = OpenSessions(content)
        self.last = self.before = NO_ENTRY
        self.time_ms = 0 if snapshot is None else snapshot.time_ms
        self.holds_snapshot = snapshot is None
        if report is not None and report.segments:
            self.last = self.before = _before(env, directory)
        self.holds_snapshot |= self.before == self.snapshot_entry
        for record in self._records(env, directory, report):
            entry = EntryId(record.term, record.end - 1)
            self.last = entry
            self.time_ms = max(self.time_ms, record.time_ms)
            covered = self.snapshot_entry
            if record.index <= covered.index < record.end and record.term == covered.term:
                self.holds_snapshot = True
            if record.is_gap:
                known.append(entry)
            elif record.kind == EntryKind.CONFIGURATION:
                what = f"entry {record.index}"
                configurations.append(decode_configuration(record.payload, what))
        self.committed = max(known, key=_index_of)
        self.newest = max(configurations, key=_entry_of)

    @staticmethod
    def _newest_snapshot(env: Env, directory: str) -> tuple[Snapshot, bytes] | None:
        path = f"{directory}/snapshots"
        return SnapshotStore(env, path).look() if env.exists(path) else None

    def _records(
        self, env: Env, directory: str, report: VerifyReport | None
    ) -> Iterator[StoredEntry]:
        """All of the log, as far as it can be read; the sessions follow what is behind the
        snapshot."""
        if report is None or not report.segments:
            return
        try:
            for record in records(directory, env=env):
                if record.end - 1 > self.snapshot_entry.index:
                    self.sessions.take(record)
                yield record
        except CorruptLogError:
            return  # `verify` has reported it


def _founder(identity: Identity, address: str) -> MemberRecord:
    is_own = address == identity.address
    member = identity.member if is_own else member_id(identity.cluster_name, address)
    return MemberRecord(member, MemberType.ACTIVE, address)


def _before(env: Env, directory: str) -> EntryId:
    """The entry that the log begins behind; NO_ENTRY when damage hides it."""
    try:
        with closing(
            open_log(
                env,
                f"{directory}/log",
                max_segment_size=32 << 20,
                max_entries_per_segment=1 << 20,
                read_only=True,
            )
        ) as log:
            return log.before
    except StorageError:
        return NO_ENTRY


def _index_of(entry: EntryId) -> int:
    return entry.index


def _entry_of(record: ConfigurationRecord) -> EntryId:
    return record.entry


def _obstacles(
    env: Env, survivor: Survivor, stored: StoredConfigurations, reading: _Reading, boot: str
) -> Iterator[Obstacle]:
    """Why what is here is not all that this member had, or not the state of a log (C46)."""
    own, last, directory = survivor.own, survivor.last, survivor.directory
    unsynced = read_unsynced_acks(env, directory)
    if own is None or not own.is_stateful or stored.is_wiped:
        kind = "no member" if own is None else str(own.type)
        yield Obstacle(
            f"by the newest list of members this is {kind}: it has no log", _TAKE_ANOTHER
        )
        return
    if unsynced is not None and unsynced.was_in_memory:
        yield Obstacle("its log was in memory, and ended with its process", _TAKE_ANOTHER)
        return
    if survivor.report is None or last == NO_ENTRY:
        yield Obstacle("there is no entry in its log", _TAKE_ANOTHER)
        return
    if survivor.is_only_voter:
        yield Obstacle(
            "it is the only voter, so that no majority is lost",
            f"start it as it is: copycat serve {survivor.address} --directory {directory} ...",
        )
        return
    if survivor.harm:
        what = survivor.harm[0].what
        yield Obstacle(f"it is damaged ({what})", f"copycat log verify {directory}; {_START_ONCE}")
    elif env.exists(f"{directory}/{NOTE_FILE}"):
        yield Obstacle("it could not be read when this member ran last", _START_ONCE)
    yield from _lacks(env, survivor, own.since, unsynced, boot)
    valid_from = survivor.report.valid_from
    if valid_from > last.index:
        yield Obstacle(
            "it was replaying: what was deleted from its log needs the entries up to"
            f" {valid_from:,}, and the log ends at {last.index:,}",
            _TAKE_ANOTHER,
        )
    if not reading.holds_snapshot:
        yield Obstacle(
            f"its log ends before the snapshot of {survivor.snapshot.index:,} entries, or differs"
            " from it",
            _START_ONCE,
        )


def _lacks(
    env: Env, survivor: Survivor, since: int, unsynced: UnsyncedAcks | None, boot: str
) -> Iterator[Obstacle]:
    """Why the log is not all that this member had, or should have to vote."""
    last, directory = survivor.last, survivor.directory
    if since > last.index:
        yield Obstacle(
            f"it was joining: its log ends at {last.index:,}, and it is a member since {since:,}",
            _TAKE_ANOTHER,
        )
    if unsynced is not None and unsynced.may_be_broken(boot):
        yield Obstacle(
            "entries that it acknowledged before they were synced may be missing",
            f"{_TAKE_ANOTHER}; if this is the only one, accept that first: copycat recover"
            f" --accept-unsynced-loss {directory}",
        )
    if env.exists(f"{directory}/{LOST_ENTRIES_FILE}"):
        yield Obstacle(
            "entries that it acknowledged were lost, and no leader has sent them again",
            f"{_TAKE_ANOTHER}; if this is the only one, accept that first: copycat recover"
            f" --accept-missing-entries {directory}",
        )
