"""Rules are named by number, and each number has an entry in `docs/internals/rules.md`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from tests.tidy.test_docs import missing_hops
from tests.tidy.tree import ROOT, documents, sources

PAGE = "docs/internals/rules.md"
SELF = "tests/tidy/test_rules.py"
APART = {PAGE, SELF, "CHANGELOG.md"}
"""The entries themselves, the examples below, and what earlier versions said."""

FAMILIES = {"C": 47, "I": 25, "F": 29}
"""Rules of the protocol, invariants, and faults of one member; and how many there are."""
PARTS = ("Prevents: ", "Asserted: ", "Shown: ")

_RULE = re.compile(r"(?<![\w.#&\\-])([A-Z])(\d{1,2})(?![\w%])")
_IN_NAME = re.compile(r"(?:def test_|\btests/[\w/]*/)(\w+)")
_FAMILY_IN_NAME = re.compile(r"(?:^|_)([a-z]\d{1,2})(?=_|$)")
_ENTRY = re.compile(r"^### ([A-Z]\d+)\. (.+)$", re.MULTILINE)
_TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
_SHOWING_FILE = re.compile(r"`(tests/[\w/-]+\.(?:txt|toml))`")
_STRING = r'"(?:\\.|[^"\\\n])*"|' + r"'(?:\\.|[^'\\\n])*'"
_PYTHON = re.compile(rf'"""[\s\S]*?"""|{_STRING}|#[^\n]*')
_NATIVE = re.compile(rf"{_STRING}|//[^\n]*")
"""Docstrings, comments, and strings: the mark of a comment inside a string begins none."""
_CITED = re.compile(r"(?<![\w./<*-])([\w-][\w./-]*\.(?:md|py|pyx|pxi|hpp|cpp))(?![\w(])")

PERCENTILES = {"P50", "P95", "P99"}


class Entry(NamedTuple):
    rule: str
    body: str


def entries(page: str) -> list[Entry]:
    """The entries of the page, in its order."""
    heads = list(_ENTRY.finditer(page))
    ends = [head.start() for head in heads[1:]] + [len(page)]
    return [
        Entry(head[1], re.split(r"^## ", page[head.end() : end], flags=re.MULTILINE)[0])
        for head, end in zip(heads, ends, strict=True)
    ]


def files() -> Iterator[tuple[str, str]]:
    """(path, text) of every file that may name a rule."""
    paths = sorted([*ROOT.glob("tests/bugs/*.toml"), *ROOT.glob("tests/scripts/*.txt")])
    more = [(one.relative_to(ROOT).as_posix(), one.read_text(encoding="utf-8")) for one in paths]
    texts = [*sources(), *documents(), *more]
    return ((name, text) for name, text in texts if name not in APART)


def prose_of(name: str, text: str) -> str:
    """The comments and docstrings of a source; all of a document."""
    if name.endswith((".md", ".txt", ".toml")):
        return text
    parts = (_NATIVE if name.endswith((".cpp", ".hpp")) else _PYTHON).findall(text)
    return "\n".join(part for part in parts if part.startswith(('"""', "#", "//")))


def rules_in(name: str, text: str) -> set[str]:
    """The numbers that a file names: C, I and F anywhere, other letters in prose alone.

    What is no prose may well hold a name such as the A1 of a test's data. A number stands in the
    name of a test or of its file too, in small letters.
    """
    rules = {letter + number for letter, number in _RULE.findall(text) if letter in FAMILIES}
    rules |= {letter + number for letter, number in _RULE.findall(prose_of(name, text))}
    for word in _IN_NAME.findall(f"{name}\n{text}"):
        rules |= {one.upper() for one in _FAMILY_IN_NAME.findall(word)}
    return rules - PERCENTILES


def without_entry(page: str, texts: Iterable[tuple[str, str]]) -> list[str]:
    """Numbers that are used and have no entry."""
    known = {entry.rule for entry in entries(page)}
    return [
        f"{name}: {rule}" for name, text in texts for rule in sorted(rules_in(name, text) - known)
    ]


