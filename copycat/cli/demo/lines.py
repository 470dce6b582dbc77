"""The input of the demo, and its state machine, which counts and hashes lines of text."""

from __future__ import annotations

import hashlib
import sysconfig
from collections.abc import Iterable
from pathlib import Path

from copycat import EntryTooLargeError, StateMachine, Storage, command, query
from copycat.protocol.operations import encode_operation

__all__ = ["EMPTY_CHAIN", "LineLog", "chain_of", "check_lines", "extend_chain", "read_lines"]

EMPTY_CHAIN = bytes(32)


def extend_chain(chain: bytes, line: bytes) -> bytes:
    """SHA-256 over the chain so far and the next line: equal chains mean equal lines in order."""
    return hashlib.sha256(chain + line).digest()


def chain_of(lines: Iterable[bytes]) -> bytes:
    """The chain of a machine that has applied `lines` once each and in order."""
    chain = EMPTY_CHAIN
    for line in lines:
        chain = extend_chain(chain, line)
    return chain


def read_lines(file: Path | None) -> list[bytes]:
    """Every line of `file`; by default of every .py file of this Python's standard library."""
    if file is not None:
        return file.read_bytes().splitlines()
    root = Path(sysconfig.get_paths()["stdlib"])
    paths = sorted(path for path in root.rglob("*.py") if "site-packages" not in path.parts)
    return [line for path in paths for line in path.read_bytes().splitlines()]


def check_lines(lines: list[bytes]) -> None:
    """EntryTooLargeError for the first line that members would refuse, with its number from 1."""
    limit = Storage().max_entry_size
    for number, line in enumerate(lines, 1):
        if len(line) <= limit // 2:
            continue
        try:
            encode_operation(LineLog.append(line), limit)
        except EntryTooLargeError as cause:
            raise EntryTooLargeError(
                f"line {number:,} has {len(line):,} bytes; as a command it is above the limit of"
                f" {limit:,} (storage.max_entry_size); nothing was started",
                hint="give the demo a file with shorter lines",
                size=len(line),
                limit=limit,
            ) from cause


class LineLog(StateMachine):
    """Counts and chains lines: a lost, repeated or swapped line leads to another chain."""

    def __init__(self) -> None:
        self.count = 0
        self.chain = EMPTY_CHAIN

    @command
    def append(self, line: bytes) -> int:
        """Apply one line; returns its number, from 1."""
        self.chain = extend_chain(self.chain, line)
        self.count += 1
        return self.count

    @query
    def summary(self) -> tuple[int, bytes]:
        """(lines applied, chain)."""
        return self.count, self.chain
