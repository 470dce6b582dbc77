"""One meaning, one word (house rule 15), and habits that hide faults. Each with its reason."""

from __future__ import annotations

import re

import pytest

from tests.tidy.tree import sources

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
    found: list[str] = []
    for pattern, reason, rooms in BANNED:
        if not name.startswith(rooms):
            continue
        for match in re.finditer(pattern, text, re.MULTILINE):
            line = text.count("\n", 0, match.start()) + 1
            found.append(f"{name}:{line}: {match[0].strip()!r}: {reason}")
    return found


def test_no_banned_words_or_habits() -> None:
    found = [
        problem
        for name, text in sources()
        if name != "tests/tidy/test_words.py"
        for problem in banned(name, text)
    ]
    assert not found, "\n".join(found)


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
