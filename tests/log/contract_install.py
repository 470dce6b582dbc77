"""What `ReplicaLog.install` says of groups that the log changed under while others wait behind.

`test_memory` and `test_native` run this suite too.
"""

from __future__ import annotations

import pytest

from copycat.storage.interface import ReplicaLog
from copycat.types import CompactionResult, Release
from tests.log.contract import Harness, contents, durable, expected
from tests.log.contract_compaction import compact, filled, left, limits, sealed

__all__ = ["InstallContract"]

NOTHING = CompactionResult(0, 0, 0, 0, 0, is_cut_short=True)


class InstallContract:
    """The sentences; a subclass gives the fixture `harness`. Segments hold eight entries."""

    @pytest.fixture
    def log(self, harness: Harness) -> ReplicaLog:
        return harness.open()

    def test_nothing_is_deleted_behind_a_group_that_was_trimmed_in_part(
        self, log: ReplicaLog, harness: Harness
    ) -> None:
        """Entry 12 is a put, 20 its deletion: frozen together, and 12 stays."""
        filled(log)
        ids = sealed(log)
        log.release([12, 20], Release.ANY)
        rewrite = log.rewrite([ids[:2], ids[2:3], ids[3:]], limits(40), major=True)
        rewrite.run()
        log.trim(9)
        assert log.install(rewrite) == NOTHING
        assert contents(log) == expected(9, 41)
        assert compact(log, limits(40), major=True).entries_dropped == 2, "the next takes both"
        durable(log)
        log.close()
        assert not {12, 20} & {index for index, _, _ in contents(harness.open())}

    def test_what_was_installed_before_such_a_group_stays(self, log: ReplicaLog) -> None:
        filled(log)
        ids = sealed(log)
        log.release([3, 20, 28], Release.ANY)
        rewrite = log.rewrite([ids[:1], ids[1:3], ids[3:]], limits(40), major=True)
        rewrite.run()
        log.truncate(20)
        result = log.install(rewrite)
        assert (result.segments_before, result.entries_dropped) == (1, 1)
        assert result.is_cut_short
        assert left(log) == [1, 2, *range(4, 21)]

    def test_a_group_that_was_trimmed_away_stops_none_behind_it(self, log: ReplicaLog) -> None:
        filled(log)
        ids = sealed(log)
        log.release([3, 12, 20], Release.ANY)
        rewrite = log.rewrite([ids[:1], ids[1:2], ids[2:]], limits(40), major=True)
        rewrite.run()
        log.trim(9)
        result = log.install(rewrite)
        assert result.entries_dropped == 2
        assert not result.is_cut_short
        assert left(log) == [i for i in range(9, 41) if i not in {12, 20}]
