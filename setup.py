"""Builds the one extension, copycat.storage._native, from csrc/ and its Cython shim.

Switches by environment: DEBUG=1 (-O0 -g), SANITIZE=address,undefined, COVERAGE=1, and
NO_EXTENSION=1 for an editable install whose extension `make build` compiles in place, once.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

HERE = Path(__file__).resolve().parent
SHIM = "copycat/storage"


class ParallelBuild(build_ext):
    """Compiles on all cores: setuptools takes the sources of one extension one by one."""

    def build_extensions(self) -> None:
        compile_serially = self.compiler.compile

        def compile_parallel(sources: list[str], *args: object, **kwargs: object) -> list[str]:
            def compile_one(source: str) -> list[str]:
                return compile_serially([source], *args, **kwargs)

            with ThreadPoolExecutor(os.cpu_count()) as pool:
                return list(chain.from_iterable(pool.map(compile_one, sources)))

        self.compiler.compile = compile_parallel
        super().build_extensions()


def files_matching(pattern: str) -> list[str]:
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
    "copycat.storage._native",
    sources=[f"{SHIM}/_native.pyx", *files_matching("csrc/*.cpp")],
    include_dirs=["csrc", SHIM],
    depends=[
        *files_matching("csrc/*.hpp"),
        *files_matching(f"{SHIM}/*.hpp"),
        f"{SHIM}/_native.pxd",
        *files_matching(f"{SHIM}/*.pxi"),
    ],
    extra_compile_args=compile_flags,
    extra_link_args=link_flags,
    language="c++",
)
is_wanted = os.environ.get("NO_EXTENSION") != "1"
setup(
    ext_modules=cythonize([extension], language_level=3, quiet=True) if is_wanted else [],
    cmdclass={"build_ext": ParallelBuild},
)
