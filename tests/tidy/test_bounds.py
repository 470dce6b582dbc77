"""docs/reference/settings.md: the bounds that it names are those of the code."""

from __future__ import annotations

import importlib
import re

import msgspec
import pytest

from tests.tidy.tree import ROOT

_ROW = re.compile(
    r"^\| .+ \| (?P<bound>[^|]+) \| `copycat/(?P<file>[a-z_/]+)\.py:(?P<name>[\w.]+)` \|$"
)
_SIZE = re.compile(r"^(\d+) ([KMG])iB")
_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def rows() -> list[tuple[str, str, str]]:
    """(bound, module, name) of every row with a place in the code."""
    text = (ROOT / "docs/reference/settings.md").read_text(encoding="utf-8")
    matches = [match for line in text.splitlines() if (match := _ROW.match(line))]
    return [(row["bound"], row["file"].replace("/", "."), row["name"]) for row in matches]


def value_of(module: str, name: str) -> object:
    owner, _, field = name.partition(".")
    value = getattr(importlib.import_module(f"copycat.{module}"), owner)
    if not field:
        return value
    return next(each.default for each in msgspec.structs.fields(value) if each.name == field)


@pytest.mark.parametrize(("bound", "module", "name"), rows())
def test_a_bound_is_that_of_the_code(bound: str, module: str, name: str) -> None:
    value = value_of(module, name)
    size = _SIZE.match(bound)
    if size is not None:
        assert value == int(size[1]) * _UNITS[size[2]]


def test_there_are_bounds() -> None:
    assert sum(_SIZE.match(bound) is not None for bound, _, _ in rows()) > 12
