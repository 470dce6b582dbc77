"""F9, F10, F12: every operation of every workload fails once, with each error it may have.

Whatever fails, nothing that was acknowledged is lost, the log that saw it stops (or, on a full
disk, continues), and the next start finds what was promised, after a kill and after a power loss.
"""

from __future__ import annotations

import itertools

import pytest

from copycat.errors import DiskError, DiskFullError, LogPoisonedError
from copycat.storage._native import FaultEnv
from tests.log.crash.workloads import WORKLOADS, Workload, recovered
from tests.log.oracle import Oracle
from tests.log.test_native import DIRECTORY

FAULTS = [
    ("write", "EIO"),
    ("write", "ENOSPC"),
    ("write", "SHORT"),
    ("sync", "EIO"),
    ("sync", "ENOSPC"),
    ("create", "ENOSPC"),
    ("create", "EIO"),
    ("allocate", "ENOSPC"),
    ("zero_fill", "EIO"),
    ("rename", "EIO"),
    ("rename", "ENOSPC"),
    ("unlink", "EIO"),
    ("sync_directory", "EIO"),
    ("open", "EIO"),
    ("read", "EIO"),
]


def run_with(
    workload: Workload, operation: str, nth: int, error: str
) -> tuple[FaultEnv, Oracle, bool]:
    env, oracle = FaultEnv(3), Oracle()
    env.make_directory(DIRECTORY)
    env.fail(operation, nth, error)
    try:
        workload(env, oracle)
    except (DiskError, DiskFullError, LogPoisonedError):
        return env, oracle, True
    return env, oracle, False


@pytest.mark.slow
@pytest.mark.parametrize(("operation", "error"), FAULTS, ids=lambda part: part)
def test_a_fault_never_costs_what_was_acknowledged(operation: str, error: str) -> None:
    fired = 0
    for workload in WORKLOADS:
        for nth in itertools.count(1):
            env, oracle, failed = run_with(workload, operation, nth, error)
            if not failed:
                break
            fired += 1
            killed = env.clone()
            killed.crash_process()
            recovered(killed, oracle)
            for seed in range(4):
                crashed = env.clone()
                crashed.crash(seed)
                recovered(crashed, oracle)
                killed.crash(seed)
                recovered(killed, oracle)
    assert fired > 0, "the fault never fired"
