"""Which sessions are open by what a stopped member's files say, without the user's machine.

It follows the newest snapshot and the entries behind it, as `SessionExecutor` does with all of a
session but its commands' effects.
"""

from __future__ import annotations

from typing import NamedTuple

from copycat.machine import envelope
from copycat.machine.snapshot import read_snapshot
from copycat.storage.reader import StoredEntry
from copycat.types import EntryKind

__all__ = ["OpenSession", "OpenSessions"]


class OpenSession(NamedTuple):
    """A session by the last entry that was read."""

    session: int
    client_id: str
    active_index: int
    """The newest entry that showed its client alive."""
    sequence: int
    """Of its newest command."""


class OpenSessions:
    """Sessions by number, in the order of their registration."""

    def __init__(self, snapshot: bytes | None) -> None:
        """snapshot: the newest one's content; None without any. CorruptLogError."""
        self._sessions: dict[int, OpenSession] = {}
        if snapshot is not None:
            section, _ = read_snapshot(snapshot)
            for row in section.sessions:
                self._sessions[row.session] = OpenSession(
                    row.session, row.client_id, row.active_index, row.sequence
                )

    @property
    def rows(self) -> tuple[OpenSession, ...]:
        """All that are open."""
        return tuple(self._sessions.values())

    def take(self, record: StoredEntry) -> None:
        """The next entry of the log."""
        match record.kind:
            case EntryKind.COMMAND:
                session = int.from_bytes(record.payload[:8], "little")
                self._touch(session, record.index, int.from_bytes(record.payload[8:16], "little"))
            case EntryKind.REGISTER:
                client_id, _ = envelope.decode_register(record.payload)
                for other in self.rows:
                    if other.client_id == client_id:
                        del self._sessions[other.session]
                new = OpenSession(record.index, client_id, record.index, 0)
                self._sessions[record.index] = new
            case EntryKind.KEEP_ALIVE:
                self._touch(envelope.decode_keep_alive(record.payload)[0], record.index)
            case EntryKind.NOOP:
                for session in list(self._sessions):
                    self._touch(session, record.index)
            case EntryKind.CLOSE:
                self._sessions.pop(envelope.decode_close(record.payload), None)
            case EntryKind.EXPIRE:
                self._expire(*envelope.decode_expire(record.payload))
            case _:
                pass

    def _touch(self, session: int, index: int, sequence: int = 0) -> None:
        known = self._sessions.get(session)
        if known is None or 0 < sequence <= known.sequence:
            return
        newest = max(known.sequence, sequence)
        self._sessions[session] = known._replace(active_index=index, sequence=newest)

    def _expire(self, session: int, active_index: int) -> None:
        if session == envelope.EVERY_SESSION:
            self._sessions.clear()
        elif session in self._sessions and self._sessions[session].active_index <= active_index:
            del self._sessions[session]
