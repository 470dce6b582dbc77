"""A machine that was changed, on the directory that the old one wrote: real servers and disks."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pytest

from copycat import (
    CopycatServer,
    MachineMismatchError,
    StateMachine,
    Storage,
    command,
    query,
)
from copycat.machine import SnapshotReader, SnapshotWriter
from tests.machine.test_mismatch import Counter, Renamed
from tests.server.cluster import TIMERS, free_address, run

pytestmark = pytest.mark.slow

COUNT = 20


class Mended(StateMachine):
    def __init__(self) -> None:
        self.total = 0

    @command(name="add")
    def increase(self, by: int, times: int = 1) -> int:
        self.total += by * times
        return self.total

    @query
    def now(self) -> int:
        return self.total


@dataclass
class Item:
    name: str
    count: int


class Shop(StateMachine):
    """Its first version."""

    def __init__(self) -> None:
        self.items: dict[str, Item] = {}
        self.calls = 0

    item: Item

    @command
    def put(self, name: str, count: int) -> int:
        self.items[name] = Item(name, count)
        self.calls += 1
        return self.calls


@dataclass
class Article:
    """What Item became."""

    name: str
    count: int
    tags: list[str] = field(default_factory=lambda: ["none"])


class Shop2(StateMachine):
    """Item has another name and a field more, the machine an attribute and a version more."""

    version = 2

    def __init__(self) -> None:
        self.items: dict[str, Article] = {}
        self.calls = 0
        self.log: list[str] = []

    item: Article

    @command
    def put(self, name: str, count: int) -> int:
        self.items[name] = Article(name, count)
        self.calls += 1
        return self.calls

    @query
    def all(self) -> list[Article]:
        return list(self.items.values())


class Shop3(Shop2):
    """The same, and it says so."""

    snapshot_aliases: ClassVar[dict[str, Any]] = {"Item": Article}


class Shop4(Shop3):
    """Writes its snapshots itself."""

    version = 3

    def snapshot(self, writer: SnapshotWriter) -> None:
        writer.write_object((self.calls, list(self.items.values())))

    def install(self, reader: SnapshotReader, version: int) -> None:
        if reader.attributes is not None:
            self.calls, self.items = reader.attributes["calls"], reader.attributes["items"]
            self.log = [f"from {version}"]
        else:
            self.calls, items = reader.read_object(tuple[int, list[Article]])
            self.items = {item.name: item for item in items}
            self.log = [f"own {version}"]


def server(
    path: Path, machine: type[StateMachine], address: object = None, **options: Any
) -> CopycatServer[Any]:
    settings: dict[str, Any] = {**TIMERS, "storage": Storage(directory=str(path)), **options}
    return CopycatServer(str(address or "127.0.0.1:0"), machine, cluster_name="test", **settings)


async def live(member: CopycatServer[Any]) -> None:
    await member.bootstrap()
    await member.wait_stopped()


def snapshots_of(path: Path) -> list[str]:
    return sorted(one.name for one in path.rglob("*.snap"))


def test_a_renamed_command_stops_the_member_and_loses_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with server(tmp_path, Counter) as member:
            await member.bootstrap()
            address = member.address
            async with member.client() as client:
                for _ in range(COUNT):
                    await client.submit(Counter.add(1))
        for _ in range(3):
            async with server(tmp_path, Renamed, address) as member:
                with pytest.raises(MachineMismatchError) as caught:
                    await live(member)
                assert isinstance(member.failure, MachineMismatchError)
                assert not member.is_running
            assert caught.value.operation == "Renamed.add"
            assert caught.value.index > 0
            assert '@command(name="add")' in str(caught.value.hint)
            assert snapshots_of(tmp_path) == []
        async with server(tmp_path, Mended, address) as member:
            await member.bootstrap()
            async with member.client() as client:
                assert await client.submit(Mended.now()) == COUNT
                assert await client.submit(Mended.increase(1, 2)) == COUNT + 2

    run(scenario)


def test_no_client_can_stop_a_member_with_a_command(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with server(tmp_path, Counter) as member:
            await member.bootstrap()
            async with member.client() as client:
                first = client.submit(Counter.add(1))
                bad = client.submit(Renamed.increase(1))
                second = client.submit(Counter.add(1))
                assert await first == 1
                with pytest.raises(MachineMismatchError, match=r"'increase' is no command"):
                    await bad
                assert await second == 2
                with pytest.raises(MachineMismatchError, match=r"'nothing' is no query"):
                    await client.submit(Other.nothing())
                assert await client.submit(Counter.now()) == 2
            assert member.failure is None

    run(scenario)


class Newer(Mended):
    @command
    def double(self) -> int:
        self.total *= 2
        return self.total


def test_in_a_rolling_upgrade_who_has_the_old_code_stops_by_name(tmp_path: Path) -> None:
    async def scenario() -> None:
        addresses = [free_address() for _ in range(3)]

        async def start(number: int, machine: type[StateMachine]) -> CopycatServer[Any]:
            member = server(
                tmp_path / str(number), machine, addresses[number], election_timeout=2.0
            )
            await stack.enter_async_context(member)
            await member.bootstrap(*addresses)
            return member

        async with AsyncExitStack() as stack:
            newer = await asyncio.gather(start(0, Newer), start(1, Newer))
            older = await start(2, Mended)  # one of the others leads
            async with newer[0].client() as client:
                assert await client.submit(Newer.increase(3)) == 3
                assert await client.submit(Newer.double()) == 6
                with pytest.raises(MachineMismatchError):
                    await older.wait_stopped()
                assert isinstance(older.failure, MachineMismatchError)
                assert older.failure.operation == "Mended.double"
                assert await client.submit(Newer.double()) == 12
            again = await start(2, Newer)
            async with again.client() as client:
                assert await client.submit(Newer.now()) == 12
            assert again.failure is None

    run(scenario)


def test_a_class_in_a_snapshot_that_changed_is_read_or_named(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with server(tmp_path, Shop) as member:
            await member.bootstrap()
            address = member.address
            async with member.client() as client:
                for number in range(COUNT):
                    await client.submit(Shop.put(f"item {number % 5}", number))
            await member.take_snapshot()
            async with member.client() as client:
                await client.submit(Shop.put("after", 7))
        before = snapshots_of(tmp_path)
        async with server(tmp_path, Shop2, address) as member:
            with pytest.raises(MachineMismatchError) as caught:
                await member.bootstrap()
        assert caught.value.class_name == "Item"
        assert 'snapshot_aliases = {"Item": NewName}' in str(caught.value.hint)
        assert snapshots_of(tmp_path) == before
        async with server(tmp_path, Shop3, address) as member:
            await member.bootstrap()
            async with member.client() as client:
                articles = await client.submit(Shop3.all())
            assert len(articles) == 6
            assert articles[0] == Article("item 0", 15, ["none"])
            assert member.state_machine.calls == COUNT + 1
            assert member.state_machine.log == []
            await member.take_snapshot()
        for expected in ("from 2", "own 3"):
            async with server(tmp_path, Shop4, address) as member:
                await member.bootstrap()
                assert member.state_machine.calls == COUNT + 1
                assert member.state_machine.log == [expected]
                async with member.client() as client:  # or there is nothing new to take
                    await client.submit(Shop4.all())
                await member.take_snapshot()
        async with server(tmp_path, Shop3, address) as member:
            with pytest.raises(MachineMismatchError, match="version 3 cannot be installed in"):
                await member.bootstrap()

    run(scenario)


class Other(StateMachine):
    @query
    def nothing(self) -> None: ...
