"""Versions of a machine, snapshots of its own making, and formats of copycat's."""

from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from copycat.errors import (
    ConfigurationError,
    CorruptLogError,
    FormatVersionError,
    MachineMismatchError,
    SerializationError,
)
from copycat.machine import SnapshotReader, SnapshotWriter, command
from copycat.machine.session_executor import SessionExecutor
from tests.machine import old_release_tracker
from tests.machine.old_release_tracker import Accounts, script_of
from tests.machine.shops import (
    Item,
    Pair,
    Shop,
    refused,
    restored,
    written,
)

GOLDEN = bytes.fromhex(Path(__file__).with_name("golden_snapshot.txt").read_text("utf-8"))


def test_a_snapshot_of_the_first_format_is_read() -> None:
    replayed = script_of(Accounts())
    restored = SessionExecutor(Accounts())
    restored.install(GOLDEN)
    assert restored.digest() == replayed.executor.digest()
    again = SessionExecutor(Accounts())
    again.install(restored.snapshot())
    assert again.digest() == replayed.executor.digest()
    assert again.snapshot() == restored.snapshot() == replayed.executor.snapshot()
    release_tracker: Any = restored.machine
    assert release_tracker.lines[0].account is release_tracker.accounts["ann"]


def test_fields_at_the_end_are_filled_in_the_first_format_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    @dataclasses.dataclass
    class Account:
        owner: str
        balance: int = 0
        tags: list[str] = dataclasses.field(default_factory=list)

    class Pair(NamedTuple):
        left: int
        right: str
        more: float = 1.5

    class Longer(Accounts):
        accounts: dict[str, Account]  # type: ignore[assignment]
        pair: Pair  # type: ignore[assignment]

        def __init__(self) -> None:
            super().__init__()
            self.notes: dict[str, int] = {"new": 1}

    monkeypatch.setattr(old_release_tracker, "Account", Account)
    monkeypatch.setattr(old_release_tracker, "Pair", Pair)
    aliases = {"Account": Account, "Pair": Pair}
    monkeypatch.setattr(Longer, "snapshot_aliases", aliases)
    restored = SessionExecutor(Longer())
    restored.install(GOLDEN)
    machine: Any = restored.machine
    assert machine.accounts["ann"] == Account("ann", 2**40 + 1, [])
    assert machine.pair == (1, "ann", 1.5)
    assert machine.notes == {"new": 1}
    assert script_of(Longer()).machine.notes == machine.notes


def test_a_raised_version_alone_changes_nothing() -> None:
    class Raised(Shop):
        version = 9

    executor, _ = restored(Raised)
    assert executor.digest() == written().executor.digest()
    newer = written(Raised)
    error = refused(Shop, newer)
    assert "version 9 cannot be installed in Shop version 1" in error.message


class Own(Shop):
    version = 2
    seen_versions: list[int]

    def snapshot(self, writer: SnapshotWriter) -> None:
        writer.write_object([self.total, [item.name for item in self.items.values()]])

    def install(self, reader: SnapshotReader, version: int) -> None:
        self.__init__()  # type: ignore[misc]
        self.asked = version
        if reader.attributes is not None:
            self.total = reader.attributes["total"]
            self.items = dict(reader.attributes["items"])
        else:
            self.total, names = reader.read_object(tuple[int, list[str]])
            self.items = {name: Item(name) for name in names}


def test_an_own_snapshot_that_came_later_reads_what_the_default_one_wrote() -> None:
    executor = SessionExecutor(Own())
    executor.install(written().executor.snapshot())
    machine: Any = executor.machine
    assert (machine.total, machine.asked) == (6, 1)
    assert machine.items == {"a": Item("a", 3), "b": Item("b", 2)}

    class Newer(Own):
        version = 7

    again = SessionExecutor(Newer())
    again.install(executor.snapshot())
    newer: Any = again.machine
    assert (newer.total, newer.asked) == (6, 2)


@pytest.mark.parametrize("form", ["by name", "by place", "any"])
def test_the_version_comes_however_install_takes_it(form: str) -> None:
    versions: list[int] = []

    class ByName(Own):
        def install(  # type: ignore[override]
            self, reader: SnapshotReader, *, version: int
        ) -> None:
            super().install(reader, version)
            versions.append(version)

    class ByPlace(Own):
        def install(self, reader: SnapshotReader, written_by: int = 0) -> None:
            super().install(reader, written_by)
            versions.append(written_by)

    class Anyhow(Own):
        def install(self, *arguments: Any) -> None:
            super().install(*arguments)
            versions.append(arguments[1])

    kind = {"by name": ByName, "by place": ByPlace, "any": Anyhow}[form]
    SessionExecutor(kind()).install(written(Own).executor.snapshot())
    assert versions == [2]


class Plain(Shop):
    """Its install() knows of no versions."""

    def snapshot(self, writer: SnapshotWriter) -> None:
        writer.write_object(self.total)

    def install(self, reader: SnapshotReader) -> None:
        self.total = reader.read_object(int)


