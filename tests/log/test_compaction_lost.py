"""Rewrites whose log is closed before they are installed, and segments that are not there.

A member that is stopped and started again may do both in one process. What is left of its first
log goes when the collector of garbage comes to it, and would take the second one's files.
"""

from __future__ import annotations

import pytest

from copycat.errors import CorruptLogError
from copycat.log._native import FaultEnv
from copycat.types import Release
from tests.log.contract import contents, durable, grow
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
