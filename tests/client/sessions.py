"""A session to play with, and the messages that a server would send it."""

from __future__ import annotations

from typing import Any

from copycat.client.outbox import Outbox
from copycat.client.session import ClientSession
from copycat.protocol.client import (
    Commands,
    CommandsRefused,
    Refusal,
    Registered,
    Results,
)
from copycat.protocol.operations import Command, Query, encode_operation
from copycat.protocol.results import encode_results
from copycat.types import ConsistencyLevel

SESSION = 7


class Add(Command[int], frozen=True):
    amount: int


class Total(Query[int], frozen=True):
    pass


def opened(outbox: Outbox | None = None, *, now_ms: int = 0) -> ClientSession:
    session = ClientSession(outbox)
    session.opened(Registered(1, SESSION, 6000, "a:1", ("a:1", "b:1")), now_ms)
    session.connected(now_ms, fresh=True)
    return session


def submit(session: ClientSession, *amounts: int) -> None:
    for amount in amounts:
        session.submit(f"s{amount}", Add(amount), encode_operation(Add(amount)))


def ask(session: ClientSession, future: str) -> int:
    level = ConsistencyLevel.LINEARIZABLE
    return session.query(future, Total(), encode_operation(Total()), level)


def results(first: int, *values: Any, index: int = 100) -> Results:
    body = encode_results(list(values))
    last = index + len(values) - 1
    return Results(SESSION, first, len(values), index, last, body)


def refused(next_sequence: int, code: Refusal) -> CommandsRefused:
    return CommandsRefused(SESSION, next_sequence, code, "b:1")


def runs(messages: list[Any]) -> list[tuple[int, int]]:
    """(first sequence, count) of the frames of commands among `messages`."""
    return [(m.first_sequence, m.count) for m in messages if isinstance(m, Commands)]


def completed(session: ClientSession) -> list[tuple[Any, Any]]:
    return [(done.future, done.value) for done in session.take_finished()]
