"""The disk in memory, cut on order: which changes are kept, noise, and what tells disks apart."""

from __future__ import annotations

import pytest

from copycat.errors import DiskError
from copycat.storage._native import FaultEnv

__all__: list[str] = []


def changed() -> FaultEnv:
    """Four changes no sync made durable: a rename, a file's size, and two writes in it."""
    env = FaultEnv(1)
    env.make_directory("/d")
    env.replace_file("/d/a", b"old")
    file = env.create("/d/f")
    file.zero_fill(0, 4096)
    file.sync()
    env.sync_directory("/d")
    env.rename("/d/a", "/d/b")
    file.write(0, b"1" * 1000)
    file.write(4096, b"2" * 1000)
    return env


def state_after(env: FaultEnv, bits: int) -> tuple[str, int, bool, bool]:
    image = env.clone()
    image.crash_keeping(bits)
    name = next(name for name in image.list("/d") if name in "ab")
    assert image.read_file(f"/d/{name}") == b"old"
    data = image.read_file("/d/f")
    return name, len(data), data[:1] == b"1", data[4096:] == b"2" * 1000


def test_every_subset_of_the_unsynced_changes_can_be_had() -> None:
    env = changed()
    assert env.unsynced == 4
    for bits in range(16):
        renamed, sized, first, second = (bool(bits >> bit & 1) for bit in range(4))
        # A write above the durable size brings the size along.
        size = 5096 if sized or second else 4096
        assert state_after(env, bits) == ("b" if renamed else "a", size, first, second)


def test_what_was_synced_is_in_every_subset() -> None:
    env = changed()
    env.sync_directory("/d")
    assert env.unsynced == 3
    env.open("/d/f", write=True).sync()
    assert env.unsynced == 0
    assert state_after(env, 0) == ("b", 5096, True, True)


def test_the_last_bit_stands_for_all_that_follow() -> None:
    env = FaultEnv(1)
    env.make_directory("/d")
    for number in range(70):
        env.create(f"/d/{number:02}")
    assert env.unsynced == 70
    env.crash_keeping(1 << 63 | 1)
    assert env.list("/d") == ["00", *(f"{number}" for number in range(63, 70))]


def test_noise_is_inside_unsynced_writes_only() -> None:
    env = changed()
    noisy = 0
    for seed in range(100):
        image = env.clone()
        image.crash(seed, garbage=True)
        data = image.read_file("/d/f")
        assert not data[1000:4096].strip(b"\0")
        noisy += bool(data[:1000].strip(b"\0" + b"1"))
    assert 10 < noisy < 90


def test_without_noise_the_same_seed_is_the_same_crash_as_ever() -> None:
    digests = set()
    for seed in range(40):
        one, other = changed(), changed()
        one.crash(seed)
        other.crash(seed, garbage=False)
        assert one.digest == other.digest
        digests.add(one.digest)
    assert len(digests) > 10


def test_a_digest_is_of_names_and_bytes() -> None:
    env = changed()
    duplicate = env.clone()
    assert duplicate.digest == env.digest
    duplicate.corrupt("/d/f", 4000, 1)
    assert duplicate.digest != env.digest
    duplicate.corrupt("/d/f", 4000, 1)
    assert duplicate.digest == env.digest
    duplicate.rename("/d/b", "/d/a")
    assert duplicate.digest != env.digest
    duplicate.rename("/d/a", "/d/b")
    duplicate.make_directory("/d/e")
    assert duplicate.digest != env.digest


def test_what_is_left_until_the_power_goes() -> None:
    env = FaultEnv(1)
    assert env.operations_left == 2**64 - 1
    env.stop_after(2)
    env.make_directory("/d")  # and the sync of its parent
    assert env.operations_left == 0
    with pytest.raises(DiskError):
        env.create("/d/f")
    env.crash(0)
    assert env.operations_left == 2**64 - 1
