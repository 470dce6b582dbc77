"""pytest-benchmark's JSON to a small JSON and a Markdown table: `python -m bench.report IN OUT`.

Keeps what a reader compares: group, name, durability, median, and the rates of `extra_info`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

__all__ = ["main"]


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
        columns = [key for key in rows[0] if key not in {"group", "name", "rounds", "wall_s"}]
        lines += [f"### {group}", "", f"| | {' | '.join(columns)} |"]
        lines += ["|---" * (len(columns) + 1) + "|"]
        for row in rows:
            cells = [_cell(row.get(column, "")) for column in columns]
            lines.append(f"| {row['name']} | {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


def _cell(value: object) -> str:
    return f"{value:,}" if isinstance(value, int | float) else str(value)


def main(source: str, target: str) -> None:
    """Read `source`; write `target`.json and print the tables."""
    small = compact(json.loads(Path(source).read_text()))
    Path(target).write_text(json.dumps(small, indent=1) + "\n")
    print(table(small))


if __name__ == "__main__":
    main(*sys.argv[1:])
