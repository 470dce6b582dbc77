"""One member as a process, for bench_cluster. Says "ready", then takes orders on stdin.

`load MODE WINDOW SECONDS` runs the load inside this process and prints its summary as JSON;
`state` prints the member's role; end of input stops the member.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable
from typing import Any

from bench.load import run_batches, run_window
from copycat import CopycatClient, CopycatServer, StateMachine, command

PAYLOAD = bytes(256)


class Sink(StateMachine):
    """Counts commands: the cheapest machine there is, so that the log is what is measured."""

    def __init__(self) -> None:
        self.count = 0

    @command
    def put(self, data: bytes) -> int:
        self.count += 1
        return self.count


async def main(directory: str, address: str, members: list[str]) -> None:
    server: Any = CopycatServer(address, Sink, storage=directory, cluster_name="bench")
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    async with server:
        await server.bootstrap(*members)
        print("ready", flush=True)
        while line := (await reader.readline()).decode().split():
            if line[0] == "state":
                print(str(server.state), flush=True)
                continue
            run = run_batches if line[1] == "batches" else run_window
            # To this member alone: `server.client()` would choose one of all members by chance.
            async with CopycatClient(address, cluster_name="bench") as client:
                operation = Sink.put(PAYLOAD)
                result = await run(client, operation, window=int(line[2]), seconds=float(line[3]))
            print(json.dumps(result), flush=True)


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """BENCH_LOOP=uvloop runs members and load on uvloop; asyncio's own loop otherwise."""
    if os.environ.get("BENCH_LOOP") != "uvloop":
        return None
    import uvloop

    return uvloop.new_event_loop


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(main(sys.argv[1], sys.argv[2], sys.argv[3:]))
