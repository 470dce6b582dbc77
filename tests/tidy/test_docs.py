"""Prose is tested (house rule 12): hops, paths, links, error codes, make targets, headings."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import get_args

from copycat import errors
from copycat.raft.effects import Effect
from copycat.raft.events import Event
from tests.tidy.tree import ROOT, documents

_HOP = re.compile(r"`([\w./-]+\.(?:py|pyx|pxi|pyi|cpp|hpp)):([A-Za-z_]\w*(?:(?:\.|::)\w+)*)`")
_PATH = re.compile(
    r"`((?:copycat|csrc|tests|bench|docs|\.ci)/[\w./-]*|[\w-]+\.(?:md|toml)|setup\.py)`"
)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_MAKE = re.compile(r"`make ([a-z]+)[^`]*`|^make ([a-z]+)", re.MULTILINE)
_HEADING = re.compile(r"^(#+) +(.+?) *$", re.MULTILINE)
_FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def names_in_python(text: str) -> set[str]:
    """`f`, `Class`, `Class.method` and `Class.attribute` of a Python file or stub."""
    names: set[str] = set()

    def visit(body: list[ast.stmt], prefix: str) -> None:
        for node in body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                names.add(prefix + node.name)
            elif isinstance(node, ast.ClassDef):
                names.add(prefix + node.name)
                visit(node.body, f"{prefix}{node.name}.")
            elif isinstance(node, ast.Assign | ast.AnnAssign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                names.update(prefix + one.id for one in targets if isinstance(one, ast.Name))

    visit(ast.parse(text).body, "")
    return names


def has_name(path: str, text: str, name: str) -> bool:
    """True when the file at `path` defines `name` (`Class.method` or `Class::method`)."""
    if path.endswith((".py", ".pyi")):
        return name in names_in_python(text)
    owner, _, last = name.replace("::", ".").rpartition(".")
    if owner and not re.search(rf"\b{owner}\b", text):
        return False
    if path.endswith((".pyx", ".pxi")):
        defined = rf"^\s*(?:cdef |cpdef |def |class |async def )[^\n=]*\b{last}\b\s*[(:]"
        return re.search(defined, text, re.MULTILINE) is not None
    qualified = rf"\b{owner}::{last}\s*\(" if owner and path.endswith(".cpp") else rf"\b{last}\b"
    return re.search(qualified, text) is not None


def missing_hops(text: str, root: Path = ROOT) -> list[str]:
    """Hops of a document that lead nowhere."""
    problems: list[str] = []
    for file, name in _HOP.findall(text):
        path = root / file
        if not path.is_file():
            problems.append(f"{file}: no such file")
        elif not has_name(file, path.read_text(encoding="utf-8"), name):
            problems.append(f"{file}: has no {name}")
    return problems


def missing_paths(text: str, root: Path = ROOT) -> list[str]:
    """Paths in backticks that are not there, but for those that commands make."""
    paths = [path for path in _PATH.findall(text) if not path.startswith("bench/results")]
    return [path for path in paths if not (root / path).exists()]


def slugs(text: str) -> set[str]:
    """The anchors that a renderer makes of a document's headings."""
    plain = [title.replace("`", "") for _, title in _HEADING.findall(_FENCE.sub("", text))]
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in plain}


def broken_links(name: str, text: str, root: Path = ROOT) -> list[str]:
    """Relative links of a document whose file or heading is not there."""
    problems: list[str] = []
    for target in _LINK.findall(_FENCE.sub("", text)):
        if "://" in target:
            continue
        file, _, anchor = target.partition("#")
        path = (root / name).parent / file if file else root / name
        if not path.exists():
            problems.append(f"{name}: {target}: no such file")
        elif anchor and anchor not in slugs(path.read_text(encoding="utf-8")):
            problems.append(f"{name}: {target}: no such heading")
    return problems


def make_targets(makefile: str) -> set[str]:
    return set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))


