"""Runs answer every question as a plain list of terms would."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given

from copycat.errors import InvariantError
from copycat.raft.term_index import UNKNOWN_TERM, TermIndex
from copycat.types import NO_ENTRY, EntryId, Span, TermRun
from tests.raft.cluster import runs_of
from tests.raft.laws import Entry

logs = st.lists(st.integers(1, 6), max_size=25).map(sorted)


def build(terms: list[int]) -> TermIndex:
    return TermIndex(runs_of(Entry(term, "") for term in terms), 1, len(terms))


@given(logs, st.integers(0, 30))
def test_term_at(terms: list[int], index: int) -> None:
    expected = UNKNOWN_TERM if index > len(terms) else ([0, *terms])[index]
    assert build(terms).term_at(index) == expected
    assert build(terms).entry_at(index) == EntryId(expected, index)


@given(logs, logs)
def test_append_and_truncate_are_a_list_s(terms: list[int], more: list[int]) -> None:
    runs = build(terms)
    runs.truncate(len(terms) // 2)
    naive = terms[: len(terms) // 2]
    min_term = naive[-1] if naive else 1
    for term in (max(term, min_term) for term in more):
        runs.append(Span(term, len(naive) + 1, len(naive) + 3))
        naive += [term, term]
    assert runs.runs == build(naive).runs
    assert runs.last == EntryId(naive[-1] if naive else 0, len(naive))


@given(logs, st.integers(1, 28), st.integers(0, 6), st.integers(1, 6))
def test_first_conflict(terms: list[int], first: int, length: int, term: int) -> None:
    span = Span(term, first, first + length)
    naive = next(
        (at for at in range(first, span.end) if at > len(terms) or terms[at - 1] != term),
        span.end,
    )
    assert build(terms).first_conflict(span) == naive


@given(logs.filter(bool), st.data())
def test_span_from_never_crosses_a_term(terms: list[int], data: st.DataObject) -> None:
    first = data.draw(st.integers(1, len(terms)))
    end = data.draw(st.integers(first + 1, len(terms) + 1))
    span = build(terms).span_from(first, end)
    inside = terms[first - 1 : span.last]
    assert span.first == first
    assert set(inside) == {span.term}
    assert span.end == end or terms[span.end - 1] != span.term


@given(logs, st.integers(0, 7), st.integers(0, 30))
def test_newest_not_above(terms: list[int], term: int, index: int) -> None:
    naive = [EntryId(t, i) for i, t in enumerate(terms, 1) if i <= index and t <= term]
    assert build(terms).last_at_or_below(EntryId(term, index)) == (
        naive[-1] if naive else NO_ENTRY
    )


def test_a_trimmed_log_knows_nothing_below_its_first_run() -> None:
    runs = TermIndex([TermRun(2, 5), TermRun(3, 8)], 5, 9, EntryId(1, 4))
    assert [runs.term_at(index) for index in (0, 3, 4, 5, 8, 9, 10)] == [-1, -1, 1, 2, 3, 3, -1]
    assert runs.last_at_or_below(EntryId(1, 9)) == EntryId(1, 4), "the one before is known"
    assert runs.last_at_or_below(EntryId(0, 9)) == NO_ENTRY
    assert runs.last_at_or_below(EntryId(9, 4)) == EntryId(1, 4)
    assert runs.last_at_or_below(EntryId(9, 3)) == NO_ENTRY


@given(logs, st.data())
def test_a_trimmed_log_is_the_rest_of_a_list(terms: list[int], data: st.DataObject) -> None:
    first = data.draw(st.integers(1, len(terms) + 1))
    runs = build(terms)
    runs.trim(data.draw(st.integers(0, first)))
    runs.trim(first)
    assert (runs.first_index, runs.last_index) == (first, len(terms))
    assert runs.last == build(terms).last
    for index in range(first - 1, len(terms) + 2):
        assert runs.term_at(index) == build(terms).term_at(index)
    for index in range(first - 1):
        assert runs.term_at(index) == UNKNOWN_TERM
    naive = TermIndex(runs.runs, first, len(terms), runs.before)
    assert naive.runs == runs.runs
    after = data.draw(st.integers(first - 1, len(terms)))
    runs.truncate(after)
    assert runs.last == build(terms).entry_at(after)
    span = Span(9, after + 1, after + 3)
    assert runs.first_conflict(Span(runs.before.term or 1, 1, first)) == max(first, 1)
    runs.append(span)
    assert runs.last == EntryId(9, after + 2)


def test_a_log_begins_anew_after_a_snapshot() -> None:
    runs = build([1, 1, 2])
    runs.reset(EntryId(3, 9))
    assert (runs.first_index, runs.last, runs.end) == (10, EntryId(3, 9), 10)
    assert runs.last_at_or_below(EntryId(4, 12)) == EntryId(3, 9)
    assert runs.term_at(0) == UNKNOWN_TERM
    runs.append(Span(3, 10, 12))
    assert runs.runs == [TermRun(3, 10)]
    with pytest.raises(InvariantError, match="never fall"):
        runs.append(Span(2, 12, 13))
    with pytest.raises(InvariantError, match="cannot begin"):
        runs.reset(NO_ENTRY)
    with pytest.raises(InvariantError, match="inside the log"):
        runs.trim(13)


@pytest.mark.parametrize(
    ("runs", "first", "last", "law"),
    [
        ([TermRun(2, 1), TermRun(1, 3)], 1, 4, "must rise"),
        ([TermRun(1, 1), TermRun(2, 1)], 1, 4, "must rise"),
        ([], 1, 4, "do not cover"),
        ([TermRun(1, 3)], 1, 4, "do not cover"),
        ([TermRun(1, 1), TermRun(2, 9)], 1, 4, "outside the log"),
        ([], 0, 0, "begins at 1"),
        ([], 5, 1, "ends before"),
    ],
)
def test_bad_runs_are_refused(runs: list[TermRun], first: int, last: int, law: str) -> None:
    with pytest.raises(InvariantError, match=law):
        TermIndex(runs, first, last, EntryId(1, 4) if first == 5 else NO_ENTRY)


def test_the_entry_before_must_fit() -> None:
    for before in (NO_ENTRY, EntryId(0, 4), EntryId(1, 5)):
        with pytest.raises(InvariantError, match="before the log"):
            TermIndex([], 5, 4, before)
    with pytest.raises(InvariantError, match="outside the log"):
        TermIndex([TermRun(2, 5)], 5, 5, EntryId(3, 4))


def test_bad_growth_is_refused() -> None:
    runs = build([1, 2])
    with pytest.raises(InvariantError, match="must continue"):
        runs.append(Span(2, 4, 5))
    with pytest.raises(InvariantError, match="must continue"):
        runs.append(Span(2, 3, 3))
    with pytest.raises(InvariantError, match="never fall"):
        runs.append(Span(1, 3, 4))
    with pytest.raises(InvariantError, match="inside the log"):
        runs.truncate(3)
