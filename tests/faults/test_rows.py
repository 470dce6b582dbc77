"""The table in README.md: every row has tests, every test in it exists, and bears its row."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
TABLE = ROOT / "tests" / "faults" / "README.md"
ROWS = [f"F{number}" for number in (*range(1, 18), 27, 28, 29)]
"""The others concern several members: docs/internals/rules.md has them all."""

_ROW = re.compile(r"^\| (F\d+) \|[^|]*\| (.*) \|$", re.MULTILINE)
_TEST = re.compile(r"`([\w/]+\.py)::(\w+)`")


def table() -> dict[str, list[tuple[str, str]]]:
    """Row -> (file, test) of each test that it names."""
    text = TABLE.read_text(encoding="utf-8")
    return {row: _TEST.findall(tests) for row, tests in _ROW.findall(text)}


def test_every_row_has_a_test_that_bears_its_name() -> None:
    tests = table()
    assert list(tests) == ROWS
    for row in ROWS:
        assert tests[row], row
        names = [name for _, name in tests[row]]
        assert any(f"{row.lower()}_" in name for name in names), row


def test_every_test_of_the_table_exists() -> None:
    for row, tests in table().items():
        for file, name in tests:
            text = (ROOT / file).read_text(encoding="utf-8")
            assert re.search(rf"def {name}\(", text), f"{row}: {file}::{name}"
