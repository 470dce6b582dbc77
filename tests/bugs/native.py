"""Builds the extension of a copied tree quickly: a seeded bug costs its own file and a link.

The other object files are those that `make build` left, as long as they were made of the very
sources and headers of the copy. What has no such object is compiled without optimisation, once:
these objects are kept in build/bugs by the digest of everything that they were made of.
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
_BUILT = ROOT / "build" / f"temp.{sysconfig.get_platform()}-{sys.implementation.cache_tag}"
_SHIM = Path("copycat", "storage", "_native.pyx")
_FLAGS = ["-std=c++20", "-O0", "-fPIC", "-fvisibility=hidden", "-DNDEBUG"]
_INCLUDE = re.compile(r'^#include "([^"]+)"', re.MULTILINE)


def build_extension(tree: Path) -> None:
    """Compile and link copycat.storage._native of `tree`, in place of the one that was copied."""
    compiler = os.environ.get("CXX", "g++")

    def object_of(source: Path) -> Path:
        if built := _built(tree, source):
            return built
        return _object(compiler, tree, _shim(tree) if source.suffix == ".pyx" else source)

    sources = [*sorted((tree / "csrc").glob("*.cpp")), tree / _SHIM]
    with ThreadPoolExecutor(2) as pool:
        objects = list(pool.map(object_of, sources))
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    target = tree / "copycat" / "storage" / f"_native{suffix}"
    target.unlink(missing_ok=True)
    _call([compiler, "-shared", "-o", str(target), *map(str, objects)])


def _built(tree: Path, source: Path) -> Path | None:
    """The object file that `make build` made of `source`; None when the copy has another text in
    `source` or in any header, or when a file of ours changed after the build."""
    made = _BUILT / source.relative_to(tree).with_suffix(".o")
    if not made.exists():
        return None
    parts = _cython(tree) if source.suffix == ".pyx" else [source]
    for part in [*parts, *tree.glob("csrc/*.hpp"), *tree.glob("copycat/storage/*.hpp")]:
        ours = ROOT / part.relative_to(tree)
        if not ours.exists() or ours.stat().st_mtime > made.stat().st_mtime:
            return None
        if ours.read_bytes() != part.read_bytes():
            return None
    return made


def _cython(tree: Path) -> list[Path]:
    """The files that Cython makes the shim of."""
    shim = tree / _SHIM.parent
    return sorted([*shim.glob("*.pyx"), *shim.glob("*.pxd"), *shim.glob("*.pxi")])


def _shim(tree: Path) -> Path:
    """The C++ that Cython makes of the shim; made once, for no bug touches the .pyx."""
    parts = _cython(tree)
    made = _CACHE / f"_native-{_digest(parts)}.cpp"
    if not made.exists():
        _CACHE.mkdir(parents=True, exist_ok=True)
        aside = made.with_suffix(f".{_mine()}.cpp")
        cython = [sys.executable, "-m", "cython", "-3", "--cplus"]
        _call([*cython, "-o", str(aside), str(tree / _SHIM)])
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
    files: dict[Path, None] = {}
    waiting = [source]
    while waiting:
        path = waiting.pop()
        if path in files:
            continue
        files[path] = None
        for name in _INCLUDE.findall(path.read_text(encoding="utf-8")):
            waiting += [folder / name for folder in folders if (folder / name).exists()]
    return sorted(files)


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
