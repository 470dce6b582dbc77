"""A server that was shut down and started again is what it was, whatever happened in between."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from copycat import (
    AddressInUseError,
    ConfigurationError,
    CopycatServer,
    DiskError,
    ForkedProcessError,
    IllegalMemberStateError,
    ServerState,
    UnknownMemberError,
)
from copycat.replica.replica import Replica
from copycat.server.arguments import make_machine
from copycat.server.node import Node
from tests.server.cluster import Book, free_address, run, server


@pytest.mark.slow
@pytest.mark.parametrize("way", ["async with", "bootstrap and shutdown"])
def test_port_zero_listeners_and_settings_survive(tmp_path: Path, way: str) -> None:
    async def scenario() -> None:
        member = server(tmp_path / "one", "127.0.0.1:0")
        seen: list[ServerState] = []
        member.on_state_change(seen.append)
        known = []
        for number in range(1, 4):
            if way == "async with":
                async with member:
                    await member.bootstrap()
                    known.append(await used(member, number))
            else:
                await member.bootstrap()
                known.append(await used(member, number))
                await member.shutdown()
            assert member.state is ServerState.INACTIVE
            assert seen[-1] is ServerState.INACTIVE
        assert len(set(known)) == 1, "address, name, storage and members stayed"
        assert known[0][0].port != 0
        assert known[0][1] == str(known[0][0])
        assert seen.count(ServerState.LEADER) == 3

    async def used(member: CopycatServer[Any], number: int) -> Any:
        async with member.client() as client:
            assert await client.submit(Book.add(number)) == number
        return member.address, member.name, member.storage, tuple(member.cluster.members)

    run(scenario)


def test_a_server_is_started_again_in_another_event_loop(tmp_path: Path) -> None:
    member = server(tmp_path / "one", "127.0.0.1:0")

    async def once() -> None:
        async with member:
            await member.bootstrap()
            assert member.is_running

    for _ in range(2):
        run(once)


def test_a_failed_start_can_be_tried_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        address = free_address()
        member = server(tmp_path / "one", address)
        with socket.create_server(("127.0.0.1", member.address.port)):
            with pytest.raises(AddressInUseError, match="this process"):
                await member.bootstrap()
            assert not member.is_running
        (tmp_path / "two").mkdir()
        await member.bootstrap()
        assert member.is_running
        await member.shutdown()
        await asyncio.gather(member.shutdown(), member.shutdown())
        await member.bootstrap()
        await member.shutdown()
        await member.wait_stopped()

    run(scenario)


@pytest.mark.slow
@pytest.mark.parametrize("loop", ["application", "thread"])
def test_a_member_that_stopped_itself_is_started_again(tmp_path: Path, loop: Any) -> None:
    async def scenario() -> None:
        member = server(tmp_path / "one", "127.0.0.1:0", loop=loop)
        for number in range(1, 3):
            await member.bootstrap()
            assert member.failure is None
            async with member.client() as client:
                assert await client.submit(Book.add(number)) == number
            host: Any = member._node.host if member._node is not None else None
            fail = partial(host._worker_failed, DiskError("EIO"))
            if member._loop_thread is None:
                fail()
            else:
                member._loop_thread.call(fail)
            with pytest.raises(DiskError):
                await member.wait_stopped()
            assert not member.is_running
        await member.shutdown()

    run(scenario)


@pytest.mark.slow
def test_a_shutdown_while_it_waits_for_others_ends_the_start_with_the_reason(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        member = server(tmp_path / "one", free_address())
        other = free_address()
        for _ in range(2):
            starting = asyncio.create_task(member.bootstrap(other))
            while not member.is_running:  # noqa: ASYNC110  (it has no event of its own)
                await asyncio.sleep(0.01)
            await member.shutdown()
            with pytest.raises(IllegalMemberStateError, match="was shut down while it started"):
                await starting
            assert not member.is_running

    run(scenario)


@pytest.mark.slow
def test_a_shutdown_at_any_step_of_a_start_stops_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        member = server(tmp_path / "one", "127.0.0.1:0")
        for steps in range(1, 40):
            starting = asyncio.create_task(member.bootstrap())
            for _ in range(steps):
                await asyncio.sleep(0)
            await member.shutdown()
            assert member.state is ServerState.INACTIVE, f"after {steps} steps"
            ended: object = (await asyncio.gather(starting, return_exceptions=True))[0]
            assert ended is member or isinstance(ended, IllegalMemberStateError), steps
            assert not member.is_running, f"after {steps} steps"

    run(scenario)


def test_two_starts_at_once_are_one_and_a_refusal(tmp_path: Path) -> None:
    async def scenario() -> None:
        member = server(tmp_path / "one", "127.0.0.1:0")
        both: Any = await asyncio.gather(
            member.bootstrap(), member.bootstrap(), return_exceptions=True
        )
        first, second = both
        assert first is member
        assert isinstance(second, ConfigurationError)
        assert "is running already" in str(second)
        assert member.is_running
        await member.shutdown()

    run(scenario)


def test_a_start_right_after_a_shutdown_waits_for_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    close, go_on = Node.close, asyncio.Event()

    async def slow_close(self: Node) -> None:
        await go_on.wait()
        await close(self)

    async def scenario() -> None:
        member = server(tmp_path / "one", "127.0.0.1:0")
        await member.bootstrap()
        monkeypatch.setattr(Node, "close", slow_close)
        close_task = asyncio.create_task(member.shutdown())
        await asyncio.sleep(0)
        while member._close_task is None:  # noqa: ASYNC110  (it has no event of its own)
            await asyncio.sleep(0)
        starting = asyncio.create_task(member.bootstrap())
        await asyncio.sleep(0)
        go_on.set()
        await asyncio.gather(close_task, starting)
        assert member.is_running
        await member.shutdown()

    run(scenario)


def in_child(work: Any) -> str:
    """What `work()` answers in a forked child."""
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(write_end, work().encode())
        finally:
            os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as answer:
        text = answer.read().decode()
    os.waitpid(pid, 0)
    return text


def test_a_server_made_before_a_fork_may_be_used_after_it_unless_it_was_open(
    tmp_path: Path,
) -> None:
    member = server(tmp_path / "one", free_address())

    def started() -> str:
        async def scenario() -> None:
            async with member:
                await member.bootstrap()

        run(scenario)
        return "started"

    assert in_child(started) == "started"

    def refused() -> str:
        try:
            member._check_process()
        except ForkedProcessError as error:
            return str(error)
        return "used"

    async def open_here() -> None:
        async with member:
            await member.bootstrap()
            assert "was forked since" in in_child(refused)

    run(open_here)


# ---- what a user can write wrongly ---------------------------------------------------------


class Sized(Book):
    """Needs an argument."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size


