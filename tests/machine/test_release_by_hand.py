"""Release by hand: modes, references, the same log as by key."""

from __future__ import annotations

from typing import Any

import pytest

from copycat.config import choice
from copycat.errors import ApplicationError, ConfigurationError
from copycat.machine import Commit, StateMachine, command, query
from copycat.machine.apply_result import ApplyResult
from copycat.machine.digest import encode_state
from copycat.machine.release_tracker import release_of
from copycat.protocol.operations import CompactionMode
from copycat.types import Release
from tests.machine.runs import Script, released, values

ANY, STABLE, SEQUENTIAL = Release.ANY, Release.STABLE, Release.SEQUENTIAL
SNAPSHOT, UNKNOWN = Release.SNAPSHOT, Release.UNKNOWN


@pytest.mark.parametrize(
    ("mode", "policy"),
    [
        (CompactionMode.RELEASE, ANY),
        (CompactionMode.QUORUM, ANY),
        (CompactionMode.FULL, STABLE),
        (CompactionMode.SEQUENTIAL, SEQUENTIAL),
        (CompactionMode.EXPIRING, SEQUENTIAL),
        (CompactionMode.TOMBSTONE, SEQUENTIAL),
        (CompactionMode.SNAPSHOT, SNAPSHOT),
        (CompactionMode.UNKNOWN, UNKNOWN),
    ],
)
def test_every_mode_has_its_class(mode: CompactionMode, policy: Release) -> None:
    for keyed in (False, True):
        assert release_of(mode, keyed=keyed, snapshottable=keyed) is policy


def test_three_modes_are_aliases_and_their_words_are_understood() -> None:
    names = {name: mode.name for name, mode in CompactionMode.__members__.items()}
    assert {name: other for name, other in names.items() if name != other} == {
        "RELEASE": "QUORUM",
        "EXPIRING": "SEQUENTIAL",
        "TOMBSTONE": "SEQUENTIAL",
    }
    assert len(CompactionMode) == 6  # five, and DEFAULT
    for word, mode in CompactionMode.__members__.items():
        assert CompactionMode(word.lower()) is mode
        assert choice(CompactionMode, word.lower(), "compaction") is mode
    with pytest.raises(ConfigurationError):
        choice(CompactionMode, "relase", "compaction")


def test_the_default_mode_depends_on_key_and_snapshots() -> None:
    default = CompactionMode.DEFAULT
    assert release_of(default, keyed=True, snapshottable=False) is ANY
    assert release_of(default, keyed=False, snapshottable=True) is SNAPSHOT
    assert release_of(default, keyed=False, snapshottable=False) is SEQUENTIAL


class Hands(StateMachine):
    """Counts references in all the ways there are."""

    def __init__(self) -> None:
        self.commits: list[Commit[Any]] = []

    @command(compaction=CompactionMode.RELEASE)
    def keep(self, times: int) -> int:
        for _ in range(times):
            self.commit.acquire()
        self.commits.append(self.commit)
        return self.commit.references

    @command(compaction=CompactionMode.RELEASE)
    def drop(self, at: int) -> bool:
        return self.commits[at].release()

    @command(compaction=CompactionMode.RELEASE)
    def at_once(self) -> None:
        with self.commit:
            assert self.commit.references == 1
        self.commit.close()

    @command(compaction=CompactionMode.RELEASE)
    def again(self, at: int) -> None:
        self.commits[at].acquire()

    @command(key="key")
    def put(self, key: str, commits: bool) -> None:
        if commits:
            self.commits.append(self.commit.acquire())

    @command(key="key", tombstone=True)
    def forget(self, key: str) -> None: ...

    @command(key="key")
    def wrong(self, key: str) -> None:
        self.commit.release()

    @query
    def cheat(self) -> bool:
        return self.commits[0].release()

    @query
    def own(self) -> int:
        self.commit.close()
        return 0


