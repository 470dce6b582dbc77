"""What a program has submitted and no member has answered is bounded in bytes and in number."""

from __future__ import annotations

import random

import pytest

from copycat.client import submissions
from copycat.client.outbox import Outbox
from copycat.client.session import ClientSession
from copycat.errors import OverloadedError
from tests.client.sessions import SESSION, Add, ask, opened, results, submit


def waiting_of(session: ClientSession, outbox: Outbox) -> tuple[int, int]:
    """(what is counted, what is there) in bytes of commands and queries without an answer."""
    start = outbox.last_answered + 1 - outbox._base
    commands = sum(map(len, outbox._encoded[start:]))
    queries = sum(len(query.encoded) for query in session._queries._pending.values())
    return outbox.nbytes + session._queries.nbytes, commands + queries


@pytest.mark.parametrize("seed", range(12))
def test_what_waits_is_counted_through_answers_resends_and_callers_that_give_up(seed: int) -> None:
    rng = random.Random(seed)
    outbox = Outbox(window_commands=4)
    session, now_ms, requests = opened(outbox), 0, [0]
    for step in range(300):
        now_ms += rng.randint(1, 400)
        match rng.randint(0, 6):
            case 0 | 1:
                submit(session, *(rng.randint(0, 1 << 40) for _ in range(rng.randint(1, 5))))
            case 2:
                requests.append(ask(session, f"q{step}"))
            case 3:
                session.abandon(rng.choice(requests))
            case 4 if outbox.last_attempted > outbox.last_answered:
                last = rng.randint(outbox.last_answered + 1, outbox.last_attempted)
                first = rng.randint(1, outbox.last_answered + 1)
                values = range(last - first + 1)
                session.received(results(first, *values), now_ms)
            case 5:
                session.disconnected()
                session.connected(now_ms)
            case _:
                call = session.submit(f"c{step}", Add(1), b"x" * rng.randint(1, 50))
                session.abandon_call(call)
        session.outgoing(now_ms)
        session.take_finished()
        counted, there = waiting_of(session, outbox)
        assert counted == there
    session.expire("it is over")
    assert session.session == SESSION


def test_what_is_above_the_bound_is_refused_and_one_alone_always_fits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(submissions, "WAITING_MAX", 3)
    monkeypatch.setattr(submissions, "WAITING_NBYTES_MAX", 100)
    session = opened()
    session.check_room(1, 1000)
    session.check_room(10, 10)
    submit(session, 1, 2)
    nbytes = session._outbox.nbytes
    session.check_room(1, 100 - nbytes)
    with pytest.raises(OverloadedError, match=rf"^2 commands and queries of {nbytes} bytes wait"):
        session.check_room(1, 101 - nbytes)
    ask(session, "q")
    with pytest.raises(OverloadedError) as caught:
        session.check_room(1, 1)
    assert caught.value.retryable
    session.outgoing(1)
    session.received(results(1, 1, 2), 2)
    session.check_room(1, 1)
