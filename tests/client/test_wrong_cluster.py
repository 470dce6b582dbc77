"""A server of another cluster is not used, even where its sessions have the same numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from copycat import Backoff, ConfigurationError, CopycatClient, CopycatError, CopycatServer
from copycat.machine.kv import KeyValueStore
from copycat.protocol.client import (
    CommandsRefused,
    Failure,
    KeepAlive,
    QueryRequest,
    Refusal,
    Register,
    Registered,
)
from copycat.protocol.operations import encode_operation
from copycat.types import ConsistencyLevel
from tests.replica.harness import commands, lone_leader, open_session
from tests.server.cluster import TIMERS, Book, free_address, run

ONCE = Backoff.once()


def member(directory: Path, name: str) -> CopycatServer[Book]:
    options: dict[str, Any] = dict(TIMERS)
    return CopycatServer(
        free_address(), Book, cluster_name=name, storage=directory / name, **options
    )


@pytest.mark.slow
def test_connect_says_of_which_cluster_the_server_is(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with member(tmp_path, "orders") as orders:
            await orders.bootstrap()
            address = str(orders.address)
            with pytest.raises(ConfigurationError) as caught:
                await CopycatClient(
                    address, cluster_name="stock", connection_strategy=ONCE
                ).connect()
            reason = 'this is a member of cluster "orders", not of "stock"'
            assert caught.value.state == f"{address}: {reason}"
            async with CopycatClient(address, cluster_name="orders") as client:
                assert await client.submit(Book.add(1)) == 1
            async with orders.client() as client:
                assert client._options.cluster_name == "orders"

    run(scenario)


@pytest.mark.slow
def test_a_session_never_goes_on_in_another_cluster(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with member(tmp_path, "orders") as orders, member(tmp_path, "stock") as stock:
            await orders.bootstrap()
            await stock.bootstrap()
            addresses = str(orders.address), str(stock.address)
            client = CopycatClient(addresses[0], session_timeout=10.0)
            await client.connect()
            other = await stock.client().connect()
            assert await client.submit(Book.add(1)) == 1
            driver = client._driver
            assert driver is not None
            driver._selector._given_addresses = addresses
            await orders.shutdown()
            with pytest.raises(CopycatError) as caught:
                await client.submit(Book.add(2), timeout=1.5)
            assert 'a member of cluster "stock", not of "orders"' in caught.value.render()
            with pytest.raises(CopycatError):
                await client.submit(Book.count(), consistency="sequential", timeout=0.5)
            assert await other.submit(Book.all()) == []
            await other.close()
            await client.close()

    run(scenario)


def test_nothing_that_comes_by_a_strangers_connection_is_taken() -> None:
    node = lone_leader()
    session = open_session(node)
    before = node.replica.status().last_index
    query = encode_operation(KeyValueStore.size())
    node.client(KeepAlive(1, session, 0, "another"), 9)
    node.replica.receive_client(9, commands(session, 1, KeyValueStore.append("k", b"a")))
    node.client(QueryRequest(2, session, 0, 0, ConsistencyLevel.SEQUENTIAL, query), 9)
    node.stabilize()
    answers = [message for connection, message in node.host.replies if connection == 9]
    assert [type(answer) for answer in answers] == [Failure, CommandsRefused, Failure]
    for answer in answers:
        assert isinstance(answer, Failure | CommandsRefused)
        assert answer.code == Refusal.WRONG_CLUSTER
        assert 'of cluster "test"' in answer.reason
    assert node.replica.status().last_index == before
    node.client(Register(3, "me", 0, "test"), 10)
    node.stabilize()
    registered = node.last_reply()
    assert isinstance(registered, Registered)
    assert registered.cluster == "test"
    node.client(KeepAlive(4, registered.session, 0, "test"), 10)
    node.stabilize()
    assert not isinstance(node.last_reply(), Failure)
