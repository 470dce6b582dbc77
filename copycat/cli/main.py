"""The tree of commands. A command imports what it needs when it runs, so `--help` is fast."""

from __future__ import annotations

import codecs
import io
import os
import select
import sys
from pathlib import Path
from typing import Any, TextIO

import click

from copycat import __version__
from copycat.cli.cluster.group import cluster
from copycat.cli.log.group import log
from copycat.cli.output import LEVELS
from copycat.cli.paths import PathOption
from copycat.errors import (
    ChangeRefusedError,
    ConfigurationError,
    CopycatError,
    EntryTooLargeError,
    LastVoterError,
    MajorityAtRiskError,
    MemberIdReusedError,
    NoLeaderError,
    OperationTimeout,
    RecoveryRefusedError,
    StaleConfigurationError,
)

__all__ = ["main", "tree"]

_STDERR = 2
_CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 99}


class _Tree(click.Group):
    """The root of the commands: exits with 0 when the program that reads the output has ended."""

    def make_context(self, *arguments: Any, **extra: Any) -> click.Context:
        """As `Group.make_context`, which prints the output of `--help` and `--version`."""
        try:
            return super().make_context(*arguments, **extra)
        except BrokenPipeError:
            self._end_where_nobody_reads()
            raise

    def invoke(self, ctx: click.Context) -> Any:
        """As `Group.invoke`, but with exit code 0 when `head` closes the pipe, and not 1."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            self._end_where_nobody_reads()
            raise

    def _end_where_nobody_reads(self) -> None:
        without_reader = [stream for stream in (sys.stdout, sys.stderr) if _has_no_reader(stream)]
        for stream in without_reader:
            _drop(stream)
        if without_reader:
            raise click.exceptions.Exit(0) from None


@click.group(cls=_Tree, context_settings=_CONTEXT)
@click.version_option(__version__, prog_name="copycat")
def tree() -> None:
    """A durable log and a replicated state machine that you import.

    Data is written to stdout, messages to stderr. Exit codes: 0 success, 1 failure, 2 wrong usage
    or configuration, 3 no leader or no quorum (try again), 4 verification found damage, 5 refused
    because it is not safe, 130 interrupted.
    """


@tree.command(short_help="Kill a member of a small cluster, and prove that nothing is lost.")
@click.option(
    "--file",
    type=PathOption(path_type=Path, exists=True, dir_okay=False),
    help="Use the lines of this file as commands, instead of lines of the standard library.",
)
@click.option(
    "--directory",
    type=click.Path(path_type=Path),
    help="A new directory for the members' files; it is not deleted at the end.",
)
@click.option(
    "--in-flight",
    default=4096,
    show_default=True,
    type=click.IntRange(1, 65536),
    help="How many commands may wait for their replies at a time.",
)
@click.option("--keep", is_flag=True, help="Do not delete the members' directories at the end.")
def demo(**options: Any) -> None:
    """Run three voters and a passive member, kill the leader half-way, and prove that no
    acknowledged line is lost.

    Meanwhile the passive member gets the vote of the dead one, and a new member joins. Each
    command is a line of text; by default the lines are those of Python's standard library. The
    proof reads the directories of all five members.
    """
    from copycat.cli.demo.app import DemoOptions, run_demo

    window = options.pop("in_flight")
    raise click.exceptions.Exit(run_demo(DemoOptions(window=window, **options)))


@tree.command(short_help="Run one member until a signal stops it.")
@click.argument("address")
@click.option("--app", required=True, metavar="MODULE:CLASS", help="The state machine's class.")
@click.option(
    "--member",
    "members",
    multiple=True,
    metavar="HOST:PORT",
    help="The address of a founding member; give the option once per member.",
)
@click.option(
    "--join",
    "joins",
    multiple=True,
    metavar="HOST:PORT",
    help="Join the cluster that this member is in, instead of founding one.",
)
@click.option(
    "--type",
    "goal",
    default="active",
    show_default=True,
    type=click.Choice(["active", "passive", "reserve", "inactive"]),
    help="What to become with --join. inactive: wait for `copycat cluster add`.",
)
@click.option(
    "--directory",
    type=PathOption(file_okay=False),
    help="The directory of this member; created if it is missing.  [default: the directory that"
    " --config names, or ./copycat-data]",
)
@click.option(
    "--config",
    type=PathOption(exists=True, dir_okay=False),
    help="A TOML file with settings in a table [storage]; copycat tune writes such a file.",
)
@click.option(
    "--cluster-name", default="copycat", show_default=True, help="The name of the cluster."
)
@click.option(
    "--bind",
    metavar="HOST:PORT",
    help="Listen on this address instead of ADDRESS, for example 0.0.0.0:8700.",
)
@click.option(
    "--insecure",
    is_flag=True,
    help="Allow unencrypted connections from other machines, on a network that you trust.",
)
@click.option(
    "--rejoin/--no-rejoin",
    default=True,
    show_default=True,
    help="If the disk of a member was lost or is an older copy, join again as a new member.",
)
@click.option(
    "--keep-log",
    is_flag=True,
    help="Take no snapshots and compact nothing, so that the log keeps every entry.",
)
@click.option(
    "--json", "as_json", is_flag=True, help="Print state changes as JSON, one document per line."
)
@click.option(
    "--log-level",
    default="info",
    show_default=True,
    type=click.Choice(LEVELS),
    help="Log messages of this level and above to stderr.",
)
@click.option(
    "--failure-domain",
    default="",
    metavar="NAME",
    help="What the member fails together with, as a room or a zone.",
)
@click.option(
    "--weight",
    default=0,
    show_default=True,
    help="The member of the greatest weight is preferred for a place that several could take.",
)
@click.option("--parent", type=int, default=None, hidden=True)
def serve(**options: Any) -> None:
    """Run one member on ADDRESS (HOST:PORT) until SIGTERM, SIGINT or SIGHUP.

    After the signal the member closes its log and exits. At the first start, give all founding
    members the same --member list; the list may contain ADDRESS itself. With --join, the first
    start needs an empty directory. At a later start the directory says which member this is.
    """
    from copycat.cli.serve import ServeOptions, run_serve, storage_of

    # At once, before the application is imported: it may change the working directory.
    places = {name: options.pop(name) for name in ("directory", "config", "keep_log")}
    options["storage"] = storage_of(**places)
    raise click.exceptions.Exit(run_serve(ServeOptions(**options)))


@tree.command(
    short_help="Repair a stopped member, or go on without the others. This can lose data."
)
@click.argument("directory", type=click.Path(exists=True, file_okay=False))
@click.option(
    "--accept-loss-from",
    type=click.IntRange(1),
    metavar="INDEX",
    help="Discard this entry and all later entries.",
)
@click.option(
    "--accept-unsynced-loss",
    "unsynced",
    is_flag=True,
    help="Let the member vote although entries that it acknowledged before they were synced may be"
    " missing.",
)
@click.option(
    "--accept-missing-entries",
    "missing",
    is_flag=True,
    help="Let the member vote although it lost entries that no other member can send.",
)
@click.option(
    "--skip-entry",
    "skip",
    type=click.IntRange(1),
    metavar="INDEX",
    help="Never call the state machine's code for this entry, because it stops every member.",
)
@click.option(
    "--show",
    is_flag=True,
    help="Only show what this member has: its last entry, what is known to be committed, who the"
    " members were, which sessions are open.",
)
@click.option(
    "--new-cluster",
    is_flag=True,
    help="The majority is lost for good: make a new cluster of this member alone. Shows what may"
    " be lost, and asks.",
)
@click.option(
    "--address",
    default="",
    metavar="HOST:PORT",
    help="With --new-cluster: the address of its member.  [default: the address it had]",
)
@click.option(
    "--cluster-name",
    default="",
    help="The name of the cluster, to confirm that this is the right directory.",
)
@click.option(
    "--yes",
    is_flag=True,
    help="Make the change. Without --yes the command only shows what would be lost.",
)
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="With --show or --new-cluster: print one JSON document.",
)
def recover(directory: str, **options: Any) -> None:
    """Repair a stopped member's DIRECTORY, or go on without the others. This can lose data.

    When the majority of the members is lost for good, run --show on each survivor, and
    --new-cluster on the one whose last entry has the greatest term, then the greatest index. The
    other options discard entries that cannot be read.

    `copycat log verify` names the first entry that cannot be read. The damaged log is kept beside
    the new one. If the cluster has other members, start this member instead: it fetches the lost
    entries from them. After you discarded entries, the other members do not let this member vote.
    To skip an entry, stop all members and run this command for each of them.
    """
    from copycat.cli.recover import dispatch

    raise click.exceptions.Exit(dispatch(directory, **options))


tree.add_command(log)
tree.add_command(cluster)


@tree.command()
@click.argument("directory", type=click.Path(exists=True, file_okay=False))
@click.option(
    "--major", is_flag=True, help="Rewrite all segments except the newest one, in order."
)
@click.option(
    "--segment-size",
    "size",
    metavar="SIZE",
    help="Merge segments up to this size, for example 32MiB.  [default: the size limit of the"
    " newest segment]",
)
@click.option(
    "--compression",
    type=click.Choice(["lz4", "none"]),
    help="Compression of the new segments.  [default: lz4 if a segment is compressed already, else"
    " none]",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def compact(directory: str, **options: Any) -> None:
    """Compact the bare log in DIRECTORY while no process has it open.

    This command merges small segments. It deletes no entries: only the process that released
    entries can delete them. A member compacts its own log, so its directory is refused.
    """
    from copycat.cli.compact import run_compact

    raise click.exceptions.Exit(run_compact(directory, **options))


@tree.command()
@click.argument("directory", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option(
    "--seconds",
    default=60.0,
    show_default=True,
    type=click.FloatRange(1, 86400),
    help="About how many seconds to measure.",
)
@click.option(
    "--space",
    default="1GiB",
    show_default=True,
    help="The most that the files may take on the disk; 64MiB or more.",
)
@click.option(
    "--entry-size",
    default="256",
    show_default=True,
    help="The size of each entry, in bytes or for example 4KiB.",
)
@click.option(
    "--output",
    default="./copycat-tune",
    show_default=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="The directory for the three result files.",
)
@click.option(
    "--html/--no-html",
    default=True,
    help="Whether to write a page with plots, which needs matplotlib.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors on stderr.")
def tune(**options: Any) -> None:
    """Measure settings on the disk of DIRECTORY, and say which to use.

    The measurements use a new folder in DIRECTORY, which is deleted afterwards. The results are
    written to --output as settings.toml, tune.json and tune.html, and replace those of an earlier
    run.
    """
    from copycat.cli.tune.app import TuneOptions, run_tune
    from copycat.sizes import parse_size

    options |= {name: parse_size(options[name]) for name in ("space", "entry_size")}
    raise click.exceptions.Exit(run_tune(TuneOptions(**options)))


def main() -> None:
    """Run a command; an error is printed to stderr as `error[code]: ...`, and sets the exit
    code."""
    _open_what_is_closed()
    _escape_what_stdout_lacks()
    sys.exit(_flushed(_run()))


def _run() -> int:
    try:
        code: int = tree.main(prog_name="copycat", standalone_mode=False)
    except CopycatError as cause:
        print(cause.render(), file=sys.stderr)
        return exit_code_of(cause)
    except click.ClickException as cause:
        cause.show()
        return cause.exit_code
    except ImportError as cause:
        if cause.name != "copycat.storage._native":
            raise
        print(f"error[not-built]: {cause}", file=sys.stderr)
        return 1
    except (click.Abort, KeyboardInterrupt):
        print("interrupted", file=sys.stderr)
        return 130
    except (OSError, UnicodeError) as cause:
        print(f"error[os]: {_words_of(cause)}", file=sys.stderr)
        return 2 if isinstance(cause, _WRONG_PATH) else 1
    return code


_WRONG_PATH = (
    FileExistsError,
    FileNotFoundError,
    IsADirectoryError,
    NotADirectoryError,
    UnicodeError,
)
"""Errors of the system about a path that the user must correct."""


def _words_of(cause: OSError | UnicodeError) -> str:
    if isinstance(cause, UnicodeEncodeError):
        return f"{cause.object!r}: {cause.reason}"
    if isinstance(cause, OSError) and cause.strerror is not None:
        return f"{cause.filename}: {cause.strerror}" if cause.filename else cause.strerror
    return str(cause)


def _flushed(code: int) -> int:
    """Write what stdout has buffered: an error at the end of the interpreter would be a traceback.

    Returns `code`, also when the reader has ended (`| head`); 1 after another error.
    """
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _drop(sys.stdout)
    except OSError as cause:
        _drop(sys.stdout)
        print(f"error[os]: standard output: {_words_of(cause)}", file=sys.stderr)
        return code or 1
    return code


def _has_no_reader(stream: TextIO) -> bool:
    """True for a pipe or socket whose other end was closed."""
    poll = select.poll()
    try:
        poll.register(stream.fileno(), 0)
    except (OSError, ValueError):  # not a file, or closed here
        return False
    return any(events & select.POLLERR for _, events in poll.poll(0))


def _drop(stream: TextIO) -> None:
    """Have the interpreter discard what the stream has buffered."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def _open_what_is_closed() -> None:
    """Open /dev/null for each standard stream that the caller closed (`>&-`).

    Else a file or a socket could get the number of the stream, and output would be written to it.
    """
    while (number := os.open(os.devnull, os.O_RDWR)) <= _STDERR:
        os.set_inheritable(number, True)
    os.close(number)
    for number, name in enumerate(("stdout", "stderr"), start=1):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "w", encoding="utf-8", closefd=False))


def _escape_what_stdout_lacks() -> None:
    """Write characters that stdout's encoding lacks as `\\u2026`, which JSON readers accept.

    stderr escapes them by default.
    """
    codecs.register_error("copycat", _escaped)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="copycat")


def _escaped(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    units = memoryview(text.encode("utf-16-le", "surrogatepass")).cast("H")
    return "".join(f"\\u{unit:04x}" for unit in units), error.end


def exit_code_of(cause: CopycatError) -> int:
    """2 for an error that the user must correct, 3 for one that may not recur, 5 for a change of
    the members or a recovery that is not safe, 1 for others."""
    if isinstance(cause, LastVoterError | MajorityAtRiskError | MemberIdReusedError):
        return 5
    if isinstance(cause, RecoveryRefusedError):
        return 5
    if isinstance(cause, ChangeRefusedError) and cause.retryable:
        return 3
    if isinstance(cause, ConfigurationError | EntryTooLargeError):
        return 3 if isinstance(cause, StaleConfigurationError) else 2
    return 3 if isinstance(cause, NoLeaderError | OperationTimeout) else 1
