"""The proofs of the demo, as functions of values; a ProofError names both values."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Generic, NamedTuple, Protocol, TypeVar

from copycat.cli.demo.lines import EMPTY_CHAIN, extend_chain

__all__ = [
    "AppliedLine",
    "ProofError",
    "StoredLog",
    "prove_lines",
    "prove_same_frames",
    "prove_same_states",
]


class ProofError(Exception):
    """A proof failed: member, index, the expected value and the actual one."""

    def __init__(
        self, what: str, *, member: str, index: int, expected: object, actual: object
    ) -> None:
        super().__init__(
            f"error[proof]: {what}: member {member}, index {index}: "
            f"expected {_short(expected)}, found {_short(actual)}"
        )
        self.what = what
        self.member = member
        self.index = index
        self.expected = expected
        self.actual = actual


def _short(value: object) -> str:
    if isinstance(value, bytes) and len(value) == len(EMPTY_CHAIN):
        return value.hex()
    return (value if isinstance(value, str) else repr(value))[:200]


class AppliedLine(NamedTuple):
    """One COMMAND entry of a log, decoded."""

    index: int  # type: ignore[assignment]  # shadows tuple.index on purpose
    session: int
    sequence: int
    line: bytes


class Frame(Protocol):
    """One entry of a log as it lies on the disk: header and payload, without padding."""

    @property
    def index(self) -> int: ...
    @property
    def frame(self) -> bytes: ...


F = TypeVar("F", bound=Frame)


class StoredLog(NamedTuple, Generic[F]):
    """A member's entries from `first_index` on, and the commit index that it stopped with."""

    member: str
    commit_index: int
    entries: Iterable[F]
    first_index: int = 1


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
                actual=entry.line,
            )
        if session == 0:
            session, last = entry.session, entry.sequence - 1
        if (entry.session, entry.sequence) != (session, last + 1):
            raise ProofError(
                "a command is not the next of its session",
                member=member,
                index=entry.index,
                expected=(session, last + 1),
                actual=(entry.session, entry.sequence),
            )
        if entry.line != lines[number]:
            raise ProofError(
                f"not line {number + 1} of the input",
                member=member,
                index=entry.index,
                expected=lines[number],
                actual=entry.line,
            )
        last, number = entry.sequence, number + 1
        chain = extend_chain(chain, entry.line)
    if number != len(lines):
        raise ProofError(
            "lines are missing",
            member=member,
            index=number,
            expected=f"{len(lines)} lines",
            actual=f"{number} lines",
        )
    return chain


def prove_same_frames(logs: Sequence[StoredLog[F]]) -> Iterator[F]:
    """Yield the entries up to the highest commit index of a log that begins with entry 1, each one
    when it is proved equal.

    Each log must hold the same bytes as that one, entry by entry, up to its own commit index; one
    that begins behind a snapshot, from there on. All are read side by side, so nothing is held in
    memory.
    """
    first, *others = sorted(logs, key=_last_begins_late)
    reference, walks = iter(first.entries), [(log, iter(log.entries)) for log in others]
    for index in range(1, first.commit_index + 1):
        entry = next(reference, None)
        if entry is None or entry.index != index:
            raise ProofError(
                "an entry up to its own commit index is missing",
                member=first.member,
                index=index,
                expected=f"entry {index}",
                actual=entry,
            )
        for log, walk in walks:
            if not log.first_index <= index <= log.commit_index:
                continue
            other = next(walk, None)
            if other is None or other.index != index or other.frame != entry.frame:
                raise ProofError(
                    f"its entry is not that of {first.member}",
                    member=log.member,
                    index=index,
                    expected=entry.frame,
                    actual=None if other is None else other.frame,
                )
        yield entry


def _last_begins_late(log: StoredLog[F]) -> tuple[bool, int]:
    return log.first_index > 1, -log.commit_index


def prove_same_states(states: dict[str, tuple[int, bytes]], lines: int, chain: bytes) -> None:
    """Every member reached (lines, chain)."""
    for member, state in states.items():
        if state != (lines, chain):
            raise ProofError(
                "its state is not that of the input",
                member=member,
                index=state[0],
                expected=f"{lines} lines, chain {chain.hex()}",
                actual=f"{state[0]} lines, chain {state[1].hex()}",
            )
