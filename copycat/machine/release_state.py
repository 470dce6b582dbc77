"""Entries that are held back, as part of a snapshot.

What is below the snapshot goes with it, whatever its class; but a deletion that comes later must
still know what it waits for.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heapify
from typing import Any

import msgspec

from copycat.machine.keys import KeyTable
from copycat.machine.release_tracker import ReleaseTracker
from copycat.machine.sessions import Pending, SessionTable
from copycat.machine.state_codec import StateEncoder
from copycat.machine.state_decoder import StateDecoder
from copycat.types import Release

__all__ = ["ReleaseState", "load_ledger", "save_ledger"]


class ReleaseState(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """Pendings are named by their place in `pendings`."""

    pendings: list[tuple[int, int, bool, int, list[int]]]
    """(index, class, by_hand, obstacles, waiters)"""
    held: list[tuple[int, list[int]]]
    """(session, pendings)"""
    kept: list[tuple[int, int]]
    """(index, pending or -1)"""
    chains: list[tuple[Any, list[int]]]
    strict: list[Any]
    is_strict: bool
    late_pins: list[int]
    waiting: list[tuple[int, int]]
    """(index, class) of deletions by hand"""


class _Numbers:
    """Gives every pending, and all that wait for it, a number."""

    def __init__(self) -> None:
        self._places: dict[int, int] = {}
        self.found: list[Pending] = []

    def of(self, pending: Pending) -> int:
        place = self._places.get(id(pending))
        if place is None:
            place = self._places[id(pending)] = len(self.found)
            self.found.append(pending)
        return place

    def rows(self) -> list[tuple[int, int, bool, int, list[int]]]:
        rows = []
        for pending in self.found:  # grows while it is walked
            waiters = [self.of(waiter) for waiter in pending.waiters]
            row = (pending.index, int(pending.how), pending.by_hand, pending.obstacles, waiters)
            rows.append(row)
        return rows


def save_ledger(
    ledger: ReleaseTracker, keys: KeyTable, sessions: SessionTable, encoder: StateEncoder
) -> ReleaseState:
    """All that is held back."""
    numbers = _Numbers()
    held = [
        (record.session, [numbers.of(pending) for pending in record.held])
        for record in sessions
        if record.held
    ]
    kept = [
        (index, -1 if pending is None else numbers.of(pending))
        for index, pending in ledger.kept.items()
    ]
    chains = [
        (encoder.tree(key), [numbers.of(pending) for pending in chain])
        for key, chain in keys.chains.items()
    ]
    rows = numbers.rows()
    return ReleaseState(
        rows,
        held,
        kept,
        chains,
        [encoder.tree(key) for key in keys.strict | keys.joined.keys()],
        ledger.is_strict,
        sorted(ledger.late_pins),
        [(index, int(how)) for index, how in ledger.hand_waiting],
    )


def load_ledger(
    image: ReleaseState, decoder: StateDecoder
) -> Callable[[ReleaseTracker, KeyTable, SessionTable], None]:
    """Read it; what comes back puts it in place and cannot fail."""
    pendings = [
        Pending(index, Release(how), by_hand=by_hand)
        for index, how, by_hand, _, _ in image.pendings
    ]
    for pending, (*_, obstacles, waiters) in zip(pendings, image.pendings, strict=True):
        pending.obstacles = obstacles
        pending.waiters = [pendings[number] for number in waiters]
    held = {session: [pendings[number] for number in numbers] for session, numbers in image.held}
    kept = {index: pendings[place] if place >= 0 else None for index, place in image.kept}
    chains = {
        decoder.value(key): [pendings[number] for number in numbers]
        for key, numbers in image.chains
    }
    strict = {decoder.value(key) for key in image.strict}
    waiting = [(index, Release(how)) for index, how in image.waiting]

    def put(ledger: ReleaseTracker, keys: KeyTable, sessions: SessionTable) -> None:
        ledger.reset()
        for record in sessions:
            record.held = held.get(record.session, [])
            ledger.hand_held += [each.index for each in record.held if each.by_hand]
        heapify(ledger.hand_held)
        heapify(waiting)
        ledger.hand_waiting = waiting
        ledger.kept, ledger.is_strict = kept, image.is_strict
        ledger.late_pins = set(image.late_pins)
        keys.chains, keys.strict = chains, strict

    return put