@pytest.mark.parametrize(
    ("options", "expected", "hint"),
    [
        ({"storage": 5}, "storage (5) must be a directory", 'storage= a directory, as "./data"'),
        ({"storage": b"data"}, "storage (b'data') must be", "a directory"),
        ({"storage": ""}, "a path", ""),
        ({"state_machine": Book()}, "and is one", "Book, not Book()"),
        ({"state_machine": int}, "int) is no StateMachine", "derive your class"),
        ({"state_machine": "Book"}, "('Book') must make", "pass the class"),
        ({"election_timeout": "fast"}, "election_timeout ('fast') is no duration", "seconds"),
        ({"cluster_name": 5}, "cluster_name (5)", ""),
        ({"name": ""}, "name ('')", ""),
        ({"address": 8700}, "address 8700", "host:port"),
        ({"bind": "everywhere"}, "bind: address 'everywhere' has no port", "host:port"),
        ({"insecure": "yes"}, "insecure ('yes')", ""),
    ],
)
def test_settings_of_the_wrong_kind_are_named(
    options: dict[str, Any], expected: str, hint: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        CopycatServer(**{"address": "127.0.0.1:0", "state_machine": Book, **options})
    assert expected in str(caught.value)
    assert hint in caught.value.render()


def test_all_problems_are_said_at_once() -> None:
    with pytest.raises(ConfigurationError) as caught:
        CopycatServer(
            "127.0.0.1:0",
            Book(),  # type: ignore[arg-type]
            storage=5,  # type: ignore[arg-type]
            election_timeout="x",  # type: ignore[arg-type]
            cluster_name="",
        )
    for word in ("state_machine", "storage", "election_timeout", "cluster_name"):
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("members", "expected", "hint"),
    [
        (["127.0.0.1:1", "127.0.0.1:1"], "127.0.0.1:1 is given twice", "address of its own"),
        ([["127.0.0.1:1", "127.0.0.1:2"]], "is no address", "bootstrap(*members)"),
        (["0.0.0.0:1"], "0.0.0.0:1 cannot be dialled", ""),
        (["127.0.0.1:0"], "127.0.0.1:0 cannot be dialled", ""),
        (
            ["localhost:{port}"],
            "is this member, whose address is given as 127.0.0.1:",
            "by that text",
        ),
        ([5], "address 5", "host:port"),
    ],
)
def test_lists_of_members_that_cannot_be_meant_are_refused(
    tmp_path: Path, members: list[Any], expected: str, hint: str
) -> None:
    async def scenario() -> None:
        address = free_address()
        port = address.rpartition(":")[2]
        member = server(tmp_path / "one", address)
        given = [m.format(port=port) if isinstance(m, str) else m for m in members]
        with pytest.raises(ConfigurationError) as caught:
            await member.bootstrap(*given)
        assert expected in str(caught.value)
        assert hint in caught.value.render()
        assert not (tmp_path / "one").exists()
        await member.bootstrap()
        await member.shutdown()

    run(scenario)


