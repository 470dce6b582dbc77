"""What a log does in its life, one named workload for each kind of change to its files.

Each is told apart from what it promises: it tells the oracle each verb before the log runs it,
and each promise after the log made it. None survives a power loss: it ends in a DiskError then,
and whoever runs it crashes the disk and looks at what is left.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from copycat.errors import DiskFullError
from copycat.storage._native import FaultEnv, NativeLog, open_hard_state
from copycat.types import MemberId
from tests.log.oracle import EntryRow, Oracle
from tests.log.test_native import DIRECTORY, open_small

__all__ = ["WORKLOADS", "Workload", "log_of", "recovered"]

Workload = Callable[[FaultEnv, Oracle], None]

PLENTY = 1 << 40


def log_of(env: FaultEnv) -> NativeLog:
    return open_small(env, entries=5)


def reopened(env: FaultEnv, oracle: Oracle) -> NativeLog:
    """The log after a stop that was not clean; what it recovered is durable from now on (C7)."""
    log = log_of(env)
    oracle.adopt(log)
    return log


def recovered(env: FaultEnv, oracle: Oracle) -> list[EntryRow]:
    """Opens the log; what it holds, after AssertionErrors for each promise that it breaks."""
    env.set_free_space(PLENTY)  # the log without a reserve asks for it (F12)
    log = log_of(env)
    rows = oracle.check(log)
    if oracle.saved[0] or oracle.saving:
        hard_state = open_hard_state(env, DIRECTORY, create=True)
        oracle.check_hard_state(hard_state.current_term, hard_state.voted_for)
    return rows


# --- growing -----------------------------------------------------------------------------------


def appends(env: FaultEnv, oracle: Oracle) -> None:
    log = log_of(env)
    for size in (10, 600, 0, 2000):
        oracle.append(log, size, term=1)
        oracle.sync(log)


def batches(env: FaultEnv, oracle: Oracle) -> None:
    log = log_of(env)
    for term in (1, 1, 2):
        oracle.append(log, 30, 900, term=term)
        oracle.append(log, 500, term=term)
        oracle.sync(log)
        log.mark_idle()
    oracle.append(log, 700, 700, term=2)


def large_entries(env: FaultEnv, oracle: Oracle) -> None:
    """Above a segment's size: a file of its own, and a write that is torn by many sectors."""
    log = log_of(env)
    oracle.append(log, 100, term=1)
    oracle.sync(log)
    oracle.append(log, 20_000, term=1)
    oracle.append(log, 9_000, term=1)
    oracle.sync(log)
    oracle.append(log, 50, 14_000, term=2)
    oracle.sync(log)


