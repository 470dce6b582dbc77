"""The host: where syncs run, what a failing thread does, how writes are joined."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from copycat import DiskError, ServerState
from copycat.net import ATTEMPT_S, JOIN_NBYTES_MAX, RESOLVE_S, WriteBuffer
from copycat.replica.replica import Replica
from copycat.server.host import AsyncHost
from copycat.server.workers import Mailbox, SyncPace, Worker
from copycat.types import MemberId
from tests.client.servers import serving, silence
from tests.server.cluster import Book, free_address, run, server


class StubReplica:
    """Records what a host calls, in order."""

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.on_turn: Callable[[], None] = lambda: None
        self.wake: Callable[[], None] = lambda: None

    def connect_peers(self) -> None:
        """It has none."""

    def turn(self, now_ms: int, wall_ms: int) -> None:
        self.calls.append("turn")
        self.on_turn()

    def deadline_ms(self) -> int:
        return 1 << 60

    def synced(self, ticket: Any) -> None:
        self.calls.append(("synced", ticket))
        self.wake()

    def saved(self, ticket: Any) -> None:
        self.calls.append(("saved", ticket))
        self.wake()

    def failed(self, cause: BaseException) -> None:
        self.calls.append(("failed", cause))
        self.wake()


class Ticket:
    """A sync that remembers its thread and may fail."""

    def __init__(self, error: Exception | None = None) -> None:
        self._error = error
        self.thread = ""

    def run(self) -> None:
        self.thread = threading.current_thread().name
        if self._error is not None:
            raise self._error


def hosted(test: Callable[[AsyncHost, StubReplica], Any], *, is_fast: bool) -> None:
    async def scenario() -> None:
        host, replica = AsyncHost("t", print, print), StubReplica()
        replica.wake = host.wake
        if is_fast:
            for _ in range(3):
                host._pace.record(1e-6)
        host.start(cast("Replica", replica))
        try:
            await test(host, replica)
        finally:
            assert await host.close(5.0)

    run(scenario)


async def turned(host: AsyncHost, done: Callable[[], bool]) -> None:
    await host.when(done)


def test_a_quick_disk_is_synced_inline_once_a_turn_and_never_reentrantly() -> None:
    async def test(host: AsyncHost, replica: StubReplica) -> None:
        first, second = Ticket(), Ticket()

        def on_turn() -> None:
            replica.on_turn = lambda: None
            host.sync(first)
            assert "MainThread" in first.thread
            host.sync(second)
            assert not second.thread, "the second of a turn waits for the next"

        replica.on_turn = on_turn
        host.wake()
        await turned(host, lambda: bool(second.thread))
        assert "MainThread" in second.thread
        assert [c for c in replica.calls if c != "turn"] == [("synced", first), ("synced", second)]

    hosted(test, is_fast=True)


@pytest.mark.parametrize("reason", ["unknown disk", "a save is pending"])
def test_c9_a_slow_disk_or_a_pending_vote_moves_the_sync_to_its_thread(reason: str) -> None:
    async def test(host: AsyncHost, replica: StubReplica) -> None:
        ticket, save = Ticket(), Ticket()
        if reason == "a save is pending":
            host.save(save)
        host.sync(ticket)
        await turned(host, lambda: ("synced", ticket) in replica.calls)
        assert ticket.thread == "copycat-sync-t"
        if reason == "a save is pending":
            assert save.thread == "copycat-save-t", "the hard state does not queue behind data"

    hosted(test, is_fast=reason == "a save is pending")


@pytest.mark.parametrize("is_fast", [True, False], ids=["inline", "thread"])
def test_f9_a_failed_sync_is_reported_and_never_synced(is_fast: bool) -> None:
    async def test(host: AsyncHost, replica: StubReplica) -> None:
        cause = DiskError("EIO")
        host.sync(Ticket(cause))
        await turned(host, lambda: ("failed", cause) in replica.calls)
        assert not [c for c in replica.calls if c[0] == "synced"]

    hosted(test, is_fast=is_fast)


def test_the_pace_is_a_median_and_waits_for_three() -> None:
    pace = SyncPace()
    for seconds, fast in [(1e-5, False), (1e-5, False), (1e-5, True), (1.0, True), (1e-5, True)]:
        pace.record(seconds)
        assert pace.is_fast == fast
    for _ in range(9):
        pace.record(1e-3)
    assert not pace.is_fast


def test_many_completions_wake_the_loop_once() -> None:
    async def scenario() -> None:
        after: list[int] = []
        seen: list[int] = []
        box = Mailbox(asyncio.get_running_loop(), lambda: after.append(len(seen)))
        for n in range(100):
            box.post(seen.append, n)
        await asyncio.sleep(0)
        assert seen == list(range(100))
        assert after == [100]
        box.close()
        box.post(seen.append, 100)
        await asyncio.sleep(0)
        assert len(seen) == 100

    run(scenario)


def test_a_worker_runs_in_order_and_ends_when_asked() -> None:
    async def scenario() -> None:
        seen: list[Any] = []
        done = asyncio.Event()
        box = Mailbox(asyncio.get_running_loop(), lambda: None)
        worker = Worker("w", box, seen.append)
        for n in range(10):
            worker.run(lambda n=n: n, seen.append)  # type: ignore[misc]
        worker.run(lambda: None, lambda _: done.set())
        await done.wait()
        assert seen == list(range(10))
        assert await worker.close(5.0)
        assert await Worker("never started", box, seen.append).close(0.0)

    run(scenario)


class Transport:
    """Remembers its writes."""

    def __init__(self) -> None:
        self.writes: list[int] = []

    def write(self, data: bytes) -> None:
        self.writes.append(len(data))

    def is_closing(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return 0


@pytest.mark.parametrize(
    ("parts", "writes"),
    [
        ([10, 20, 30], [60]),
        ([10, JOIN_NBYTES_MAX - 1], [JOIN_NBYTES_MAX + 9]),
        ([10, JOIN_NBYTES_MAX, 20, 30], [10, JOIN_NBYTES_MAX, 50]),
        ([1 << 20], [1 << 20]),
    ],
)
def test_small_neighbours_leave_in_one_write(parts: list[int], writes: list[int]) -> None:
    transport = Transport()
    write_buffer = WriteBuffer(cast("asyncio.Transport", transport))
    for nbytes in parts:
        write_buffer.put(bytes(nbytes))
    assert write_buffer.nbytes == sum(parts)
    write_buffer.flush()
    assert transport.writes == writes
    assert write_buffer.nbytes == 0


@pytest.mark.slow
def test_f9_a_disk_that_fails_stops_the_member_with_the_cause(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with server(tmp_path / "one", free_address()) as member:
            await member.bootstrap()
            async with member.client() as client:
                await client.submit(Book.add(1))
            assert member._node is not None
            cause = DiskError("fdatasync failed: EIO")
            member._node.host._worker_failed(cause)
            with pytest.raises(DiskError) as caught:
                await member.wait_stopped()
            assert caught.value is cause
            assert member.failure is cause
            assert member.state is ServerState.INACTIVE
        async with server(tmp_path / "one", str(member.address)) as again:
            await again.bootstrap()
            assert again.failure is None

    run(scenario)


class Outage:
    """Remembers why there is no link."""

    def __init__(self) -> None:
        self.reasons: list[str] = []

    def link_failed(self, peer: MemberId, reason: str) -> None:
        self.reasons.append(reason)


def test_a_link_that_meets_an_error_of_its_own_program_is_dialled_again() -> None:
    """Or the member would be cut off from that peer until it is started anew."""
    hellos: list[str] = []
    outage, again = Outage(), asyncio.Event()

    def hello() -> bytes:
        hellos.append("hello")
        if len(hellos) == 1:
            raise ZeroDivisionError("a bug")
        again.set()
        return b""

    async def test(host: AsyncHost, replica: StubReplica) -> None:
        stub = cast("Any", replica)
        stub.hello, stub.outage = hello, outage
        async with serving(silence) as address:
            host.connect(MemberId(2), address)
            await asyncio.wait_for(again.wait(), 5.0)
            await host.close_links()

    hosted(test, is_fast=True)
    assert outage.reasons == ["ZeroDivisionError: a bug"]


def test_a_link_waits_longer_after_each_dial_that_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to a second. A HELLO of the peer ends the wait, and begins anew with the shortest one."""
    waits: list[float] = []
    is_done = asyncio.Event()

    def no_jitter(low: float, high: float) -> float:
        return (low + high) / 2

    def hello() -> bytes:
        raise AssertionError("nobody listens there")

    async def test(host: AsyncHost, replica: StubReplica) -> None:
        stub, peer = cast("Any", replica), MemberId(2)
        stub.hello, stub.outage = hello, Outage()
        real = asyncio.timeout

        def timeout(delay: float) -> asyncio.Timeout:
            if delay not in {ATTEMPT_S, RESOLVE_S}:
                waits.append(delay)
                delay = 0.0
                if len(waits) == 7:
                    host.peer_links[peer].retry_now()
                elif len(waits) == 9:
                    is_done.set()
            return real(delay)

        monkeypatch.setattr("copycat.server.peer_link.random.uniform", no_jitter)
        monkeypatch.setattr("copycat.server.peer_link.asyncio.timeout", timeout)
        host.connect(peer, free_address())
        await asyncio.wait_for(is_done.wait(), 5.0)
        await host.close_links()

    hosted(test, is_fast=True)
    assert waits[:9] == [0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0, 0.05, 0.1]


def test_nothing_leaves_by_a_link_that_was_ended() -> None:
    """Not even what was queued for it in the same turn."""

    async def test(host: AsyncHost, replica: StubReplica) -> None:
        transport, peer = Transport(), MemberId(2)
        host.connect(peer, free_address())
        host.link_up(peer, WriteBuffer(cast("asyncio.Transport", transport)))
        assert host.send(peer, b"one", None)
        host.disconnect_peer(peer)
        assert not host.send(peer, b"two", None)
        host.write_queued()
        assert transport.writes == []
        await host.close_links()

    hosted(test, is_fast=True)


def test_no_link_is_made_while_the_links_are_closed() -> None:
    """A peer may say HELLO meanwhile. Nobody would end the link that answers it."""

    async def test(host: AsyncHost, replica: StubReplica) -> None:
        cast("Any", replica).outage = Outage()
        host.connect(MemberId(2), free_address())
        closing = asyncio.ensure_future(host.close_links())
        await asyncio.sleep(0)
        assert not closing.done()
        host.connect(MemberId(3), free_address())
        await closing
        assert not host.peer_links

    hosted(test, is_fast=True)
