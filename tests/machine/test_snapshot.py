"""I12: a snapshot is worth the log below it, with timers, keys and replies still to come."""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from copycat.errors import (
    CorruptLogError,
    FormatVersionError,
    InvariantError,
    MachineMismatchError,
    SerializationError,
)
from copycat.machine import ServerSession, SnapshotReader, SnapshotWriter, StateMachine, command
from copycat.machine.kv import KeyValueStore
from copycat.machine.session_executor import SessionExecutor
from copycat.types import EntryKind, Run, SessionState
from tests.machine.cleaning import Busy, frames
from tests.machine.runs import Script
from tests.machine.test_cleaned_replay import STEPS, write


@pytest.mark.slow
@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps=st.lists(STEPS, min_size=5, max_size=40), data=st.data())
def test_i12_a_snapshot_is_worth_the_log_below_it(steps: list[Any], data: st.DataObject) -> None:
    runs = frames(write(steps).entries, [], 0)
    at = data.draw(st.integers(1, len(runs)))
    one, two = SessionExecutor(Busy()), SessionExecutor(Busy())
    one.apply(runs[:at])
    two.apply(runs[: data.draw(st.integers(1, at))])  # whatever it was, it is replaced
    image = one.snapshot()
    two.install(image)
    assert two.digest() == one.digest()
    assert two.snapshot() == image
    for run in runs[at:]:
        assert two.apply([run]) == one.apply([run])
        assert two.digest() == one.digest()


class Own(StateMachine):
    """Writes its snapshots itself, and keeps what has no encoding."""

    version = 3

    def __init__(self) -> None:
        self.names: list[str] = []
        self.lock = object()

    @command
    def add(self, name: str) -> int:
        self.names.append(name)
        return len(self.names)

    def snapshot(self, writer: SnapshotWriter) -> None:
        writer.write(b"magic")
        writer.write_object(self.names)
        writer.write_object({"count": len(self.names)})

    def install(self, reader: SnapshotReader) -> None:
        assert reader.read(5) == b"magic"
        self.names = reader.read_object(list[str])
        assert reader.read_object(dict[str, int]) == {"count": len(self.names)}


def script_of(machine: StateMachine) -> tuple[Script, int]:
    script = Script(machine)
    return script, script.register()


def test_a_machine_may_write_its_snapshots_itself() -> None:
    script, session = script_of(Own())
    script.commands(session, [Own.add("a"), Own.add("b")])
    assert script.executor.snapshot_obstacle() == ""
    other = SessionExecutor(Own())
    other.install(script.executor.snapshot())
    assert other.machine.names == ["a", "b"]  # type: ignore[attr-defined]
    assert other.last_applied == 3
    assert [reply.count for reply in other.cached_replies(session, 1, 2)] == [2]


class Forgetful(Own):
    def install(self, reader: SnapshotReader) -> None:
        self.names = []


def test_an_install_that_leaves_bytes_is_an_error_and_ends_the_executor() -> None:
    script, _ = script_of(Forgetful())
    other = SessionExecutor(Forgetful())
    with pytest.raises(MachineMismatchError, match=r"Forgetful.install\(\) left \d+ of \d+ bytes"):
        other.install(script.executor.snapshot())
    with pytest.raises(InvariantError):
        other.apply([Run(1, EntryKind.NOOP, 1, 0, 0, 0, [b""])])


def test_another_version_of_the_machine_is_refused() -> None:
    class Newer(Own):
        version = 4

    script, _ = script_of(Own())
    with pytest.raises(MachineMismatchError, match=r"version 3 .* version 4") as caught:
        SessionExecutor(Newer()).install(script.executor.snapshot())
    assert "install(self, reader, version)" in (caught.value.hint or "")


@pytest.mark.parametrize("spoil", [lambda b: b[:-1], lambda b: b + b"\0", lambda b: b[:5]])
def test_f28_bytes_that_are_no_snapshot_change_nothing(spoil: Any) -> None:
    script, session = script_of(KeyValueStore())
    script.commands(session, [KeyValueStore.put("a", b"1")])
    before = script.executor.digest()
    with pytest.raises(CorruptLogError):
        script.executor.install(spoil(script.executor.snapshot()))
    assert script.executor.digest() == before
    assert script.results(session, KeyValueStore.swap("a", b"2")) == [b"1"]


