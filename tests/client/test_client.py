"""The asyncio and the blocking client against one real server on loopback."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from copycat import (
    Backoff,
    ClientState,
    ClosedSessionError,
    ConfigurationError,
    ConsistencyLevel,
    CopycatClient,
    CopycatServer,
    EntryTooLargeError,
    ForkedProcessError,
    NoLeaderError,
    OperationTimeout,
    RecoveryStrategy,
    SerializationError,
    SessionExpiredError,
    SessionState,
    StateMachine,
    blocking,
    command,
)
from tests.server.cluster import Book, free_address, run, server

pytestmark = pytest.mark.slow


@asynccontextmanager
async def one(path: Path, **options: Any) -> AsyncIterator[CopycatServer[Book]]:
    async with server(path / "one", free_address(), **options) as member:
        yield await member.bootstrap()


def test_what_cannot_be_sent_fails_at_the_call_and_takes_no_place(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with one(tmp_path) as member, member.client(max_entry_size=1000) as client:
            first = client.submit(Book.add(1))
            with pytest.raises(SerializationError, match="expected `int`, got `str` at number"):
                client.submit(Book.add("x"))  # type: ignore[arg-type]
            with pytest.raises(EntryTooLargeError, match="nothing was sent"):
                client.submit(Book.fail("x" * 1000))
            with pytest.raises(SerializationError):
                client.submit_many([Book.add(2), Book.add(b"x")])  # type: ignore[arg-type]
            with pytest.raises(ConfigurationError, match="takes commands"):
                client.submit_many([Book.count()])
            with pytest.raises(ConfigurationError, match="is for queries"):
                client.submit(Book.add(1), consistency=ConsistencyLevel.SEQUENTIAL)
            assert await client.submit_many([]) == []
            second = client.submit(Book.add(3))
            assert [await first, await second] == [1, 2]

    run(scenario)


def test_a_client_that_is_not_connected_says_so(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with one(tmp_path) as member:
            client = member.client()
            with pytest.raises(ClosedSessionError, match="has no session"):
                client.submit(Book.add(1))
            async with client:
                assert await client.connect() is client
                assert client.session.state is SessionState.OPEN
                assert client.session.timeout == 5.0
            assert client.state is ClientState.CLOSED
            with pytest.raises(ClosedSessionError):
                client.submit(Book.add(1))
            await client.close()
            async with client:
                assert await client.submit(Book.add(1)) == 1, "it can be connected again"

    run(scenario)


def test_no_server_is_an_error_that_names_who_was_tried() -> None:
    async def scenario() -> None:
        address = free_address()
        client = CopycatClient(address, connection_strategy=Backoff.once())
        with pytest.raises(NoLeaderError) as caught:
            await client.connect()
        assert address in str(caught.value.state)
        assert client.state is ClientState.CLOSED

    run(scenario)


def test_commands_in_flight_when_the_client_closes_are_applied(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with one(tmp_path) as member:
            async with member.client() as client:
                awaited = [client.submit(Book.add(n)) for n in range(100)]
            assert await asyncio.gather(*awaited) == list(range(1, 101))

    run(scenario)


class Slow(StateMachine):
    """Blocks its apply thread until told; heartbeats must not care."""

    gate = threading.Event()

    @command
    def wait(self) -> bool:
        return self.gate.wait(10.0)


def test_a_timeout_says_that_the_outcome_is_unknown(tmp_path: Path) -> None:
    async def scenario() -> None:
        Slow.gate.clear()
        async with CopycatServer(free_address(), Slow, storage=tmp_path / "one") as member:
            await member.bootstrap()
            async with member.client() as client:
                with pytest.raises(OperationTimeout) as caught:
                    await client.submit(Slow.wait(), timeout=0.05)
                assert caught.value.outcome_unknown
                term = member.status().term
                Slow.gate.set()
                assert await client.submit(Slow.wait()) is True
                assert member.status().term == term

    run(scenario)


def silence(client: CopycatClient) -> None:
    """No keep-alive leaves any more, as if the client's loop were blocked."""
    assert client._driver is not None
    setattr(client._driver.session, "outgoing", lambda _, **__: [])  # noqa: B010  (for mypy)