def hands() -> tuple[Script, int]:
    script = Script(Hands())
    return script, script.register()


def test_an_entry_goes_with_its_last_reference() -> None:
    script, session = hands()
    assert script.results(session, Hands.keep(1)) == [2]
    assert script.results(session, Hands.drop(0), Hands.drop(0)) == [False, True]
    outcome = script.commands(session, [Hands.drop(0), Hands.again(0)])
    late, error = values(outcome.replies)
    assert late is False
    assert isinstance(error, ApplicationError)
    assert "was released before" in error.message


def test_a_commit_is_a_context_manager() -> None:
    script, session = hands()
    assert released(script.commands(session, [Hands.at_once(), Hands.keep(0)])) == [(2, ANY)]


def test_releasing_outside_of_an_entry_is_refused_with_a_hint() -> None:
    script, session = hands()
    script.commands(session, [Hands.keep(0)])
    for ask in (Hands.cheat(), Hands.own()):
        assert "while no entry is applied" in str(script.query(session, ask))
    with pytest.raises(ApplicationError, match="while no entry") as caught:
        script.machine.commits[0].release()
    assert caught.value.hint is not None
    assert script.machine.commits[0].references == 1


def test_a_keyed_entry_may_be_kept_longer_but_not_shorter_than_its_key() -> None:
    script, session = hands()
    script.commands(session, [Hands.put("a", True), Hands.put("a", False), Hands.forget("a")])
    # Entry 2 is kept, so what deletes it stays too.
    outcome = script.commands(session, [Hands.keep(0)])
    assert released(outcome) == []
    assert script.results(session, Hands.drop(0)) == [False]
    (error,) = script.results(session, Hands.wrong("b"))
    assert "belongs to its key" in error.message


def test_a_kept_keyed_entry_goes_when_it_is_let_go_and_its_deletion_after_it() -> None:
    script, session = hands()
    script.commands(session, [Hands.put("a", True), Hands.put("a", False), Hands.forget("a")])
    script.commands(session, [Hands.keep(0)])
    assert released(script.commands(session, [Hands.drop(0)])) == [(2, ANY), (4, SEQUENTIAL)]


def test_commits_in_the_state_are_encoded_as_their_index() -> None:
    script, session = hands()
    script.commands(session, [Hands.keep(0)])
    assert script.executor.encode_state() == encode_state({"commits": [2]})


class Strict(StateMachine):
    """Values kept by hand in entries that go with a snapshot only."""

    def __init__(self) -> None:
        self.commits: dict[str, Commit[Any]] = {}

    @command(compaction=CompactionMode.SNAPSHOT)
    def put(self, name: str) -> None:
        self._release(name)
        self.commits[name] = self.commit

    @command(compaction=CompactionMode.UNKNOWN)
    def put_unknown(self, name: str) -> None:
        self._release(name)
        self.commits[name] = self.commit

    @command(compaction=CompactionMode.TOMBSTONE)
    def drop(self, name: str) -> None:
        self._release(name)
        self.commit.release()

    @command(compaction=CompactionMode.TOMBSTONE)
    def drop_itself_first(self, name: str) -> None:
        self.commit.release()
        self._release(name)

    @command(compaction=CompactionMode.TOMBSTONE)
    def nothing_left(self) -> None:
        """Deletes nothing."""
        self.commit.release()

    def _release(self, name: str) -> None:
        old = self.commits.pop(name, None)
        if old is not None:
            old.release()


@pytest.mark.parametrize("longest", [1, 2, 100])
@pytest.mark.parametrize("drop", [Strict.drop("x"), Strict.drop_itself_first("x")])
@pytest.mark.parametrize(
    ("put", "policy"), [(Strict.put("x"), SNAPSHOT), (Strict.put_unknown("x"), UNKNOWN)]
)
def test_a_deletion_by_hand_is_as_strict_as_what_it_deletes(
    longest: int, drop: Any, put: Any, policy: Release
) -> None:
    """Else a major compaction takes the deletion, and a restart finds what it deleted."""
    script = Script(Strict(), longest)
    session = script.register()
    outcomes = [script.commands(session, [put, put, drop, Strict.put("y")])]  # 2, 3, 4, 5
    outcomes.append(script.close(session))
    assert released(*outcomes) == [(2, policy), (3, policy), (4, UNKNOWN)]


