"""`make explore`: three exhaustive searches of the core, two at a time, each with a floor.

A floor is a number of different states that the search must reach. Each search is deterministic,
so the number changes only with the core or the search. If it falls below the floor, find out which
events are not tried any more before you lower the floor.

    python -m tests.raft.exploration [NAME ...] [--steps-less N] [--jobs N]
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import NamedTuple

from copycat.raft.changes import ConfigurationChange
from copycat.raft.configuration import BOOTSTRAP, Configuration
from copycat.types import MemberId, MemberType
from tests.raft.explore import Bounds, Explorer

__all__ = ["SEARCHES", "STATES_MIN", "Report", "Search", "main"]

A, B, C, D = map(MemberId, (1, 2, 3, 4))

STATES_MIN = 700_000
"""All searches together."""


class Search(NamedTuple):
    """One search: all orders of `depth` events from each state of the straight way."""

    first: Configuration
    changes: tuple[ConfigurationChange, ...]
    bounds: Bounds
    way: tuple[tuple[int, str], ...]
    """(position of a member, event)."""
    depth: int
    states_min: int

    def explorer(self) -> Explorer:
        return Explorer(self.first, self.changes, self.bounds)


SEARCHES = {
    "three": Search(  # three members, three terms, three entries, one change
        Configuration.of(A, B, C),
        (ConfigurationChange.demote(C, MemberType.PASSIVE, BOOTSTRAP),),
        Bounds(terms=3, entries=3, heartbeats=4, crashes=1),
        (
            (0, "propose"),
            (0, "change"),
            (0, "heartbeat"),
            (1, "campaign"),
            (1, "propose"),
            (0, "campaign"),
        ),
        depth=4,
        states_min=125_000,
    ),
    "four": Search(  # D becomes a reserve, deletes its log, and becomes a voter again
        Configuration.of(A, B, C, D),
        (
            ConfigurationChange.demote(D, MemberType.RESERVE, BOOTSTRAP),
            ConfigurationChange.promote(D, MemberType.ACTIVE, BOOTSTRAP),
        ),
        Bounds(terms=3, entries=3, heartbeats=12, crashes=1),
        (
            (0, "change"),
            (0, "heartbeat"),
            (0, "heartbeat"),
            (0, "change"),
            (0, "heartbeat"),
            (0, "heartbeat"),
            (0, "heartbeat"),
        ),
        depth=3,
        states_min=420_000,
    ),
    "disks": Search(  # three members whose syncs take time, and end or are lost in a crash
        Configuration.of(A, B, C),
        (),
        Bounds(terms=3, entries=3, heartbeats=4, crashes=1, syncs_at_once=False),
        ((0, "propose"), (1, "campaign"), (1, "propose"), (0, "campaign")),
        depth=4,
        states_min=170_000,
    ),
}


class Report(NamedTuple):
    """What one search did."""

    name: str
    states: int
    member_states: int
    messages: int
    seconds: float
    """Of the processor."""
    memory_mib: int

    def __str__(self) -> str:
        return (
            f"{self.name:<6} {self.states:>8} states, at least {SEARCHES[self.name].states_min}; "
            f"{self.member_states} of single members, {self.messages} messages; "
            f"{self.seconds:.0f} s of processor, {self.memory_mib} MiB"
        )


def searched(name: str, steps_less: int = 0) -> Report:
    """Run one search to its end. Raises what a broken law raises."""
    search, began = SEARCHES[name], time.process_time()
    explorer = search.explorer()
    *_, states = explorer.search(search.depth - steps_less, search.way)
    return Report(
        name,
        states,
        len(explorer.members),
        len(explorer.parcels),
        time.process_time() - began,
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    )


def reports(names: list[str], steps_less: int, jobs: int) -> Iterator[Report]:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, context, max_tasks_per_child=1) as pool:
        yield from pool.map(searched, names, [steps_less] * len(names))


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(SEARCHES)}")
    parser.add_argument("--steps-less", type=int, default=0, help="so many fewer; without floors")
    parser.add_argument("--jobs", type=int, default=2, help="so many searches at a time")
    arguments = parser.parse_args(words)
    names = arguments.names or list(SEARCHES)
    began, total, is_short = time.monotonic(), 0, False
    for report in reports(names, arguments.steps_less, arguments.jobs):
        _say(str(report))
        total += report.states
        is_short |= report.states < SEARCHES[report.name].states_min
    _say(f"{total} states in {time.monotonic() - began:.0f} s")
    if arguments.steps_less:
        return 0
    is_short |= not arguments.names and total < STATES_MIN
    if is_short:
        _say("that is less than there must be")
    return int(is_short)


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
