"""Builds the extension of a copied tree quickly: what no patch touches is compiled once.

Objects are kept in build/bugs by the digest of everything that they were made of, and built
without optimisation: a seeded bug then costs its own file and a link.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import sysconfig
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.tidy.tree import ROOT

__all__ = ["build_extension"]

_CACHE = ROOT / "build" / "bugs"
_FLAGS = ["-std=c++20", "-O0", "-fPIC", "-fvisibility=hidden", "-DNDEBUG"]
_INCLUDE = re.compile(r'^#include "([^"]+)"', re.MULTILINE)


def build_extension(tree: Path) -> None:
    """Compile and link copycat.storage._native of `tree`, in place of the one that was copied."""
    compiler = os.environ.get("CXX", "g++")
    shim = _shim(tree)
    sources = [*sorted((tree / "csrc").glob("*.cpp")), shim]
    with ThreadPoolExecutor(2) as pool:
        objects = list(pool.map(lambda source: _object(compiler, tree, source), sources))
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    target = tree / "copycat" / "storage" / f"_native{suffix}"
    target.unlink(missing_ok=True)
    _call([compiler, "-shared", "-o", str(target), *map(str, objects)])


def _shim(tree: Path) -> Path:
    """The C++ that Cython makes of the shim; made once, for no patch touches the .pyx."""
    shim = tree / "copycat" / "storage"
    parts = sorted([*shim.glob("*.pyx"), *shim.glob("*.pxd"), *shim.glob("*.pxi")])
    made = _CACHE / f"_native-{_digest(parts)}.cpp"
    if not made.exists():
        _CACHE.mkdir(parents=True, exist_ok=True)
        aside = made.with_suffix(f".{_mine()}.cpp")
        cython = [sys.executable, "-m", "cython", "-3", "--cplus"]
        _call([*cython, "-o", str(aside), str(shim / "_native.pyx")])
        aside.rename(made)
    return made


def _object(compiler: str, tree: Path, source: Path) -> Path:
    """The object file of one source, from the cache when nothing that it includes changed."""
    folders = [tree / "csrc", tree / "copycat" / "storage"]
    made = _CACHE / f"{source.stem}-{_digest(_closure(source, folders))}.o"
    if not made.exists():
        _CACHE.mkdir(parents=True, exist_ok=True)
        aside = made.with_suffix(f".{_mine()}.o")
        includes = [*map(str, folders), sysconfig.get_paths()["include"]]
        flags = [*_FLAGS, *(f"-I{folder}" for folder in includes)]
        _call([compiler, *flags, "-c", str(source), "-o", str(aside)])
        aside.rename(made)
    return made


def _closure(source: Path, folders: list[Path]) -> list[Path]:
    """`source` and every header of ours that it includes, directly or not."""
    found: dict[Path, None] = {}
    waiting = [source]
    while waiting:
        path = waiting.pop()
        if path in found:
            continue
        found[path] = None
        for name in _INCLUDE.findall(path.read_text(encoding="utf-8")):
            waiting += [folder / name for folder in folders if (folder / name).exists()]
    return sorted(found)


def _digest(paths: list[Path]) -> str:
    digest = hashlib.sha256(" ".join(_FLAGS).encode())
    for path in sorted(paths, key=lambda one: one.name):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def _mine() -> str:
    """In the name of a file that only this thread writes."""
    return f"{os.getpid()}-{threading.get_ident()}"


def _call(arguments: list[str]) -> None:
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise AssertionError(f"{' '.join(arguments)}\n{done.stderr}")
