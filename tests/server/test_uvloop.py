"""uvloop's transports are not asyncio's classes: a member, a link and a client work over them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import uvloop

from copycat import CopycatServer
from copycat.machine.kv import KeyValueStore


async def _two_members(path: Path) -> int:
    servers = [
        CopycatServer("127.0.0.1:0", KeyValueStore, storage=path / name) for name in ("a", "b")
    ]
    async with servers[0] as first, servers[1] as second:
        addresses = [str(first.address), str(second.address)]
        await asyncio.gather(first.bootstrap(*addresses), second.bootstrap(*addresses))
        async with second.client() as client:
            return await client.submit(KeyValueStore.append("k", b"v"))


@pytest.mark.slow
def test_two_members_and_a_client_run_on_uvloop(tmp_path: Path) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(_two_members(tmp_path)) == 1