def unknown_targets(text: str, makefile: str) -> list[str]:
    """`make word` in a document where the Makefile has no such word."""
    words = {first or second for first, second in _MAKE.findall(text)}
    return sorted(words - make_targets(makefile))


def error_codes() -> set[str]:
    """The codes of every error type that copycat has."""
    return {
        value.code
        for value in vars(errors).values()
        if isinstance(value, type) and issubclass(value, errors.CopycatError)
    }


def test_every_hop_of_the_architecture_leads_somewhere() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    assert len(_HOP.findall(text)) > 20
    assert not missing_hops(text)


def test_every_hop_and_path_of_the_documents_is_there() -> None:
    problems = [
        f"{name}: {problem}"
        for name, text in documents()
        for problem in [*missing_hops(text), *missing_paths(text)]
    ]
    assert not problems, "\n".join(problems)


def test_links_resolve() -> None:
    problems = [problem for name, text in documents() for problem in broken_links(name, text)]
    assert not problems, "\n".join(problems)


def test_every_document_has_one_title() -> None:
    for name, text in documents():
        titles = [title for level, title in _HEADING.findall(_FENCE.sub("", text)) if level == "#"]
        assert len(titles) == 1, f"{name}: {titles}"


def test_make_targets_in_prose_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for name, text in documents():
        assert not unknown_targets(text, makefile), name


def test_every_error_code_has_a_page() -> None:
    text = (ROOT / "docs/reference/errors.md").read_text(encoding="utf-8")
    described = {title for level, title in _HEADING.findall(text) if level == "##"}
    assert described == error_codes()


def test_every_error_has_a_code_and_a_hint_of_its_own() -> None:
    types = [getattr(errors, name) for name in errors.__all__ if name[0].isupper()]
    codes = [one.code for one in types]
    assert len(set(codes)) == len(codes)
    assert all(one.default_hint for one in types if one is not errors.CopycatError)


def test_the_hop_check_fires(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("class A:\n    def f(self): ...\n", encoding="utf-8")
    (tmp_path / "a.pyx").write_text("cdef class B:\n    cpdef int g(self):\n", encoding="utf-8")
    (tmp_path / "a.cpp").write_text("void C::h(int x) {}\n", encoding="utf-8")
    good = "`a.py:A.f` `a.py:A` `a.pyx:B.g` `a.cpp:C::h`"
    assert len(_HOP.findall(good)) == 4
    assert not missing_hops(good, tmp_path)
    bad = "`a.py:A.g` `a.py:f` `b.py:A` `a.pyx:B.f` `a.cpp:C::g` `a.cpp:D::h`"
    assert len(missing_hops(bad, tmp_path)) == 6


def test_the_path_link_and_target_checks_fire(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("# A title, with `code`\n", encoding="utf-8")
    assert missing_paths("see `tests/none.py`", tmp_path) == ["tests/none.py"]
    assert not broken_links("b.md", "[a](a.md#a-title-with-code) [w](https://x)", tmp_path)
    assert broken_links("b.md", "[a](c.md)", tmp_path)
    assert broken_links("b.md", "[a](a.md#b)", tmp_path)
    assert unknown_targets("run `make nothing X=1`\n", "all: x\n") == ["nothing"]


def rows_of(text: str, heading: str) -> set[str]:
    """The names in the first column of the table under a heading."""
    part = text.split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    return set(re.findall(r"^\| `(\w+)` \|", part, re.MULTILINE))


def test_the_tables_of_the_core_name_every_event_and_effect() -> None:
    text = (ROOT / "docs/internals/raft-core.md").read_text(encoding="utf-8")
    assert rows_of(text, "Events") == {one.__name__ for one in get_args(Event)}
    assert rows_of(text, "Effects") == {one.__name__ for one in get_args(Effect)}


def test_the_table_check_fires() -> None:
    assert rows_of("## Events\n| a | b |\n| `X` | y |\n## Effects\n| `Z` | |\n", "Events") == {"X"}
