"""The stub of the extension says what the module has: checked by mypy's stubtest."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tidy.tree import ROOT


def stubtest(module: str, *, at: Path) -> subprocess.CompletedProcess[str]:
    """Compare `module`, importable from `at`, with its stub."""
    settings = f"--mypy-config-file={ROOT / 'pyproject.toml'}"
    return subprocess.run(
        [sys.executable, "-m", "mypy.stubtest", module, "--concise", settings],
        cwd=at,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_the_stub_matches_the_extension() -> None:
    done = stubtest("copycat.storage._native", at=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    # A module that is not there at all is no error to stubtest; it must be here.
    assert importlib.import_module("copycat.storage._native").__file__


@pytest.mark.slow
def test_the_stub_check_fires(tmp_path: Path) -> None:
    (tmp_path / "pair.py").write_text("def f(x): return x\n", encoding="utf-8")
    (tmp_path / "pair.pyi").write_text("def f(x: int, y: int) -> int: ...\n", encoding="utf-8")
    done = stubtest("pair", at=tmp_path)
    assert done.returncode == 1
    assert "pair.f" in done.stdout
