"""Starting and stopping: what is refused, what is said while waiting, what is left behind."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from copycat import (
    AddressInUseError,
    ConfigurationError,
    CopycatServer,
    DirectoryInUseError,
    IllegalMemberStateError,
    WrongDirectoryError,
)
from copycat.member.directory import MemberDirectory
from copycat.server import node, startup
from tests.server.cluster import LIMIT_S, Book, free_address, run, server


def test_a_port_that_is_taken_names_its_holder(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with server(tmp_path / "one", "127.0.0.1:0") as first:
            assert first.address.port != 0
            with pytest.raises(AddressInUseError, match=r"pid \d+ ") as caught:
                async with server(tmp_path / "two", str(first.address)):
                    pass
            assert caught.value.pid == os.getpid()

    run(scenario)


@pytest.mark.slow
def test_c16_another_list_is_refused_with_both(tmp_path: Path) -> None:
    async def scenario() -> None:
        address = free_address()
        async with server(tmp_path / "one", address) as member:
            await member.bootstrap(address)
        async with server(tmp_path / "one", address) as member:
            with pytest.raises(ConfigurationError) as caught:
                await member.bootstrap("127.0.0.1:9")
            assert f"founded with members {address};" in str(caught.value)
            assert f"given {', '.join(sorted((address, '127.0.0.1:9')))}" in str(caught.value)
            assert not member.is_running
        async with server(tmp_path / "one", address) as member:
            await member.bootstrap()
        directory = str(tmp_path / "one")
        async with CopycatServer(address, Book, cluster_name="x", storage=directory) as member:
            with pytest.raises(WrongDirectoryError, match="belongs to"):
                await member.bootstrap()

    run(scenario)


@pytest.mark.slow
def test_f7_a_directory_is_not_that_of_the_member_at_another_known_address(tmp_path: Path) -> None:
    """C44 lets a member move, but two directories are easily mistaken for each other."""

    async def scenario() -> None:
        addresses = [free_address() for _ in range(3)]
        async with server(tmp_path / "one", addresses[0]) as member:
            starting = asyncio.create_task(member.bootstrap(*addresses))
            while not (tmp_path / "one" / "identity-b").exists():  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            starting.cancel()
            await asyncio.wait({starting})
        with pytest.raises(WrongDirectoryError, match="knows another member"):
            async with server(tmp_path / "one", addresses[1]) as member:
                await member.bootstrap(*addresses)

    run(scenario)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"address": "0.0.0.0:1"}, "cannot be dialled"),
        ({"address": "10.0.0.1:1"}, "insecure=True"),
        ({"bind": "0.0.0.0:0", "address": "127.0.0.1:0"}, "insecure=True"),
        ({"election_timeout": 0.1}, "at least 2 x"),
        ({"session_timeout": 0.1}, "above election_timeout"),
        ({"cluster_name": ""}, "cluster_name"),
        ({"state_machine": None}, "must make a StateMachine"),
        ({"address": "nowhere"}, "has no port"),
    ],
)
def test_bad_settings_are_refused_with_the_reason(
    options: dict[str, object], expected: str
) -> None:
    settings = {"address": "127.0.0.1:0", "state_machine": Book, "election_timeout": 0.75}
    with pytest.raises(ConfigurationError) as caught:
        CopycatServer(**{**settings, **options})  # type: ignore[arg-type]
    assert expected in str(caught.value)


@pytest.mark.slow
def test_a_member_that_waits_says_for_whom(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(node, "WAITING_LOG_S", 0.05)

    async def scenario() -> None:
        address, second, third = (free_address() for _ in range(3))
        async with server(tmp_path / "one", address) as member:
            starting = asyncio.create_task(member.bootstrap(address, second, third))
            while "waiting" not in caplog.text:  # noqa: ASYNC110  (a log line is no event)
                await asyncio.sleep(0.01)
            names = ", ".join(sorted((second, third)))
            assert f"{address}: waiting for 1 of {names} (need 2 of 3)" in caplog.text
            starting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await starting
            assert not member.is_running
        async with server(tmp_path / "one", address) as member:
            assert not member.is_running, "a cancelled start released everything"

    with caplog.at_level(logging.INFO, "copycat.server"):
        run(scenario)


@pytest.mark.slow
def test_a_server_can_be_started_again_and_stopped_twice(tmp_path: Path) -> None:
    async def scenario() -> None:
        member = server(tmp_path / "one", free_address())
        for _ in range(2):
            async with member:
                await member.bootstrap()
                with pytest.raises(ConfigurationError, match="is running already"):
                    await member.bootstrap()
                assert str(member.cluster.leader) == f"<Member {member.name} active available>"
                assert list(member.cluster.members) == [member.name]
                await member.shutdown()
                await member.wait_stopped()
            await member.shutdown()
            assert member.cluster.leader is None

    run(scenario)


# ---- the loop continues while a start reads the disk ------------------------------------


class SlowDisk:
    """`MemberDirectory.open` that waits until the test lets it continue."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_reached = threading.Event()
        self.go_on = threading.Event()
        self._open = MemberDirectory.open
        monkeypatch.setattr(MemberDirectory, "open", self._wait)

    def _wait(self, *arguments: Any, **settings: Any) -> MemberDirectory:
        self.is_reached.set()
        assert self.go_on.wait(LIMIT_S), "the loop stood still meanwhile"
        return self._open(*arguments, **settings)

    async def reached(self) -> None:
        while not self.is_reached.is_set():  # noqa: ASYNC110  (an event of another thread)
            await asyncio.sleep(0.001)


