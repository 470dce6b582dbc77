"""`copycat compact`: compacts a bare log that no process has open."""

from __future__ import annotations

from pathlib import Path

import msgspec

from copycat import Log
from copycat.cli.formatting import size_of
from copycat.cli.log.show import check_log
from copycat.config import CompressionName, Storage
from copycat.errors import WrongDirectoryError
from copycat.member.refusals import refuse_member_directory
from copycat.sizes import parse_size
from copycat.storage import Env
from copycat.storage.disk_format import DATA_OFFSET, SegmentInfo, read_segment_header, segment_size
from copycat.storage.reader import segments
from copycat.types import Compaction

__all__ = ["run_compact"]

_SIZES = (8192, 1 << 31)
"""The limits of `Storage.max_segment_size`; a segment of one huge entry is larger."""


def run_compact(
    directory: str,
    *,
    major: bool,
    as_json: bool,
    size: str | None = None,
    compression: CompressionName | None = None,
) -> int:
    """Run one compaction, print its report, and return 0.

    size, compression: of new segments; None takes them from the log's files. WrongDirectoryError
    for a member's directory, DirectoryInUseError for a log that a process has open.
    """
    check_log(directory)
    _refuse_member(directory)  # before its files are looked for
    size_limit = None if size is None else parse_size(size)
    settings = _settings(directory, size_limit, compression)
    with Log.open(directory, storage=settings) as log:
        kind = Compaction.MAJOR if major else Compaction.MINOR
        report = log.compactor.compact(kind)
    if as_json:
        document = {
            "schema": 1,
            "segments_before": report.segments_before,
            "segments_after": report.segments_after,
            "bytes_reclaimed": report.bytes_reclaimed,
            "seconds": report.seconds,
            "max_segment_size": settings.max_segment_size,
            "compression": settings.compression,
        }
        print(msgspec.json.encode(document).decode())
    else:
        print(
            f"{report.segments_before:,} segments became {report.segments_after:,},"
            f" {size_of(report.bytes_reclaimed)} reclaimed in {report.seconds:.2f} s"
            f" (segments of {size_of(settings.max_segment_size)},"
            f" compression {settings.compression})"
        )
    return 0


def _refuse_member(directory: str) -> None:
    try:
        refuse_member_directory(Env(), directory)
    except WrongDirectoryError as cause:
        raise WrongDirectoryError(
            f"{directory} belongs to a member of a cluster, which compacts its own log",
            hint="compact by hand in the running server: await server.compact(Compaction.MAJOR)",
            path=directory,
        ) from cause


def _settings(directory: str, size: int | None, compression: CompressionName | None) -> Storage:
    """The settings of this run: what the user gave, and otherwise what the log's files show.

    A log does not store its settings. The header of the newest segment has the size limit of that
    segment; and segments are packed only when the log has a packed segment already.
    """
    rows = segments(directory)
    if size is None:
        size = min(max(_size_of(directory, rows[-1]), _SIZES[0]), _SIZES[1])
    if compression is None:
        compression = "lz4" if any(row.packed for row in rows) else "none"
    return Storage(max_segment_size=size, compression=compression)


def _size_of(directory: str, row: SegmentInfo) -> int:
    path = Path(directory, row.name)
    with path.open("rb") as file:
        header = file.read(DATA_OFFSET)
    read_segment_header(header, row, str(path))
    return segment_size(header)
