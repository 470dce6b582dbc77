"""One member as a process, for the benchmarks. Says "ready", then takes orders on stdin.

`python -m bench.member [--wait] [--keep-log] [--store] DIRECTORY ADDRESS [FOUNDERS...]`. With
`--wait` it is ready before it has opened its directory. Each order is answered by one line, and
each line but that of `state` is JSON; times are those of `time.monotonic`, which all processes of
one machine share. End of input stops the member.

`state`: its role. `load MODE WINDOW SECONDS`: the load of bench_cluster, in this process.
`fill COUNT`: so many commands of 256 B. `snapshot`: takes one. `status`: indexes. Of a member that
waits: `join TYPE ADDRESS INDEX` joins, `start INDEX` starts again, and both follow how it catches
up until it has applied the entry INDEX.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import sys
import time
from collections.abc import Callable, Coroutine
from typing import Any

from bench.load import run_batches, run_window
from bench.scale import scaled
from copycat import CopycatClient, CopycatServer, StateMachine, Storage, command
from copycat.types import ServerState

PAYLOAD = bytes(256)
CLUSTER = "bench"
LOOK_S = 0.005
"""So often a member that catches up looks how far it is."""
BATCH = 4096
_POOL = 1024
"""Random payloads of a fill: 256 KiB, more than LZ4 looks back, so that nothing is compressed."""


class Sink(StateMachine):
    """Counts commands: the cheapest machine there is, so that the log is what is measured."""

    def __init__(self) -> None:
        self.count = 0

    @command
    def put(self, data: bytes) -> int:
        self.count += 1
        return self.count


class Store(StateMachine):
    """Keeps every command, so that its snapshot is as large as the log."""

    def __init__(self) -> None:
        self.rows: list[bytes] = []

    @command
    def put(self, data: bytes) -> int:
        self.rows.append(data)
        return len(self.rows)


async def main(options: argparse.Namespace) -> None:
    storage = Storage(
        directory=options.directory,
        max_segment_size=scaled(32 << 20, 1 << 18),
        snapshot_threshold=0 if options.keep_log else 64 << 20,
        minor_compaction_interval=86400.0 if options.keep_log else 60.0,
    )
    machine = Store if options.store else Sink
    server: Any = CopycatServer(options.address, machine, storage=storage, cluster_name=CLUSTER)
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    async with server:
        if not options.wait:
            await server.bootstrap(*options.founders)
        print("ready", flush=True)
        while words := (await reader.readline()).decode().split():
            print(await ORDERS[words[0]](server, *words[1:]), flush=True)


async def _state(server: Any) -> str:
    return str(server.state)


async def _load(server: Any, mode: str, window: str, seconds: str) -> str:
    run = run_batches if mode == "batches" else run_window
    # To this member alone: `server.client()` would choose one of all members by chance.
    async with CopycatClient(server.address, cluster_name=CLUSTER) as client:
        operation = Sink.put(PAYLOAD)
        result = await run(client, operation, window=int(window), seconds=float(seconds))
    return json.dumps(result)


async def _fill(server: Any, count: str) -> str:
    numbers = random.Random(1)
    pool = [Sink.put(numbers.randbytes(256)) for _ in range(_POOL)]
    batch = pool * (BATCH // _POOL)
    left, batches = int(count), []
    while left:
        batches.append(batch[: min(left, BATCH)])
        left -= len(batches[-1])
    async with CopycatClient(server.address, cluster_name=CLUSTER, timeout=600.0) as client:

        async def caller() -> None:
            while batches:
                await client.submit_many(batches.pop())

        await asyncio.gather(caller(), caller())
    return _facts(server)


async def _snapshot(server: Any) -> str:
    began = time.monotonic()
    await server.take_snapshot()
    return json.dumps({"seconds": time.monotonic() - began})


async def _status(server: Any) -> str:
    return _facts(server)


def _facts(server: Any) -> str:
    status = server.status()
    return json.dumps(
        {
            "state": str(status.state),
            "first_index": status.first_index,
            "last_index": status.last_index,
            "last_applied": status.last_applied,
            "snapshot_index": status.snapshot_index,
        }
    )


async def _join(server: Any, type_: str, address: str, index: str) -> str:
    return await _follow(server, server.join(address, type=type_), int(index))


async def _start(server: Any, index: str) -> str:
    return await _follow(server, server.bootstrap(), int(index))


async def _follow(server: Any, start: Coroutine[Any, Any, object], target: int) -> str:
    """When it began to start, had started (or was added), had its first new entry, had all of
    them on its disk, and had applied them."""
    times = {"asked": time.monotonic()}

    async def starts() -> None:
        await start
        times["started"] = time.monotonic()

    starting = asyncio.ensure_future(starts())
    before: int | None = None
    while not {"stored", "applied"} <= times.keys():
        await asyncio.sleep(LOOK_S)
        if starting.done() and starting.exception() is not None:
            break
        status, now = server.status(), time.monotonic()
        if before is None and status.state is not ServerState.INACTIVE:
            before = status.last_index
        if before is not None and status.last_index > before:
            times.setdefault("first", now)
        if status.durable_index >= target:
            times.setdefault("stored", now)
        if status.last_applied >= target:
            times.setdefault("applied", now)
    await starting
    return json.dumps(times | {"first_index": server.status().first_index})


ORDERS: dict[str, Callable[..., Any]] = {
    "state": _state,
    "load": _load,
    "fill": _fill,
    "snapshot": _snapshot,
    "status": _status,
    "join": _join,
    "start": _start,
}


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """BENCH_LOOP=uvloop runs members and load on uvloop; asyncio's own loop otherwise."""
    if os.environ.get("BENCH_LOOP") != "uvloop":
        return None
    import uvloop

    return uvloop.new_event_loop


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--wait", action="store_true")
    parser.add_argument("--keep-log", action="store_true")
    parser.add_argument("--store", action="store_true")
    parser.add_argument("directory")
    parser.add_argument("address")
    parser.add_argument("founders", nargs="*")
    return parser.parse_args()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(main(_options()))
