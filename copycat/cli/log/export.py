"""`copycat log export`: writes entries for other programs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

import msgspec

from copycat.cli.formatting import size_of
from copycat.cli.log.records import RecordReader
from copycat.cli.log.show import check_log, filter_of, filtered_records
from copycat.cli.progress import say
from copycat.errors import ConfigurationError

__all__ = ["ExportOptions", "run_export"]


class ExportOptions(NamedTuple):
    """The options of the command line. output: a new file; None for stdout."""

    directory: str
    form: str
    output: str | None = None
    first: int | None = None
    last: int | None = None
    kind: str | None = None
    session: int | None = None
    app: str | None = None
    quiet: bool = False


def run_export(options: ExportOptions) -> int:
    """Write the entries that the options select. ConfigurationError when the file exists
    already."""
    check_log(options.directory)
    entry_filter = filter_of(options.first, options.last, options.kind, options.session)
    reader = RecordReader(options.app)
    encode = msgspec.json.Encoder().encode
    count = nbytes = 0
    with _target(options.output) as out:
        for record in filtered_records(options.directory, entry_filter):
            if options.form == "raw":
                data = record.frame + bytes(-len(record.frame) % 8)
            else:
                data = encode({"schema": 1, **reader.fields(record)}) + b"\n"
            out.write(data)
            count += 1
            nbytes += len(data)
    if not options.quiet:
        say(f"{count:,} records, {size_of(nbytes)}")
    return 0


@contextmanager
def _target(output: str | None) -> Iterator[BinaryIO]:
    """stdout, or a new file, which is deleted when the export fails."""
    if output is None:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    path = Path(output)
    try:
        stream = path.open("xb")
    except FileExistsError as cause:
        raise ConfigurationError(
            f"{output} exists already; nothing was written",
            hint="name a new file, or delete this one first",
        ) from cause
    try:
        with stream:
            yield stream
    except BaseException:
        path.unlink(missing_ok=True)
        raise
