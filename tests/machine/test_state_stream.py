"""A snapshot is encoded once, piece by piece, and is what the tree of the state would be."""

from __future__ import annotations

import dataclasses
import random
import tracemalloc
from collections import OrderedDict, defaultdict, deque
from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from copycat.errors import SerializationError
from copycat.machine import StateMachine
from copycat.machine import state_stream as streams
from copycat.machine.machine_section import MachineSections
from copycat.machine.session_executor import SessionExecutor
from copycat.machine.state_codec import StateEncoder
from copycat.machine.state_stream import StateStream
from copycat.storage._native import Env
from copycat.storage.snapshot_store import SnapshotStore
from copycat.types import EntryId, EntryKind, Run


@dataclasses.dataclass
class Point:
    x: int
    label: str


@dataclasses.dataclass(frozen=True)
class Name:
    text: str


class Pair(NamedTuple):
    left: Any
    right: Any


class Holder(StateMachine):
    kinds: tuple[Point, Name, Pair] | None

    def __init__(self) -> None:
        self.it: Any = None


def encoder_of(machine: Holder) -> StateEncoder:
    sections: MachineSections = SessionExecutor(machine)._runtime._sections
    return StateEncoder(machine, sections.nameable)


def streamed(value: Any) -> list[bytes]:
    pieces: list[bytes] = []
    stream = StateStream(encoder_of(Holder()), lambda piece: pieces.append(bytes(piece)))
    stream.value(value)
    stream.write_pending()
    return pieces


def as_tree(value: Any) -> bytes:
    return msgspec.msgpack.encode(encoder_of(Holder()).tree(value))


LEAF = st.none() | st.booleans() | st.floats(allow_nan=False) | st.text() | st.binary()
LEAF = LEAF | st.integers(-(1 << 70), 1 << 70)
VALUE: st.SearchStrategy[Any] = st.recursive(
    LEAF,
    lambda inside: (
        st.lists(inside, max_size=70)
        | st.tuples(inside, inside)
        | st.dictionaries(st.text() | st.integers() | st.tuples(st.text(), st.integers()), inside)
        | st.builds(deque, st.lists(inside, max_size=5))
        | st.builds(Point, st.integers(0, 9), st.text())
        | st.builds(Pair, inside, inside)
        | st.sets(st.text() | st.integers())
    ),
    max_leaves=60,
)


@settings(max_examples=150, deadline=None)
@given(value=VALUE, piece=st.sampled_from([1, 50, 256 << 10]))
def test_the_pieces_are_the_tree(value: Any, piece: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streams, "PIECE_NBYTES", piece)
        assert b"".join(streamed(value)) == as_tree(value)


def test_every_size_of_a_container_has_its_head() -> None:
    for count in (0, 1, 15, 16, 64, 65, 255, 256, 257, 65_535, 65_536):
        numbers = list(range(count))
        for value in (numbers, deque(numbers), set(numbers), dict.fromkeys(numbers, "x")):
            assert b"".join(streamed(value)) == as_tree(value)
        assert b"".join(streamed([numbers, tuple(numbers)])) == as_tree([numbers, tuple(numbers)])


def test_what_is_shared_is_named_by_its_place() -> None:
    one = [1, 2]
    ordered = OrderedDict(a=one, b=[one, {"c": one}])
    value = [one, {"k": one}, (one, [one]), ordered, defaultdict(list, x=one), Point(1, "p")]
    assert b"".join(streamed(value)) == as_tree(value)
    machine = Holder()
    executor = SessionExecutor(machine)
    machine.it = value
    other = Holder()
    SessionExecutor(other).install(executor.snapshot())
    back = other.it
    assert back == value
    assert back[1]["k"] is back[0] is back[2][0] is back[3]["b"][1]["c"] is back[4]["x"]


def test_keys_that_are_objects_do_not_mix_up_what_is_shared() -> None:
    """They were numbered before all values, and read between them: another list came back."""
    machine = Holder()
    executor = SessionExecutor(machine)
    one, two = [1], [2]
    machine.it = [{Name("a"): one, Name("b"): two}, one, two]
    other = Holder()
    SessionExecutor(other).install(executor.snapshot())
    table, first, second = other.it
    assert (first, second) == ([1], [2])
    assert table[Name("a")] is first
    assert table[Name("b")] is second


def test_what_code_makes_of_a_field_is_not_taken_for_something_else() -> None:
    @dataclasses.dataclass
    class Made:
        x: int

    def look(made: Made) -> list[int]:  # a new one each time, perhaps where the last one was
        return [len(vars(made))]

    def keep(made: Made, x: int) -> None:
        vars(made).clear()

    setattr(Made, "x", property(look, keep))  # noqa: B010  (mypy refuses the assignment)
    machine = Holder()
    machine.it = [Made(1) for _ in range(50)]
    encoder = encoder_of(machine)
    encoder._nameable[Made.__qualname__] = Made
    rows = encoder.tree(machine.it)[1:]
    assert [row[2] for row in rows] == [["list", 0]] * 50


def test_pieces_are_small_whatever_the_state_is() -> None:
    blob, text = random.Random(1).randbytes(5 << 20), "é" * (2 << 20)
    for value in (
        {number: blob[number : number + 1000] for number in range(5000)},
        [blob, text, bytearray(blob)],
        list(range(500_000)),
        [[number, "x"] for number in range(50_000)],
        (blob[: 900 << 10],) * 20,
    ):
        pieces = streamed(value)
        assert max(map(len, pieces)) <= (1 << 20) + 16
        assert b"".join(pieces) == as_tree(value)


@pytest.mark.parametrize("bad", [lambda: 0, "\ud800", [[["\ud800"]]], {"a": object()}])
def test_what_has_no_encoding_is_named(bad: Any) -> None:
    machine = Holder()
    executor = SessionExecutor(machine)
    machine.it = [1, bad]
    with pytest.raises(SerializationError, match=r"Holder\.it"):
        executor.snapshot()
    assert "Holder.it" in executor.snapshot_obstacle()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["values", "blob", "numbers"])
def test_a_snapshot_takes_little_memory_beside_the_state(kind: str, tmp_path: Any) -> None:
    """State and snapshot together stay below one and a half times the state."""
    machine = Holder()
    executor = SessionExecutor(machine)
    executor.apply([Run(1, EntryKind.TICK, 5, 0, 0, 0, [b""])])
    store = SnapshotStore(Env(), f"{tmp_path}/snapshots")
    rng = random.Random(2)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        if kind == "values":
            machine.it = {number: rng.randbytes(1000) for number in range(20_000)}
        elif kind == "blob":
            machine.it = rng.randbytes(20 << 20)
        else:
            machine.it = list(range(1000, 500_000))
        state = tracemalloc.get_traced_memory()[0] - before
        tracemalloc.reset_peak()
        writer = store.begin(EntryId(1, 1), time_ms=5, write=executor.write_snapshot)
        snapshot = store.finish(writer)
        peak = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    assert state > 15 << 20
    assert peak < 1.5 * state
    other = Holder()
    SessionExecutor(other).install(store.load(snapshot))
    assert other.it == machine.it
