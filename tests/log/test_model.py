"""The native log against lists and dicts: every verb in any order, with power losses (I24).

Appends, thirds of syncs, truncations, trims and resets; releases, and the parts of a rewrite,
with anything between them; clean stops, kills and power cuts, inside of verbs too.

What a reader held on to, batches and index arrays, stays as it was whatever the log does.
"""

from __future__ import annotations

import itertools
from collections import Counter, deque
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
from copycat.storage import reader
from copycat.storage._native import Batch, FaultEnv, NativeLog, SyncTicket
from copycat.types import CompactionLimits, EntryId, EntryKind, Release
from tests.log.contract import contents
from tests.log.contract_cleaning import layout
from tests.log.oracle import Oracle
from tests.log.test_native import DIRECTORY, open_small

STEPS = 50_000
STEPS_OF_AN_EXAMPLE = 100
EXAMPLES = 50
"""Of a round. Some end before their last step, when they have drawn much: rounds follow until
there are enough steps, each from a seed of its own."""
COUNTS_MIN = {
    "installs": 100,
    "dropped": 150,
    "merges": 150,
    "abandoned": 50,
    "overtaken": 20,
    "resets": 100,
    "restarts with gaps": 20,
    "restarts with packed ones": 20,
}
"""So often at least; about a fifth of what was counted."""
VIEWS_MAX = 12
GROWN = 24
"""A log of more entries may be reset: else it would never grow."""

PROCESS = 20
"""So many verbs at least come between two starts, but for every fourth, which may end at once:
a log that is killed all the time never has much to compact."""

share = strategies.integers(0, 50).map(lambda part: part / 50)
sizes = strategies.lists(strategies.integers(0, 700), min_size=1, max_size=6)
patterns = strategies.integers(1, (1 << 16) - 1)
"""Which of the next indexes, as bits."""
lengths = strategies.lists(strategies.integers(1, 3), min_size=1, max_size=3)
reaches = strategies.just(1.0) | share
flag = strategies.booleans()


def may_end(machine: LogMachine) -> bool:
    return machine.lived >= PROCESS or (machine.lived == 0 and machine.starts % 4 == 0)


def may_stop(machine: LogMachine) -> bool:
    return machine.ticket is None and may_end(machine)


