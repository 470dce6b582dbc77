"""The guide's programs run as printed, and print what the block behind them says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.tidy.test_readme import run
from tests.tidy.tree import documents

_PROGRAM = re.compile(
    r"^```python\n(?P<program>.*?)^```$(?:\n\nIt prints:\n\n```\n(?P<output>.*?)^```$)?",
    re.MULTILINE | re.DOTALL,
)


def programs(text: str) -> list[tuple[str, str]]:
    """(program, what it prints) of a document; a program without such a block prints nothing."""
    return [(match["program"], match["output"] or "") for match in _PROGRAM.finditer(text)]


GUIDE = [
    pytest.param(*program, id=f"{name}-{number}")
    for name, text in documents()
    if name.startswith("docs/guide/")
    for number, program in enumerate(programs(text))
]


@pytest.mark.parametrize(("program", "output"), GUIDE)
def test_a_program_of_the_guide_prints_what_it_says(
    tmp_path: Path, program: str, output: str
) -> None:
    assert run(program, tmp_path) == output


def test_the_programs_are_found() -> None:
    assert len(GUIDE) >= 4
    text = "```python\na\n```\n\nIt prints:\n\n```\nb\n```\n\n```python\nc\n```\n\n```\nd\n```\n"
    assert programs(text) == [("a\n", "b\n"), ("c\n", "")]
