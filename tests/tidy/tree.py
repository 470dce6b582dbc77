"""The files that the tidy checks read: found on disk, so that a copied tree is checked too."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

__all__ = ["ROOT", "documents", "sources"]

ROOT = Path(__file__).resolve().parents[2]
_ROOMS = ("copycat", "csrc", "tests", "bench")
_SUFFIXES = (".py", ".pyi", ".pyx", ".pxd", ".pxi", ".hpp", ".cpp")
_GENERATED = ("copycat/storage/_native.cpp",)


def sources(*suffixes: str, rooms: tuple[str, ...] = _ROOMS) -> Iterator[tuple[str, str]]:
    """(path from the root, text) of every source file we wrote, in a stable order."""
    chosen = suffixes or _SUFFIXES
    paths = [path for room in rooms for path in (ROOT / room).rglob("*")]
    for path in sorted([*paths, ROOT / "setup.py"]):
        name = path.relative_to(ROOT).as_posix()
        if path.suffix in chosen and name not in _GENERATED and path.is_file():
            yield name, path.read_text(encoding="utf-8")


def documents() -> Iterator[tuple[str, str]]:
    """(path from the root, text) of every Markdown document."""
    for path in sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("bench/*.md")]):
        yield path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")
