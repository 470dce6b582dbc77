"""Many seeds on all cores, and what they saw: `python -m copycat.sim`."""

from __future__ import annotations

import logging
import multiprocessing
import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

import msgspec

from copycat.sim.baseline import Baseline
from copycat.sim.marks import DECLARED, GROUPS
from copycat.sim.runner import SeedFailed, SeedResult, run_seed
from copycat.sim.world import SECOND

__all__ = ["Summary", "run_seeds"]


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
    """How often each mark was reached."""
    reached: Counter[str] = Counter()
    """In how many seeds."""

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
        self.reached.update(mark for mark, count in result.marks.items() if count)

    def missing(self, baseline: Baseline) -> list[str]:
        """Marks that so many seeds must reach, and these did not. Empty when a seed failed, since
        the search was stopped then."""
        return [] if self.failures else baseline.missing(self.reached, self.seeds)

    def lines(self, baseline: Baseline) -> Iterator[str]:
        """The report: each mark with its count, what was never reached, what had to be."""
        yield from _report(self.marks, {*DECLARED, *baseline.needed})
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
        missing = self.missing(baseline)
        if missing:
            yield (
                f"FAILED: {self.seeds} seeds have always reached these marks, and no seed did:"
                f" {', '.join(missing)}"
            )


def _report(marks: Mapping[str, int], known: Iterable[str]) -> Iterator[str]:
    """One line a mark with its count, and one for all of a group; then what is missing."""
    never: list[str] = []
    grouped: set[str] = set()
    for head, tails in GROUPS.items():
        grouped |= {f"{head} {tail}" for tail in tails}
        met = [f"{tail} {marks[f'{head} {tail}']:,}" for tail in tails if marks[f"{head} {tail}"]]
        missed = [tail for tail in tails if not marks[f"{head} {tail}"]]
        if met:
            yield f"  {head}: {', '.join(met)}"
        if missed:
            never.append(f"{head}: {', '.join(missed)}")
    for mark, count in sorted(marks.items()):
        if count and mark not in grouped:
            yield f"  {count:>10,}  {mark}"
    never += sorted(mark for mark in known if not marks[mark] and mark not in grouped)
    yield "never reached in these seeds:"
    yield from (f"  {line}" for line in never)


def _quiet() -> None:
    """Members log thousands of faults, all of which were injected, so their logs are silenced;
    they are printed when a seed that failed is replayed alone."""
    logging.getLogger("copycat").setLevel(logging.CRITICAL)


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
    summary = Summary(failures=[], marks=Counter(), reached=Counter())
    begun = time.monotonic()
    jobs = jobs or os.cpu_count() or 1
    with multiprocessing.get_context("spawn").Pool(jobs, initializer=_quiet) as pool:
        for result in pool.imap_unordered(_attempt, seeds, chunksize=1):
            summary.add(result)
            if isinstance(result, tuple) and callable(say):
                say(result[1])
            if len(summary.failures) >= stop_after:
                pool.terminate()
                break
    summary.wall_seconds = time.monotonic() - begun
    return summary
