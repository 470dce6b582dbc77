"""Sessions decided from the log: at most once, in sequence, expiry as an entry (I17, I18, I19)."""

from __future__ import annotations

from typing import Any

import pytest

from copycat.errors import CommandError, InvariantError
from copycat.machine import ServerSession
from copycat.machine.apply_result import SessionEnded, SessionKeptAlive, SessionOpened
from copycat.machine.kv import KeyValueStore
from copycat.types import EntryKind, Run
from tests.machine.runs import Script, values


class Watched(KeyValueStore):
    """Notes what happens to sessions, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, int, int]] = []

    def _note(self, what: str, session: ServerSession) -> None:
        self.seen.append((what, session.id, self.context.index))

    def on_register(self, session: ServerSession) -> None:
        self._note("register", session)

    def on_unregister(self, session: ServerSession) -> None:
        self._note("unregister", session)

    def on_expire(self, session: ServerSession) -> None:
        self._note("expire", session)

    def on_close(self, session: ServerSession) -> None:
        self._note("close", session)


def put(number: int) -> Any:
    return KeyValueStore.append("k", b"%d" % number)


def test_a_session_is_the_index_of_its_register_entry() -> None:
    script = Script(Watched())
    script.noop()
    assert script.register("a", 700) == 2
    (row,) = script.executor.session_rows()
    assert (row.session, row.client_id, row.timeout_ms, row.time_ms) == (2, "a", 700, 1000)
    assert script.machine.seen == [("register", 2, 2)]


def test_opening_touching_and_ending_are_reported() -> None:
    script = Script(Watched())
    session = script.register("a", 700)
    assert script.keep_alive(session, 0).changes == [SessionKeptAlive(session, 2, 1000)]
    assert script.close(session).changes == [SessionEnded(session, False, 3)]
    assert script.machine.seen == [
        ("register", 1, 1),
        ("unregister", 1, 3),
        ("close", 1, 3),
    ]
    assert script.executor.session_rows() == []


def test_one_session_for_a_client() -> None:
    script = Script(Watched())
    old = script.register("a")
    new = script.register("a")
    assert [row.session for row in script.executor.session_rows()] == [new]
    assert script.machine.seen == [
        ("register", old, 1),
        ("expire", old, 2),
        ("close", old, 2),
        ("register", new, 2),
    ]


def test_the_replaced_session_is_reported_before_the_new_one() -> None:
    script = Script(Watched())
    script.register("a")
    outcome = script.entries([(4, 1000, 0, 0, 0, (5000).to_bytes(4, "little") + b"a")])
    assert outcome.changes == [SessionEnded(1, True, 2), SessionOpened(2, "a", 5000, 1000)]


def test_i17_a_command_takes_effect_once() -> None:
    script = Script(KeyValueStore())
    session = script.register()
    first = script.commands(session, [put(1), put(2), put(3)])
    again = script.commands(session, [put(1), put(2), put(3)], first_sequence=1)
    assert script.machine.lists == {"k": [b"1", b"2", b"3"]}
    assert [reply.body for reply in again.replies] == [reply.body for reply in first.replies]
    (reply,) = again.replies
    assert (reply.first_sequence, reply.count) == (1, 3)
    assert (reply.first_index, reply.last_index) == (2, 4)  # of the first time


def test_i17_a_resent_run_may_be_cut_anywhere() -> None:
    script = Script(KeyValueStore())
    session = script.register()
    script.commands(session, [put(1), put(2)])
    script.commands(session, [put(3)])
    outcome = script.commands(session, [put(2), put(3), put(4)], first_sequence=2)
    old, new = outcome.replies
    assert (old.first_sequence, old.count) == (2, 2)
    assert (new.first_sequence, new.count, new.first_index) == (4, 1, 7)
    assert values(outcome.replies) == [2, 3, 4]
    assert script.machine.lists["k"] == [b"1", b"2", b"3", b"4"]


def test_i18_a_gap_has_no_effect() -> None:
    script = Script(KeyValueStore())
    session = script.register()
    script.commands(session, [put(1)])
    outcome = script.commands(session, [put(3), put(4)], first_sequence=3)
    assert outcome.replies == []
    assert outcome.rejected == [(session, 3, 3), (session, 4, 4)]
    assert script.machine.lists["k"] == [b"1"]
    assert values(script.commands(session, [put(2)], first_sequence=2).replies) == [2]


def test_i19_an_ended_session_has_no_effect_any_more() -> None:
    script = Script(KeyValueStore())
    session = script.register()
    script.close(session)
    assert script.commands(session, [put(1)]).rejected == [(session, 1, 3)]
    assert script.keep_alive(session, 0).rejected == [(session, 0, 4)]
    assert script.close(session).rejected == [(session, 0, 5)]
    assert script.machine.lists == {}


def test_replies_go_when_the_envelope_acknowledges_them() -> None:
    script = Script(KeyValueStore())
    session = script.register()
    script.commands(session, [put(1), put(2)])
    script.commands(session, [put(3)], acked=2)
    (row,) = script.executor.session_rows()
    assert (row.acked_sequence, row.cached_nbytes) == (2, 2)  # one reply of one byte is kept


def test_replies_go_when_a_keep_alive_acknowledges_them() -> None:
    script = Script(KeyValueStore())
    session = script.register()
    script.commands(session, [put(1), put(2)])
    script.keep_alive(session, 99)
    (row,) = script.executor.session_rows()
    assert (row.acked_sequence, row.cached_nbytes) == (2, 0)  # never beyond what was applied


def test_a_reply_that_is_gone_is_an_error_not_a_null() -> None:
    script = Script(KeyValueStore())
    session = script.register()
    script.commands(session, [put(1), put(2), put(3)])
    script.keep_alive(session, 2)
    one, two, three = values(
        script.commands(session, [put(1), put(2), put(3)], first_sequence=1).replies
    )
    assert isinstance(one, CommandError)
    assert isinstance(two, CommandError)
    assert "command 2 of session 1" in two.message
    assert three == 3


def test_cached_replies_for_the_leaders_door() -> None:
    script = Script(KeyValueStore())
    session = script.register()
    script.commands(session, [put(1), put(2)])
    script.commands(session, [put(3)])
    (reply,) = script.executor.cached_replies(session, 2, 9)
    assert (reply.first_sequence, reply.count) == (2, 2)
    assert values([reply]) == [2, 3]
    assert script.executor.cached_replies(session, 4, 9) == []
    assert script.executor.cached_replies(99, 1, 1) == []


def test_c25_expiry_is_ignored_when_the_session_was_active_since() -> None:
    script = Script(Watched())
    session = script.register()
    script.commands(session, [put(1)])  # index 2
    assert script.expire(session, 1).changes == []
    script.keep_alive(session, 0)  # index 4
    assert script.expire(session, 2).changes == []
    assert script.expire(session, 4).changes == [SessionEnded(session, True, 6)]
    assert script.machine.seen[-2:] == [("expire", 1, 6), ("close", 1, 6)]


def test_c25_a_duplicate_is_no_activity() -> None:
    script = Script(KeyValueStore())
    session = script.register()
    script.commands(session, [put(1)])
    script.commands(session, [put(1)], first_sequence=1)
    assert script.expire(session, 2).changes == [SessionEnded(session, True, 4)]


def test_a_new_leaders_noop_gives_everybody_a_fresh_timeout() -> None:
    script = Script(KeyValueStore())
    session = script.register()
    script.time_ms = 9000
    script.noop()
    (row,) = script.executor.session_rows()
    assert (row.time_ms, row.active_index) == (9000, 2)
    assert script.expire(session, 1).changes == []
    assert script.expire(session, 2).changes == [SessionEnded(session, True, 4)]


def test_sessions_stand_in_the_order_of_their_registration() -> None:
    script = Script(KeyValueStore())
    ids = [script.register(name) for name in ("z", "a", "m")]
    assert [row.session for row in script.executor.session_rows()] == ids


def test_commands_of_another_sessions_sequences_do_not_mix() -> None:
    script = Script(KeyValueStore())
    one, two = script.register("a"), script.register("b")
    assert script.results(one, put(1)) == [1]
    assert script.results(two, put(2)) == [2]
    assert script.results(one, put(3)) == [3]


def test_entries_out_of_order_are_a_broken_law() -> None:
    script = Script(KeyValueStore())
    session = script.register()
    assert script.executor.apply([]).last_applied == session  # nothing is nothing
    with pytest.raises(InvariantError, match=r"out of order: 3 \(1 entries\) after 1"):
        script.executor.apply([Run(3, EntryKind.NOOP, 0, 0, 0, 0, [b""])])
