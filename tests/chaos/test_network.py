"""The proxy holds up what a link does not let through, in the one direction, and no bytes else."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import pytest

from copycat.seeded_random import SimRandom
from tests.chaos.namespaces import Namespace
from tests.chaos.network import Link, Network
from tests.server.cluster import run

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Nowhere(Namespace):
    """The namespace that the test runs in."""

    def __init__(self, name: str) -> None:
        super().__init__(name, -1, -1)

    @contextmanager
    def entered(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def connected() -> AsyncIterator[tuple[Network, Streams, Streams]]:
    """A connection that `a` made to the member `b`: the network, and both its ends."""
    arrived: asyncio.Queue[Streams] = asyncio.Queue()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        arrived.put_nowait((reader, writer))

    member = await asyncio.start_server(accept, "127.0.0.1", 0)
    address = member.sockets[0].getsockname()
    network = Network({"a": Nowhere("a"), "b": Nowhere("b")}, {"b": address}, SimRandom(1))
    loop = asyncio.get_running_loop()
    listening = socket.create_server(("127.0.0.1", 0))
    proxy = await loop.create_server(network.accepting("a", "b"), sock=listening)
    here = await asyncio.open_connection(*listening.getsockname())
    there = await arrived.get()
    try:
        yield network, here, there
    finally:
        here[1].close()
        there[1].close()
        proxy.close()
        member.close()
        await network.close()


def test_bytes_and_the_end_pass() -> None:
    async def test() -> None:
        async with connected() as (_, here, there):
            here[1].write(b"question")
            assert await there[0].readexactly(8) == b"question"
            there[1].write(b"answer")
            assert await here[0].readexactly(6) == b"answer"
            here[1].write_eof()
            assert await there[0].read() == b""
            there[1].write(b"late")
            there[1].write_eof()
            assert await here[0].read() == b"late"

    run(test)


def test_a_link_that_is_cut_holds_up_one_direction() -> None:
    async def test() -> None:
        async with connected() as (network, here, there):
            link = network.links["a", "b"]
            link.cuts = 2
            link.changed()
            here[1].write(b"question")
            here[1].write_eof()
            there[1].write(b"answer")
            assert await here[0].readexactly(6) == b"answer"
            arriving = asyncio.ensure_future(there[0].read())
            link.cuts = 1
            link.changed()
            there[1].write(b"answer")
            assert await here[0].readexactly(6) == b"answer"
            assert not arriving.done(), "one of two cuts is left"
            link.cuts = 0
            link.changed()
            assert await arriving == b"question"

    run(test)


def test_a_reset_ends_a_connection_at_both_ends() -> None:
    async def test() -> None:
        async with connected() as (network, here, there):
            here[1].write(b"question")
            assert await there[0].readexactly(8) == b"question"
            network.links["a", "b"].cuts = 1
            network.links["a", "b"].changed()
            network.reset("b", "a")
            for reader, _ in (here, there):
                with pytest.raises(ConnectionResetError):
                    await reader.read()

    run(test)


def test_a_lossy_link_ends_some_connections() -> None:
    async def test() -> None:
        link = Link(SimRandom(3))
        await link.passes()
        link.loss, link.resets, link.resent_after_s = 1_000_000, True, 0.0
        with pytest.raises(ConnectionResetError):
            await link.passes()

    run(test)