def unsilence(client: CopycatClient) -> None:
    assert client._driver is not None
    del client._driver.session.outgoing
    client._driver.schedule()


@pytest.mark.parametrize("recovery", list(RecoveryStrategy))
def test_c18_an_expired_session_is_an_error_and_recovery_a_choice(
    tmp_path: Path, recovery: RecoveryStrategy
) -> None:
    async def scenario() -> None:
        states: list[ClientState] = []
        async with one(tmp_path, session_timeout=0.7) as member:
            client = member.client(session_timeout=0.4, recovery_strategy=recovery)
            client.on_state_change(states.append)
            async with client:
                assert await client.submit(Book.add(1)) == 1
                session = client.session
                silence(client)
                while member.status().sessions:  # noqa: ASYNC110  (the log decides when)
                    await asyncio.sleep(0.01)
                lost = client.submit(Book.add(2))
                unsilence(client)
                with pytest.raises(SessionExpiredError) as caught:
                    await lost
                assert caught.value.pending == (Book.add(2),)
                assert session.state is SessionState.EXPIRED
                if recovery is RecoveryStrategy.CLOSE:
                    while client.state is not ClientState.CLOSED:  # noqa: ASYNC110
                        await asyncio.sleep(0.01)
                    with pytest.raises(ClosedSessionError):
                        client.submit(Book.add(3))
                else:
                    assert await client.submit(Book.add(3)) == 2
        assert states[-1] is ClientState.CLOSED

    run(scenario)


def test_the_session_outlives_a_connection_and_a_restart(tmp_path: Path) -> None:
    async def scenario() -> None:
        address = free_address()
        member = server(tmp_path / "one", address)
        await member.bootstrap()
        states: list[ClientState] = []
        async with member.client() as client:
            client.on_state_change(states.append)
            session = client.session.id
            assert await client.submit(Book.add(1)) == 1
            await member.shutdown()
            waiting = client.submit(Book.add(2))
            member = server(tmp_path / "one", address)
            await member.bootstrap()
            assert await waiting == 2
            assert client.session.id == session
            assert states == [ClientState.SUSPENDED, ClientState.CONNECTED]
        await member.shutdown()

    run(scenario)


def test_another_loop_is_refused(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with one(tmp_path) as member, member.client() as client:

            def elsewhere() -> None:
                async def use() -> None:
                    client.submit(Book.add(1))

                with pytest.raises(ConfigurationError, match="another event loop"):
                    asyncio.run(use())

            await asyncio.to_thread(elsewhere)

    run(scenario)


def test_a_forked_child_is_told(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with one(tmp_path) as member, member.client() as client:
            child = os.fork()
            if child == 0:
                try:
                    client.submit(Book.add(1))
                except ForkedProcessError:
                    os._exit(7)
                os._exit(1)
            _, status = await asyncio.to_thread(os.waitpid, child, 0)
            assert os.waitstatus_to_exitcode(status) == 7
            assert await client.submit(Book.add(1)) == 1

    run(scenario)


# ---- blocking --------------------------------------------------------------------------------


def test_the_blocking_client_needs_no_loop(tmp_path: Path) -> None:
    def use(address: str) -> None:
        with blocking.CopycatClient(address) as client:
            assert client.submit(Book.add(1)) == 1
            assert client.submit_many(Book.add(n) for n in range(99)) == list(range(2, 101))
            futures = [client.submit_future(Book.add(n)) for n in range(1000)]
            assert [future.result(10) for future in futures] == list(range(101, 1101))
            assert client.submit(Book.count()) == 1100
            with pytest.raises(SerializationError):
                client.submit(Book.add("x"))  # type: ignore[arg-type]
            assert str(client.state) == "connected"
        assert str(client.state) == "closed"
        client.close()
        with pytest.raises(ClosedSessionError):
            client.submit(Book.add(1))

    async def scenario() -> None:
        async with one(tmp_path) as member:
            await asyncio.to_thread(use, str(member.address))

    run(scenario)


def test_a_blocking_client_that_finds_nobody_leaves_no_thread() -> None:
    before = threading.active_count()
    with pytest.raises(NoLeaderError):
        blocking.connect(free_address(), connection_strategy=Backoff.once())
    assert threading.active_count() == before
