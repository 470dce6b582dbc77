"""A copy of the source tree with one known bug put back, and what the suite says of it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from tests.tidy.tree import ROOT

__all__ = ["PATCHES", "Bug", "apply", "copy_tree", "read_bug", "run"]

PATCHES = sorted((ROOT / "tests" / "bugs").glob("*.patch"))
_FIELD = re.compile(r"^(Bug|Rule|Run|Says): (.+)$", re.MULTILINE)
_LIMIT_S = 600
"""What takes so long hangs; a busy machine does not."""


class Bug(NamedTuple):
    """What stands above the diff of a patch file.

    bug: what is wrong, in a sentence. rule: which rules and invariants it breaks. run: what
    catches it, as `pytest ARGUMENTS` or `sim ARGUMENTS`. says: a pattern in what that prints,
    so that a test which fails for another reason does not count.
    """

    patch: Path
    bug: str
    rule: str
    run: tuple[str, ...]
    says: str

    @property
    def is_native(self) -> bool:
        """True when the extension must be built anew."""
        return "+++ b/csrc/" in self.patch.read_text(encoding="utf-8")


def read_bug(patch: Path) -> Bug:
    """The four fields of a patch file; KeyError when one is missing."""
    head = patch.read_text(encoding="utf-8").split("\n--- ", 1)[0]
    fields = dict(_FIELD.findall(head))
    return Bug(patch, fields["Bug"], fields["Rule"], tuple(fields["Run"].split()), fields["Says"])


def copy_tree(to: Path) -> None:
    """What a run of the suite needs, the built extension too; not these bugs themselves."""
    ignore = shutil.ignore_patterns("__pycache__", "_native.cpp", "bugs")
    shutil.copytree(ROOT / "copycat", to / "copycat", ignore=ignore)
    shutil.copytree(ROOT / "csrc", to / "csrc")
    shutil.copytree(ROOT / "tests", to / "tests", ignore=ignore)
    shutil.copy(ROOT / "pyproject.toml", to)


def apply(patch: Path, to: Path) -> subprocess.CompletedProcess[str]:
    """Apply a patch to a copied tree; no fuzz: a patch that drifted must be looked at."""
    return subprocess.run(
        ["git", "apply", "--unsafe-paths", f"--directory={to}", str(patch)],  # noqa: S607
        cwd=to,
        env={**os.environ, "GIT_CEILING_DIRECTORIES": str(to.parent)},
        capture_output=True,
        text=True,
        check=False,
    )


def run(words: tuple[str, ...], at: Path) -> subprocess.CompletedProcess[str]:
    """`pytest ...` or `sim ...` on the tree `at`, not on ours."""
    tool, *arguments = words
    modules = {
        "pytest": ["pytest", "-q", "-x", "-p", "no:cacheprovider", "--seed-base=1"],
        "sim": ["copycat.sim"],
    }
    return subprocess.run(
        [sys.executable, "-m", *modules[tool], *arguments],
        cwd=at,
        env={**os.environ, "PYTHONPATH": str(at), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=_LIMIT_S,
    )
