"""`check_blind_writes` says which command is none, and is silent about good ones."""

from __future__ import annotations

from typing import Any

import pytest

from copycat.errors import ConfigurationError, StateDivergedError
from copycat.machine import StateMachine, command
from copycat.machine.kv import KeyValueStore
from copycat.testing import check_blind_writes
from tests.machine.cleaning import Busy


class Careless(StateMachine):
    """Keys what reads, and writes beyond its key."""

    def __init__(self) -> None:
        self.values: dict[str, int] = {}
        self.writes = 0
        self.opaque: Any = None

    @command(key="name")
    def add(self, name: str, step: int) -> None:
        self.values[name] = self.values.get(name, 0) + step

    @command(key="name")
    def put(self, name: str, value: int) -> None:
        self.values[name] = value

    @command(key="name")
    def counted(self, name: str) -> None:
        self.writes += 1

    @command(key="name", tombstone=True)
    def half(self, name: str) -> None:
        """Deletes nothing."""

    @command
    def hide(self) -> None:
        self.opaque = object()


def test_good_machines_pass() -> None:
    kv = KeyValueStore
    operations = [
        kv.put("a", b"1"),
        kv.swap("a", b"2"),
        kv.compare_and_set("a", b"2", b"3"),
        kv.delete("a"),
        kv.compare_and_set("a", None, b"4"),
        kv.put("b", b"5"),
        kv.delete("a"),
        kv.append("l", b"x"),
        kv.delete("b"),
    ]
    check_blind_writes(KeyValueStore, operations)
    check_blind_writes(
        Busy,
        [
            Busy.put("a", 1),
            Busy.lend("a", 2, 1.5),
            Busy.hold("n"),
            Busy.hold("n"),
            Busy.let_go("n"),
            Busy.pick("a", 3),
            Busy.drop("a"),
        ],
    )


@pytest.mark.parametrize(
    ("operations", "name"),
    [
        ([Careless.put("a", 1), Careless.add("a", 1)], "Careless.add"),
        ([Careless.counted("a"), Careless.counted("a")], "Careless.counted"),
        ([Careless.put("a", 1), Careless.half("a")], "Careless.half"),
    ],
)
def test_a_command_that_is_no_blind_write_is_named(operations: list[Any], name: str) -> None:
    with pytest.raises(StateDivergedError, match=name) as caught:
        check_blind_writes(Careless, operations)
    assert caught.value.hint is not None
    assert "reads=True" in caught.value.hint


def test_a_state_that_cannot_be_compared_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="Careless has an attribute"):
        check_blind_writes(Careless, [Careless.hide()])