def test_the_loop_goes_on_while_the_directory_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with server(tmp_path / "one", free_address()) as member:
            disk = SlowDisk(monkeypatch)
            starting = asyncio.create_task(member.bootstrap())
            await disk.reached()
            assert not member.is_running
            with pytest.raises(ConfigurationError, match="is running already"):
                await member.bootstrap()
            disk.go_on.set()
            await starting
            assert member.is_running

    run(scenario)


@pytest.mark.parametrize("way", ["cancelled", "shut down"])
def test_a_start_that_is_given_up_while_it_reads_lets_go_of_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    async def scenario() -> None:
        address = free_address()
        async with server(tmp_path / "one", address) as member:
            with monkeypatch.context() as patched:
                disk = SlowDisk(patched)
                starting = asyncio.create_task(member.bootstrap())
                await disk.reached()
                if way == "cancelled":
                    starting.cancel()
                    await asyncio.sleep(0)
                    disk.go_on.set()
                    with pytest.raises(asyncio.CancelledError):
                        await starting
                else:
                    close_task = asyncio.create_task(member.shutdown())
                    await asyncio.sleep(0)
                    disk.go_on.set()
                    with pytest.raises(IllegalMemberStateError, match="while it started"):
                        await starting
                    await close_task
            assert not member.is_running
        async with server(tmp_path / "one", address) as member:
            await member.bootstrap()

    run(scenario)


def test_c9_a_save_that_hangs_over_the_end_keeps_the_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It writes its vote whenever the disk continues: over that of whoever came next."""
    monkeypatch.setattr(node, "CLOSE_S", 0.05)
    go_on = threading.Event()

    class Hanging:
        def run(self) -> None:
            assert go_on.wait(LIMIT_S)

    async def scenario() -> None:
        address = free_address()
        async with server(tmp_path / "one", address) as member:
            await member.bootstrap()
            running: Any = member._node
            running.host.save(Hanging())
        assert "stays locked until this process ends" in caplog.text
        del running
        gc.collect()
        async with server(tmp_path / "one", address) as member:
            with pytest.raises(DirectoryInUseError):
                await member.bootstrap()

    try:
        run(scenario)
    finally:
        go_on.set()
        for directory in node._LEFT_LOCKED:
            directory.close()
        node._LEFT_LOCKED.clear()


def test_a_start_that_fails_after_the_directory_was_opened_lets_go_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ConfigurationError("no replica today")

    async def scenario() -> None:
        async with server(tmp_path / "one", free_address()) as member:
            with monkeypatch.context() as patched:
                patched.setattr(startup, "Replica", fail)
                with pytest.raises(ConfigurationError, match="no replica today"):
                    await member.bootstrap()
            await member.bootstrap()

    run(scenario)
