"""Small logs with fixed bytes and times, for what the tools print."""

from __future__ import annotations

from pathlib import Path

from copycat.log.entries import encode_payload
from copycat.machine import envelope
from copycat.machine.kv import KeyValueStore
from copycat.protocol.operations import Command, encode_operation
from copycat.storage._native import Env, NativeLog, encode_batch
from copycat.storage.interface import EncodeItem
from copycat.types import EntryKind
from tests.log.cleaned import clean_by_hand
from tests.log.contract import durable
from tests.log.test_native import open_small

__all__ = ["APP", "NOON_MS", "append", "bare_log", "command_log", "one", "put", "run_of"]

APP = "copycat.machine.kv:KeyValueStore"
NOON_MS = 1_795_608_000_000
"""2026-11-25, twelve o'clock (UTC)."""


def put(key: str, value: bytes) -> Command[None]:
    operation = KeyValueStore.put(key, value)
    assert isinstance(operation, Command)
    return operation


def run_of(session: int, first_sequence: int, *operations: Command[None] | bytes) -> EncodeItem:
    """The commands of one session as one item of a batch."""
    parts = [one if isinstance(one, bytes) else encode_operation(one) for one in operations]
    lengths = b"".join(len(part).to_bytes(4, "little") for part in parts)
    body = lengths + b"".join(parts)
    acked = first_sequence - 1
    return (int(EntryKind.COMMAND), session, first_sequence, acked, len(parts), body)


def one(kind: EntryKind, payload: bytes = b"") -> EncodeItem:
    return (int(kind), 0, 0, 0, 1, payload)


def append(log: NativeLog, term: int, at_ms: int, *items: EncodeItem) -> None:
    log.append(encode_batch(term, log.last_index + 1, NOON_MS + at_ms, items))


def command_log(path: Path, *, clean: bool = True) -> Path:
    """What a member logs: 16 entries of two terms, a session; 4 to 6 deleted when `clean`."""
    path.mkdir()
    log = open_small(Env(), str(path))
    append(log, 1, 0, one(EntryKind.NOOP))
    append(log, 1, 5, one(EntryKind.REGISTER, envelope.encode_register("ada", 5000)))
    puts = [put(f"k{i % 3}", b"v%d" % i) for i in range(6)]
    append(log, 1, 12, run_of(2, 1, *puts))
    append(log, 2, 43_200_000, one(EntryKind.NOOP))
    append(log, 2, 43_200_001, run_of(2, 7, put("k0", b"\xff\x00"), put("k1", b"w" * 200)))
    append(log, 2, 43_200_100, one(EntryKind.KEEP_ALIVE, envelope.encode_keep_alive(2, 8)))
    append(log, 2, 43_200_200, one(EntryKind.EXPIRE, envelope.encode_expire(2, 12)))
    append(log, 2, 43_200_300, one(EntryKind.CLOSE, envelope.encode_close(2)))
    append(log, 2, 43_200_400, one(EntryKind.TICK))
    append(log, 2, 43_200_500, one(EntryKind.INCARNATION, envelope.encode_incarnation(7, 9)))
    durable(log)
    log.close()
    if clean:
        clean_by_hand(Env(), str(path), 0, {1, 2, 3, 7, 8}, valid_from=15)
    return path


def bare_log(path: Path, count: int = 3) -> Path:
    """Entries of bytes: text, and one that is none."""
    path.mkdir()
    log = open_small(Env(), str(path), entries=64)
    for number in range(count):
        append(log, 1, number, encode_payload(b"line %d" % number))
    append(log, 1, count, encode_payload(b"\x00\x01\xfe\xff"))
    log.close()
    return path
