"""The native log against lists and dicts: every verb in any order, with power losses (I24).

What a reader held on to, batches and index arrays, stays as it was whatever the log does.
"""

from __future__ import annotations

import itertools
from collections import deque
from contextlib import suppress
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import seed, settings, strategies
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from copycat.errors import DiskError, LogPoisonedError
from copycat.log._native import Batch, FaultEnv, NativeLog, SyncTicket
from tests.log.contract import contents
from tests.log.oracle import Oracle
from tests.log.test_native import DIRECTORY, open_small

STEPS = 50_000
STEPS_OF_AN_EXAMPLE = 100
EXAMPLES = 50
"""Of a round. Some end before their last step, when they have drawn much: rounds follow until
there are enough steps, each from a seed of its own."""
HELD_MAX = 12

share = strategies.floats(0, 1)
sizes = strategies.lists(strategies.integers(0, 700), min_size=1, max_size=6)


class LogMachine(RuleBasedStateMachine):
    """The oracle holds what must be there; the log is the shipped one over a faulty disk."""

    steps: ClassVar[int] = 0
    """Rules that ran, in all examples; the invariants are checked after each, and once before."""

    def __init__(self) -> None:
        super().__init__()
        LogMachine.steps -= 1
        self.env = FaultEnv(7)
        self.env.make_directory(DIRECTORY)
        self.oracle = Oracle()
        self.term = 1
        self.log: NativeLog = open_small(self.env)
        self.ticket: SyncTicket | None = None
        self.was_run = False
        self.floor = 0
        self.batches: deque[tuple[Batch, memoryview, bytes]] = deque(maxlen=HELD_MAX)
        self.arrays: deque[tuple[np.ndarray[Any, Any], bytes]] = deque(maxlen=HELD_MAX)

    @rule(sizes=sizes, newer=strategies.integers(0, 1))
    def append(self, sizes: list[int], newer: int) -> None:
        self.term += newer
        self.oracle.append(self.log, *sizes, term=self.term)

    @rule()
    def sync(self) -> None:
        """The next third of a sync: begin, run, end; other verbs come between."""
        if self.ticket is None:
            self.ticket = self.log.begin_sync()
            self.was_run = False
            self.floor = self.log.last_index
        elif not self.was_run:
            self.ticket.run()
            self.was_run = True
        else:
            durable_index = self.log.end_sync(self.ticket)
            assert durable_index >= self.floor
            self.oracle.synced(durable_index)
            self.ticket = None

    @precondition(lambda self: self.log.last_index >= self.log.first_index)
    @rule(where=share, nbytes=strategies.integers(0, 4000))
    def hold(self, where: float, nbytes: int) -> None:
        """A batch and an index array, kept while the log goes on without them."""
        low, high = self.log.first_index, self.log.last_index
        held = self.log.read(low + round(where * (high - low)), high + 1, nbytes)
        self.batches.append((held, memoryview(held), bytes(held)))
        segments = self.log.segments()
        array = self.log.index_array(segments[round(where * (len(segments) - 1))][0])
        self.arrays.append((array, array.tobytes()))

    @rule(where=share)
    def truncate(self, where: float) -> None:
        low, high = self.log.first_index - 1, self.log.last_index
        after = low + round(where * (high - low))
        self.floor = min(self.floor, after)
        self.oracle.truncate(self.log, after)

    @precondition(lambda self: self.log.durable_index >= self.log.first_index)
    @rule(where=share)
    def trim(self, where: float) -> None:
        low, high = self.log.first_index, self.log.durable_index
        self.oracle.trim(self.log, low + round(where * (high - low)))

    @rule()
    def spare(self) -> None:
        if self.log.wants_spare():
            self.log.prepare_spare()

    @precondition(lambda self: self.ticket is None)
    @rule()
    def idle(self) -> None:
        self.log.mark_idle()

    @precondition(lambda self: self.ticket is None)
    @rule()
    def reopen(self) -> None:
        before = contents(self.log)
        self.log.close()
        self.log = open_small(self.env)
        assert self.log.report.clean
        assert contents(self.log) == before
        self._adopt()

    @rule(seed=strategies.integers(0, 2**32))
    def power_loss(self, seed: int) -> None:
        self.env.crash(seed)
        self.log = open_small(self.env)
        self._adopt()

    @rule()
    def killed(self) -> None:
        before = contents(self.log)
        self.env.crash_process()
        self.log = open_small(self.env)
        assert contents(self.log) == before, "the page cache survives a killed process"
        self._adopt()

    @rule(
        operations=strategies.integers(0, 12),
        seed=strategies.integers(0, 2**32),
        sizes=sizes,
        where=share,
        verbs=strategies.lists(strategies.sampled_from("astcip"), max_size=5),
    )
    def power_loss_inside(
        self, operations: int, seed: int, sizes: list[int], where: float, verbs: list[str]
    ) -> None:
        """The power goes while these verbs run, or right after; then in the recovery too."""
        self.env.stop_after(operations)
        with suppress(DiskError, LogPoisonedError):
            for verb in verbs:
                self._do(verb, sizes, where)
        self.env.crash(seed)
        self.env.stop_after(operations // 2)
        with suppress(DiskError):
            open_small(self.env)
        self.env.crash(seed + 1)
        self.log = open_small(self.env)
        self._adopt()

    def _do(self, verb: str, sizes: list[int], where: float) -> None:
        low, high = self.log.first_index - 1, self.log.last_index
        middle = low + round(where * (high - low))
        match verb:
            case "a":
                self.oracle.append(self.log, *sizes, term=self.term)
            case "s" if self.ticket is None:
                self.oracle.sync(self.log)
            case "t":
                self.oracle.truncate(self.log, middle)
            case "c" if self.ticket is None:
                self.log.close()
                self.oracle.synced(self.oracle.last_index)
                self.log = open_small(self.env)
            case "i":
                self.log.mark_idle()
            case "p" if self.log.wants_spare():
                self.log.prepare_spare()

    def _adopt(self) -> None:
        self.oracle.adopt(self.oracle.check(self.log), self.log.last_index)
        self.ticket = None
        self.floor = self.log.last_index

    @invariant()
    def it_is_the_model(self) -> None:
        LogMachine.steps += 1
        first, last = self.log.first_index, self.log.last_index
        assert contents(self.log) == self.oracle.rows[first - 1 :]
        assert last == self.oracle.last_index or not self.oracle.rows
        assert first <= self.oracle.first
        assert self.log.durable_index <= last
        runs = {run.first: run.term for run in self.log.term_runs()}
        before = 0
        naive = {}
        for index, term, _ in self.oracle.rows[first - 1 :]:
            if term != before:
                naive[index] = term
            before = term
        assert runs == naive

    @invariant()
    def what_is_held_stays_as_it_was(self) -> None:
        for held, view, before in self.batches:
            assert view == before
            assert held.nbytes == len(before)
        for array, slots in self.arrays:
            assert array.tobytes() == slots


@pytest.mark.slow
def test_the_log_is_its_model(every: int) -> None:
    """With --every=N, for an Nth of the steps."""
    LogMachine.steps = 0
    for number in itertools.count():
        before = LogMachine.steps
        run_state_machine_as_test(
            seed(number)(LogMachine),
            settings=settings(max_examples=EXAMPLES, stateful_step_count=STEPS_OF_AN_EXAMPLE),
        )
        assert LogMachine.steps > before
        if LogMachine.steps >= STEPS // every:
            break
    print(f"{LogMachine.steps} steps")  # noqa: T201 - pytest shows it with -s
