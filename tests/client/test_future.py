"""What submit returns works with all of asyncio, and its types are known: mypy checks this file.

Each `type: ignore` below is a mistake that the types find: mypy fails on one that is not needed.
"""

from __future__ import annotations

import asyncio
import inspect
import os
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Unpack, assert_type, get_type_hints

import pytest

from copycat import (
    ConfigurationError,
    CopycatClient,
    CopycatServer,
    Query,
    RecoveryStrategy,
    ServerSelection,
    StateMachine,
    blocking,
    connect,
    query,
)
from copycat.client.future import OperationFuture
from copycat.client.options import ClientSettings
from copycat.server.settings import ServerSettings
from tests.client.servers import opening, serving
from tests.client.test_bounded import deaf
from tests.server.cluster import Book, free_address, run, server


@pytest.mark.slow
def test_submit_works_with_everything_that_takes_awaitables(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with server(tmp_path / "one", free_address()) as member:
            await member.bootstrap()
            async with member.client() as client:
                task = asyncio.create_task(client.submit(Book.add(1)))
                assert_type(task, asyncio.Task[int])
                async with asyncio.TaskGroup() as group:
                    second = group.create_task(client.submit(Book.add(2)), name="two")
                    third = group.create_task(client.submit_many([Book.add(3), Book.add(4)]))
                assert [await task, second.result(), third.result()] == [1, 2, [3, 4]]
                fifth = await asyncio.wait_for(client.submit(Book.add(5)), 10)
                assert_type(fifth, int)
                both = await asyncio.gather(
                    client.submit(Book.add(6)), client.submit(Book.count())
                )
                assert (fifth, list(both)) == (5, [6, 6])
                assert await asyncio.shield(client.submit(Book.add(7))) == 7
                futures = [client.submit(Book.add(n)) for n in (8, 9)]
                assert [await one for one in asyncio.as_completed(futures)] == [8, 9]
                done, _ = await asyncio.wait([asyncio.create_task(f) for f in futures])
                assert len(done) == 2
                assert await asyncio.create_task(blocked(client)) == 10
                pending = client.submit(Book.count())
                assert [await pending, await pending] == [10, 10]
                assert repr(task).startswith("<Task")

    run(scenario)


async def blocked(client: CopycatClient) -> int:
    return await client.submit(Book.add(10))


@pytest.mark.slow
def test_the_order_is_that_of_the_calls_not_of_the_tasks(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with server(tmp_path / "one", free_address()) as member:
            await member.bootstrap()
            async with member.client() as client:
                late = client.submit(Book.add(1))
                early = asyncio.create_task(client.submit(Book.add(2)))
                assert await early == 2
                assert await asyncio.create_task(late) == 1
                assert await client.submit(Book.all()) == [1, 2]

    run(scenario)


@pytest.mark.slow
def test_cancelling_whatever_waits_gives_the_submission_up() -> None:
    async def scenario() -> None:
        async with serving(opening(deaf)) as address, CopycatClient(address) as client:
            inner = client.submit(Book.add(1))
            task = asyncio.create_task(inner)
            task.cancel()  # before its first step
            unstarted = client.submit(Book.add(2))
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(unstarted, 0.01)
            pending = client.submit(Book.add(3))
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(asyncio.shield(pending), 0.01)
            await asyncio.wait({task})
            assert (inner.cancelled(), unstarted.cancelled(), pending.cancelled()) == (
                True,
                True,
                False,
            )
            twice = client.submit(Book.add(4))
            first, second = asyncio.create_task(twice), asyncio.create_task(twice)
            await asyncio.sleep(0)
            await asyncio.wait({second})
            assert isinstance(second.exception(), ConfigurationError)
            assert not first.done()
            first.cancel()
            await asyncio.wait({first})
            assert pending.cancel()

    run(scenario)


def test_a_coroutine_in_every_sense_that_asyncio_asks_for() -> None:
    assert asyncio.iscoroutine(OperationFuture.__new__(OperationFuture))
    assert inspect.isawaitable(OperationFuture.__new__(OperationFuture))


# ---- types -----------------------------------------------------------------------------------


class Typed(StateMachine):
    @query(consistency="sequential")
    def read(self) -> int:
        return 1


async def checked_by_mypy(client: CopycatClient, plain: blocking.CopycatClient) -> None:
    """Never called: what is in here is for the type checker."""
    assert_type(await client.submit(Book.add(1)), int)
    assert_type(await client.submit(Book.all(), consistency="sequential"), list[int])
    assert_type(await client.submit(Typed.read(), consistency="linearizable"), int)
    assert_type(await client.submit_many([Book.add(1)], timeout=1), list[int])
    assert_type(plain.submit(Book.all(), consistency="sequential", timeout=2.0), list[int])
    assert_type(plain.submit_future(Book.add(1)), Future[int])
    await client.submit(Book.all(), consistency="sequental")  # type: ignore[arg-type]
    await client.submit(Book.add("x"))  # type: ignore[arg-type]
    await connect("a:1", timeout=3, recovery_strategy="recover", server_selection="leader")
    await connect("a:1", time_out=3)  # type: ignore[call-arg]
    blocking.connect("a:1", session_timeout="5")  # type: ignore[arg-type]
    blocking.CopycatClient("a:1", recovery_strategy="retry")  # type: ignore[arg-type]
    one: CopycatServer[Book] = CopycatServer("127.0.0.1:0", Book, loop="thread", insecure=True)
    one.client(timeout=2.0, insecure=True)
    one.client(tmeout=2.0)  # type: ignore[call-arg]
    CopycatServer("127.0.0.1:0", Book, election_timeout="1")  # type: ignore[arg-type]


def forwarded(**options: Unpack[ServerSettings]) -> CopycatServer[Book]:
    return CopycatServer("127.0.0.1:0", Book, **options)


def forwarded_client(**options: Unpack[ClientSettings]) -> CopycatClient:
    return CopycatClient("127.0.0.1:1", **options)


@pytest.mark.parametrize(
    ("settings", "function"),
    [(ClientSettings, CopycatClient.__init__), (ServerSettings, CopycatServer.__init__)],
)
def test_the_typed_options_are_those_of_the_constructor(settings: Any, function: Any) -> None:
    accepted = inspect.signature(function).parameters.values()
    names = {one.name for one in accepted if one.kind is inspect.Parameter.KEYWORD_ONLY}
    assert set(settings.__annotations__) == names
    hints = get_type_hints(function, localns={"os": os})
    assert {name: hints[name] for name in names} == get_type_hints(settings)


def test_names_stand_for_the_members_of_their_enums() -> None:
    client = forwarded_client(server_selection="leader", recovery_strategy="close")
    assert client._options.selection is ServerSelection.LEADER
    assert client._options.recovery is RecoveryStrategy.CLOSE
    read = Typed.read()
    assert isinstance(read, Query)
    assert read.consistency() == "sequential"
    assert forwarded(loop="application", storage=None).name
    with pytest.raises(ConfigurationError) as caught:
        forwarded_client(server_selection="leadr")  # type: ignore[arg-type]
    assert caught.value.hint == 'did you mean "leader"?'
    with pytest.raises(ConfigurationError) as caught:
        forwarded_client(recovery_strategy="clos")  # type: ignore[arg-type]
    assert caught.value.hint == 'did you mean "close"?'
