"""`copycat log stat`: prints what the directory of a log or of a member contains."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from copycat.cli.formatting import share_of, size_of, table
from copycat.cli.log.advice import Advice
from copycat.cli.log.members import configuration_fields, configuration_text
from copycat.cli.log.verify import report_of, segment_state
from copycat.errors import CorruptLogError, StorageError, VersionMismatchError
from copycat.member.configuration_file import (
    NOTHING_STORED,
    ConfigurationFile,
    StoredConfigurations,
)
from copycat.member.hard_state import HARD_STATE_FILES, HardStateCopy, best_copy
from copycat.member.identity import Identity, read_identity
from copycat.member.skips import skips_of
from copycat.member.time_note import TimeFile, TimeNote
from copycat.member.verify import SegmentCheck, VerifyReport
from copycat.storage import Env
from copycat.types import SkippedEntry

__all__ = ["run_stat"]


class _Sizes(NamedTuple):
    """Files of one kind: their sizes, and the bytes that the file system allocated for them."""

    nbytes: int
    allocated: int
    files: int


def run_stat(directory: str, *, as_json: bool, quiet: bool) -> int:
    """Print the totals, and return 0; 4 when something is damaged."""
    report = report_of("stat", directory, quiet=quiet or as_json)
    member = _Member(directory)
    if as_json:
        print(msgspec.json.encode(_document(directory, report, member)).decode())
    else:
        print("\n".join(_lines(directory, report, member)))
    if report.ok:
        return 0
    if not quiet:
        print(f"{len(report.damage)} damaged: copycat log verify {directory}", file=sys.stderr)
    return 4


class _Member:
    """The files of a member beside its log; all fields are None for a bare log."""

    def __init__(self, directory: str) -> None:
        env = Env()
        self.identity: Identity | None = None
        self.hard_state: HardStateCopy | None = None
        self.problems: list[str] = []
        try:
            self.identity, _ = read_identity(env, directory)
        except StorageError as error:
            self.problems.append(error.message)
        try:
            self.hard_state = best_copy(env, directory)
        except CorruptLogError as error:
            self.problems.append(error.message)
        self.skips: tuple[SkippedEntry, ...] = ()
        try:
            self.skips = skips_of(env, directory)
        except StorageError as error:
            self.problems.append(error.message)
        self.time_note: TimeNote | None = None
        try:
            self.time_note = TimeFile(env, directory).read()
        except StorageError as error:
            self.problems.append(error.message)
        self.configurations = NOTHING_STORED
        try:
            self.configurations = ConfigurationFile(env, directory).read()
        except (StorageError, VersionMismatchError) as error:
            self.problems.append(error.message)
        self.copies = sum(Path(directory, name).exists() for name in HARD_STATE_FILES)


def _sizes(paths: Iterator[Path]) -> _Sizes:
    nbytes = allocated = files = 0
    for path in paths:
        try:
            status = path.stat()
        except FileNotFoundError:
            continue  # a compaction or a trim has deleted it meanwhile
        nbytes += status.st_size
        allocated += status.st_blocks * 512
        files += 1
    return _Sizes(nbytes, allocated, files)


def _log_path(directory: str) -> Path:
    inside = Path(directory, "log")
    return inside if inside.is_dir() else Path(directory)


def _named(directory: str, report: VerifyReport) -> tuple[_Sizes, _Sizes]:
    """The files of the segments, and all other files in the directory of the log."""
    log = _log_path(directory)
    names = {check.row.name for check in report.checks}
    names |= {name.replace(".log", ".idx") for name in names} | {"manifest"}
    files = [path for path in log.iterdir() if path.is_file()]
    ours = _sizes(path for path in files if path.name in names)
    return ours, _sizes(path for path in files if path.name not in names)


def _lines(directory: str, report: VerifyReport, member: _Member) -> Iterator[str]:
    if member.identity is not None:
        of = member.identity
        yield f"member      {of.member:032x} at {of.address}"
        founders = f"founded by {', '.join(of.members)}" if of.members else "joined later"
        yield f"cluster     {of.cluster_name}, {founders}"
    for record in member.configurations.records[-1:]:
        where = f"of entry {record.entry.index:,}, term {record.entry.term}"
        yield f"members     {configuration_text(record)}; {where}"
    if member.configurations.is_wiped:
        yield "            this member is a reserve, or none: its next start deletes the log"
    if member.hard_state is not None:
        vote = member.hard_state.voted_for
        vote_text = f"voted for {vote:032x}" if vote else "no vote"
        yield f"hard state  term {member.hard_state.current_term}, {vote_text}"
    if member.time_note is not None:
        yield f"log time    {_difference(member.time_note)}, noted in term {member.time_note.term}"
    for problem in member.problems:
        yield f"unreadable  {problem}"
    entries, gaps = _counts(report)
    yield (
        f"log         entries {report.first_index:,} to {report.last_index:,}, last term"
        f" {report.last_term}"
    )
    if gaps:
        yield (
            f"compacted   {gaps:,} deleted, {share_of(entries, entries + gaps)} left; a replay"
            f" is exact from {report.valid_from:,} on"
        )
    for skip in member.skips:
        yield f"skipped     entry {skip.index:,}, term {skip.term}, by the operator"
    for label, line in zip(("missing", ""), Advice(report).of_missing(), strict=False):
        yield f"{label:<12}{line}"
    ours, other = _named(directory, report)
    yield (
        f"disk        {size_of(report.nbytes)} of frames in files of {size_of(ours.nbytes)},"
        f" {size_of(ours.allocated)} allocated"
    )
    if other.files:
        others = "1 other file" if other.files == 1 else f"{other.files:,} other files"
        yield f"            {others} (lock, spares, leftovers) of {size_of(other.nbytes)}"
    for one in report.snapshots:
        yield (
            f"snapshot    of entry {one.last_index:,}, term {one.term}: {size_of(one.nbytes)},"
            f" {size_of(one.raw_nbytes)} unpacked"
        )
    yield ""
    yield from _segments(directory, report)


def _counts(report: VerifyReport) -> tuple[int, int]:
    return sum(c.entries for c in report.checks), sum(c.gaps for c in report.checks)


def _segments(directory: str, report: VerifyReport) -> list[str]:
    rows = [
        (
            check.row.name,
            f"{check.row.first_index:,} to {check.last_index:,}",
            f"{check.entries:,}",
            share_of(check.entries, check.entries + check.gaps),
            size_of(check.nbytes),
            size_of(_sizes(iter([_log_path(directory) / check.row.name])).allocated),
            segment_state(check),
        )
        for check in report.checks
    ]
    head = ("<SEGMENT", "<INDEXES", "ENTRIES", "KEPT", "SIZE", "ON DISK", "<STATE")
    return table(head, rows)


def _difference(note: TimeNote) -> str:
    behind_ms = note.wall_ms - note.log_time_ms
    where = "behind" if behind_ms >= 0 else "ahead of"
    return f"{abs(behind_ms) / 1000:,.3f} s {where} the wall clock"


def _document(directory: str, report: VerifyReport, member: _Member) -> dict[str, Any]:
    entries, gaps = _counts(report)
    ours, other = _named(directory, report)
    return {
        "schema": 1,
        "path": directory,
        "identity": _identity(member.identity),
        "configuration": _configuration(member.configurations),
        "hard_state": _hard_state(member),
        "log_time": None if member.time_note is None else member.time_note._asdict(),
        "first_index": report.first_index,
        "last_index": report.last_index,
        "last_term": report.last_term,
        "entries": entries,
        "gaps": gaps,
        "valid_from": report.valid_from,
        "missing_upto": report.missing_upto,
        "frames_nbytes": report.nbytes,
        "files": ours._asdict(),
        "other_files": other._asdict(),
        "segments": [_segment(directory, check) for check in report.checks],
        "snapshots": [
            {
                "last_index": one.last_index,
                "term": one.term,
                "time_ms": one.time_ms,
                "nbytes": one.nbytes,
                "raw_nbytes": one.raw_nbytes,
            }
            for one in report.snapshots
        ],
        "ok": report.ok,
    } | ({"skipped": [skip._asdict() for skip in member.skips]} if member.skips else {})


def _segment(directory: str, check: SegmentCheck) -> dict[str, Any]:
    return {
        "name": check.row.name,
        "id": check.row.id,
        "version": check.row.version,
        "first_index": check.row.first_index,
        "last_index": check.last_index,
        "entries": check.entries,
        "gaps": check.gaps,
        "valid_from": check.valid_from,
        "nbytes": check.nbytes,
        "allocated": _sizes(iter([_log_path(directory) / check.row.name])).allocated,
        "state": segment_state(check),
    }


def _identity(of: Identity | None) -> dict[str, Any] | None:
    if of is None:
        return None
    return {
        "cluster_name": of.cluster_name,
        "member": f"{of.member:032x}",
        "address": of.address,
        "members": list(of.members),
        "incarnation": f"{of.incarnation:032x}",
        "cluster_incarnation": f"{of.cluster_incarnation:032x}"
        if of.cluster_incarnation
        else None,
    }


def _configuration(stored: StoredConfigurations) -> dict[str, Any] | None:
    """The newest one that is stored beside the log; None when there is none."""
    if not stored.records:
        return None
    entry = stored.records[-1].entry
    name = {"term": entry.term, "index": entry.index}
    return name | configuration_fields(stored.records[-1])


def _hard_state(member: _Member) -> dict[str, Any] | None:
    if member.hard_state is None:
        return None
    return {
        "current_term": member.hard_state.current_term,
        "voted_for": f"{member.hard_state.voted_for:032x}"
        if member.hard_state.voted_for
        else None,
        "copies": member.copies,
    }
