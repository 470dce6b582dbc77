"""Reading every byte of a log or member directory that counts, and naming what is damaged."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from contextlib import suppress
from os import PathLike
from typing import TYPE_CHECKING, NamedTuple

from copycat.errors import StorageError, VersionMismatchError
from copycat.member.hard_state import HARD_STATE_FILES, read_copy
from copycat.member.markers import DELETED_LOG_FILE, read_unsynced_acks
from copycat.paths import path_text
from copycat.storage._native import Env, crc32c
from copycat.storage.disk_format import FORMAT_VERSION, FRAME, SegmentInfo
from copycat.storage.reader import (
    Damage,
    SegmentReader,
    confirm_current,
    damage_of,
    follow_rows,
    log_directory,
    rows_of,
)

if TYPE_CHECKING:
    from copycat.storage._native import Env

__all__ = [
    "SegmentCheck",
    "Slot",
    "SnapshotCheck",
    "VerifyReport",
    "index_damage",
    "is_members",
    "log_damage",
    "member_damage",
    "reach_damage",
    "snapshots_of",
    "verify",
]

Slot = tuple[int, int, int, bool]
"""(index, offset of its frame, size of its payload, whether it is a gap) of one record."""

_HEADER = struct.Struct("<8sII16sQIIQQQQII")
"""magic, format version, crc, uuid, id, version, runs, first index, end, largest valid_from,
count, crc of slots, flags."""
_RUN = 16
_SLOT = struct.Struct("<II")
_START = struct.Struct("<I")
_GAP_BIT = 1 << 31
_SPARSE = 1
_CRC_FROM = 16


def index_damage(env: Env, directory: str, row: SegmentInfo, slots: list[Slot]) -> Damage | None:
    """What is wrong with the index of a sealed segment; None when it fits or is not there.

    `slots`: what the segment holds. A missing index is none: the next open writes it again.
    """
    path = f"{directory}/{row.id}-{row.version}.idx"
    fault: tuple[int, str] | None = None
    seen = b""
    while True:
        try:
            data = env.read_file(path)
        except FileNotFoundError:
            return None
        except StorageError as error:
            return damage_of(error, path, row.first_index, "F14")
        if not data:
            return None  # made, and its one write is still to come, or never came
        if fault is not None and data == seen:
            return Damage(path, fault[0], row.first_index, fault[1], "F14")
        fault, seen = _fault(data, row, slots), data  # read twice: a write may be under way
        if fault is None:
            return None


def _fault(data: bytes, row: SegmentInfo, slots: list[Slot]) -> tuple[int, str] | None:
    """(offset, what) of the first thing that is wrong."""
    if len(data) < _HEADER.size:
        return 0, f"{len(data)} bytes are no index"
    magic, version, crc, uuid, id_, row_version, runs, first, _, _, count, slots_crc, flags = (
        _HEADER.unpack_from(data)
    )
    if magic != b"COPYIDX\0" or version != FORMAT_VERSION:
        return 0, "it does not begin as an index of this format does"
    head = _HEADER.size + runs * _RUN
    is_sparse = bool(flags & _SPARSE)
    nbytes = count * (_SLOT.size + (_START.size if is_sparse else 0))
    if len(data) != head + nbytes:
        return 0, f"{len(data)} bytes for {count} slots and {runs} runs of terms"
    if crc != crc32c(data[_CRC_FROM:head]):
        return 12, "its header fails its checksum"
    if (uuid, id_, row_version, first) != (row.uuid, row.id, row.version, row.first_index):
        return 16, "it is the index of another segment"
    if slots_crc != crc32c(data[head:]):
        return head, "its slots fail their checksum"
    end = head + count * _SLOT.size
    starts = [start for (start,) in _START.iter_unpack(data[end:])]
    by_position = dict(zip(starts or range(count), _SLOT.iter_unpack(data[head:end]), strict=True))
    for position, (index, offset, size, is_gap) in enumerate(slots):
        expected = (offset, size | (_GAP_BIT if is_gap else 0))
        slot = by_position.get(index - row.first_index)
        if slot != expected:
            what = f"its slot of entry {index} is {slot or 'none'}, not {expected}"
            return head + position * _SLOT.size, what
    return None


_SEGMENT = re.compile(r"\d+-\d+\.log")
_SNAPSHOT = re.compile(r"(\d+)-(\d+)\.snap")


class SnapshotCheck(NamedTuple):
    """One snapshot file. Sizes in bytes; the middle three are 0 when it is damaged."""

    path: str
    last_index: int
    """Of the last entry that it covers."""
    term: int
    time_ms: int
    raw_nbytes: int
    nbytes: int
    damage: Damage | None


def log_damage(env: Env, path: str, directory: str) -> Damage | None:
    """What is wrong when `directory` has no manifest; None when there is one.

    path: the directory that was named; `directory` is the log's in it. FileNotFoundError when
    no log was ever there, or it was in memory.
    """
    manifest = f"{directory}/manifest"
    if env.exists(manifest):
        return None
    if any(_SEGMENT.fullmatch(name) for name in env.list(directory)):
        return Damage(manifest, -1, 0, "there are segments, but no manifest", "F3")
    unsynced_acks = read_unsynced_acks(env, path)
    if not _has_identity(env, path) or (unsynced_acks is not None and unsynced_acks.was_in_memory):
        raise FileNotFoundError(f"{manifest}: no such file")
    what = "an identity, but no log: what this member acknowledged is lost"
    return Damage(f"{path}/log", -1, 0, what, "F3")


def member_damage(env: Env, path: str, last_index: int) -> list[Damage]:
    """What is missing or unreadable of vote, identity and list of members (F5, F6, F7); none in a
    bare log's.

    last_index: of its log. A first start that was cut off is no damage: its identity is written
    last, and nothing was promised before (F27).
    """
    from copycat.member.identity import IDENTITY_FILES, Identity  # noqa: PLC0415 - msgspec

    if not is_members(env, path):
        return []
    votes: list[int] = []
    damage: list[Damage] = []
    begun = _has_identity(env, path)
    for names, both in ((HARD_STATE_FILES, "F6"), (IDENTITY_FILES, "F7")):
        bad: list[Damage] = []
        missing: list[Damage] = []
        for name in names:
            file = f"{path}/{name}"
            try:
                if names is HARD_STATE_FILES:
                    votes.append(read_copy(env, file).current_term)
                else:
                    Identity.decode(env.read_file(file), file)
            except FileNotFoundError:
                missing.append(Damage(file, -1, 0, "this copy is missing", "F5"))
            except StorageError as error:
                bad.append(damage_of(error, file, row="F5"))
        if names is IDENTITY_FILES:
            begun = begun or last_index > 0 or max(votes, default=0) > 0
        if len(missing) == len(names) and begun:
            damage.append(Damage(f"{path}/{names[0]}", -1, 0, "both copies are missing", both))
        elif len(missing) + len(bad) < len(names):
            damage += bad + (missing if begun else [])
        else:
            damage += [one._replace(row=both) for one in bad]
    return damage + _configuration_damage(env, path, has_log=last_index > 0)


def _configuration_damage(env: Env, path: str, *, has_log: bool) -> list[Damage]:
    """What is wrong with the two copies of the list of members. The log says the same, if there
    is one, unless it was deleted once: then it may end before the entries that say it now."""
    from copycat.member.configuration_file import (  # noqa: PLC0415 - msgspec
        CONFIGURATION_FILES,
        read_copy,
    )

    missing: list[Damage] = []
    bad: list[Damage] = []
    for name in CONFIGURATION_FILES:
        file = f"{path}/{name}"
        try:
            read_copy(env, file)
        except FileNotFoundError:
            missing.append(Damage(file, -1, 0, "this copy is missing", "F5"))
        except StorageError as error:
            bad.append(damage_of(error, file, row="F5"))
        except VersionMismatchError as error:
            bad.append(Damage(file, -1, 0, error.message, "F7"))
    was_wiped = env.exists(f"{path}/{DELETED_LOG_FILE}")
    if len(missing) == len(CONFIGURATION_FILES) and not (was_wiped or _has_joined(env, path)):
        return []  # the members are the founders, and the identity names them
    if len(missing) + len(bad) < len(CONFIGURATION_FILES) or (has_log and not was_wiped):
        return bad + missing
    return [one._replace(row="F7") for one in bad + missing]


def _is_to_be_deleted(env: Env, path: str) -> bool:
    """Whether the next start deletes log and snapshots, or what an earlier one left of them."""
    from copycat.member.configuration_file import ConfigurationFile  # noqa: PLC0415 - msgspec

    with suppress(StorageError, VersionMismatchError):
        return ConfigurationFile(env, path).read().is_wiped
    return False


def _has_joined(env: Env, path: str) -> bool:
    """Whether the identity says that the list of members was stored once."""
    from copycat.member.identity import read_identity  # noqa: PLC0415 - msgspec

    with suppress(StorageError):
        identity, _ = read_identity(env, path)
        return identity is not None and bool(identity.cluster_incarnation or not identity.members)
    return False


def is_members(env: Env, path: str) -> bool:
    """Whether `path` is a member's: a log that is bare has its lock and its files in one place."""
    if any(env.exists(f"{path}/{name}") for name in HARD_STATE_FILES):
        return True
    return _has_identity(env, path) or (env.exists(f"{path}/log") and env.exists(f"{path}/lock"))


