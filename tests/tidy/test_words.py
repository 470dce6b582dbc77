"""One meaning, one word (house rule 14), and habits that hide faults. Each with its reason.

STYLE.md has the table of words that are banned as names; this file has what needs a pattern.
"""

from __future__ import annotations

import re

import pytest

from tests.tidy.tree import ROOT, documents, sources
from tests.tidy.words import banned_words, names_in, prose_in, uses

# (pattern, why, beginnings of the paths it holds for). Case counts; this file is not read.
_PYTHON = ("copycat", "tests", "bench")
_CORE = ("copycat/raft", "copycat/protocol", "copycat/storage", "copycat/member", "copycat/log")
_ALL = ("copycat", "csrc", "tests", "bench")
BANNED: list[tuple[str, str, tuple[str, ...]]] = [
    (r"\b[Ee]poch(?:s)?\b(?! \(1970)", "say `term` for Raft's number", _CORE),
    (r"\b[Bb]allot", "say `vote`", _ALL),
    (r"\b(?:learner|slave)s?\b", "say `passive` member or follower", _ALL),
    (r"\blsn\b|\bLSN\b", "say `index`", _ALL),
    (r"\bend_exclusive\b|\bend_index\b", "say `end`: one past the last", _ALL),
    (r"\bHeartbeat(?:Message|Request)\b", "an empty AppendEntries is no message of its own", _ALL),
    (r"\b(?:TODO|FIXME|XXX|HACK)\b", "write an issue or a decision, not a wish", _ALL),
    (r"^\s*(?:import|from) (?:pickle|marshal|shelve|dill)\b", "data is decoded by type", _PYTHON),
    (r"(?<![\w.])(?:eval|exec)\(", "nothing is executed out of data", _PYTHON),
    (r"(?<![\w.])__import__\(|importlib\.import_module\((?![\"'f])", "no import by data", _PYTHON),
    (r"^\s*except\s*:", "name what you expect", _PYTHON),
    (r"except (?:Base)?Exception[^:\n]*:\s*\n?\s*(?:pass|\.\.\.)\s*$", "no silence", _PYTHON),
    (r"\bin str\(\s*(?:e|exc|err|error|cause|exception)\b", "match on types, not text", _PYTHON),
    (r"catch\s*\(\.\.\.\)\s*\{\s*\}", "no silence", _ALL),
    (r"\bpytest\.(?:skip|xfail|importorskip)\b", "a test runs, or is not there", _PYTHON),
    (r"\bmark\.(?:skip|skipif|xfail|flaky)\b", "a test runs, or is not there", _PYTHON),
    (r"\b(?:uvloop\.install|set_event_loop_policy)\(", "the user owns the loop", _PYTHON),
]


def banned(name: str, text: str) -> list[str]:
    """Every banned word of this file, with its line and the reason."""
    problems: list[str] = []
    for pattern, reason, rooms in BANNED:
        if not name.startswith(rooms):
            continue
        for match in re.finditer(pattern, text, re.MULTILINE):
            line = text.count("\n", 0, match.start()) + 1
            problems.append(f"{name}:{line}: {match[0].strip()!r}: {reason}")
    return problems


def test_no_banned_words_or_habits() -> None:
    problems = [
        problem
        for name, text in sources()
        if name != "tests/tidy/test_words.py"
        for problem in banned(name, text)
    ]
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize(
    "text",
    [
        "epoch = 3",
        "ballots",
        "a learner joins",
        "lsn",
        "end_index",
        "class HeartbeatRequest",
        "# TODO later",
        "    import pickle",
        "from marshal import loads",
        "x = eval(data)",
        "__import__(name)",
        "importlib.import_module(name)",
        "try:\n    f()\nexcept:\n    g()",
        "try:\n    f()\nexcept Exception:\n    pass",
        "try:\n    f()\nexcept Exception as e: pass",
        "if 'full' in str(exc):",
        "catch (...) {}",
        "pytest.skip('later')",
        "@pytest.mark.xfail",
        "uvloop.install()",
    ],
)
def test_the_word_check_fires(text: str) -> None:
    assert banned("copycat/raft/a.py", text)


@pytest.mark.parametrize(
    "text",
    [
        "re.compile(x); model.eval(); term = 3",
        "except ValueError:\n    pass",
        "the terminal; slavery of words; determinism",
        "ms since the epoch (1970)",
    ],
)
def test_the_word_check_does_not_fire(text: str) -> None:
    assert not banned("copycat/raft/a.py", text)


TABLE = banned_words((ROOT / "STYLE.md").read_text(encoding="utf-8"))
_SAMPLE = banned_words(
    "| `door`, `doors` | `RequestRouter` | everywhere |\n"
    "| `weak` | unsynced | names |\n"
    "| `told` | what was told | whole names |\n"
)


def test_no_banned_word_of_the_house_rules_is_used() -> None:
    problems = [
        problem
        for name, text in [*sources(), *documents()]
        if name not in {"STYLE.md", "tests/tidy/test_words.py"}
        for problem in uses(TABLE, name, text)
    ]
    assert not problems, "\n".join(problems)


def test_the_table_is_read() -> None:
    style = (ROOT / "STYLE.md").read_text(encoding="utf-8")
    rows = style.partition("| banned | say | where |\n|---|---|---|\n")[2].strip().splitlines()
    assert len({one.word for one in TABLE}) == len(TABLE) >= len(rows) > 8
    assert {one.scope for one in _SAMPLE} == {"everywhere", "names", "whole names"}
    assert [one.word for one in _SAMPLE] == ["door", "doors", "weak", "told"]


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.py", "class FrontDoor:\n    _open_door = 1\n", ["door", "door"]),
        ("a.py", "x = 1  # behind the door\n", ["door"]),
        ("a.py", 'def f():\n    """Opens doors."""\n', ["doors"]),
        ("a.py", "weak_promises = told = _told = 1\n", ["told", "told", "weak"]),
        ("a.cpp", 'int weak_; // a door\nconst char* x = "door"; /* doors */\n', None),
        ("a.pyx", "cdef int told  # a door\n", ["door", "told"]),
        ("a.md", "A door.\n\n```\ndoor\n```\n", ["door"]),
    ],
)
def test_the_check_of_the_table_fires(name: str, text: str, words: list[str] | None) -> None:
    hits = sorted(one.split("`")[1] for one in uses(_SAMPLE, name, text))
    assert hits == (words or ["door", "doors", "weak"])


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.py", 'x = "door"  # outdoors, told, weak\n'),
        ("a.py", "f(untold, told_once, weakref, indoor)\n"),
        ("a.cpp", '// told\nint tolds = f("a \\" door");\n'),
        ("a.md", "Who is told that a promise is weak?\n"),
    ],
)
def test_the_check_of_the_table_does_not_fire(name: str, text: str) -> None:
    assert not uses(_SAMPLE, name, text)


def test_names_and_prose_of_a_file() -> None:
    text = '"""A."""\nx = "b"  # c\n\ndef f(y: int) -> None:\n    """D."""\n'
    assert [(one.line, one.text) for one in names_in("a.py", text)] == [
        (2, "x"),
        (4, "f"),
        (4, "y"),
        (4, "int"),
    ]
    assert [one.text for one in prose_in("a.py", text)] == ['"""A."""', "# c", '"""D."""']
