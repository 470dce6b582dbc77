"""Names with several addresses: all are tried, each in its own time, anew at each dial."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import AsyncExitStack, ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from copycat import CopycatClient
from copycat.config import Address
from copycat.net import DialError, Dialler, dial
from tests.client.servers import serving, silence
from tests.server.cluster import Book, free_address, run, server

HOST = "cluster.invalid"


class Names:
    """Stands for the system's resolver: numbers of `HOST`, and how often it was asked."""

    def __init__(self, *numbers: str) -> None:
        self.numbers = list(numbers)
        self.asked = 0
        self._real = socket.getaddrinfo

    def resolve(self, host: Any, port: Any, *rest: Any, **more: Any) -> list[Any]:
        if host != HOST:
            return self._real(host, port, *rest, **more)
        self.asked += 1
        if not self.numbers:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        addresses = []
        for number in self.numbers:
            family = socket.AF_INET6 if ":" in number else socket.AF_INET
            where = (number, port, 0, 0) if ":" in number else (number, port)
            addresses.append((family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", where))
        return addresses


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    known = Names()
    monkeypatch.setattr(socket, "getaddrinfo", known.resolve)
    return known


@contextmanager
def silent_address(number: str, port: int) -> Iterator[None]:
    """A listener whose queue is full: the kernel answers nobody any more."""
    with socket.socket() as silent, socket.socket() as first, socket.socket() as second:
        silent.bind((number, port))
        silent.listen(0)
        for filler in (first, second):
            filler.setblocking(False)
            filler.connect_ex((number, port))
        yield


def dialled(names: Names, port: int, *numbers: str) -> socket.socket:
    names.numbers = list(numbers)

    async def scenario() -> socket.socket:
        return await dial(Address(HOST, port))

    return asyncio.run(scenario())


@pytest.mark.slow
def test_the_first_is_a_silent_address_and_the_second_works(names: Names) -> None:
    async def scenario() -> None:
        async with serving(silence) as address:
            port = int(address.rpartition(":")[2])
            with silent_address("127.0.0.2", port):
                names.numbers = ["127.0.0.2", "127.0.0.1"]
                async with asyncio.timeout(1.5):  # less than one attempt may take
                    sock = await dial(Address(HOST, port))
            assert sock.getpeername()[0] == "127.0.0.1"
            sock.close()

    run(scenario)


@pytest.mark.slow
def test_many_silent_addresss_each_have_their_own_time(names: Names) -> None:
    async def scenario() -> None:
        async with serving(silence) as address, AsyncExitStack() as stack:
            port = int(address.rpartition(":")[2])
            silent_ones = [f"127.0.0.{n}" for n in range(2, 12)]
            for silent in silent_ones:
                stack.enter_context(silent_address(silent, port))
            names.numbers = [*silent_ones, "127.0.0.1"]
            sock = await dial(Address(HOST, port))
            assert sock.getpeername()[0] == "127.0.0.1"
            sock.close()
            names.numbers = silent_ones[:2]
            with pytest.raises(DialError) as caught:
                await dial(Address(HOST, port))
            text = str(caught.value)
            assert text.count("no answer within 2 s") == 2
            assert all(silent in text for silent in silent_ones[:2])

    run(scenario)


def test_a_refusal_moves_on_at_once_and_says_of_each_number_why(names: Names) -> None:
    port = int(free_address().rpartition(":")[2])
    with pytest.raises(DialError) as caught:
        dialled(names, port, "127.0.0.1", "127.0.0.2")
    for number in ("127.0.0.1", "127.0.0.2"):
        assert f"{number}: connection refused" in str(caught.value)


def test_a_name_that_stands_for_nothing_is_named(names: Names) -> None:
    with pytest.raises(DialError, match=r"'cluster\.invalid' cannot be resolved: Name or service"):
        dialled(names, 1)


def test_a_number_needs_no_resolver(names: Names) -> None:
    async def scenario() -> None:
        async with serving(silence) as address:
            (await dial(Address.parse(address))).close()
        for odd in ("x" * 300, "a..b", "\N{GREEK SMALL LETTER ALPHA}" * 70):
            with pytest.raises(DialError, match="cannot be resolved"):
                await dial(Address(odd, 1))

    names.numbers = ["127.0.0.1"]
    run(scenario)
    assert names.asked == 0


def test_no_socket_is_left_open_by_those_that_lost(names: Names) -> None:
    opened: list[socket.socket] = []

    class Counted(socket.socket):
        def __init__(self, *arguments: Any, **more: Any) -> None:
            super().__init__(*arguments, **more)
            opened.append(self)

    async def scenario() -> None:
        async with serving(silence) as address:
            port = int(address.rpartition(":")[2])
            names.numbers = ["127.0.0.1", "127.0.0.1", "::1", "127.0.0.2"]
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("copycat.net.socket.socket", Counted)
                sock = await dial(Address(HOST, port))
            ours = [one for one in opened if one.fileno() >= 0 and one.getpeername()[1] == port]
            assert ours == [sock]
            sock.close()

    run(scenario)


@pytest.mark.slow
def test_a_client_and_members_find_each_other_by_name_and_ask_anew(
    names: Names, tmp_path: Path
) -> None:
    async def scenario() -> None:
        port = int(free_address().rpartition(":")[2])
        names.numbers = ["127.0.0.2", "127.0.0.1"]
        bind = f"127.0.0.1:{port}"
        async with server(tmp_path / "one", f"{HOST}:{port}", bind=bind) as member:
            await member.bootstrap()
            async with CopycatClient(f"{HOST}:{port}", insecure=True) as client:
                assert await client.submit(Book.add(1)) == 1
                asked = names.asked
                assert client._driver is not None
                connection = client._driver._connection
                assert connection is not None
                connection.close("a test")
                await connection.lost
                assert await client.submit(Book.add(2)) == 2
                assert names.asked > asked

    run(scenario)


def test_a_connection_sends_a_small_frame_at_once(names: Names) -> None:
    """Without Nagle's algorithm, which holds it back until the peer has acknowledged the last."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listening,
        dialled(names, listening.getsockname()[1], "127.0.0.1") as sock,
    ):
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@pytest.mark.slow
def test_c44_every_number_of_a_name_is_tried_when_somebody_else_answers(names: Names) -> None:
    """An old number of the name, or the one name of all members: the first answers for ever."""
    names.numbers = ["127.0.0.1", "127.0.0.2", "127.0.0.3"]

    async def scenario() -> None:
        port = int(free_address().rpartition(":")[2])
        with ExitStack() as stack:
            for number in names.numbers:
                listening = stack.enter_context(socket.socket())
                listening.bind((number, port))
                listening.listen()
            dialler, tried = Dialler(Address(HOST, port)), []
            for _ in range(6):
                sock = await dialler.dial()
                tried.append(sock.getpeername()[0])
                sock.close()
                dialler.failed()
            assert set(tried[:3]) == set(tried[3:]) == set(names.numbers)
            last = await dialler.dial()
            dialler.reached()
            dialler.failed()  # a link that was good breaks: it is dialled there again
            again = await dialler.dial()
            assert again.getpeername() == last.getpeername()
            for sock in (last, again):
                sock.close()

    run(scenario)
