"""The session section of a snapshot: every open session as a row, and back.

Nothing here knows a machine. A session's listeners are the machine's callbacks, so the machine
encodes them (`encode_listeners`) and reads them back itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from copycat.errors import CorruptLogError
from copycat.machine.sessions import SessionRecord, SessionTable
from copycat.machine.snapshot import DECODING_ERRORS, SavedSession
from copycat.machine.state_stream import StateStream

__all__ = ["pack_incarnations", "read_sessions", "unpack_incarnations", "write_sessions"]

_split = msgspec.msgpack.Decoder(list[msgspec.Raw]).decode


def write_sessions(
    sessions: SessionTable,
    encode_listeners: Callable[[SessionRecord], list[Any]],
    stream: StateStream,
) -> None:
    """Write the array of all open sessions, in the order of their registration."""
    stream.head(len(sessions))
    for record in sessions:
        saved = _saved(record, encode_listeners(record))
        stream.plain(saved, 64 + record.unacked_nbytes)


def _saved(record: SessionRecord, listeners: list[Any]) -> SavedSession:
    return SavedSession(
        record.session,
        record.client_id,
        record.timeout_ms,
        record.time_ms,
        record.active_index,
        record.sequence,
        record.newest_index,
        record.claimed,
        record.claim_index,
        record.acked_sequence,
        list(record.replies),
        listeners,
    )


def read_sessions(rows: list[SavedSession]) -> list[SessionRecord]:
    """The sessions of a snapshot, without listeners. CorruptLogError when replies are cut."""
    try:
        return [_record(row) for row in rows]
    except (*DECODING_ERRORS, LookupError) as error:
        raise CorruptLogError(f"a snapshot cannot be read: {error}") from error


def _record(row: SavedSession) -> SessionRecord:
    record = SessionRecord(row.session, row.client_id, row.timeout_ms, row.time_ms)
    record.active_index = row.active_index
    record.sequence = row.sequence
    record.newest_index = row.newest_index
    record.claimed = row.claimed
    record.claim_index = row.claim_index
    record.acked_sequence = row.acked_sequence
    for reply in row.replies:
        if len(_split(reply.body)) != reply.count:
            raise CorruptLogError(f"replies of session {row.session} in a snapshot are cut")
    record.store_replies(row.replies)
    return record


def pack_incarnations(incarnations: dict[int, int]) -> list[tuple[bytes, bytes]]:
    """The table as a snapshot has it: numbers of 128 bits, as bytes."""
    return [
        (member.to_bytes(16, "little"), number.to_bytes(16, "little"))
        for member, number in incarnations.items()
    ]


def unpack_incarnations(rows: list[tuple[bytes, bytes]]) -> dict[int, int]:
    """What `pack_incarnations` packed."""
    return {int.from_bytes(one, "little"): int.from_bytes(two, "little") for one, two in rows}
