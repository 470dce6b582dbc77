"""Messages that a user of the client can cause: about what they did, with a hint that helps."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Any

import pytest

from copycat import Backoff, ConfigurationError, CopycatClient, blocking
from copycat.client.client import _timeout_seconds
from copycat.client.future import OperationFuture
from copycat.client.unavailability import format_operations
from copycat.errors import ClosedSessionError, CopycatError, SerializationError
from tests.client.servers import opening, serving
from tests.client.test_bounded import deaf
from tests.server.cluster import Book, free_address, run

ONE = "127.0.0.1:1"


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("localhost", "has no port"),
        ("localhost:", "has no port"),
        ("localhost:http", "its port 'http' is no number"),
        ("localhost:8700/", "its port '8700/' is no number"),
        ("http://localhost:8700/", "is a URL: write 'localhost:8700', without http://"),
        ("a:1,b:1", "several addresses in one"),
        ("::1:8700", "IPv6 host in brackets"),
        (":8700", "has no host"),
        ("", "has no port"),
        ("local host:1", "has no host"),
        ("localhost:65536", "port 65536 is not in 0 to 65535"),
        ("localhost:0", "has port 0, where nobody listens"),
        (["a:1", "b:1"], "several addresses in one"),
        (("a:1", "b:1"), "several addresses in one"),
        (None, "address None is of type NoneType; write it as text"),
        (8700, "address 8700 is of type int; write it as text"),
        (b"localhost:8700", "is of type bytes; write it as text"),
        (("localhost", "8700"), "Expected `int`, got `str`"),
        (("::1", 1, 2), "array"),
        (b"localhost:1", "address b'localhost:1'"),
    ],
)
def test_an_address_that_is_none(address: Any, words: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        CopycatClient(address)
    assert words in caught.value.render()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"timeout": "5"}, "timeout ('5') is no duration"),
        ({"timeout": 0}, "timeout (0 s) must be above 0 s"),
        ({"timeout": float("nan")}, "timeout (nan s) must be above 0 s"),
        ({"session_timeout": None}, "session_timeout (None) is no duration"),
        ({"session_timeout": 0.01}, "session_timeout (0.01 s) must be 0.1 to 86400 s"),
        ({"connection_strategy": Backoff.once}, "must be a Backoff: call it"),
        ({"connection_strategy": 3}, "connection_strategy (3) must be a Backoff"),
        ({"server_selection": "ledaer"}, 'did you mean "leader"?'),
        ({"recovery_strategy": "none"}, 'must be one of "close", "recover"'),
        ({"client_id": 7}, "client_id (7) must be 1 to 255 bytes"),
        ({"client_id": "\ud800"}, ""),
        ({"max_entry_size": "1M"}, "max_entry_size ('1M') must be 1 to 16777216 bytes"),
        ({"insecure": "yes"}, "insecure ('yes') must be True or False"),
    ],
)
def test_an_option_of_the_wrong_kind_is_named(options: dict[str, Any], words: str) -> None:
    if not words:
        assert CopycatClient(ONE, **options)
        return
    with pytest.raises(ConfigurationError) as caught:
        CopycatClient(ONE, **options)
    assert words in caught.value.render()


@pytest.mark.parametrize("kind", ["exponentiall", None])
def test_a_backoff_is_checked(kind: Any) -> None:
    with pytest.raises(ConfigurationError, match='must be "once", "exponential" or "fibonacci"'):
        Backoff(kind)
    with pytest.raises(ConfigurationError, match=r"initial .* must be seconds, 0 or more"):
        Backoff(initial=-1.0)


def test_no_address_at_all() -> None:
    async def scenario() -> None:
        with pytest.raises(ConfigurationError, match="no member's address was given") as caught:
            await CopycatClient().connect()
        assert "at least one" in str(caught.value.hint)

    run(scenario)
    with pytest.raises(ConfigurationError, match="no member's address was given"):
        blocking.connect()


def test_the_wrong_kind_of_with() -> None:
    with pytest.raises(ConfigurationError, match="for asyncio"), CopycatClient(ONE):
        pass

    async def scenario() -> None:
        client = blocking.CopycatClient.__new__(blocking.CopycatClient)
        with pytest.raises(ConfigurationError, match="would block the event loop"):
            await client.__aenter__()

    run(scenario)


def test_a_time_that_is_over_long_ago_is_no_time_without_end() -> None:
    assert [_timeout_seconds(wait) for wait in (-math.inf, math.inf, 2)] == [0.0, None, 2.0]


@pytest.mark.slow
def test_a_submission_of_the_wrong_kind() -> None:
    calls: list[tuple[Callable[[Any], Any], type[CopycatError], str]] = [
        (
            lambda c: c.submit(Book.add(1), consistency="sequential"),
            ConfigurationError,
            "leave it",
        ),
        (lambda c: c.submit(Book.count(), consistency="weak"), ConfigurationError, "must be one"),
        (lambda c: c.submit(Book.count(), timeout="1"), ConfigurationError, "timeout ('1')"),
        (lambda c: c.submit(Book.add(1), timeout=float("nan")), ConfigurationError, "timeout"),
        (lambda c: c.submit_many(Book.add(1)), ConfigurationError, "use submit() for one"),
        (lambda c: c.submit_many([Book.count()]), ConfigurationError, "submit() for each query"),
        (lambda c: c.submit_many([1]), SerializationError, "submit what a @command"),
        (lambda c: c.on_state_change(None), ConfigurationError, "cannot be called"),
    ]

    async def scenario() -> None:
        async with serving(opening(deaf)) as address, CopycatClient(address) as client:
            for call, kind, words in calls:
                with pytest.raises(kind) as caught:
                    call(client)
                assert words in caught.value.render()

    run(scenario)


@pytest.mark.slow
def test_from_a_thread_without_a_loop_and_from_another_loop() -> None:
    async def scenario() -> None:
        async with serving(opening(deaf)) as address, CopycatClient(address) as client:

            def plain() -> None:
                with pytest.raises(ConfigurationError, match="no event loop runs here") as caught:
                    client.submit(Book.add(1))
                assert "copycat.blocking" in str(caught.value.hint)

            def elsewhere() -> None:
                for use in (client.connect, client.close, client.recover):
                    with pytest.raises(ConfigurationError, match="another event loop"):
                        asyncio.run(use())

            await asyncio.to_thread(plain)
            await asyncio.to_thread(elsewhere)

    run(scenario)


@pytest.mark.slow
def test_a_loop_that_ended_without_a_close_leaves_a_client_that_can_be_connected() -> None:
    client = CopycatClient(free_address(), connection_strategy=Backoff.once())

    async def left() -> OperationFuture[int]:
        async with serving(opening(deaf)) as address:
            await client.connect(address)
            return client.submit(Book.add(1))

    error = asyncio.run(left()).exception()
    assert isinstance(error, ClosedSessionError)
    assert error.outcome_unknown
    assert str(client.state) == "closed"

    async def again() -> None:
        async with serving(opening(deaf)) as address:
            await client.connect(address)
            assert str(client.state) == "connected"
            await client.close()

    asyncio.run(again())


def test_an_operation_is_shown_in_a_line() -> None:
    assert format_operations([Book.add(1)]) == "Book.add(number=1)"
    text = format_operations([Book.fail("x" * 10_000)] * 3)
    assert text.startswith("3 commands, the first Book.fail(text='xxx")
    assert len(text) < 300
