"""The disk in memory: what may be lost is lost by some seed, what is promised by none."""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest

from copycat.errors import DirectoryInUseError, DiskError, DiskFullError, InvariantError
from copycat.storage._native import FaultEnv, File

__all__: list[str] = []

_SEEDS = range(200)


def disk(seed: int = 0) -> FaultEnv:
    env = FaultEnv(seed)
    env.make_directory("/d")
    return env


def file_on(env: FaultEnv, path: str = "/d/f", size: int = 0) -> File:
    """A file whose name and size are durable."""
    file = env.create(path)
    if size:
        file.zero_fill(0, size)
    file.sync()
    env.sync_directory("/d")
    return file


def images(env: FaultEnv) -> list[FaultEnv]:
    """What is left of `env` after a power loss, for every seed."""
    clones = [env.clone() for _ in _SEEDS]
    for seed, clone in zip(_SEEDS, clones, strict=True):
        clone.crash(seed)
    return clones


# --- what a power loss keeps and takes --------------------------------------------------------


def test_what_was_synced_survives_every_seed() -> None:
    env = disk()
    file = file_on(env)
    file.write(0, b"a" * 5000)
    file.sync()
    for image in images(env):
        assert image.read_file("/d/f") == b"a" * 5000


def test_an_unsynced_write_is_kept_dropped_or_torn() -> None:
    env = disk()
    file_on(env, size=8192).write(1000, b"a" * 6000)
    seen = {image.read_file("/d/f")[1000:7000] for image in images(env)}
    assert b"a" * 6000 in seen
    assert bytes(6000) in seen
    torn = seen - {b"a" * 6000, bytes(6000)}
    assert len(torn) > 20
    # by sectors in any pattern, not only as a prefix
    assert any(part.rstrip(b"a").rstrip(b"\0") and part[-1:] == b"a" for part in torn)


def test_bytes_outside_a_write_are_never_harmed() -> None:
    env = disk()
    file = file_on(env, size=8192)
    file.write(0, b"b" * 1000)  # shares its last sector with the next write
    file.sync()
    file.write(1000, b"a" * 3000)
    for image in images(env):
        data = image.read_file("/d/f")
        assert data[:1000] == b"b" * 1000
        assert not data[4000:].strip(b"\0")
        assert not data[1000:4000].strip(b"a\0")


def test_writes_are_lost_independently() -> None:
    env = disk()
    file = file_on(env, size=8192)
    file.write(0, b"1" * 512)
    file.write(4096, b"2" * 512)
    seen = {
        (data[:512] == b"1" * 512, data[4096:4608] == b"2" * 512)
        for data in (image.read_file("/d/f") for image in images(env))
    }
    assert seen == {(False, False), (False, True), (True, False), (True, True)}


def test_a_size_is_lost_apart_from_the_data() -> None:
    env = disk()
    file = file_on(env, size=1000)
    file.allocate(5000)
    file.write(5000, b"a" * 100)
    sizes = {image.size("/d/f") for image in images(env)}
    assert {1000, 5100} < sizes <= set(range(1000, 5101))


def test_a_create_is_lost_until_its_directory_is_synced() -> None:
    env = disk()
    env.create("/d/f").sync()
    assert {image.exists("/d/f") for image in images(env)} == {True, False}
    env.sync_directory("/d")
    assert all(image.exists("/d/f") for image in images(env))


def test_a_rename_is_all_or_nothing() -> None:
    env = disk()
    env.replace_file("/d/f", b"old")
    file_on(env, "/d/f.new").write(0, b"new")
    env.rename("/d/f.new", "/d/f")
    seen = {tuple(image.list("/d")) for image in images(env)}
    assert seen == {("f",), ("f", "f.new")}
    contents = {image.read_file("/d/f") for image in images(env)}
    assert {b"old", b"new", b""} <= contents  # the name without its data: the missing fsync


def test_a_replaced_file_is_old_or_new_and_new_at_the_end() -> None:
    env = disk()
    env.replace_file("/d/f", b"old" * 500)
    done = env.clone()
    done.replace_file("/d/f", b"new" * 500)
    assert {image.read_file("/d/f") for image in images(done)} == {b"new" * 500}
    for cut in range(done.operations - env.operations):
        half = env.clone()
        half.stop_after(cut)
        with pytest.raises(DiskError):
            half.replace_file("/d/f", b"new" * 500)
        assert {image.read_file("/d/f") for image in images(half)} <= {b"old" * 500, b"new" * 500}


def test_an_unlink_is_lost_until_its_directory_is_synced() -> None:
    env = disk()
    env.replace_file("/d/f", b"x")
    env.stop_after(1)  # the unlink happens, the sync of its directory does not
    with pytest.raises(DiskError):
        env.remove("/d/f")
    assert {image.exists("/d/f") for image in images(env)} == {True, False}


