"""The arrows of ARCHITECTURE.md: import-linter's contracts, and the imports it cannot see."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tidy.tree import ROOT, sources

_CYTHON_IMPORT = re.compile(
    r"^\s*(?:from\s+([\w.]+)\s+c?import\b|c?import\s+([\w.]+))", re.MULTILINE
)
# What the extension may know: the floor and its own room.
# A server makes clients, which live beside it: it asks the root package for the class, late.
_GUESTS = ("copycat/cli/", "copycat/__main__.py", "copycat/server/server.py")
_BELOW_STORAGE = ("copycat.types", "copycat.errors", "copycat.storage")
_KNOW_THE_EXTENSION = ("copycat/storage/", "copycat/member/", "copycat/log/")


def lint(root: Path) -> subprocess.CompletedProcess[str]:
    """Run import-linter on the copycat package in `root`."""
    return subprocess.run(
        [Path(sys.executable).parent / "lint-imports", "--no-cache"],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=False,
    )


def imports_of(text: str) -> set[str]:
    """Every module that a Python file imports, wherever the statement stands."""
    modules: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return modules


def knows_the_extension(name: str, text: str) -> bool:
    """True when a file of another room imports `copycat.storage._native`."""
    return not name.startswith(_KNOW_THE_EXTENSION) and "copycat.storage._native" in imports_of(
        text
    )


def goes_by_the_front_door(name: str, text: str) -> bool:
    """True when a room imports the root package, and with it every room (but see _GUESTS)."""
    return not name.startswith(_GUESTS) and "copycat" in imports_of(text)


def strangers_of_pyx(text: str) -> set[str]:
    """Modules of ours that Cython files import and must not."""
    names = {first or second for first, second in _CYTHON_IMPORT.findall(text)}
    ours = {name for name in names if name.split(".")[0] == "copycat"}
    return {name for name in ours if not name.startswith(_BELOW_STORAGE)}


@pytest.mark.slow
def test_imports_go_down() -> None:
    done = lint(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("raft/events.py", "import copycat.storage.interface"),
        ("raft/events.py", "import time"),
        ("protocol/peer.py", "import copycat.raft.events"),
        ("client/__init__.py", "import copycat.machine.apply_result"),
        ("errors.py", "import copycat.types"),
    ],
)
def test_the_import_check_fires(tmp_path: Path, file: str, line: str) -> None:
    shutil.copytree(
        ROOT / "copycat", tmp_path / "copycat", ignore=shutil.ignore_patterns("*.so", "*.cpp")
    )
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    with (tmp_path / "copycat" / file).open("a", encoding="utf-8") as stream:
        stream.write(f"\n{line}\n")
    done = lint(tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "BROKEN" in done.stdout


def test_only_storage_and_the_logs_above_know_the_extension() -> None:
    problems = [
        name
        for name, text in sources(".py", rooms=("copycat",))
        if knows_the_extension(name, text)
    ]
    assert not problems


def test_no_room_goes_by_the_front_door() -> None:
    problems = [
        name
        for name, text in sources(".py", rooms=("copycat",))
        if goes_by_the_front_door(name, text)
    ]
    assert not problems


def test_the_extension_knows_the_floor_only() -> None:
    for name, text in sources(".pyx", ".pxd", ".pxi", rooms=("copycat",)):
        assert not strangers_of_pyx(text), name


def test_the_cpp_log_knows_no_python() -> None:
    for name, text in sources(".cpp", ".hpp", rooms=("csrc",)):
        assert "Python.h" not in text, name


def test_the_core_holds_no_bytes() -> None:
    for name, text in sources(".py", rooms=("copycat",)):
        if name.startswith("copycat/raft/"):
            assert not names_bytes(text), f"{name}: entries are named, not carried"


def names_bytes(text: str) -> bool:
    """True when a file uses the name `bytes`, `bytearray` or `memoryview`."""
    good = {"bytes", "bytearray", "memoryview"}
    return any(
        isinstance(node, ast.Name) and node.id in good for node in ast.walk(ast.parse(text))
    )


def test_the_reading_checks_fire() -> None:
    assert knows_the_extension("copycat/sim/a.py", "def f():\n    import copycat.storage._native")
    assert knows_the_extension("copycat/sim/a.py", "from copycat.storage import _native")
    assert knows_the_extension("copycat/sim/a.py", "from copycat.storage._native import Batch")
    assert not knows_the_extension("copycat/log/a.py", "from copycat.storage import _native")
    assert goes_by_the_front_door("copycat/sim/a.py", "from copycat import Log")
    assert goes_by_the_front_door("copycat/raft/a.py", "import copycat")
    assert not goes_by_the_front_door("copycat/cli/a.py", "from copycat import Log")
    assert not goes_by_the_front_door("copycat/raft/a.py", "from copycat.types import Span")
    assert strangers_of_pyx("cimport cython\nfrom copycat.raft.events import Tick")
    assert not strangers_of_pyx("from copycat.errors import DiskError\nimport os")
    assert names_bytes("def f(x: bytes) -> None: ...")
