"""What is released, when and how: by key, by time; and what must stay (C19 to C21)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from copycat.errors import ApplicationError, ConfigurationError, SerializationError
from copycat.machine import Commit, StateMachine, command
from copycat.protocol.operations import Command, CompactionMode
from copycat.types import EntryKind, Release, Run
from tests.machine.cleaning import Busy
from tests.machine.runs import Script, released, values

ANY, STABLE, SEQUENTIAL = Release.ANY, Release.STABLE, Release.SEQUENTIAL
SNAPSHOT, UNKNOWN = Release.SNAPSHOT, Release.UNKNOWN


def started(clients: int = 1) -> tuple[Script, list[int]]:
    """Sessions 1 .. clients; the next entry is clients + 1."""
    script = Script(Busy())
    return script, [script.register(str(number)) for number in range(clients)]


# ---- by key --------------------------------------------------------------------------------


def test_a_newer_command_of_the_key_releases_the_older_one() -> None:
    script, [a] = started()
    assert released(script.commands(a, [Busy.put("x", 1), Busy.put("y", 1)])) == []
    assert released(script.commands(a, [Busy.put("x", 2)])) == [(2, ANY)]
    assert released(script.commands(a, [Busy.put("x", 3), Busy.put("y", 2)])) == [
        (3, ANY),
        (4, ANY),
    ]


def test_a_tombstone_releases_what_it_deletes_and_itself() -> None:
    script, [a] = started()
    script.commands(a, [Busy.put("x", 1)])
    deleted = script.commands(a, [Busy.drop("x")])
    assert released(deleted) == [(2, ANY)]  # entry 3 carries the sequence of its session (C19)
    assert released(script.commands(a, [Busy.count(1)])) == [(3, SEQUENTIAL)]
    assert released(script.commands(a, [Busy.put("x", 1)])) == []  # the key was forgotten


def test_a_command_that_reads_its_key_stays_until_the_key_is_overwritten() -> None:
    script, [a] = started()
    script.commands(a, [Busy.put("x", 1), Busy.bump("x"), Busy.bump("x")])
    assert released(script.commands(a, [Busy.put("x", 9)])) == [(2, ANY), (3, ANY), (4, ANY)]


def test_a_command_that_raised_stays_until_the_key_is_overwritten() -> None:
    script, [a] = started()
    outcome = script.commands(a, [Busy.put("x", 1), Busy.pick("x", 3)])
    assert isinstance(values(outcome.replies)[1], ApplicationError)
    assert released(outcome) == []
    assert released(script.commands(a, [Busy.pick("x", 2)])) == [(2, ANY), (3, ANY)]


def test_a_key_expires_by_log_time_unless_it_was_written_again() -> None:
    script, [a] = started()
    outcome = script.commands(a, [Busy.lend("x", 1, 1.0), Busy.lend("y", 1, 1.0)])
    assert outcome.next_due_ms == 2001
    script.commands(a, [Busy.put("y", 2)])
    assert released(script.tick(2000)) == []
    assert script.machine.values == {"x": 1, "y": 2}
    outcome = script.tick(2001)
    assert released(outcome) == [(2, SEQUENTIAL)]
    assert outcome.next_due_ms == 0
    assert script.machine.values == {"y": 2}


def test_i25_expiries_that_were_overwritten_do_not_pile_up() -> None:
    script, [a] = started()
    for _ in range(50):
        script.commands(a, [Busy.lend("x", 1, 1e6)] * 10)
    assert len(script.executor._runtime.keys._heap) < 80
    assert script.executor._runtime.keys.next_ms > 1e9


def test_c18_a_key_expires_at_a_gap_too() -> None:
    script, [a] = started()
    script.commands(a, [Busy.lend("x", 1, 1.0)])
    outcome = script.executor.apply([Run(3, EntryKind.GAP, 2500, 0, 9, 8, [])])
    assert script.machine.values == {}
    assert (outcome.last_applied, outcome.time_ms, released(outcome)) == (8, 2500, [])
    assert released(script.close(a)) == [(2, SEQUENTIAL)]  # its session stood on it


def test_a_key_that_was_joined_expires_under_a_snapshot_only() -> None:
    """The deletion is older than what joined it: order would not protect it."""
    script, [a] = started()
    script.commands(a, [Busy.lend("x", 1, 1.0), Busy.bump("x"), Busy.count(1)])
    assert released(script.tick(3000)) == [(2, UNKNOWN), (3, UNKNOWN)]


def listed(operation: Any) -> Any:
    """A key that no type checker sees to be a list."""
    return [operation.name]


class Hashless(StateMachine):
    def __init__(self) -> None:
        self.calls = 0

    @command(key=listed)
    def put(self, name: str) -> None:
        self.calls += 1

    @command(key="name", expires=lambda operation: operation.seconds)
    def lend(self, name: str, seconds: float) -> None:
        self.calls += 1


def test_a_key_that_cannot_be_hashed_is_the_commands_result() -> None:
    script = Script(Hashless())
    session = script.register()
    results = script.results(session, Hashless.put("a"), Hashless.lend("b", -1.0))
    assert [type(result) for result in results] == [ApplicationError, ApplicationError]
    assert "its key is a list, which cannot be hashed" in str(results[0])
    assert "expires" in str(results[1])
    assert script.machine.calls == 0


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"key": "nmae"}, "key names 'nmae', which is no parameter"),
        ({"key": 7}, "key is 7, neither"),
        ({"key": "name", "expires": "ttl"}, "expires names 'ttl'"),
        ({"tombstone": True}, "tombstone without a key"),
        ({"expires": "name"}, "expires without a key"),
        ({"reads": True}, "reads without a key"),
        ({"key": "name", "tombstone": True, "reads": True}, "only one of"),
        ({"key": "name", "tombstone": "yes"}, "tombstone is 'yes', neither True nor False"),
        ({"key": "name", "tombstone": 2}, "tombstone is 2, neither True nor False"),
        ({"key": "name", "reads": None}, "reads is None, neither True nor False"),
        ({"reads": "name"}, "reads is 'name', neither True nor False"),
    ],
)
def test_bad_definitions_fail_where_they_are_written(settings: Any, match: str) -> None:
    with pytest.raises(ConfigurationError, match=match) as caught:

        class Wrong(StateMachine):
            @command(**settings)
            def put(self, name: str) -> None: ...

    assert "test_release.py:" in caught.value.message
    assert "@command(key=" in str(caught.value.hint)


def test_a_key_of_a_type_that_cannot_be_hashed_fails_at_once() -> None:
    with pytest.raises(SerializationError, match="'names' is a key and cannot be hashed"):

        class Wrong(StateMachine):
            @command(key="names")
            def put(self, names: list[str]) -> None: ...


class Put(Command[None], frozen=True):
    """Keyed without a decorator, with a class that depends on what it carries."""

    __key__ = "name"

    name: str
    is_safe: bool

    def compaction(self) -> CompactionMode:
        return CompactionMode.FULL if self.is_safe else CompactionMode.SNAPSHOT


class Explicit(StateMachine):
    def put(self, commit: Commit[Put]) -> None:
        """Nothing to keep."""

    @command(key="name", tombstone=True)
    def drop(self, name: str) -> None: ...


def test_a_command_class_may_be_keyed_and_decide_its_mode() -> None:
    script = Script(Explicit())
    session = script.register()
    script.commands(session, [Put("a", True), Put("a", True), Explicit.drop("a")])
    assert released(script.close(session)) == [(4, SEQUENTIAL)]
    other = Script(Explicit())
    session = other.register()
    outcome = other.commands(session, [Put("a", False), Put("a", True), Explicit.drop("a")])
    assert released(outcome) == [(2, SNAPSHOT), (3, STABLE)]
    # What it deletes goes with a snapshot only, so the deletion must not go before that.
    assert released(other.close(session)) == [(4, UNKNOWN)]


# ---- what stays ----------------------------------------------------------------------------


def test_c19_the_entry_that_carries_the_sequence_stays_until_there_is_a_newer_one() -> None:
    script, [a, b] = started(2)
    script.commands(a, [Busy.put("x", 1)])
    assert released(script.commands(b, [Busy.put("x", 2)])) == []
    assert released(script.keep_alive(a, 0)) == []
    assert released(script.commands(a, [Busy.count(1)])) == [(3, ANY), (5, ANY)]


def test_c19_an_entry_that_only_carries_an_acknowledgement_stays() -> None:
    script, [a] = started()
    script.commands(a, [Busy.put("x", 1)])
    script.keep_alive(a, 1)
    assert released(script.keep_alive(a, 1)) == []  # the first one raised it, this one is active
    assert released(script.keep_alive(a, 1)) == [(4, ANY)]
    script.noop()
    script.commands(a, [Busy.count(1)], acked=1)
    assert released(script.keep_alive(a, 2)) == [(3, ANY)]


def test_c19_a_noop_takes_over_the_activity_of_all() -> None:
    script, [a, b] = started(2)
    script.keep_alive(a, 0)
    script.keep_alive(b, 0)
    assert released(script.noop()) == [(3, ANY), (4, ANY)]


def test_c19_what_a_session_held_goes_when_it_ends() -> None:
    script, [a, b] = started(2)
    script.commands(a, [Busy.put("x", 1)])
    script.commands(b, [Busy.put("x", 2)])
    assert released(script.close(a)) == [(3, ANY)]


def test_a_deletion_waits_for_what_it_deletes() -> None:
    """Else a replay finds the old entry, which its session holds, and nothing that deletes it."""
    script, [a, b] = started(2)
    script.commands(a, [Busy.put("x", 1)])  # 3, held by the session
    assert released(script.commands(b, [Busy.put("x", 2), Busy.drop("x")])) == [(4, ANY)]
    assert released(script.commands(b, [Busy.count(1)])) == []
    assert released(script.close(a)) == [(3, ANY), (5, SEQUENTIAL)]


def test_a_deletion_by_hand_waits_for_everything_older_that_is_held() -> None:
    script, [a, b] = started(2)
    script.commands(a, [Busy.hold("x")])  # 3
    script.commands(b, [Busy.hold("x"), Busy.let_go("x"), Busy.count(1)])  # 4, 5, 6
    assert released(script.commands(b, [Busy.let_go("y"), Busy.count(1)])) == []
    assert released(script.close(a)) == [(3, ANY), (5, SEQUENTIAL), (7, SEQUENTIAL)]


def test_c20_an_entry_that_touched_a_timer_goes_with_a_snapshot_only() -> None:
    script, [a] = started()
    script.commands(a, [Busy.alarm("x", 1, 0.5), Busy.put("x", 2), Busy.hush("x")])
    outcome = script.commands(a, [Busy.count(1)])
    # 2 scheduled; 4 cancelled, and deletes what 2 wrote.
    assert released(outcome) == [(4, UNKNOWN)]


def test_c20_a_deletion_of_what_only_a_snapshot_replaces_is_as_strict() -> None:
    script, [a] = started()
    script.commands(a, [Busy.alarm("x", 1, 9.0)])
    outcome = script.commands(a, [Busy.put("x", 2), Busy.drop("x"), Busy.count(1)])
    assert released(outcome) == [(2, UNKNOWN), (3, ANY), (4, UNKNOWN)]


def test_c20_an_entry_at_which_a_callback_fires_needs_a_snapshot() -> None:
    script, [a] = started()
    script.commands(a, [Busy.alarm("x", 1, 0.5)])
    script.time_ms = 2000
    script.commands(a, [Busy.put("y", 1), Busy.put("z", 1)])  # 3 fires it
    outcome = script.commands(a, [Busy.put("y", 2), Busy.put("z", 2)])
    assert released(outcome) == [(3, UNKNOWN), (4, ANY)]


def test_c25_what_kept_a_session_alive_needs_a_snapshot() -> None:
    script, [a] = started()
    script.keep_alive(a, 0)
    script.expire(a, 1)  # the leader had not seen the keep-alive
    assert released(script.keep_alive(a, 0)) == [(2, UNKNOWN)]


def test_i17_what_showed_a_duplicate_needs_a_snapshot_and_duplicates_stay() -> None:
    script, [a] = started()
    script.commands(a, [Busy.put("x", 1)])
    script.commands(a, [Busy.put("x", 1)], first_sequence=1)
    assert released(script.commands(a, [Busy.put("x", 2)])) == [(2, UNKNOWN)]
    assert released(script.close(a)) == []


def test_commands_without_a_session_are_released_at_once() -> None:
    script, [a] = started()
    script.close(a)
    assert released(script.commands(a, [Busy.put("x", 1)])) == [(3, ANY)]
    assert released(script.keep_alive(a, 1)) == [(4, ANY)]


# ---- gaps ----------------------------------------------------------------------------------


def gap(first: int, end: int, valid_from: int, time_ms: int = 1000) -> Run:
    return Run(first, EntryKind.GAP, time_ms, 0, end, valid_from, [])


def test_c18_sequences_jump_over_a_gap_and_nowhere_else() -> None:
    script, [a] = started()
    script.commands(a, [Busy.put("x", 1)])  # 2
    assert script.commands(a, [Busy.put("x", 2)], first_sequence=5).rejected == [(a, 5, 3)]
    script.executor.apply([gap(4, 8, 9)])
    assert script.commands(a, [Busy.put("x", 3)], first_sequence=7).rejected == []  # 8
    outcome = script.commands(a, [Busy.put("x", 4)], first_sequence=9)  # 9: after no gap
    assert outcome.rejected == [(a, 9, 9)]
    assert script.executor.valid_from == 9


def test_c22_no_jump_above_what_the_gap_can_explain() -> None:
    script, [a] = started()
    script.executor.apply([gap(2, 4, 5)])
    script.noop()
    script.noop()
    assert script.commands(a, [Busy.put("x", 1)], first_sequence=2).rejected == [(a, 2, 6)]


def test_the_acknowledged_index_is_below_the_first_reply_that_is_unacknowledged() -> None:
    script, [a, b] = started(2)
    assert script.executor.acknowledged_index() == 2
    script.commands(a, [Busy.put("x", 1), Busy.put("x", 2), Busy.put("x", 3)])  # 3, 4, 5
    script.commands(b, [Busy.put("y", 1)])  # 6
    assert script.executor.acknowledged_index() == 2
    script.keep_alive(a, 2)
    assert script.executor.acknowledged_index() == 4
    script.keep_alive(a, 3)
    assert script.executor.acknowledged_index() == 5
    script.close(b)
    assert script.executor.acknowledged_index() == script.executor.last_applied == 9


def play(script: Script, steps: Sequence[tuple[int, list[Any]]]) -> list[tuple[int, Release]]:
    return released(*[script.commands(session, operations) for session, operations in steps])


def test_cuts_do_not_change_what_is_released() -> None:
    plays = []
    for longest in (1, 2, 100):
        script = Script(Busy(), longest)
        a, b = script.register("a"), script.register("b")
        steps: list[tuple[int, list[Any]]] = [
            (a, [Busy.put("x", 1), Busy.put("x", 2), Busy.put("y", 1), Busy.drop("x")]),
            (b, [Busy.put("y", 1), Busy.put("y", 2), Busy.hold("n"), Busy.hold("n")]),
            (a, [Busy.put("y", 1), Busy.let_go("n")]),
            (b, [Busy.count(1)]),
        ]
        plays.append(play(script, steps))
    assert plays[0] == plays[1] == plays[2]
    assert len(plays[0]) == 8
