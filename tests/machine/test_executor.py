"""The user's code at work: results, exceptions, bad bytes, log time, releases, queries."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta, tzinfo
from typing import Any

import pytest

from copycat.errors import (
    ApplicationError,
    InvariantError,
    MachineMismatchError,
    SerializationError,
)
from copycat.machine import Commit, ServerSession, StateMachine, command, query
from copycat.machine.apply_result import IncarnationRecorded, MachineQuery
from copycat.machine.kv import KeyValueStore
from copycat.machine.session_executor import SessionExecutor
from copycat.protocol.codec_configuration import encode_configuration
from copycat.protocol.member_record import ConfigurationRecord, MemberRecord
from copycat.protocol.operations import Command, encode_operation
from copycat.protocol.results import decode_result
from copycat.types import EntryId, EntryKind, MemberId, MemberType
from tests.machine.runs import Script, values


class Picky(Command[int], frozen=True):
    """A command that does not like every number."""

    number: int

    def __post_init__(self) -> None:
        if self.number == 0:
            raise KeyError("zero")


class Nowhere(tzinfo):
    """A time zone that raises what no encoder expects."""

    def utcoffset(self, when: datetime | None) -> timedelta:
        raise KeyError("nowhere")

    def dst(self, when: datetime | None) -> timedelta:
        raise KeyError("nowhere")

    def tzname(self, when: datetime | None) -> str:
        raise KeyError("nowhere")


class Moody(StateMachine):
    """Raises, returns what cannot be encoded, and changes what it returned."""

    def __init__(self) -> None:
        self.log: list[int] = []

    @command
    def add(self, number: int) -> list[int]:
        self.log.append(number)
        return self.log  # the live list: a later command changes it

    @command
    def fail(self, text: str) -> int:
        self.log.append(-1)
        raise ValueError(text)

    @command
    def weird(self) -> Any:
        return object()

    @command
    def when(self) -> Any:
        return datetime(2026, 1, 1, tzinfo=Nowhere())

    def picky(self, commit: Commit[Picky]) -> int:
        return commit.command.number

    @command
    def exhaust(self) -> None:
        raise MemoryError

    @command
    def interrupt(self) -> None:
        raise KeyboardInterrupt

    @query
    def last(self) -> int:
        return self.log[-1]

    @query
    def bad(self) -> int:
        raise ValueError("asked for it")


def test_results_come_in_order_with_their_indexes() -> None:
    script = Script(KeyValueStore())
    session = script.register()
    outcome = script.commands(
        session,
        [
            KeyValueStore.put("a", b"1"),
            KeyValueStore.swap("a", b"2"),
            KeyValueStore.compare_and_set("a", b"2", b"3"),
            KeyValueStore.compare_and_set("a", b"2", b"4"),
            KeyValueStore.delete("a"),
            KeyValueStore.delete("a"),
        ],
    )
    (reply,) = outcome.replies
    assert (reply.first_index, reply.last_index, reply.count) == (2, 7, 6)
    assert values([reply]) == [None, b"1", True, False, True, False]
    assert outcome.last_applied == script.executor.last_applied == 7


def test_a_mutable_result_is_encoded_at_once() -> None:
    script = Script(Moody())
    session = script.register()
    results = script.results(session, Moody.add(1), Moody.add(2), Moody.add(3))
    assert results == [[1], [1, 2], [1, 2, 3]]


def test_f23_an_exception_is_a_result_cached_like_any_other() -> None:
    script = Script(Moody())
    session = script.register()
    one, error, two = script.results(session, Moody.add(1), Moody.fail("no"), Moody.add(2))
    assert isinstance(error, ApplicationError)
    assert error.message == "ValueError: no"
    assert (one, two) == ([1], [1, -1, 2])
    again = values(script.commands(session, [Moody.fail("no")], first_sequence=2).replies)
    assert isinstance(again[0], ApplicationError)
    assert script.machine.log == [1, -1, 2]


def test_f23_a_result_that_cannot_be_encoded_is_an_error() -> None:
    script = Script(Moody())
    session = script.register()
    weird, fine = script.results(session, Moody.weird(), Moody.add(1))
    assert isinstance(weird, SerializationError)
    assert fine == [1]


@pytest.mark.parametrize(
    ("operation", "kind"),
    [(Moody.exhaust(), MemoryError), (Moody.interrupt(), KeyboardInterrupt)],
)
def test_f23_what_is_not_the_machines_doing_stops_the_member(
    operation: Any, kind: type[BaseException]
) -> None:
    script = Script(Moody())
    session = script.register()
    with pytest.raises(kind):
        script.commands(session, [Moody.add(1), operation])
    assert script.executor.last_applied == 1
    with pytest.raises(InvariantError, match="stopped at entry 2"):
        script.noop()  # entry 2 is half applied: never again


@pytest.mark.parametrize("bad", [b"", b"\xc1", b"\x91\xa4nope", b"\x92\xa3add\xa1x", b"\x01"])
def test_a_bad_operation_in_a_run_fails_alone(bad: bytes) -> None:
    script = Script(Moody())
    session = script.register()
    logged = script.executor.commands.refusals([bad]).get(0, bad)  # as a leader logs it
    one, error, two = script.results(session, Moody.add(1), logged, Moody.add(2))
    assert (one, two) == ([1], [1, 2])
    assert isinstance(error, MachineMismatchError if bad else SerializationError)
    again = values(script.commands(session, [logged], first_sequence=2).replies)
    assert type(again[0]) is type(error)
    assert again[0].message == error.message


def test_a_query_in_the_log_has_no_effect() -> None:
    script = Script(Moody())
    session = script.register()
    with pytest.raises(MachineMismatchError, match=r"entry 2: .*'last' is no command of Moody"):
        script.results(session, Moody.last())


def test_queries_see_the_state_and_its_index() -> None:
    script = Script(Moody())
    session = script.register()
    script.results(session, Moody.add(7))
    asks = [
        MachineQuery(5, session, encode_operation(Moody.last())),
        MachineQuery(6, session + 1, encode_operation(Moody.last())),
    ]
    known, unknown = script.executor.query(asks)
    assert (known.token, known.index, known.unknown_session) == (5, 2, False)
    assert (unknown.token, unknown.unknown_session, unknown.body) == (6, True, b"")
    assert script.query(session, Moody.last()) == 7


def test_a_query_that_fails_is_an_answer() -> None:
    script = Script(Moody())
    session = script.register()
    error = script.query(session, Moody.bad())
    assert isinstance(error, ApplicationError)
    assert error.message == "ValueError: asked for it"


@pytest.mark.parametrize("body", [b"\x90", b"\xc1", encode_operation(Moody.add(1))])
def test_a_query_must_be_one(body: bytes) -> None:
    script = Script(Moody())
    session = script.register()
    (answer,) = script.executor.query([MachineQuery(1, session, body)])
    assert not answer.unknown_session
    assert isinstance(decode_result(answer.body, Any), MachineMismatchError)
    assert script.machine.log == []


def test_i19_log_time_never_goes_back() -> None:
    script = Script(KeyValueStore())
    script.tick(5000)
    script.tick(3000)
    assert script.executor.time_ms == 5000
    script.tick(5001)
    assert script.executor.time_ms == 5001


def test_c16_the_first_incarnation_holds() -> None:
    script = Script(KeyValueStore())
    member, first, second = 1 << 127, 1 << 100, 3
    assert script.record_incarnation(member, first).changes == [IncarnationRecorded(member, first)]
    assert script.record_incarnation(member, second).changes == []
    assert script.executor.incarnations == {member: first}


@pytest.mark.parametrize("kind", [EntryKind.MARK, EntryKind.DATA, 200])
def test_kinds_that_nobody_writes_are_a_broken_law(kind: Any) -> None:
    with pytest.raises(InvariantError, match="cannot be applied"):
        Script(KeyValueStore()).entry(kind)


def test_a_short_payload_in_the_log_is_a_broken_law() -> None:
    for kind in (EntryKind.REGISTER, EntryKind.KEEP_ALIVE, EntryKind.EXPIRE, EntryKind.CLOSE):
        with pytest.raises(InvariantError):
            Script(KeyValueStore()).entry(kind, b"\1\2\3")


def test_a_session_callback_that_raises_is_logged_and_not_in_the_way(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Rude(KeyValueStore):
        def on_register(self, session: ServerSession) -> None:
            raise ValueError("not today")

    script = Script(Rude())
    with caplog.at_level(logging.ERROR):
        session = script.register()
    assert "raised at entry 1" in caplog.text
    assert script.results(session, KeyValueStore.put("a", b"")) == [None]


def test_close_reaches_the_machine() -> None:
    class Closing(KeyValueStore):
        closed = False

        def close(self) -> None:
            self.closed = True

    machine = Closing()
    SessionExecutor(machine).close()
    assert machine.closed


def test_f23_bytes_that_the_command_itself_rejects_are_a_result_and_stop_nobody() -> None:
    script = Script(Moody())
    session = script.register()
    good = encode_operation(Picky(5))
    bad = good.replace(b"\x05", b"\x00")
    logged = script.executor.commands.refusals([good, bad, good])
    first, second, third = script.results(session, good, logged[1], good)
    assert (first, third) == (5, 5)
    assert isinstance(second, MachineMismatchError)


def test_f23_a_result_whose_encoding_raises_anything_is_an_error_in_its_place() -> None:
    script = Script(Moody())
    session = script.register()
    first, second = script.results(session, Moody.when(), Moody.add(1))
    assert isinstance(first, SerializationError)
    assert second == [1]


def test_an_entry_that_changes_the_members_is_no_part_of_the_state() -> None:
    script = Script(KeyValueStore())
    state = script.executor.encode_state()
    record = MemberRecord(MemberId(1), MemberType.ACTIVE, "a:1")
    payload = encode_configuration(ConfigurationRecord(EntryId(1, 1), 7, (record,)))
    script.entry(EntryKind.CONFIGURATION, payload)
    assert script.executor.last_applied == 1
    assert script.executor.encode_state() == state
