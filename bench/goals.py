"""The goals of this project, each a number of one row, or a ratio of two rows of one run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

__all__ = ["GOALS", "Goal", "Verdict", "judge"]


class Goal(NamedTuple):
    """`column` of `row`, divided by the same of `over` when one is named."""

    what: str
    row: str
    column: str
    sense: str
    """Whether the number must be "at least" or "at most" the goal."""
    landing: float
    """What the first landing had to reach."""
    goal: float
    over: str = ""


class Verdict(NamedTuple):
    """What one goal came to. `measured` is None when the run did not hold its rows."""

    goal: Goal
    measured: float | None

    @property
    def says(self) -> str:
        """reached, landed (the first landing's number, not the goal's), missed or not run."""
        if self.measured is None:
            return "not run"
        holds: Callable[[float], bool] = (
            (lambda bound: self.measured >= bound)  # type: ignore[operator]
            if self.goal.sense == "at least"
            else (lambda bound: self.measured <= bound)  # type: ignore[operator]
        )
        if holds(self.goal.goal):
            return "reached"
        return "landed" if holds(self.goal.landing) else "missed"


_RATE = "entries_per_s"
_ONE = "append[copycat-1-256-fsync]"
_CHURN = "churn[copycat, segments of 2 MiB]"
_BULK = "append[copycat-1024-256-fsync]"
_CATCHUP = "catchup[1 at once]"
_BESIDE = "catchup_foreground[w=64]"
_ALONE = "catchup_foreground[w=1]"
_KILLED = "failover[copycat]"

GOALS = [
    Goal("durable append, 1024 x 256 B, entries/s", _BULK, _RATE, "at least", 1.5e6, 3e6),
    Goal("... CPU s for 1,000", _BULK, "cpu_s_per_1000", "at most", 0.0005, 0.00025),
    Goal("durable append, 64 x 256 B", "append[copycat-64-256-fsync]", _RATE, "at least",
         250e3, 370e3),
    Goal("durable append, 1 x 256 B, entries/s", _ONE, _RATE, "at least", 6e3, 6e3),
    Goal("... of a bare pwrite + fdatasync", _ONE, _RATE, "at least", 0.8, 0.95,
         over="append[zeroed file-1-256-fsync]"),
    Goal("scan as batches, entries/s", "scan_batches[copycat]", _RATE, "at least", 10e6, 30e6),
    Goal("scan as Python bytes, entries/s", "scan[copycat]", _RATE, "at least", 3e6, 5e6),
    Goal("random read, entries/s", "random_read[copycat]", _RATE, "at least", 700e3, 1.2e6),
    Goal("open 1 M entries after a clean stop, ms", "open[copycat-clean]", "open_ms", "at most",
         10, 2),
    Goal("open 1 M entries after a crash, ms", "open[copycat-crash]", "open_ms", "at most",
         40, 20),
    Goal("memory, MB for each million entries: appending", "memory[copycat]",
         "append_anonymous_mb", "at most", 8, 1),
    Goal("memory, MB for each million entries: opened", "memory[copycat]",
         "open_anonymous_mb", "at most", 8, 1),
    Goal("major compaction, MB/s read", "major_compaction", "read_mb_per_s", "at least", 300, 300),
    Goal("major compaction of `cp` and fsync", "major_compaction", "of_copy", "at least",
         0.35, 0.7),
    Goal("durable append p99, compaction running / not", "foreground_p99", "p99_ratio",
         "at most", 2, 1.3),
    Goal("space / live bytes after the churn", "churn[copycat]", "space_amplification",
         "at most", 2, 1.3),
    Goal("... with segments of 2 MiB", _CHURN, "space_amplification", "at most", 2, 1.3),
    Goal("write amplification of the churn", "churn[copycat]", "write_amplification", "at most",
         2, 2),
    Goal("... with segments of 2 MiB", _CHURN, "write_amplification", "at most", 2, 2),
    Goal("3 members, w=1024, commands/s", "copycat inside batches w=1024", "commands_per_s",
         "at least", 60e3, 200e3),
    Goal("... CPU s for 1,000", "copycat inside batches w=1024", "cpu_s_per_1000", "at most",
         0.025, 0.007),
    Goal("... through a remote client", "copycat remote batches w=1024", "commands_per_s",
         "at least", 50e3, 150e3),
    Goal("3 members, w=64, commands/s", "copycat inside submit w=64", "commands_per_s",
         "at least", 33e3, 80e3),
    Goal("3 members, w=1, p50 us", "copycat inside submit w=1", "p50_us", "at most", 900, 300),
    Goal("catch-up of 1 GiB until stored, entries/s", _CATCHUP, _RATE, "at least", 640e3, 2.5e6),
    Goal("... until a Python machine has applied it", _CATCHUP, "applied_entries_per_s",
         "at least", 640e3, 1.2e6),
    Goal("... first entry after it began to start, ms", _CATCHUP, "first_entry_ms", "at most",
         250, 100),
    Goal("rate of clients meanwhile, w=64", _BESIDE, "rate_ratio", "at least", 0.5, 0.9),
    Goal("... p99", _BESIDE, "p99_ratio", "at most", 3, 1.5),
    Goal("... rate, w=1", _ALONE, "rate_ratio", "at least", 0.5, 0.9),
    Goal("... p99", _ALONE, "p99_ratio", "at most", 3, 1.5),
    Goal("leader killed to next answer, election timeouts: p50", _KILLED, "p50_timeouts",
         "at most", 1.2, 1.2),
    Goal("... p99", _KILLED, "p99_timeouts", "at most", 2, 2),
    Goal("voter killed to a full set of voters by a warm passive, ms",
         "promotion[in place of a dead voter]", "p50_ms", "at most", 250, 50),
    Goal("promotion of a warm passive, ms", "promotion[warm]", "p50_ms", "at most", 250, 50),
    Goal("leader's CPU with 4 passives / with none, w=64", "leader_load[w=64]", "ratio_4",
         "at most", 1.5, 1.05),
    Goal("... w=1", "leader_load[w=1]", "ratio_4", "at most", 1.5, 1.05),
    Goal("leader's CPU while a voter catches up 1 GiB / without", "leader_load_voter[w=64]",
         "ratio", "at most", 1.5, 1.1),
]  # fmt: skip


def judge(rows: Sequence[Mapping[str, Any]]) -> list[Verdict]:
    """Each goal beside what these rows say of it; the last row of a name counts."""
    named = {row["name"]: row for row in rows}

    def number(name: str, column: str) -> float | None:
        value = named.get(name, {}).get(column)
        return None if value is None else float(value)

    verdicts: list[Verdict] = []
    for goal in GOALS:
        measured = number(goal.row, goal.column)
        if goal.over and measured is not None:
            below = number(goal.over, goal.column)
            measured = None if below is None else measured / below
        verdicts.append(Verdict(goal, measured))
    return verdicts
