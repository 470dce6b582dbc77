"""I20: equal logs give equal digests and replies, whatever the hash seed and the cuts."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from copycat.machine import StateMachine, command
from copycat.machine.apply_result import RunReply
from copycat.machine.digest import encode_state
from copycat.machine.envelope import (
    encode_close,
    encode_expire,
    encode_keep_alive,
    encode_register,
)
from copycat.machine.kv import KeyValueStore
from copycat.machine.session_executor import SessionExecutor
from copycat.protocol.operations import encode_operation
from copycat.types import EntryKind
from tests.machine.runs import Entry, Script, cut

ROOT = Path(__file__).parents[2]
_split = msgspec.msgpack.Decoder(list[msgspec.Raw]).decode


@dataclass
class Point:
    x: int
    tags: set[str]


class Hashy(StateMachine):
    """Keeps sets, random numbers, timers and mutable results: all that could differ."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.deep: dict[str, list[set[bytes]]] = {}
        self.point = Point(1, set())
        self.rolls: list[int] = []

    @command
    def add(self, name: str) -> list[str]:
        self.names.add(name)
        self.point.tags.add(name)
        self.deep.setdefault(name[:1], []).append({name.encode(), b"x", b"y"})
        self.rolls.append(self.context.random.randrange(1000))
        self.executor.schedule(0.5, lambda: self.names.discard(name))
        return sorted(self.names)

    @command
    def fail(self, name: str) -> None:
        raise ValueError(name, object())


def story() -> list[Entry]:
    """A log with everything in it: two sessions, duplicates, gaps, bad bytes, time, expiry."""
    entries: list[Entry] = [
        (EntryKind.NOOP, 1000, 0, 0, 0, b""),
        (EntryKind.REGISTER, 1000, 0, 0, 0, encode_register("a", 5000)),
        (EntryKind.REGISTER, 1001, 0, 0, 0, encode_register("b", 5000)),
    ]

    def commands(session: int, first: int, count: int, acked: int, time_ms: int) -> None:
        for sequence in range(first, first + count):
            name = f"{'qwertz'[sequence % 6]}{sequence}"
            operation = Hashy.fail(name) if sequence % 7 == 3 else Hashy.add(name)
            payload = b"" if sequence % 11 == 5 else encode_operation(operation)
            entries.append((EntryKind.COMMAND, time_ms, session, sequence, acked, payload))

    commands(2, 1, 20, 0, 1100)
    commands(3, 1, 9, 0, 1100)
    commands(2, 15, 10, 12, 1300)  # 15 to 20 are resent
    entries.append((EntryKind.TICK, 1700, 0, 0, 0, b""))
    commands(2, 30, 3, 12, 1700)  # a gap
    commands(2, 25, 5, 17, 1700)
    entries.append((EntryKind.KEEP_ALIVE, 1800, 0, 0, 0, encode_keep_alive(3, 4)))
    commands(3, 10, 5, 6, 1800)
    entries.append((EntryKind.EXPIRE, 1900, 0, 0, 0, encode_expire(2, 3)))
    entries.append((EntryKind.REGISTER, 1900, 0, 0, 0, encode_register("b", 700)))
    commands(3, 15, 2, 6, 1900)  # replaced: no effect
    entries.append((EntryKind.CLOSE, 2000, 0, 0, 0, encode_close(3)))
    commands(2, 30, 4, 18, 2000)
    return entries


def play(machine: StateMachine, longest: int, slices: int) -> tuple[bytes, list[Any]]:
    """(digest, every result by session and sequence in order, changes and rejections)."""
    executor = SessionExecutor(machine)
    runs = cut(story(), 1, longest)
    seen: list[Any] = []
    for at in range(0, len(runs), slices):
        outcome = executor.apply(runs[at : at + slices])
        seen += flat(outcome.replies)
        seen += outcome.changes
        seen += outcome.rejected
    return executor.digest(), sorted(seen, key=repr)


def flat(replies: list[RunReply]) -> list[tuple[int, int, bytes]]:
    return [
        (reply.session, reply.first_sequence + offset, bytes(raw))
        for reply in replies
        for offset, raw in enumerate(_split(reply.body))
    ]


@pytest.mark.slow
@settings(max_examples=40)
@given(longest=st.integers(1, 40), slices=st.integers(1, 20))
def test_i20_cuts_do_not_show(longest: int, slices: int) -> None:
    assert play(Hashy(), longest, slices) == play(Hashy(), 1000, 1000)


def test_the_story_is_worth_telling() -> None:
    executor = SessionExecutor(Hashy())
    outcome = executor.apply(cut(story(), 1, 1000))
    assert len(outcome.rejected) == 3 + 2 + 1
    assert sum(len(row.client_id) for row in executor.session_rows()) == 2
    assert {row.session: row.acked_sequence for row in executor.session_rows()}[2] == 18
    assert executor.encode_state() is not None


def test_digests_tell_states_apart() -> None:
    def digest(value: bytes, *, ack: int = 0, tick: int = 2000) -> bytes:
        script = Script(KeyValueStore())
        session = script.register()
        script.commands(session, [KeyValueStore.put("a", value)], acked=0)
        script.keep_alive(session, ack)
        script.tick(tick)
        return script.executor.digest()

    base = digest(b"1")
    assert digest(b"1") == base
    assert len(base) == 32
    for other in (digest(b"2"), digest(b"1", ack=1), digest(b"1", tick=2001)):
        assert other != base


def test_entries_for_snapshots_and_timers_are_in_the_digest() -> None:
    left, right = Script(Hashy()), Script(Hashy())
    left.record_incarnation(1, 2)
    right.record_incarnation(1, 3)
    assert left.executor.digest() != right.executor.digest()


def test_a_state_without_encoding_is_left_out_by_name() -> None:
    assert encode_state({"a": object()}) is None
    assert encode_state({"a": lambda: 1}) is None
    assert encode_state({"a": {1, 2}, "b": [Point(1, {"x"})]}) is not None
    cycle: list[Any] = []
    cycle.append(cycle)
    assert encode_state({"a": cycle}) is None


def main() -> None:
    digest, seen = play(Hashy(), 1000, 1000)
    sys.stdout.write(f"{digest.hex()} {hash('x') % 997}\n{seen!r}\n")


@pytest.mark.slow
def test_i20_the_hash_seed_does_not_show() -> None:
    outputs = []
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)}
        code = "from tests.machine.test_determinism import main; main()"
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        outputs.append(done.stdout.split(maxsplit=2))
    one, two = outputs
    assert one[1] != two[1]  # the seeds did differ
    assert one[0] == two[0]
    assert one[2] == two[2]
