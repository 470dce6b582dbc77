"""Reads the logs of members that were stopped, for the checkers."""

from __future__ import annotations

import struct
from pathlib import Path

import msgspec

from copycat.machine.reading import stand_in_of
from copycat.storage.reader import entries
from copycat.types import EntryKind
from tests.chaos.checkers import LoggedEntry, MemberLog

__all__ = ["read_log"]

_ENVELOPE = struct.Struct("<QQI")  # session, sequence, distance to the acknowledged sequence


def read_log(member: str, directory: Path, commit_index: int) -> MemberLog:
    """All entries that the member has; a member without a log has none."""
    if not (directory / "log").exists():
        return MemberLog(member, 0, {})
    stored: dict[int, LoggedEntry] = {}
    for entry in entries(str(directory)):
        if not entry.is_gap:
            token = _token(entry.payload) if entry.kind == EntryKind.COMMAND else 0
            stored[entry.index] = LoggedEntry(entry.frame, token)
    return MemberLog(member, commit_index, stored)


def _token(payload: bytes) -> int:
    operation = payload[_ENVELOPE.size :]
    if stand_in_of(operation) is not None:
        return 0
    return int(msgspec.msgpack.decode(operation)[-1])
