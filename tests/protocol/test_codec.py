"""Every message: golden bytes, round trips, and garbage that never raises past the codec."""

from __future__ import annotations

import contextlib
import struct
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from copycat.errors import ConfigurationError, ProtocolError
from copycat.protocol import client, peer
from copycat.protocol.codec_client import (
    RUN_MAX,
    decode_client,
    decode_commands,
    decode_server,
    encode_client,
    encode_commands,
    encode_server,
    split_operations,
)
from copycat.protocol.codec_feeding import (
    decode_fed_entries,
    decode_fed_snapshot,
    decode_feed_answer,
    decode_feed_request,
    encode_fed_entries,
    encode_fed_snapshot,
    encode_feed_answer,
    encode_feed_request,
)
from copycat.protocol.codec_hello import (
    decode_hello,
    decode_hello_refused,
    encode_hello,
    encode_hello_refused,
)
from copycat.protocol.codec_peer import (
    decode_append,
    decode_forward,
    decode_install,
    decode_peer,
    decode_return,
    encode_append,
    encode_forward,
    encode_install,
    encode_peer,
    encode_return,
)
from copycat.protocol.framing import Frame
from copycat.protocol.member_record import DirectoryStart
from copycat.protocol.peer import AppendReply, InstallReply
from copycat.protocol.wire import PROTOCOL_VERSIONS, FrameType
from copycat.types import MemberId
from tests.golden import compare_or_rewrite
from tests.protocol import samples
from tests.protocol.samples import DECODERS, frame_of


def plain(message: Any) -> Any:
    """The message with views turned to bytes, so that it compares."""
    fields = {
        name: bytes(value) if isinstance(value, memoryview) else value
        for name in message.__struct_fields__
        for value in [getattr(message, name)]
    }
    return type(message)(**fields)


def test_golden_bytes(rewrite: bool) -> None:
    lines = [f"{name} {data.hex()}" for name, data in samples.encoded().items()]
    golden = Path(__file__).parent / "golden_frames.txt"
    compare_or_rewrite(golden, "\n".join(lines) + "\n", rewrite=rewrite)


@pytest.mark.parametrize("message", samples.PEERS, ids=repr)
def test_peer_messages_round_trip(message: peer.PeerMessage) -> None:
    assert decode_peer(frame_of(encode_peer(message))) == message


@pytest.mark.parametrize("message", samples.CLIENTS, ids=repr)
def test_client_messages_round_trip(message: client.ClientMessage) -> None:
    assert plain(decode_client(frame_of(encode_client(message)))) == message


@pytest.mark.parametrize("message", samples.SERVERS, ids=repr)
def test_server_messages_round_trip(message: client.ServerMessage) -> None:
    assert plain(decode_server(frame_of(encode_server(message)))) == message


def test_handshake_round_trips() -> None:
    assert decode_hello(frame_of(encode_hello(samples.HELLO))) == samples.HELLO
    skipping = frame_of(encode_hello(samples.SKIPPING))
    assert decode_hello(skipping) == samples.SKIPPING
    known = frame_of(encode_hello(samples.KNOWN))
    assert decode_hello(known) == samples.KNOWN
    started = frame_of(encode_hello(samples.STARTED))
    assert decode_hello(started) == samples.STARTED
    for numbers in ((7, 6), (6, 6), (0, 1)):
        starts = tuple(DirectoryStart(number, 1) for number in numbers)
        hello = msgspec.structs.replace(samples.KNOWN, starts=starts)
        with pytest.raises(ProtocolError, match="starts of the directory are not in order"):
            decode_hello(frame_of(encode_hello(hello)))
    frame = frame_of(encode_hello_refused(samples.REFUSED))
    assert decode_hello_refused(frame) == samples.REFUSED


def test_append_keeps_its_frames_untouched() -> None:
    data = encode_append(samples.APPEND, 5) + b"12345"
    message, frames = decode_append(frame_of(data))
    assert message == samples.APPEND
    assert bytes(frames) == b"12345"
    assert frames.obj is data  # a view, not a copy


def test_an_append_with_entries_is_refused_where_none_are_taken() -> None:
    frame = frame_of(encode_append(samples.APPEND, 5) + b"12345")
    with pytest.raises(ProtocolError, match="5 bytes of entries"):
        decode_peer(frame)


def test_a_chunk_of_a_snapshot_lies_inside_it() -> None:
    data = encode_install(samples.INSTALL, 5) + b"12345"
    message, chunk = decode_install(frame_of(data))
    assert message == samples.INSTALL
    assert bytes(chunk) == b"12345"
    assert chunk.obj is data  # a view, not a copy
    with pytest.raises(ProtocolError, match="5 bytes of a file"):
        decode_peer(frame_of(data))
    outside = encode_install(msgspec.structs.replace(samples.INSTALL, offset=4092), 5)
    with pytest.raises(ProtocolError, match="bytes 4092 to 4097 of 4096"):
        decode_install(frame_of(outside + b"12345"))


