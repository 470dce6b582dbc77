"""Every future of the client ends in bounded time, with the reason."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from copycat import (
    Backoff,
    ClientState,
    ClosedSessionError,
    ConsistencyLevel,
    CopycatClient,
    CopycatError,
    DiskFullError,
    NoLeaderError,
    OperationTimeout,
    QuorumLostError,
    RecoveryStrategy,
    SessionExpiredError,
    SessionState,
)
from copycat.machine.kv import KeyValueStore
from copycat.protocol.client import (
    CloseSession,
    Commands,
    CommandsRefused,
    Failure,
    KeepAlive,
    KeptAlive,
    QueryRequest,
    Refusal,
    ServerMessage,
    SessionClosed,
)
from tests.client.servers import hang_up, http, opening, refusing, serving, silence
from tests.server.cluster import Book, Trio, free_address, run, server

pytestmark = pytest.mark.slow

ONCE = Backoff.once()


async def error_of(client: CopycatClient) -> CopycatError:
    with pytest.raises(CopycatError) as caught:
        await client.connect()
    assert client.state is ClientState.CLOSED
    return caught.value


# ---- connect ---------------------------------------------------------------------------------


def test_connect_says_what_each_address_answered_one_line_each() -> None:
    async def scenario() -> None:
        async with AsyncExitStack() as stack:
            closed = free_address()
            mute = await stack.enter_async_context(serving(silence))
            web = await stack.enter_async_context(serving(http))
            short = await stack.enter_async_context(serving(hang_up))
            full = await stack.enter_async_context(
                serving(refusing(Refusal.SERVER_FULL, "4000 clients are connected"))
            )
            client = CopycatClient(closed, mute, web, short, full, connection_strategy=ONCE)
            error = await error_of(client)
            assert type(error) is NoLeaderError
            lines = dict(line.split(": ", 1) for line in (error.state or "").splitlines())
            assert set(lines) == {closed, mute, web, short, full}
            assert "nothing listens" in lines[closed]
            assert "no answer within" in lines[mute]
            assert "not a copycat server" in lines[web]
            assert "closed the connection before it answered" in lines[short]
            assert lines[full] == "4000 clients are connected"

    run(scenario)


@pytest.mark.parametrize(
    ("code", "kind"),
    [(Refusal.NO_QUORUM, QuorumLostError), (Refusal.DISK_FULL, DiskFullError)],
)
def test_the_most_telling_answer_gives_the_error_its_type(
    code: Refusal, kind: type[CopycatError]
) -> None:
    async def scenario() -> None:
        async with serving(refusing(code, "the reason", ("b:1", "c:1"), 4000)) as address:
            client = CopycatClient(free_address(), address, connection_strategy=ONCE)
            error = await error_of(client)
            assert type(error) is kind
            assert "the reason" in error.message
            if isinstance(error, QuorumLostError):
                assert error.missing == ("b:1", "c:1")
                assert error.since >= 4.0

    run(scenario)


def test_a_strategy_without_an_end_of_its_own_has_one() -> None:
    for strategy in (Backoff(), Backoff.exponential(0.01), Backoff.fibonacci(0.01)):
        assert strategy.give_up_after == 10.0

    async def scenario() -> None:
        strategy = Backoff.exponential(0.01, 0.02, give_up_after=0.1)
        assert "nothing listens" in str(
            (await error_of(CopycatClient(free_address(), connection_strategy=strategy))).state
        )

    run(scenario)


def test_close_ends_a_connect_under_way_with_the_reason() -> None:
    async def scenario() -> None:
        async with serving(silence) as address:
            client = CopycatClient(address)
            connecting = asyncio.create_task(client.connect())
            while client._driver is None:  # noqa: ASYNC110  (the task has to begin)
                await asyncio.sleep(0)
            waiting = asyncio.ensure_future(client.submit(Book.add(1)))
            await client.close()
            for future in (connecting, waiting):
                with pytest.raises(ClosedSessionError, match="closed"):
                    await future

    run(scenario)


def test_what_waits_while_connecting_fails_with_what_connect_found() -> None:
    async def scenario() -> None:
        client = CopycatClient(free_address(), connection_strategy=ONCE)
        connecting = asyncio.create_task(client.connect())
        await asyncio.sleep(0)
        waiting = client.submit(Book.add(1))
        with pytest.raises(NoLeaderError):
            await connecting
        with pytest.raises(ClosedSessionError, match="no server opened a session") as caught:
            await waiting
        assert not caught.value.outcome_unknown
        with pytest.raises(ClosedSessionError, match="no server opened a session"):
            client.submit(Book.add(1))

    run(scenario)


# ---- submissions -----------------------------------------------------------------------------


def deaf(message: object) -> list[ServerMessage]:
    """Keeps sessions alive, and answers nothing else."""
    return [KeptAlive(message.request, "", ())] if isinstance(message, KeepAlive) else []


def full(message: object) -> list[ServerMessage]:
    """A leader whose disk is full."""
    code, reason = Refusal.DISK_FULL, "the disk of a:1 is full"
    if isinstance(message, Commands):
        return [CommandsRefused(message.session, message.first_sequence, code, "a:1", reason)]
    assert isinstance(message, KeepAlive | QueryRequest | CloseSession)
    return [Failure(message.request, code, "a:1", reason)]


def test_the_clients_own_timeout_bounds_every_submission_and_is_finite() -> None:
    assert 1 <= CopycatClient("127.0.0.1:1")._options.timeout <= 60

    async def scenario() -> None:
        async with (
            serving(opening(deaf)) as address,
            CopycatClient(address, timeout=0.2) as client,
        ):
            futures = [
                client.submit(Book.add(1)),
                client.submit_many([Book.add(2), Book.add(3)]),
                client.submit(Book.count()),
                client.submit(Book.count(), consistency="sequential"),
            ]
            errors = await asyncio.gather(*futures, return_exceptions=True)
            assert [type(error) for error in errors] == [OperationTimeout] * 4
            unknown = [
                error.outcome_unknown for error in errors if isinstance(error, CopycatError)
            ]
            assert unknown == [True, True, False, False]
            assert address in str(getattr(errors[0], "state", ""))
            with pytest.raises(OperationTimeout, match=r"within 0\.05 s"):
                await client.submit(Book.add(4), timeout=0.05)

    run(scenario)


def test_a_full_disk_reaches_the_caller_by_name() -> None:
    async def scenario() -> None:
        async with serving(opening(full)) as address, CopycatClient(address) as client:
            with pytest.raises(DiskFullError, match="the disk of a:1 is full"):
                await client.submit(Book.add(1), timeout=0.2)

    run(scenario)


def test_without_a_quorum_everything_says_who_is_missing_and_reads_go_on(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with AsyncExitStack() as stack:
            trio = Trio(tmp_path, stack)
            await trio.start()
            client = await stack.enter_async_context(
                trio.leader.client(session_timeout=10.0, timeout=2.0)
            )
            assert await client.submit(Book.add(1)) == 1
            await trio.all_applied()
            left = trio.followers[0]
            absent = sorted(str(s.address) for s in trio.servers.values() if s is not left)
            for member in [s for s in trio.servers.values() if s is not left]:
                await member.shutdown()
            command = client.submit(Book.add(2), timeout=4.0)
            assert await client.submit(Book.count(), consistency="sequential", timeout=4.0) == 1
            with pytest.raises(QuorumLostError) as caught:
                await command
            assert caught.value.missing == tuple(absent)
            assert caught.value.since > 0
            with pytest.raises(QuorumLostError) as caught:
                await client.submit(Book.count(), consistency=ConsistencyLevel.LINEARIZABLE)
            assert not caught.value.outcome_unknown
            late = client.submit(Book.add(3), timeout=0.1)
            with pytest.raises(QuorumLostError, match="it was never sent"):
                await late
            error = await error_of(left.client(connection_strategy=ONCE))
            assert isinstance(error, QuorumLostError)
            assert all(address in error.render() for address in absent)
            await trio.start(*absent)
            await trio.all_applied()
            assert await client.submit(Book.add(4), timeout=20.0) in {2, 3}
            numbers = await client.submit(Book.all())
            assert 3 not in numbers, "its caller was told that it was never sent"

    run(scenario)


def test_while_no_server_is_up_the_error_says_what_each_answered(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with server(tmp_path / "one", free_address()) as member:
            await member.bootstrap()
            client = await member.client(session_timeout=10.0).connect()
            await member.shutdown()
            while client.state is not ClientState.SUSPENDED:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            with pytest.raises(NoLeaderError, match="no server is connected") as caught:
                await client.submit(Book.add(1), timeout=0.3)
            assert "nothing listens" in str(caught.value.state)
            assert not caught.value.outcome_unknown
            await client.close()

    run(scenario)


def test_a_cancelled_command_that_was_never_sent_is_not_applied(tmp_path: Path) -> None:
    async def scenario() -> None:
        address = free_address()
        async with server(tmp_path / "one", address) as member:
            await member.bootstrap()
            client = await member.client(session_timeout=20.0).connect()
            await member.shutdown()
            while client.state is not ClientState.SUSPENDED:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            first, cancelled, last = (client.submit(Book.add(n)) for n in (1, 2, 3))
            assert cancelled.cancel()
            task = asyncio.create_task(client.submit(Book.add(4)))
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait({task})
            async with server(tmp_path / "one", address) as again:
                await again.bootstrap()
                assert [await first, await last] == [1, 2]
                assert await client.submit(Book.all()) == [1, 3]
                await client.close()

    run(scenario)


# ---- after the end ---------------------------------------------------------------------------


def test_recovery_is_the_default_and_close_says_when_and_what_to_do(tmp_path: Path) -> None:
    assert CopycatClient("127.0.0.1:1")._options.recovery is RecoveryStrategy.RECOVER

    async def scenario() -> None:
        async with server(tmp_path / "one", free_address()) as member:
            await member.bootstrap()
            async with member.client(recovery_strategy="close") as client:
                assert client._driver is not None
                client._driver.session.expire("a test")
                client._driver._on_expired()
                while client.state is not ClientState.CLOSED:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
                with pytest.raises(ClosedSessionError, match=r"expired at \d{4}-.*UTC") as caught:
                    client.submit(Book.add(1))
                assert "await client.recover()" in str(caught.value.hint)
                await client.recover()
                assert await client.submit(Book.add(1)) == 1

    run(scenario)


def test_recover_keeps_what_is_submitted_meanwhile(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with server(tmp_path / "one", free_address()) as member:
            await member.bootstrap()
            async with member.client() as client:
                old = client.session.id
                recovering = asyncio.create_task(client.recover())
                await asyncio.sleep(0)
                assert await client.submit(Book.add(1)) == 1
                await recovering
                assert client.session.id != old

    run(scenario)


def test_what_meets_a_session_that_was_just_closed_is_no_expiry(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A keep-alive, a query or a command may reach the cluster after the close."""

    def answers(message: object) -> list[ServerMessage]:
        if not isinstance(message, CloseSession):
            return []
        return [
            CommandsRefused(5, 1, Refusal.UNKNOWN_SESSION, ""),
            Failure(message.request + 1, Refusal.UNKNOWN_SESSION, "", "no such session"),
            SessionClosed(message.request),
        ]

    async def scenario() -> None:
        async with serving(opening(answers)) as address:
            client = await CopycatClient(address).connect()
            waiting = client.submit(KeyValueStore.append("k", b"x"))
            await client.close()
            with pytest.raises(ClosedSessionError) as raised:
                await waiting
            assert not isinstance(raised.value, SessionExpiredError)
            assert client.session.state is SessionState.CLOSED

    with caplog.at_level("WARNING", "copycat"):
        asyncio.run(asyncio.wait_for(scenario(), 10))
    assert not caplog.records


def test_a_client_that_was_closed_and_connected_again_is_what_it_was(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with server(tmp_path / "one", free_address()) as member:
            await member.bootstrap()
            states: list[ClientState] = []
            client = CopycatClient(client_id="me", session_timeout=4.0)
            client.on_state_change(states.append)
            for _ in range(2):
                await client.connect(*([str(member.address)] if not states else []))
                assert await client.submit(Book.count()) == 0
                assert client.session.timeout == 4.0
                await client.close()
            assert states == [ClientState.CONNECTED, ClientState.CLOSED] * 2

    run(scenario)


def test_the_members_that_were_learned_are_tried_after_a_close(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with AsyncExitStack() as stack:
            trio = Trio(tmp_path, stack)
            await trio.start()
            first = trio.addresses[0]
            client = await CopycatClient(first).connect()
            await client.close()
            await trio.servers[first].shutdown()
            async with client:
                assert await client.submit(Book.add(1), timeout=20.0) == 1

    run(scenario)