def test_a_lost_directory_takes_its_files_along() -> None:
    env = disk()
    env.stop_after(1)
    with pytest.raises(DiskError):
        env.make_directory("/d/e")
    assert {image.exists("/d/e") for image in images(env)} == {True, False}
    image = env.clone()
    image.crash(0)
    image.make_directory("/d/e")
    image.replace_file("/d/e/f", b"x")
    assert image.list("/d") == ["e"]


# --- a sync has two halves --------------------------------------------------------------------


def test_a_sync_covers_what_was_written_before_its_begin() -> None:
    env = disk()
    file = file_on(env, size=8192)
    file.write(0, b"1" * 512)
    ticket = file.begin_sync()
    file.write(4096, b"2" * 512)
    ticket.run()
    seen = set()
    for image in images(env):
        data = image.read_file("/d/f")
        assert data[:512] == b"1" * 512
        seen.add(data[4096:4608] == b"2" * 512)
    assert seen == {True, False}


def test_a_sync_that_never_ran_promises_nothing() -> None:
    env = disk()
    file = file_on(env, size=4096)
    file.write(0, b"1" * 512)
    file.begin_sync()
    assert bytes(512) in {image.read_file("/d/f")[:512] for image in images(env)}


def test_f9_after_a_failed_sync_the_next_one_lies() -> None:
    env = disk()
    file = file_on(env, size=4096)
    file.write(0, b"1" * 512)
    env.fail("sync", 1, "EIO")
    with pytest.raises(DiskError):
        file.sync()
    file.sync()  # reports success: the pages were marked clean
    assert file.read(0, 512) == b"1" * 512
    assert bytes(512) in {image.read_file("/d/f")[:512] for image in images(env)}


# --- crashes and handles ----------------------------------------------------------------------


@pytest.mark.parametrize("crash", [lambda env: env.crash(4), FaultEnv.crash_process])
def test_handles_tickets_and_locks_die(crash: Callable[[FaultEnv], None]) -> None:
    env = disk()
    file = file_on(env)
    lock = env.lock("/d/lock")
    ticket = file.begin_sync()
    crash(env)
    for use in (lambda: file.write(0, b"x"), ticket.run, file.size, file.begin_sync):
        with pytest.raises(DiskError) as caught:
            use()
        assert caught.value.errno == errno.EBADF
    again = env.lock("/d/lock")
    lock.close()  # the dead lock must not open the new one
    with pytest.raises(DirectoryInUseError):
        env.lock("/d/lock")
    again.close()


def test_c7_the_page_cache_survives_a_killed_process_but_is_not_durable() -> None:
    env = disk()
    file_on(env, size=4096).write(0, b"1" * 512)
    env.crash_process()
    assert env.read_file("/d/f")[:512] == b"1" * 512
    assert bytes(512) in {image.read_file("/d/f")[:512] for image in images(env)}


def test_mappings_outlive_growth_and_crashes() -> None:
    env = disk()
    file = file_on(env, size=4096)
    view = file.map()
    file.write(100, b"seen")
    assert bytes(view[100:104]) == b"seen"
    file.allocate(1 << 20)
    env.crash(1)
    assert bytes(view[100:104]) == b"seen"
    assert len(view) == 4096


def test_the_same_seed_makes_the_same_crash() -> None:
    def run(seed: int) -> list[bytes]:
        env = disk()
        for name in "abc":
            file = env.create(f"/d/{name}")
            file.write(0, name.encode() * 9000)
        env.crash(seed)
        return [env.read_file(f"/d/{name}") for name in env.list("/d")]

    assert [run(seed) for seed in range(50)] == [run(seed) for seed in range(50)]
    assert len({tuple(run(seed)) for seed in range(50)}) > 10


def test_a_clone_is_a_disk_of_its_own() -> None:
    env = disk()
    file = file_on(env, size=4096)
    clone = env.clone()
    file.write(0, b"x")
    env.remove("/d/f")
    assert clone.read_file("/d/f") == bytes(4096)
    assert not env.exists("/d/f")


# --- faults on order --------------------------------------------------------------------------


def test_faults_hit_the_nth_operation_once() -> None:
    env = disk()
    file = file_on(env)
    env.fail("write", 2, "EIO")
    file.write(0, b"1")
    with pytest.raises(DiskError) as caught:
        file.write(1, b"2")
    assert (caught.value.errno, vars(caught.value)["path"]) == (errno.EIO, "/d/f")
    file.write(1, b"2")
    assert env.read_file("/d/f") == b"12"


@pytest.mark.parametrize("error", ["ENOSPC", "EDQUOT"])
def test_f12_a_full_disk_writes_nothing(error: str) -> None:
    env = disk()
    file = file_on(env)
    env.fail("write", 1, error)
    with pytest.raises(DiskFullError):
        file.write(0, b"12")
    assert file.size() == 0
    file.write(0, b"12")


