"""A server that takes no more bytes: no busy loop, and not for ever (F20)."""

from __future__ import annotations

import asyncio

import pytest

from copycat.client.client import CopycatClient
from copycat.client.driver import SessionDriver
from copycat.protocol.client import KeepAlive, Registered
from copycat.protocol.codec_client import encode_server
from copycat.protocol.operations import Command
from tests.client.sessions import opened, submit


class Blob(Command[int], frozen=True):
    data: bytes


class Deaf:
    """Opens sessions, then reads nothing more."""

    def __init__(self) -> None:
        self.connections = 0
        self.second = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        if self.connections > 1:
            self.second.set()
        await reader.read(64)
        writer.write(encode_server(Registered(1, 5, 600, "", ())))
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        await self.second.wait()
        writer.close()


@pytest.mark.slow
def test_a_server_that_stops_reading_is_left_and_costs_no_busy_loop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pumps = 0
    send_outgoing = SessionDriver._send_outgoing

    def counted(self: SessionDriver) -> None:
        nonlocal pumps
        pumps += 1
        send_outgoing(self)

    async def scenario() -> None:
        deaf = Deaf()
        server = await asyncio.start_server(deaf.serve, "127.0.0.1", 0)
        host, port = server.sockets[0].getsockname()[:2]
        client = CopycatClient(f"{host}:{port}", session_timeout=0.6)
        await client.connect()
        monkeypatch.setattr(SessionDriver, "_send_outgoing", counted)
        waiting = client.submit_many([Blob(bytes(900_000))] * 40)
        await asyncio.wait_for(deaf.second.wait(), 5)
        assert pumps < 50
        await client._stop()
        assert isinstance(await asyncio.wait_for(_error(waiting), 5), Exception)
        server.close()

    asyncio.run(scenario())


async def _error(waiting: object) -> BaseException | None:
    try:
        await waiting  # type: ignore[misc]
    except Exception as error:  # noqa: BLE001  (it is what the test asks for)
        return error
    return None


def test_while_the_socket_is_full_only_keep_alives_leave() -> None:
    session = opened()
    submit(session, 1, 2)
    assert session.outgoing(0, is_full=True) == []
    assert session.deadline_ms(is_full=True) == 2000
    (message,) = session.outgoing(2000, is_full=True)
    assert isinstance(message, KeepAlive)
    assert not session.must_switch_server
    session.outgoing(4000, is_full=True)
    assert session.must_switch_server, "nothing came since the last keep-alive"
