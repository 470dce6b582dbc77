"""F12, F13: a reserve on the disk for the manifest that must not fail in the middle."""

from __future__ import annotations

from pathlib import Path

from copycat.member.ballast_file import (
    BALLAST_FILE,
    BallastFile,
    ballast_size,
    disk_full,
    free_ballast,
)
from copycat.protocol.client import Register
from copycat.protocol.codec_client import encode_client
from copycat.protocol.framing import Frame, split_frame
from copycat.replica.disk_space import ROOM_AGAIN_MS
from copycat.replica.maintenance import INTERVAL_MS
from copycat.storage import Env, FaultEnv
from tests.log.contract import grow
from tests.log.test_directory import PATH, open_member, used
from tests.replica.harness import Node, lone_leader
from tests.replica.test_durability import opened

MIB = 1 << 20
FILE = f"{PATH}/{BALLAST_FILE}"


def ballast(env: FaultEnv, *, nbytes: int = MIB, min_free_space: int = 4 * MIB) -> BallastFile:
    env.make_directory(PATH)
    return BallastFile(env, PATH, nbytes, min_free_space)


def ballast_on(env: FaultEnv) -> BallastFile:
    one = ballast(env)
    assert one.make()
    return ballast(env)


def test_f12_the_ballast_file_is_as_large_as_a_manifest_and_an_index() -> None:
    assert ballast_size(32 * MIB, 1 << 20) == MIB + 8 * MIB
    assert ballast_size(32 * MIB, 1000) == MIB + 8000
    assert ballast_size(8192, 1 << 20) == MIB + 8 * 256


def test_f12_it_is_made_only_where_enough_is_left() -> None:
    env = FaultEnv()
    one = ballast(env)
    env.set_free_space(5 * MIB - 1)
    assert not one.make()
    assert not env.exists(FILE)
    env.set_free_space(5 * MIB)
    assert one.make()
    assert env.size(FILE) == MIB


def test_f12_a_disk_that_fills_meanwhile_leaves_no_half_of_it() -> None:
    env = FaultEnv()
    one = ballast(env)
    env.fail("allocate", 1, "ENOSPC")
    assert not one.make()
    assert not env.exists(FILE)


def test_f12_it_is_given_up_before_a_manifest_that_might_not_fit() -> None:
    env = FaultEnv()
    one = ballast_on(env)
    one.make_room_for_manifest()
    assert one.is_allocated
    env.set_free_space(MIB - 1)
    one.make_room_for_manifest()
    assert not one.is_allocated
    assert not env.exists(FILE)
    one.release()


def test_f12_another_size_or_half_a_file_is_removed_at_the_start() -> None:
    env = FaultEnv()
    ballast_on(env)
    again = ballast(env, nbytes=2 * MIB)
    assert not again.is_allocated
    assert not env.exists(FILE)


def test_f12_a_full_disk_is_opened_with_what_was_reserved() -> None:
    env = FaultEnv()
    used(env)
    one = BallastFile(env, PATH, MIB, 0)
    assert one.make()
    env.set_free_space(MIB)
    free_ballast(env, PATH)
    assert env.exists(FILE)
    env.set_free_space(0)
    open_member(env).close()
    assert not env.exists(FILE)


def full_leader(env: FaultEnv) -> tuple[Node, BallastFile]:
    one = ballast_on(env)
    node = lone_leader(log=opened(env), ballast=one)
    assert one.is_allocated
    env.set_free_space(0)
    for index in range(200):
        if node.replica.status().storage_full:
            break
        node.replica.receive_client(7, _register(index))
        node.stabilize()
    assert node.replica.status().storage_full
    return node, one


def _register(request: int) -> Frame:
    return split_frame(encode_client(Register(request, f"client-{request}", 5000)))


def test_f12_a_full_member_gives_it_up_and_takes_it_again_when_there_was_room() -> None:
    env = FaultEnv(1)
    is_writable: list[bool] = []
    node, one = full_leader(env)
    node.replica.on_storage_change(is_writable.append)
    assert not one.is_allocated
    env.set_free_space(1 << 40)
    for _ in range(2 * ROOM_AGAIN_MS // INTERVAL_MS + 5):
        node.turn(INTERVAL_MS)
        node.stabilize(rounds=1)
    assert not node.replica.status().storage_full
    assert is_writable == [False]
    for _ in range(ROOM_AGAIN_MS // INTERVAL_MS + 1):
        node.turn(INTERVAL_MS)
        node.stabilize(rounds=1)
    assert one.is_allocated
    assert env.size(FILE) == MIB


def test_f12_the_error_names_what_is_free_and_what_is_in_the_log(tmp_path: Path) -> None:
    env = FaultEnv()
    log = opened(env)
    grow(log, 40)
    env.set_free_space(3 * MIB)
    error = disk_full(env, "/log", log, 16 * MIB, MIB)
    text = error.render()
    assert "3.0 MiB free" in text
    assert "16.0 MiB" in text
    assert "entries 1 to 40" in text
    assert "18.0 MiB" in text, "where it continues"
    assert Env().free_space(str(tmp_path)) > 0
