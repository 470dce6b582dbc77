"""Where the functions of a source file stand, and how much code it has: by Python's own parser,
and roughly for the rest."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import NamedTuple

__all__ = ["Function", "code_lines", "functions"]

_CYTHON_FUNCTION = re.compile(r"^(\s*)(?:def|cpdef|cdef)\b[^=\n]*\(")
_CPP_NOISE = re.compile(r"//[^\n]*|/\*.*?\*/|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])'", re.DOTALL)
_CPP_NOT_A_FUNCTION = re.compile(r"\b(?:namespace|class|struct|enum|union|extern)\b[^()]*$")
_IMPORTS = (ast.Import, ast.ImportFrom)
_NO_CODE = (
    re.compile(r"/\*.*?\*/|\"\"\".*?\"\"\"", re.DOTALL),
    re.compile(r"^\s*(?:from|import|cimport|#include)\b[^\n]*", re.MULTILINE),
)


class Function(NamedTuple):
    """name: with its classes ("Log.append", "Log::append").  first, last: its lines, from 1."""

    name: str
    first: int
    last: int


def functions(name: str, text: str) -> list[Function]:
    """Every function of the file `name`, in the order in which they begin."""
    suffix = name[name.rindex(".") :]
    if suffix in {".py", ".pyi"}:
        definitions = list(_python(ast.parse(text), ""))
    elif suffix in {".pyx", ".pxd", ".pxi"}:
        definitions = _cython(text)
    else:
        definitions = _cpp(text)
    return sorted(definitions, key=lambda one: (one.first, -one.last))


def code_lines(name: str, text: str) -> int:
    """How many lines of the file `name` are neither blank, comment, docstring nor import."""
    prose: set[int] = set()
    comment = "//" if name.endswith((".cpp", ".hpp")) else "#"
    if name.endswith((".py", ".pyi")):
        for node in ast.walk(ast.parse(text)):
            is_text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
            if isinstance(node, ast.stmt) and (is_text or isinstance(node, _IMPORTS)):
                prose |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    else:
        for pattern in _NO_CODE:
            text = pattern.sub("", text)
    return sum(
        number not in prose and bool(line.strip()) and not line.lstrip().startswith(comment)
        for number, line in enumerate(text.splitlines(), 1)
    )


def _python(node: ast.AST, outer: str) -> Iterator[Function]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            name = f"{outer}{child.name}"
            if not isinstance(child, ast.ClassDef):
                yield Function(name, child.lineno, child.end_lineno or child.lineno)
            yield from _python(child, f"{name}.")
        else:
            yield from _python(child, outer)


def _cython(text: str) -> list[Function]:
    """A function ends where indentation returns to its own; blank lines do not count."""
    lines = text.splitlines()
    definitions: list[Function] = []
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
        definitions.append(Function(line.strip(), start + 1, last + 1))
    return definitions


def _cpp(text: str) -> list[Function]:
    """Outermost brace blocks that follow a parameter list: roughly every function body."""
    text = _CPP_NOISE.sub(lambda match: re.sub(r"[^\n]", " ", match[0]), text)
    text = re.sub(r"^[ \t]*#[^\n]*", "", text, flags=re.MULTILINE)
    definitions: list[Function] = []
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
                last = text.count("\n", 0, position) + 1
                definitions.append(Function(head.split("(")[0].split()[-1], first, last))
        if character in "{};":
            begin = position + 1
    return definitions