def _has_identity(env: Env, path: str) -> bool:
    from copycat.member.identity import IDENTITY_FILES  # noqa: PLC0415 - msgspec

    return any(env.exists(f"{path}/{name}") for name in IDENTITY_FILES)


def reach_damage(
    env: Env, path: str, first_index: int, snapshots: tuple[SnapshotCheck, ...]
) -> Damage | None:
    """A member's log that begins above 1 is of use behind a snapshot only (F17); else None.

    first_index: of the log; 0 without any.
    """
    if first_index <= 1 or not _has_identity(env, path):
        return None
    if any(one.damage is None and one.last_index >= first_index - 1 for one in snapshots):
        return None
    what = f"the log begins at {first_index:,}, and no snapshot covers what was before it"
    return Damage(f"{path}/snapshots", -1, 0, what, "F17")


def snapshots_of(env: Env, path: str) -> tuple[SnapshotCheck, ...]:
    """Every snapshot that is published in the member's directory `path`, oldest first."""
    directory = f"{path}/snapshots"
    while env.exists(directory):
        names = [match for name in env.list(directory) if (match := _SNAPSHOT.fullmatch(name))]
        checks = [
            _snapshot(env, f"{directory}/{match[0]}", int(match[1]), int(match[2]))
            for match in names
        ]
        whole = [one for one in checks if one is not None]
        if len(whole) == len(names):
            return tuple(sorted(whole, key=lambda one: (one.last_index, one.term)))
        # one was discarded meanwhile, since a newer one has come: that is to be seen
    return ()


