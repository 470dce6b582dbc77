"""pytest-benchmark's JSON to a small JSON and Markdown: `python -m bench.report IN OUT`.

Keeps what a reader compares: group, name, durability, median, and the numbers of `extra_info`.
The Markdown has the goals first, each reached or missed, then a table a group.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from bench.goals import Verdict, judge

__all__ = ["compact", "goal_table", "main", "table"]


def compact(full: dict[str, Any]) -> dict[str, Any]:
    """The facts of one run, without the samples."""
    machine = full["machine_info"]
    rows = [
        {
            "group": result["group"] or "core",
            "name": result["name"].removeprefix("bench_"),
            "median_us": round(result["stats"]["median"] * 1e6, 2),
            "rounds": result["stats"]["rounds"],
            **result["extra_info"],
        }
        for result in full["benchmarks"]
    ]
    return {
        "machine": {
            "cpu": machine["cpu"].get("brand_raw", machine.get("processor", "")),
            "cores": machine["cores"],
            "kernel": machine["kernel"],
            "filesystem": machine["filesystem"],
            "python": machine["python_version"],
        },
        "date": full["datetime"][:10],
        "results": rows,
    }


def table(small: dict[str, Any]) -> str:
    """One Markdown table a group."""
    lines: list[str] = []
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in small["results"]:
        groups.setdefault(row["group"], []).append(row)
    for group, rows in groups.items():
        hidden = {"group", "name", "rounds", "wall_s"}
        columns = list(dict.fromkeys(key for row in rows for key in row if key not in hidden))
        lines += [f"### {group}", "", f"| | {' | '.join(columns)} |"]
        lines += ["|---" * (len(columns) + 1) + "|"]
        for row in rows:
            cells = [_cell(row.get(column, "")) for column in columns]
            lines.append(f"| {row['name']} | {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


def goal_table(small: dict[str, Any]) -> str:
    """The goals beside what this run says of them."""
    lines = ["| what | measured | first landing | goal | |", "|---|---|---|---|---|"]
    lines += [_goal_row(verdict) for verdict in judge(small["results"])]
    return "\n".join([*lines, ""])


def _goal_row(verdict: Verdict) -> str:
    goal = verdict.goal
    sign = "≥" if goal.sense == "at least" else "≤"
    measured = "" if verdict.measured is None else _cell(verdict.measured)
    bounds = f"{sign} {_cell(goal.landing)} | {sign} {_cell(goal.goal)}"
    return f"| {goal.what} | {measured} | {bounds} | {verdict.says} |"


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def main(source: str, target: str) -> None:
    """Read `source`; write the small JSON to `target` and print the tables."""
    small = compact(json.loads(Path(source).read_text()))
    Path(target).write_text(json.dumps(small, indent=1) + "\n")
    print(goal_table(small))
    print(table(small))


if __name__ == "__main__":
    main(*sys.argv[1:])
