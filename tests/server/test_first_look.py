"""Code that cannot read its directory stops at the start, and leaves every byte as it was."""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from copycat import (
    ConfigurationError,
    CopycatServer,
    MachineMismatchError,
    StateMachine,
    Storage,
    command,
)
from copycat.machine import SnapshotReader, SnapshotWriter
from copycat.member.skips import write_skips
from copycat.storage import Env
from copycat.types import SkippedEntry
from tests.machine.test_mismatch import Counter, Renamed
from tests.server.cluster import TIMERS, free_address, run
from tests.server.test_evolution import COUNT

pytestmark = pytest.mark.slow


class Retyped(StateMachine):
    def __init__(self) -> None:
        self.total = 0

    @command
    def add(self, by: str) -> int:
        self.total += len(by)
        return self.total


class Longer(StateMachine):
    def __init__(self) -> None:
        self.total = 0

    @command
    def add(self, by: int, times: int) -> int:
        self.total += by * times
        return self.total


class Shorter(StateMachine):
    def __init__(self) -> None:
        self.total = 0

    @command
    def add(self) -> int:
        self.total += 1
        return self.total


class Older(Counter):
    """What took the snapshot has a higher version."""

    version = 0


class Refusing(Counter):
    """Its install() cannot read what the default encoder wrote."""

    def snapshot(self, writer: SnapshotWriter) -> None:
        writer.write_object(self.total)

    def install(self, reader: SnapshotReader) -> None:
        raise ValueError("no")


class Faulty(Counter):
    """It cannot be loaded at all."""

    @command(name="add")
    def again(self, by: int) -> int:
        return by


CHANGED = (Renamed, Retyped, Longer, Shorter)


def image(path: Path) -> dict[str, bytes | None]:
    """Every file of a directory by name, with its bytes; None for a directory."""
    return {
        str(one.relative_to(path)): one.read_bytes() if one.is_file() else None
        for one in sorted(path.rglob("*"))
    }


def differing(before: dict[str, bytes | None], after: dict[str, bytes | None]) -> list[str]:
    return sorted(name for name in before | after if before.get(name) != after.get(name))


def server(
    path: Path, machine: type[StateMachine], address: str, **options: Any
) -> CopycatServer[Any]:
    settings: dict[str, Any] = {**TIMERS, "storage": Storage(directory=str(path)), **options}
    return CopycatServer(address, machine, cluster_name="test", **settings)


async def refused(
    path: Path, machine: type[StateMachine], address: str, *members: str
) -> MachineMismatchError:
    """Start it, and have the error; nothing of the directory may differ afterwards."""
    before = image(path)
    async with server(path, machine, address) as member:
        with pytest.raises(MachineMismatchError) as caught:
            await member.bootstrap(*members)
        assert not member.is_running
        assert member.failure is caught.value
        assert differing(before, image(path)) == []
    assert differing(before, image(path)) == []
    return caught.value


async def fill(path: Path, address: str, *, snapshot: bool = False, after: int = COUNT) -> None:
    async with server(path, Counter, address) as member:
        await member.bootstrap()
        async with member.client() as client:
            for _ in range(COUNT):
                await client.submit(Counter.add(1))
            if snapshot:
                await member.take_snapshot()
            for _ in range(after):
                await client.submit(Counter.add(1))


async def total(path: Path, address: str) -> int:
    async with server(path, Counter, address) as member:
        await member.bootstrap()
        async with member.client() as client:
            return await client.submit(Counter.now())


@pytest.mark.parametrize("snapshot", [False, True])
def test_a_member_alone_that_cannot_read_its_log_changes_no_byte(
    tmp_path: Path, snapshot: bool
) -> None:
    async def scenario() -> None:
        address = free_address()
        await fill(tmp_path, address, snapshot=snapshot)
        for _ in range(2):
            for machine in CHANGED:
                error = await refused(tmp_path, machine, address)
                assert error.operation == f"{machine.__name__}.add"
                assert error.index > (COUNT if snapshot else 0)
                assert f"entry {error.index}: " in error.message
                hint = "@command(name=" if machine is Renamed else "append new parameters"
                assert hint in (error.hint or "")
        assert await total(tmp_path, address) == 2 * COUNT

    run(scenario)


def test_entries_that_the_snapshot_covers_are_not_read(tmp_path: Path) -> None:
    async def scenario() -> None:
        address = free_address()
        await fill(tmp_path, address, snapshot=True, after=0)
        async with server(tmp_path, Renamed, address) as member:
            await member.bootstrap()
            assert member.state_machine.total == COUNT

    run(scenario)


@pytest.mark.parametrize("machine", [Older, Refusing])
def test_a_snapshot_that_the_machine_cannot_read_is_found_before_a_byte_changes(
    tmp_path: Path, machine: type[StateMachine]
) -> None:
    async def scenario() -> None:
        address = free_address()
        await fill(tmp_path, address, snapshot=True)
        # What a crash left is not removed either.
        (tmp_path / "snapshots" / "7-1.new").write_bytes(b"half")
        for _ in range(2):
            error = await refused(tmp_path, machine, address)
            assert error.class_name == machine.__name__
        assert await total(tmp_path, address) == 2 * COUNT
        assert not (tmp_path / "snapshots" / "7-1.new").exists()

    run(scenario)


