"""The native log, over a disk in memory that can fail, and over the real file system."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from copycat.storage._native import Env, FaultEnv, NativeLog, open_log
from tests.log.contract import Harness, LogContract, contents, durable, expected, grow
from tests.log.contract_cleaning import CleaningContract
from tests.log.contract_compaction import CompactionContract
from tests.log.contract_install import InstallContract

DIRECTORY = "/disk/log"


def open_small(
    env: Env,
    directory: str = DIRECTORY,
    *,
    entries: int = 8,
    mapped: bool = False,
    compress: bool = False,
) -> NativeLog:
    """A log whose segments hold few entries, so that every test rolls."""
    return open_log(
        env,
        directory,
        max_segment_size=16384,
        max_entries_per_segment=entries,
        mapped=mapped,
        compress=compress,
    )


class FaultHarness(Harness):
    def __init__(self, *, mapped: bool = False, compress: bool = False) -> None:
        self.mapped = mapped
        self.packs = compress
        self.env = FaultEnv(1)
        self.env.make_directory(DIRECTORY)

    def open(self) -> NativeLog:
        return open_small(
            self.env, entries=self.segment_entries, mapped=self.mapped, compress=self.packs
        )

    def crash(self, seed: int) -> None:
        self.env.crash(seed)

    def fail(self, operation: str, error: str) -> None:
        self.env.fail(operation, 1, error)

    def set_full(self, full: bool) -> None:
        self.env.set_free_space(1000 if full else 1 << 40)


class TestNativeLogAtLevelDisk(LogContract, CleaningContract, CompactionContract, InstallContract):
    """Sealed segments are read with pread."""

    @pytest.fixture
    def harness(self) -> FaultHarness:
        return FaultHarness()


class TestNativeLogAtLevelMapped(
    LogContract, CleaningContract, CompactionContract, InstallContract
):
    """Sealed segments are read through a map. Level MEMORY is tests/log/test_memory.py."""

    @pytest.fixture
    def harness(self) -> FaultHarness:
        return FaultHarness(mapped=True)


class TestNativeLogOfPackedSegments(
    LogContract, CleaningContract, CompactionContract, InstallContract
):
    """What a compaction wrote is in LZ4 blocks, and never mapped."""

    @pytest.fixture
    def harness(self) -> FaultHarness:
        return FaultHarness(mapped=True, compress=True)


def test_f14_an_index_that_became_short_is_rebuilt_and_brings_no_signal(tmp_path: Path) -> None:
    directory = str(tmp_path)
    log = open_small(Env(), directory)
    grow(log, 20)
    durable(log)
    log.close()
    log = open_small(Env(), directory)
    index = tmp_path / "1-1.idx"
    os.truncate(index, 0)
    assert contents(log) == expected(1, 21)
    assert log.report.rebuilt_indexes == 1
    log.close()


def test_the_same_log_on_a_real_disk(tmp_path: Path) -> None:
    directory = str(tmp_path)
    log = open_small(Env(), directory)
    grow(log, 30, each=4)
    durable(log)
    log.truncate(21)
    log.trim(12)
    grow(log, 5, term=2)
    first = log.first_index
    log.close()
    again = open_small(Env(), directory)
    assert again.report.clean
    assert contents(again) == expected(first, 22) + expected(22, 27, term=2)
    again.close()
