"""C35: the configurations of a log are a table over it, and change shape with it."""

from __future__ import annotations

import pytest

from copycat.errors import InvariantError
from copycat.raft.configuration import Configuration, MemberRecord
from copycat.raft.configuration_table import ConfigurationTable
from copycat.types import EntryId, MemberId, MemberType

FOUNDERS = Configuration.of(*map(MemberId, (1, 2, 3)))


def named(term: int, index: int) -> Configuration:
    """One more passive member, by an entry of this name."""
    record = MemberRecord(MemberId(index), MemberType.PASSIVE, since=index)
    return FOUNDERS.with_record(record, EntryId(term, index))


def table(*rows: Configuration, announced: Configuration | None = None) -> ConfigurationTable:
    return ConfigurationTable(FOUNDERS, rows, announced)


def test_c35_two_rows_are_truncated_at_once() -> None:
    configurations = table(named(1, 10), named(1, 20))
    assert configurations.newest == named(1, 20)
    assert configurations.at(0) == FOUNDERS
    assert configurations.truncate(5)
    assert configurations.newest == FOUNDERS
    assert not configurations.truncate(5)


def test_c35_who_is_in_force_where() -> None:
    configurations = table(named(1, 10), named(2, 20))
    for index, expected in ((0, FOUNDERS), (9, FOUNDERS), (10, named(1, 10)), (99, named(2, 20))):
        assert configurations.at(index) == expected
    assert configurations.next_index(0) == 10
    assert configurations.next_index(10) == 20
    assert configurations.next_index(20) > 1 << 62


def test_c35_a_snapshot_becomes_the_base() -> None:
    configurations = table(named(1, 10), named(1, 20), named(1, 30))
    configurations.install(named(1, 20), 25, continues=True)
    assert configurations.rows == [named(1, 20), named(1, 30)]
    configurations.install(named(3, 40), 50, continues=False)
    assert configurations.rows == [named(3, 40)]


def test_c35_what_is_below_the_log_is_the_base() -> None:
    configurations = table(named(1, 10), named(1, 20), named(1, 30))
    configurations.trim(21)
    assert configurations.rows == [named(1, 20), named(1, 30)]
    assert configurations.at(3) == named(1, 20)


def test_c35_the_log_is_newer_than_what_was_announced_or_proves_it_wrong() -> None:
    configurations = table(named(1, 10), announced=named(3, 90))
    assert configurations.newest == named(3, 90)
    configurations.append(named(1, 20))
    assert configurations.newest == named(3, 90), "the history of the log says nothing"
    assert not configurations.forget_announced(EntryId(3, 89))
    assert configurations.forget_announced(EntryId(4, 50)), "no leader of term 4 had it"
    assert configurations.newest == named(1, 20)


def test_c35_only_what_is_newer_is_announced() -> None:
    configurations = table(named(1, 10))
    assert not configurations.announce(named(1, 10))
    assert configurations.announce(named(2, 9))
    assert not configurations.announce(named(1, 30))
    assert configurations.newest == named(2, 9)


def test_c35_rows_rise() -> None:
    with pytest.raises(InvariantError, match="rise"):
        table(named(2, 10), named(1, 20))
