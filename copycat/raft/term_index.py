"""Run-length terms: all that a Raft decision needs to know about the log's entries.

A log of a million entries has a handful of terms. One batch has one term, so each question of
the core (term of `prev`, first conflict, next span to ship) is a look at one or two runs.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import pairwise, zip_longest

from copycat.errors import require
from copycat.types import NO_ENTRY, EntryId, Span, TermRun

__all__ = ["UNKNOWN_TERM", "TermIndex"]

UNKNOWN_TERM = -1
"""Answer of `term_at` for an index that the log does not hold; equal to no entry's term."""


class TermIndex:
    """Terms of the entries first_index .. last_index, as (term, first) runs, oldest first.

    before: the entry just below first_index. The log does not have it any more, but its name is
    still the `prev` of the first entry. NO_ENTRY in a log that begins at 1.
    """

    __slots__ = ("_firsts", "_terms", "before", "first_index", "last_index")

    def __init__(
        self,
        runs: Sequence[TermRun],
        first_index: int,
        last_index: int,
        before: EntryId = NO_ENTRY,
    ) -> None:
        self.first_index = first_index
        self.last_index = last_index
        self.before = before
        inside = [
            run
            for run, newer in zip_longest(runs, runs[1:])
            if last_index >= first_index and (newer is None or newer.first > first_index)
        ]
        self._terms = [run.term for run in inside]
        self._firsts = [max(run.first, first_index) for run in inside]
        require(first_index >= 1, "a log begins at 1 or later", first_index=first_index)
        require(
            before.next == first_index and (before.index == 0) == (before.term == 0),
            "the entry before the log does not fit it",
            before=before,
            first_index=first_index,
        )
        require(
            last_index >= first_index - 1,
            "a log ends before it begins",
            first_index=first_index,
            last_index=last_index,
        )
        require(
            last_index < first_index or (runs and runs[0].first <= first_index),
            "the term runs do not cover the log",
            runs=list(runs),
            first_index=first_index,
        )
        for older, newer in pairwise(runs):
            require(
                older.term < newer.term and older.first < newer.first,
                "term runs must rise in term and index",
                older=older,
                newer=newer,
            )
        require(
            not inside or (inside[0].term >= max(1, before.term) and runs[-1].first <= last_index),
            "a term run lies outside the log",
            runs=list(runs),
            last_index=last_index,
        )

    @property
    def runs(self) -> list[TermRun]:
        """The runs as values; a copy."""
        return [TermRun(t, f) for t, f in zip(self._terms, self._firsts, strict=True)]

    @property
    def end(self) -> int:
        """One past the last entry: the index of the next one."""
        return self.last_index + 1

    @property
    def last_term(self) -> int:
        """Term of the last entry, or of the one before an empty log."""
        return self._terms[-1] if self._terms else self.before.term

    @property
    def last(self) -> EntryId:
        """The last entry's name; `before` of an empty log."""
        return EntryId(self._terms[-1] if self._terms else self.before.term, self.last_index)

    def term_at(self, index: int) -> int:
        """Term of the entry at `index`, `before` included; UNKNOWN_TERM outside of that."""
        firsts = self._firsts
        if firsts and firsts[-1] <= index <= self.last_index:
            return self._terms[-1]
        if index == self.before.index:
            return self.before.term
        if index > self.last_index or not firsts or index < firsts[0]:
            return UNKNOWN_TERM
        return self._terms[bisect_right(firsts, index) - 1]

    def entry_at(self, index: int) -> EntryId:
        """The entry's name; its term may be UNKNOWN_TERM."""
        firsts = self._firsts
        if firsts and firsts[-1] <= index <= self.last_index:  # nearly always
            return EntryId(self._terms[-1], index)
        return EntryId(self.term_at(index), index)

    def append(self, span: Span) -> None:
        """Add the entries of `span` right after the last one; terms never fall."""
        term, first, end = span
        if first != self.last_index + 1 or end <= first:
            require(
                False,
                "an append must continue the log",
                span=span,
                last_index=self.last_index,
            )
        terms = self._terms
        if not terms or terms[-1] != term:
            least = self.last_term + 1 if terms else max(1, self.before.term)
            require(term >= least, "terms in a log never fall", span=span, last=self.last)
            terms.append(term)
            self._firsts.append(first)
        self.last_index = end - 1

    def truncate(self, after: int) -> None:
        """Drop every entry above `after`."""
        require(
            self.first_index - 1 <= after <= self.last_index,
            "a truncation must lie inside the log",
            after=after,
            first_index=self.first_index,
            last_index=self.last_index,
        )
        while self._firsts and self._firsts[-1] > after:
            self._firsts.pop()
            self._terms.pop()
        self.last_index = after

    def trim(self, first_index: int) -> None:
        """Drop everything below `first_index`, and remember the name of the entry before it."""
        if first_index <= self.first_index:
            return
        require(
            first_index <= self.end,
            "a trim must lie inside the log",
            first_index=first_index,
            last_index=self.last_index,
        )
        self.before = self.entry_at(first_index - 1)
        self.first_index = first_index
        firsts, terms = self._firsts, self._terms
        drop = bisect_right(firsts, first_index) - 1 if first_index < self.end else len(firsts)
        del firsts[:drop], terms[:drop]
        if firsts:
            firsts[0] = first_index

    def reset(self, entry: EntryId) -> None:
        """Begin an empty log right after `entry` (I12)."""
        require(entry.term >= 1 and entry.index >= 1, "a log cannot begin there", entry=entry)
        self._firsts.clear()
        self._terms.clear()
        self.before = entry
        self.first_index = entry.next
        self.last_index = entry.index

    def first_conflict(self, span: Span) -> int:
        """First index of `span` that the log lacks or holds in another term; else its end.

        Same index and term mean the same entry (log matching), so nothing else is compared.
        What lies below the log was committed here: it is no conflict.
        """
        term, first, end = span
        first = min(max(first, self.first_index), end)
        if first > self.last_index or first == end or self.term_at(first) != term:
            return first
        return min(end, self._run_end(first))

    def span_from(self, first: int, end: int) -> Span:
        """Entries from `first` up to `end`, cut where the term changes: one batch, one term."""
        firsts, last_index = self._firsts, self.last_index
        if firsts and firsts[-1] <= first <= last_index:  # nearly always
            return Span(self._terms[-1], first, end if end <= last_index else last_index + 1)
        return Span(self.term_at(first), first, min(end, self._run_end(first)))

    def last_at_or_below(self, entry: EntryId) -> EntryId:
        """The newest own entry at or below `entry` in both term and index; else NO_ENTRY.

        Both sides of a rejection use it: together they pass over a whole diverged term in one
        probe, and each further rejection is strictly lower.
        """
        index = min(entry.index, self.last_index)
        before = self.before
        if index < before.index:
            return NO_ENTRY
        run = bisect_right(self._firsts, index) - 1
        while run >= 0 and self._terms[run] > entry.term:
            index = self._firsts[run] - 1
            run -= 1
        if run >= 0:
            return EntryId(self._terms[run], index)
        return before if before.term <= entry.term else NO_ENTRY

    def _run_end(self, index: int) -> int:
        """One past the last entry of the run that holds `index`."""
        firsts = self._firsts
        if firsts[-1] <= index:
            return self.last_index + 1
        return firsts[bisect_right(firsts, index)]
