"""Workloads over a member's snapshots: taken, received, pruned, refused and written again (F17).

What counts is a whole snapshot under its own name. After a power loss the newest one that was
published is there, or the one that was being published, and the one before it as well.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from copycat.errors import CorruptLogError, DiskFullError
from copycat.storage._native import FaultEnv
from copycat.storage.snapshot_store import Snapshot, SnapshotStore
from copycat.types import EntryId

__all__ = ["SNAPSHOT_WORKLOADS", "Outcome", "Published", "SnapshotWorkload", "snapshots_recovered"]

SNAPSHOTS = "/disk/snapshots"
PIECE = 150
"""Bytes of a chunk on its way in."""

State = tuple[EntryId, bytes]
Outcome = tuple[State | None, tuple[EntryId, ...]]
"""The state that a start continues from, and all snapshots that are there."""


class Published:
    """What a start must find, and what it may find as well."""

    def __init__(self) -> None:
        self.whole: list[State] = []
        """Published and not deleted, oldest first."""
        self.coming: State | None = None
        """Under way: its name may have reached the disk or not."""
        self.rotten: set[EntryId] = set()
        """Files that a start may find to be bad; no other one."""
        self.only_newest = False
        """What is older belongs to another history, and may be deleted at any moment."""

    def begin(self, entry: EntryId, data: bytes) -> None:
        self.coming = (entry, data)

    def end(self) -> None:
        assert self.coming is not None
        self.whole = [*self.whole, self.coming][-2:]
        self.coming = None


SnapshotWorkload = Callable[[FaultEnv, Published], None]


def state_of(number: int, size: int) -> State:
    return EntryId(1 + number // 3, 10 * number), bytes((number + at) % 251 for at in range(size))


def store_on(env: FaultEnv) -> SnapshotStore:
    return SnapshotStore(env, SNAPSHOTS)


def saved(store: SnapshotStore, published: Published, number: int, size: int) -> None:
    """As a member does it: written in pieces, published, admitted, then the older ones go."""
    entry, data = state_of(number, size)
    published.begin(entry, data)

    def write(put: Callable[[bytes | memoryview], None]) -> None:
        for piece in cut(data):
            put(piece)

    writer = store.begin(entry, time_ms=number, write=write, configuration=b"members")
    snapshot = store.finish(writer)
    published.end()
    store.forget(store.discard(store.admit(snapshot)))


def shipped(number: int, size: int) -> tuple[Snapshot, bytes]:
    """A snapshot as another member has it, and the bytes of its file."""
    entry, data = state_of(number, size)
    other = store_on(FaultEnv(7))
    snapshot = other.save(entry, time_ms=number, data=data)
    return snapshot, other.read(snapshot, 0, snapshot.nbytes)


def received(store: SnapshotStore, snapshot: Snapshot, pieces: Sequence[bytes]) -> Snapshot:
    reception = store.receive(snapshot.entry, snapshot.nbytes, snapshot.digest)
    for piece in pieces:
        reception.write(reception.end, piece)
    return reception.finish()


def cut(data: bytes) -> list[bytes]:
    return [data[at : at + PIECE] for at in range(0, len(data), PIECE)]


# --- taken by this member ----------------------------------------------------------------------


def saves(env: FaultEnv, published: Published) -> None:
    """From none on, of all sizes: nothing, less than a chunk, several chunks and syncs."""
    store = store_on(env)
    for number, size in enumerate((0, 100, 3000, 1), start=1):
        saved(store, published, number, size)


def read_while_discarded(env: FaultEnv, published: Published) -> None:
    """One that is being shipped stays while others come and go."""
    store = store_on(env)
    saved(store, published, 1, 400)
    store.begin_read(state_of(1, 400)[0])
    for number in (2, 3, 4):
        saved(store, published, number, 300)
    store.end_read(state_of(1, 400)[0])
    saved(store, published, 5, 20)


def restarts(env: FaultEnv, published: Published) -> None:
    """Lives that end in the middle of a save; the next one begins with what that left."""
    for number in range(1, 4):
        store = store_on(env)
        store.newest_good()
        saved(store, published, number, 700)
        entry, _ = state_of(number + 1, 900)
        file = env.create(f"{SNAPSHOTS}/{entry.index}-{entry.term}.new")
        file.write(0, b"COPYSNP\0 and no more")
        if number % 2:
            file.sync()
        env.crash_process()


def rot(env: FaultEnv, published: Published) -> None:
    """F17: the newest rots while nobody runs; it is passed over, and later written again."""
    store = store_on(env)
    for number in (1, 2):
        saved(store, published, number, 500)
    entry, _ = state_of(2, 500)
    env.crash_process()
    env.corrupt(f"{SNAPSHOTS}/{entry.index}-{entry.term}.snap", 90, 4)
    published.whole.pop()
    published.rotten.add(entry)
    store = store_on(env)
    good = store.newest_good()
    assert good is not None
    assert store.bad == [entry]
    saved(store, published, 2, 500)
    saved(store, published, 3, 40)


def full_disks(env: FaultEnv, published: Published) -> None:
    """F13: refused for want of room, and tried again when there is some."""
    store = store_on(env)
    saved(store, published, 1, 300)
    for number, write in ((2, 1), (3, 5)):
        env.fail("write", write, "ENOSPC")
        with pytest.raises(DiskFullError):
            saved(store, published, number, 1500)
        saved(store, published, number, 1500)


# --- received from another ---------------------------------------------------------------------


def receptions(env: FaultEnv, published: Published) -> None:
    """It replaces this member's state: what is older goes."""
    store = store_on(env)
    for number in (1, 2):
        saved(store, published, number, 200)
    for number, size in ((5, 900), (7, 0)):
        snapshot, data = shipped(number, size)
        published.begin(*state_of(number, size))
        came = received(store, snapshot, cut(data))
        published.end()
        published.only_newest = True
        store.forget(store.discard(store.supersede(came)))
        published.whole = published.whole[-1:]
        published.only_newest = False
        saved(store, published, number + 1, 60)


