"""A copy of the source tree with one known bug put back, and what the suite says of it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from tests.sim.test_determinism import SEEDS as RUN_TWICE
from tests.tidy.functions import functions
from tests.tidy.tree import ROOT

__all__ = [
    "BUGS",
    "Bug",
    "Change",
    "DriftError",
    "apply",
    "control_runs",
    "copy_tree",
    "read_bug",
    "run",
]

BUGS = sorted((ROOT / "tests" / "bugs").glob("*.toml"))
_CONTROL_SEEDS = 7
"""So many in one run: the cores share them evenly."""
_WITHOUT = ("-p", "no:cacheprovider", "-p", "no:benchmark")
"""A fifth of a second of each start is the import of what only benchmarks use."""
_LIMIT_S = 600
"""What takes so long hangs; a busy machine does not."""


class DriftError(Exception):
    """The text that a bug replaces is not there, or is there more than once: look at it."""


class Change(NamedTuple):
    """One text inside one function. Where the function stands, or what is around it, is free to
    move; function "" is the whole file."""

    file: str
    function: str
    old: str
    new: str

    def apply(self, tree: Path) -> None:
        """Replace the text in a copied tree. Raises DriftError."""
        path = tree / self.file
        if not path.is_file():
            raise DriftError(f"{self.file} is not there")
        text = path.read_text(encoding="utf-8")
        lines = text.splitlines(keepends=True)
        places = [
            (first - 1, last)
            for name, first, last in functions(self.file, text)
            if name == self.function
        ]
        offsets: set[int] = set()
        for begin, end in places if self.function else [(0, len(lines))]:
            offset = len("".join(lines[:begin]))
            body = "".join(lines[begin:end])
            at = body.find(self.old)
            while at >= 0:
                offsets.add(offset + at)
                at = body.find(self.old, at + 1)
        if len(offsets) != 1:
            where = f"{self.file}, function {self.function!r}"
            raise DriftError(f"{where}: the old text is there {len(offsets)} times\n{self.old}")
        at = offsets.pop()
        text = text[:at] + self.new + text[at + len(self.old) :]
        path.write_text(text, encoding="utf-8")
        for compiled in (path.parent / "__pycache__").glob(f"{path.stem}.*"):
            compiled.unlink()


class Bug(NamedTuple):
    """A file of this folder.

    bug: what is wrong, in a sentence. rule: which rules and invariants it breaks. run: what
    catches it, as `pytest ARGUMENTS` or `sim ARGUMENTS`. says: a pattern in what that prints,
    so that a test which fails for another reason does not count.
    """

    bug: str
    rule: str
    run: tuple[str, ...]
    says: str
    changes: tuple[Change, ...]

    @property
    def is_native(self) -> bool:
        """True when the extension must be built anew."""
        return any(change.file.startswith("csrc/") for change in self.changes)


def read_bug(path: Path) -> Bug:
    """A bug from its file; KeyError when a field is missing."""
    fields = tomllib.loads(path.read_text(encoding="utf-8"))
    changes = tuple(Change(**change) for change in fields["change"])
    run = tuple(fields["run"].split())
    return Bug(fields["bug"], fields["rule"], run, fields["says"], changes)


def copy_tree(to: Path) -> None:
    """What a run of the suite needs, the built extension too; not these bugs themselves."""
    shutil.copytree(ROOT / "copycat", to / "copycat", ignore=_left_out)
    shutil.copytree(ROOT / "csrc", to / "csrc")
    shutil.copytree(ROOT / "tests", to / "tests", ignore=_left_out)
    shutil.copy(ROOT / "pyproject.toml", to)


def _left_out(folder: str, names: list[str]) -> list[str]:
    """Compiled modules are taken along, whose files keep their times; not those that some process
    is writing now."""
    if Path(folder).name == "__pycache__":
        return [name for name in names if not name.endswith(".pyc")]
    return [name for name in names if name in ("_native.cpp", "bugs")]


def apply(bug: Bug, to: Path) -> None:
    """Put the bug into a copied tree. Raises DriftError."""
    for change in bug.changes:
        change.apply(to)


def control_runs(bugs: Iterable[Bug]) -> list[tuple[str, ...]]:
    """Runs of every seed that is to catch one of the bugs, each seed once: they must be quiet on
    a tree without a bug. Those that tests/sim/test_determinism.py runs are left to it."""
    seeds: set[int] = set()
    for bug in bugs:
        if bug.run[0] == "sim":
            count, first = (int(bug.run[bug.run.index(at) + 1]) for at in ("--seeds", "--from"))
            seeds.update(range(first, first + count))
    runs: list[range] = []
    for seed in sorted(seeds.difference(RUN_TWICE)):
        if runs and seed == runs[-1].stop and len(runs[-1]) < _CONTROL_SEEDS:
            runs[-1] = range(runs[-1].start, seed + 1)
        else:
            runs.append(range(seed, seed + 1))
    return [
        ("sim", "--seeds", f"{len(run)}", "--from", f"{run.start}", "--jobs", "1") for run in runs
    ]


def run(words: tuple[str, ...], at: Path) -> subprocess.CompletedProcess[str]:
    """`pytest ...` or `sim ...` on the tree `at`, not on ours."""
    tool, *arguments = words
    modules = {
        "pytest": ["pytest", "-q", "-x", *_WITHOUT, "--seed-base=1"],
        "sim": ["copycat.sim"],
    }
    return subprocess.run(
        [sys.executable, "-m", *modules[tool], *arguments],
        cwd=at,
        env={**os.environ, "PYTHONPATH": str(at), "PYTHONDONTWRITEBYTECODE": ""},
        capture_output=True,
        text=True,
        check=False,
        timeout=_LIMIT_S,
    )
