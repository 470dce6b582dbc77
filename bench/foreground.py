"""Clients that go on while members come, go and die: what they get done, and when."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from bench.load import summary
from bench.member import CLUSTER, PAYLOAD, Sink
from copycat import CopycatClient
from copycat.errors import CopycatError

__all__ = ["Foreground"]


class Foreground:
    """A closed loop of durable commands of 256 B, `window` in flight, until the block ends.

    One client in this process, which prefers the leader; it looks for the next leader by itself.
    Moments are those of `time.monotonic`.
    """

    def __init__(self, addresses: Sequence[str], window: int) -> None:
        self._client = CopycatClient(*addresses, cluster_name=CLUSTER, server_selection="leader")
        self._window = window
        self._answers: list[tuple[float, float]] = []
        """(submitted, answered) of each command."""
        self._answered = asyncio.Event()
        self._callers: list[asyncio.Task[None]] = []
        self._is_over = False
        self.failures: list[str] = []
        """Commands that raised an error."""

    async def __aenter__(self) -> Self:
        await self._client.connect()
        self._callers = [asyncio.create_task(self._call()) for _ in range(self._window)]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        _: TracebackType | None,
    ) -> None:
        self._is_over = True
        await asyncio.wait(self._callers, timeout=10)
        await self._client.close()

    async def _call(self) -> None:
        operation: Any = Sink.put(PAYLOAD)
        clock = time.monotonic
        while not self._is_over:
            submitted = clock()
            try:
                await self._client.submit(operation)
            except CopycatError as error:
                self.failures.append(str(error))
                await asyncio.sleep(0.01)
                continue
            self._answers.append((submitted, clock()))
            self._answered.set()

    async def answer_after(self, moment: float, *, within: float = 60.0) -> float:
        """When the first command was answered that was submitted after `moment`."""
        seen = max(0, len(self._answers) - 2 * self._window)
        async with asyncio.timeout(within):
            while True:
                for submitted, answered in self._answers[seen:]:
                    if submitted > moment:
                        return answered
                self._answered.clear()
                await self._answered.wait()

    def between(self, begin: float, end: float) -> dict[str, float]:
        """Commands, commands/s, p50 and p99 of what was answered between two moments."""
        latencies = [after - before for before, after in self._answers if begin <= after < end]
        return summary(latencies or [end - begin], end - begin)

    def longest_pause(self, begin: float, end: float) -> float:
        """Seconds of the longest time between two moments in which nothing was answered."""
        moments = [begin, *(after for _, after in self._answers if begin <= after < end), end]
        return max(b - a for a, b in itertools.pairwise(moments))
