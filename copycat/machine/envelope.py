"""Payloads of the entries that are not commands, as the log keeps them.

A command's envelope (session, sequence, acknowledged distance) belongs to the native encoder.
The leader writes these from checked requests, so a malformed one in a committed log is a broken
law, not bad input: InvariantError stops the member (F21).
"""

from __future__ import annotations

from struct import Struct

from copycat.errors import require

__all__ = [
    "EVERY_SESSION",
    "decode_availability",
    "decode_close",
    "decode_expire",
    "decode_incarnation",
    "decode_keep_alive",
    "decode_register",
    "encode_availability",
    "encode_close",
    "encode_expire",
    "encode_incarnation",
    "encode_keep_alive",
    "encode_register",
]

_REGISTER = Struct("<I")
_KEEP_ALIVE = Struct("<QQ")
_CLOSE = Struct("<Q")
_EXPIRE = Struct("<QQ")

EVERY_SESSION = 0
"""In an EXPIRE: all sessions end, whatever their activity (C46). No session has this number."""


def encode_register(client_id: str, timeout_ms: int) -> bytes:
    """REGISTER. `timeout_ms` is above 0: the leader puts its default in, so that all agree."""
    require(timeout_ms > 0, "a session needs a timeout", timeout_ms=timeout_ms)
    return _REGISTER.pack(timeout_ms) + client_id.encode("utf-8", "replace")


def decode_register(payload: bytes) -> tuple[str, int]:
    """(client_id, timeout_ms)."""
    require(len(payload) >= _REGISTER.size, "a short REGISTER", payload=payload)
    (timeout_ms,) = _REGISTER.unpack_from(payload)
    require(timeout_ms > 0, "a REGISTER without a timeout", payload=payload)
    return payload[_REGISTER.size :].decode("utf-8", "replace"), timeout_ms


def encode_keep_alive(session: int, acked_sequence: int) -> bytes:
    """KEEP_ALIVE."""
    return _KEEP_ALIVE.pack(session, acked_sequence)


def decode_keep_alive(payload: bytes) -> tuple[int, int]:
    """(session, acked_sequence)."""
    session, acked_sequence = _unpack(_KEEP_ALIVE, payload)
    return session, acked_sequence


def encode_close(session: int) -> bytes:
    """CLOSE."""
    return _CLOSE.pack(session)


def decode_close(payload: bytes) -> int:
    """The session."""
    (session,) = _unpack(_CLOSE, payload)
    return session


def encode_expire(session: int, active_index: int) -> bytes:
    """EXPIRE. `active_index`: the newest activity that the leader saw (C25); the last entry of the
    old cluster where `session` is EVERY_SESSION."""
    return _EXPIRE.pack(session, active_index)


def decode_expire(payload: bytes) -> tuple[int, int]:
    """(session, active_index)."""
    session, active_index = _unpack(_EXPIRE, payload)
    return session, active_index


def encode_incarnation(member: int, incarnation: int) -> bytes:
    """INCARNATION: two numbers of 128 bits (C16)."""
    return member.to_bytes(16, "little") + incarnation.to_bytes(16, "little")


def decode_incarnation(payload: bytes) -> tuple[int, int]:
    """(member, incarnation)."""
    require(len(payload) == 32, "an INCARNATION of another size", payload=payload)
    return int.from_bytes(payload[:16], "little"), int.from_bytes(payload[16:], "little")


def encode_availability(member: int, *, is_available: bool) -> bytes:
    """AVAILABILITY: a member, 128 bits, and whether the leader hears it (C38)."""
    return member.to_bytes(16, "little") + bytes([is_available])


def decode_availability(payload: bytes) -> tuple[int, bool]:
    """(member, is_available)."""
    is_whole = len(payload) == 17 and payload[16] <= 1
    require(is_whole, "an AVAILABILITY that is none", payload=payload)
    return int.from_bytes(payload[:16], "little"), bool(payload[16])


def _unpack(layout: Struct, payload: bytes) -> tuple[int, ...]:
    require(
        len(payload) == layout.size, "a payload of another size", size=layout.size, payload=payload
    )
    return layout.unpack(payload)
