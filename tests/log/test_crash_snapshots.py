"""F17: power is cut at every operation boundary of every workload of the snapshot store.

An image opens with the newest whole snapshot, the old one or the new one: never a torn one, and
never none if there was one.
"""

from __future__ import annotations

import pytest

from copycat.storage import snapshot_file
from copycat.storage._native import FaultEnv
from tests.log.crash.images import Images
from tests.log.crash.snapshots import (
    SNAPSHOT_WORKLOADS,
    Published,
    SnapshotWorkload,
    bad_receptions,
    full_disks,
    read_while_discarded,
    receptions,
    restarts,
    rot,
    saved,
    saves,
    snapshots_recovered,
    store_on,
)

FLOORS: dict[SnapshotWorkload, int] = {
    saves: 300,
    read_while_discarded: 280,
    restarts: 240,
    rot: 225,
    full_disks: 325,
    receptions: 325,
    bad_receptions: 230,
}
"""At least so many images of each; with --every=N, an Nth of it."""


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a small snapshot has several chunks, and is synced more than once."""
    monkeypatch.setattr(snapshot_file, "CHUNK_BYTES", 256)
    monkeypatch.setattr(snapshot_file, "SYNC_BYTES", 600)


def test_every_workload_has_its_floor() -> None:
    assert tuple(FLOORS) == SNAPSHOT_WORKLOADS


@pytest.mark.parametrize("workload", FLOORS, ids=lambda workload: workload.__name__)
def test_f17_every_crash_image_has_the_newest_whole_snapshot(
    workload: SnapshotWorkload, every: int
) -> None:
    images = Images(workload, Published, snapshots_recovered, every=every)
    images.run()
    print(images)  # noqa: T201 - pytest shows it with -s
    assert images.images >= FLOORS[workload] // every


# --- the nets catch fish -----------------------------------------------------------------------


def test_a_file_that_is_named_before_it_is_synced_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(snapshot_file._Writer, "sync", lambda _: None)
    with pytest.raises(AssertionError, match="torn"):
        Images(saves, Published, snapshots_recovered).run()


def test_one_that_goes_before_the_next_is_published_is_found() -> None:
    def impatient(env: FaultEnv, published: Published) -> None:
        store = store_on(env)
        saved(store, published, 1, 100)
        store.forget(store.discard(store.entries))
        saved(store, published, 2, 100)

    with pytest.raises(AssertionError, match="is not"):
        Images(impatient, Published, snapshots_recovered).run()