def _snapshot(env: Env, path: str, index: int, term: int) -> SnapshotCheck | None:
    """None when it was discarded meanwhile."""
    from copycat.storage import snapshot_file  # noqa: PLC0415 - lz4

    try:
        content = snapshot_file.verify(env, path)
    except FileNotFoundError:
        return None
    except StorageError as error:
        bad = damage_of(error, path, index, "F17")
        return SnapshotCheck(path, index, term, 0, 0, 0, bad)
    damage = None
    if content.entry != (term, index):
        damage = Damage(path, 0, index, f"it holds the snapshot of {content.entry}", "F17")
    return SnapshotCheck(
        path, index, term, content.time_ms, content.raw_nbytes, content.nbytes, damage
    )


OnProgress = Callable[[int, int], None]
"""Called with (bytes read, bytes to read) now and then."""


class SegmentCheck(NamedTuple):
    """What a walk over one segment found. Sizes in bytes; indexes inclusive."""

    row: SegmentInfo
    last_index: int
    entries: int
    gaps: int
    """Indexes whose entries were deleted."""
    valid_from: int
    """The largest of its gaps (C22); 0 without any."""
    nbytes: int
    """Of the file."""
    entry_nbytes: int
    """Of the entries' frames, without padding."""
    damage: tuple[Damage, ...]


class VerifyReport(NamedTuple):
    """What a walk over every frame found. Sizes in bytes."""

    path: str
    segments: int
    first_index: int
    last_index: int
    last_term: int
    nbytes: int
    torn_bytes: int
    """Behind the last good frame of the tail; never durable, dropped at the next open."""
    valid_from: int
    """A replay equals the full log from here on (C22); 0 when nothing was cleaned."""
    checks: tuple[SegmentCheck, ...]
    snapshots: tuple[SnapshotCheck, ...]
    damage: tuple[Damage, ...]

    @property
    def ok(self) -> bool:
        """True when nothing that was durable is unreadable."""
        return not self.damage

    @property
    def missing_upto(self) -> int:
        """The entry that the log once reached, by what a gap says, if it ends before; else 0.

        What is cleaned is durable up to the gap's valid_from (C22), so entries that were durable
        are missing. No damage: a bare log's truncate() leaves a log so, and a member may have a
        gap from its leader before the entries that follow. 0 where damage says it already.
        """
        is_reported = bool(self.checks and self.checks[-1].damage)
        return self.valid_from if self.valid_from > self.last_index and not is_reported else 0


