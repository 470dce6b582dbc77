"""Every transcript in this folder is what happens (`--rewrite`, or `make golden`, renews it)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.golden import compare_or_rewrite
from tests.scripts.runner import run_transcript

SCRIPTS = sorted(Path(__file__).parent.glob("*.txt"))


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_script(path: Path, rewrite: bool) -> None:
    compare_or_rewrite(path, run_transcript(path), rewrite=rewrite)


def test_a_changed_script_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "elections.txt"
    path.write_text("cluster active=1\n----\nsomething else\n", encoding="utf-8")
    with pytest.raises(AssertionError, match="differs"):
        compare_or_rewrite(path, run_transcript(path), rewrite=False)
