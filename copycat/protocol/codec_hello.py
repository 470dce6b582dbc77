"""Bytes of the handshake between two members: HELLO, and why a member was not let in."""

from __future__ import annotations

from struct import Struct

import msgspec

from copycat.errors import ConfigurationError, ProtocolError
from copycat.protocol.codec_configuration import pack_place, read_place
from copycat.protocol.framing import HANDSHAKE_LIMIT, Frame, encode_frame
from copycat.protocol.member_record import DirectoryStart, Place
from copycat.protocol.peer import Hello, HelloRefused
from copycat.protocol.wire import (
    PROTOCOL_VERSIONS,
    REASON_MAX,
    FrameType,
    Reader,
    pack_text,
    pack_texts,
    unknown_frame,
)
from copycat.types import MemberId, SkippedEntry

__all__ = ["decode_hello", "decode_hello_refused", "encode_hello", "encode_hello_refused"]

_HELLO = Struct("<BHH")
_SKIP = Struct("<QQI")
_COUNT = Struct("<H")
_START = Struct("<QQ")
_FLAG = Struct("<B")
_IS_FRESH, _IS_LOST, _HAS_SKIPS, _HAS_CLUSTER_INCARNATION, _HAS_STARTS, _HAS_PLACE = (
    1, 2, 4, 8, 16, 32,
)  # fmt: skip
"""Flags of a HELLO."""
_FLAGS = _IS_FRESH | _IS_LOST | _HAS_SKIPS | _HAS_CLUSTER_INCARNATION | _HAS_STARTS | _HAS_PLACE
_MAGIC = b"copycat\x01"


def encode_hello(hello: Hello) -> bytes:
    """The first frame of a peer link, and the answer to it (C16)."""
    body = b"".join(
        (
            _MAGIC,
            _HELLO.pack(
                _IS_FRESH * hello.fresh
                | _IS_LOST * hello.lost
                | _HAS_SKIPS * bool(hello.skips)
                | _HAS_CLUSTER_INCARNATION * bool(hello.cluster_incarnation)
                | _HAS_STARTS * bool(hello.starts)
                | _HAS_PLACE * (hello.place != Place()),
                *hello.protocol,
            ),
            hello.member.to_bytes(16, "little"),
            hello.incarnation.to_bytes(16, "little"),
            pack_text(hello.cluster_name),
            pack_text(hello.address),
            pack_texts(hello.members),
            _pack_skips(hello.skips) if hello.skips else b"",
            hello.cluster_incarnation.to_bytes(16, "little") if hello.cluster_incarnation else b"",
            _pack_starts(hello.starts) if hello.starts else b"",
            pack_place(hello.place) if hello.place != Place() else b"",
        )
    )
    if len(body) > HANDSHAKE_LIMIT:
        raise ConfigurationError(
            f"the list of {len(hello.members)} members takes {len(body)} bytes in a handshake; "
            f"the limit is {HANDSHAKE_LIMIT}",
            hint="use shorter addresses, or fewer founding members",
        )
    return encode_frame(FrameType.HELLO, body)


def decode_hello(frame: Frame) -> Hello:
    """ProtocolError unless it is a whole and exact Hello.

    Of a member that speaks other versions only what every version has in the same place is read:
    up to its address, so that it can be refused by name.
    """
    if frame.type != FrameType.HELLO:
        raise unknown_frame(frame, "HELLO")
    reader = Reader(frame.body, "HELLO")
    magic = bytes(reader.take(len(_MAGIC)))
    if magic != _MAGIC:
        raise ProtocolError(f"HELLO begins with {magic!r}, not {_MAGIC!r}")
    flags, low, high = reader.unpack(_HELLO)
    if low > high:
        raise ProtocolError(f"HELLO: protocol versions {low} to {high} are no range")
    member, incarnation = MemberId(reader.wide()), reader.wide()
    cluster_name, address = reader.text(), reader.text()
    is_fresh, is_lost = bool(flags & _IS_FRESH), bool(flags & _IS_LOST)
    hello = Hello(cluster_name, (), member, incarnation, address, is_fresh, (low, high), is_lost)
    if low > PROTOCOL_VERSIONS[1] or high < PROTOCOL_VERSIONS[0]:
        return hello
    if flags & ~_FLAGS:
        raise ProtocolError(f"HELLO: flags {flags:#x} are not known")
    if is_fresh and is_lost:
        raise ProtocolError("HELLO: a log that never held anything cannot have lost it")
    members = reader.texts()
    skips = _read_skips(reader) if flags & _HAS_SKIPS else ()
    cluster_incarnation = reader.wide() if flags & _HAS_CLUSTER_INCARNATION else 0
    starts = _read_starts(reader) if flags & _HAS_STARTS else ()
    place = read_place(reader, "HELLO") if flags & _HAS_PLACE else Place()
    reader.end()
    return msgspec.structs.replace(
        hello,
        members=members,
        skips=skips,
        cluster_incarnation=cluster_incarnation,
        starts=starts,
        place=place,
    )


def _pack_starts(starts: tuple[DirectoryStart, ...]) -> bytes:
    return _COUNT.pack(len(starts)) + b"".join(_START.pack(*start) for start in starts)


def _read_starts(reader: Reader) -> tuple[DirectoryStart, ...]:
    (count,) = reader.unpack(_COUNT)
    starts = tuple(DirectoryStart(*reader.unpack(_START)) for _ in range(count))
    numbers = [0, *(each.number for each in starts)]
    if not starts or sorted(set(numbers)) != numbers:
        raise ProtocolError("HELLO: the starts of the directory are not in order")
    return starts


def _pack_skips(skips: tuple[SkippedEntry, ...]) -> bytes:
    """Behind the rest, where there are any: nearly no cluster has them."""
    return _COUNT.pack(len(skips)) + b"".join(_SKIP.pack(*skip) for skip in skips)


def _read_skips(reader: Reader) -> tuple[SkippedEntry, ...]:
    (count,) = reader.unpack(_COUNT)
    skips = [SkippedEntry(*reader.unpack(_SKIP)) for _ in range(count)]
    if not skips or sorted(set(skips)) != skips:
        raise ProtocolError("HELLO: the skipped entries are not in order")
    return tuple(skips)


def encode_hello_refused(refused: HelloRefused) -> bytes:
    """The last frame before the listener closes."""
    body = pack_text(refused.code, cut=True) + pack_text(refused.reason, REASON_MAX, cut=True)
    body += _FLAG.pack(refused.is_final) + pack_text(refused.leader)
    return encode_frame(FrameType.HELLO_REFUSED, body)


def decode_hello_refused(frame: Frame) -> HelloRefused:
    """Why the other side did not let us in."""
    if frame.type != FrameType.HELLO_REFUSED:
        raise unknown_frame(frame, "HELLO_REFUSED")
    reader = Reader(frame.body, "HELLO_REFUSED")
    code, reason, (flag,) = reader.text(), reader.text(REASON_MAX), reader.unpack(_FLAG)
    if flag > 1:
        raise ProtocolError(f"HELLO_REFUSED: a flag of {flag}")
    refused = HelloRefused(code, reason, bool(flag), reader.text())
    reader.end()
    return refused
