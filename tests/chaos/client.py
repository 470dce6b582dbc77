"""A process with a few clients: asks, and writes down what it asked, when, and what it heard.

It ends when it has asked for as many operations as it was told to and its stdin is closed;
until then it spreads them over the time that it was given. Every invocation is written before it
is made, so that a history without its end still says all that may have happened.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TextIO

import msgspec

from copycat import CopycatClient
from copycat.cli.serve import _end_with_parent
from copycat.client.options import Backoff
from copycat.errors import CopycatError
from copycat.protocol.operations import Operation
from copycat.seeded_random import SimRandom
from tests.chaos.machine import NOTE_KEYS, ChaosMachine

__all__ = ["ClientPlan", "main", "make"]

_EPOCH = 400
"""After so many tokens of a worker, all workers go on with other keys: the history of one key
stays short enough to be searched."""
_KEYS = 12
_NOTES = 40
_SESSION_TIMEOUT_S = 15.0
_OPERATION_TIMEOUT_S = 12.0


_MAKERS: dict[str, Callable[..., Operation[Any]]] = {
    "put": ChaosMachine.put,
    "note": ChaosMachine.note,
    "cas": ChaosMachine.cas,
    "append": ChaosMachine.append,
    "get": ChaosMachine.get,
    "items": ChaosMachine.items,
}


_Drawn = tuple[str, int, tuple[int | None, ...]]
"""Kind, key and arguments."""


class ClientPlan(msgspec.Struct, frozen=True):
    """What one process is to do.

    number: of this process, of `processes`. workers: clients in each. operations: how many all
    workers of this process ask for at least, in about `seconds`. parent: the id of the process
    without which this one is killed.
    """

    number: int
    processes: int
    workers: int
    operations: int
    seconds: float
    seed: int
    addresses: tuple[str, ...]
    output: str
    parent: int


def make(kind: str, key: int, arguments: tuple[int | None, ...]) -> Operation[Any]:
    """The operation of the machine that a line of the history stands for."""
    if kind == "put" and key >= NOTE_KEYS:
        kind = "note"
    return _MAKERS[kind](key, *arguments)


class _Worker:
    """One client with one session at a time.

    It asks one by one; when it is late, for several commands at once, and then for a query.
    """

    def __init__(self, plan: ClientPlan, number: int, file: TextIO, closed: asyncio.Event) -> None:
        self._plan = plan
        self._number = number
        self._all = plan.processes * plan.workers
        self._file = file
        self._closed = closed
        self._random = SimRandom((plan.seed << 16) + number)
        self._tokens = 0
        self._asked = 0
        self._queries = 0
        self._seen: dict[int, int | None] = {}
        self._session: object = None
        self._sessions = 0
        self._in_session = 0

    async def run(self) -> None:
        """Ask until there was enough; raises what no fault of the cluster explains."""
        client = CopycatClient(
            *self._plan.addresses,
            session_timeout=_SESSION_TIMEOUT_S,
            timeout=_OPERATION_TIMEOUT_S,
            connection_strategy=Backoff(give_up_after=600.0),
        )
        quota = -(-self._plan.operations // self._plan.workers)
        began = time.monotonic()
        async with client:
            while self._asked < quota or not self._closed.is_set():
                due = began + self._plan.seconds * self._asked / quota
                is_late = due < time.monotonic() and self._asked < quota
                if is_late:
                    drawn = [self._command() for _ in range(self._random.between(2, 12))]
                    await self._ask(client, drawn)
                    drawn = [self._query()]
                else:
                    drawn = [self._query() if self._random.chance(250_000) else self._command()]
                await self._ask(client, drawn)
                await self._until(due)

    async def _until(self, due: float) -> None:
        """Wait until `due`, or until there is no time to lose any more."""
        late = due - time.monotonic()
        if late > 0 and not self._closed.is_set():
            try:
                await asyncio.wait_for(self._closed.wait(), late)
            except TimeoutError:
                return

    async def _ask(self, client: CopycatClient, drawn: Sequence[_Drawn]) -> None:
        for asked, future in [self._submit(client, *one) for one in drawn]:
            await self._hear(asked, future)

    def _command(self) -> _Drawn:
        random = self._random
        self._tokens += 1
        token = self._tokens * self._all + self._number
        key, draw = self._key(), random.below(100)
        if draw < 40:
            return "append", key, (token,)
        if draw < 62:
            return "put", key, (token,)
        if draw < 80:
            return "cas", key, (self._seen.get(key), token)
        return "put", self._note(), (token,)

    def _query(self) -> _Drawn:
        """Only one at a time: queries that wait together have no order."""
        draw = self._random.below(100)
        if draw < 50:
            return "get", self._key(), ()
        return ("get", self._note(), ()) if draw < 75 else ("items", self._key(), ())

    def _key(self) -> int:
        return self._tokens // _EPOCH * _KEYS + self._random.below(_KEYS)

    def _note(self) -> int:
        return NOTE_KEYS + self._tokens // _EPOCH * _NOTES + self._random.below(_NOTES)

    def _submit(
        self, client: CopycatClient, kind: str, key: int, arguments: tuple[int | None, ...]
    ) -> tuple[tuple[int, str, int], Any]:
        """Write down, and ask. The chain of commands is the session object of this moment: a
        client goes on with another one when the cluster has ended the session."""
        if client.session._session is not self._session:
            self._session = client.session._session
            self._sessions += 1
        self._asked += 1
        number, is_query = self._asked, kind in {"get", "items"}
        chain = f"q{self._number}" if is_query else f"c{self._number}.{self._sessions}"
        self._write("ask", number, chain, kind, key, arguments, time.monotonic_ns() // 1000)
        try:
            return (number, kind, key), client.submit(make(kind, key, arguments))
        except CopycatError as error:
            return (number, kind, key), error

    async def _hear(self, asked: tuple[int, str, int], future: Any) -> None:
        number, kind, key = asked
        try:
            if isinstance(future, CopycatError):
                raise future
            result = await future
        except CopycatError as error:
            is_unknown = bool(getattr(error, "outcome_unknown", False))
            word = "unknown" if is_unknown else "unsent"
            self._write(word, number, time.monotonic_ns() // 1000, error.code)
            self._seen.pop(key, None)
            if isinstance(future, CopycatError):
                await asyncio.sleep(0.05)  # there is no session at this moment
            return
        self._write("ok", number, time.monotonic_ns() // 1000, result)
        if kind == "get":
            self._seen[key] = result

    def _write(self, *fields: Any) -> None:
        self._file.write(json.dumps([fields[0], self._number, *fields[1:]]) + "\n")


async def _run(plan: ClientPlan, file: TextIO) -> None:
    closed = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(sys.stdin.fileno(), _on_input, closed, loop)
    async with asyncio.TaskGroup() as group:
        for place in range(plan.workers):
            number = plan.number * plan.workers + place
            group.create_task(_Worker(plan, number, file, closed).run())


def _on_input(closed: asyncio.Event, loop: asyncio.AbstractEventLoop) -> None:
    if not os.read(sys.stdin.fileno(), 64):
        loop.remove_reader(sys.stdin.fileno())
        closed.set()


def main() -> None:
    """The plan is the only argument, as JSON."""
    plan = msgspec.json.decode(sys.argv[1], type=ClientPlan)
    if not _end_with_parent(plan.parent):
        sys.exit(1)
    with Path(plan.output).open("w", encoding="ascii", buffering=1 << 16) as file:
        asyncio.run(_run(plan, file))


if __name__ == "__main__":
    main()
