"""Names and prose of a file, apart, and the table of banned words in STYLE.md."""

from __future__ import annotations

import io
import keyword
import re
import tokenize
from collections.abc import Iterator
from typing import NamedTuple

__all__ = ["BannedWord", "banned_words", "names_in", "prose_in", "uses"]

_ROW = re.compile(r"^\| (`[^|]+`) \| ([^|]+) \| (everywhere|names|whole names) \|$", re.MULTILINE)
_PROGRAM = re.compile(r"```.*?```", re.DOTALL)
_TRANSCRIPT = re.compile(r"`tests/scripts/\w+\.txt`")
"""Its name is that of the rule's test, which is given with the rule."""
_PART = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_CODE_OF_C = re.compile(
    r"//(?P<line>[^\n]*)|/\*(?P<block>.*?)\*/|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'"
    r"|(?P<name>[A-Za-z_]\w*)",
    re.DOTALL,
)
_CODE_OF_CYTHON = re.compile(
    r"#(?P<line>[^\n]*)|\"\"\"(?P<block>.*?)\"\"\"|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'"
    r"|(?P<name>[A-Za-z_]\w*)",
    re.DOTALL,
)


class BannedWord(NamedTuple):
    """One word of a row of the table."""

    word: str
    instead: str
    scope: str
    """"everywhere": in names and in prose; "names": as a part of a name, too; "whole names"."""


class Text(NamedTuple):
    """A name, or a piece of prose, and where it stands."""

    line: int
    text: str


def banned_words(style: str) -> list[BannedWord]:
    """Every word that the table of STYLE.md bans."""
    return [
        BannedWord(word, instead, scope)
        for words, instead, scope in _ROW.findall(style)
        for word in re.findall(r"`(\w+)`", words)
    ]


def names_in(name: str, text: str) -> list[Text]:
    """The identifiers of a source file."""
    if name.endswith((".py", ".pyi")):
        return [
            Text(token.start[0], token.string)
            for token in _tokens(text)
            if token.type == tokenize.NAME and not keyword.iskeyword(token.string)
        ]
    return [Text(line, match["name"]) for line, match in _matches(name, text) if match["name"]]


def prose_in(name: str, text: str) -> list[Text]:
    """Comments and docstrings of a source file; of a document, everything but its programs
    and the names of transcripts."""
    if name.endswith(".md"):
        plain = _PROGRAM.sub(lambda match: "\n" * match[0].count("\n"), text)
        plain = _TRANSCRIPT.sub("", plain)
        return [Text(number, line) for number, line in enumerate(plain.splitlines(), 1)]
    if name.endswith((".py", ".pyi")):
        return list(_prose_of_python(text))
    return [
        Text(line, match["line"] or match["block"])
        for line, match in _matches(name, text)
        if match["line"] or match["block"]
    ]


def uses(words: list[BannedWord], name: str, text: str) -> list[str]:
    """Where a file uses banned words, with what to say instead."""
    problems: list[str] = []
    if not re.search("|".join(one.word for one in words), text, re.IGNORECASE):
        return problems  # most files: reading them word by word takes seconds
    everywhere = {one.word: one for one in words if one.scope == "everywhere"}
    parts = {one.word: one for one in words if one.scope != "whole names"}
    whole = {one.word: one for one in words}
    if not name.endswith(".md"):
        for line, identifier in names_in(name, text):
            bare = identifier.strip("_").lower()
            hits = {part.lower() for part in _PART.findall(identifier)} & parts.keys()
            if bare in whole:
                hits.add(bare)
            problems += [
                f"{name}:{line}: {identifier}: {_say(whole[word])}" for word in sorted(hits)
            ]
    for line, prose in prose_in(name, text):
        for word in sorted(set(re.findall(r"[a-z]+", prose.lower())) & everywhere.keys()):
            problems.append(f"{name}:{line}: {word!r} in prose: {_say(everywhere[word])}")
    return problems


def _say(word: BannedWord) -> str:
    return f"not `{word.word}` but {word.instead}"


def _tokens(text: str) -> Iterator[tokenize.TokenInfo]:
    return tokenize.generate_tokens(io.StringIO(text).readline)


def _prose_of_python(text: str) -> Iterator[Text]:
    is_statement = True
    for token in _tokens(text):
        is_docstring = token.type == tokenize.STRING and is_statement
        if token.type == tokenize.COMMENT or is_docstring:
            yield Text(token.start[0], token.string)
        if token.type not in (tokenize.COMMENT, tokenize.NL):
            is_statement = token.type in (
                tokenize.NEWLINE,
                tokenize.INDENT,
                tokenize.DEDENT,
                tokenize.ENCODING,
            )


def _matches(name: str, text: str) -> Iterator[tuple[int, re.Match[str]]]:
    pattern = _CODE_OF_CYTHON if name.endswith((".pyx", ".pxi", ".pxd")) else _CODE_OF_C
    for match in pattern.finditer(text):
        yield text.count("\n", 0, match.start()) + 1, match
