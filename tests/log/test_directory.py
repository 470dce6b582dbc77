"""A member's directory: F5, F6, F7, F27, C7, C9; and its identity, in two copies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from copycat.errors import (
    ConfigurationError,
    CorruptLogError,
    DirectoryInUseError,
    FormatVersionError,
    StorageError,
    WrongDirectoryError,
)
from copycat.member.directory import MemberDirectory
from copycat.member.identity import IDENTITY_FILES, Identity, read_identity
from copycat.storage._native import Env, FaultEnv, crc32c, open_log
from copycat.types import EntryId, MemberId
from tests.log.contract import batch, contents, durable, expected, grow

PATH = "/disk/member"
MEMBERS = ("b:2", "a:1", "c:3")
MEMBER = MemberId(2**127 + 5)


def open_member(env: Env, path: str = PATH, **options: Any) -> MemberDirectory:
    defaults: dict[str, Any] = {
        "cluster_name": "test",
        "address": "a:1",
        "members": MEMBERS,
        "member": MEMBER,
        "incarnation_source": lambda: 2**120 + 77,
        "max_segment_size": 16384,
        "max_entries_per_segment": 5,
    }
    return MemberDirectory.open(env, path, **(defaults | options))


def save(directory: MemberDirectory, term: int, vote: int) -> None:
    ticket = directory.hard_state.begin_save(term, MemberId(vote))
    ticket.run()
    directory.hard_state.end_save(ticket)


def image(env: FaultEnv, path: str = PATH) -> dict[str, bytes]:
    """Every file and its bytes: what a refusal must leave as it was."""
    files: dict[str, bytes] = {}
    for name in env.list(path):
        child = f"{path}/{name}"
        try:
            files[child] = env.read_file(child)
        except (OSError, StorageError):
            files |= image(env, child)
    return files


def used(env: FaultEnv, **options: Any) -> None:
    """A member that voted in term 3, holds four entries and stopped cleanly."""
    directory = open_member(env, **options)
    save(directory, 3, 9)
    grow(directory.log, 4, term=2)
    durable(directory.log)
    directory.close()


def refused(env: FaultEnv, error: type[StorageError], **options: Any) -> StorageError:
    before = image(env)
    with pytest.raises(error) as caught:
        open_member(env, **options)
    assert image(env) == before, "a refusal changes nothing on disk"
    return caught.value


def test_a_first_start_makes_everything_and_is_fresh() -> None:
    env = FaultEnv()
    directory = open_member(env)
    assert directory.fresh
    assert directory.identity == Identity(
        cluster_name="test",
        address="a:1",
        members=("a:1", "b:2", "c:3"),
        member=MEMBER,
        incarnation=2**120 + 77,
    )
    assert (directory.current_term, directory.voted_for) == (0, 0)
    assert (directory.log.first_index, directory.log.last_index) == (1, 0)
    directory.close()


def test_a_restart_finds_all_of_it_again() -> None:
    env = FaultEnv()
    used(env)
    directory = open_member(env, incarnation_source=lambda: 1)
    assert not directory.fresh
    assert directory.identity.incarnation == 2**120 + 77
    assert (directory.current_term, directory.voted_for) == (3, 9)
    assert contents(directory.log) == expected(1, 5, term=2)
    directory.close()


def test_c16_a_directory_that_was_never_used_is_still_fresh() -> None:
    env = FaultEnv()
    open_member(env).close()
    assert open_member(env).fresh


def test_c9_the_floor_of_the_log_raises_the_term_and_clears_the_vote() -> None:
    env = FaultEnv()
    directory = open_member(env)
    save(directory, 3, 9)
    directory.log.append(batch(1, b"x", term=8))
    durable(directory.log)
    directory.close()
    again = open_member(env)
    assert again.log.last_entry == EntryId(8, 1)
    assert (again.current_term, again.voted_for) == (8, 0)
    assert (again.hard_state.current_term, again.hard_state.voted_for) == (3, 9)


@pytest.mark.parametrize("copy", ["hard-state-a", "hard-state-b"])
@pytest.mark.parametrize("way", ["flip", "lose"])
def test_f5_one_bad_copy_of_the_vote_is_written_again(copy: str, way: str) -> None:
    env = FaultEnv()
    used(env)
    path = f"{PATH}/{copy}"
    if way == "flip":
        env.corrupt(path, 30, 4)
    else:
        env.remove(path)
    directory = open_member(env)
    assert (directory.current_term, directory.voted_for) == (3, 9)
    directory.close()
    assert len(env.read_file(path)) == 48
    env.corrupt(f"{PATH}/hard-state-{'b' if copy.endswith('a') else 'a'}", 30, 4)
    again = open_member(env)
    assert (again.current_term, again.voted_for) == (3, 9)


def test_f6_both_copies_of_the_vote_bad_refuses() -> None:
    env = FaultEnv()
    used(env)
    env.corrupt(f"{PATH}/hard-state-a", 30, 4)
    env.corrupt(f"{PATH}/hard-state-b", 20, 1)
    refused(env, CorruptLogError)


def test_f6_both_copies_of_the_vote_missing_refuses() -> None:
    env = FaultEnv()
    used(env)
    env.remove(f"{PATH}/hard-state-a")
    env.remove(f"{PATH}/hard-state-b")
    refused(env, CorruptLogError)


@pytest.mark.parametrize(
    ("option", "value", "text"),
    [
        ("cluster_name", "other", "test"),
        ("address", "b:2", "a:1"),
        ("members", ("a:1", "b:2"), "a:1, b:2, c:3"),
        ("member", MemberId(6), f"{MEMBER:032x}"),
    ],
)
def test_f7_another_identity_refuses_and_names_both(option: str, value: object, text: str) -> None:
    env = FaultEnv()
    used(env)
    error = refused(env, WrongDirectoryError, **{option: value})
    assert text in error.message
    assert getattr(error, "field", None) == option


def test_f7_a_newer_format_refuses() -> None:
    env = FaultEnv()
    used(env)
    for name in IDENTITY_FILES:
        data = bytearray(env.read_file(f"{PATH}/{name}"))
        data[12:16] = (4).to_bytes(4, "little")
        data[8:12] = crc32c(bytes(data[12:])).to_bytes(4, "little")
        env.replace_file(f"{PATH}/{name}", bytes(data))
    refused(env, FormatVersionError)


def test_f7_a_directory_in_use_refuses() -> None:
    env = FaultEnv()
    directory = open_member(env)
    with pytest.raises(DirectoryInUseError):
        open_member(env)
    directory.close()
    open_member(env).close()


def test_f7_a_directory_in_use_refuses_on_a_real_disk(tmp_path: Path) -> None:
    directory = open_member(Env(), str(tmp_path))
    with pytest.raises(DirectoryInUseError):
        open_member(Env(), str(tmp_path))
    directory.close()
    open_member(Env(), str(tmp_path)).close()


@pytest.mark.parametrize("copy", IDENTITY_FILES)
def test_one_bad_identity_is_written_again(copy: str) -> None:
    env = FaultEnv()
    used(env)
    env.corrupt(f"{PATH}/{copy}", 40, 1)
    open_member(env).close()
    assert read_identity(env, PATH)[1] == ()


def test_no_readable_identity_refuses() -> None:
    env = FaultEnv()
    used(env)
    for copy in IDENTITY_FILES:
        env.corrupt(f"{PATH}/{copy}", 40, 1)
    refused(env, CorruptLogError)


def test_two_identities_that_differ_refuse() -> None:
    env = FaultEnv()
    used(env)
    other = Identity(
        cluster_name="test", address="z:1", members=("z:1",), member=MEMBER, incarnation=1
    )
    env.replace_file(f"{PATH}/identity-b", other.encode())
    refused(env, CorruptLogError)


def test_f27_entries_without_an_identity_refuse() -> None:
    env = FaultEnv()
    used(env)
    for copy in IDENTITY_FILES:
        env.remove(f"{PATH}/{copy}")
    refused(env, CorruptLogError)


def test_f7_a_member_does_not_move_in_with_a_bare_log() -> None:
    env = FaultEnv()
    env.make_directory(PATH)
    open_log(env, PATH, max_segment_size=16384, max_entries_per_segment=8).close()
    before = env.list(PATH)
    with pytest.raises(WrongDirectoryError, match="bare log"):
        open_member(env)
    assert env.list(PATH) == before


def test_f27_a_vote_without_an_identity_refuses() -> None:
    env = FaultEnv()
    directory = open_member(env)
    save(directory, 1, 1)
    directory.close()
    for copy in IDENTITY_FILES:
        env.remove(f"{PATH}/{copy}")
    refused(env, CorruptLogError)


def test_f27_a_half_made_directory_starts_over() -> None:
    env = FaultEnv()
    open_member(env).close()
    for copy in IDENTITY_FILES:
        env.remove(f"{PATH}/{copy}")
    env.corrupt(f"{PATH}/hard-state-a", 30, 4)
    env.corrupt(f"{PATH}/hard-state-b", 30, 4)
    directory = open_member(env, incarnation_source=lambda: 5)
    assert directory.fresh
    assert directory.identity.incarnation == 5


def test_c7_the_hard_state_is_rewritten_after_an_unclean_stop() -> None:
    """A killed process leaves a vote in the page cache that looks as durable as any other."""
    env = FaultEnv()
    directory = open_member(env)
    save(directory, 3, 9)
    grow(directory.log, 4, term=2)
    env.crash_process()
    before = env.operations
    again = open_member(env)
    assert env.operations > before
    assert not again.native.report.clean
    env.crash(1)
    last = open_member(env)
    assert (last.current_term, last.voted_for) == (3, 9)
    assert contents(last.log) == expected(1, 5, term=2)


def test_read_only_changes_nothing_and_needs_no_lock() -> None:
    env = FaultEnv()
    used(env)
    directory = open_member(env)
    before = image(env)
    beside = open_member(env, read_only=True)
    assert contents(beside.log) == expected(1, 5, term=2)
    assert (beside.current_term, beside.voted_for) == (3, 9)
    with pytest.raises(ConfigurationError):
        beside.hard_state.begin_save(9, MemberId(1))
    beside.close()
    assert image(env) == before
    directory.close()


def test_read_only_of_nothing_is_refused() -> None:
    env = FaultEnv()
    with pytest.raises(CorruptLogError):
        open_member(env, read_only=True)
