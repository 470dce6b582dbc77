"""Rewrites whose log is closed before they are installed, and segments that are not there.

A member that is stopped and started again may do both in one process. What is left of its first
log goes when the collector of garbage comes to it, and would take the second one's files.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from copycat.errors import CorruptLogError, DiskError
from copycat.storage._native import Env, FaultEnv
from copycat.types import Release
from tests.log.contract import contents, durable, expected, grow
from tests.log.contract_compaction import compact, limits, sealed
from tests.log.test_native import DIRECTORY, open_small


@pytest.mark.parametrize("is_run_before", [True, False], ids=["done", "not-begun"])
def test_what_is_left_of_a_rewrite_takes_no_file_of_the_next_log(is_run_before: bool) -> None:
    env = FaultEnv(5)
    env.make_directory(DIRECTORY)
    log = open_small(env)
    grow(log, 60)
    durable(log)
    log.release([2, 3, 5], Release.ANY)
    left = log.rewrite([sealed(log)[:1]], limits(60), major=False)
    if is_run_before:
        left.run()
    log.close()

    again = open_small(env)
    again.release([2, 3], Release.ANY)
    compact(again, limits(60), groups=[sealed(again)[:1]])
    durable(again)
    before = contents(again)
    left.run()
    left.abandon()
    del left
    again.close()

    assert contents(open_small(env)) == before


def test_a_child_that_merely_ends_takes_no_file_of_its_parents_rewrite(tmp_path: Path) -> None:
    env, directory = Env(), str(tmp_path)
    log = open_small(env, directory)
    grow(log, 60)
    durable(log)
    log.release([2, 3, 5], Release.ANY)
    rewrite = log.rewrite([sealed(log)[:1]], limits(60), major=False)
    rewrite.run()
    child = os.fork()
    if child == 0:
        try:
            rewrite.abandon()
            del rewrite
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert (tmp_path / "1-2.log").exists()
    assert (tmp_path / "1-2.idx").exists()
    assert log.install(rewrite).entries_dropped == 3
    durable(log)
    before = contents(log)
    log.close()
    assert contents(open_small(env, directory)) == before


def test_a_segment_that_is_gone_without_the_logs_doing_is_damage() -> None:
    env = FaultEnv(6)
    env.make_directory(DIRECTORY)
    log = open_small(env)
    grow(log, 60)
    durable(log)
    log.release([2, 3, 5], Release.ANY)
    rewrite = log.rewrite([sealed(log)[:1]], limits(60), major=False)
    env.remove(f"{DIRECTORY}/1-1.log")
    rewrite.run()
    with pytest.raises(CorruptLogError, match=r"1-1\.log"):
        log.install(rewrite)


def test_f16_an_install_that_fails_dooms_no_file_that_the_log_still_names() -> None:
    """The first segment's file was on its way out when the second's index could not be read: the
    next sync removed it, and nobody could open the log again."""
    env = FaultEnv(1)
    env.make_directory(DIRECTORY)
    log = open_small(env)
    for _ in range(2):
        grow(log, 8)
        durable(log)
    grow(log, 1)
    log.release([2, 10], Release.ANY)
    ids = sealed(log)
    rewrite = log.rewrite([ids], limits(16), major=True)
    durable(log)  # the second index goes to its file, and is read from there
    rewrite.run()
    env.corrupt(f"{DIRECTORY}/{ids[1]}-1.idx", 150, 1)
    env.fail("open", 1, "EMFILE")  # to make that index again from its segment
    with pytest.raises(DiskError):
        log.install(rewrite)
    assert contents(log) == expected(1, 18)
    rewrite.abandon()
    grow(log, 8)
    durable(log)
    while log.has_obsolete_files():
        log.remove_obsolete_files()
    log.close()
    assert contents(open_small(env)) == expected(1, 26)
