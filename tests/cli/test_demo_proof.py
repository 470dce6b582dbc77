"""The demo's proofs hold for good logs, and name member, index and both values for bad ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest

from copycat.cli.demo.lines import chain_of
from copycat.cli.demo.proof import (
    AppliedLine,
    ProofError,
    StoredLog,
    prove_lines,
    prove_same_frames,
    prove_same_states,
)

LINES = [b"one", b"", b"three", b"one"]


def good() -> list[AppliedLine]:
    return [AppliedLine(10 + n, 7, 1 + n, line) for n, line in enumerate(LINES)]


def test_good_lines_are_proved() -> None:
    assert prove_lines("n1", good(), LINES) == chain_of(LINES)


def lost(log: list[AppliedLine]) -> None:
    del log[1]


def lost_at_the_end(log: list[AppliedLine]) -> None:
    del log[3]


def repeated(log: list[AppliedLine]) -> None:
    log.insert(1, log[0])


def swapped(log: list[AppliedLine]) -> None:
    log[0], log[2] = log[0]._replace(line=b"three"), log[2]._replace(line=b"one")


def changed(log: list[AppliedLine]) -> None:
    log[2] = log[2]._replace(line=b"threE")


def beyond(log: list[AppliedLine]) -> None:
    log.append(AppliedLine(14, 7, 5, b"five"))


def other_session(log: list[AppliedLine]) -> None:
    log[3] = log[3]._replace(session=8, sequence=1)


@pytest.mark.parametrize(
    ("damage", "index"),
    [
        (lost, 12),
        (lost_at_the_end, 3),
        (repeated, 10),
        (swapped, 10),
        (changed, 12),
        (beyond, 14),
        (other_session, 13),
    ],
)
def test_bad_lines_are_named(damage: Callable[[list[AppliedLine]], None], index: int) -> None:
    log = good()
    damage(log)
    with pytest.raises(ProofError) as caught:
        prove_lines("n2", log, LINES)
    assert (caught.value.member, caught.value.index) == ("n2", index)
    assert caught.value.expected != caught.value.actual
    assert str(caught.value).startswith("error[proof]: ")


class Stored(NamedTuple):
    index: int  # type: ignore[assignment]
    frame: bytes


def log(member: str, commit_index: int, last: int = 5) -> StoredLog[Stored]:
    entries = [Stored(n, bytes([n])) for n in range(1, last + 1)]
    return StoredLog(member, commit_index, entries)


def test_equal_logs_are_walked_up_to_the_highest_commit_index() -> None:
    walk = prove_same_frames([log("n1", 3, 3), log("n2", 4), log("n3", 2)])
    assert [entry.index for entry in walk] == [1, 2, 3, 4]


def test_what_a_member_has_not_committed_may_differ() -> None:
    other = log("n3", 2)
    entries = [*list(other.entries)[:2], Stored(3, b"?")]
    walk = prove_same_frames([log("n1", 4), other._replace(entries=entries)])
    assert len(list(walk)) == 4


def test_a_different_frame_is_named() -> None:
    entries = list(log("n3", 4).entries)
    entries[2] = Stored(3, b"?")
    with pytest.raises(ProofError) as caught:
        list(prove_same_frames([log("n1", 5), StoredLog("n3", 4, entries)]))
    error = caught.value
    assert (error.member, error.index) == ("n3", 3)
    assert (error.expected, error.actual) == (bytes([3]), b"?")


def test_a_log_shorter_than_its_commit_index_is_named() -> None:
    with pytest.raises(ProofError) as caught:
        list(prove_same_frames([log("n1", 5), log("n3", 4, last=3)]))
    assert (caught.value.member, caught.value.index, caught.value.actual) == ("n3", 4, None)
    with pytest.raises(ProofError) as caught:
        list(prove_same_frames([log("n1", 5, last=4), log("n3", 4)]))
    assert (caught.value.member, caught.value.index, caught.value.actual) == ("n1", 5, None)


def test_a_log_that_begins_late_is_compared_from_there_on() -> None:
    """A member that joined was sent a snapshot in place of the entries before."""
    late = log("n5", 5)
    late = late._replace(entries=list(late.entries)[2:], first_index=3)
    walk = prove_same_frames([late, log("n1", 4)])
    assert [entry.index for entry in walk] == [1, 2, 3, 4], "no log that begins late is walked"
    wrong = late._replace(entries=[Stored(3, b"?"), *list(late.entries)[1:]])
    with pytest.raises(ProofError) as caught:
        list(prove_same_frames([log("n1", 4), wrong]))
    assert (caught.value.member, caught.value.index) == ("n5", 3)


def test_states_must_all_be_that_of_the_input() -> None:
    chain = chain_of(LINES)
    prove_same_states({"n1": (4, chain), "n2": (4, chain)}, 4, chain)
    with pytest.raises(ProofError, match="member n2"):
        prove_same_states({"n1": (4, chain), "n2": (3, chain)}, 4, chain)
    with pytest.raises(ProofError, match=bytes(32).hex()):
        prove_same_states({"n1": (4, bytes(32))}, 4, chain)