def test_an_install_that_reads_the_wrong_thing_is_named_and_no_damage() -> None:
    class Looks(Plain):
        def install(self, reader: SnapshotReader) -> None:
            reader.read()

    class Fails(Plain):
        def install(self, reader: SnapshotReader) -> None:
            raise KeyError("total")

    class Other(Plain):
        def install(self, reader: SnapshotReader) -> None:
            self.items = reader.read_object(dict[str, Item])

    default, own = written().executor.snapshot(), written(Plain).executor.snapshot()
    for machine, data, expected, hint in (
        (Plain, default, "before the machine had a snapshot", "reader.attributes"),
        (Looks, default, "did not read the attributes", "reader.attributes"),
        (Fails, own, "KeyError: 'total'; it was given a snapshot of version 1", "install"),
        (Other, own, "is no dict", "version"),
    ):
        with pytest.raises(MachineMismatchError, match=expected) as caught:
            SessionExecutor(machine()).install(data)
        assert (caught.value.class_name, caught.value.field) == (machine.__name__, "install")
        assert hint in (caught.value.hint or "")


def test_an_own_snapshot_that_was_removed_is_named() -> None:
    error = refused(Shop, written(Plain))
    assert "keep install()" in error.hint


# ---- what is no class -----------------------------------------------------------------------


def test_a_callback_that_is_gone_is_named() -> None:
    class Silent(Shop):
        ring = None  # type: ignore[assignment]

    script = written()
    script.commands(1, [Shop.later(1.0)])
    error = refused(Silent, script)
    assert (error.class_name, error.field) == ("Silent", "ring")


def test_a_callback_that_takes_something_else_is_named() -> None:
    class Before(Shop):
        @command
        def call(self, name: str) -> None:
            self.executor.schedule(1, partial(self.ring_for, name, loud=True))

        def ring_for(self, name: str, *, loud: bool) -> None: ...

    class After(Before):
        def ring_for(self, name: str) -> None: ...  # type: ignore[override]

    script = written(Before)
    script.commands(1, [Before.call("x")])
    restored(Before, script)
    error = refused(After, script)
    assert (error.class_name, error.field) == ("After", "ring_for")


def test_a_kept_command_that_is_gone_is_named() -> None:
    class Vanished(Shop):
        keep = None  # type: ignore[assignment]

    script = written()
    script.commands(1, [Shop.keep()])
    data = script.executor.snapshot()
    with pytest.raises(MachineMismatchError) as caught:
        SessionExecutor(Vanished()).install(data)
    assert caught.value.operation == "Vanished.keep"


def test_none_that_became_something_is_named_and_the_other_way_is_fine() -> None:
    class Empty(Shop):
        def __init__(self) -> None:
            super().__init__()
            self.owner: str | None = None

    class Filled(Shop):
        def __init__(self) -> None:
            super().__init__()
            self.owner = "nobody"

    assert refused(Filled, written(Empty)).field == "owner"
    assert restored(Empty, written(Filled))[1].owner == "nobody"

    class Annotated(Filled):
        owner: str | None  # type: ignore[assignment]

    assert restored(Annotated, written(Empty))[1].owner is None


# ---- the format --------------------------------------------------------------------------------


def test_a_later_format_is_said_to_be_one() -> None:
    data = bytearray(written().executor.snapshot())
    data[4] = 3
    with pytest.raises(FormatVersionError, match="has format 3"):
        SessionExecutor(Shop()).install(bytes(data))
    for short in (b"", b"CCST"):
        with pytest.raises(CorruptLogError):
            SessionExecutor(Shop()).install(short)


@pytest.mark.parametrize("number", ["2", None, 1.0, True, -1])
def test_a_version_is_a_number(number: Any) -> None:
    class Wrong(Shop):
        version = number

    with pytest.raises(ConfigurationError, match=r"Wrong\.version must be an int"):
        SessionExecutor(Wrong())


@pytest.mark.parametrize("table", [5, {1: "x"}, {"Item": 7}])
def test_aliases_are_checked_when_the_machine_is_made(table: Any) -> None:
    class Wrong(Shop):
        snapshot_aliases = table

    with pytest.raises(ConfigurationError, match=r"Wrong\.snapshot_aliases"):
        SessionExecutor(Wrong())


class Mute(Exception):
    def __str__(self) -> str:
        raise ValueError("no text")


def test_an_install_whose_error_has_no_text_is_named() -> None:
    class Broken(Shop):
        def snapshot(self, writer: SnapshotWriter) -> None: ...

        def install(self, reader: SnapshotReader) -> None:
            raise Mute

    executor = SessionExecutor(Broken())
    with pytest.raises(MachineMismatchError, match=r"Broken\.install\(\) raised Mute") as caught:
        executor.install(written().executor.snapshot())
    assert caught.value.field == "install"


@pytest.mark.parametrize(
    ("error", "expected"), [(ValueError("no room"), ": no room"), (Mute(), "")]
)
def test_what_a_snapshot_raised_is_named_with_its_text(error: Exception, expected: str) -> None:
    class Broken(Shop):
        def snapshot(self, writer: SnapshotWriter) -> None:
            raise error

        def install(self, reader: SnapshotReader) -> None: ...

    kind = type(error).__name__
    with pytest.raises(
        SerializationError, match=rf"^Broken raised {kind}{expected}.* while a snap"
    ):
        written(Broken).executor.snapshot()
