"""A process that asks the member at one address for its whole state, and prints it as JSON.

It prints the id of its session first, and asks when its stdin is closed: a member that has not
applied the entry that opened the session would pass the question on to another member.
"""

from __future__ import annotations

import asyncio
import json
import sys

from copycat import ConsistencyLevel, CopycatClient
from copycat.client.options import Backoff
from tests.chaos.machine import ChaosMachine

__all__ = ["main"]


async def _run(address: str) -> None:
    patient = Backoff(give_up_after=60.0)
    async with CopycatClient(
        address, session_timeout=60.0, timeout=60.0, connection_strategy=patient
    ) as client:
        sys.stdout.write(f"{client.session.id}\n")
        sys.stdout.flush()
        await asyncio.to_thread(sys.stdin.read)
        state = await client.submit(ChaosMachine.whole(), consistency=ConsistencyLevel.SEQUENTIAL)
    sys.stdout.write(json.dumps(state) + "\n")


def main() -> None:
    asyncio.run(_run(sys.argv[1]))


if __name__ == "__main__":
    main()
