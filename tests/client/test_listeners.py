"""Listeners that are `async def`: tasks where there is a loop, and refused where there is none."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from functools import partial
from typing import Any

import pytest

from copycat import ClientState, ConfigurationError, CopycatClient, CopycatServer, blocking
from copycat.listener_tasks import ListenerTasks
from copycat.listeners import Listeners
from tests.server.cluster import Book

LOG = logging.getLogger("copycat.test")


async def coroutine(state: object) -> None:
    raise AssertionError("it was called")


class Callable:
    async def __call__(self, state: object) -> None:
        raise AssertionError("it was called")


def generator(state: object) -> Iterator[int]:
    yield 1


async def asynchronous_generator(state: object) -> AsyncIterator[int]:
    yield 1


ASYNC: list[Any] = [coroutine, Callable(), partial(coroutine)]
NEVER: list[Any] = [5, None, generator, asynchronous_generator]


def test_an_async_listener_runs_to_its_end_in_the_loop_that_fires() -> None:
    seen: list[object] = []

    async def listen(value: str) -> None:
        await asyncio.sleep(0)
        seen.append(value)

    async def scenario() -> None:
        listeners: Listeners[str] = Listeners(LOG, ListenerTasks(LOG).start)
        listeners.add(listen)
        listeners.add(lambda value: listen(value + " of a lambda"))
        listeners.fire("first")
        assert seen == [], "a listener does not hold up what fires it"
        await asyncio.gather(*asyncio.all_tasks() - {asyncio.current_task()})
        assert seen == ["first", "first of a lambda"]

    asyncio.run(scenario())


def test_what_an_async_listener_raises_is_logged_with_its_traceback(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def wrong(value: str) -> None:
        raise ValueError(f"no {value}")

    async def scenario() -> None:
        listeners: Listeners[str] = Listeners(LOG, ListenerTasks(LOG).start)
        listeners.add(wrong)
        listeners.fire("first")
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(scenario())
    (record,) = caplog.records
    assert record.getMessage() == "a listener raised for 'first'"
    assert record.exc_info is not None
    assert str(record.exc_info[1]) == "no first"


def test_where_no_loop_is_a_lambda_that_makes_a_coroutine_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    listeners: Listeners[str] = Listeners(LOG)
    listeners.add(lambda value: coroutine(value))
    listeners.fire("first")
    assert "nothing awaits it here" in caplog.text


def owners() -> dict[str, Any]:
    client = blocking.CopycatClient.__new__(blocking.CopycatClient)
    client._client = CopycatClient("127.0.0.1:1")
    return {
        "a server": CopycatServer("127.0.0.1:0", Book),
        "a client": CopycatClient("127.0.0.1:1"),
        "a blocking client": client,
    }


@pytest.mark.parametrize("owner", list(owners()))
@pytest.mark.parametrize("listener", [*ASYNC, *NEVER], ids=repr)
def test_a_listener_of_which_nothing_would_run_is_refused(owner: str, listener: Any) -> None:
    one = owners()[owner]
    if owner in ("a server", "a client") and listener in ASYNC:
        one.on_state_change(listener).close()
        return
    with pytest.raises(ConfigurationError) as caught:
        one.on_state_change(listener)
    assert caught.value.code == "bad-config"
    assert repr(listener) in caught.value.message
    assert "function" in str(caught.value.hint)


def test_a_clients_async_listener_hears_of_each_state() -> None:
    seen: list[ClientState] = []

    async def listen(state: ClientState) -> None:
        seen.append(state)

    async def scenario() -> None:
        client = CopycatClient("127.0.0.1:1")
        client.on_state_change(listen)
        client._set_state(ClientState.SUSPENDED)
        await asyncio.sleep(0)
        assert seen == [ClientState.SUSPENDED]

    asyncio.run(scenario())
