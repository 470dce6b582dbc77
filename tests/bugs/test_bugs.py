"""Seeded bugs (faults.md section 6): each known bug, put back, is caught by what names it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, cast

import pytest

from tests.bugs.native import build_extension
from tests.bugs.tree import PATCHES, apply, copy_tree, read_bug, run


def test_there_are_enough_bugs() -> None:
    assert len(PATCHES) >= 40


class Outcome(NamedTuple):
    """What became of a tree with one bug put back."""

    drift: str
    """Why the patch does not apply; empty when it does."""
    returncode: int
    words: str


def tried(patch: Path, tree: Path) -> Outcome:
    bug = read_bug(patch)
    copy_tree(tree)
    applied = apply(patch, tree)
    if applied.returncode != 0:
        return Outcome(applied.stderr or "it does not apply", 0, "")
    if bug.is_native:
        build_extension(tree)
    found = run(bug.run, tree)
    return Outcome("", found.returncode, found.stdout + found.stderr)


@pytest.fixture(scope="module")
def outcomes(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[Path, Future[Outcome]]]:
    """Of every bug that this run asks for: each is a process of its own, one on each core."""
    chosen = [
        cast("Path", item.callspec.params["patch"])
        for item in request.session.items
        if isinstance(item, pytest.Function) and item.originalname == "test_the_bug_is_caught"
    ]
    pool = ThreadPoolExecutor(os.cpu_count())
    trees = {patch: tmp_path_factory.mktemp(patch.stem) for patch in chosen}
    yield {patch: pool.submit(tried, patch, tree) for patch, tree in trees.items()}
    pool.shutdown(cancel_futures=True)


@pytest.mark.slow
@pytest.mark.parametrize("patch", PATCHES, ids=lambda patch: patch.stem)
def test_the_bug_is_caught(patch: Path, outcomes: dict[Path, Future[Outcome]]) -> None:
    bug = read_bug(patch)
    found = outcomes[patch].result()
    assert not found.drift, f"{patch.name} has drifted: {found.drift}"
    assert found.returncode != 0, f"not caught: {bug.bug}\n{found.words[-2000:]}"
    assert re.search(bug.says, found.words), f"caught for another reason:\n{found.words[-4000:]}"


@pytest.mark.slow
def test_without_a_bug_nothing_is_caught(tmp_path: Path) -> None:
    """The control: what catches the bugs by seeds is quiet on the same tree without them."""
    copy_tree(tmp_path)
    for words in sorted({read_bug(patch).run for patch in PATCHES if "sim" in patch.read_text()}):
        found = run(words, tmp_path)
        assert found.returncode == 0, found.stdout + found.stderr


@pytest.mark.slow
def test_a_patch_that_drifted_is_noticed(tmp_path: Path) -> None:
    copy_tree(tmp_path)
    (tmp_path / "drifted.patch").write_text(
        "--- a/copycat/types.py\n+++ b/copycat/types.py\n@@ -1 +1 @@\n-not there\n+x\n",
        encoding="utf-8",
    )
    assert apply(tmp_path / "drifted.patch", tmp_path).returncode != 0
