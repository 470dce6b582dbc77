"""Queries and keep-alives of the client's session, by tables."""

from __future__ import annotations

from copycat.client.session import (
    SWITCH_AFTER_MS,
)
from copycat.protocol.client import (
    Commands,
    Failure,
    KeepAlive,
    KeptAlive,
    QueryRequest,
    QueryResult,
    Refusal,
)
from copycat.protocol.results import encode_result
from tests.client.sessions import SESSION, ask, completed, opened, refused, results, runs, submit

# ---- queries ---------------------------------------------------------------------------------


def answer(request: int, value: int, index: int = 50) -> QueryResult:
    return QueryResult(request, index, encode_result(value))


def test_a_query_names_the_last_command_and_the_highest_index() -> None:
    session = opened()
    submit(session, 1)
    session.outgoing(0)
    session.received(results(1, 1, index=40), 0)
    submit(session, 2)
    ask(session, "q")
    commands, query = session.outgoing(0)
    assert isinstance(commands, Commands)
    assert isinstance(query, QueryRequest)
    assert (query.session, query.sequence, query.index) == (SESSION, 2, 40)


def test_a_client_never_asks_for_less_than_an_answer_showed_it() -> None:
    """Of a read as of a command; and an answer that names less takes nothing back."""
    session = opened()
    for request_index, (index, least) in enumerate([(50, 50), (70, 70), (60, 70)]):
        request = ask(session, f"q{request_index}")
        session.outgoing(0)
        session.received(answer(request, 1, index=index), 0)
        ask(session, f"r{request_index}")
        (query,) = session.outgoing(0)
        assert isinstance(query, QueryRequest)
        assert query.index == least
        session.received(answer(query.request, 1, index=least), 0)


def test_a_query_completes_between_its_neighbours() -> None:
    session = opened()
    submit(session, 1)
    request = ask(session, "q")
    submit(session, 2)
    session.outgoing(0)
    session.received(answer(request, 5), 0)
    assert completed(session) == [], "the command before it has no reply yet"
    session.received(results(1, 1), 0)
    assert completed(session) == [("s1", 1), ("q", 5)]
    request = ask(session, "r")
    submit(session, 3)
    session.outgoing(0)
    session.received(results(2, 2, 3), 0)
    assert completed(session) == [("s2", 2)]
    session.received(answer(request, 6), 0)
    assert completed(session) == [("r", 6), ("s3", 3)]


def test_a_query_that_nobody_waits_for_holds_up_nobody() -> None:
    session = opened()
    request = ask(session, "q")
    submit(session, 1)
    session.outgoing(0)
    session.received(results(1, 1), 0)
    session.abandon(request)
    assert [future for future, _ in completed(session) if future] == ["s1"]
    session.received(answer(request, 5), 0)
    assert completed(session) == []


def test_queries_are_asked_again_after_a_refusal_and_on_a_new_connection() -> None:
    session = opened()
    request = ask(session, "q")
    assert len(session.outgoing(0)) == 1
    session.received(Failure(request, Refusal.NO_LEADER, "", "election"), 5)
    due = session.deadline_ms()
    assert 5 < due < 100
    assert len(session.outgoing(due)) == 1
    session.disconnected()
    session.connected(due + 1)
    kinds = [type(message) for message in session.outgoing(due + 1)]
    assert kinds == [KeepAlive, QueryRequest]
    session.received(answer(request, 5), due + 2)
    assert completed(session) == [("q", 5)]


def test_a_query_that_cannot_be_answered_fails() -> None:
    session = opened()
    request = ask(session, "q")
    session.outgoing(0)
    session.received(Failure(request, Refusal.INTERNAL, "", "broken"), 0)
    (done,) = session.take_finished()
    assert done.failed
    assert "broken" in str(done.value)


# ---- keeping alive ---------------------------------------------------------------------------


def test_keep_alives_go_out_every_third_of_the_timeout() -> None:
    session = opened()
    beats = []
    for now_ms in range(0, 6001, 100):
        for message in session.outgoing(now_ms):
            beats.append(now_ms)
            assert isinstance(message, KeepAlive)
            session.received(KeptAlive(message.request, "a:1", ("a:1", "b:1", "c:1")), now_ms)
    assert beats == [2000, 4000, 6000]
    assert session.members == ("a:1", "b:1", "c:1")
    assert session.is_confirmed


def test_a_server_that_says_nothing_is_left() -> None:
    session = opened()
    assert len(session.outgoing(2000)) == 1
    assert not session.must_switch_server
    session.outgoing(4000)
    assert session.must_switch_server
    assert not session.is_confirmed
    session.connected(4001)
    assert not session.must_switch_server


def test_a_server_without_a_leader_is_left_after_a_while() -> None:
    session = opened()
    submit(session, 1)
    now_ms = 0
    while not session.must_switch_server:
        if runs(session.outgoing(now_ms)):
            session.received(refused(1, Refusal.NO_LEADER), now_ms)
        now_ms = session.deadline_ms()
        assert now_ms < 2 * SWITCH_AFTER_MS
    assert now_ms >= SWITCH_AFTER_MS
