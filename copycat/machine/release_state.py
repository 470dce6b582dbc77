"""The pending releases, as part of a snapshot.

The snapshot stands for all entries below it, whatever their policy; but a deletion that comes
later must still know which entries it waits for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from copycat.machine.keys import KeyTable
from copycat.machine.release_tracker import ReleaseTracker
from copycat.machine.sessions import PendingRelease, SessionTable
from copycat.machine.state_codec import StateEncoder
from copycat.machine.state_decoder import StateDecoder
from copycat.types import Release

__all__ = ["ReleaseState", "load_release_state", "save_release_state"]


class ReleaseState(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """Pendings are named by their place in `pendings`."""

    pendings: list[tuple[int, int, bool, int, list[int]]]
    """(index, policy, by_hand, obstacles, waiters)"""
    session_releases: list[tuple[int, list[int]]]
    """(session, pendings)"""
    acquired: list[tuple[int, int]]
    """(index, pending or -1)"""
    pending_releases: list[tuple[Any, list[int]]]
    snapshot_only: list[Any]
    deletions_need_snapshot: bool
    late_snapshot_only: list[int]
    waiting: list[tuple[int, int]]
    """(index, policy) of deletions by hand"""


class _PendingNumbers:
    """Gives every pending release, and all that wait for it, a number."""

    def __init__(self) -> None:
        self._places: dict[int, int] = {}
        self.ordered: list[PendingRelease] = []

    def of(self, pending: PendingRelease) -> int:
        place = self._places.get(id(pending))
        if place is None:
            place = self._places[id(pending)] = len(self.ordered)
            self.ordered.append(pending)
        return place

    def rows(self) -> list[tuple[int, int, bool, int, list[int]]]:
        rows = []
        for pending in self.ordered:  # grows while it is walked
            waiters = [self.of(waiter) for waiter in pending.waiters]
            row = (pending.index, int(pending.policy), pending.by_hand, pending.obstacles, waiters)
            rows.append(row)
        return rows


def save_release_state(
    tracker: ReleaseTracker, keys: KeyTable, sessions: SessionTable, encoder: StateEncoder
) -> ReleaseState:
    """The pending releases of the tracker and of the keys."""
    numbers = _PendingNumbers()
    session_releases = [
        (record.session, [numbers.of(pending) for pending in record.session_releases])
        for record in sessions
        if record.session_releases
    ]
    acquired = [
        (index, -1 if pending is None else numbers.of(pending))
        for index, pending in tracker.acquired.items()
    ]
    pending_releases = [
        (encoder.tree(key), [numbers.of(pending) for pending in chain])
        for key, chain in keys.pending_releases.items()
    ]
    rows = numbers.rows()
    return ReleaseState(
        rows,
        session_releases,
        acquired,
        pending_releases,
        [encoder.tree(key) for key in keys.snapshot_only | keys.dependents.keys()],
        tracker.deletions_need_snapshot,
        sorted(tracker.late_snapshot_only),
        [(index, int(policy)) for index, policy in tracker.by_hand_waiting],
    )


def load_release_state(
    image: ReleaseState, decoder: StateDecoder
) -> Callable[[ReleaseTracker, KeyTable, SessionTable], None]:
    """Decode it; the function that is returned puts it in place, and cannot fail."""
    pendings = [
        PendingRelease(index, Release(policy), by_hand=by_hand)
        for index, policy, by_hand, _, _ in image.pendings
    ]
    for pending, (*_, obstacles, waiters) in zip(pendings, image.pendings, strict=True):
        pending.obstacles = obstacles
        pending.waiters = [pendings[number] for number in waiters]
    session_releases = {
        session: [pendings[number] for number in numbers]
        for session, numbers in image.session_releases
    }
    acquired = {index: pendings[place] if place >= 0 else None for index, place in image.acquired}
    pending_releases = decoder.table(
        [
            (decoder.value(key), [pendings[number] for number in numbers])
            for key, numbers in image.pending_releases
        ]
    )
    snapshot_only = set(decoder.table([(decoder.value(key), 0) for key in image.snapshot_only]))
    waiting = [(index, Release(policy)) for index, policy in image.waiting]

    def restore(tracker: ReleaseTracker, keys: KeyTable, sessions: SessionTable) -> None:
        for record in sessions:
            record.session_releases = session_releases.get(record.session, [])
        tracker.restore(
            sessions,
            acquired,
            image.late_snapshot_only,
            waiting,
            deletions_need_snapshot=image.deletions_need_snapshot,
        )
        keys.restore_releases(pending_releases, snapshot_only)

    return restore
