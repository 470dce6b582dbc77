"""What the code of a machine's classes raises while a snapshot is read is named, and no damage."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest

from copycat.machine import StateMachine, command
from copycat.types import SessionState
from tests.machine.runs import Script
from tests.machine.shops import aliased, refused, restored


@dataclasses.dataclass(frozen=True)
class Place:
    """All of them have one hash, so a set compares them."""

    name: str

    def __hash__(self) -> int:
        return 1


HERE, THERE = Place("here"), Place("there")


@dataclasses.dataclass
class Box:
    place: Place
    content: Place | None = None


class Shelf(StateMachine):
    place: Place
    box: Box

    def __init__(self) -> None:
        self.count = 0
        self.old: Place | None = None

    @command
    def fill(self) -> None:
        self.places = {HERE, THERE}

    @command
    def pack(self) -> None:
        self.packed = Box(HERE, THERE)
        self.old = THERE

    @command(key="place")
    def put(self, place: Place) -> None:
        self.count += 1

    @command
    def watch(self) -> None:
        self.commit.session.on_state_change(self.ended)
        self.executor.schedule(1, self.ring)

    def ended(self, state: SessionState) -> None:
        self.count += 1

    def ring(self) -> None:
        self.count += 1


def written(*operations: Any) -> Script:
    script = Script(Shelf())
    script.commands(script.register(), operations)
    return script


class Async(Shelf):
    async def ended(self, state: SessionState) -> None:  # type: ignore[override]
        raise AssertionError("it was called")

    async def ring(self) -> None:  # type: ignore[override]
        raise AssertionError("it was called")


class Lazy(Shelf):
    def ended(self, state: SessionState) -> Iterator[int]:  # type: ignore[override]
        yield 1

    def ring(self) -> Iterator[int]:  # type: ignore[override]
        yield 1


@pytest.mark.parametrize("machine", [Async, Lazy])
def test_a_callback_of_which_a_call_runs_nothing_any_more_is_named_when_it_is_called(
    machine: type[Shelf], caplog: pytest.LogCaptureFixture
) -> None:
    script = written(Shelf.watch())
    (session,) = script.sequences
    restored(machine, script)
    caplog.clear()
    other = Script(machine())
    other.executor.install(script.executor.snapshot())
    assert caplog.text == ""
    other.tick(9000)
    other.close(session)
    assert f"{machine.__name__}.ring did nothing: it returned a" in caplog.text
    assert f"{machine.__name__}.ended did nothing: it returned a" in caplog.text
    assert other.machine.count == 0


def test_a_method_that_became_a_property_which_raises_is_named() -> None:
    class Shown(Shelf):
        @property
        def ring(self) -> int:  # type: ignore[override]
            raise ValueError("no ring")

    error = refused(Shown, written(Shelf.watch()))
    assert (error.class_name, error.field) == ("Shown", "ring")


def test_a_class_that_cannot_be_compared_any_more_is_named() -> None:
    @dataclasses.dataclass(frozen=True, eq=False)
    class Place:
        name: str

        def __hash__(self) -> int:
            return 1

        def __eq__(self, other: object) -> bool:
            raise ValueError("no two are alike")

    @aliased({"Place": Place})
    class Unequal(Shelf):
        pass

    for operations in [[Shelf.fill()], [Shelf.put(HERE), Shelf.put(THERE)]]:
        error = refused(Unequal, written(*operations))
        assert error.class_name == Place.__qualname__
        assert "no two are alike" in error.message


def test_the_class_of_a_key_that_cannot_be_hashed_any_more_is_named() -> None:
    @dataclasses.dataclass
    class Place:
        name: str

    @aliased({"Place": Place})
    class Soft(Shelf):
        pass

    for operations in [[Shelf.put(HERE)], [Shelf.put(HERE), Shelf.put(HERE)]]:
        error = refused(Soft, written(*operations))
        assert error.class_name == Place.__qualname__
        assert "cannot be hashed" in error.message


def test_a_record_that_cannot_be_made_or_filled_any_more_is_named() -> None:
    @dataclasses.dataclass
    class Abstract(abc.ABC):
        place: Place
        content: Place | None = None

        @abc.abstractmethod
        def weigh(self) -> int: ...

    @dataclasses.dataclass
    class Computed:
        place: Place
        content: Place | None = None

    Computed.content = property(str)  # type: ignore[assignment]
    kinds: list[tuple[type[Any], str]] = [(Abstract, ""), (Computed, "content")]
    for kind, field in kinds:

        @aliased({"Box": kind})
        class Changed(Shelf):
            pass

        error = refused(Changed, written(Shelf.pack()))
        assert (error.class_name, error.field) == (kind.__qualname__, field)


def test_a_value_without_a_truth_that_has_no_place_any_more_is_named() -> None:
    @dataclasses.dataclass(frozen=True)
    class Place:
        name: str

        def __bool__(self) -> bool:
            raise ValueError("neither true nor false")

    @dataclasses.dataclass
    class Small:
        place: Place

    @aliased({"Place": Place, "Box": Small})
    class Smaller(Shelf):
        pass

    @aliased({"Place": Place, "packed": None})
    class Without(StateMachine):
        box: Box

        @command
        def stay(self) -> None: ...

    script = written(Shelf.pack())
    for machine, label in [(Smaller, Small.__qualname__), (Without, "Without")]:
        error = refused(machine, script)
        assert error.class_name == label
        assert "neither true nor false" in error.message


def test_an_annotation_that_raises_is_no_annotation() -> None:
    class Odd(Shelf):
        odd: int("five")  # type: ignore[valid-type]

    restored(Odd, written(Shelf.watch()))