def test_feeding_round_trips() -> None:
    for request in samples.FEED_REQUESTS:
        assert decode_feed_request(frame_of(encode_feed_request(request))) == request
    for answer in samples.FEED_ANSWERS:
        assert decode_feed_answer(frame_of(encode_feed_answer(answer))) == answer
    message, frames = decode_fed_entries(frame_of(encode_fed_entries(samples.FED, 5) + b"12345"))
    assert (message, bytes(frames)) == (samples.FED, b"12345")
    chunk = encode_fed_snapshot(samples.FED_SNAPSHOT, 5) + b"12345"
    snapshot, data = decode_fed_snapshot(frame_of(chunk))
    assert (snapshot, bytes(data)) == (samples.FED_SNAPSHOT, b"12345")
    beyond = msgspec.structs.replace(samples.FED, commit_index=11)
    with pytest.raises(ProtocolError, match="committed up to 11"):
        decode_fed_entries(frame_of(encode_fed_entries(beyond, 1) + b"1"))
    outside = msgspec.structs.replace(samples.FED_SNAPSHOT, offset=4092)
    with pytest.raises(ProtocolError, match="bytes 4092 to 4097 of 4096"):
        decode_fed_snapshot(frame_of(encode_fed_snapshot(outside, 5) + b"12345"))


def test_forward_and_return_contain_whole_frames() -> None:
    inner = encode_client(samples.CLIENTS[3])
    token, frame = decode_forward(frame_of(encode_forward(9, frame_of(inner))))
    assert token == 9
    assert plain(decode_client(frame)) == samples.CLIENTS[3]
    answer = encode_server(samples.SERVERS[3])
    assert decode_return(frame_of(encode_return(9, answer))) == (9, answer)


def test_forward_takes_only_frames_of_clients() -> None:
    vote = frame_of(encode_peer(samples.PEERS[8]))
    with pytest.raises(ProtocolError, match="client's frame inside FORWARD"):
        decode_forward(frame_of(encode_forward(1, vote)))
    with pytest.raises(ProtocolError, match="server's frame inside RETURN"):
        decode_return(frame_of(encode_return(1, encode_peer(samples.PEERS[1]))))


def test_encode_commands_equals_the_message() -> None:
    operations = [b"abc", b"", b"defg"]
    data = encode_commands(17, 401, 400, operations)
    message = decode_commands(frame_of(data))
    assert (message.session, message.first_sequence, message.acked_sequence) == (17, 401, 400)
    assert split_operations(message.count, message.body) == operations
    assert encode_client(message) == data


def commands_frame(first: int, acked: int, count: int, body: bytes) -> Frame:
    data = struct.pack("<QQQI", 17, first, acked, count) + body
    return Frame(FrameType.COMMANDS, 0, memoryview(data))


@pytest.mark.parametrize(
    ("first", "acked", "count", "body", "word"),
    [
        (1, 0, 0, b"", "0 commands"),
        (1, 0, RUN_MAX + 1, b"\0" * 4 * (RUN_MAX + 1), "65537 commands"),
        (1, 0, 3, b"\0" * 11, "3 commands"),
        (0, 0, 1, b"\0\0\0\0", "sequence 0"),
        (5, 5, 1, b"\0\0\0\0", "up to 5"),
        (1, 0, 1, b"\5\0\0\0abcd", "9 bytes, 8 are here"),
        (1, 0, 1, b"\3\0\0\0abcd", "7 bytes, 8 are here"),
    ],
)
def test_commands_must_tile_their_frame(
    first: int, acked: int, count: int, body: bytes, word: str
) -> None:
    with pytest.raises(ProtocolError, match=word):
        decode_commands(commands_frame(first, acked, count, body))


def longer(frame: Frame) -> memoryview:
    return memoryview(bytes(frame.body) + b"\0")


def test_every_byte_too_few_or_too_many_is_an_error() -> None:
    for name, data in samples.encoded().items():
        whole = frame_of(data)
        for decode in DECODERS:
            try:
                decode(whole)
            except ProtocolError:
                continue  # not this decoder's message
            if name.startswith(
                ("append", "fed", "install", "InstallSnapshot", "Query", "Results")
            ):
                continue  # these end in bytes that are somebody else's to check
            for body in (*(whole.body[:cut] for cut in range(len(whole.body))), longer(whole)):
                with pytest.raises(ProtocolError):
                    decode(Frame(whole.type, 0, body))


def test_flags_and_padding_are_checked() -> None:
    reply = next(each for each in samples.PEERS if isinstance(each, AppendReply))
    install_reply = next(each for each in samples.PEERS if isinstance(each, InstallReply))
    for message, flag_at, what in (
        (reply, 24, "APPEND_REPLY: answer 0x"),
        (install_reply, 48, "INSTALL_REPLY: a flag and its padding are .* not 0 or 1"),
    ):
        data = encode_peer(message)
        for at, value in ((flag_at, 3), (flag_at + 1, 1), (flag_at + 7, 255)):
            broken = bytearray(data)
            broken[at] = value
            with pytest.raises(ProtocolError, match=what):
                decode_peer(frame_of(bytes(broken)))


