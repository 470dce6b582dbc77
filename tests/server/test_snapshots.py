"""CopycatServer.take_snapshot: a file on a real disk, and a restart from it."""

from __future__ import annotations

from pathlib import Path

import pytest

from copycat import CopycatServer, IllegalMemberStateError
from copycat.machine.kv import KeyValueStore
from tests.server.cluster import run

pytestmark = pytest.mark.slow


def test_taken_on_demand_and_loaded_at_the_next_start(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with CopycatServer("127.0.0.1:0", KeyValueStore, storage=str(tmp_path)) as member:
            with pytest.raises(IllegalMemberStateError, match="does not run"):
                await member.take_snapshot()
            await member.bootstrap()
            address = member.address
            async with member.client() as client:
                for number in range(20):
                    await client.submit(KeyValueStore.append("k", b"%d" % number))
            snapshot = await member.take_snapshot()
            status = member.status()
            assert snapshot.index == status.snapshot_index >= 20
            assert abs(snapshot.time.timestamp() - 1e9) > 1e8
            names = [path.name for path in (tmp_path / "snapshots").iterdir()]
            assert names == [f"{snapshot.index}-{status.term}.snap"]
        async with CopycatServer(address, KeyValueStore, storage=str(tmp_path)) as member:
            await member.bootstrap()
            assert member.status().snapshot_index == snapshot.index
            async with member.client() as client:
                assert len(await client.submit(KeyValueStore.items("k"))) == 20

    run(scenario)
