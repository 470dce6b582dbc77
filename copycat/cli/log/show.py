"""`copycat log show` and `copycat log tail`."""

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
    """What the command line says. None: not told."""

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
    """What the command line says. count: end after so many; None goes on."""

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
    """There is no log in `directory`, and nothing says that there should be one."""
    return ConfigurationError(
        f"{directory} is no log: it has no manifest",
        hint="name a Log's directory, or a member's, which has its log in log/",
    )


def filter_of(
    first: int | None, last: int | None, kind: str | None, session: int | None
) -> Filter:
    """A filter from options. ConfigurationError for a kind that does not exist."""
    kinds = list(KINDS)
    if kind is not None and kind not in kinds:
        raise ConfigurationError(
            f"--kind {kind}: there is no such kind", hint=f"the kinds are {', '.join(kinds)}"
        )
    if first is not None and last is not None and last < first:
        raise ConfigurationError(f"--to {last} is below --from {first}")
    return Filter(first or 1, last, kind, session)


def filtered_records(directory: str, entry_filter: Filter) -> Iterator[StoredEntry]:
    """The records that a filter takes, in order. Nothing behind its last index is read: what is
    before a damage can be saved so."""
    for record in records(directory, entry_filter.first):
        if entry_filter.takes(record):
            yield record
        if entry_filter.is_last(record):
            return


def run_show(options: ShowOptions) -> int:
    """Print the chosen entries."""
    if options.last_count is not None and (options.first or options.last):
        raise ConfigurationError("--last goes without --from and --to")
    if options.as_json and options.as_jsonl:
        raise ConfigurationError("--json is one document, --jsonl one a line: give one of them")
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
    """Print the last entries; with `follow` all that come, until Ctrl-C (130) or `count`."""
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
            say(f"the log was cut after entry {news.rewound_to:,}; what is above it follows anew")
        for record in news.records:
            if entry_filter.takes(record):
                yield record
        if not news.records:
            time.sleep(_POLL_S)
