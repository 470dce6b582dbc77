"""How many entries are applied at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import pytest

from copycat.replica.applier import BACKLOG_COMMANDS, PATIENCE_MS, SLICE_COMMANDS, Applier
from copycat.storage import Batch, encode_batch
from copycat.storage.recent_batches import BatchReader
from copycat.types import EntryKind

NOOP = (int(EntryKind.NOOP), 0, 0, 0, 1, b"")


class Batches:
    """A log of no-ops, in batches of 100."""

    def walk(self, first: int, end: int) -> Iterator[Batch]:
        while first < end:
            after = min(end, first + 100)
            yield encode_batch(1, first, 0, [NOOP] * (after - first))
            first = after


def applier(waiting: int) -> Applier:
    made = Applier(cast("BatchReader", Batches()), last_applied=0)
    made.commit(waiting)
    return made


@pytest.mark.parametrize(
    ("waiting", "eager", "commands"),
    [
        (BACKLOG_COMMANDS + 1, False, BACKLOG_COMMANDS // 2),
        (BACKLOG_COMMANDS + 1, True, SLICE_COMMANDS),
        (BACKLOG_COMMANDS, False, SLICE_COMMANDS),
        (SLICE_COMMANDS, False, SLICE_COMMANDS),
        (3, True, 3),
    ],
)
def test_who_catches_up_takes_larger_slices_unless_somebody_waits(
    waiting: int, eager: bool, commands: int
) -> None:
    made = applier(waiting)
    runs = made.next_slice(1000, eager=eager)
    assert sum(run.end - run.first_index for run in runs) == commands
    assert made.dispatched_index == commands
    assert not made.next_slice(1000, eager=eager), "one slice at a time"


def test_a_trickle_waits_a_little_for_more() -> None:
    made = applier(3)
    assert not made.next_slice(1000, eager=False)
    assert made.due_ms == 1000 + PATIENCE_MS
    assert made.next_slice(made.due_ms, eager=False)
