"""The demo's proofs hold for good logs, and name member, index and both values for bad ones."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from copycat.cli.demo_lines import chain_of
from copycat.cli.demo_proof import (
    AppliedLine,
    FrameSum,
    ProofError,
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
    assert caught.value.expected != caught.value.found
    assert str(caught.value).startswith("error[proof]: ")


def frames() -> list[FrameSum]:
    return [FrameSum(n, 1, bytes([n])) for n in range(1, 5)]


def test_equal_frames_are_counted() -> None:
    assert prove_same_frames("n1", frames(), "n2", frames()) == 4


def test_a_different_frame_is_named() -> None:
    other = frames()
    other[2] = other[2]._replace(digest=b"?")
    with pytest.raises(ProofError) as caught:
        prove_same_frames("n1", frames(), "n3", other)
    assert (caught.value.member, caught.value.index) == ("n3", 3)
    assert caught.value.expected == frames()[2]
    assert caught.value.found == other[2]


def test_a_shorter_log_is_named() -> None:
    with pytest.raises(ProofError) as caught:
        prove_same_frames("n1", frames(), "n3", frames()[:3])
    assert (caught.value.index, caught.value.found) == (4, None)


def test_states_must_all_be_that_of_the_input() -> None:
    chain = chain_of(LINES)
    prove_same_states({"n1": (4, chain), "n2": (4, chain)}, 4, chain)
    with pytest.raises(ProofError, match="member n2"):
        prove_same_states({"n1": (4, chain), "n2": (3, chain)}, 4, chain)
    with pytest.raises(ProofError, match=bytes(32).hex()):
        prove_same_states({"n1": (4, bytes(32))}, 4, chain)
