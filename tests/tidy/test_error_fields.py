"""An error is raised with fields that its class declares, and code reads them as attributes."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from copycat import errors
from copycat.errors import CopycatError, DiskError, InvariantError, unreachable

ROOT = Path(__file__).parents[2]
GENERAL = {"hint", "state"}
CLASSES = {
    name: kind
    for name, kind in vars(errors).items()
    if isinstance(kind, type) and issubclass(kind, CopycatError)
}


def undeclared(path: Path) -> list[str]:
    problems = []
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
            continue
        kind = CLASSES.get(node.func.id)
        if kind is None:
            continue
        problems += [
            f"{path.relative_to(ROOT)}:{node.lineno}: {node.func.id} declares no {word.arg}"
            for word in node.keywords
            if word.arg not in GENERAL and not hasattr(kind, str(word.arg))
        ]
    return problems


def test_every_field_that_an_error_is_raised_with_is_declared() -> None:
    problems = [line for path in (ROOT / "copycat").rglob("*.py") for line in undeclared(path)]
    assert not problems, "\n".join(problems)


def test_no_code_guesses_what_an_error_has() -> None:
    problems = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for path in (ROOT / "copycat").rglob("*.py")
        for line in path.read_text().splitlines()
        if "getattr(error" in line or "getattr(cause" in line
    ]
    assert not problems, "\n".join(problems)


def test_a_field_that_is_not_declared_is_refused() -> None:
    assert DiskError("it failed", errno=5, path="/x").path == "/x"
    with pytest.raises(TypeError, match="DiskError has no field 'colour'"):
        DiskError("it failed", colour="red")


def test_a_line_that_is_reached_against_a_law_says_with_which_values() -> None:
    with pytest.raises(InvariantError, match=r"nobody comes here \(kind=3\)"):
        unreachable("nobody comes here", kind=3)