def test_f28_no_byte_of_a_snapshot_can_do_more_than_be_refused() -> None:
    script, session = script_of(KeyValueStore())
    script.commands(session, [KeyValueStore.put("a", b"1"), KeyValueStore.append("b", b"2")])
    image = script.executor.snapshot()
    target = SessionExecutor(KeyValueStore())
    refused = 0
    for at in range(len(image)):
        for flip in (0x01, 0x80):
            wrong = bytearray(image)
            wrong[at] ^= flip
            before = target.digest()
            try:
                target.install(bytes(wrong))
            except (CorruptLogError, FormatVersionError, MachineMismatchError):
                refused += 1
                assert target.digest() == before
    assert refused > len(image)


class Clockwork(StateMachine):
    """Timers of every sort, sessions in the state, a listener."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.handles: list[Any] = []
        self.owners: dict[str, ServerSession] = {}

    @command
    def start(self, name: str, seconds: float, interval: float | None) -> None:
        call = partial(self.ring, name, loud=True)
        self.handles.append(self.executor.schedule(seconds, call, interval=interval))
        self.owners[name] = self.commit.session

    @command
    def stop(self, number: int) -> None:
        self.handles[number].cancel()

    @command
    def watch(self) -> None:
        self.commit.session.on_state_change(self.ended)

    @command
    def secret(self) -> None:
        self.executor.schedule(1, lambda: None)

    def ring(self, name: str, *, loud: bool) -> None:
        self.heard.append(f"{name} {loud} {self.owners[name].state.value}")

    def ended(self, state: SessionState) -> None:
        self.heard.append(state.value)


def test_timers_their_handles_and_listeners_come_back() -> None:
    script, session = script_of(Clockwork())
    start = Clockwork.start
    script.commands(session, [start("a", 1, None), start("b", 1, 2), start("c", 1, None)])
    script.commands(session, [Clockwork.stop(2), Clockwork.watch()])
    script.tick(1500)
    other = Script(Clockwork())
    other.executor.install(script.executor.snapshot())
    other.sequences = dict(script.sequences)
    for one in (script, other):
        one.tick(2500)
        assert one.machine.heard == ["a True open", "b True open"]
        one.commands(session, [Clockwork.stop(1)])  # the handle in the state is the timer's own
        one.close(session)
        one.tick(9000)
        assert one.machine.heard == ["a True open", "b True open", "closed"]
        assert one.machine.owners["a"].state is SessionState.CLOSED
    assert other.executor.digest() == script.executor.digest()
    again = SessionExecutor(Clockwork())
    again.install(other.executor.snapshot())  # a session that is over is in the state
    assert again.digest() == script.executor.digest()


class Carillon(StateMachine):
    """Schedules methods of its class, and one of another class."""

    chimes: ClassVar[list[str]] = []

    @command
    def start(self, seconds: float) -> None:
        self.executor.schedule(seconds, self.chime)
        self.executor.schedule(seconds, partial(type(self).chime, "twice"))

    @command
    def foreign(self) -> None:
        self.executor.schedule(1, Bell.chime)

    @classmethod
    def chime(cls, text: str = "once") -> None:
        cls.chimes.append(f"{cls.__name__} {text}")


class Bell(Carillon):
    """Its `chime` is bound to another class."""


def test_a_scheduled_classmethod_comes_back() -> None:
    script, session = script_of(Carillon())
    script.commands(session, [Carillon.start(1)])
    assert script.executor.snapshot_obstacle() == ""
    other = Script(Carillon())
    other.executor.install(script.executor.snapshot())
    Carillon.chimes.clear()
    other.tick(2500)
    assert Carillon.chimes == ["Carillon once", "Carillon twice"]
    script.commands(session, [Carillon.foreign()])
    assert "Carillon.chime: it is no method of the machine" in script.executor.snapshot_obstacle()


def test_what_is_in_the_way_is_named() -> None:
    script, session = script_of(Clockwork())
    script.commands(session, [Clockwork.secret()])
    obstacle = script.executor.snapshot_obstacle()
    assert "the callback scheduled for log time 2000 ms" in obstacle
    assert "lambda" in obstacle
    script.tick(3000)
    assert script.executor.snapshot_obstacle() == ""
    script.machine.socket = object()
    assert "Clockwork.socket" in script.executor.snapshot_obstacle()
    with pytest.raises(SerializationError, match=r"Clockwork\.socket"):
        script.executor.snapshot()


def test_c22_no_snapshot_while_replaying() -> None:
    executor = SessionExecutor(KeyValueStore())
    executor.apply([Run(1, EntryKind.GAP, 1000, 0, 3, 5, [])])
    with pytest.raises(InvariantError, match="being replayed"):
        executor.snapshot()
    noops = [Run(index, EntryKind.NOOP, 1000, 0, 0, 0, [b""]) for index in range(3, 6)]
    executor.apply(noops)
    assert msgspec.msgpack.decode(executor.snapshot()[5:])[2][0] == 5
