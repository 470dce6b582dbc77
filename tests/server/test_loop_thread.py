"""A member in an event loop and a thread of its own: the application's loop may be blocked."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from copycat import (
    AddressInUseError,
    ConfigurationError,
    CopycatClient,
    CopycatServer,
    DiskError,
    ServerState,
)
from copycat.protocol.framing import Frame
from copycat.protocol.wire import FrameType
from copycat.server.loop_lag import LoopLag
from copycat.types import MemberId
from tests.server.cluster import LIMIT_S, Book, free_address, run, server


def loop_threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("copycat-loop-")]


@asynccontextmanager
async def three(path: Path) -> AsyncIterator[list[CopycatServer[Any]]]:
    """Three started members, each in a thread of its own."""
    addresses = [free_address() for _ in range(3)]
    members = [
        server(path / str(number), address, loop="thread")
        for number, address in enumerate(addresses)
    ]
    try:
        await asyncio.gather(*(member.bootstrap(*addresses) for member in members))
        yield members
    finally:
        await asyncio.gather(*(member.shutdown() for member in members))
    assert not loop_threads()


def heartbeats(member: CopycatServer[Any], count: int) -> threading.Event:
    """Set when the member's thread has received so many AppendEntries from now on."""
    assert member._node is not None
    replica: Any = member._node.replica
    receive, seen, enough = replica.receive_peer, [], threading.Event()

    def counted(peer: MemberId, frame: Frame) -> None:
        receive(peer, frame)
        if frame.type == FrameType.APPEND_ENTRIES:
            seen.append(frame.type)
        if len(seen) >= count:
            enough.set()

    replica.receive_peer = counted
    return enough


@pytest.mark.slow
def test_a_blocked_application_costs_no_leadership(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with three(tmp_path) as members:
            async with CopycatClient(*(str(m.address) for m in members)) as client:
                assert await client.submit(Book.add(1)) == 1
            (leader,) = [m for m in members if m.state is ServerState.LEADER]
            follower = next(m for m in members if m is not leader)
            term = leader.status().term
            # Heartbeats of three election timeouts arrive while nothing runs in this loop.
            assert heartbeats(follower, 15).wait(LIMIT_S)
            for member in members:
                assert member.status().term == term
                assert member.status().leader == str(leader.address)
            async with leader.client() as client:
                assert await client.submit(Book.add(2)) == 2

    run(scenario)


@pytest.mark.slow
def test_callbacks_calls_and_shutdown_work_from_the_applications_loop(tmp_path: Path) -> None:
    async def scenario() -> None:
        member = server(tmp_path / "one", "127.0.0.1:0", loop="thread")
        seen: list[tuple[ServerState, str]] = []
        member.on_state_change(lambda s: seen.append((s, threading.current_thread().name)))
        addresses = set()
        for number in range(1, 3):
            async with member:
                await member.bootstrap()
                addresses.add(str(member.address))
                assert len(loop_threads()) == 1
                async with member.client() as client:
                    assert await client.submit(Book.add(number)) == number
                assert (await member.take_snapshot()).index > 0
                await member.compact()
                assert str(member.cluster.leader) == f"<Member {member.name} active available>"
                await member.cluster.transfer_leadership(member.name)
                with pytest.raises(ConfigurationError, match="is running already"):
                    await member.bootstrap()
                waiting = asyncio.create_task(member.wait_stopped())
                await member.shutdown()
                await waiting
            assert member.status().state is ServerState.INACTIVE
            assert seen[-1][0] is ServerState.INACTIVE
            await member.shutdown()
            assert not loop_threads()
        assert len(addresses) == 1
        assert {name for _, name in seen} == {threading.current_thread().name}
        assert [state for state, _ in seen].count(ServerState.LEADER) == 2

    run(scenario)


@pytest.mark.slow
def test_a_start_that_fails_or_is_given_up_leaves_no_thread(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with server(tmp_path / "one", "127.0.0.1:0", loop="thread") as first:
            second = server(tmp_path / "two", str(first.address), loop="thread")
            with pytest.raises(AddressInUseError):
                await second.bootstrap()
        assert not loop_threads()
        waiting = server(tmp_path / "three", free_address(), loop="thread")
        starting = asyncio.create_task(waiting.bootstrap(free_address()))
        while not waiting.is_running:  # noqa: ASYNC110  (it has no event of its own)
            await asyncio.sleep(0.01)
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        assert not waiting.is_running
        assert not loop_threads()

    run(scenario)


@pytest.mark.slow
def test_a_member_that_stops_itself_says_so_to_who_waits(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with server(tmp_path / "one", "127.0.0.1:0", loop="thread") as member:
            await member.bootstrap()
            assert member._node is not None
            assert member._loop_thread is not None
            cause = DiskError("fdatasync failed: EIO")
            host = member._node.host
            member._loop_thread.call(lambda: host._worker_failed(cause))
            with pytest.raises(DiskError) as caught:
                await member.wait_stopped()
            assert caught.value is cause
            assert member.failure is cause
        assert not loop_threads()

    run(scenario)


def test_the_option_for_a_loop_of_its_own_is_checked() -> None:
    wrong: Any = "mine"
    with pytest.raises(ConfigurationError, match=r'loop \(\'mine\'\) must be "application" or'):
        CopycatServer("127.0.0.1:0", Book, loop=wrong)


@pytest.mark.slow
@pytest.mark.parametrize("where", ["application", "thread"])
def test_a_blocked_loop_is_named_with_its_length(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, where: Any
) -> None:
    async def scenario() -> None:
        async with server(tmp_path / "one", "127.0.0.1:0", loop=where) as member:
            await member.bootstrap()
            time.sleep(0.7)  # noqa: ASYNC251  (the fault that is looked for)
            while "was blocked for" not in caplog.text:  # noqa: ASYNC110  (a log line is no event)
                await asyncio.sleep(0.01)

    with caplog.at_level(logging.WARNING, "copycat.server"):
        run(scenario)
    assert f"the event loop in thread {threading.current_thread().name} was blocked" in caplog.text


def test_how_long_a_loop_was_blocked(caplog: pytest.LogCaptureFixture) -> None:
    class Loop:
        now = 100.0

        def time(self) -> float:
            return self.now

        def call_at(self, when: float, callback: Any) -> Any:
            return None

    async def scenario() -> None:
        late, loop = LoopLag("m", 2.0, "so what"), Loop()
        late._loop = loop  # type: ignore[assignment]
        late.start()
        for step in (0.5, 1.4, 1.6, 2.6):  # due half a second after the last
            loop.now += step
            late._check()

    with caplog.at_level(logging.INFO, "copycat.server"):
        run(scenario)
    thread = threading.current_thread().name
    assert [(r.levelname, r.getMessage()) for r in caplog.records] == [
        ("INFO", f"m: the event loop in thread {thread} was blocked for 1.1 s; so what"),
        ("WARNING", f"m: the event loop in thread {thread} was blocked for 2.1 s; so what"),
    ]
