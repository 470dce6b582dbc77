"""`copycat log verify`: prints what was checked, and each damage with what to do about it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import msgspec

from copycat.cli.formatting import paint, size_of, table
from copycat.cli.log.advice import Advice
from copycat.cli.log.show import no_log
from copycat.member.verify import OnProgress, SegmentCheck, VerifyReport, verify

__all__ = ["bar", "report_of", "run_verify", "segment_state"]


@contextmanager
def bar(words: str, *, quiet: bool) -> Iterator[OnProgress | None]:
    """A progress bar over bytes, if stderr is a terminal and `rich` is installed; else nothing."""
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
    """Print the report, and return 0; 4 when something that was durable cannot be read."""
    report = report_of("verify", directory, quiet=quiet or as_json)
    advice = Advice(report)
    if as_json:
        print(msgspec.json.encode(_document(report, advice)).decode())
    else:
        print("\n".join(_lines(report, advice)))
    if not quiet:
        for one in report.damage:
            print(advice.error_of(one).render(), file=sys.stderr)
    return 0 if report.ok else 4


def report_of(words: str, directory: str, *, quiet: bool) -> VerifyReport:
    """Verify a directory with a progress bar. ConfigurationError when it contains no log."""
    try:
        with bar(words, quiet=quiet) as on_progress:
            return verify(directory, on_progress=on_progress)
    except FileNotFoundError as cause:
        raise no_log(directory) from cause


def segment_state(check: SegmentCheck) -> str:
    """`tail`, `sealed`, `compacted`, or `packed` (compacted, and stored in LZ4 blocks)."""
    if not check.row.sealed:
        return "tail"
    if check.row.packed:
        return "packed"
    return "compacted" if check.row.version > 1 else "sealed"


def _lines(report: VerifyReport, advice: Advice) -> Iterator[str]:
    rows = []
    for check in report.checks:
        bad = f"damaged at entry {check.damage[0].index:,}" if check.damage else "ok"
        rows.append(
            (
                check.row.name,
                f"{check.row.first_index:,} to {check.last_index:,}",
                f"{check.entries:,}",
                f"{check.gaps:,}",
                size_of(check.nbytes),
                f"{bad}, {segment_state(check)}",
            )
        )
    yield from table(("<SEGMENT", "<INDEXES", "ENTRIES", "GAPS", "SIZE", "<CHECK"), rows)
    for one in report.snapshots:
        state = "damaged" if one.damage is not None else f"ok, {size_of(one.nbytes)}"
        yield f"snapshot of entry {one.last_index:,}, term {one.term}: {state}"
    yield (
        f"entries {report.first_index:,} to {report.last_index:,}, last term"
        f" {report.last_term}, {size_of(report.nbytes)} of frames in {report.segments}"
        f" segment{'s' if report.segments != 1 else ''}"
    )
    if report.valid_from:
        yield f"compacted: a replay is exact from entry {report.valid_from:,} on"
    missing = advice.of_missing()
    if report.torn_bytes:
        never = "" if missing else "they were never acknowledged, and "
        yield (
            f"{report.torn_bytes:,} bytes behind the last entry are torn: {never}the next start"
            " drops them"
        )
    for label, line in zip(("missing: ", "         "), missing, strict=False):
        yield label + line
    if report.ok and missing:
        yield paint("every checksum fits, but entries are missing", "yellow")
    elif report.ok:
        yield paint("every checksum fits", "green")
    else:
        yield paint(f"{len(report.damage)} damaged", "red")


def _document(report: VerifyReport, advice: Advice) -> dict[str, Any]:
    return {
        "schema": 1,
        "path": report.path,
        "ok": report.ok,
        "first_index": report.first_index,
        "last_index": report.last_index,
        "last_term": report.last_term,
        "valid_from": report.valid_from,
        "missing_upto": report.missing_upto,
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
        "damage": [{**one._asdict(), "hint": advice.hint_of(one)} for one in report.damage],
    }


def _segment(check: SegmentCheck) -> dict[str, Any]:
    return {
        "name": check.row.name,
        "first_index": check.row.first_index,
        "last_index": check.last_index,
        "entries": check.entries,
        "gaps": check.gaps,
        "nbytes": check.nbytes,
        "state": segment_state(check),
        "ok": not check.damage,
    }