def without_use(page: str, texts: Iterable[tuple[str, str]]) -> list[str]:
    """Entries that no file names."""
    used = {rule for name, text in texts for rule in rules_in(name, text)}
    return [entry.rule for entry in entries(page) if entry.rule not in used]


def wrong_entries(page: str, root: Path = ROOT) -> list[str]:
    """Entries that lack a part, or name a function, a test or a file that is not there."""
    problems: list[str] = []
    for rule, body in entries(page):
        lines = body.strip().split("\n")
        parts = {part: [line for line in lines if line.startswith(part)] for part in PARTS}
        problems += [f"{rule}: no {part.strip()}" for part in PARTS if len(parts[part]) != 1]
        if not lines[0] or lines[0].startswith(PARTS):
            problems.append(f"{rule}: no rule")
        asserted, shown = " ".join(parts["Asserted: "]), " ".join(parts["Shown: "])
        if ":" not in asserted.removeprefix("Asserted: "):
            problems.append(f"{rule}: asserted nowhere")
        problems += [f"{rule}: {hop}" for hop in missing_hops(asserted, root)]
        tests, others = _TEST.findall(shown), _SHOWING_FILE.findall(shown)
        if not tests and not others:
            problems.append(f"{rule}: shown nowhere")
        problems += [
            f"{rule}: {file}: no such file" for file in others if not (root / file).is_file()
        ]
        problems += [f"{rule}: {problem}" for problem in missing_tests(tests, root)]
    return problems


def out_of_place(page: str) -> list[str]:
    """Entries of another family, beyond its end, or that do not stand behind the one before."""
    rules: list[str] = []
    before = ("", 0)
    for rule, _ in entries(page):
        place = (rule[0], int(rule[1:]))
        is_known = 1 <= place[1] <= FAMILIES.get(place[0], 0)
        if not is_known or (before[0] == place[0] and place <= before):
            rules.append(rule)
        before = place
    return rules


def missing_tests(tests: Iterable[tuple[str, str]], root: Path = ROOT) -> list[str]:
    """Of (file, test), those that are not there."""
    problems: list[str] = []
    for file, test in tests:
        path = root / file
        if not path.is_file():
            problems.append(f"{file}: no such file")
        elif not re.search(rf"def {test}\(", path.read_text(encoding="utf-8")):
            problems.append(f"{file}: has no {test}")
    return problems


def citations_of_nothing(name: str, text: str, known: set[str]) -> list[str]:
    """Files that the comments and docstrings of a source cite and that are not in the tree."""
    prose = prose_of(name, text)
    return [f"{name}: {cited}" for cited in _CITED.findall(prose) if cited not in known]


def papers_of_nothing(name: str, text: str, known: set[str]) -> list[str]:
    """The same of the documents that a document names; a program in it may name any other file."""
    return [one for one in citations_of_nothing(name, text, known) if one.endswith(".md")]


def citable(tree: Iterable[str]) -> set[str]:
    """How a file may be cited: by its path or the end of it, as `core.py` or `raft/core.py`."""
    paths = [path.split("/") for path in tree]
    return {"/".join(path[at:]) for path in paths for at in range(len(path))}


def tree_of_files() -> set[str]:
    """Every file that prose may cite: sources and documents."""
    names = {name for name, _ in sources()} | {name for name, _ in documents()}
    return names | {path.relative_to(ROOT).as_posix() for path in ROOT.glob("tests/**/*.md")}


def page() -> str:
    return (ROOT / PAGE).read_text(encoding="utf-8")


def test_every_rule_that_is_used_has_an_entry() -> None:
    problems = without_entry(page(), files())
    assert not problems, "\n".join(problems)


def test_every_entry_is_used() -> None:
    assert not without_use(page(), files())


def test_every_entry_is_whole_and_names_what_is_there() -> None:
    problems = wrong_entries(page())
    assert not problems, "\n".join(problems)


def test_entries_stand_in_order_and_once_and_are_of_three_families() -> None:
    assert len(entries(page())) > 60
    assert not out_of_place(page())


