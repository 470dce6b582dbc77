"""`copycat log verify`: a table of what was read, and each damage with what to do."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec

from copycat.cli.log_show import check_log
from copycat.cli.words import paint, size_of, table
from copycat.errors import CorruptLogError
from copycat.log.inspect import Damage, VerifyReport, verify
from copycat.log.inspect_verify import SegmentCheck, Told

__all__ = ["bar", "run_verify", "segment_state"]

_HINTS = {
    "F2": "start this member: it has no vote until others gave it what is missing",
    "F3": "start this member: it has no vote until others gave it what is missing",
    "F5": "nothing is lost: the other copy is good, and the next start writes this one again",
    "F6": "do not start it: without its vote it could vote twice. Join it under a new directory",
    "F7": "do not start it: it is not known whose directory this is. Join a new one",
    "F14": "nothing is lost: the next start makes it again from the segment",
    "F17": "the next start takes the snapshot before it and the log, or another member's",
}
_BARE_HINT = (
    "no other copy is known here: restore this directory from a backup.\n"
    "entries below it can be saved: copycat log export {path} --to {last} -o FILE"
)


@contextmanager
def bar(words: str, *, quiet: bool) -> Iterator[Told | None]:
    """A bar over bytes on a terminal, when rich is there; nothing elsewhere."""
    if quiet or not sys.stderr.isatty() or find_spec("rich") is None:
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn(words), BarColumn(), DownloadColumn(True), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(words, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def run_verify(directory: str, *, as_json: bool, quiet: bool) -> int:
    """Print the report; 0 when nothing that was durable is unreadable, else 4."""
    is_member = _is_member(directory)
    try:
        with bar("verify", quiet=quiet or as_json) as told:
            report = verify(directory, told=told)
    except FileNotFoundError:
        report = _without_manifest(directory)
    if as_json:
        print(msgspec.json.encode(_document(report, is_member=is_member)).decode())
    else:
        print("\n".join(_lines(report)))
    if not quiet:
        for one in report.damage:
            error = error_of(one, report.path, is_member=is_member)
            print(error.render(), file=sys.stderr)
    return 0 if report.ok else 4


def _is_member(directory: str) -> bool:
    places = (Path(directory), Path(directory).absolute().parent)
    return any((place / f"identity-{copy}").exists() for place in places for copy in "ab")


def _without_manifest(directory: str) -> VerifyReport:
    """No log at all is the user's mistake; segments without a manifest are damage."""
    log = Path(directory, "log") if Path(directory, "log").is_dir() else Path(directory)
    if not any(log.glob("*-*.log")):
        check_log(directory)
    lost = Damage(str(log / "manifest"), -1, 0, "there are segments, but no manifest", "F3")
    return VerifyReport(directory, 0, 0, 0, 0, 0, 0, 0, (), (), (lost,))


def error_of(damage: Damage, path: str, *, is_member: bool) -> CorruptLogError:
    """A damage as the error that a start would raise, with what to do."""
    place = f"{damage.path}, byte {damage.offset:,}" if damage.offset >= 0 else damage.path
    what = f"entry {damage.index:,} of {path} ({place})" if damage.index else place
    hint = _HINTS[damage.row]
    if not is_member and damage.row in {"F2", "F3"}:
        hint = _BARE_HINT.format(path=path, last=max(damage.index - 1, 1))
    return CorruptLogError(
        f"{what}: {damage.what} ({damage.row})",
        hint=hint,
        path=damage.path,
        offset=damage.offset,
        index=damage.index,
    )


def segment_state(check: SegmentCheck) -> str:
    """`tail`, `sealed`, `compacted`, or `packed`: compacted, and in LZ4 blocks."""
    if not check.row.sealed:
        return "tail"
    if check.row.packed:
        return "packed"
    return "compacted" if check.row.version > 1 else "sealed"


def _lines(report: VerifyReport) -> Iterator[str]:
    rows = []
    for check in report.checks:
        bad = f"damaged at entry {check.damage[0].index:,}" if check.damage else "ok"
        rows.append(
            (
                check.row.name,
                f"{check.row.first_index:,} to {check.last_index:,}",
                f"{check.entries:,}",
                f"{check.holes:,}",
                size_of(check.nbytes),
                f"{bad}, {segment_state(check)}",
            )
        )
    yield from table(("<SEGMENT", "<INDEXES", "ENTRIES", "LET GO", "SIZE", "<CHECK"), rows)
    for one in report.snapshots:
        state = "damaged" if one.damage is not None else f"ok, {size_of(one.nbytes)}"
        yield f"snapshot of entry {one.last_index:,}, term {one.term}: {state}"
    yield (
        f"entries {report.first_index:,} to {report.last_index:,}, last term"
        f" {report.last_term}, {size_of(report.nbytes)} of frames in {report.segments}"
        f" segment{'s' if report.segments != 1 else ''}"
    )
    if report.valid_from:
        yield f"cleaned: a replay is exact from entry {report.valid_from:,} on"
    if report.torn_bytes:
        yield (
            f"{report.torn_bytes:,} bytes behind the last entry are torn: they were never"
            " acknowledged, and the next start drops them"
        )
    if report.ok:
        yield paint("every checksum fits", "green")
    else:
        yield paint(f"{len(report.damage)} damaged", "red")


def _document(report: VerifyReport, *, is_member: bool) -> dict[str, Any]:
    return {
        "schema": 1,
        "path": report.path,
        "ok": report.ok,
        "first_index": report.first_index,
        "last_index": report.last_index,
        "last_term": report.last_term,
        "valid_from": report.valid_from,
        "nbytes": report.nbytes,
        "torn_bytes": report.torn_bytes,
        "segments": [_segment(check) for check in report.checks],
        "snapshots": [
            {
                "path": one.path,
                "last_index": one.last_index,
                "term": one.term,
                "nbytes": one.nbytes,
                "ok": one.damage is None,
            }
            for one in report.snapshots
        ],
        "damage": [
            {**one._asdict(), "hint": error_of(one, report.path, is_member=is_member).hint}
            for one in report.damage
        ],
    }


def _segment(check: SegmentCheck) -> dict[str, Any]:
    return {
        "name": check.row.name,
        "first_index": check.row.first_index,
        "last_index": check.last_index,
        "entries": check.entries,
        "holes": check.holes,
        "nbytes": check.nbytes,
        "state": segment_state(check),
        "ok": not check.damage,
    }
