"""Public is what is listed (house rule 17), and importing it costs what was promised."""

from __future__ import annotations

import ast
import subprocess
import sys

import pytest

import copycat
from tests.tidy.tree import ROOT, sources

# Runnable files have no importers.
_NO_NAMES = ("copycat/__main__.py",)


def lists_its_names(text: str) -> bool:
    """True when a module assigns `__all__` at its top level, or has nothing but prose."""
    body = ast.parse(text).body
    if all(isinstance(node, ast.Expr) for node in body):
        return True
    targets = [
        target
        for node in body
        if isinstance(node, ast.Assign | ast.AnnAssign)
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
    ]
    return any(isinstance(target, ast.Name) and target.id == "__all__" for target in targets)


def test_public_names_are_sorted_and_there() -> None:
    assert list(copycat.__all__) == sorted(copycat.__all__)
    assert len(set(copycat.__all__)) == len(copycat.__all__)
    missing = [name for name in copycat.__all__ if not hasattr(copycat, name)]
    assert not missing


def test_dir_shows_nothing_else() -> None:
    strays = [name for name in dir(copycat) if not name.startswith("__")]
    assert strays == sorted(copycat.__all__)


def test_every_module_lists_its_names() -> None:
    modules = [
        name
        for name, text in sources(".py", rooms=("copycat",))
        if name.startswith("copycat/")
        and name not in _NO_NAMES
        and not name.endswith("__main__.py")
        and not lists_its_names(text)
    ]
    assert not modules, f"no __all__ in {modules}"


def test_the_names_check_fires() -> None:
    assert not lists_its_names("def f(): ...")
    assert not lists_its_names("def f():\n    __all__ = []")
    assert lists_its_names("__all__ = ['f']")
    assert lists_its_names('"""Only prose."""')
    assert lists_its_names("__all__: list[str] = []")


def imported_by(statement: str) -> set[str]:
    """Every module in memory after `statement` in a fresh interpreter."""
    program = f"import sys\n{statement}\nprint(' '.join(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("statement", "heavy"),
    [
        ("import copycat", {"asyncio", "numpy", "msgspec", "click", "rich", "lz4"}),
        ("from copycat import Log", {"asyncio", "numpy", "click", "rich", "lz4"}),
        ("from copycat import CopycatServer, CopycatClient", {"numpy", "click", "rich"}),
        ("import copycat.cli.main", {"asyncio", "numpy", "rich"}),
    ],
)
def test_imports_stay_light(statement: str, heavy: set[str]) -> None:
    assert not imported_by(statement) & heavy


@pytest.mark.slow
def test_the_import_check_fires() -> None:
    assert "asyncio" in imported_by("import asyncio")
