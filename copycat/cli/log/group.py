"""`copycat log ...`: the commands and their options; each imports its module when it runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

__all__ = ["log"]

_DIRECTORY = click.argument("directory", type=click.Path(exists=True, file_okay=False))
_QUIET = click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors on stderr.")
_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
_JSONL = click.option(
    "--jsonl", "as_jsonl", is_flag=True, help="Print one JSON document per line."
)
_APP = click.option(
    "--app",
    metavar="MODULE:CLASS",
    help="Show operations with the field names of this state machine.",
)
_KIND = click.option(
    "--kind", metavar="KIND", help="Only entries of this kind: command, noop, data, gap, …"
)
_SESSION = click.option(
    "--session", metavar="N", type=click.IntRange(1), help="Only entries of this session."
)
_FROM = click.option(
    "--from", "first", metavar="N", type=click.IntRange(1), help="The first index."
)
_TO = click.option("--to", "last", metavar="N", type=click.IntRange(1), help="The last index.")


def _all_of(*options: Callable[..., Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def add(function: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            function = option(function)
        return function

    return add


@click.group()
def log() -> None:
    """Read a log. These commands lock, create and change nothing.

    DIRECTORY belongs to a log or to a member. A server may have it open meanwhile.
    """


@log.command()
@_all_of(_DIRECTORY, _FROM, _TO)
@click.option(
    "--last",
    "last_count",
    metavar="N",
    type=click.IntRange(1),
    help="Only the last N entries that match.",
)
@click.option(
    "--count", metavar="N", type=click.IntRange(1), help="At most N entries.  [default: 20 lines]"
)
@_all_of(_KIND, _SESSION, _APP, _JSON, _JSONL, _QUIET)
def show(**options: Any) -> None:
    """Print entries and gaps.

    Commands are shown with their values, and with the names of their fields if --app is given. A
    gap stands for entries that a compaction deleted.
    """
    from copycat.cli.log.show import ShowOptions, run_show

    raise click.exceptions.Exit(run_show(ShowOptions(**options)))


@log.command()
@_DIRECTORY
@click.option(
    "--last",
    "last_count",
    metavar="N",
    default=10,
    show_default=True,
    type=click.IntRange(0),
    help="Begin with the last N entries.",
)
@click.option(
    "-f", "--follow", is_flag=True, help="Print new entries as the log grows, until Ctrl-C."
)
@click.option("--count", metavar="N", type=click.IntRange(1), help="End after N entries.")
@_all_of(_KIND, _SESSION, _APP, _JSONL, _QUIET)
def tail(**options: Any) -> None:
    """Print the last entries of a log; with --follow, also new entries.

    An entry is shown as soon as it is appended, perhaps before it is durable or committed.
    """
    from copycat.cli.log.show import TailOptions, run_tail

    raise click.exceptions.Exit(run_tail(TailOptions(**options)))


@log.command()
@_all_of(_DIRECTORY, _JSON, _QUIET)
def stat(directory: str, *, as_json: bool, quiet: bool) -> None:
    """Print totals of a log or of a member's directory.

    For a log: segments, gaps and sizes. For a member, also vote, identity and snapshots.
    """
    from copycat.cli.log.stat import run_stat

    raise click.exceptions.Exit(run_stat(directory, as_json=as_json, quiet=quiet))


@log.command()
@_all_of(_DIRECTORY, _JSON, _QUIET)
def verify(directory: str, *, as_json: bool, quiet: bool) -> None:
    """Read and check every durable byte; exit code 4 means damage."""
    from copycat.cli.log.verify import run_verify

    raise click.exceptions.Exit(run_verify(directory, as_json=as_json, quiet=quiet))


@log.command()
@_DIRECTORY
@click.option(
    "--format", "form", type=click.Choice(["jsonl", "raw"]), default="jsonl", show_default=True
)
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False),
    help="Write to this new file instead of stdout.",
)
@_all_of(_FROM, _TO, _KIND, _SESSION, _APP, _QUIET)
def export(**options: Any) -> None:
    """Write entries for other programs.

    Format jsonl is the same as `log show --jsonl`. Format raw is the frames byte for byte, one
    after the other, as docs/reference/disk-format.md describes them.
    """
    from copycat.cli.log.export import ExportOptions, run_export

    raise click.exceptions.Exit(run_export(ExportOptions(**options)))
