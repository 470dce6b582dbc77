"""Builds the one extension, copycat.log._native, from csrc/ and its Cython shim.

Switches by environment: DEBUG=1 (-O0 -g), SANITIZE=address,undefined, COVERAGE=1.
"""

import os
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

HERE = Path(__file__).resolve().parent
SHIM = "copycat/log"


def found(pattern: str) -> list[str]:
    return sorted(path.relative_to(HERE).as_posix() for path in HERE.glob(pattern))


def flags() -> tuple[list[str], list[str]]:
    compile_flags = ["-std=c++20", "-fvisibility=hidden", "-g1"]
    link_flags: list[str] = []
    if os.environ.get("DEBUG") == "1":
        compile_flags += ["-O0", "-g"]
    else:
        compile_flags += ["-O2"]
    if sanitizers := os.environ.get("SANITIZE"):
        both = [f"-fsanitize={sanitizers}", "-fno-omit-frame-pointer"]
        compile_flags += [*both, "-fno-sanitize-recover=all"]
        link_flags += both
    if os.environ.get("COVERAGE"):
        compile_flags += ["--coverage"]
        link_flags += ["--coverage"]
    return compile_flags, link_flags


compile_flags, link_flags = flags()
extension = Extension(
    "copycat.log._native",
    sources=[f"{SHIM}/_native.pyx", *found("csrc/*.cpp")],
    include_dirs=["csrc", SHIM],
    depends=[
        *found("csrc/*.hpp"),
        *found(f"{SHIM}/*.hpp"),
        f"{SHIM}/_native.pxd",
        *found(f"{SHIM}/*.pxi"),
    ],
    extra_compile_args=compile_flags,
    extra_link_args=link_flags,
    language="c++",
)
setup(ext_modules=cythonize([extension], language_level=3))