@pytest.mark.parametrize(
    ("address", "options", "expected", "hint"),
    [
        ("192.0.2.1:8700", {}, "no interface of this machine has 192.0.2.1", "0.0.0.0:8700"),
        ("no.invalid:8700", {}, "no.invalid:8700", "of this machine"),
    ],
)
def test_addresses_that_are_not_this_machines_are_named(
    tmp_path: Path, address: str, options: dict[str, Any], expected: str, hint: str
) -> None:
    async def scenario() -> None:
        member = server(tmp_path / "one", address, insecure=True, **options)
        with pytest.raises(ConfigurationError) as caught:
            await member.bootstrap()
        assert expected in str(caught.value)
        assert hint in caught.value.render()

    run(scenario)


def test_a_machine_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    made = Book()
    machines: list[Any] = [Sized, lambda: None, lambda: made]
    texts = ["Sized made no machine: TypeError", "made a NoneType", ""]

    async def scenario() -> None:
        for machine, text in zip(machines, texts, strict=True):
            member = server(tmp_path / "one", "127.0.0.1:0", machine)
            if text:
                with pytest.raises(ConfigurationError) as caught:
                    await member.bootstrap()
                assert text in str(caught.value)
                continue
            await member.bootstrap()
            await member.shutdown()
            with pytest.raises(ConfigurationError, match="runs in another server already"):
                await member.bootstrap()

    run(scenario)


@pytest.mark.slow
def test_calls_that_a_running_server_refuses(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with server(tmp_path / "one", "127.0.0.1:0") as member:
            with pytest.raises(IllegalMemberStateError):
                await member.take_snapshot()
            await member.bootstrap()
            wrong: Any = 5
            with pytest.raises(ConfigurationError, match='one of "minor", "major"'):
                await member.compact(wrong)
            with pytest.raises(ConfigurationError, match="cannot be called"):
                member.on_state_change(wrong)
            with pytest.raises(ConfigurationError, match='no member "5"'):
                await member.cluster.transfer_leadership(wrong)
        with pytest.raises(IllegalMemberStateError, match="does not run") as caught:
            await member.compact()
        assert "bootstrap() starts it" in caught.value.render()

    run(scenario)


def test_an_async_factory_makes_no_machine_and_leaves_no_coroutine(
    recwarn: pytest.WarningsRecorder,
) -> None:
    async def factory() -> Book:
        return Book()

    with pytest.raises(ConfigurationError, match="made a coroutine, which is no StateMachine"):
        make_machine(factory)
    gc.collect()
    assert not recwarn.list


def test_the_only_member_has_nobody_to_hand_leadership_to(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with server(tmp_path / "one", "127.0.0.1:0") as member:
            await member.bootstrap()
            with pytest.raises(UnknownMemberError, match="the only member of its cluster"):
                await member.cluster.transfer_leadership()

    run(scenario)


@pytest.mark.parametrize("way", ["shutdown", "failure"])
def test_while_a_member_closes_its_status_is_that_of_its_end(tmp_path: Path, way: str) -> None:
    async def scenario() -> None:
        member = server(tmp_path / "one", free_address())
        await member.bootstrap()
        async with member.client() as client:
            assert await client.submit(Book.add(1)) == 1
        before = member.status()
        if way == "shutdown":
            closing = asyncio.create_task(member.shutdown())
        else:
            assert member._node is not None
            assert member._node.replica is not None
            member._node.replica.failed(DiskError("the disk fails", operation="read", errno=5))
            closing = asyncio.create_task(member.wait_stopped())
        ends = []
        while not closing.done():
            await asyncio.sleep(0)
            if member._node is None:
                ends.append(member.status())
        await asyncio.wait({closing})
        assert ends, "it takes more than one turn of the loop"
        assert {*ends, member.status()} == {ends[0]}
        assert (ends[0].term, ends[0].state) == (before.term, ServerState.INACTIVE)
        assert ends[0].last_index >= before.last_index > 0
        assert (closing.exception() is None) is (way == "shutdown")

    run(scenario)


def test_a_status_that_cannot_be_read_keeps_no_directory_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def unreadable(_: Replica) -> None:
        raise DiskError("no status", operation="read", errno=5)

    async def scenario() -> None:
        one = server(tmp_path / "one", free_address())
        await one.bootstrap()
        with monkeypatch.context() as patched:
            patched.setattr(Replica, "status", unreadable)
            await one.shutdown()
        assert one.status().state is ServerState.INACTIVE
        assert "its status at the end is not known" in caplog.text
        async with server(tmp_path / "one", str(one.address)) as two:
            await two.bootstrap()

    run(scenario)
