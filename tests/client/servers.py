"""Servers that answer a client as no member does: silence, other protocols, refusals."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from copycat.protocol.client import Failure, Refusal, Register, Registered, ServerMessage
from copycat.protocol.codec_client import decode_client, encode_server
from copycat.protocol.framing import CLIENT_LIMIT, Frame, FrameBuffer

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def serving(talk: Talk) -> AsyncIterator[str]:
    """A server on loopback that treats each connection so; its address.

    What `talk` raises fails the test: asyncio would only log it.
    """
    tasks: set[asyncio.Task[None]] = set()
    failures: list[Exception] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await talk(reader, writer)
        except (ConnectionError, asyncio.CancelledError):
            pass
        except Exception as failure:  # noqa: BLE001  (raised below)
            failures.append(failure)
        finally:
            tasks.discard(task)
            writer.transport.abort()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()[:2]
    try:
        yield f"{host}:{port}"
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        if tasks:
            await asyncio.wait(set(tasks))
    for failure in failures:
        raise failure


async def silence(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    """Takes everything, says nothing."""
    while await reader.read(65536):
        pass


async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Closes at once."""
    writer.close()


async def http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A web server."""
    await reader.read(16)
    writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
    await writer.drain()
    await reader.read()


async def frames(reader: asyncio.StreamReader) -> AsyncIterator[Frame]:
    """The frames of a client, in order."""
    buffer = FrameBuffer(CLIENT_LIMIT + (1 << 20))
    while data := await reader.read(65536):
        view = buffer.get_buffer(len(data))
        view[: len(data)] = data
        for frame in buffer.buffer_updated(len(data)):
            yield frame


def refusing(code: Refusal, reason: str, missing: tuple[str, ...] = (), since_ms: int = 0) -> Talk:
    """Refuses every request so."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async for frame in frames(reader):
            request = getattr(decode_client(frame), "request", 0)
            writer.write(encode_server(Failure(request, code, "", reason, missing, since_ms)))

    return talk


def opening(then: Callable[[object], list[ServerMessage]]) -> Talk:
    """Opens sessions, then answers each message with what `then` gives."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async for frame in frames(reader):
            message = decode_client(frame)
            answers = (
                [Registered(message.request, 5, 60_000, "", ())]
                if isinstance(message, Register)
                else then(message)
            )
            for answer in answers:
                writer.write(encode_server(answer))

    return talk
