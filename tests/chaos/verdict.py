"""Judges a run from what it left behind, and sums it up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tests.chaos.checkers import (
    HistoryError,
    check_applied,
    check_errors,
    check_logged,
    check_order,
    check_results,
    merge_logs,
)
from tests.chaos.history import History, is_answered, longest_silence_s, read_histories
from tests.chaos.stored_logs import read_log

__all__ = ["Verdict", "judge"]


class Verdict(NamedTuple):
    """What was counted in a run in which every law holds."""

    history: History
    applied: int
    members: tuple[str, ...]
    entries: int
    missing: int
    keys: int
    faults: str
    undecided: int
    changes: dict[str, int]

    def text(self) -> str:
        """A few lines for people."""
        history = self.history
        answered = sum(is_answered(one) for one in history.operations)
        queries = sum(one.is_query for one in history.operations)
        codes = ", ".join(f"{count} {code}" for code, count in sorted(history.codes.items()))
        changes = ", ".join(f"{count} {name}" for name, count in sorted(self.changes.items()))
        unsearched = f", {self.undecided} of them given up" if self.undecided else ""
        return (
            f"faults       {self.faults}\n"
            f"operations   {answered:,} answered ({queries:,} queries), "
            f"{len(history.unknown()):,} commands with an unknown outcome, "
            f"{len(history.unsent):,} never sent, {history.failed_queries:,} queries without an"
            f" answer\n"
            f"errors       {codes or 'none'}\n"
            f"changes      {changes or 'none'}\n"
            f"silence      {longest_silence_s(history.operations):.2f} s at most between two"
            " acknowledged commands\n"
            f"exactly once {self.applied:,} commands in one order at {', '.join(self.members)};"
            f" {self.entries:,} commands in the logs, {self.missing:,} entries in none\n"
            f"linearizable by the index witness, and by the search over {self.keys:,}"
            f" keys{unsearched}"
        )


def judge(
    histories: Sequence[Path],
    members: Mapping[str, tuple[Path, int]],
    states: Mapping[str, list[Any]],
    faults: str,
    changes: dict[str, int],
) -> Verdict:
    """Check every law. members: directory and last commit index; states: of ChaosMachine.
    faults, changes: how many there were of each kind, and how those of the members ended.

    HistoryError for the first law that does not hold.
    """
    history = read_histories(histories)
    names = tuple(states)
    for name, state in states.items():
        for what, one, other in zip(
            ("registers", "notes", "lists", "order"), states[names[0]], state, strict=True
        ):
            if what != "order" and one != other:
                raise HistoryError(f"the {what} of {name} are not those of {names[0]}")
    order = check_applied(history, {name: state[3] for name, state in states.items()})
    logs = [read_log(name, directory, index) for name, (directory, index) in members.items()]
    merged = merge_logs(logs)
    check_logged(history, order, merged)
    check_results(history, order)
    check_errors(history)
    undecided = check_order(history.operations)
    keys = len({(one.kind in {"append", "items"}, one.key) for one in history.operations})
    return Verdict(
        history,
        len(order),
        names,
        len(merged.tokens),
        merged.missing,
        keys,
        faults,
        undecided,
        changes,
    )
