"""`docs/reference/wire-format.md` is true: its tables alone are enough to read each message."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple, get_args

import msgspec
import pytest

from copycat.protocol import client, feeding, peer
from copycat.protocol.client import MemberView, Refusal
from copycat.protocol.codec_configuration import encode_configuration
from copycat.protocol.member_record import DirectoryStart, Place
from copycat.protocol.wire import MEMBER_TYPE_CODES, PROTOCOL_VERSIONS, FrameType
from copycat.types import ChangeKind, MemberId, MemberType, ServerState, SkippedEntry
from tests.protocol import samples
from tests.tidy.tree import ROOT

PAGE = (ROOT / "docs/reference/wire-format.md").read_text(encoding="utf-8")

_SECTION = re.compile(r"^### ([A-Z_]+) \((\d+)\)\n(.*?)(?=^##|\Z)", re.MULTILINE | re.DOTALL)
_ROW = re.compile(r"^\| `([\w.\[\]]+)` \| ([\w\[\]]+) \|(.*)\|$", re.MULTILINE)
_CLASS = re.compile(r"`copycat/protocol/(?:peer|client|feeding)\.py:(\w+)`")
_NOT_FIELDS = {"magic", "padding", "flags", "answer", "entries", "bytes", "token", "frame"}
"""Rows that stand for no field of a message class, or for several."""


class Section(NamedTuple):
    """One frame type, as the page describes it."""

    name: str
    number: int
    class_name: str
    """Empty for FORWARD and RETURN, which wrap the frame of a client."""
    rows: list[tuple[str, str]]
    """(field, type), in the order of the wire."""
    words: str


def sections(text: str) -> dict[str, Section]:
    by_name: dict[str, Section] = {}
    for name, number, words in _SECTION.findall(text):
        hop = _CLASS.search(words)
        rows = [(field, kind) for field, kind, _ in _ROW.findall(words)]
        by_name[name] = Section(name, int(number), hop[1] if hop else "", rows, words)
    return by_name


def message_classes() -> set[type[msgspec.Struct]]:
    return {
        peer.Hello,
        peer.HelloRefused,
        *get_args(peer.PeerMessage),
        *get_args(feeding.FeedingMessage),
        *get_args(client.ClientMessage),
        *get_args(client.ServerMessage),
    }


TYPES = list(MemberType)
STATES = list(ServerState)


class Cursor:
    """Reads a body by the types of the page."""

    def __init__(self, body: bytes) -> None:
        self.body, self.at = body, 0

    def take(self, count: int) -> bytes:
        field_bytes = self.body[self.at : self.at + count]
        assert len(field_bytes) == count, "the body is shorter than the page says"
        self.at += count
        return field_bytes

    def integer(self, size: int) -> int:
        return int.from_bytes(self.take(size), "little")

    def member(self) -> MemberView:
        member, kind, flags = MemberId(self.integer(16)), self.integer(1), self.integer(1)
        since, match_index = self.integer(8), self.integer(8)
        address, failure_domain = self.read("text"), self.read("text")
        weight = int.from_bytes(self.take(2), "little", signed=True)
        replaces = MemberId(self.integer(16))
        return MemberView(
            member,
            TYPES[kind],
            address,
            since,
            bool(flags & 1),
            bool(flags & 2),
            match_index,
            bool(flags & 4),
            replaces,
            bool(flags & 8),
            bool(flags & 16),
            bool(flags & 32),
            failure_domain,
            weight,
        )

    def read(self, kind: str) -> Any:
        parsed = re.fullmatch(r"([a-z]+)\[?(\d*)\]?", kind)
        assert parsed is not None, f"the page uses an unknown type {kind}"
        name, count = parsed.groups()
        match name:
            case "u":
                return self.integer(int(count) // 8)
            case "bool":
                return {0: False, 1: True}[self.integer(1)]
            case "i":
                return int.from_bytes(self.take(int(count) // 8), "little", signed=True)
            case "zero":
                assert not any(self.take(int(count)))
                return None
            case "bytes":
                return self.take(int(count))
            case "text":
                return self.take(self.integer(2)).decode()
            case "texts":
                return tuple(self.read("text") for _ in range(self.integer(2)))
            case "skips":
                sizes = (8, 8, 4)
                return tuple(
                    SkippedEntry(*map(self.integer, sizes)) for _ in range(self.integer(2))
                )
            case "starts":
                return tuple(
                    DirectoryStart(*map(self.integer, (8, 8))) for _ in range(self.integer(2))
                )
            case "members":
                return tuple(self.member() for _ in range(self.integer(2)))
            case "rest":
                return self.take(len(self.body) - self.at)
        raise AssertionError(f"the page uses an unknown type {kind}")


def value_of(message: Any, field: str) -> Any:
    """What stands in a message where the page has `field`, as the wire has it."""
    match field:
        case "flags":
            flags = message.fresh + 2 * message.lost + 4 * bool(message.skips)
            flags += 8 * bool(message.cluster_incarnation) + 16 * bool(message.starts)
            flags += 32 * (message.place != Place())
            return flags
        case "answer":
            answer = 2 if message.wants_snapshot else int(message.accepted)
            return answer + 4 * message.storage_full + 8 * message.is_replaying
        case "consistency":
            return {"sequential": 0, "linearizable": 2}[message.consistency.value]
        case "member_type":
            return MEMBER_TYPE_CODES[message.member_type]
        case "configuration":
            return encode_configuration(message.configuration)
        case "type":
            return TYPES.index(message.type)
        case "state":
            return STATES.index(message.state)
        case "protocol[0]" | "protocol[1]":
            return message.protocol[int(field[-2])]
    value = message
    for part in field.split("."):
        value = getattr(value, part)
    return int(value) if isinstance(value, int) and not isinstance(value, bool) else value


def check(section: Section, message: Any, body: bytes) -> None:
    """Read `body` by the rows of a section, and compare each field with the message."""
    cursor = Cursor(body)
    for field, kind in section.rows:
        if field in {"skips", "cluster_incarnation", "starts"} and not getattr(message, field):
            continue
        if field.startswith("place.") and message.place == Place():
            continue
        if field.startswith("policy.") and getattr(message, "kind", None) not in {
            None,
            ChangeKind.POLICY,
        }:
            continue
        value = cursor.read(kind)
        if field == "magic":
            assert value == b"copycat\x01"
        elif field == "padding":
            assert value is None
        elif field not in {"entries", "bytes", "token", "frame"}:
            assert value == value_of(message, field), f"{section.name}: {field}"
    assert cursor.at == len(body), f"{section.name}: the page describes {cursor.at} bytes"


def messages() -> Iterator[Any]:
    yield from (samples.HELLO, samples.SKIPPING, samples.KNOWN, samples.REFUSED)
    yield from (samples.APPEND, samples.INSTALL, samples.FED, samples.FED_SNAPSHOT)
    yield from (*samples.PEERS, *samples.FEED_REQUESTS, *samples.FEED_ANSWERS)
    yield from (*samples.CLIENTS, *samples.SERVERS)


def frames() -> list[tuple[Any, bytes]]:
    """Each sample message with its bytes on the wire."""
    encoded = samples.encoded()
    first = ["hello", "hello-skipping", "hello-known", "hello-refused", "append", "install"]
    first += ["fed", "fed-snapshot"]
    rest = [name for name in encoded if name not in {*first, "forward", "return"}]
    return list(zip(messages(), [encoded[name] for name in first + rest], strict=True))


def test_every_frame_type_has_its_section_and_no_other_has() -> None:
    described = {section.name: section.number for section in sections(PAGE).values()}
    assert described == {kind.name: int(kind) for kind in FrameType}


def test_every_message_class_has_its_section_with_every_field() -> None:
    described = {one.class_name: one for one in sections(PAGE).values() if one.class_name}
    assert set(described) == {one.__name__ for one in message_classes()}
    for kind in message_classes():
        section = described[kind.__name__]
        missing = [one for one in kind.__struct_fields__ if f"`{one}" not in section.words]
        assert not missing, f"{section.name} does not describe {missing}"
        names = {re.split(r"[.\[]", field)[0] for field, _ in section.rows}
        assert names - _NOT_FIELDS <= set(kind.__struct_fields__), section.name


def test_every_message_is_read_back_by_the_page() -> None:
    by_number = {section.number: section for section in sections(PAGE).values()}
    seen = set()
    for message, data in frames():
        assert int.from_bytes(data[:4], "little") == len(data) - 8
        assert data[5:8] == bytes(3)
        section = by_number[data[4]]
        assert section.class_name == type(message).__name__
        check(section, message, data[8:])
        seen.add(type(message))
    assert seen == message_classes()


@pytest.mark.parametrize("name", ["forward", "return"])
def test_a_wrapped_frame_is_read_back_by_the_page(name: str) -> None:
    data = samples.encoded()[name]
    cursor = Cursor(data[8:])
    token, frame = (cursor.read(kind) for _, kind in sections(PAGE)[name.upper()].rows)
    assert token == 5
    assert int.from_bytes(frame[:4], "little") == len(frame) - 8


def test_every_refusal_code_is_on_the_page() -> None:
    rows = re.findall(r"^\| (\d+) \| ([A-Z_]+) \|", PAGE, re.MULTILINE)
    assert {name: int(code) for code, name in rows} == {one.name: int(one) for one in Refusal}


def test_the_version_is_the_one_that_the_code_speaks() -> None:
    assert PROTOCOL_VERSIONS[0] == PROTOCOL_VERSIONS[1]
    version = PROTOCOL_VERSIONS[1]
    assert f"for protocol version {version}." in PAGE
    assert f"Version {version} is the only one that this build speaks" in PAGE


def test_the_check_of_the_page_fires() -> None:
    """Two fields in the wrong order, a wrong size, and a field that is not described."""
    section = sections(PAGE)["PRE_VOTE"]
    message, data = next(pair for pair in frames() if isinstance(pair[0], peer.PreVote))
    check(section, message, data[8:])
    swapped = [section.rows[1], section.rows[0], *section.rows[2:]]
    shorter = [(section.rows[0][0], "u32"), *section.rows[1:]]
    for rows in (swapped, shorter, section.rows[:-1]):
        with pytest.raises(AssertionError):
            check(section._replace(rows=rows), message, data[8:])
