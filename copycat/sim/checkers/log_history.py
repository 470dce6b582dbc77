"""Records of all that was ever appended or committed, with which every log is compared (I5).

A cleaned log has gaps. They are filled here with what was committed, so that every law on whole
logs holds for cleaned ones; what may be a gap is for `compaction.py` to judge.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from copycat.errors import InvariantError
from copycat.storage.interface import Batch
from copycat.types import Release

__all__ = ["Frame", "Gap", "LogHistory", "contents", "violated"]

Frame = tuple[int, int, int]
"""(index, term, crc) of one entry."""


def violated(rule: str, message: str, **values: object) -> InvariantError:
    """The error of a broken rule; `rule` is its number in docs/internals/rules.md."""
    detail = ", ".join(f"{name}={value!r}" for name, value in values.items())
    return InvariantError(f"{rule}: {message} ({detail})", rule=rule)


class Gap(NamedTuple):
    """A gap [first, end) of one term, and the index from which a replay over it is right."""

    first: int
    end: int
    term: int
    valid_from: int


def contents(batches: Iterable[Batch]) -> tuple[list[Frame], list[Gap]]:
    """The entries and the gaps of neighbouring batches, in order."""
    frames: list[Frame] = []
    gaps: list[Gap] = []
    for batch in batches:
        frames += batch.checksums()
        term = batch.span.term
        gaps += [Gap(first, end, term, valid_from) for first, end, valid_from in batch.gaps()]
    return frames, gaps


class LogHistory:
    """Every entry that was ever appended anywhere: (index, term) names one content (I5)."""

    def __init__(self, now_us: Callable[[], int] = int) -> None:
        self._now_us = now_us
        self._seen: dict[tuple[int, int], tuple[int, int]] = {}
        self.stamped_us: dict[tuple[int, int], int] = {}
        """When a leader made the entry (index, term)."""
        self.committed: list[tuple[int, int]] = []
        """(term, crc) of everything that was ever committed, from index 1 on."""
        self.deletions: dict[int, Release] = {}
        """Entries that some member deleted lawfully, and the strictest class of them."""

    def filled(self, who: int, frames: Sequence[Frame], gaps: Sequence[Gap]) -> Sequence[Frame]:
        """`frames` with what was committed in the place of each gap, ordered by index.

        A gap has the term of what was there, lies below its `valid_from`, and that below the
        end of what is committed (C22).
        """
        if not gaps:
            return frames
        committed, result = self.committed, list(frames)
        for gap in gaps:
            if not gap.first < gap.end <= gap.valid_from + 1 <= len(committed) + 1:
                raise violated(
                    "I23",
                    "a gap over what was not committed, or that is right too early",
                    member=who,
                    gap=gap,
                    committed=len(committed),
                )
            for index in range(gap.first, gap.end):
                term, crc = committed[index - 1]
                if term != gap.term:
                    raise violated(
                        "I23", "a gap of another term", member=who, gap=gap, index=index, term=term
                    )
                result.append((index, term, crc))
        result.sort()
        return result

    def appended(self, who: int, prev_term: int, frames: Sequence[Frame]) -> None:
        """`frames` (index, term, crc) were appended by `who` after an entry of prev_term."""
        seen, now_us = self._seen, self._now_us()
        for index, term, crc in frames:
            content = (crc, prev_term)
            self.stamped_us.setdefault((index, term), now_us)
            if seen.setdefault((index, term), content) != content:
                raise violated(
                    "I5",
                    "one (index, term), two contents or predecessors",
                    member=who,
                    index=index,
                    term=term,
                    crc_and_prev_term=content,
                    before=seen[(index, term)],
                )
            prev_term = term

    def require_known(self, who: int, index: int, prev_term: int, term: int, crc: int) -> None:
        """A recovered entry must once have been appended by somebody (I24)."""
        if self._seen.get((index, term)) != (crc, prev_term):
            raise violated(
                "I24",
                "recovery invented an entry",
                member=who,
                index=index,
                term=term,
                prev_term=prev_term,
                crc=crc,
                known=self._seen.get((index, term)),
            )
