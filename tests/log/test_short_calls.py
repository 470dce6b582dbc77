"""The real file system's calls under the log: cut short, interrupted, refused (F10, F12, F29)."""

from __future__ import annotations

import re

import pytest

from tests.log.short_calls import run_under


@pytest.mark.slow
@pytest.mark.parametrize("name", ["short_contract.py", "short_resources.py"])
def test_the_contract_holds_over_the_real_calls(name: str) -> None:
    report = run_under(
        "-m", "pytest", "-q", "--maxfail=5", "-p", "no:cacheprovider", f"tests/log/{name}"
    )
    summary = re.search(r"(\d+) passed", report)
    assert summary is not None, report
    assert int(summary[1]) > (400 if name == "short_contract.py" else 10)
