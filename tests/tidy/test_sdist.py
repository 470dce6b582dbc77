"""A source distribution is the whole tree: whoever packages copycat can build and test it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tests.tidy.tree import ROOT

_PARTS = ("copycat", "csrc", "tests", "bench", "docs", ".ci")
_MADE = (".so", ".pyc", "_native.cpp")


def expected_files() -> set[str]:
    """What a clone has and a build does not make, as paths from the root."""
    files = [*ROOT.glob("*.*"), ROOT / "Makefile", ROOT / "LICENSE"]
    files += [path for part in _PARTS for path in (ROOT / part).rglob("*")]
    hidden = {".gitignore", ".git"}
    return {
        path.relative_to(ROOT).as_posix()
        for path in files
        if path.is_file()
        and not path.name.endswith(_MADE)
        and path.name not in hidden
        and "results" not in path.parts
        and "__pycache__" not in path.parts
    }


@pytest.mark.slow
def test_an_sdist_has_every_file_of_the_tree(tmp_path: Path) -> None:
    names = expected_files()
    for name in names:
        target = tmp_path / "tree" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, target)
    subprocess.run(
        [sys.executable, "-c", "from setuptools import build_meta as b; b.build_sdist('..')"],
        cwd=tmp_path / "tree",
        env={**os.environ, "NO_EXTENSION": "1"},
        capture_output=True,
        check=True,
    )
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        packed = {name.partition("/")[2] for name in tar.getnames()}
    assert names <= packed, sorted(names - packed)
