"""House rule 13: 450 lines a file, 60 a function, 99 columns a line; no exceptions list."""

from __future__ import annotations

import ast
import re

from tests.tidy.tree import sources

FILE_LINES_MAX = 450
FUNCTION_LINES_MAX = 60
LINE_COLUMNS_MAX = 99

_CYTHON_FUNCTION = re.compile(r"^(\s*)(?:def|cpdef|cdef)\b[^=\n]*\(")
_CPP_NOISE = re.compile(r"//[^\n]*|/\*.*?\*/|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])'", re.DOTALL)
_CPP_NOT_A_FUNCTION = re.compile(r"\b(?:namespace|class|struct|enum|union|extern)\b[^()]*$")


def _python_functions(text: str) -> list[tuple[str, int]]:
    found = (ast.FunctionDef, ast.AsyncFunctionDef)
    return [
        (f"{node.name} (line {node.lineno})", (node.end_lineno or 0) - node.lineno + 1)
        for node in ast.walk(ast.parse(text))
        if isinstance(node, found)
    ]


def _cython_functions(text: str) -> list[tuple[str, int]]:
    """A function ends where indentation returns to its own; blank lines do not count."""
    lines = text.splitlines()
    found: list[tuple[str, int]] = []
    for start, line in enumerate(lines):
        match = _CYTHON_FUNCTION.match(line)
        if match is None:
            continue
        depth, last, open_parentheses = len(match[1]), start, line.count("(") - line.count(")")
        for number in range(start + 1, len(lines)):
            text_here = lines[number].strip()
            indent = len(lines[number]) - len(lines[number].lstrip())
            if text_here and indent <= depth and not open_parentheses:
                break
            if open_parentheses:
                open_parentheses += text_here.count("(") - text_here.count(")")
            last = number if text_here else last
        found.append((f"{line.strip()} (line {start + 1})", last - start + 1))
    return found


def _cpp_functions(text: str) -> list[tuple[str, int]]:
    """Outermost brace blocks that follow a parameter list: roughly every function body."""
    text = _CPP_NOISE.sub(lambda match: re.sub(r"[^\n]", " ", match[0]), text)
    text = re.sub(r"^[ \t]*#[^\n]*", "", text, flags=re.MULTILINE)
    found: list[tuple[str, int]] = []
    stack: list[tuple[bool, int, str]] = []  # (is a function, first line, head)
    begin = 0
    for position, character in enumerate(text):
        if character == "{":
            head = text[begin:position].strip()
            inside = any(is_function for is_function, _, _ in stack)
            is_function = not inside and ")" in head and not _CPP_NOT_A_FUNCTION.search(head)
            first = text.count("\n", 0, position) - head.count("\n") + 1
            stack.append((is_function, first, head))
        elif character == "}" and stack:
            is_function, first, head = stack.pop()
            if is_function:
                name = f"{head.split('(')[0].split()[-1]} (line {first})"
                found.append((name, text.count("\n", 0, position) + 1 - first + 1))
        if character in "{};":
            begin = position + 1
    return found


_READERS = {
    ".py": _python_functions,
    ".pyi": _python_functions,
    ".pyx": _cython_functions,
    ".pxd": _cython_functions,
    ".pxi": _cython_functions,
    ".hpp": _cpp_functions,
    ".cpp": _cpp_functions,
}


def oversized(name: str, text: str) -> list[str]:
    """What in this file is longer than the house allows, one sentence each."""
    lines = text.splitlines()
    found: list[str] = []
    if len(lines) > FILE_LINES_MAX:
        found.append(f"{name}: {len(lines)} lines, at most {FILE_LINES_MAX}")
    found += [
        f"{name}:{number}: {len(line)} columns, at most {LINE_COLUMNS_MAX}"
        for number, line in enumerate(lines, 1)
        if len(line) > LINE_COLUMNS_MAX
    ]
    found += [
        f"{name}: {function} has {length} lines, at most {FUNCTION_LINES_MAX}"
        for function, length in _READERS[name[name.rindex(".") :]](text)
        if length > FUNCTION_LINES_MAX
    ]
    return found


def test_files_functions_and_lines_keep_their_size() -> None:
    found = [problem for name, text in sources() for problem in oversized(name, text)]
    assert not found, "\n".join(found)


def test_the_size_check_fires() -> None:
    body = "    x = 1\n" * FUNCTION_LINES_MAX
    assert oversized("a.py", "x = 1\n" * (FILE_LINES_MAX + 1))
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
