"""Words of the wire that both codecs use: frame types, a strict reader, bounded strings."""

from __future__ import annotations

import enum
from struct import Struct

from copycat.errors import ConfigurationError, ProtocolError
from copycat.protocol.framing import Buffer, Frame
from copycat.types import MemberType

__all__ = [
    "ADDRESSES_MAX",
    "CLIENT_TYPES",
    "MEMBER_TYPES_BY_CODE",
    "MEMBER_TYPE_CODES",
    "PEER_TYPES",
    "PROTOCOL_VERSIONS",
    "REASON_MAX",
    "SERVER_TYPES",
    "TEXT_MAX",
    "FrameType",
    "Reader",
    "exact",
    "pack_text",
    "pack_texts",
    "unknown_frame",
]

PROTOCOL_VERSIONS = (5, 5)
"""Lowest and highest version of the protocol between members that this build speaks."""

TEXT_MAX = 255
"""Bytes of a name, an address or a client id."""
REASON_MAX = 1024
"""Bytes of a reason, cut when longer."""
ADDRESSES_MAX = 128
"""Addresses in one list."""

MEMBER_TYPE_CODES = {
    MemberType.INACTIVE: 0,
    MemberType.RESERVE: 1,
    MemberType.PASSIVE: 2,
    MemberType.ACTIVE: 3,
}
"""Types of members as disk and wire have them; 0: no member."""
MEMBER_TYPES_BY_CODE = {code: kind for kind, code in MEMBER_TYPE_CODES.items()}

_U16 = Struct("<H")


class FrameType(enum.IntEnum):
    """What a frame is: 1 to 31 between members, 32 to 47 from clients, 48 to 63 to clients."""

    HELLO = 1
    HELLO_REFUSED = 2
    APPEND_ENTRIES = 3
    APPEND_REPLY = 4
    PRE_VOTE = 5
    PRE_VOTE_REPLY = 6
    REQUEST_VOTE = 7
    VOTE_REPLY = 8
    TIMEOUT_NOW = 9
    FORWARD = 10
    RETURN = 11
    INSTALL_SNAPSHOT = 12
    INSTALL_REPLY = 13
    LOG_POSITION = 14
    LOG_REGRESSED = 15
    CONFIGURATION_NOTICE = 16
    FEED_REQUEST = 17
    FED_ENTRIES = 18
    FEED_ANSWER = 19
    FED_SNAPSHOT = 20
    REGISTER = 32
    KEEP_ALIVE = 33
    CLOSE_SESSION = 34
    COMMANDS = 35
    QUERY = 36
    VIEW = 37
    CHANGE = 38
    TRANSFER = 39
    REGISTERED = 48
    KEPT_ALIVE = 49
    SESSION_CLOSED = 50
    RESULTS = 51
    COMMANDS_REFUSED = 52
    QUERY_RESULT = 53
    FAILURE = 54
    CLUSTER_VIEW = 55
    CHANGE_REFUSED = 56


PEER_TYPES = frozenset(int(kind) for kind in FrameType if kind < 32)
CLIENT_TYPES = frozenset(int(kind) for kind in FrameType if 32 <= kind < 48)
SERVER_TYPES = frozenset(int(kind) for kind in FrameType if kind >= 48)


def unknown_frame(frame: Frame, expected: str) -> ProtocolError:
    """The error for a frame whose type has no place here."""
    try:
        name = FrameType(frame.type).name
    except ValueError:
        name = "unknown"
    return ProtocolError(
        f"frame type {frame.type} ({name}, {len(frame.body)} bytes) where {expected} was expected"
    )


def pack_text(text: str, limit: int = TEXT_MAX, *, cut: bool = False) -> bytes:
    """`u16 length | UTF-8`. Too long: ConfigurationError, or cut at a character."""
    data = text.encode("utf-8", "replace")
    if len(data) > limit:
        if not cut:
            raise ConfigurationError(f"{text!r} has {len(data)} bytes; the limit is {limit}")
        data = data[:limit].decode("utf-8", "ignore").encode()
    return _U16.pack(len(data)) + data


def pack_texts(texts: tuple[str, ...]) -> bytes:
    """`u16 count`, then that many strings."""
    if len(texts) > ADDRESSES_MAX:
        raise ConfigurationError(f"{len(texts)} addresses; the limit is {ADDRESSES_MAX}")
    return b"".join((_U16.pack(len(texts)), *map(pack_text, texts)))


class Reader:
    """Takes a body apart from front to back; every shortage or excess is a ProtocolError."""

    __slots__ = ("_at", "_body", "_what")

    def __init__(self, body: Buffer, what: str) -> None:
        self._body = memoryview(body)
        self._at = 0
        self._what = what

    def take(self, count: int) -> memoryview:
        """The next `count` bytes."""
        end = self._at + count
        if end > len(self._body):
            raise ProtocolError(
                f"{self._what} is cut short: {count} bytes wanted at byte {self._at} of "
                f"{len(self._body)}"
            )
        part = self._body[self._at : end]
        self._at = end
        return part

    def unpack(self, layout: Struct) -> tuple[int, ...]:
        """The numbers of `layout`."""
        return layout.unpack(self.take(layout.size))

    def wide(self) -> int:
        """A number of 128 bits."""
        return int.from_bytes(self.take(16), "little")

    def flag(self, value: int) -> bool:
        """A number that must be 0 or 1."""
        if value > 1:
            raise ProtocolError(f"{self._what}: a flag is {value}, not 0 or 1")
        return bool(value)

    def text(self, limit: int = TEXT_MAX) -> str:
        """A string of `pack_text`."""
        (length,) = self.unpack(_U16)
        if length > limit:
            raise ProtocolError(f"{self._what}: a string of {length} bytes; the limit is {limit}")
        data = self.take(length)
        try:
            return str(data, "utf-8")
        except UnicodeDecodeError as error:
            raise ProtocolError(f"{self._what}: a string is not UTF-8 ({error.reason})") from error

    def texts(self) -> tuple[str, ...]:
        """A list of `pack_texts`."""
        (count,) = self.unpack(_U16)
        if count > ADDRESSES_MAX:
            raise ProtocolError(f"{self._what}: {count} addresses; the limit is {ADDRESSES_MAX}")
        return tuple(self.text() for _ in range(count))

    @property
    def left(self) -> int:
        """How many bytes are left."""
        return len(self._body) - self._at

    def rest(self) -> memoryview:
        """Everything that is left."""
        part = self._body[self._at :]
        self._at = len(self._body)
        return part

    def end(self) -> None:
        """Nothing may be left."""
        if self._at != len(self._body):
            raise ProtocolError(
                f"{self._what} has {len(self._body) - self._at} bytes too many after {self._at}"
            )


def exact(layout: Struct, frame: Frame, what: str) -> tuple[int, ...]:
    """The numbers of a body that is exactly `layout`."""
    if len(frame.body) != layout.size:
        raise ProtocolError(f"{what} has {len(frame.body)} bytes of body, not {layout.size}")
    return layout.unpack(frame.body)
