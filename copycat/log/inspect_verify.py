"""Reading every byte of a log or member directory that counts, and naming what is damaged."""

from __future__ import annotations

import re
from collections.abc import Callable
from os import PathLike, fspath
from typing import NamedTuple

from copycat.errors import StorageError
from copycat.log._native import Env
from copycat.log.hard_state import HARD_STATE_FILES, read_copy
from copycat.log.inspect_index import Slot, index_damage
from copycat.log.inspect_rows import follow_rows, log_directory, rows_of, settle
from copycat.log.inspect_walk import Damage, Walk, damage_of
from copycat.log.records import FRAME, Row

__all__ = ["SegmentCheck", "SnapshotCheck", "VerifyReport", "verify"]

_SNAPSHOT = re.compile(r"(\d+)-(\d+)\.snap")

Told = Callable[[int, int], None]
"""Called with (bytes read, bytes to read) now and then."""


class SegmentCheck(NamedTuple):
    """What a walk over one segment found. Sizes in bytes; indexes inclusive."""

    row: Row
    last_index: int
    entries: int
    holes: int
    """Indexes that were let go."""
    valid_from: int
    """The largest of its holes (C22); 0 without any."""
    nbytes: int
    """Of the file."""
    entry_nbytes: int
    """Of the entries' frames, without padding."""
    damage: tuple[Damage, ...]


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


def verify(
    path: str | PathLike[str], *, env: Env | None = None, told: Told | None = None
) -> VerifyReport:
    """Read every byte that counts and name each damage by file, offset and index.

    Segments, marks, index files and the manifest; in a member's directory both copies of hard
    state and identity, and the snapshots. FileNotFoundError when there is no log.
    """
    disk = env or Env()
    directory = log_directory(disk, fspath(path))
    checks: list[SegmentCheck] = []
    damage: list[Damage] = []
    last_term, torn = 0, 0
    try:
        to_read = _sizes(disk, directory)
        for row, walk in follow_rows(disk, directory):
            check, term = _check(disk, directory, row, walk)
            if not settle(disk, directory, row, walk):
                continue  # what replaced it comes next
            checks.append(check)
            damage += check.damage
            last_term, torn = term or last_term, walk.torn_bytes
            if told is not None:
                told(sum(one.nbytes for one in checks), max(to_read, 1))
    except StorageError as error:
        damage.append(damage_of(error, f"{directory}/manifest", row="F3"))
    damage += _member_damage(disk, fspath(path))
    snapshots = _snapshots(disk, f"{fspath(path)}/snapshots")
    damage += [one.damage for one in snapshots if one.damage is not None]
    return VerifyReport(
        path=fspath(path),
        segments=len(checks),
        first_index=checks[0].row.first_index if checks else 0,
        last_index=checks[-1].last_index if checks else 0,
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
        path = f"{directory}/{row.name}"
        total += env.open(path).size() if env.exists(path) else 0
    return total


def _check(env: Env, directory: str, row: Row, walk: Walk) -> tuple[SegmentCheck, int]:
    """(what one segment holds, the term of its last record; 0 without any)."""
    slots: list[Slot] = []
    entries = holes = valid_from = nbytes = term = 0
    for record in walk:
        term = record.term
        if row.sealed:
            size = len(record.frame) - FRAME.size
            slots.append((record.index, record.offset, size, record.is_hole))
        if record.is_hole:
            holes += record.end - record.index
            valid_from = max(valid_from, record.valid_from)
            continue
        entries += 1
        nbytes += len(record.frame)
    damage = [walk.damage] if walk.damage is not None else []
    if row.sealed and valid_from > row.valid_from:
        told = f"{row.name} has a hole valid from {valid_from}, its row says {row.valid_from}"
        damage.append(Damage(f"{directory}/manifest", -1, row.first_index, told, "F3"))
    if row.sealed and not damage:
        of_index = index_damage(env, directory, row, slots)
        damage += [of_index] if of_index is not None else []
    last_index = row.last_index if row.sealed else walk.position[1] - 1
    check = SegmentCheck(
        row, last_index, entries, holes, valid_from, walk.nbytes, nbytes, tuple(damage)
    )
    return check, term


def _member_damage(env: Env, path: str) -> list[Damage]:
    """What is unreadable beside the log in a member's directory."""
    from copycat.log.identity import IDENTITY_FILES, Identity  # noqa: PLC0415 - msgspec

    found: list[Damage] = []
    for names, both in ((HARD_STATE_FILES, "F6"), (IDENTITY_FILES, "F7")):
        bad: list[Damage] = []
        good = 0
        for name in names:
            file = f"{path}/{name}"
            try:
                if names is HARD_STATE_FILES:
                    read_copy(env, file)
                else:
                    Identity.decode(env.read_file(file), file)
            except FileNotFoundError:
                continue
            except StorageError as error:
                bad.append(damage_of(error, file, row="F5"))
            else:
                good += 1
        found += bad if good else [one._replace(row=both) for one in bad]
        if names is HARD_STATE_FILES and not good and not bad and _has_identity(env, path):
            found.append(Damage(f"{path}/{names[0]}", -1, 0, "both copies are missing", both))
    return found


def _has_identity(env: Env, path: str) -> bool:
    from copycat.log.identity import IDENTITY_FILES  # noqa: PLC0415 - msgspec

    return any(env.exists(f"{path}/{name}") for name in IDENTITY_FILES)


def _snapshots(env: Env, directory: str) -> tuple[SnapshotCheck, ...]:
    """Every snapshot that is published, oldest first."""
    if not env.exists(directory):
        return ()
    names = (_SNAPSHOT.fullmatch(name) for name in env.list(directory))
    found = [
        _snapshot(env, f"{directory}/{match[0]}", int(match[1]), int(match[2]))
        for match in names
        if match
    ]
    return tuple(sorted(filter(None, found), key=lambda one: (one.last_index, one.term)))


def _snapshot(env: Env, path: str, index: int, term: int) -> SnapshotCheck | None:
    """None when it was discarded meanwhile."""
    from copycat.log import snapshot_file  # noqa: PLC0415 - lz4

    try:
        found = snapshot_file.verify(env, path)
    except FileNotFoundError:
        return None
    except StorageError as error:
        bad = damage_of(error, path, index, "F17")
        return SnapshotCheck(path, index, term, 0, 0, 0, bad)
    damage = None
    if found.entry != (term, index):
        damage = Damage(path, 0, index, f"it holds the snapshot of {found.entry}", "F17")
    return SnapshotCheck(path, index, term, found.time_ms, found.raw_nbytes, found.nbytes, damage)
