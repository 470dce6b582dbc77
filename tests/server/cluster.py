"""A cluster of real servers in one process, on loopback ports of their own."""

from __future__ import annotations

import asyncio
import secrets
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from copycat import CopycatServer, ServerState, StateMachine, Storage, command, query

LIMIT_S = 30.0
"""No test takes longer: what hangs fails."""

PORTS = range(20_000, 30_000)

TIMERS = {"election_timeout": 0.3, "heartbeat_interval": 0.06, "session_timeout": 3.0}


class Book(StateMachine):
    """Counts what it applied, so that a command applied twice shows."""

    def __init__(self) -> None:
        self.entries: list[int] = []

    @command
    def add(self, number: int) -> int:
        self.entries.append(number)
        return len(self.entries)

    @command
    def fail(self, text: str) -> int:
        raise ValueError(text)

    @query
    def count(self) -> int:
        return len(self.entries)

    @query
    def all(self) -> list[int]:
        return list(self.entries)


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a test's coroutine, bounded in time; nothing may be left pending."""

    async def bounded() -> None:
        async with asyncio.timeout(LIMIT_S):
            await test()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        assert not others, f"left behind: {others}"

    asyncio.run(bounded())


def free_address() -> str:
    """A loopback address that was free a moment ago. Its port is below those that the kernel gives
    to whoever dials: another process of the tests cannot get it while its server is down."""
    while True:
        port = secrets.choice(PORTS)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return f"127.0.0.1:{port}"


def server(
    directory: Path, address: str, machine: type[Any] = Book, **options: Any
) -> CopycatServer[Any]:
    """One member that was not started, with quick timers."""
    settings: dict[str, Any] = {**TIMERS, "storage": directory, **options}
    return CopycatServer(address, machine, cluster_name="test", **settings)


class Trio:
    """Three members, each with a directory of its own; stopped ones can be started again.

    machine: their state machine. settings: of their `Storage`.
    """

    def __init__(
        self, path: Path, stack: AsyncExitStack, machine: Any = Book, **settings: Any
    ) -> None:
        self._path = path
        self._machine = machine
        self.settings = settings
        self._stack = stack
        self.addresses = [free_address() for _ in range(3)]
        self.servers: dict[str, CopycatServer[Any]] = {}

    async def start(self, *addresses: str) -> None:
        """Start these members, or all. When it fails or is given up, all of them are done."""
        started = []
        for address in addresses or self.addresses:
            member = self.member(address)
            self.servers[address] = await self._stack.enter_async_context(member)
            started.append(member)
        tasks = [asyncio.create_task(member.bootstrap(*self.addresses)) for member in started]
        try:
            await asyncio.gather(*tasks)
        finally:  # `gather` is over with the first that fails
            for task in tasks:
                if not task.cancelling():  # a second time would cut short how it closes
                    task.cancel()
            await asyncio.wait(tasks)

    def member(self, address: str) -> CopycatServer[Book]:
        """One of them that was not started."""
        directory = self._path / address.rpartition(":")[2]
        storage = Storage(directory=str(directory), **self.settings)
        return server(directory, address, self._machine, storage=storage)

    @property
    def leader(self) -> CopycatServer[Any]:
        """The member that leads."""
        (leader,) = [s for s in self.servers.values() if s.state is ServerState.LEADER]
        return leader

    @property
    def followers(self) -> list[CopycatServer[Any]]:
        """The running others."""
        return [s for s in self.servers.values() if s.state is ServerState.FOLLOWER]

    async def all_applied(self) -> None:
        """Wait until one leads and every running member has applied all it committed."""
        await self.until(
            lambda: (
                sum(s.state is ServerState.LEADER for s in self.running) == 1
                and len({s.status().last_applied for s in self.running}) == 1
                and all(s.status().last_applied == s.status().last_index for s in self.running)
            )
        )

    @property
    def running(self) -> list[CopycatServer[Any]]:
        """Members that were not stopped."""
        return [s for s in self.servers.values() if s.is_running]

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait for a condition; every test is bounded by `run`."""
        while not holds():  # noqa: ASYNC110  (of several servers; there is no one event)
            await asyncio.sleep(0.01)


@asynccontextmanager
async def trio(path: Path, machine: type[Any] = Book) -> AsyncIterator[Trio]:
    """Three started members."""
    async with AsyncExitStack() as stack:
        cluster = Trio(path, stack, machine)
        await cluster.start()
        yield cluster