def bad_receptions(env: FaultEnv, published: Published) -> None:
    """Read back and found to be something else: not published, and asked for again."""
    store = store_on(env)
    saved(store, published, 1, 200)
    snapshot, data = shipped(4, 800)
    flipped = data[:99] + bytes([data[99] ^ 1]) + data[100:]
    with pytest.raises(CorruptLogError):
        received(store, snapshot, cut(flipped))
    published.begin(*state_of(4, 800))
    came = received(store, snapshot, cut(data))
    published.end()
    store.forget(store.discard(store.admit(came)))


SNAPSHOT_WORKLOADS: tuple[SnapshotWorkload, ...] = (
    saves, read_while_discarded, restarts, rot, full_disks, receptions, bad_receptions,
)  # fmt: skip


def snapshots_recovered(env: FaultEnv, published: Published) -> Outcome:
    """What a start finds, after AssertionErrors for each promise that it breaks."""
    store = store_on(env)
    good = store.newest_good()
    newest_good = None if good is None else (good[0].entry, good[1])
    assert published.rotten.issuperset(store.bad), f"torn: {store.bad}"
    newest = published.whole[-1] if published.whole else None
    assert newest_good in (newest, published.coming), f"{newest_good} is not {newest}"
    older = [] if published.only_newest else published.whole[:-1]
    entry_ids = tuple(store.entries)
    for entry, data in older:
        assert entry in entry_ids, f"{entry}, the one before, is gone: {entry_ids}"
        assert _read(env, entry) == data
    if env.exists(SNAPSHOTS):
        names = env.list(SNAPSHOTS)
        assert not [name for name in names if not name.endswith(".snap")], names
    return newest_good, entry_ids


def _read(env: FaultEnv, entry: EntryId) -> bytes:
    """As a start does when nothing newer is good: CorruptLogError for a torn one."""
    alone = env.clone()
    for name in alone.list(SNAPSHOTS):
        if name != f"{entry.index}-{entry.term}.snap":
            alone.remove(f"{SNAPSHOTS}/{name}")
    good = store_on(alone).newest_good()
    assert good is not None, f"{entry} is torn"
    return good[1]
