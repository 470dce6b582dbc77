"""What waits for the next turn: calls in order of arrival, and the answers of threads among them.

Everything that happens to a replica between two turns is put here, and nothing else is done with
it: a frame that arrived, a link that broke, an answer of a thread. `Replica.turn` takes it. So a
call never meets a replica in the middle of another one, and an exception in any of them ends in
`Replica.failed`, which stops the member.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar, TypeVarTuple

from copycat.replica.host import Host, Lane

__all__ = ["Inbox"]

T = TypeVar("T")
Arguments = TypeVarTuple("Arguments")


class Inbox:
    """The only way from outside of a turn, and from a thread, into a turn."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._calls: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()

    def put(self, call: Callable[[*Arguments], None], *arguments: *Arguments) -> None:
        """Call `call(*arguments)` in the next turn, after what is here already."""
        self._calls.append((call, arguments))
        self._host.wake()

    def run(self, lane: Lane, work: Callable[[], T], done: Callable[[T], None]) -> None:
        """Have `work` done by a thread of `lane`; then call `done(result)` in a turn."""

        def answered(result: T) -> None:
            self.put(done, result)

        self._host.run(lane, work, answered)

    def take(self) -> None:
        """Make the calls that are here now; those that they put here wait for the next turn."""
        for _ in range(len(self._calls)):
            call, arguments = self._calls.popleft()
            call(*arguments)