class LogMachine(RuleBasedStateMachine):
    """The oracle holds what must be there; the log is the shipped one over a faulty disk."""

    steps: ClassVar[int] = 0
    """Rules that ran, in all examples; the invariants are checked after each, and once before."""
    met: ClassVar[Counter[str]] = Counter()
    """What happened in them, so that a model that goes nowhere is noticed."""

    def __init__(self) -> None:
        super().__init__()
        LogMachine.steps -= 1
        self.env = FaultEnv(7)
        self.env.make_directory(DIRECTORY)
        self.oracle = Oracle()
        self.term = 1
        self.starts = 0
        self.log: NativeLog = self._opened()
        self.ticket: SyncTicket | None = None
        self.was_run = False
        self.lived = -1
        self.durable_index_min = 0
        self.batches: deque[tuple[Batch, memoryview, bytes]] = deque(maxlen=VIEWS_MAX)
        self.arrays: deque[tuple[np.ndarray[Any, Any], bytes]] = deque(maxlen=VIEWS_MAX)

    @rule(sizes=sizes, newer=strategies.integers(0, 1))
    def append(self, sizes: list[int], newer: int) -> None:
        self.term += newer
        self.oracle.append(self.log, *sizes, term=self.term)

    @precondition(lambda self: self.ticket is None)
    @rule(count=strategies.integers(12, 24), nbytes=strategies.integers(0, 60))
    def grow(self, count: int, nbytes: int) -> None:
        """Some segments at once, durable: there is something to compact."""
        self.oracle.append(self.log, *([nbytes] * count), term=self.term)
        self.oracle.sync(self.log)

    @rule()
    def sync(self) -> None:
        """The next third of a sync: begin, run, end; other verbs come between."""
        if self.ticket is None:
            self.ticket = self.oracle.begin_sync(self.log)
            self.was_run = False
            self.durable_index_min = self.log.last_index
        elif not self.was_run:
            self.ticket.run()
            self.was_run = True
        else:
            durable_index = self.log.end_sync(self.ticket)
            assert durable_index >= self.durable_index_min
            self.oracle.synced(durable_index)
            self.ticket = None

    @precondition(lambda self: self.log.last_index >= self.log.first_index)
    @rule(where=share, nbytes=strategies.integers(0, 4000))
    def hold(self, where: float, nbytes: int) -> None:
        """A batch and an index array, kept while the log continues without them."""
        low, high = self.log.first_index, self.log.last_index
        entries = self.log.read(low + round(where * (high - low)), high + 1, nbytes)
        self.batches.append((entries, memoryview(entries), bytes(entries)))
        segments = self.log.segments()
        array = self.log.index_array(segments[round(where * (len(segments) - 1))][0])
        self.arrays.append((array, array.tobytes()))

    @rule(where=share)
    def truncate(self, where: float) -> None:
        """Mostly of few entries, as a new leader does it."""
        low, high = self.log.first_index - 1, self.log.last_index
        after = high - round(where**3 * (high - low))
        self.durable_index_min = min(self.durable_index_min, after)
        self.oracle.truncate(self.log, after)

    @precondition(lambda self: self.log.durable_index >= self.log.first_index)
    @rule(where=share)
    def trim(self, where: float) -> None:
        low, high = self.log.first_index, self.log.durable_index
        self.oracle.trim(self.log, low + round(where**3 * (high - low)))

    @precondition(lambda self: self.log.last_index - self.log.first_index > GROWN)
    @rule(where=share)
    def reset(self, where: float) -> None:
        """Anew from a snapshot, which covers less than the log, or all of it, or more."""
        low, high = self.log.first_index, self.log.last_index + GROWN
        self.durable_index_min = 0
        self.oracle.reset(self.log, EntryId(self.term, low + round(where * (high - low))))
        self.met["resets"] += 1

    # --- cleaning ----------------------------------------------------------------------------

    @precondition(lambda self: self.log.last_index >= self.log.first_index)
    @rule(where=share, pattern=patterns, policy=strategies.sampled_from(Release))
    def release(self, where: float, pattern: int, policy: Release) -> None:
        self.oracle.release(self.log, self._some(where, pattern), policy)

    def _some(self, where: float, pattern: int) -> list[int]:
        low, high = self.log.first_index, self.log.last_index
        begin = low + round(where * (high - low))
        named = [begin + bit for bit in range(pattern.bit_length()) if pattern >> bit & 1]
        return [index for index in named if index <= high]

    @precondition(lambda self: self.oracle.pending is None)
    @rule(
        where=share,
        pattern=patterns,
        policy=strategies.sampled_from(Release),
        lengths=lengths,
        reach=strategies.tuples(reaches, reaches, reaches),
        major=flag,
    )
    def rewrite(
        self,
        where: float,
        pattern: int,
        policy: Release,
        lengths: list[int],
        reach: tuple[float, float, float],
        major: bool,
    ) -> None:
        """Freeze some neighbours in groups; the statistics say the same as the rules."""
        if not any(row.is_sealed for row in self.log.segment_stats(CompactionLimits(0, 0, 0))):
            return
        self.oracle.release(self.log, self._some(where / 2, pattern), policy)
        limits = CompactionLimits(*(round(part * (self.log.last_index + 2)) for part in reach))
        stats = [row for row in self.log.segment_stats(limits) if row.is_sealed]
        ids = deque(row.id for row in stats[round(where / 2 * (len(stats) - 1)) :])
        groups = [[ids.popleft() for _ in range(min(n, len(ids)))] for n in lengths]
        rewrite = self.oracle.rewrite(self.log, [g for g in groups if g], limits, major=major)
        for group in rewrite.groups:
            inside = [row for row in stats if group.first <= row.first_index <= group.last]
            removable = sum(
                row.removable_major if major else row.removable_minor for row in inside
            )
            assert removable == len(group.drops)
        self.met["merges"] += any(len(group) > 1 for group in groups)

    @precondition(lambda self: self.oracle.pending is not None)
    @rule(parts=strategies.integers(1, 3))
    def go_on(self, parts: int) -> None:
        """The next parts of a rewrite: run, install; other verbs come between."""
        rewrite = self.oracle.pending
        assert rewrite is not None
        if not rewrite.was_run:
            rewrite.run()
            parts -= 1
        if parts:
            self.met["overtaken"] += len(rewrite.groups) == 0
            self.met["dropped"] += len(self.oracle.install(self.log))
            self.met["installs"] += 1

    @precondition(lambda self: self.oracle.pending is not None and self.lived % 4 == 0)
    @rule()
    def abandon(self) -> None:
        assert self.oracle.pending is not None
        self.oracle.pending.rewrite.abandon()
        self.oracle.pending = None
        self.met["abandoned"] += 1

    # --- stopping and starting ---------------------------------------------------------------

    @rule()
    def spare(self) -> None:
        if self.log.wants_spare():
            self.log.prepare_spare()

    @precondition(lambda self: self.ticket is None)
    @rule()
    def idle(self) -> None:
        self.log.mark_idle()

    @precondition(may_stop)
    @rule()
    def reopen(self) -> None:
        before = contents(self.log)
        self.oracle.close(self.log)
        self.log = self._opened()
        assert self.log.report.clean
        assert contents(self.log) == before
        self._adopt()

    @precondition(may_end)
    @rule(seed=strategies.integers(0, 2**32))
    def power_loss(self, seed: int) -> None:
        self.env.crash(seed)
        self.log = self._opened()
        self._adopt()

    @precondition(may_end)
    @rule()
    def killed(self) -> None:
        before, is_new = contents(self.log), self.oracle.is_layout_new
        self.env.crash_process()
        self.log = self._opened()
        assert is_new or contents(self.log) == before, "the page cache survives a killed process"
        self._adopt()

    @precondition(may_end)
    @rule(
        operations=strategies.integers(0, 12),
        seed=strategies.integers(0, 2**32),
        sizes=sizes,
        where=share,
        verbs=strategies.lists(strategies.sampled_from("astcipxyz"), max_size=5),
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
            self._opened()
        self.env.crash(seed + 1)
        self.log = self._opened()
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
                self.oracle.close(self.log)
                self.log = self._opened()
            case "i":
                self.log.mark_idle()
            case "p" if self.log.wants_spare():
                self.log.prepare_spare()
            case "x":
                self.oracle.release(self.log, range(low + 1, middle + 1), Release.ANY)
            case "y":
                self._compact()
            case "z" if high - low > GROWN:
                self.oracle.reset(self.log, EntryId(self.term, middle + 1))

    def _compact(self) -> None:
        """All parts of a minor compaction of every sealed segment."""
        limits = CompactionLimits(self.log.last_index, 0, 0)
        ids = [row.id for row in self.log.segment_stats(limits) if row.is_sealed]
        if self.oracle.pending is None and ids:
            self.oracle.rewrite(self.log, [ids], limits, major=False)
        if self.oracle.pending is not None:
            self.oracle.pending.run()
            self.oracle.install(self.log)

    def _opened(self) -> NativeLog:
        """Each start reads another way than the one before; most pack what they compact."""
        return open_small(self.env, mapped=self.starts % 2 == 1, compress=self.starts % 3 < 2)

    def _adopt(self) -> None:
        self.oracle.adopt(self.log)
        self.met["restarts with gaps"] += bool(self.oracle.dropped_indexes)
        rows = reader.segments(DIRECTORY, env=self.env)
        self.met["restarts with packed ones"] += any(row.packed for row in rows)
        self.ticket = None
        self.durable_index_min = self.log.last_index
        self.lived = -1
        self.starts += 1

    @invariant()
    def it_is_the_model(self) -> None:
        LogMachine.steps += 1
        self.lived += 1
        first, last = self.log.first_index, self.log.last_index
        state = self.oracle.state
        assert contents(self.log) == state.between(first, last)
        assert last == state.last_index
        assert first <= max(self.oracle.first, state.before.index + 1)
        assert self.log.before == state.entry(first - 1)
        assert self.log.last_entry == state.entry(last)
        assert self.log.durable_index <= last
        before = 0
        naive = {}
        for index, term, _ in state.all_between(first, last):
            if term != before:
                naive[index] = term
            before = term
        assert {run.first: run.term for run in self.log.term_runs()} == naive

    @invariant()
    def gaps_and_entries_tile_it(self) -> None:
        first, last = self.log.first_index, self.log.last_index
        parts = layout(self.log)
        ends = [first, *(end for _, end, _ in parts)]
        assert [begin for begin, _, _ in parts] == ends[:-1]
        assert ends[-1] == last + 1
        gaps = [range(a, b) for a, b, kind in parts if kind == EntryKind.GAP]
        dropped_indexes = {index for index in self.oracle.dropped_indexes if index >= first}
        assert {index for gap in gaps for index in gap} == dropped_indexes
        assert self.log.valid_from >= max(dropped_indexes, default=0)

    @invariant()
    def statistics_count_what_is_there(self) -> None:
        first, last = self.log.first_index, self.log.last_index
        rows = self.log.segment_stats(CompactionLimits(0, 0, 0))
        assert rows[0].first_index == first
        assert rows[-1].last_index == last
        assert all(a.last_index + 1 == b.first_index for a, b in itertools.pairwise(rows))
        assert sum(row.entries for row in rows) == len(self.oracle.state.between(first, last))
        released = [index for index in self.oracle.releases if index >= first]
        assert sum(row.released for row in rows) == len(released)

    @invariant()
    def what_is_held_stays_as_it_was(self) -> None:
        for entries, view, before in self.batches:
            assert view == before
            assert entries.nbytes == len(before)
        for array, slots in self.arrays:
            assert array.tobytes() == slots


@pytest.mark.slow
def test_the_log_is_its_model(every: int) -> None:
    """With --every=N, for an Nth of the steps."""
    LogMachine.steps = 0
    LogMachine.met.clear()
    for number in itertools.count():
        before = LogMachine.steps
        run_state_machine_as_test(
            seed(number)(LogMachine),
            settings=settings(max_examples=EXAMPLES, stateful_step_count=STEPS_OF_AN_EXAMPLE),
        )
        assert LogMachine.steps > before
        if LogMachine.steps >= STEPS // every:
            break
    print(f"{LogMachine.steps} steps, {dict(LogMachine.met)}")  # noqa: T201 - shown with -s
    if every == 1:  # a part is too short for what is rare
        rare = {what: n for what, n in COUNTS_MIN.items() if LogMachine.met[what] < n}
        assert not rare, f"{LogMachine.met} is less than {rare}"
