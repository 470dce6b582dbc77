"""`copycat log show` and `copycat log tail`: print entries."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from typing import Any, NamedTuple

import msgspec

from copycat.cli.log.records import KINDS, Filter, RecordReader, lines_of
from copycat.cli.progress import say
from copycat.errors import ConfigurationError
from copycat.member.skips import skips_of
from copycat.storage import Env
from copycat.storage.follow import Follower
from copycat.storage.reader import StoredEntry, last_records, records, segments

__all__ = [
    "ShowOptions",
    "TailOptions",
    "check_log",
    "filter_of",
    "filtered_records",
    "no_log",
    "run_show",
    "run_tail",
]

_LINES = 20
_POLL_S = 0.1


class ShowOptions(NamedTuple):
    """The options of the command line; None for one that was not given."""

    directory: str
    first: int | None = None
    last: int | None = None
    last_count: int | None = None
    count: int | None = None  # type: ignore[assignment]  # shadows tuple.count on purpose
    kind: str | None = None
    session: int | None = None
    app: str | None = None
    as_json: bool = False
    as_jsonl: bool = False
    quiet: bool = False


class TailOptions(NamedTuple):
    """The options of the command line. count: end after so many entries; None for no end."""

    directory: str
    last_count: int
    follow: bool
    count: int | None = None  # type: ignore[assignment]  # shadows tuple.count on purpose
    kind: str | None = None
    session: int | None = None
    app: str | None = None
    as_jsonl: bool = False
    quiet: bool = False


def check_log(directory: str) -> None:
    """ConfigurationError unless `directory` is a log's or a member's with a log."""
    try:
        segments(directory)
    except FileNotFoundError as cause:
        raise no_log(directory) from cause


def no_log(directory: str) -> ConfigurationError:
    """The error for a directory without a log."""
    return ConfigurationError(
        f"{directory} contains no log: it has no manifest",
        hint="name the directory of a Log, or of a member, whose log is in log/",
    )


def filter_of(
    first: int | None, last: int | None, kind: str | None, session: int | None
) -> Filter:
    """The filter that the options describe. ConfigurationError for an unknown kind."""
    kinds = list(KINDS)
    if kind is not None and kind not in kinds:
        raise ConfigurationError(
            f"--kind {kind}: there is no such kind", hint=f"the kinds are {', '.join(kinds)}"
        )
    if first is not None and last is not None and last < first:
        raise ConfigurationError(f"--to {last} is below --from {first}")
    return Filter(first or 1, last, kind, session)


def filtered_records(directory: str, entry_filter: Filter) -> Iterator[StoredEntry]:
    """The records that a filter selects, in order.

    Nothing behind its last index is read, so that entries before a damage can be exported.
    """
    for record in records(directory, entry_filter.first):
        if entry_filter.takes(record):
            yield record
        if entry_filter.is_last(record):
            return


def run_show(options: ShowOptions) -> int:
    """Print the entries that the options select."""
    if options.last_count is not None and (options.first or options.last):
        raise ConfigurationError("--last cannot be combined with --from or --to")
    if options.as_json and options.as_jsonl:
        raise ConfigurationError(
            "--json prints one document, --jsonl one per line: give only one of them"
        )
    check_log(options.directory)
    entry_filter = filter_of(options.first, options.last, options.kind, options.session)
    reader = RecordReader(options.app, skips_of(Env(), options.directory))
    entries: Iterator[StoredEntry]
    if options.last_count is not None:
        entries = iter(last_records(options.directory, options.last_count, entry_filter.takes))
    else:
        entries = filtered_records(options.directory, entry_filter)
    count = options.count
    is_open = options.last is None and options.last_count is None
    if count is None and is_open and not (options.as_json or options.as_jsonl):
        count = _LINES
    shown = islice(entries, count) if count is not None else entries
    if options.as_json:
        print(_encoded({"schema": 1, "entries": [reader.fields(record) for record in shown]}))
    elif options.as_jsonl:
        _print_jsonl(reader, shown)
    else:
        for line in lines_of(reader, shown):
            print(line)
    if count is not None and is_open and not options.quiet:
        _tell_more(next(entries, None))
    return 0


def _tell_more(following: StoredEntry | None) -> None:
    if following is not None:
        say(f"more follows: --from {following.index}")


def _print_jsonl(reader: RecordReader, entries: Iterator[StoredEntry]) -> None:
    for record in entries:
        print(_encoded({"schema": 1, **reader.fields(record)}))


def _encoded(document: dict[str, Any]) -> str:
    return msgspec.json.encode(document).decode()


def run_tail(options: TailOptions) -> int:
    """Print the last entries; with `follow`, new ones too, until Ctrl-C or until `count`
    entries."""
    check_log(options.directory)
    entry_filter = filter_of(None, None, options.kind, options.session)
    reader = RecordReader(options.app, skips_of(Env(), options.directory))
    entries = _followed(options, entry_filter) if options.follow else _last(options, entry_filter)
    shown = islice(entries, options.count) if options.count is not None else entries
    with suppress(BrokenPipeError):
        if options.as_jsonl:
            for record in shown:
                print(_encoded({"schema": 1, **reader.fields(record)}), flush=True)
        else:
            for line in lines_of(reader, shown):
                print(line, flush=True)
    return 0


def _last(options: TailOptions, entry_filter: Filter) -> Iterator[StoredEntry]:
    if options.last_count:
        yield from last_records(options.directory, options.last_count, entry_filter.takes)


def _followed(options: TailOptions, entry_filter: Filter) -> Iterator[StoredEntry]:
    newest = last_records(options.directory, 1)
    follower = Follower(options.directory, newest[-1].end if newest else 1)
    for record in _last(options, entry_filter):
        if not newest or record.end <= newest[-1].end:
            yield record
    while True:
        news = follower.poll()
        if news.rewound_to and not options.quiet:
            say(f"the log was truncated after entry {news.rewound_to:,}; its new entries follow")
        for record in news.records:
            if entry_filter.takes(record):
                yield record
        if not news.records:
            time.sleep(_POLL_S)