def test_prose_cites_only_files_of_the_tree() -> None:
    known = citable(tree_of_files())
    problems = [
        problem
        for name, text in sources()
        if name != SELF
        for problem in citations_of_nothing(name, text, known)
    ]
    problems += [
        problem
        for name, text in documents()
        if name not in APART
        for problem in papers_of_nothing(name, text, known)
    ]
    assert not problems, "\n".join(problems)


EXAMPLE = """# A page
### C1. One
Something holds.
Prevents: an accident.
Asserted: `a.py:f`.
Shown: `tests/t.py::test_one`, `tests/s.txt`.

### F2. Two
Something else.
Prevents: another one.
Asserted: `a.py:f`.
Shown: `tests/t.py::test_one`.
"""


def test_a_rule_without_an_entry_fires() -> None:
    used = [
        ("a.py", '"""C1 and I3, see X18."""\nname = "A1"  # F2, P99'),
        ("b.md", "C1 of Z13"),
        ("tests/t.py", "def test_k5_of_c2_is_kept() -> None: ..."),
        ("tests/scripts/l1_x.txt", "nothing"),
        ("c.cpp", 'require(ok, "I2: no"); // D4'),
    ]
    assert without_entry(EXAMPLE, used) == [
        "a.py: I3",
        "a.py: X18",
        "b.md: Z13",
        "tests/t.py: C2",
        "tests/t.py: K5",
        "tests/scripts/l1_x.txt: L1",
        "c.cpp: D4",
        "c.cpp: I2",
    ]


def test_an_entry_without_a_use_fires() -> None:
    assert without_use(EXAMPLE, [("a.py", "# C1")]) == ["F2"]
    assert not without_use(EXAMPLE, [("a.py", "# C1"), ("b.py", "def test_f2_it(): ...")])


def test_an_entry_that_names_what_is_not_there_fires(tmp_path: Path) -> None:
    (tmp_path / "tests").mkdir()
    (tmp_path / "a.py").write_text("def f(): ...\n", encoding="utf-8")
    (tmp_path / "tests" / "t.py").write_text("def test_one(): ...\n", encoding="utf-8")
    (tmp_path / "tests" / "s.txt").write_text("", encoding="utf-8")
    assert not wrong_entries(EXAMPLE, tmp_path)
    for old, new in [
        ("a.py:f", "a.py:g"),
        ("a.py:f", "b.py:f"),
        ("test_one", "test_two"),
        ("tests/t.py", "tests/u.py"),
        ("tests/s.txt", "tests/r.txt"),
        ("Something holds.\n", ""),
        ("Prevents: an accident.\n", ""),
        ("Asserted: `a.py:f`.\n", ""),
        ("`a.py:f`", "somewhere"),
        ("`tests/t.py::test_one`", "some test"),
    ]:
        assert wrong_entries(EXAMPLE.replace(old, new), tmp_path), (old, new)


def test_an_entry_out_of_place_fires() -> None:
    def heads(*rules: str) -> str:
        return "".join(f"### {rule}. A rule\nIt holds.\n" for rule in rules)

    assert not out_of_place(heads("C1", "C2", "C25", "I1", "F29"))
    assert out_of_place(heads("C2", "C1", "C1", "C48", "F30", "X1", "I0")) == [
        "C1",
        "C1",
        "C48",
        "F30",
        "X1",
        "I0",
    ]


def test_a_citation_of_what_is_not_in_the_tree_fires() -> None:
    known = citable({"copycat/raft/core.py", "docs/a.md"})
    text = (
        '"""See core.py and docs/a.md, raft/core.py, copycat/raft/core.py."""\n# b.md\nx = "c.md"'
    )
    assert citations_of_nothing("n.py", text, known) == ["n.py: b.md"]
    assert citations_of_nothing("n.cpp", "// faults.md section 2", known) == ["n.cpp: faults.md"]
    assert papers_of_nothing("n.md", "a.md, c.md and `my.py`", known) == ["n.md: c.md"]
