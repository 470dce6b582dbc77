"""Many seeds on all cores, and what they saw: `python -m copycat.sim`."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator

import msgspec

from copycat.sim.options import FAULTS
from copycat.sim.runner import SeedFailed, SeedResult, run_seed
from copycat.sim.world import SECOND

__all__ = ["EXPECTED_MARKS", "Summary", "run_seeds"]

SEEDS_FOR_MARKS = 200

EXPECTED_MARKS = (
    "answer to a query that nobody waits for",
    "client changes the server",
    "command of a closed session ignored",
    "command resent",
    "deletion cleaned",
    "election",
    "entry cleaned",
    "error in a rewrite",
    "fault: away",
    "fault: clean",
    "fault: disk_rollback",
    "fault: wrong_clock",
    "frame of a broken link arrives",
    "full disk in a rewrite",
    "gap fed",
    "key expired",
    "last compaction",
    "log reset",
    "log rewritten",
    "log trimmed",
    "major compaction done",
    "message duplicated",
    "message held back",
    "message lost",
    "message lost to a partition",
    "message reordered",
    "minor compaction done",
    "older copy noticed",
    "older copy put back",
    "older copy taken",
    "power cut at an install",
    "power cut in a rewrite",
    "power cut in mid-turn",
    "power cut in recovery",
    "query answered",
    "query given up by its caller",
    "query sent again",
    "replay over gaps",
    "reply heard early",
    "reply heard twice",
    "rewrite failed",
    "sequential answered",
    "session closed",
    "session expired",
    "session goes on over another connection",
    "session kept alive",
    "session lost",
    "session opened",
    "snapshot installed",
    "snapshot taken",
    "transfer done",
    "transfer refused",
    "truncation",
    "twin from a snapshot",
    "twin from the first entry",
    *(f"fault: {kind}" for kind in FAULTS),
)
"""What must have happened somewhere in a run of a few hundred seeds ("sometimes")."""


class Summary(msgspec.Struct):
    """The sum over seeds."""

    seeds: int = 0
    failures: list[tuple[int, str]] = []
    steps: int = 0
    simulated_us: int = 0
    cpu_seconds: float = 0.0
    wall_seconds: float = 0.0
    commands: int = 0
    slowest: tuple[float, int] = (0.0, 0)
    marks: Counter[str] = Counter()

    def add(self, result: SeedResult | tuple[int, str]) -> None:
        """One seed's end."""
        self.seeds += 1
        if isinstance(result, tuple):
            self.failures.append(result)
            return
        self.steps += result.steps
        self.simulated_us += result.simulated_us
        self.cpu_seconds += result.cpu_seconds
        self.commands += result.commands
        self.slowest = max(self.slowest, (result.cpu_seconds, result.seed))
        self.marks.update(result.marks)

    def never(self) -> list[str]:
        """Expected marks that no seed set."""
        return [mark for mark in EXPECTED_MARKS if not self.marks[mark]]

    def lines(self) -> Iterator[str]:
        """The report."""
        for mark, count in sorted(self.marks.items()):
            yield f"  {count:>10,}  {mark}"
        never = self.never()
        if never and self.seeds >= SEEDS_FOR_MARKS:
            yield f"never happened in these seeds: {', '.join(never)}"
        cpu = max(self.cpu_seconds, 1e-9)
        yield (
            f"{self.seeds} seeds, {len(self.failures)} failed; "
            f"{self.simulated_us / SECOND / 3600:.2f} cluster-hours, {self.steps:,} checked "
            f"steps, {self.commands:,} commands applied"
        )
        yield (
            f"{self.steps / cpu:,.0f} steps/s of CPU, {self.simulated_us / SECOND / cpu:,.0f}x "
            f"real time a core, {cpu / max(self.seeds, 1):.2f} s a seed "
            f"(slowest {self.slowest[0]:.2f} s, seed {self.slowest[1]}), "
            f"{self.wall_seconds:.0f} s in all"
        )


def _attempt(seed: int) -> SeedResult | tuple[int, str]:
    try:
        return run_seed(seed)
    except SeedFailed as failed:
        return seed, failed.message


def run_seeds(
    seeds: Iterable[int], jobs: int = 0, *, stop_after: int = 5, say: object = None
) -> Summary:
    """Run them all, or until `stop_after` failed. `jobs` 0 means one a core.

    `say` is called with each failure's report as it comes.
    """
    summary = Summary(failures=[], marks=Counter())
    begun = time.monotonic()
    jobs = jobs or os.cpu_count() or 1
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        for result in pool.imap_unordered(_attempt, seeds, chunksize=1):
            summary.add(result)
            if isinstance(result, tuple) and callable(say):
                say(result[1])
            if len(summary.failures) >= stop_after:
                pool.terminate()
                break
    summary.wall_seconds = time.monotonic() - begun
    return summary
