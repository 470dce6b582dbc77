"""A machine that was changed, on the directory that the old one wrote: real servers and disks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from copycat import CopycatServer, MachineMismatchError, StateMachine, Storage, command, query
from tests.server.cluster import TIMERS, run

pytestmark = pytest.mark.slow

COUNT = 20


class Counter(StateMachine):
    def __init__(self) -> None:
        self.total = 0

    @command
    def add(self, by: int) -> int:
        self.total += by
        return self.total

    @query
    def now(self) -> int:
        return self.total


class Renamed(StateMachine):
    def __init__(self) -> None:
        self.total = 0

    @command
    def increase(self, by: int) -> int:
        self.total += by
        return self.total


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


def server(path: Path, machine: type[StateMachine], address: object = None) -> CopycatServer[Any]:
    settings: dict[str, Any] = {**TIMERS, "storage": Storage(directory=str(path))}
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


class Other(StateMachine):
    @query
    def nothing(self) -> None: ...