@pytest.mark.parametrize("longest", [1, 2, 100])
def test_a_deletion_by_hand_does_not_look_ahead_however_entries_are_cut(longest: int) -> None:
    """What was deleted before anything strict was released needs no snapshot; all else does."""
    script = Script(Strict(), longest)
    session = script.register()
    operations = [
        Strict.nothing_left(),
        Strict.put("x"),
        Strict.drop("x"),
        Strict.nothing_left(),
        Strict.put("y"),
    ]
    outcomes = [script.commands(session, operations), script.close(session)]
    assert released(*outcomes) == [(2, SEQUENTIAL), (3, SNAPSHOT), (4, UNKNOWN), (5, UNKNOWN)]


@pytest.mark.parametrize("longest", [1, 100])
def test_a_deletion_that_lets_itself_go_first_waits_for_what_it_deletes(longest: int) -> None:
    """What it deletes is held by a session that idles (C19)."""
    script = Script(Strict(), longest)
    idle, session = script.register("idle"), script.register()
    script.commands(idle, [Strict.put("x")])  # 3
    outcome = script.commands(session, [Strict.drop_itself_first("x"), Strict.put("y")])
    assert released(outcome) == []
    assert released(script.close(idle)) == [(3, SNAPSHOT), (4, UNKNOWN)]


def test_a_snapshot_keeps_how_strict_deletions_by_hand_are() -> None:
    script = Script(Strict())
    session = script.register()
    script.commands(session, [Strict.put("x"), Strict.put("x")])
    other = Script(Strict())
    other.executor.install(script.executor.snapshot())
    other.sequences = dict(script.sequences)
    for each in (script, other):
        outcomes = [each.commands(session, [Strict.drop("x")]), each.close(session)]
        assert released(*outcomes) == [(3, SNAPSHOT), (4, UNKNOWN)]


_MODES = [mode for mode in CompactionMode if mode is not CompactionMode.DEFAULT]


@pytest.mark.parametrize("mode", _MODES)
def test_by_hand_and_by_key_give_the_same_log(mode: CompactionMode) -> None:
    class Keyed(StateMachine):
        @command(key="name", compaction=mode)
        def put(self, name: str, value: int) -> None: ...

        @command(key="name", tombstone=True)
        def drop(self, name: str) -> None: ...

    class ByHand(StateMachine):
        def __init__(self) -> None:
            self.commits: dict[str, Commit[Any]] = {}

        @command(compaction=mode)
        def put(self, name: str, value: int) -> None:
            self._replace(name)
            self.commits[name] = self.commit

        @command(compaction=CompactionMode.TOMBSTONE)
        def drop(self, name: str) -> None:
            self._replace(name)
            self.commit.release()

        def _replace(self, name: str) -> None:
            old = self.commits.pop(name, None)
            if old is not None:
                old.release()

    def play(kind: Any) -> list[tuple[int, Release]]:
        script = Script(kind())
        sessions = [script.register(str(number)) for number in range(3)]
        outcomes: list[ApplyResult] = []
        for step in range(60):
            name = "abc"[step * 7 % 3]
            operation = kind.drop(name) if step % 5 == 4 else kind.put(name, step)
            outcomes.append(script.commands(sessions[step * 5 % 4 % 3], [operation]))
        outcomes += [script.close(session) for session in sessions]
        return released(*outcomes)

    releases = play(ByHand)
    assert releases == play(Keyed)
    assert len(releases) > 50
