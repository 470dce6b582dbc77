"""The log's whole contract over the real file system, whose calls are cut short underneath.

test_short_calls.py runs this file in a process of its own, with short_calls.cpp preloaded.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from copycat.storage._native import Env, NativeLog
from tests.log.contract import Harness, LogContract, contents, durable, expected, grow
from tests.log.contract_cleaning import CleaningContract
from tests.log.contract_compaction import CompactionContract
from tests.log.contract_install import InstallContract
from tests.log.short_calls import ShortCalls
from tests.log.test_native import open_small


class RealHarness(Harness):
    """Logs in directories; a crash is a SIGKILL, after which the copied files are what is left."""

    def __init__(self, path: Path, calls: ShortCalls, *, mapped: bool, compress: bool) -> None:
        self.packs = compress
        self._mapped = mapped
        self._path = path
        self._lives = 0
        self._calls = calls

    @property
    def directory(self) -> str:
        return str(self._path / str(self._lives))

    def open(self) -> NativeLog:
        return open_small(
            Env(),
            self.directory,
            entries=self.segment_entries,
            mapped=self._mapped,
            compress=self.packs,
        )

    def crash(self, seed: int) -> None:
        dead = self.directory
        self._lives += 1
        with self._calls.cut(0):
            shutil.copytree(dead, self.directory)

    def fail(self, operation: str, error: str) -> None:
        self._calls.fail(operation, 1, error)

    def set_full(self, full: bool) -> None:
        self._calls.set_full(full)


@pytest.fixture(params=[1, 2])
def calls(request: pytest.FixtureRequest) -> Iterator[ShortCalls]:
    short = ShortCalls()
    with short.cut(request.param):
        yield short
    short.set_full(False)


class TestAtLevelDisk(LogContract, CleaningContract, CompactionContract, InstallContract):
    @pytest.fixture
    def harness(self, tmp_path: Path, calls: ShortCalls) -> Harness:
        return RealHarness(tmp_path, calls, mapped=False, compress=False)


class TestAtLevelMapped(LogContract, CleaningContract, CompactionContract, InstallContract):
    @pytest.fixture
    def harness(self, tmp_path: Path, calls: ShortCalls) -> Harness:
        return RealHarness(tmp_path, calls, mapped=True, compress=False)


class TestCompressed(LogContract, CleaningContract, CompactionContract, InstallContract):
    @pytest.fixture
    def harness(self, tmp_path: Path, calls: ShortCalls) -> Harness:
        return RealHarness(tmp_path, calls, mapped=False, compress=True)


def test_calls_are_cut_and_interrupted(tmp_path: Path, calls: ShortCalls) -> None:
    """The net itself: a log's life meets many of both."""
    cuts, interruptions = calls.cuts, calls.interruptions
    log = open_small(Env(), str(tmp_path))
    for _ in range(20):
        grow(log, 10, each=5)
        durable(log)
    assert contents(log) == expected(1, 201)
    log.close()
    assert calls.cuts > cuts + 50
    assert calls.interruptions > interruptions + 20


def test_half_a_write_and_then_an_error_is_a_torn_tail(tmp_path: Path, calls: ShortCalls) -> None:
    log = open_small(Env(), str(tmp_path / "a"))
    grow(log, 3)
    durable(log)
    calls.fail("write", 1, "SHORT")
    with pytest.raises(OSError, match="write"):
        grow(log, 1)
    log.close()
    log = open_small(Env(), str(tmp_path / "a"))
    assert contents(log) == expected(1, 4)
    assert not log.report.clean
