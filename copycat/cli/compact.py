"""`copycat compact`: cleans a bare log that no process has open."""

from __future__ import annotations

import msgspec

from copycat import Log
from copycat.cli.log_show import check_log
from copycat.cli.words import size_of
from copycat.types import Compaction

__all__ = ["run_compact"]


def run_compact(directory: str, *, major: bool, as_json: bool) -> int:
    """Run one compaction and print its report.

    WrongDirectoryError for a member's directory, DirectoryInUseError while it is open.
    """
    check_log(directory)
    with Log.open(directory) as log:
        kind = Compaction.MAJOR if major else Compaction.MINOR
        report = log.compactor.compact(kind)
    if as_json:
        document = {
            "schema": 1,
            "segments_before": report.segments_before,
            "segments_after": report.segments_after,
            "bytes_reclaimed": report.bytes_reclaimed,
            "seconds": report.seconds,
        }
        print(msgspec.json.encode(document).decode())
    else:
        print(
            f"{report.segments_before:,} segments became {report.segments_after:,},"
            f" {size_of(report.bytes_reclaimed)} reclaimed in {report.seconds:.2f} s"
        )
    return 0
