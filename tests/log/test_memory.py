"""The fake passes the suite of the real log."""

from __future__ import annotations

import pytest

from copycat.storage.memory import MemoryLog
from tests.log.contract import Harness, LogContract
from tests.log.contract_cleaning import CleaningContract
from tests.log.contract_compaction import CompactionContract
from tests.log.contract_install import InstallContract


class MemoryHarness(Harness):
    def __init__(self) -> None:
        self._log = MemoryLog(max_entries_per_segment=self.segment_entries)

    def open(self) -> MemoryLog:
        self._log.reopen()
        return self._log

    def crash(self, seed: int) -> None:
        self._log.crash()

    def fail(self, operation: str, error: str) -> None:
        self._log.fail(operation, error)

    def set_full(self, full: bool) -> None:
        self._log.set_room(0 if full else None)


class TestMemoryLog(LogContract, CleaningContract, CompactionContract, InstallContract):
    @pytest.fixture
    def harness(self) -> MemoryHarness:
        return MemoryHarness()
