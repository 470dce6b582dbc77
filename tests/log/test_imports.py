"""The import budget: `from copycat import Log` brings no event loop, arrays or codecs."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("asyncio", "numpy", "msgspec", "rich", "click", "lz4", "ssl", "threading", "logging")


def loaded(statement: str) -> set[str]:
    program = f"import sys\n{statement}\nprint(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    return set(done.stdout.split())


@pytest.mark.slow
@pytest.mark.parametrize("statement", ["from copycat import Log", "import copycat.log.log"])
def test_a_log_is_imported_without_anything_heavy(statement: str) -> None:
    assert not loaded(statement) & set(HEAVY)


@pytest.mark.slow
def test_the_check_above_sees_a_heavy_import() -> None:
    assert {"asyncio", "threading"} <= loaded("import asyncio")
