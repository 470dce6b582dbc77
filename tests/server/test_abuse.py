"""Bad input against a real listener: that connection closes, with a reason; nobody else cares."""

from __future__ import annotations

import asyncio
import gc
import logging
import socket
import struct
from pathlib import Path

import pytest

from copycat.config import member_id
from copycat.protocol.client import KeepAlive, Register
from copycat.protocol.codec_client import encode_client
from copycat.protocol.codec_hello import decode_hello_refused, encode_hello
from copycat.protocol.framing import encode_frame, split_frame
from copycat.protocol.peer import Hello
from copycat.protocol.wire import PROTOCOL_VERSIONS, FrameType
from copycat.server import listener
from copycat.types import MemberId
from tests.server.cluster import Book, free_address, run, server

REGISTER = encode_client(Register(1, "stranger", 0))


def hello(address: str, **changes: object) -> bytes:
    """What the other member of a cluster of two would say, with changes."""
    peer = "127.0.0.1:9"
    fields: dict[str, object] = {
        "cluster_name": "test",
        "members": tuple(sorted((address, peer))),
        "member": member_id("test", peer),
        "incarnation": 1,
        "address": peer,
        "fresh": True,
        "protocol": PROTOCOL_VERSIONS,
    }
    return encode_hello(Hello(**{**fields, **changes}))  # type: ignore[arg-type]


BROKEN: dict[str, tuple[bytes, str]] = {
    "zeros": (bytes(8), "frame type 0"),
    "an oversized first frame": (struct.pack("<IBBH", 5000, 32, 0, 0), "the limit is 4096"),
    "a length of four gigabytes": (struct.pack("<IBBH", 2**32 - 1, 35, 0, 0), "the limit is"),
    "an unknown type": (encode_frame(200, b"x"), "frame type 200"),
    "a server's message": (encode_frame(FrameType.RESULTS, b""), "RESULTS"),
    "a peer's message before HELLO": (encode_frame(FrameType.TIMEOUT_NOW, bytes(8)), "TIMEOUT"),
    "a reserved field": (struct.pack("<IBBH", 0, 32, 0, 7), "reserved field"),
    "http": (b"GET / HTTP/1.1\r\nHost: copycat\r\n\r\n", "HTTP"),
    "tls": (bytes.fromhex("16030100f8010000"), "a TLS handshake"),
    "a cut REGISTER": (encode_frame(FrameType.REGISTER, b"\x01"), "REGISTER"),
    "a malformed HELLO": (encode_frame(FrameType.HELLO, b"hello\n\x1b[31m"), "HELLO"),
    "garbage after a good request": (REGISTER + b"\xff" * 64, "reserved field"),
    "commands that do not add up": (
        REGISTER + encode_frame(FrameType.COMMANDS, struct.pack("<QQQII", 1, 1, 0, 1, 99) + b"x"),
        "COMMANDS",
    ),
    "a first frame with a session that never was": (encode_client(KeepAlive(1, 99, 0)), ""),
}
"""name -> (bytes, what the logged reason says; nothing when it is no offence)."""


async def say(address: str, data: bytes) -> bytes:
    """Connect, send, and read until the server closes (or answers)."""
    name, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(name, int(port))
    writer.write(data)
    try:
        return await reader.read(4096)
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


@pytest.mark.slow
def test_f20_whoever_breaks_the_protocol_is_closed_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        address = free_address()
        async with server(tmp_path / "one", address) as member:
            await member.bootstrap()
            async with member.client() as client:
                for number, (name, (data, reason)) in enumerate(BROKEN.items(), 1):
                    caplog.clear()
                    answer = await say(address, data)
                    assert await client.submit(Book.add(number)) == number, name
                    warned = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
                    if reason:
                        assert len(warned) == 1, (name, warned)
                        assert reason in warned[0], name
                        assert warned[0].isprintable(), name
                    else:
                        assert answer, name
                        assert not warned, name
            assert member.is_running

    with caplog.at_level(logging.WARNING, "copycat.server"):
        run(scenario)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"cluster_name": "other"}, 'cluster "other"'),
        ({"members": ("127.0.0.1:9",)}, "was started with members 127.0.0.1:9"),
        ({"member": MemberId(5)}, "is no other member"),
        ({"protocol": (7, 8)}, "speaks protocol 7 to 8"),
    ],
    ids=["wrong cluster", "another list (C16)", "unknown member", "protocol version"],
)
@pytest.mark.slow
def test_a_peer_that_does_not_belong_is_told_why(
    tmp_path: Path, changes: dict[str, object], expected: str
) -> None:
    async def scenario() -> None:
        address = free_address()
        async with server(tmp_path / "one", address) as member:
            waiting = asyncio.create_task(member.bootstrap("127.0.0.1:9"))
            while not member.is_running:  # noqa: ASYNC110  (it has no event of its own)
                await asyncio.sleep(0.01)
            answer = await say(address, hello(address, **changes))
            refused = decode_hello_refused(split_frame(answer))
            assert expected in refused.reason
            assert (await say(address, hello(address)))[4] == FrameType.HELLO
            waiting.cancel()
            await asyncio.wait({waiting})

    run(scenario)


def test_who_says_nothing_is_closed_after_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "HANDSHAKE_S", 0.05)

    async def scenario() -> None:
        address = free_address()
        async with server(tmp_path / "one", address):
            assert await say(address, b"") == b""

    run(scenario)


def test_a_connection_accepted_while_the_listener_closes_is_closed_too(tmp_path: Path) -> None:
    async def test() -> None:
        async with server(tmp_path, free_address()) as member:
            assert member._node is not None
            door = member._node.listener
            loop = asyncio.get_running_loop()
            door.is_closing = True
            late = listener.Inbound(door)
            ours, theirs = socket.socketpair()
            ours.setblocking(False)
            await loop.connect_accepted_socket(lambda: late, ours)
            await late.lost
            assert theirs.recv(1) == b""
            theirs.close()
            door.is_closing = False

    run(test)


def test_a_connection_accepted_in_the_pass_before_the_listener_closes_leaks_nothing(
    tmp_path: Path,
) -> None:
    """CPython 3.11 gives it a transport one pass later, and fails if the server is closed then."""

    async def test() -> None:
        async with server(tmp_path, free_address()) as member:
            assert member._node is not None
            door = member._node.listener
            with socket.create_connection((member.address.host, member.address.port)) as late:
                late.settimeout(5)
                await asyncio.sleep(0)  # this pass polls the socket and accepts ...
                await asyncio.sleep(0)  # ... and its task comes right after this one
                await door.close()
                await asyncio.sleep(0)
                gc.collect()
                assert await asyncio.to_thread(late.recv, 1) == b""

    run(test)
