"""The native log against lists and dicts: every verb in any order, with power losses (I24)."""

from __future__ import annotations

from contextlib import suppress

from hypothesis import settings, strategies
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from copycat.errors import DiskError, LogPoisonedError
from copycat.log._native import FaultEnv, NativeLog, SyncTicket
from tests.log.contract import contents
from tests.log.oracle import Oracle
from tests.log.test_native import DIRECTORY, open_small

share = strategies.floats(0, 1)
sizes = strategies.lists(strategies.integers(0, 700), min_size=1, max_size=6)


class LogMachine(RuleBasedStateMachine):
    """The oracle holds what must be there; the log is the shipped one over a faulty disk."""

    def __init__(self) -> None:
        super().__init__()
        self.env = FaultEnv(7)
        self.env.make_directory(DIRECTORY)
        self.oracle = Oracle()
        self.term = 1
        self.log: NativeLog = open_small(self.env)
        self.ticket: SyncTicket | None = None
        self.was_run = False
        self.floor = 0

    @rule(sizes=sizes, newer=strategies.integers(0, 1))
    def append(self, sizes: list[int], newer: int) -> None:
        self.term += newer
        self.oracle.append(self.log, *sizes, term=self.term)

    @precondition(lambda self: self.ticket is None)
    @rule()
    def begin_sync(self) -> None:
        self.ticket = self.log.begin_sync()
        self.was_run = False
        self.floor = self.log.last_index

    @precondition(lambda self: self.ticket is not None and not self.was_run)
    @rule()
    def run_sync(self) -> None:
        assert self.ticket is not None
        self.ticket.run()
        self.was_run = True

    @precondition(lambda self: self.ticket is not None and self.was_run)
    @rule()
    def end_sync(self) -> None:
        assert self.ticket is not None
        durable_index = self.log.end_sync(self.ticket)
        assert durable_index >= self.floor
        self.oracle.synced(durable_index)
        self.ticket = None

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
        first, last = self.log.first_index, self.log.last_index
        assert contents(self.log) == self.oracle.rows[first - 1 :]
        assert last == self.oracle.last_index or not self.oracle.rows
        assert first <= self.oracle.first
        assert self.log.durable_index <= last

    @invariant()
    def terms_are_runs_of_the_model(self) -> None:
        first = self.log.first_index
        runs = {run.first: run.term for run in self.log.term_runs()}
        before = 0
        naive = {}
        for index, term, _ in self.oracle.rows[first - 1 :]:
            if term != before:
                naive[index] = term
            before = term
        assert runs == naive


LogMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40)
TestLogModel = LogMachine.TestCase
