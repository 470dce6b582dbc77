"""A stream cut into frames: the same whatever the pieces are; strangers get clear words."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from copycat.errors import ProtocolError
from copycat.protocol.framing import (
    HANDSHAKE_LIMIT,
    Frame,
    FrameBuffer,
    encode_frame,
    join_frame,
    split_frame,
)
from tests.protocol import samples

LIMIT = 1 << 20


def key(frames: list[Frame]) -> list[tuple[int, int, bytes]]:
    return [(frame.type, frame.flags, bytes(frame.body)) for frame in frames]


def cut(stream: bytes, sizes: list[int]) -> list[tuple[int, int, bytes]]:
    """Feed `stream` in pieces of `sizes`, repeated, the way a socket would."""
    buffer = FrameBuffer(LIMIT, LIMIT)
    frames: list[Frame] = []
    at, number = 0, 0
    while at < len(stream):
        room = buffer.get_buffer(-1)
        count = min(len(room), sizes[number % len(sizes)], len(stream) - at)
        room[:count] = stream[at : at + count]
        frames += buffer.buffer_updated(count)
        at += count
        number += 1
    assert buffer.pending == 0
    return key(frames)


def test_one_byte_at_a_time_equals_all_at_once() -> None:
    stream = b"".join(samples.encoded().values())
    whole = key(FrameBuffer(LIMIT, LIMIT).feed(stream))
    assert len(whole) == len(samples.encoded())
    assert cut(stream, [1]) == whole


@pytest.mark.slow
@settings(max_examples=30)
@given(
    lengths=st.lists(
        st.sampled_from([0, 1, 7, 300, 32760, 32767, 32768, 32769, 40000, 65535, 65536, 150000]),
        min_size=1,
        max_size=6,
    ),
    sizes=st.lists(st.sampled_from([3, 8, 1000, 32768, 65536]), min_size=1, max_size=4),
)
def test_pieces_do_not_matter(lengths: list[int], sizes: list[int]) -> None:
    bodies = [bytes([number + 1]) * length for number, length in enumerate(lengths)]
    stream = b"".join(encode_frame(40, body, number) for number, body in enumerate(bodies))
    expected = [(40, number, body) for number, body in enumerate(bodies)]
    assert cut(stream, sizes) == expected
    assert key(FrameBuffer(LIMIT, LIMIT).feed(stream)) == expected


def test_bodies_stay_valid_after_later_bytes() -> None:
    buffer = FrameBuffer(LIMIT, LIMIT)
    (first,) = buffer.feed(encode_frame(1, b"first"))
    (large,) = buffer.feed(encode_frame(2, b"L" * 100_000))
    buffer.feed(encode_frame(3, b"X" * 60_000) + encode_frame(4, b"Y" * 200_000))
    assert bytes(first.body) == b"first"
    assert bytes(large.body) == b"L" * 100_000


def test_a_large_frame_is_received_in_its_own_buffer() -> None:
    buffer = FrameBuffer(LIMIT, LIMIT)
    buffer.feed(encode_frame(2, b"L" * 100_000)[:1000])
    room = buffer.get_buffer(-1)
    assert len(room) == 100_008 - 1000  # exactly what is missing: no byte of the next frame
    room[:] = b"L" * len(room)
    (frame,) = buffer.buffer_updated(len(room))
    assert frame.body.obj is room.obj  # kept, not copied
    assert bytes(frame.body) == b"L" * 100_000


def test_the_limit_is_checked_before_anything_is_allocated() -> None:
    buffer = FrameBuffer(LIMIT)
    buffer.feed(encode_frame(40, b""))
    head = (LIMIT + 1).to_bytes(4, "little") + bytes([40, 0, 0, 0])
    with pytest.raises(ProtocolError, match=f"1048577 bytes; the limit is {LIMIT}") as caught:
        buffer.feed(head)
    assert caught.value.limit == LIMIT


def test_a_strangers_first_frame_is_small() -> None:
    assert FrameBuffer(LIMIT).feed(encode_frame(40, bytes(HANDSHAKE_LIMIT)))
    with pytest.raises(ProtocolError, match="first frame of type 40 says 4097 bytes"):
        FrameBuffer(LIMIT).feed(encode_frame(40, bytes(HANDSHAKE_LIMIT + 1)))


def test_later_frames_of_the_same_read_have_the_larger_limit() -> None:
    stream = encode_frame(40, b"small") + encode_frame(40, bytes(10_000))
    assert len(FrameBuffer(LIMIT).feed(stream)) == 2


def test_the_limit_can_be_raised_after_the_handshake() -> None:
    buffer = FrameBuffer(HANDSHAKE_LIMIT)
    buffer.feed(encode_frame(1, b"hello"))
    buffer.limit = LIMIT
    assert buffer.feed(encode_frame(3, bytes(10_000)))


def test_http_and_tls_get_their_own_words() -> None:
    with pytest.raises(ProtocolError, match="plain HTTP"):
        FrameBuffer(LIMIT).feed(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    with pytest.raises(ProtocolError, match="plain HTTP"):
        FrameBuffer(LIMIT).feed(b"POST /x HTTP/1.1\r\n\r\n")
    with pytest.raises(ProtocolError, match="TLS handshake"):
        FrameBuffer(LIMIT).feed(bytes.fromhex("1603010200010001fc0303"))


def test_the_reserved_field_must_be_zero() -> None:
    with pytest.raises(ProtocolError, match="reserved field is 1"):
        FrameBuffer(LIMIT).feed(bytes([0, 0, 0, 0, 40, 0, 1, 0]))


def test_split_and_join_are_inverse() -> None:
    data = encode_frame(40, b"body", 3)
    frame = split_frame(data)
    assert (frame.type, frame.flags, bytes(frame.body)) == (40, 3, b"body")
    assert join_frame(frame) == data
    for broken in (data[:-1], data + b"x", data[:5], b""):
        with pytest.raises(ProtocolError):
            split_frame(broken)


@pytest.mark.slow
@settings(max_examples=200)
@given(garbage=st.binary(max_size=400))
def test_garbage_is_frames_or_a_protocol_error(garbage: bytes) -> None:
    with contextlib.suppress(ProtocolError):
        FrameBuffer(LIMIT).feed(garbage)
