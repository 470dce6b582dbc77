"""Snapshot files (F13, F17, F28): golden bytes, flips, power cuts and full disks."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from copycat.errors import CorruptLogError, DiskError, DiskFullError, FormatVersionError
from copycat.storage import snapshot_file
from copycat.storage._native import FaultEnv, crc32c
from copycat.storage.snapshot_store import Snapshot, SnapshotStore
from copycat.types import EntryId

DIRECTORY = "/member/snapshots"
OLD, NEW = EntryId(1, 10), EntryId(2, 20)
DATA = {OLD: b"old " * 50, NEW: bytes(range(256)) * 2}

GOLDEN = (
    "434f5059534e5000764266ed010000000500000000000000030000000000000007000000000000001400000000"
    "000000000010000100000002000000000000006366"
)


def store_on(env: FaultEnv, **settings: bool) -> SnapshotStore:
    return SnapshotStore(env, DIRECTORY, **settings)


def save(store: SnapshotStore, entry: EntryId, data: bytes | None = None) -> Snapshot:
    raw = DATA[entry] if data is None else data
    snapshot = store.save(entry, time_ms=entry.index * 1000, data=raw)
    store.forget(store.discard(store.admit(snapshot)))
    return snapshot


def loaded(env: FaultEnv) -> tuple[EntryId, bytes] | None:
    """What a start finds."""
    good = store_on(env).newest_good()
    return None if good is None else (good[0].entry, good[1])


def test_a_snapshot_comes_back() -> None:
    env = FaultEnv(1)
    store = store_on(env)
    data = random.Random(3).randbytes(1_500_000) + bytes(2_000_000)
    written = store.save(NEW, time_ms=99, data=data, configuration=b"cfg")
    assert store.newest is None, "not before it is admitted"
    store.admit(written)
    assert store.newest == written
    assert (written.time_ms, written.raw_nbytes, written.configuration) == (99, len(data), b"cfg")
    assert written.nbytes == env.size(f"{DIRECTORY}/20-2.snap") < 1_600_000
    env.crash(5)
    again = store_on(env).newest_good()
    assert again == (written, data)


def test_one_that_a_start_found_after_a_kill_survives_a_loss_of_power() -> None:
    """Its rename was in the page cache alone, and the log may be trimmed for it from now on."""
    env = FaultEnv(1)
    save(store_on(env), OLD)
    written = store_on(env).save(NEW, time_ms=20_000, data=DATA[NEW])
    path = f"{DIRECTORY}/20-2.snap"
    env.rename(path, f"{DIRECTORY}/20-2.new")
    env.sync_directory(DIRECTORY)
    env.rename(f"{DIRECTORY}/20-2.new", path)
    env.crash_process()
    assert loaded(env) == (written.entry, DATA[NEW])
    env.crash_keeping(0)
    assert loaded(env) == (written.entry, DATA[NEW])


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1])
@pytest.mark.parametrize("compress", [True, False])
def test_every_size_of_state(size: int, compress: bool) -> None:
    env = FaultEnv(1)
    store = store_on(env, compress=compress)
    data = bytes(index % 251 for index in range(size))
    save(store, NEW, data)
    assert loaded(env) == (NEW, data)
    assert (env.size(f"{DIRECTORY}/20-2.snap") > size) or compress


def test_golden_bytes() -> None:
    env = FaultEnv(1)
    data = b"twenty bytes of text"
    store = store_on(env, compress=False)
    store.save(EntryId(3, 5), time_ms=7, data=data, configuration=b"cf")
    text = env.read_file(f"{DIRECTORY}/5-3.snap").hex()
    assert text[: len(GOLDEN)] == GOLDEN
    assert text[len(GOLDEN) : len(GOLDEN) + 16] == "1400000014000000"
    assert text.endswith(b"COPYSNE\0".hex())
    assert len(text) == 2 * (64 + 2 + 12 + 20 + 8 + 32 + 4 + 8)


def test_two_are_kept_and_those_in_use() -> None:
    env = FaultEnv(1)
    store = store_on(env)
    first, second, third, fourth = (EntryId(1, index) for index in (1, 2, 3, 4))
    save(store, first, b"1")
    store.begin_read(first)
    for entry in (second, third):
        save(store, entry, b"x")
    assert store.entries == [first, second, third], "pinned"
    assert store.oldest_index == 1
    store.end_read(first)
    save(store, fourth, b"4")
    assert store.entries == [third, fourth]
    assert store.oldest_index == 3
    assert env.list(DIRECTORY) == ["3-1.snap", "4-1.snap"]


def test_retain_stale_keeps_all() -> None:
    store = store_on(FaultEnv(1), retain_stale=True)
    for index in range(1, 6):
        save(store, EntryId(1, index), b"x")
    assert len(store.entries) == 5


def test_leftovers_go_and_unknown_names_stay(caplog: pytest.LogCaptureFixture) -> None:
    env = FaultEnv(1)
    save(store_on(env), OLD)
    for name in ("30-2.new", "30-2.part", "notes.txt"):
        env.create(f"{DIRECTORY}/{name}").sync()
    store = store_on(env)
    assert env.list(DIRECTORY) == ["10-1.snap", "notes.txt"]
    assert store.entries == [OLD]
    assert "notes.txt" in caplog.text


def test_f17_a_bad_one_falls_back_to_the_one_before(caplog: pytest.LogCaptureFixture) -> None:
    env = FaultEnv(1)
    store = store_on(env)
    save(store, OLD)
    save(store, NEW)
    env.corrupt(f"{DIRECTORY}/20-2.snap", 100, 1)
    store = store_on(env)
    good = store.newest_good()
    assert good is not None
    assert good[1] == DATA[OLD]
    assert store.bad == [NEW]
    assert store.entries == [OLD]
    assert "20-2.snap" in caplog.text
    # It is written again under its own name, and nothing bad is left.
    save(store, NEW)
    assert (store.entries, store.bad) == ([OLD, NEW], [])
    assert loaded(env) == (NEW, DATA[NEW])


def test_f17_both_bad() -> None:
    env = FaultEnv(1)
    store = store_on(env)
    save(store, OLD)
    save(store, NEW)
    for name in ("10-1", "20-2"):
        env.corrupt(f"{DIRECTORY}/{name}.snap", 70, 1)
    store = store_on(env)
    assert store.newest_good() is None
    assert store.bad == [NEW, OLD]


@pytest.mark.parametrize("compress", [True, False])
@pytest.mark.parametrize("masks", [(0x01, 0x80), (0x80, 0x01)])
def test_f17_each_byte_is_flipped_once(compress: bool, masks: tuple[int, int]) -> None:
    """Rejected by name and offset, whichever byte it is; a start takes the one before it."""
    env = FaultEnv(1)
    store = store_on(env, compress=compress)
    save(store, OLD)
    written = store.save(NEW, time_ms=1, data=DATA[NEW], configuration=b"cfg")
    path = f"{DIRECTORY}/20-2.snap"
    for offset in range(written.nbytes):
        image = env.clone()
        image.corrupt(path, offset, masks[offset % 2])
        with pytest.raises(CorruptLogError) as caught:
            snapshot_file.load(image, path)
        assert caught.value.path == path
        again = store_on(image)
        good = again.newest_good()
        assert good is not None
        assert (good[0].entry, good[1]) == (OLD, DATA[OLD])
        assert (again.entries, again.bad) == ([OLD], [NEW])


@pytest.mark.slow
def test_every_length_counts() -> None:
    env = FaultEnv(1)
    store_on(env).save(OLD, time_ms=1, data=DATA[OLD])
    whole = env.read_file(f"{DIRECTORY}/10-1.snap")
    for data in (*(whole[:end] for end in range(len(whole))), whole + b"\0"):
        image = FaultEnv(1)
        image.make_directory(DIRECTORY)
        image.replace_file(f"{DIRECTORY}/10-1.snap", data)
        assert loaded(image) is None


def test_a_snapshot_under_another_name_is_bad() -> None:
    env = FaultEnv(1)
    store_on(env).save(OLD, time_ms=1, data=b"x")
    env.rename(f"{DIRECTORY}/10-1.snap", f"{DIRECTORY}/11-1.snap")
    assert loaded(env) is None


def test_another_version_is_refused() -> None:
    env = FaultEnv(1)
    store_on(env).save(OLD, time_ms=1, data=b"")
    head = bytearray(env.read_file(f"{DIRECTORY}/10-1.snap"))
    head[12] = 9
    head[8:12] = crc32c(bytes(head[12:64])).to_bytes(4, "little")
    env.replace_file(f"{DIRECTORY}/10-1.snap", bytes(head))
    with pytest.raises(FormatVersionError, match="format 9"):
        loaded(env)


def test_f28_a_chunk_that_claims_too_much_is_never_allocated() -> None:
    env = FaultEnv(1)
    store_on(env).save(OLD, time_ms=1, data=b"x" * 100)
    head = bytearray(env.read_file(f"{DIRECTORY}/10-1.snap"))
    head[40:48] = (1 << 40).to_bytes(8, "little")  # raw bytes
    head[48:52] = (1 << 31).to_bytes(4, "little")  # of a chunk
    head[52:56] = (1 << 9).to_bytes(4, "little")
    head[8:12] = crc32c(bytes(head[12:64])).to_bytes(4, "little")
    env.replace_file(f"{DIRECTORY}/10-1.snap", bytes(head))
    assert loaded(env) is None


# ---- power cuts and bad disks -----------------------------------------------------------


def receive(store: SnapshotStore, data: bytes, snapshot: Snapshot) -> Snapshot:
    reception = store.receive(snapshot.entry, snapshot.nbytes, snapshot.digest)
    for offset in range(0, len(data), 100):
        reception.write(offset, data[offset : offset + 100])
    return reception.finish()


def shipped(entry: EntryId) -> tuple[Snapshot, bytes]:
    """A snapshot as another member has it: what it is, and the bytes of its file."""
    env = FaultEnv(7)
    store = store_on(env)
    snapshot = save(store, entry)
    return snapshot, store.read(snapshot, 0, snapshot.nbytes)


def take(store: SnapshotStore) -> None:
    save(store, NEW)


def take_from_another(store: SnapshotStore) -> None:
    snapshot, data = shipped(NEW)
    received = receive(store, data, snapshot)
    store.forget(store.discard(store.supersede(received)))


WAYS = pytest.mark.parametrize("way", [take, take_from_another])


@WAYS
@pytest.mark.parametrize("error", ["ENOSPC", "EIO"])
def test_f13_a_disk_that_fails_leaves_the_old_state(
    way: Callable[[SnapshotStore], None], error: str
) -> None:
    failures = 0
    refusal = DiskFullError if error == "ENOSPC" else DiskError
    for operation in ("create", "write", "sync", "rename", "sync_directory", "read"):
        for nth in range(1, 40):
            env = FaultEnv(2)
            store = store_on(env)
            save(store, OLD)
            env.fail(operation, nth, error)
            try:
                way(store)
            except refusal:
                failures += 1
            else:
                break
            names = env.list(DIRECTORY)
            assert not [name for name in names if not name.endswith(".snap")], (operation, nth)
            assert store.entries[0] == OLD
            again = loaded(env)
            assert again in {(OLD, DATA[OLD]), (NEW, DATA[NEW])}
            way(store)
            assert loaded(env) == (NEW, DATA[NEW])
    assert failures > 8


def test_f17_what_the_disk_did_not_keep_is_not_published(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    env = FaultEnv(1)
    store = store_on(env)
    save(store, OLD)
    write = snapshot_file.write

    def write_on_bad_disk(*arguments: Any, **settings: Any) -> Snapshot:
        written = write(*arguments, **settings)
        env.corrupt(arguments[1], 100, 1)
        return written

    monkeypatch.setattr(snapshot_file, "write", write_on_bad_disk)
    with pytest.raises(CorruptLogError, match="checksum"):
        save(store, NEW)
    assert env.list(DIRECTORY) == ["10-1.snap"]
    assert loaded(env) == (OLD, DATA[OLD])
    monkeypatch.undo()
    save(store, NEW)
    assert loaded(env) == (NEW, DATA[NEW])


# ---- receiving --------------------------------------------------------------------------


def test_chunks_that_are_lost_doubled_or_foreign_change_nothing() -> None:
    snapshot, data = shipped(NEW)
    env = FaultEnv(1)
    store = store_on(env)
    reception = store.receive(snapshot.entry, snapshot.nbytes, snapshot.digest)
    assert reception.write(0, data[:50]) == 50
    assert reception.write(0, data[:50]) == 50
    assert reception.write(60, data[60:70]) == 50, "one between was lost"
    assert reception.write(50, data[50:] + b"more") == 50, "past the end"
    assert reception.write(50, data[50:]) == len(data)
    assert reception.is_of(snapshot.entry, snapshot.nbytes, snapshot.digest)
    assert not reception.is_of(snapshot.entry, snapshot.nbytes, bytes(32))
    assert reception.finish() == snapshot
    assert loaded(env) == (NEW, DATA[NEW])


def test_a_snapshot_that_arrives_damaged_is_dropped() -> None:
    snapshot, data = shipped(NEW)
    env = FaultEnv(1)
    store = store_on(env)
    reception = store.receive(snapshot.entry, snapshot.nbytes, snapshot.digest)
    reception.write(0, data[:80] + bytes([data[80] ^ 1]) + data[81:])
    with pytest.raises(CorruptLogError):
        reception.finish()
    assert reception.end == 0
    assert env.list(DIRECTORY) == []
    assert receive(store, data, snapshot) == snapshot


def test_a_snapshot_of_something_else_is_not_published() -> None:
    snapshot, data = shipped(NEW)
    for entry, digest in ((EntryId(2, 21), snapshot.digest), (NEW, bytes(32))):
        env = FaultEnv(1)
        reception = store_on(env).receive(entry, snapshot.nbytes, digest)
        reception.write(0, data)
        with pytest.raises(CorruptLogError, match="should be"):
            reception.finish()
        assert env.list(DIRECTORY) == []


def test_an_installed_snapshot_supersedes_what_was_there() -> None:
    env = FaultEnv(1)
    store = store_on(env)
    save(store, OLD)
    take_from_another(store)
    assert store.entries == [NEW]
    assert store.oldest_index == 20


# ---- written piece by piece, since version 2 ---------------------------------------------------


def stream(store: SnapshotStore, entry: EntryId, pieces: list[bytes]) -> Snapshot:
    def write(put: Callable[[bytes | memoryview], None]) -> None:
        for piece in pieces:
            put(piece)

    return store.finish(store.begin(entry, time_ms=9, write=write, configuration=b"cfg"))


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 5 << 20])
@pytest.mark.parametrize("piece", [1000, 1 << 20, 3 << 20])
def test_a_snapshot_of_unknown_size_comes_back(size: int, piece: int) -> None:
    env = FaultEnv(1)
    store = store_on(env)
    data = bytes(range(251)) * (size // 251 + 1)
    pieces = [data[at : min(at + piece, size)] for at in range(0, size, piece)]
    written = stream(store, NEW, pieces)
    assert (written.raw_nbytes, written.time_ms, written.configuration) == (size, 9, b"cfg")
    assert written.nbytes == env.size(f"{DIRECTORY}/20-2.snap")
    assert store_on(env).newest_good() == (written, data[:size])
    store.check(written)


@pytest.mark.slow
@pytest.mark.parametrize("compress", [True, False])
def test_f17_each_byte_of_such_a_file_is_flipped_once(
    compress: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot_file, "CHUNK_BYTES", 100)
    env = FaultEnv(1)
    written = stream(store_on(env, compress=compress), NEW, [b"ab" * 130])
    path = f"{DIRECTORY}/20-2.snap"
    whole = env.read_file(path)
    for offset in range(written.nbytes):
        image = env.clone()
        image.corrupt(path, offset, 0x41)
        with pytest.raises((CorruptLogError, FormatVersionError)):
            snapshot_file.load(image, path)
    for size in range(written.nbytes):
        image = env.clone()
        image.replace_file(path, whole[:size])
        with pytest.raises(CorruptLogError):
            snapshot_file.load(image, path)


def test_f28_a_short_chunk_in_the_middle_is_none_of_ours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(snapshot_file, "CHUNK_BYTES", 100)
    env = FaultEnv(1)
    path = f"{DIRECTORY}/20-2.snap"
    env.make_directory(DIRECTORY)
    writer = snapshot_file.Writer(env, path, NEW, time_ms=1)
    writer.put(b"short")
    writer._write_chunk()
    writer.put(b"and more")
    writer.finish()
    with pytest.raises(CorruptLogError, match="follows one that is not full"):
        snapshot_file.load(env, path)


def test_one_that_was_begun_and_failed_or_is_not_wanted_leaves_nothing() -> None:
    env = FaultEnv(1)
    store = store_on(env)

    def fail(put: Callable[[bytes | memoryview], None]) -> None:
        put(bytes(3 << 20))
        raise ValueError("no encoding")

    with pytest.raises(ValueError, match="no encoding"):
        store.begin(NEW, time_ms=1, write=fail)
    assert env.list(DIRECTORY) == []
    store.drop(store.begin(NEW, time_ms=1, write=lambda put: put(b"x")))
    assert env.list(DIRECTORY) == []
    env.fail("write", 2, "ENOSPC")
    with pytest.raises(DiskFullError):
        stream(store, NEW, [bytes(100), bytes(100)])
    assert env.list(DIRECTORY) == []
