"""What the demo has to prove, as pure checks over values; each raises with both values."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import zip_longest
from typing import NamedTuple

from copycat.cli.demo_lines import EMPTY_CHAIN, extend_chain

__all__ = [
    "AppliedLine",
    "FrameSum",
    "ProofError",
    "prove_lines",
    "prove_same_frames",
    "prove_same_states",
]


class ProofError(Exception):
    """Something does not hold. Names the member, the index, what was expected and found."""

    def __init__(
        self, what: str, *, member: str, index: int, expected: object, found: object
    ) -> None:
        super().__init__(
            f"error[proof]: {what}: member {member}, index {index}: "
            f"expected {_short(expected)}, found {_short(found)}"
        )
        self.member = member
        self.index = index
        self.expected = expected
        self.found = found


def _short(value: object) -> str:
    text = value.hex() if isinstance(value, bytes) and len(value) == len(EMPTY_CHAIN) else None
    return text if text is not None else repr(value)[:200]


class AppliedLine(NamedTuple):
    """One COMMAND entry of a log, decoded."""

    index: int
    session: int
    sequence: int
    line: bytes


class FrameSum(NamedTuple):
    """One entry of a log as bytes: its name and a digest over the whole frame."""

    index: int
    term: int
    digest: bytes


def prove_lines(member: str, applied: Iterable[AppliedLine], lines: Sequence[bytes]) -> bytes:
    """Each line once, in order, under consecutive sequences of one session; returns the chain.

    A command that stands in the log twice under one (session, sequence) would be applied once
    only, but the leader never logs one twice (C18): here it is an error.
    """
    chain, number, session, last = EMPTY_CHAIN, 0, 0, 0
    for entry in applied:
        if number == len(lines):
            raise ProofError(
                "a command beyond the input's last line",
                member=member,
                index=entry.index,
                expected="no more commands",
                found=entry.line,
            )
        if session == 0:
            session, last = entry.session, entry.sequence - 1
        if (entry.session, entry.sequence) != (session, last + 1):
            raise ProofError(
                "a command is not the next of its session",
                member=member,
                index=entry.index,
                expected=(session, last + 1),
                found=(entry.session, entry.sequence),
            )
        if entry.line != lines[number]:
            raise ProofError(
                f"not line {number + 1} of the input",
                member=member,
                index=entry.index,
                expected=lines[number],
                found=entry.line,
            )
        last, number = entry.sequence, number + 1
        chain = extend_chain(chain, entry.line)
    if number != len(lines):
        raise ProofError(
            "lines are missing",
            member=member,
            index=number,
            expected=f"{len(lines)} lines",
            found=f"{number} lines",
        )
    return chain


def prove_same_frames(
    reference: str, expected: Iterable[FrameSum], member: str, found: Iterable[FrameSum]
) -> int:
    """Two logs hold the same bytes entry by entry; returns how many entries that were."""
    count = 0
    for left, right in zip_longest(expected, found):
        if left != right:
            at = left or right
            raise ProofError(
                f"its entry is not that of {reference}",
                member=member,
                index=at.index if at is not None else 0,
                expected=left,
                found=right,
            )
        count += 1
    return count


def prove_same_states(states: dict[str, tuple[int, bytes]], lines: int, chain: bytes) -> None:
    """Every member reached (lines, chain)."""
    for member, state in states.items():
        if state != (lines, chain):
            raise ProofError(
                "its state is not that of the input",
                member=member,
                index=state[0],
                expected=f"{lines} lines, chain {chain.hex()}",
                found=f"{state[0]} lines, chain {state[1].hex()}",
            )
