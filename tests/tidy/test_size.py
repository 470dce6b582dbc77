"""400 lines of code per file, 60 lines per function, 99 columns per line; no exceptions list.

Docstrings, comments, blank lines and imports are not code.
"""

from __future__ import annotations

from tests.tidy.functions import code_lines, functions
from tests.tidy.tree import sources

CODE_LINES_MAX = 400
FUNCTION_LINES_MAX = 60
LINE_COLUMNS_MAX = 99


def oversized(name: str, text: str) -> list[str]:
    """What in this file is longer than the house allows, one sentence each."""
    lines = text.splitlines()
    problems: list[str] = []
    if (count := code_lines(name, text)) > CODE_LINES_MAX:
        problems.append(f"{name}: {count} lines of code, at most {CODE_LINES_MAX}")
    problems += [
        f"{name}:{number}: {len(line)} columns, at most {LINE_COLUMNS_MAX}"
        for number, line in enumerate(lines, 1)
        if len(line) > LINE_COLUMNS_MAX
    ]
    problems += [
        f"{name}:{first}: {function} has {length} lines, at most {FUNCTION_LINES_MAX}"
        for function, first, last in functions(name, text)
        if (length := last - first + 1) > FUNCTION_LINES_MAX
    ]
    return problems


def test_files_functions_and_lines_keep_their_size() -> None:
    problems = [problem for name, text in sources() for problem in oversized(name, text)]
    assert not problems, "\n".join(problems)


def test_the_size_check_fires() -> None:
    body = "    x = 1\n" * FUNCTION_LINES_MAX
    assert oversized("a.py", "x = 1\n" * (CODE_LINES_MAX + 1))
    assert oversized("a.py", "x" * (LINE_COLUMNS_MAX + 1))
    assert oversized("a.py", f"def f():\n{body}")
    assert oversized("a.py", f"async def f():\n{body}")
    deeper = "        x = 1\n" * FUNCTION_LINES_MAX
    assert oversized("a.pyx", f"cdef class A:\n    cdef int f(\n        self\n    ):\n{deeper}")
    assert oversized("a.pyx", f"cpdef f(int x):\n{body}")
    long_body = "\n".join("  if (x) { y(); }" for _ in range(FUNCTION_LINES_MAX))
    assert oversized("a.cpp", f"namespace a {{\nint f(int x) {{\n{long_body}\n}}\n}}")
    assert oversized("a.hpp", f"class A {{\n int f() const noexcept {{\n{long_body}\n}}\n}};")
    assert oversized("a.cpp", f'A::A(B b) : b_(b), t_("}}{{") {{\n{long_body}\n}}')


def test_the_size_check_does_not_fire_at_the_limit() -> None:
    body = "    x = 1\n" * (FUNCTION_LINES_MAX - 1)
    assert not oversized("a.py", f"def f():\n{body}")
    assert not oversized("a.pyx", f"cpdef f(int x):\n{body}\n\ndef g():\n    pass\n")
    member = "int f() { return 1; }\n"
    assert not oversized("a.hpp", "class A {\n" + member * 80 + "};\n")
    assert not oversized("a.py", "x" * LINE_COLUMNS_MAX)


def test_prose_and_imports_are_no_code() -> None:
    docstring = '"""' + "text\n" * 500 + '"""\n'
    assert not oversized("a.py", docstring + "# why\n" * 500 + "import os\n\n" * 500)
    assert not oversized("a.pyx", docstring + "# why\n" * 500 + "cimport os\n\n" * 500)
    assert not oversized("a.cpp", "// why\n\n" * 500 + '#include "a.hpp"\n' * 500)
    assert oversized("a.cpp", "int x;\n" * (CODE_LINES_MAX + 1))
