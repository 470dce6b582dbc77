"""An entry that the operator skips: the user's code is not called, and members agree on that."""

from __future__ import annotations

import pytest

from copycat import ApplicationError, StateMachine, command
from copycat.machine.sessions import ServerSession
from copycat.machine.skipping import cut_at
from copycat.types import EntryKind, Run
from tests.machine.runs import Script


class Counter(StateMachine):
    def __init__(self) -> None:
        self.count = 0
        self.fired: list[str] = []

    @command
    def add(self, by: int) -> int:
        self.count += by
        return self.count

    @command(key="name")
    def put(self, name: str) -> int:
        self.count += 1
        return self.count

    @command
    def later(self) -> None:
        self.executor.schedule(1, self.due)

    def due(self) -> None:
        self.fired.append("due")

    def on_register(self, session: ServerSession) -> None:
        self.fired.append(session.client_id)


@pytest.mark.parametrize("longest", [1, 2, 3, 100])
def test_a_skipped_command_changes_nothing_however_runs_are_cut(longest: int) -> None:
    script = Script(Counter(), longest, skips=[3, 4, 6])
    session = script.register()
    results = script.results(session, *[Counter.add(by) for by in (1, 10, 100, 1000, 10_000)])
    assert [str(one) for one in results if isinstance(one, ApplicationError)] == [
        "Skipped: the operator had every member skip this entry; it changed nothing"
    ] * 3
    assert [one for one in results if not isinstance(one, ApplicationError)] == [1, 1001]
    whole = Script(Counter(), skips=[3, 4, 6])
    session = whole.register()
    whole.commands(session, [Counter.add(by) for by in (1, 10, 100, 1000, 10_000)])
    assert script.executor.digest() == whole.executor.digest()
    # The sequences continued: sent again it is the same error, and never applied.
    again = script.commands(session, [Counter.add(10)], first_sequence=2).replies
    assert b"Skipped" in again[0].body
    assert script.machine.count == 1001


def test_no_callback_is_called_at_a_skipped_entry() -> None:
    script = Script(Counter(), skips=[1, 3])
    session = script.register("one")
    script.results(session, Counter.later())
    script.tick(10_000)  # entry 3
    script.register("two")
    assert script.machine.fired == ["two"]
    assert script.executor.session_rows()[0].client_id == "one"


def test_a_skipped_entry_does_not_take_its_key_over() -> None:
    script = Script(Counter(), skips=[3])
    session = script.register()
    one, skipped, two = script.results(session, *[Counter.put("a")] * 3)
    assert (one, two) == (1, 2)
    assert isinstance(skipped, ApplicationError)


def test_the_pieces_of_a_run_are_the_run() -> None:
    run = Run(10, EntryKind.COMMAND, 5, 7, 100, 42, [b"%d" % number for number in range(6)])
    for skips in ({10}, {15}, {12, 13}, {10, 11, 12, 13, 14, 15}, {9, 16}, {11, 14}):
        pieces = cut_at(run, skips)
        assert [payload for piece in pieces for payload in piece.payloads] == run.payloads
        at, sequence = 10, 100
        for piece in pieces:
            assert (piece.first_index, piece.first_sequence) == (at, sequence)
            at, sequence = piece.end, sequence + len(piece.payloads)
            inside = skips & set(range(piece.first_index, piece.end))
            assert not inside or len(piece.payloads) == 1
        assert [piece.acked for piece in pieces] == [0] * (len(pieces) - 1) + [42]
    gap = Run(10, EntryKind.GAP, 5, 0, 20, 20, [])
    assert cut_at(gap, {12}) == [gap]
