"""Room for answers and for clients, over real sockets: what waits, who is dropped, who is told."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from copycat import ConsistencyLevel, CopycatClient, StateMachine, command, query
from copycat.protocol.client import (
    Failure,
    KeepAlive,
    QueryRequest,
    QueryResult,
    Refusal,
    Register,
    Registered,
    Results,
    ServerMessage,
)
from copycat.protocol.codec_client import decode_server, encode_client, encode_commands
from copycat.protocol.codec_hello import decode_hello_refused
from copycat.protocol.framing import PEER_LIMIT, FrameBuffer, split_frame
from copycat.protocol.operations import encode_operation
from copycat.server.progress_timeout import ProgressTimeout
from tests.server.cluster import Book, free_address, run, server, trio
from tests.server.test_abuse import hello, say

MIB = 1 << 20


class Wide(StateMachine):
    """Gives more than it takes."""

    def __init__(self) -> None:
        self.made = 0

    @command
    def make(self, size: int) -> bytes:
        self.made += 1
        return bytes(size)

    @query
    def look(self, size: int) -> bytes:
        return bytes(size)


class Raw:
    """A client that a test drives by hand: it reads as much as it is told to."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self._frames = FrameBuffer(PEER_LIMIT, PEER_LIMIT)
        self.session = 0

    @classmethod
    async def open(cls, address: str, timeout_ms: int = 0, client_id: str = "raw") -> Raw:
        """Connect with a small buffer, and register a session."""
        name, _, port = address.rpartition(":")
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, (name, int(port)))
        raw = cls(*await asyncio.open_connection(sock=sock, limit=65536))
        raw.send(Register(1, client_id, timeout_ms))
        (registered,) = await raw.read(1)
        assert isinstance(registered, Registered), registered
        raw.session = registered.session
        return raw

    def send(self, message: Any) -> None:
        self.writer.write(encode_client(message))

    def look(self, number: int, size: int) -> None:
        body = encode_operation(Wide.look(size))
        level = ConsistencyLevel.LINEARIZABLE
        self.send(QueryRequest(number, self.session, 0, 0, level, body))

    async def read(self, count: int, piece: int = 65536) -> list[ServerMessage]:
        """So many messages, `piece` bytes at a time."""
        messages: list[ServerMessage] = []
        while len(messages) < count:
            data = await self.reader.read(piece)
            assert data, "the server closed the connection"
            messages += [decode_server(frame) for frame in self._frames.feed(data)]
        return messages

    async def closed(self) -> None:
        """Read until the server has closed the connection."""
        try:
            while await self.reader.read(65536):
                pass
        except ConnectionResetError:
            pass


@asynccontextmanager
async def wide(path: Path, **options: Any) -> AsyncIterator[str]:
    """One member with a `Wide`; its address."""
    address = free_address()
    member = server(path / "one", address, Wide, **options)
    async with member:
        await member.bootstrap()
        yield address


@pytest.mark.slow
@pytest.mark.parametrize("way", ["queries", "commands", "one run of commands"])
def test_a_burst_of_large_answers_arrives(tmp_path: Path, way: str) -> None:
    """More than the 64 MiB that a member once let wait, at once, then again."""

    async def scenario() -> None:
        async with wide(tmp_path) as address, CopycatClient(address) as client:
            for _ in range(2):
                if way == "queries":
                    answers = await asyncio.gather(
                        *(client.submit(Wide.look(MIB)) for _ in range(80))
                    )
                elif way == "commands":
                    answers = await asyncio.gather(
                        *(client.submit(Wide.make(MIB)) for _ in range(80))
                    )
                else:
                    answers = await client.submit_many([Wide.make(MIB)] * 80)
                assert [len(answer) for answer in answers] == [MIB] * 80
            assert len(await client.submit(Wide.look(15 * MIB))) == 15 * MIB

    run(scenario)


