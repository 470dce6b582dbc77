"""Members whose promises do not wait for the disk: levels and modes of a directory (0016)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from copycat.errors import ConfigurationError, CorruptLogError, DiskError
from copycat.member.markers import UNSYNCED_ACKS_FILE, UnsyncedAcks, read_unsynced_acks
from copycat.storage._native import FaultEnv
from copycat.types import Durability, EntryId, MemberId, StorageLevel
from tests.log.contract import durable, grow
from tests.log.test_directory import PATH, image, open_member, save, used

MEMORY: dict[str, Any] = {"level": StorageLevel.MEMORY, "boot": "one"}
OS: dict[str, Any] = {"durability": Durability.OS, "boot": "one"}


def in_memory(env: FaultEnv) -> None:
    """A member that voted in term 3 and held four entries in memory; then SIGKILL."""
    directory = open_member(env, **MEMORY)
    save(directory, 3, 9)
    grow(directory.log, 4, term=2)
    env.crash_process()


def test_a_member_in_memory_keeps_term_and_vote_on_the_disk() -> None:
    env = FaultEnv()
    directory = open_member(env, **MEMORY)
    assert directory.fresh
    assert not directory.lost
    save(directory, 3, 9)
    assert not env.exists(f"{PATH}/log")
    assert directory.hard_state.voted_for == 9
    env.crash(1)
    again = open_member(env, **MEMORY)
    assert again.hard_state.current_term == 4, "above all that it acknowledged"
    assert again.hard_state.voted_for == 0
    assert again.lost
    assert not again.fresh
    assert again.log.last_entry == EntryId(0, 0)


def test_a_log_in_memory_is_lost_by_a_clean_stop_too() -> None:
    env = FaultEnv()
    directory = open_member(env, **MEMORY)
    save(directory, 3, 9)
    directory.close()
    assert open_member(env, **MEMORY).lost


def test_a_member_in_memory_that_promised_nothing_has_lost_nothing() -> None:
    env = FaultEnv()
    open_member(env, **MEMORY).close()
    again = open_member(env, **MEMORY)
    assert again.fresh
    assert not again.lost


def test_a_log_on_disk_is_not_forgotten_by_level_memory() -> None:
    env = FaultEnv()
    used(env)
    before = image(env)
    with pytest.raises(ConfigurationError, match="has a log on the disk"):
        open_member(env, **MEMORY)
    assert image(env) == before


def test_a_log_that_was_in_memory_is_not_taken_for_an_empty_one_on_disk() -> None:
    env = FaultEnv()
    in_memory(env)
    before = image(env)
    with pytest.raises(ConfigurationError, match="kept its log in memory"):
        open_member(env)
    assert image(env) == before


def test_f3_a_member_alone_whose_log_directory_is_gone_is_refused() -> None:
    env = FaultEnv()
    alone: dict[str, Any] = {"members": ("a:1",)}
    used(env, **alone)
    for name in env.list(f"{PATH}/log"):
        if name != "lost+found":
            env.remove(f"{PATH}/log/{name}")
    before = image(env)
    with pytest.raises(CorruptLogError, match="an identity, but no log"):
        open_member(env, **alone)
    assert image(env) == before


@pytest.mark.parametrize(
    ("boot", "lost"), [("one", False), ("two", True), ("", True)], ids=["kill", "power", "unknown"]
)
def test_unsynced_promises_are_whole_while_the_machine_ran_on(boot: str, lost: bool) -> None:
    env = FaultEnv()
    directory = open_member(env, **OS)
    save(directory, 3, 9)
    grow(directory.log, 4, term=2)
    env.crash_process()
    again = open_member(env, **(OS | {"boot": boot}))
    assert again.lost is lost
    assert again.log.last_index == 4
    assert again.hard_state.current_term == 4, "its leader must count anew"


def test_a_clean_stop_keeps_unsynced_promises() -> None:
    env = FaultEnv()
    directory = open_member(env, **OS)
    save(directory, 3, 9)
    grow(directory.log, 4, term=2)
    directory.close()
    assert not env.exists(f"{PATH}/{UNSYNCED_ACKS_FILE}")
    again = open_member(env, durability=Durability.FSYNC, boot="two")
    assert not again.lost
    assert again.hard_state.voted_for == 9
    assert again.log.last_index == 4


@pytest.mark.parametrize("operation", ["write", "sync"])
@pytest.mark.parametrize("boot", ["one", "two"])
def test_f9_a_disk_that_fails_deletes_no_marker_of_unsynced_acks(
    operation: str, boot: str
) -> None:
    """What it acknowledged is gone with the power, or with pages that the failed sync dropped."""
    env = FaultEnv()
    directory = open_member(env, **OS)
    save(directory, 3, 9)
    grow(directory.log, 4, term=2)
    env.fail(operation, 1, "EIO")
    verbs: dict[str, Callable[[], object]] = {
        "write": lambda: grow(directory.log, 1, term=2),
        "sync": lambda: durable(directory.log),
    }
    with pytest.raises(DiskError):
        verbs[operation]()
    directory.close()
    env.crash_keeping(0)
    again = open_member(env, **(OS | {"boot": boot}))
    assert again.log.last_index < 4
    assert again.lost
    assert (again.hard_state.current_term, again.hard_state.voted_for) == (4, 0)


def test_f9_a_sync_that_fails_in_the_stop_itself_deletes_no_marker_of_unsynced_acks() -> None:
    env = FaultEnv()
    directory = open_member(env, **OS)
    save(directory, 3, 9)
    grow(directory.log, 4, term=2)
    env.fail("sync", 1, "EIO")
    with pytest.raises(DiskError):
        directory.close()
    assert read_unsynced_acks(env, PATH) == UnsyncedAcks(was_in_memory=False, boot="")
    assert open_member(env, **OS).lost, "the lock is free, and the boot proves nothing any more"


def test_what_was_lost_is_known_until_a_leader_gave_it_back() -> None:
    env = FaultEnv()
    directory = open_member(env, **OS)
    save(directory, 3, 9)
    grow(directory.log, 4, term=2)
    env.crash(1)
    for _ in range(2):  # no leader in between: neither a crash nor a clean stop forgets it
        again = open_member(env, boot="two")
        assert again.lost
        again.close(lost=True)
    again = open_member(env, **(OS | {"boot": "two"}))
    assert again.lost
    grow(again.log, 1, term=9)
    durable(again.log)
    again.close(lost=False)
    assert not open_member(env, boot="three").lost


def test_with_fsync_nothing_is_written_down_and_the_vote_stays() -> None:
    env = FaultEnv()
    directory = open_member(env)
    save(directory, 3, 9)
    env.crash(1)
    again = open_member(env)
    assert read_unsynced_acks(env, PATH) is None
    assert (again.current_term, again.voted_for) == (3, MemberId(9))


def test_a_note_that_cannot_be_read_promises_the_least() -> None:
    env = FaultEnv()
    used(env)
    env.replace_file(f"{PATH}/{UNSYNCED_ACKS_FILE}", b"\xff\xff garbage\x00")
    assert open_member(env, boot="one").lost