def test_enums_are_checked() -> None:
    query = bytearray(encode_client(samples.CLIENTS[4]))
    query[8 + 32] = 3
    with pytest.raises(ProtocolError, match="consistency level 3"):
        decode_client(frame_of(bytes(query)))
    failure = bytearray(encode_server(samples.SERVERS[6]))
    failure[8 + 8] = 200
    with pytest.raises(ProtocolError, match="refusal code 200"):
        decode_server(frame_of(bytes(failure)))


def test_strings_have_limits() -> None:
    with pytest.raises(ConfigurationError, match="256 bytes"):
        encode_client(client.Register(1, "x" * 256, 0))
    long = client.Failure(1, client.Refusal.INTERNAL, "", "ü" * 600)
    back = decode_server(frame_of(encode_server(long)))
    assert isinstance(back, client.Failure)
    assert back.reason == "ü" * 512
    body = struct.pack("<QIQ16sH", 1, 0, 0, b"", 256) + b"x" * 256
    with pytest.raises(ProtocolError, match="limit is 255"):
        decode_client(Frame(FrameType.REGISTER, 0, memoryview(body)))
    body = struct.pack("<QIQ16sH", 1, 0, 0, b"", 2) + b"\xff\xfe"
    with pytest.raises(ProtocolError, match="UTF-8"):
        decode_client(Frame(FrameType.REGISTER, 0, memoryview(body)))


def test_a_hello_fits_the_limit_of_strangers() -> None:
    members = tuple(f"{'x' * 200}:{number}" for number in range(30))
    with pytest.raises(ConfigurationError, match="30 members"):
        encode_hello(peer.Hello("c", members, MemberId(1), 1, members[0], False, (1, 1)))


def test_of_a_hello_of_another_version_only_the_first_fields_are_read() -> None:
    """Whatever follows the address: the member is to be refused by its name and address."""
    older = msgspec.structs.replace(samples.KNOWN, protocol=(1, PROTOCOL_VERSIONS[0] - 1))
    newer = msgspec.structs.replace(samples.KNOWN, protocol=(PROTOCOL_VERSIONS[1] + 1, 99))
    for hello in (older, newer):
        data = bytearray(encode_hello(hello) + b"what a later version adds")
        data[0] = len(data) - 8
        data[8 + 8] |= 0x80  # a flag that is not known
        read = decode_hello(frame_of(bytes(data)))
        assert (read.address, read.member) == (hello.address, hello.member)
        assert (read.cluster_name, read.protocol) == (hello.cluster_name, hello.protocol)
    same = bytearray(encode_hello(samples.HELLO))
    same[8 + 8] |= 0x80
    with pytest.raises(ProtocolError, match="flags 0x81 are not known"):
        decode_hello(frame_of(bytes(same)))


def test_the_entries_that_a_hello_skips_are_in_order() -> None:
    for skips in (reversed(samples.SKIPPING.skips), samples.SKIPPING.skips[:1] * 2):
        hello = msgspec.structs.replace(samples.SKIPPING, skips=tuple(skips))
        with pytest.raises(ProtocolError, match="not in order"):
            decode_hello(frame_of(encode_hello(hello)))


def test_unknown_types_are_named() -> None:
    with pytest.raises(ProtocolError, match=r"frame type 77 \(unknown, 1 bytes\)"):
        decode_client(Frame(77, 0, memoryview(b"x")))
    with pytest.raises(ProtocolError, match="REGISTERED"):
        decode_client(Frame(FrameType.REGISTERED, 0, memoryview(b"x")))


def decode_or_refuse(frame: Frame) -> None:
    for decode in DECODERS:
        with contextlib.suppress(ProtocolError):
            decode(frame)


@pytest.mark.slow
@settings(max_examples=300)
@given(kind=st.integers(0, 255), body=st.binary(max_size=200))
def test_garbage_never_raises_past_the_codec(kind: int, body: bytes) -> None:
    decode_or_refuse(Frame(kind, 0, memoryview(body)))


@pytest.mark.slow
@settings(max_examples=500)
@given(data=st.data())
def test_mutated_frames_never_raise_past_the_codec(data: st.DataObject) -> None:
    _, valid = data.draw(st.sampled_from(sorted(samples.encoded().items())))
    body = bytearray(valid[8:])
    for _ in range(data.draw(st.integers(1, 4))):
        if body:
            body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(body)))
    tail = data.draw(st.binary(max_size=8))
    decode_or_refuse(Frame(valid[4], 0, memoryview(bytes(body[:cut]) + tail)))