def verify(
    path: str | PathLike[str], *, env: Env | None = None, on_progress: OnProgress | None = None
) -> VerifyReport:
    """Read every byte that counts and name each damage by file, offset and index.

    Segments, marks, index files and the manifest; in a member's directory both copies of hard
    state and identity, and the snapshots: what would keep it from starting is damage.
    FileNotFoundError when there is no log. DiskError when a file cannot be read for a reason
    that says nothing of its bytes: it may not be read, or no descriptor is left. What is wrong
    with a log that the next start deletes, since its member is a reserve, is no damage.
    """
    disk, named = env or Env(), path_text(path)
    directory = log_directory(disk, named)
    checks: list[SegmentCheck] = []
    lost = log_damage(disk, named, directory)
    damage = [lost] if lost is not None else []
    last_term, torn = 0, 0
    try:
        to_read = _sizes(disk, directory) if lost is None else 0
        for row, walk in follow_rows(disk, directory) if lost is None else ():
            check, term = _check(disk, directory, row, walk)
            if not confirm_current(disk, directory, row, walk):
                continue  # what replaced it comes next
            checks.append(check)
            damage += check.damage
            last_term, torn = term or last_term, walk.torn_bytes
            if on_progress is not None:
                on_progress(sum(one.nbytes for one in checks), max(to_read, 1))
    except StorageError as error:
        damage.append(damage_of(error, f"{directory}/manifest", row="F3"))
    first_index = checks[0].row.first_index if checks else 0
    last_index = checks[-1].last_index if checks else 0
    damage += member_damage(disk, named, last_index)
    snapshots = snapshots_of(disk, named)
    damage += [one.damage for one in snapshots if one.damage is not None]
    out_of_reach = reach_damage(disk, named, first_index, snapshots)
    damage += [out_of_reach] if out_of_reach is not None else []
    if _is_to_be_deleted(disk, named):
        damage = [one for one in damage if one.row in {"F5", "F6", "F7"}]
    return VerifyReport(
        path=named,
        segments=len(checks),
        first_index=first_index,
        last_index=last_index,
        last_term=last_term,
        nbytes=sum(one.entry_nbytes for one in checks),
        torn_bytes=torn,
        valid_from=max((one.valid_from for one in checks), default=0),
        checks=tuple(checks),
        snapshots=snapshots,
        damage=tuple(damage),
    )


def _sizes(env: Env, directory: str) -> int:
    total = 0
    for row in rows_of(env, directory):
        with suppress(FileNotFoundError):  # lost, or replaced meanwhile: the walk finds out
            total += env.open(f"{directory}/{row.name}").size()
    return total


def _check(
    env: Env, directory: str, row: SegmentInfo, walk: SegmentReader
) -> tuple[SegmentCheck, int]:
    """(what one segment holds, the term of its last record; 0 without any)."""
    slots: list[Slot] = []
    entries = gaps = valid_from = nbytes = term = 0
    for record in walk:
        term = record.term
        if row.sealed:
            size = len(record.frame) - FRAME.size
            slots.append((record.index, record.offset, size, record.is_gap))
        if record.is_gap:
            gaps += record.end - record.index
            valid_from = max(valid_from, record.valid_from)
            continue
        entries += 1
        nbytes += len(record.frame)
    damage = [walk.damage] if walk.damage is not None else []
    if row.sealed and valid_from > row.valid_from:
        what = f"{row.name} has a gap valid from {valid_from}, its row says {row.valid_from}"
        damage.append(Damage(f"{directory}/manifest", -1, row.first_index, what, "F3"))
    if row.sealed and not damage:
        of_index = index_damage(env, directory, row, slots)
        damage += [of_index] if of_index is not None else []
    last_index = row.last_index if row.sealed else walk.position[1] - 1
    check = SegmentCheck(
        row, last_index, entries, gaps, valid_from, walk.nbytes, nbytes, tuple(damage)
    )
    return check, term
