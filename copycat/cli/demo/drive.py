"""The load of the demo: submits each line as a command, many at a time, and measures latencies."""

from __future__ import annotations

import asyncio
import time
from array import array
from bisect import bisect_left
from collections.abc import Callable

from copycat import CopycatClient
from copycat.cli.demo.lines import LineLog
from copycat.cli.demo.proof import ProofError

__all__ = ["Drive"]

_SUBMITTED_A_TURN = 256


class Drive:
    """Submits `lines` with `client`, of which at most `window` wait for answers at a time.

    The answer to line n must be n, since the machine counts the lines. Another answer means that a
    command was lost, repeated or reordered. on_count: called with how many are answered.
    """

    def __init__(
        self,
        client: CopycatClient,
        lines: list[bytes],
        window: int,
        *,
        on_count: Callable[[int], None],
    ) -> None:
        self.acknowledged = 0
        self.submitted_at = array("d", bytes(8 * len(lines)))
        self.acknowledged_at = array("d", bytes(8 * len(lines)))
        self._client = client
        self._lines = lines
        self._window = window
        self._on_count = on_count
        self._limit = max(1, len(lines) * 3 // 4)
        self._submitted = 0
        self._room = asyncio.Event()
        self._failure: BaseException | None = None

    async def run(self) -> None:
        """Submit all lines, and wait for all answers; raises the first error."""
        lines, submit = self._lines, self._client.submit
        total = len(lines)
        while self.acknowledged < total:
            if self._failure is not None:
                raise self._failure
            until = min(
                self._limit,
                self._submitted + _SUBMITTED_A_TURN,
                self.acknowledged + self._window,
            )
            for number in range(self._submitted, until):
                self.submitted_at[number] = time.monotonic()
                answer = asyncio.ensure_future(submit(LineLog.append(lines[number])))
                answer.add_done_callback(self._answered(number))
            self._submitted = until
            self._on_count(self.acknowledged)
            if until == self._limit or until - self.acknowledged >= self._window:
                self._room.clear()
                await self._room.wait()
            else:
                await asyncio.sleep(0)
        self._on_count(self.acknowledged)

    def release(self) -> None:
        """The leader was killed: submit the last quarter of the lines too.

        These lines wait for the kill, so that there are lines to send after it.
        """
        self._limit = len(self._lines)
        self._room.set()

    def fail(self, cause: BaseException) -> None:
        """Have `run` raise `cause`."""
        self._failure = self._failure or cause
        self._room.set()

    def _answered(self, number: int) -> Callable[[asyncio.Future[int]], None]:
        def done(answer: asyncio.Future[int]) -> None:
            if answer.cancelled():
                self.fail(asyncio.CancelledError(f"line {number + 1}"))
            elif (cause := answer.exception()) is not None:
                self.fail(cause)
            elif (actual := answer.result()) != number + 1:
                self.fail(
                    ProofError(
                        "a line was applied out of turn",
                        member="the client",
                        index=number + 1,
                        expected=number + 1,
                        actual=actual,
                    )
                )
            else:
                self.acknowledged_at[number] = time.monotonic()
                self.acknowledged += 1
                unanswered = self._submitted - self.acknowledged
                if unanswered == 0 or unanswered <= self._window // 2:
                    self._room.set()

        return done

    def latencies(self) -> list[float]:
        """Seconds from submit to answer of each line, sorted."""
        return sorted(
            end - begin for begin, end in zip(self.submitted_at, self.acknowledged_at, strict=True)
        )

    def first_acknowledged_after(self, moment: float) -> float | None:
        """When the first answer at or after `moment` came; None if there was none."""
        # Answers come in the order of the lines, so only this prefix has times, and is sorted.
        answered = self.acknowledged
        position = bisect_left(self.acknowledged_at, moment, 0, answered)
        return self.acknowledged_at[position] if position < answered else None
