"""The commands of the tutorials, typed one after the other, print what the pages say."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cli.transcript import Step, comparable, program, shell, steps
from tests.tidy.tree import ROOT

GUIDE = ROOT / "docs" / "guide"


@pytest.mark.slow
@pytest.mark.parametrize("page", ["cluster.md", "replace-a-member.md", "quorum-lost.md"])
def test_a_tutorial_prints_what_it_says(page: str, tmp_path: Path) -> None:
    text = (GUIDE / page).read_text(encoding="utf-8")
    (tmp_path / "shop.py").write_text(program((GUIDE / "cluster.md").read_text(encoding="utf-8")))
    with contextmanager(shell)(text, tmp_path) as typed:
        for step in steps(text):
            typed.run(step)


def test_a_command_and_its_output_are_found() -> None:
    text = "```\n$ a b\nc\nd\n$ e\n```\n\n```\nno command\n```\n\n```\n$ f\n```\n"
    assert steps(text) == [Step("a b", ["c", "d"]), Step("e", []), Step("f", [])]


def test_only_what_may_differ_is_left_out() -> None:
    one = [
        "waiting for somebody",
        "127.0.0.1:8701  active  leader    1   9",
        'cluster "copycat" · term 1 · leader 127.0.0.1:8701 · quorum 2 of 3',
    ]
    other = [
        "127.0.0.1:8701  active  follower  22  –",
        'cluster "copycat" · term 22 · leader 127.0.0.1:8702 · quorum 2 of 3',
    ]
    assert comparable(one) == comparable(other)
    for changed in ("passive  leader  1  9", "active  unreachable  1  9"):
        assert comparable([f"127.0.0.1:8701  {changed}"]) != comparable(one[:2])
    assert comparable(["127.0.0.1:8702  active  leader  1  9"]) != comparable(one[:2])
    assert comparable(["quorum 2 of 3"]) != comparable(["quorum 3 of 3"])
