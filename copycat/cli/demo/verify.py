"""The verifier of the demo: a process of its own that only reads the members' directories.

Its input is the members' directories, the last commit index of each member, and the lines. It
prints one JSON document: what it proved (exit code 0), or which proof failed (exit code 4).
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import click
import msgspec

from copycat.cli.demo.lines import LineLog, read_lines
from copycat.cli.demo.proof import (
    AppliedLine,
    ProofError,
    StoredLog,
    prove_lines,
    prove_same_frames,
)
from copycat.cli.paths import PathOption
from copycat.errors import CorruptLogError, DiskError, StorageError
from copycat.storage.reader import StoredEntry, entries
from copycat.types import EntryKind

__all__ = ["applied_lines", "main", "verify_members"]

_ENVELOPE = struct.Struct("<QQI")  # session, sequence, distance to the acknowledged sequence
_NAME = msgspec.msgpack.decode(msgspec.msgpack.encode(LineLog.append(b"")))[0]


def applied_lines(stored: Iterable[StoredEntry]) -> Iterator[AppliedLine]:
    """The commands among a log's entries, decoded from their own bytes."""
    for entry in stored:
        if entry.kind != EntryKind.COMMAND:
            continue
        payload = entry.payload
        session, sequence, _ = _ENVELOPE.unpack_from(payload)
        name, line = msgspec.msgpack.decode(payload[_ENVELOPE.size :], type=tuple[str, bytes])
        if name != _NAME:
            raise ProofError(
                "not a command of the demo",
                member="every member",
                index=entry.index,
                expected=_NAME,
                actual=name,
            )
        yield AppliedLine(entry.index, session, sequence, line)


def verify_members(
    members: Sequence[tuple[str, str, int]], lines: Sequence[bytes]
) -> dict[str, Any]:
    """Prove it all for (name, directory, commit index) of each member; ProofError if not."""
    logs = [
        _stored_log(name, directory, commit_index) for name, directory, commit_index in members
    ]
    names = ", ".join(name for name, _, _ in members)
    last_line = [0]
    proved = prove_lines(
        names, _remember(applied_lines(prove_same_frames(logs)), last_line), lines
    )
    for name, _, commit_index in members:
        if commit_index < last_line[0]:
            raise ProofError(
                "it stopped before it had committed every line",
                member=name,
                index=commit_index,
                expected=f"a commit index of at least {last_line[0]}",
                actual=commit_index,
            )
    return {
        "schema": 1,
        "lines": len(lines),
        "chain": proved.hex(),
        "last_line_index": last_line[0],
        "commit_index": min(commit_index for _, _, commit_index in members),
        "first_index": {log.member: log.first_index for log in logs},
    }


def _stored_log(name: str, directory: str, commit_index: int) -> StoredLog[StoredEntry]:
    stored = _checked(name, directory)
    first = next(stored, None)
    if first is None:
        return StoredLog(name, commit_index, ())
    return StoredLog(name, commit_index, chain([first], stored), first.index)


def _remember(applied: Iterable[AppliedLine], last: list[int]) -> Iterator[AppliedLine]:
    for entry in applied:
        last[0] = entry.index
        yield entry


def _checked(name: str, directory: str) -> Iterator[StoredEntry]:
    """A log's entries; unreadable bytes become a proof that failed, with the member's name."""
    try:
        yield from entries(directory)
    except StorageError as cause:
        raise ProofError(
            f"its log cannot be read: {cause}",
            member=name,
            index=cause.index if isinstance(cause, CorruptLogError | DiskError) else 0,
            expected="readable entries",
            actual=type(cause).__name__,
        ) from cause


@click.command()
@click.option("--member", "members", type=(str, str, int), multiple=True, required=True)
@click.option("--file", type=PathOption(path_type=Path, exists=True))
def main(members: tuple[tuple[str, str, int], ...], file: Path | None) -> None:
    """Verify the members' directories against the input."""
    try:
        verdict = verify_members(members, read_lines(file))
    except ProofError as cause:
        verdict = {
            "schema": 1,
            "what": cause.what,
            "member": cause.member,
            "index": cause.index,
            "expected": repr(cause.expected),
            "actual": repr(cause.actual),
        }
        click.echo(json.dumps(verdict))
        raise click.exceptions.Exit(4) from cause
    click.echo(json.dumps(verdict))


if __name__ == "__main__":
    main()
