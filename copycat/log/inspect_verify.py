"""Reading every byte of a log or member directory that counts, and naming what is damaged."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from os import PathLike
from typing import NamedTuple

from copycat.errors import StorageError
from copycat.log._native import Env
from copycat.log.inspect_index import Slot, index_damage
from copycat.log.inspect_member import (
    SnapshotCheck,
    log_damage,
    member_damage,
    reach_damage,
    snapshots_of,
)
from copycat.log.inspect_rows import follow_rows, log_directory, rows_of, settle
from copycat.log.inspect_walk import Damage, Walk, damage_of
from copycat.log.records import FRAME, Row
from copycat.paths import path_text

__all__ = ["SegmentCheck", "SnapshotCheck", "VerifyReport", "verify"]

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
        """The entry up to which the log went, by what a hole says, if it ends before; else 0.

        What is cleaned is durable up to the hole's valid_from (C22), so entries that were durable
        are gone. No damage: a bare log's truncate() leaves a log so, and a member may have a
        hole from its leader before the entries that follow. 0 where damage says it already.
        """
        is_told = bool(self.checks and self.checks[-1].damage)
        return self.valid_from if self.valid_from > self.last_index and not is_told else 0


def verify(
    path: str | PathLike[str], *, env: Env | None = None, told: Told | None = None
) -> VerifyReport:
    """Read every byte that counts and name each damage by file, offset and index.

    Segments, marks, index files and the manifest; in a member's directory both copies of hard
    state and identity, and the snapshots: what would keep it from starting is damage.
    FileNotFoundError when there is no log. DiskError when a file cannot be read for a reason
    that says nothing of its bytes: it may not be read, or no descriptor is left.
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
            if not settle(disk, directory, row, walk):
                continue  # what replaced it comes next
            checks.append(check)
            damage += check.damage
            last_term, torn = term or last_term, walk.torn_bytes
            if told is not None:
                told(sum(one.nbytes for one in checks), max(to_read, 1))
    except StorageError as error:
        damage.append(damage_of(error, f"{directory}/manifest", row="F3"))
    first_index = checks[0].row.first_index if checks else 0
    last_index = checks[-1].last_index if checks else 0
    damage += member_damage(disk, named, last_index)
    snapshots = snapshots_of(disk, named)
    damage += [one.damage for one in snapshots if one.damage is not None]
    out_of_reach = reach_damage(disk, named, first_index, snapshots)
    damage += [out_of_reach] if out_of_reach is not None else []
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
