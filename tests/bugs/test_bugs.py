"""Seeded bugs: each known bug, put back, is caught by what names it."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, cast

import pytest

from tests.bugs.native import build_extension
from tests.bugs.tree import BUGS, Change, DriftError, apply, control_runs, copy_tree, read_bug, run
from tests.tidy.tree import ROOT


def test_there_are_enough_bugs() -> None:
    assert len(BUGS) >= 40


class Outcome(NamedTuple):
    """What became of a tree with one bug put back."""

    drift: str
    """Why the bug cannot be put back; empty when it can."""
    returncode: int
    words: str


class Work(NamedTuple):
    """What the cores have to do for the tests of this run."""

    outcomes: dict[Path, Future[Outcome]]
    """Of every bug that this run asks for."""
    controls: list[Future[Outcome]]
    """Of the seeds, without a bug; empty unless this run asks for them."""


def tried(path: Path, tree: Path) -> Outcome:
    bug = read_bug(path)
    copy_tree(tree)
    try:
        apply(bug, tree)
    except DriftError as error:
        return Outcome(str(error), 0, "")
    if bug.is_native:
        build_extension(tree)
    process = run(bug.run, tree)
    return Outcome("", process.returncode, process.stdout + process.stderr)


def controlled(words: tuple[str, ...], tree: Path) -> Outcome:
    process = run(words, tree)
    return Outcome("", process.returncode, process.stdout + process.stderr)


@pytest.fixture(scope="module")
def work(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Work]:
    """Each bug and each part of the control is a process of its own, one on each core."""
    items = [item for item in request.session.items if isinstance(item, pytest.Function)]
    chosen = [
        cast("Path", item.callspec.params["path"])
        for item in items
        if item.originalname == "test_the_bug_is_caught"
    ]
    pool = ThreadPoolExecutor(os.cpu_count())
    trees = {path: tmp_path_factory.mktemp(path.stem) for path in chosen}
    outcomes = {path: pool.submit(tried, path, tree) for path, tree in trees.items()}
    controls = []
    if any(item.name == "test_without_a_bug_nothing_is_caught" for item in items):
        tree = tmp_path_factory.mktemp("control")
        copy_tree(tree)
        runs = control_runs(map(read_bug, BUGS))
        controls = [pool.submit(controlled, words, tree) for words in runs]
    yield Work(outcomes, controls)
    pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize("path", BUGS, ids=lambda path: path.stem)
def test_the_bug_can_be_put_back(path: Path, tmp_path: Path) -> None:
    """Quick: what a change moved away is noticed before the slow tests run."""
    bug = read_bug(path)
    for file in {change.file for change in bug.changes}:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / file, tmp_path / file)
    apply(bug, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("path", BUGS, ids=lambda path: path.stem)
def test_the_bug_is_caught(path: Path, work: Work) -> None:
    bug = read_bug(path)
    outcome = work.outcomes[path].result()
    assert not outcome.drift, f"{path.name} has drifted: {outcome.drift}"
    assert outcome.returncode != 0, f"not caught: {bug.bug}\n{outcome.words[-2000:]}"
    assert re.search(bug.says, outcome.words), (
        f"caught for another reason:\n{outcome.words[-4000:]}"
    )


@pytest.mark.slow
def test_without_a_bug_nothing_is_caught(work: Work) -> None:
    """The control: what catches the bugs by seeds is quiet on the same tree without them."""
    assert work.controls
    for control in work.controls:
        outcome = control.result()
        assert outcome.returncode == 0, outcome.words


def test_the_control_has_each_seed_once() -> None:
    bug = read_bug(BUGS[0])
    runs = [
        ("sim", "--seeds", *of.split(), "--jobs", "1") for of in ("9 --from 12", "3 --from 13")
    ]
    runs += [("sim", "--seeds", "1", "--from", "86", "--jobs", "1"), ("pytest", "tests/raft")]
    made = control_runs(bug._replace(run=words) for words in runs)
    assert [" ".join(words[2:5]) for words in made] == [
        "7 --from 13",
        "1 --from 20",
        "1 --from 86",
    ]


SOURCE = "class A:\n    def f(self):\n        x = 1\n\n    def g(self):\n        x = 1\n"


def test_a_bug_is_put_where_its_function_is(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(SOURCE, encoding="utf-8")
    compiled = tmp_path / "__pycache__" / "a.cpython-311.pyc"
    compiled.parent.mkdir()
    compiled.touch()
    Change("a.py", "A.g", "x = 1", "x = 2").apply(tmp_path)
    assert not compiled.exists(), "an old module would hide the bug"
    assert (tmp_path / "a.py").read_text(encoding="utf-8") == SOURCE[:-2] + "2\n"


@pytest.mark.parametrize(
    ("function", "old"), [("A.f", "x = 3"), ("A.h", "x = 1"), ("", "x = 1"), ("A.g", "def f")]
)
def test_a_bug_that_drifted_is_noticed(tmp_path: Path, function: str, old: str) -> None:
    (tmp_path / "a.py").write_text(SOURCE, encoding="utf-8")
    with pytest.raises(DriftError):
        Change("a.py", function, old, "").apply(tmp_path)
    with pytest.raises(DriftError):
        Change("b.py", function, old, "").apply(tmp_path)
