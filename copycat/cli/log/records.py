"""Shows an entry of a log: as a line for people, and as a dictionary for programs."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from contextlib import chdir
from typing import Any, NamedTuple

import msgspec

from copycat.cli.app import machine_class
from copycat.cli.formatting import clock_of, date_of, fitted, paint
from copycat.cli.log.members import configuration_fields, configuration_text
from copycat.errors import ConfigurationError, CopycatError
from copycat.machine import envelope
from copycat.machine.machine_runtime import command_decoder
from copycat.machine.reading import stand_in_of
from copycat.protocol.codec_configuration import decode_configuration
from copycat.protocol.member_record import ConfigurationRecord
from copycat.protocol.operations import Command
from copycat.protocol.results import decode_result, encode_result
from copycat.storage.reader import StoredEntry
from copycat.types import EntryKind, MemberStatus, SkippedEntry

__all__ = ["KINDS", "Filter", "RecordReader", "kind_name", "lines_of"]

KINDS = tuple(kind.name.lower() for kind in EntryKind if kind is not EntryKind.MARK)
_NAMES = {kind.value: kind.name.lower() for kind in EntryKind}
_ENVELOPE = struct.Struct("<QQI")
_SHOWN = 96
"""How many bytes of a payload, or characters of an operation, a line shows."""


def kind_name(kind: int) -> str:
    """The name of a kind: `command`, `noop`, …; `kind 42` for an unknown one."""
    return _NAMES.get(kind, f"kind {kind}")


class Filter(NamedTuple):
    """Selects records: by index from `first` to `last`, by kind, by session. None: any."""

    first: int = 1
    last: int | None = None
    kind: str | None = None
    session: int | None = None

    def takes(self, record: StoredEntry) -> bool:
        """True for a record that is selected, as is a gap that overlaps the range of indexes."""
        is_past = self.last is not None and record.index > self.last
        if record.end <= self.first or is_past:
            return False
        if self.kind is not None and kind_name(record.kind) != self.kind:
            return False
        return self.session is None or session_of(record) == self.session

    def is_last(self, record: StoredEntry) -> bool:
        """True when no later record can be selected."""
        return self.last is not None and record.end > self.last


def session_of(record: StoredEntry) -> int:
    """The session that an entry belongs to; 0 for none. An id is the index of the REGISTER
    entry."""
    if record.kind == EntryKind.COMMAND:
        return int.from_bytes(record.payload[:8], "little")
    if record.kind == EntryKind.REGISTER:
        return record.index
    if record.kind in {EntryKind.KEEP_ALIVE, EntryKind.CLOSE, EntryKind.EXPIRE}:
        return int.from_bytes(record.payload[:8], "little")
    return 0


class RecordReader:
    """Decodes payloads; operations with the machine that `app` names, or without any machine.

    ConfigurationError when that machine cannot be made.
    """

    def __init__(self, app: str | None = None, skips: tuple[SkippedEntry, ...] = ()) -> None:
        """skips: the entries that the member of this log skips."""
        self._skips = frozenset(skips)
        self._decode: Callable[[bytes | memoryview], Command[object]] | None = None
        if app is not None:
            try:
                # The module may change the working directory, which other paths are relative to.
                with chdir("."):
                    self._decode = command_decoder(machine_class(app)())
            except TypeError as cause:
                raise ConfigurationError(
                    f"--app {app}: the class cannot be made without arguments: {cause}"
                ) from cause

    def fields(self, record: StoredEntry) -> dict[str, Any]:
        """The fields of a record for JSON output; bytes become base64."""
        fields: dict[str, Any] = {
            "index": record.index,
            "term": record.term,
            "kind": kind_name(record.kind),
            "time_ms": record.time_ms,
            "size": len(record.frame) - 32,
            "crc": record.crc,
        }
        if record.is_gap:
            return fields | {"end": record.end, "valid_from": record.valid_from}
        if self._skipped(record):
            fields["skipped"] = True
        return fields | self._payload(record)

    def _skipped(self, record: StoredEntry) -> bool:
        return SkippedEntry(record.index, record.term, record.crc) in self._skips

    def _payload(self, record: StoredEntry) -> dict[str, Any]:
        payload = record.payload
        if record.kind == EntryKind.COMMAND and len(payload) >= _ENVELOPE.size:
            session, sequence, distance = _ENVELOPE.unpack_from(payload)
            head = {"session": session, "sequence": sequence, "acked": max(sequence - distance, 0)}
            return head | self._operation(payload[_ENVELOPE.size :])
        decode = _DECODERS.get(record.kind)
        try:
            if record.kind == EntryKind.CONFIGURATION:
                return configuration_fields(_configuration(record))
            if decode is not None:
                return decode(payload)
        except CopycatError as error:
            return {"payload": payload.hex(), "problem": error.message}
        return _bytes(payload) if payload else {}

    def _operation(self, data: bytes) -> dict[str, Any]:
        stand_in = stand_in_of(data)
        if stand_in is not None:
            return {"refused": decode_result(encode_result(stand_in.result), Any).text}
        problem: dict[str, Any] = {}
        if self._decode is not None:
            try:
                command = self._decode(data)
                name = type(command).__operation_name__
                return {"operation": name, "arguments": msgspec.structs.asdict(command)}
            except CopycatError as error:
                problem = {"problem": error.message}
        try:
            values = msgspec.msgpack.decode(data, type=list[Any])
        except msgspec.MsgspecError:
            return problem | {"payload": data.hex()}
        if not values or not isinstance(values[0], str):
            return problem | {"payload": data.hex()}
        return problem | {"operation": values[0], "arguments": values[1:]}

    def line(self, record: StoredEntry) -> str:
        """A record as one line: index, term, time, kind, and content."""
        index = str(record.index)
        if record.is_gap and record.end - 1 > record.index:
            index = f"{record.index}–{record.end - 1}"
        kind = kind_name(record.kind)
        text = ("skipped by the operator: " if self._skipped(record) else "") + self._description(
            record
        )
        row = f"{index:>11}  {record.term:>4}  {clock_of(record.time_ms)}  {kind:<11}  {text}"
        row = row.rstrip()
        return paint(fitted(row), "dim") if record.is_gap else fitted(row)

    def _description(self, record: StoredEntry) -> str:
        if record.is_gap:
            count = record.end - record.index
            words = "entry" if count == 1 else "entries"
            return f"{count:,} {words} deleted; exact from {record.valid_from:,} on"
        if record.kind == EntryKind.CONFIGURATION and (text := _members(record)):
            return text
        fields = self._payload(record)
        problem = f"  ({fields['problem']})" if "problem" in fields else ""
        if "operation" in fields:
            text = _call(fields["operation"], fields["arguments"])
            return f"{fields['session']}#{fields['sequence']} {text}{problem}"
        if "refused" in fields:
            return f"{fields['session']}#{fields['sequence']} refused: {fields['refused']}"
        if "payload" in fields:
            shown = _shown(bytes.fromhex(fields["payload"]))
            session = f"{fields['session']}#{fields['sequence']} " if "session" in fields else ""
            return f"{session}{shown}{problem}"
        return ", ".join(f"{name} {value}" for name, value in fields.items())


def lines_of(reader: RecordReader, records: Iterator[StoredEntry]) -> Iterator[str]:
    """A head, then one line per record; and a line with the date where the date changes."""
    yield f"{'INDEX':>11}  {'TERM':>4}  {'TIME (UTC)':<12}  {'KIND':<11}  ENTRY"
    day = ""
    for record in records:
        if date_of(record.time_ms) != day:
            day = date_of(record.time_ms)
            yield paint(f"{'':>11}  {'':>4}  {day}", "dim")
        yield reader.line(record)


def _call(name: str, arguments: Any) -> str:
    if isinstance(arguments, dict):
        inside = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
    else:
        inside = ", ".join(map(repr, arguments))
    return f"{name}({inside if len(inside) <= _SHOWN else inside[: _SHOWN - 1] + '…'})"


def _shown(payload: bytes) -> str:
    """The beginning of the bytes, as text if they are text, else in hexadecimal."""
    part = payload[:_SHOWN]
    text = part.decode("utf-8", "replace").rstrip("�")
    shown = repr(text) if text and text.isprintable() else part.hex(" ", 4)
    more = "…" if len(payload) > len(part) else ""
    return f"{len(payload):,} B  {shown}{more}" if payload else "0 B"


def _bytes(payload: bytes) -> dict[str, Any]:
    fields: dict[str, Any] = {"payload": payload.hex()}
    try:
        return fields | {"text": payload.decode("utf-8")}
    except UnicodeDecodeError:
        return fields


def _configuration(record: StoredEntry) -> ConfigurationRecord:
    return decode_configuration(record.payload, f"entry {record.index}")


def _members(record: StoredEntry) -> str:
    """In words; empty when the entry cannot be read."""
    try:
        return configuration_text(_configuration(record))
    except CopycatError:
        return ""


def _register(payload: bytes) -> dict[str, Any]:
    client, timeout_ms = envelope.decode_register(payload)
    return {"client": client, "timeout_ms": timeout_ms}


def _keep_alive(payload: bytes) -> dict[str, Any]:
    session, acked = envelope.decode_keep_alive(payload)
    return {"session": session, "acked": acked}


def _expire(payload: bytes) -> dict[str, Any]:
    session, active_index = envelope.decode_expire(payload)
    whose = session if session != envelope.EVERY_SESSION else "all"
    return {"session": whose, "active_index": active_index}


def _incarnation(payload: bytes) -> dict[str, Any]:
    member, incarnation = envelope.decode_incarnation(payload)
    return {"member": f"{member:032x}", "incarnation": f"{incarnation:032x}"}


def _availability(payload: bytes) -> dict[str, Any]:
    member, is_available = envelope.decode_availability(payload)
    status = MemberStatus.AVAILABLE if is_available else MemberStatus.UNAVAILABLE
    return {"member": f"{member:032x}", "status": str(status)}


_DECODERS: dict[int, Callable[[bytes], dict[str, Any]]] = {
    EntryKind.REGISTER: _register,
    EntryKind.KEEP_ALIVE: _keep_alive,
    EntryKind.CLOSE: lambda payload: {"session": envelope.decode_close(payload)},
    EntryKind.EXPIRE: _expire,
    EntryKind.INCARNATION: _incarnation,
    EntryKind.AVAILABILITY: _availability,
}
