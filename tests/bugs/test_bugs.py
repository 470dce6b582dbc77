"""Seeded bugs (faults.md section 6): each known bug, put back, is caught by what names it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.bugs.native import build_extension
from tests.bugs.tree import PATCHES, apply, copy_tree, read_bug, run


def test_there_are_enough_bugs() -> None:
    assert len(PATCHES) >= 40


@pytest.mark.slow
@pytest.mark.parametrize("patch", PATCHES, ids=lambda patch: patch.stem)
def test_the_bug_is_caught(patch: Path, tmp_path: Path) -> None:
    bug = read_bug(patch)
    copy_tree(tmp_path)
    applied = apply(patch, tmp_path)
    assert applied.returncode == 0, f"{patch.name} has drifted: {applied.stderr}"
    if bug.is_native:
        build_extension(tmp_path)
    found = run(bug.run, tmp_path)
    words = found.stdout + found.stderr
    assert found.returncode != 0, f"not caught: {bug.bug}\n{words[-2000:]}"
    assert re.search(bug.says, words), f"caught for another reason:\n{words[-4000:]}"


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