@pytest.mark.slow
def test_a_burst_of_large_answers_arrives_over_a_follower(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with trio(tmp_path, Wide) as cluster:
            await cluster.all_applied()
            follower = str(cluster.followers[0].address)
            async with CopycatClient(follower) as client:
                answers = await asyncio.gather(*(client.submit(Wide.look(MIB)) for _ in range(80)))
                assert {len(answer) for answer in answers} == {MIB}
                answers = await client.submit_many([Wide.make(MIB)] * 80)
                assert {len(answer) for answer in answers} == {MIB}

    run(scenario)


@pytest.mark.slow
def test_a_client_that_reads_slowly_but_steadily_is_served(tmp_path: Path) -> None:
    """It takes several times the time that one may take nothing."""

    async def scenario() -> None:
        async with wide(tmp_path, session_timeout=1.0, election_timeout=0.3) as address:
            raw = await Raw.open(address)
            for number in range(1, 21):
                raw.look(number, MIB // 4)
            messages: list[ServerMessage] = []
            ends = asyncio.get_running_loop().time() + 4.0
            while asyncio.get_running_loop().time() < ends and len(messages) < 19:
                messages += await raw.read(1, piece=16384)
                await asyncio.sleep(0.2)
            messages += await raw.read(20 - len(messages))
            answered = [m.request for m in messages if isinstance(m, QueryResult)]
            assert answered == list(range(1, 21))
            raw.writer.close()

    run(scenario)


@pytest.mark.slow
def test_results_that_a_lost_connection_left_arrive_on_the_next(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with wide(tmp_path) as address:
            first = await Raw.open(address)
            burst = encode_commands(first.session, 1, 0, [encode_operation(Wide.make(MIB))] * 40)
            first.writer.write(burst)
            assert isinstance((await first.read(1))[0], Results)
            first.writer.transport.abort()
            second = await Raw.open(address, client_id="another")
            second.send(KeepAlive(2, first.session, 0))
            second.writer.write(burst)
            sequences: list[int] = []
            while len(sequences) < 40:
                for message in await second.read(1):
                    if isinstance(message, Results):
                        start = message.first_sequence
                        sequences += range(start, start + message.count)
            assert sequences == list(range(1, 41))
            second.writer.close()

    run(scenario)


@pytest.mark.slow
@pytest.mark.parametrize("asks", ["large queries", "for ever"])
def test_a_client_that_does_not_read_is_dropped_after_a_time(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, asks: str
) -> None:
    async def scenario() -> None:
        async with wide(tmp_path, session_timeout=0.8) as address:
            raw = await Raw.open(address)
            if asks == "large queries":
                for number in range(1, 41):
                    raw.look(number, MIB)
            else:
                raw.writer.write(encode_client(KeepAlive(1, 1, 0)) * 500_000)
            while "does not read" not in caplog.text:  # noqa: ASYNC110  (a log line is no event)
                await asyncio.sleep(0.02)
            await raw.closed()
            raw.writer.close()
            async with CopycatClient(address) as client:
                assert await client.submit(Wide.look(3)) == bytes(3)

    with caplog.at_level(logging.WARNING, "copycat.server"):
        run(scenario)


@pytest.mark.slow
def test_a_client_that_says_nothing_is_closed_within_its_session_timeout(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with wide(tmp_path, session_timeout=0.8) as address:
            loop = asyncio.get_running_loop()
            patient = await Raw.open(address, timeout_ms=60_000)
            vanished = await Raw.open(address)
            began = loop.time()
            await vanished.closed()
            assert loop.time() - began > 0.5
            assert "it sent nothing for" in caplog.text
            patient.send(KeepAlive(2, patient.session, 0))
            assert await patient.read(1), "its own session has a longer timeout"
            for raw in (patient, vanished):
                raw.writer.close()

    with caplog.at_level(logging.WARNING, "copycat.server"):
        run(scenario)


def test_patience_counts_progress_and_not_amounts() -> None:
    progress = ProgressTimeout(0.0)
    for second in range(1, 100):
        assert not progress.reason_to_close(second, 5.0, received=0, sent=second, unsent=1 << 30)
    assert not progress.reason_to_close(103.9, 5.0, received=0, sent=99, unsent=1 << 30)
    reason = progress.reason_to_close(104.0, 5.0, received=0, sent=99, unsent=1 << 30)
    assert reason == (
        "it does not read: 1073741824 bytes of replies wait, and it took none of them in 5.0 s"
    )
    reader = ProgressTimeout(0.0)
    for second in range(1, 20):
        assert not reader.reason_to_close(second, 5.0, received=0, sent=second, unsent=second % 2)
    progress.extend(1.0)
    assert not progress.reason_to_close(104.9, 5.0, received=0, sent=99, unsent=1)
    assert progress.reason_to_close(105.0, 5.0, received=0, sent=99, unsent=1)
    assert not progress.reason_to_close(108.0, 5.0, received=1, sent=100, unsent=0)
    assert not progress.reason_to_close(112.9, 5.0, received=1, sent=100, unsent=0)
    assert "it sent nothing" in progress.reason_to_close(
        113.0, 5.0, received=1, sent=100, unsent=0
    )


def test_every_socket_of_a_member_and_a_client_is_watched(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with trio(tmp_path) as cluster:
            await cluster.all_applied()
            async with CopycatClient(*cluster.addresses) as client:
                assert await client.submit(Book.add(1)) == 1
                driver: Any = client._driver
                sockets = [driver._connection._transport.get_extra_info("socket")]
                for member in cluster.running:
                    assert member._node is not None
                    for inbound in member._node.listener.inbounds:
                        assert inbound._transport is not None
                        sockets.append(inbound._transport.get_extra_info("socket"))
                    links = member._node.host._links.values()
                    sockets += [link._transport.get_extra_info("socket") for link in links]
                assert len(sockets) == 1 + 6 + 6 + 1
                for sock in sockets:
                    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
                    idle, interval, count = (
                        sock.getsockopt(socket.IPPROTO_TCP, name)
                        for name in (
                            socket.TCP_KEEPIDLE,
                            socket.TCP_KEEPINTVL,
                            socket.TCP_KEEPCNT,
                        )
                    )
                    assert idle + interval * count <= 5
                    assert 0 < sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) <= 5000
                    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)

    run(scenario)


@pytest.mark.slow
def test_f29_a_full_member_says_so_and_peers_are_heard(tmp_path: Path) -> None:
    async def scenario() -> None:
        address = free_address()
        async with server(tmp_path / "one", address) as member:
            await member.bootstrap()
            assert member._node is not None
            door = member._node.listener
            door.clients_max = 2
            first, second = await Raw.open(address), await Raw.open(address)
            register = encode_client(Register(7, "third", 0))
            refused = decode_server(split_frame(await say(address, register)))
            assert isinstance(refused, Failure)
            assert (refused.request, refused.code) == (7, Refusal.SERVER_FULL)
            assert "no room: 2 clients are connected" in refused.reason
            assert refused.leader == address
            assert (door.closed["too-many"], door.clients) == (1, 2)
            answer = await say(address, hello(address, cluster_name="other"))
            assert decode_hello_refused(split_frame(answer)), "a peer is heard all the same"
            losses = [inbound.lost for inbound in door.inbounds]
            first.writer.close()
            await asyncio.wait(losses, return_when=asyncio.FIRST_COMPLETED)
            answer = await say(address, register)
            assert isinstance(decode_server(split_frame(answer)), Registered), "there is a place"
            door.connections_max = len(door.inbounds)
            refused = decode_server(split_frame(await say(address, b"")))
            assert isinstance(refused, Failure)
            assert "no room" in refused.reason
            second.writer.close()

    run(scenario)


def test_a_client_of_a_member_that_has_not_started_is_told_so(tmp_path: Path) -> None:
    async def scenario() -> None:
        address = free_address()
        async with server(tmp_path / "one", address):
            register = encode_client(Register(1, "early", 0))
            refused = decode_server(split_frame(await say(address, register)))
            assert isinstance(refused, Failure)
            assert refused.code == Refusal.ILLEGAL_MEMBER_STATE
            assert "has not started yet" in refused.reason

    run(scenario)