def test_f10_a_short_write_leaves_half() -> None:
    env = disk()
    file = file_on(env)
    env.fail("write", 1, "SHORT")
    with pytest.raises(DiskError):
        file.write(0, b"1234")
    assert env.read_file("/d/f") == b"12"


def test_every_operation_can_fail() -> None:
    env = disk()
    file = file_on(env, "/d/f", 10)
    verbs: dict[str, Callable[[], object]] = {
        "open": lambda: env.open("/d/f"),
        "create": lambda: env.create("/d/g"),
        "read": lambda: file.read(0, 1),
        "write": lambda: file.write(0, b"x"),
        "zero_fill": lambda: file.zero_fill(5, 1),
        "allocate": lambda: file.allocate(20),
        "sync": file.sync,
        "rename": lambda: env.rename("/d/f", "/d/h"),
        "unlink": lambda: env.remove("/d/f"),
        "mkdir": lambda: env.make_directory("/d/e"),
        "sync_directory": lambda: env.sync_directory("/d"),
    }
    for operation, verb in verbs.items():
        env.fail(operation, 1, "EIO")
        with pytest.raises(DiskError):
            verb()
        verb()
        if operation == "rename":
            env.rename("/d/h", "/d/f")
    for args in [("fly", 1, "EIO"), ("write", 0, "EIO"), ("write", 1, "?"), ("sync", 1, "SHORT")]:
        with pytest.raises(ValueError):
            env.fail(*args)


def test_stop_after_cuts_at_every_boundary() -> None:
    def work(env: FaultEnv) -> None:
        file = env.create("/d/f")
        file.write(0, b"x")
        file.sync()
        env.sync_directory("/d")

    whole = disk()
    before = whole.operations
    work(whole)
    assert whole.operations - before == 4
    for cut in range(4):
        env = disk()
        env.stop_after(cut)
        with pytest.raises(DiskError):
            work(env)
        assert env.operations - before == cut
        with pytest.raises(DiskError):  # and it stays off
            env.read_file("/d/f")
        env.crash(0)
        env.list("/d")


def test_corrupt_changes_cache_and_disk() -> None:
    env = disk()
    env.replace_file("/d/f", b"abc")
    env.corrupt("/d/f", 1, 0x20)
    assert env.read_file("/d/f") == b"aBc"
    assert all(image.read_file("/d/f") == b"aBc" for image in images(env))
    with pytest.raises(IndexError):
        env.corrupt("/d/f", 3, 1)


# --- the law of the house ---------------------------------------------------------------------


def test_nothing_written_is_ever_overwritten() -> None:
    env = disk()
    file = file_on(env, size=4096)
    file.write(100, b"a" * 100)
    file.write(200, b"b" * 100)
    file.write(50, b"c" * 50)
    for offset, size in [(100, 1), (299, 1), (0, 51), (299, 10), (0, 4096), (150, 100), (50, 1)]:
        with pytest.raises(InvariantError, match="overwritten"):
            file.write(offset, b"x" * size)
        with pytest.raises(InvariantError, match="overwritten"):
            file.zero_fill(offset, size)
    file.write(300, b"d")
    file.write(49, b"e")
    file.sync()
    for image in images(env):  # nor after a power loss
        with pytest.raises(InvariantError):
            image.open("/d/f", write=True).write(120, b"x")


def test_a_write_of_which_nothing_arrived_leaves_its_place_free() -> None:
    env = disk()
    file = file_on(env, size=4096)
    file.write(0, b"a" * 100)
    file.sync()
    file.write(100, b"b" * 3000)
    free = set()
    for image in images(env):
        arrived = bool(image.read_file("/d/f")[100:].strip(b"\0"))
        again = image.open("/d/f", write=True)
        if arrived:
            with pytest.raises(InvariantError):
                again.write(100, b"c" * 3000)
        else:
            again.write(100, b"c" * 3000)
        free.add(not arrived)
    assert free == {True, False}


def test_zeros_may_be_filled_again() -> None:
    file = file_on(disk(), size=4096)
    file.zero_fill(0, 8192)
    file.write(4096, b"x")
    assert file.size() == 8192


def test_small_refusals() -> None:
    env = disk()
    file_on(env)
    with pytest.raises(FileNotFoundError):
        env.create("/nowhere/f")
    with pytest.raises(DiskError):
        env.create("/d/f")
    with pytest.raises(FileNotFoundError):
        env.open("/d/g")
    with pytest.raises(DiskError):
        env.open("/d/f").write(0, b"x")
    with pytest.raises(InvariantError):
        env.rename("/d/f", "/e")
    with pytest.raises(FileNotFoundError):
        env.list("/nowhere")