def rolls(env: FaultEnv, oracle: Oracle) -> None:
    log = log_of(env)
    for step in range(6):
        oracle.append(log, 40, 3000, 10, term=1 + step // 3)
        if step % 2:
            oracle.sync(log)
    oracle.sync(log)


def spares(env: FaultEnv, oracle: Oracle) -> None:
    """Prepared ahead: taken by a roll, by a truncation, or left over by a close and a kill."""
    log = log_of(env)
    for step in range(3):
        oracle.append(log, 40, 3000, 10, term=1)
        if log.wants_spare():
            log.prepare_spare()
        if step % 2:
            oracle.sync(log)
    log.prepare_spare()
    oracle.truncate(log, 7)
    oracle.append(log, 30, term=2)
    oracle.sync(log)
    log.prepare_spare()
    oracle.close(log)
    log = log_of(env)
    log.prepare_spare()
    oracle.append(log, 60, term=3)
    env.crash_process()
    log = reopened(env, oracle)
    oracle.append(log, 70, 80, term=4)
    oracle.sync(log)


# --- shrinking ---------------------------------------------------------------------------------


def truncations(env: FaultEnv, oracle: Oracle) -> None:
    """In the tail, also where an earlier truncation had cut, with entries nobody synced."""
    log = log_of(env)
    oracle.append(log, 100, 100, 100, 100, term=1)
    oracle.sync(log)
    oracle.truncate(log, 2)
    oracle.append(log, 900, term=2)
    oracle.sync(log)
    oracle.append(log, *([50] * 8), term=2)
    oracle.sync(log)
    oracle.truncate(log, 4)
    oracle.append(log, 60, 60, term=3)
    oracle.truncate(log, 5)
    oracle.append(log, 61, 61, term=4)
    oracle.sync(log)


def truncations_across_segments(env: FaultEnv, oracle: Oracle) -> None:
    log = log_of(env)
    for _ in range(4):
        oracle.append(log, 100, 700, 100, term=1)
        oracle.sync(log)
    oracle.append(log, 90, 90, term=2)
    oracle.truncate(log, 8)
    oracle.append(log, 80, 800, term=3)
    oracle.sync(log)
    oracle.truncate(log, 3)
    oracle.append(log, 70, term=4)
    oracle.truncate(log, 2)
    oracle.append(log, 71, term=5)
    oracle.sync(log)


def truncations_to_nothing(env: FaultEnv, oracle: Oracle) -> None:
    log = log_of(env)
    oracle.append(log, 100, 700, term=1)
    oracle.sync(log)
    oracle.truncate(log, 0)
    oracle.sync(log)
    oracle.append(log, *([80] * 7), term=2)
    oracle.truncate(log, 0)
    oracle.append(log, 60, 61, term=3)
    oracle.sync(log)
    oracle.truncate(log, 0)
    oracle.close(log)
    log = log_of(env)
    oracle.append(log, 62, term=4)
    oracle.sync(log)


def overtaken_syncs(env: FaultEnv, oracle: Oracle) -> None:
    """C6: a sync in flight is overtaken by a truncation, and proves nothing of what follows."""
    log = log_of(env)
    oracle.append(log, 100, 100, 100, 100, term=1)
    ticket = log.begin_sync()
    oracle.truncate(log, 2)
    oracle.append(log, 900, 900, term=2)
    ticket.run()
    oracle.synced(log.end_sync(ticket))
    oracle.sync(log)


def overlapping_syncs(env: FaultEnv, oracle: Oracle) -> None:
    """Batches arrive, and segments are sealed, before, while and after each sync runs."""
    log = log_of(env)
    for step in range(4):
        oracle.append(log, 40, 700, term=1 + step // 2)
        ticket = log.begin_sync()
        oracle.append(log, 500, 20, term=1 + step // 2)
        if log.wants_spare():
            log.prepare_spare()
        ticket.run()
        oracle.append(log, 30, term=1 + step // 2)
        oracle.synced(log.end_sync(ticket))
    oracle.sync(log)


def trims(env: FaultEnv, oracle: Oracle) -> None:
    log = log_of(env)
    for _ in range(5):
        oracle.append(log, 100, 100, 100, term=1)
        oracle.sync(log)
    oracle.trim(log, 7)
    oracle.append(log, 100, 100, term=2)
    oracle.sync(log)
    oracle.trim(log, 14)
    oracle.append(log, 100, term=2)
    oracle.sync(log)


def overtaken_trims(env: FaultEnv, oracle: Oracle) -> None:
    """While a sync is in flight, so that the manifest follows later; then a truncation too."""
    log = log_of(env)
    oracle.append(log, *([100] * 12), term=1)
    oracle.sync(log)
    oracle.append(log, 90, term=1)
    ticket = log.begin_sync()
    oracle.trim(log, 6)
    oracle.append(log, 80, 80, term=1)
    ticket.run()
    oracle.synced(log.end_sync(ticket))
    oracle.trim(log, 11)
    oracle.truncate(log, 12)
    oracle.append(log, 70, term=2)
    oracle.sync(log)


# --- stopping and starting ---------------------------------------------------------------------


def restarts(env: FaultEnv, oracle: Oracle) -> None:
    for term in (1, 2, 3):
        log = log_of(env)
        oracle.append(log, 100, 1000, term=term)
        oracle.sync(log)
        log.mark_idle()
        oracle.append(log, 20, term=term)
        oracle.close(log)


def recoveries(env: FaultEnv, oracle: Oracle) -> None:
    """C7: what a killed process left readable is copied and synced before it counts."""
    for term in (1, 2, 3):
        log = reopened(env, oracle)
        oracle.append(log, 100, 1000, term=term)
        oracle.sync(log)
        oracle.append(log, 300, term=term)
        env.crash_process()
    reopened(env, oracle)


def large_recoveries(env: FaultEnv, oracle: Oracle) -> None:
    """What no sync proved spans segments: sealed by a roll, cut by a truncation, not durable."""
    log = log_of(env)
    oracle.append(log, 100, 100, term=1)
    oracle.sync(log)
    oracle.append(log, *([900] * 11), term=1)
    env.crash_process()
    log = reopened(env, oracle)
    oracle.truncate(log, 9)
    oracle.append(log, *([70] * 6), term=2)
    env.crash_process()
    log = reopened(env, oracle)
    oracle.append(log, 50, term=3)
    oracle.sync(log)


def power_losses(env: FaultEnv, oracle: Oracle) -> None:
    """Torn tails, one over the other: each life begins where the power left the one before."""
    for term in (1, 2, 3, 4):
        log = reopened(env, oracle)
        oracle.append(log, 100, 900, term=term)
        oracle.sync(log)
        oracle.append(log, 700, 90, term=term)
        left = env.operations_left
        env.crash(term, garbage=term % 2 == 0)
        env.stop_after(left)
    reopened(env, oracle)


def index_rebuilds(env: FaultEnv, oracle: Oracle) -> None:
    """F14: index files are lost or rot while the log is closed; opening it makes them again."""
    log = log_of(env)
    for term in (1, 2, 2):
        oracle.append(log, 50, 600, 70, 80, term=term)
        oracle.sync(log)
    oracle.close(log)
    for number, name in enumerate(env.list(DIRECTORY)):
        if name.endswith(".idx"):
            if number % 2:
                env.remove(f"{DIRECTORY}/{name}")
            else:
                env.corrupt(f"{DIRECTORY}/{name}", 30, 1)
    log = log_of(env)
    oracle.append(log, 90, term=3)
    oracle.sync(log)


def full_disks(env: FaultEnv, oracle: Oracle) -> None:
    """F12: a roll is refused, the log continues when there is room again."""
    log = log_of(env)
    oracle.append(log, 100, 100, 100, 100, term=1)
    oracle.sync(log)
    for term in (1, 2):
        env.set_free_space(0)
        with pytest.raises(DiskFullError):
            oracle.append(log, *([900] * 4), term=term)
        del oracle.rows[-4:]
        oracle.sync(log)
        env.set_free_space(PLENTY)
        oracle.append(log, 60, 700, 80, term=term)
        oracle.sync(log)


# --- term and vote -----------------------------------------------------------------------------


def votes(env: FaultEnv, oracle: Oracle) -> None:
    log = log_of(env)
    hard_state = open_hard_state(env, DIRECTORY, create=True)
    for term, vote in ((1, 5), (2, 0), (2, 7), (9, 2**100)):
        oracle.saving = (term, MemberId(vote))
        ticket = hard_state.begin_save(term, MemberId(vote))
        ticket.run()
        hard_state.end_save(ticket)
        oracle.saved = oracle.saving
        oracle.append(log, 30, term=term)
        oracle.sync(log)


WORKLOADS: tuple[Workload, ...] = (
    appends, batches, large_entries, rolls, spares, truncations, truncations_across_segments,
    truncations_to_nothing, overtaken_syncs, overlapping_syncs, trims, overtaken_trims, restarts,
    recoveries, large_recoveries, power_losses, index_rebuilds, full_disks, votes,
)  # fmt: skip
