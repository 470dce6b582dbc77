"""`copycat cluster ...`: the commands and their options; each imports its module when it runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from copycat.cli.cluster.app import Verb

__all__ = ["cluster"]

_ADDRESSES = click.argument("addresses", nargs=-1, metavar="[ADDRESS]...")
_SOME = click.argument("addresses", nargs=-1, required=True, metavar="ADDRESS...")
_TYPES = click.Choice(["reserve", "passive", "active"])


def _common(command: Callable[..., None]) -> Callable[..., None]:
    """The options that all commands have."""
    options = [
        click.option(
            "--member",
            "members",
            multiple=True,
            metavar="HOST:PORT",
            help="The address of a member to ask; give the option once per member. Any member"
            " will do. By default: the addresses in the environment variable COPYCAT_MEMBERS,"
            " separated by commas; without it, every ADDRESS.",
        ),
        click.option(
            "--cluster-name", default="", help="Refuse to talk to a cluster of another name."
        ),
        click.option(
            "--insecure",
            is_flag=True,
            help="Allow unencrypted connections to other machines, on a network that you trust.",
        ),
        click.option(
            "--timeout",
            default=30.0,
            show_default=True,
            type=click.FloatRange(0.1, 86400),
            help="For how many seconds to try again while nobody leads or another change is made.",
        ),
        click.option("--json", "as_json", is_flag=True, help="Print one JSON document."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def _type(text: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    return click.option("--type", "goal", type=_TYPES, help=text)


@click.group()
def cluster() -> None:
    """Show the members of a running cluster, and change them.

    Any member can be asked: it passes the request on to the leader. What a command waits for is
    printed to stderr. If two members have the same ADDRESS, give the id of one of them instead,
    or the first four digits of it or more: `status` shows the ids then.
    """


@cluster.command(short_help="Show each member: type, role, term, indexes, lag.")
@_ADDRESSES
@_common
def status(**options: Any) -> None:
    """Show the members of the cluster that ADDRESS is in.

    Each ADDRESS is asked in turn until one answers; without ADDRESS, the members of --member or
    COPYCAT_MEMBERS are asked. Exit code 3 when the cluster has no leader.
    """
    _run("status", options)


@cluster.command(short_help="Add servers that wait to be members.")
@_SOME
@_type("What each is to become.  [default: active]")
@_common
def add(**options: Any) -> None:
    """Add the server at each ADDRESS to the cluster, one after the other.

    Each server was started with `copycat serve ADDRESS --join MEMBER --type inactive`, and waits
    to be added. Without `--type inactive`, a server asks the cluster by itself to be added.
    """
    _run("add", options)


@cluster.command(short_help="Promote members: reserve, passive, active.")
@_SOME
@_type("What each is to become.  [default: one step up]")
@_common
def promote(**options: Any) -> None:
    """Promote the member at each ADDRESS, one after the other.

    A member becomes active, and so a voter, when it has caught up with the leader's log.
    """
    _run("promote", options)


@cluster.command(short_help="Demote members: active, passive, reserve.")
@_SOME
@_type("What each is to become.  [default: one step down]")
@_common
def demote(**options: Any) -> None:
    """Demote the member at each ADDRESS, one after the other.

    A passive member has no vote. A reserve member deletes its log and its state. A leader hands
    its leadership over first.
    """
    _run("demote", options)


@cluster.command(short_help="Remove members from the cluster.")
@_SOME
@_common
def remove(**options: Any) -> None:
    """Remove the member at each ADDRESS, one after the other.

    The member need not run; one that runs deletes its log and its state. A leader hands its
    leadership over first. A removed member cannot come back under the same id.
    """
    _run("remove", options)


@cluster.command(short_help="Hand leadership over.")
@click.argument("addresses", nargs=-1, metavar="[ADDRESS]")
@_common
def transfer(**options: Any) -> None:
    """Make the member at ADDRESS the leader; without ADDRESS, the one with the longest log.

    The cluster waits for no election timeout, so that clients wait for a moment only.
    """
    _run("transfer", options)


@cluster.command(short_help="Show or set what the leader replaces by itself.")
@_ADDRESSES
@click.option(
    "--target-active",
    type=click.IntRange(0, 128),
    help="So many voters there are to be that the leader hears; 0: it leaves voters alone.",
)
@click.option(
    "--target-passive",
    type=click.IntRange(0, 128),
    help="So many passive members there are to be; 0: the leader promotes no reserve member.",
)
@click.option(
    "--heal-after",
    type=click.FloatRange(min=0.1),
    metavar="SECONDS",
    help="A member that was not heard for so long is replaced.",
)
@click.option(
    "--heal-interval",
    type=click.FloatRange(min=0.1),
    metavar="SECONDS",
    help="Between two steps.",
)
@click.option(
    "--suspend-after",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="A passive member that was not heard for so long becomes a reserve; 0: never.",
)
@click.option(
    "--replace-slow-after",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="A voter that is behind for so long gives its place to a quicker member; 0: never.",
)
@click.option(
    "--rebalance/--no-rebalance",
    "rebalance",
    default=None,
    help="Whether live voters give their places to members of other failure domains.",
)
@click.option("--on/--off", "is_on", default=None, help="Off: the leader changes nothing.")
@_common
def heal(**options: Any) -> None:
    """Show what the leader of the cluster that ADDRESS is in may change by itself when members are
    away, slow, or unevenly spread, or set it with the options: what is not given stays, and
    healing is switched on.

    Exit code 3 when the cluster has no leader.
    """
    names = (
        "target_active", "target_passive", "heal_after", "heal_interval", "suspend_after",
        "replace_slow_after", "rebalance", "is_on",
    )  # fmt: skip
    given = {name: options.pop(name) for name in names}
    policy = {name: value for name, value in given.items() if value is not None}
    _run("heal", {**options, "policy": policy})


def _run(verb: Verb, options: dict[str, Any]) -> None:
    from copycat.cli.cluster.app import ClusterOptions, run_cluster

    raise click.exceptions.Exit(run_cluster(verb, ClusterOptions(**options)))