def test_a_log_that_was_not_closed_is_read_and_left_as_it_is(tmp_path: Path) -> None:
    async def scenario() -> None:
        address = free_address()
        await fill(tmp_path, address)
        tail = max((tmp_path / "log").glob("*.log"))
        closed = tail.read_bytes()
        async with server(tmp_path, Counter, address) as member:
            await member.bootstrap()
            running = image(tmp_path)  # as a crash leaves it
        for name, data in running.items():
            if data is not None:
                (tmp_path / name).write_bytes(data)
        for name in image(tmp_path).keys() - running.keys():
            (tmp_path / name).unlink()
        assert closed != max((tmp_path / "log").glob("*.log")).read_bytes()
        error = await refused(tmp_path, Renamed, address)
        assert error.operation == "Renamed.add"
        assert await total(tmp_path, address) == 2 * COUNT

    run(scenario)


def test_what_the_operator_had_skipped_is_not_read(tmp_path: Path) -> None:
    async def scenario() -> None:
        address = free_address()
        async with server(tmp_path, Counter, address) as member:
            await member.bootstrap()
            async with member.client() as client:
                await client.submit(Counter.add(1))
            term = member.status().term
        index = (await refused(tmp_path, Renamed, address)).index
        write_skips(Env(), str(tmp_path), "test", (SkippedEntry(index, term, 0),))
        async with server(tmp_path, Renamed, address) as member:
            await member.bootstrap()
            assert member.failure is None
            assert member.state_machine.total == 0

    run(scenario)


def test_of_three_the_one_with_the_wrong_code_changes_no_byte(tmp_path: Path) -> None:
    async def scenario() -> None:
        addresses = [free_address() for _ in range(3)]

        async def start(number: int, machine: type[StateMachine]) -> CopycatServer[Any]:
            member = server(tmp_path / str(number), machine, addresses[number])
            await stack.enter_async_context(member)
            await member.bootstrap(*addresses)
            return member

        async with AsyncExitStack() as stack:
            members = await asyncio.gather(*(start(number, Counter) for number in range(3)))
            async with members[0].client() as client:
                for _ in range(COUNT):
                    await client.submit(Counter.add(1))
        for number, machine in enumerate((Renamed, Retyped, Longer)):  # all others are down
            error = await refused(tmp_path / str(number), machine, addresses[number], *addresses)
            assert error.operation == f"{machine.__name__}.add"
        async with AsyncExitStack() as stack:
            members = await asyncio.gather(*(start(number, Counter) for number in range(2)))
            # A leader waits for its vote and sends entries: nothing of that is taken.
            error = await refused(tmp_path / "2", Renamed, addresses[2], *addresses)
            assert error.operation == "Renamed.add"
            third = await start(2, Counter)
            async with third.client() as client:
                assert await client.submit(Counter.add(1)) == COUNT + 1
        assert all(member.failure is None for member in [*members, third])

    run(scenario)


def damage(path: Path, where: Callable[[bytes], int]) -> None:
    tail = max((path / "log").glob("*.log"))
    data = bytearray(tail.read_bytes())
    data[where(bytes(data))] ^= 1
    tail.write_bytes(data)


def last_command(data: bytes) -> int:
    return data.rindex(b"add")


def middle_command(data: bytes) -> int:
    return [match.start() for match in re.finditer(b"add", data)][COUNT // 2]


@pytest.mark.parametrize("is_closed", [True, False])
def test_a_damaged_log_is_read_before_the_member_votes(tmp_path: Path, is_closed: bool) -> None:
    """Up to the damage, or, where it keeps the log from being opened, after its repair."""

    async def scenario() -> None:
        addresses = [free_address() for _ in range(3)]
        third = tmp_path / "2"

        async def start(number: int) -> CopycatServer[Any]:
            member = server(tmp_path / str(number), Counter, addresses[number])
            await stack.enter_async_context(member)
            await member.bootstrap(*addresses)
            return member

        async with AsyncExitStack() as stack:
            members = await asyncio.gather(*(start(number) for number in range(3)))
            async with members[0].client() as client:
                for _ in range(COUNT):
                    await client.submit(Counter.add(1))
            while members[2].state_machine.total < COUNT:  # noqa: ASYNC110  (there is no event)
                await asyncio.sleep(0.01)
            crashed = tmp_path / "crashed"
            shutil.copytree(third, crashed)
        if is_closed:
            damage(third, last_command)
            await refused(third, Renamed, addresses[2], *addresses)
        else:
            shutil.rmtree(third)
            crashed.rename(third)
            damage(third, middle_command)
            before = image(third)
            async with server(third, Renamed, addresses[2]) as member:
                with pytest.raises(MachineMismatchError, match="'add' is no command of Renamed"):
                    await member.bootstrap(*addresses)
            assert (third / "log-damaged-1").is_dir()
            for name in ("hard-state-a", "hard-state-b"):
                assert before[name] == (third / name).read_bytes()
        await refused(third, Renamed, addresses[2], *addresses)
        if is_closed:
            return  # the right code meets the damage, and its next start repairs it
        async with AsyncExitStack() as stack:
            members = await asyncio.gather(*(start(number) for number in range(3)))
            async with members[2].client() as client:
                assert await client.submit(Counter.add(1)) == COUNT + 1
            assert members[2].failure is None

    run(scenario)


def test_a_machine_that_cannot_be_loaded_changes_no_byte(tmp_path: Path) -> None:
    async def scenario() -> None:
        address, old = free_address(), tmp_path / "old"
        await fill(old, address)
        before = image(old)
        for path in (old, tmp_path / "new"):
            async with server(path, Faulty, address) as member:
                with pytest.raises(ConfigurationError, match="two operations named 'add'"):
                    await member.bootstrap()
        assert differing(before, image(old)) == []
        assert list(image(tmp_path / "new")) == ["lock"]
        assert await total(old, address) == 2 * COUNT

    run(scenario)
