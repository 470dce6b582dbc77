"""No file of the package imports, by way of others, itself.

Files of a circle can only be read, tested and changed together. Imports for the type checker and
imports inside of functions count as well: they hide a circle and do not undo it.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping

from tests.tidy.tree import sources

EXCEPTIONS = [
    # The server makes clients, and the package names what it serves lazily.
    ["copycat", "copycat.server.server"],
]


def modules() -> dict[str, str]:
    """The text of every module of the package, by its dotted name."""
    texts: dict[str, str] = {}
    for name, text in sources(".py", rooms=("copycat",)):
        if name.startswith("copycat/"):
            dotted = name.removesuffix(".py").replace("/", ".").removesuffix(".__init__")
            texts[dotted] = text
    return texts


def imports(texts: Mapping[str, str]) -> dict[str, set[str]]:
    """Which of these modules each of them imports."""
    graph: dict[str, set[str]] = {}
    for module, text in texts.items():
        names: set[str] = set()
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module is not None:
                for alias in node.names:
                    inner = f"{node.module}.{alias.name}"
                    names.add(inner if inner in texts else node.module)
        graph[module] = {name for name in names if name in texts} - {module}
    return graph


def circles(texts: Mapping[str, str]) -> list[list[str]]:
    """Sets of modules of which each imports, directly or by way of others, each other one."""
    graph = imports(texts)
    reached = {module: _reach(graph, module) for module in graph}
    together = {
        module: sorted(other for other in others if module in reached[other])
        for module, others in reached.items()
    }
    return sorted({tuple(each): each for each in together.values() if each}.values())


def _reach(graph: Mapping[str, set[str]], module: str) -> set[str]:
    """What `module` imports at last; itself only when it is in a circle."""
    seen: set[str] = set()
    waiting = [*graph[module]]
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            waiting += graph[name]
    return seen


def test_no_import_circles() -> None:
    assert circles(modules()) == EXCEPTIONS


def test_the_circle_check_fires() -> None:
    texts = {
        "copycat.a": "from copycat.b import x\nimport os",
        "copycat.b": "if TYPE_CHECKING:\n    from copycat import c",
        "copycat.c": "def f():\n    import copycat.a",
        "copycat.d": "from copycat.a import y",
    }
    assert circles(texts) == [["copycat.a", "copycat.b", "copycat.c"]]
    texts["copycat.c"] = ""
    assert circles(texts) == []
