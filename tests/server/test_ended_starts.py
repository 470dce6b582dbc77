"""Starts during which the member is shut down, fails, or has to start again without its log."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from copycat import CopycatServer, DiskError, IllegalMemberStateError, ServerState
from copycat.client.cluster_connection import ClusterConnection
from copycat.protocol.client import ClusterRequest, ClusterView
from copycat.server.node import Node
from tests.server.cluster import free_address, run, server
from tests.server.test_membership import Growing, growing

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("loop", ["application", "thread"])
def test_a_join_ends_when_its_server_is_shut_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loop: Any
) -> None:
    """Nobody runs at the address that it was given, so it would ask for ever."""

    async def scenario() -> None:
        asked = asyncio.Event()
        application, ask = asyncio.get_running_loop(), ClusterConnection.ask

        async def watched(self: ClusterConnection, message: ClusterRequest) -> ClusterView:
            application.call_soon_threadsafe(asked.set)
            return await ask(self, message)

        monkeypatch.setattr(ClusterConnection, "ask", watched)
        b = server(tmp_path / "b", free_address(), loop=loop)
        joining = asyncio.ensure_future(b.join(free_address()))
        await asked.wait()
        await b.shutdown()
        with pytest.raises(IllegalMemberStateError, match="was shut down while it started"):
            await joining
        assert b.state is ServerState.INACTIVE
        await b.bootstrap()  # nothing holds its directory
        await b.shutdown()

    run(scenario)


def test_a_join_ends_with_the_failure_of_its_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not with what the cluster says of a server that it cannot reach."""

    async def test(cluster: Growing) -> None:
        a, b = await cluster.bootstrap(), await cluster.new("b")
        cause, look = DiskError("EIO"), ClusterConnection.ask

        async def fails(self: ClusterConnection, message: ClusterRequest) -> ClusterView:
            if b._node is not None and b._node.replica is not None:
                b._node.host._worker_failed(cause)
                await asyncio.Event().wait()  # no answer comes
            return await look(self, message)

        monkeypatch.setattr(ClusterConnection, "ask", fails)
        with pytest.raises(DiskError) as caught:
            await b.join(str(a.address))
        assert caught.value is cause
        assert b.failure is cause

    growing(tmp_path, test)


async def removed_while_away(cluster: Growing) -> CopycatServer[Any]:
    """A server whose directory says that it is passive, and that starts next."""
    a = await cluster.bootstrap()
    b = await cluster.join("b", type="passive")
    await b.shutdown()
    await a.cluster.members[str(b.address)].remove()
    return b


def test_a_start_goes_on_after_the_member_has_deleted_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told that it was removed before it hears who leads."""
    wait = Node.wait_for_leader

    async def wait_in_vain(node: Node) -> None:
        monkeypatch.undo()
        await node.wait_for_end()
        await wait(node)

    async def test(cluster: Growing) -> None:
        b = await removed_while_away(cluster)
        monkeypatch.setattr(Node, "wait_for_leader", wait_in_vain)
        await b.bootstrap()
        assert b.is_running
        assert b.state is ServerState.INACTIVE
        assert b.status().last_index == 0

    growing(tmp_path, test)


def test_a_start_that_is_cancelled_while_the_log_is_deleted_leaves_nothing_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait = Node.wait_for_leader

    async def test(cluster: Growing) -> None:
        b = await removed_while_away(cluster)
        deleted = asyncio.Event()

        async def wait_for_cancellation(node: Node) -> None:
            if node is not b._node:
                await wait(node)
                return
            await node.wait_for_end()
            deleted.set()
            await asyncio.Event().wait()

        monkeypatch.setattr(Node, "wait_for_leader", wait_for_cancellation)
        starting = asyncio.ensure_future(b.bootstrap())
        await deleted.wait()
        starting.cancel()
        await asyncio.wait({starting})
        assert starting.cancelled()
        assert not b.is_running
        monkeypatch.undo()
        await b.bootstrap()
        assert b.state is ServerState.INACTIVE

    growing(tmp_path, test)
