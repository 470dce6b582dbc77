"""Term and vote: two copies, each replaced whole; what is saved survives, what is lost is told."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from copycat.errors import (
    CorruptLogError,
    DiskError,
    FormatVersionError,
    InvariantError,
    LogPoisonedError,
)
from copycat.storage._native import Env, FaultEnv, HardState, open_hard_state
from copycat.types import MemberId

__all__: list[str] = []

_A, _B = "/d/hard-state-a", "/d/hard-state-b"


def fresh() -> tuple[FaultEnv, HardState]:
    env = FaultEnv()
    env.make_directory("/d")
    return env, open_hard_state(env, "/d", create=True)


def save(state: HardState, term: int, voted_for: int = 0) -> None:
    ticket = state.begin_save(term, MemberId(voted_for))
    ticket.run()
    state.end_save(ticket)


def saved(term: int = 5, voted_for: int = 2**127 + 1) -> FaultEnv:
    env, state = fresh()
    save(state, term, voted_for)
    return env


def reopen(env: FaultEnv) -> HardState:
    return open_hard_state(env, "/d", create=False)


def test_first_start_and_saves() -> None:
    env, state = fresh()
    assert (state.current_term, state.voted_for, state.generation) == (0, 0, 1)
    ticket = state.begin_save(3, MemberId(2**128 - 1))
    ticket.run()
    assert (state.current_term, state.voted_for) == (0, 0)  # moves at the end only
    state.end_save(ticket)
    assert (state.current_term, state.voted_for, state.generation) == (3, 2**128 - 1, 2)
    assert env.read_file(_A) == env.read_file(_B)


def test_on_real_files(tmp_path: Path) -> None:
    env, directory = Env(), str(tmp_path)
    save(open_hard_state(env, directory, create=True), 9, 4)
    again = open_hard_state(env, directory, create=False)
    assert (again.current_term, again.voted_for, again.repaired) == (9, 4, 0)
    assert env.list(directory) == ["hard-state-a", "hard-state-b"]


def test_c9_a_save_that_returned_survives_every_crash() -> None:
    env = saved()
    for seed in range(64):
        image = env.clone()
        image.crash(seed)
        state = reopen(image)
        assert (state.current_term, state.voted_for) == (5, 2**127 + 1)


def test_c9_a_cut_at_every_operation_leaves_old_or_new() -> None:
    base, _ = fresh()
    save(reopen(base), 4, 1)
    before = base.operations
    whole = base.clone()
    save(reopen(whole), 5, 2)
    steps = whole.operations - before
    seen = set()
    for cut in range(steps):
        for seed in range(24):
            env = base.clone()
            state = reopen(env)
            ticket = state.begin_save(5, MemberId(2))
            env.stop_after(cut)
            with pytest.raises(DiskError):
                ticket.run()
            env.crash(seed)
            again = reopen(env)
            seen.add((again.current_term, again.voted_for))
            assert env.read_file(_A) == env.read_file(_B)  # repaired
    assert seen == {(4, 1), (5, 2)}


@pytest.mark.parametrize("path", [_A, _B])
@pytest.mark.parametrize("offset", range(0, 48, 5))
def test_f5_one_bad_copy_is_written_again(path: str, offset: int) -> None:
    env = saved()
    env.corrupt(path, offset, 0x10)
    state = reopen(env)
    assert (state.current_term, state.voted_for, state.repaired) == (5, 2**127 + 1, 1)
    assert env.read_file(_A) == env.read_file(_B)
    assert reopen(env).repaired == 0


@pytest.mark.parametrize("path", [_A, _B])
def test_f5_one_missing_copy_is_written_again(path: str) -> None:
    env = saved()
    env.remove(path)
    assert reopen(env).repaired == 1
    assert env.read_file(_A) == env.read_file(_B)


def test_f6_both_copies_bad_refuses_and_changes_nothing() -> None:
    env = saved()
    for path in (_A, _B):
        env.corrupt(path, 20, 1)
    operations = env.operations
    for create in (False, True):
        with pytest.raises(CorruptLogError, match="refuse"):
            open_hard_state(env, "/d", create=create)
    env.remove(_A)  # one bad, one missing: just as unreadable
    with pytest.raises(CorruptLogError):
        open_hard_state(env, "/d", create=True)
    assert env.operations == operations + 2  # our own removal


def test_f6_both_copies_missing_is_no_first_start() -> None:
    env = FaultEnv()
    env.make_directory("/d")
    with pytest.raises(FileNotFoundError):
        reopen(env)
    assert env.list("/d") == []


def test_f7_a_newer_format_is_refused() -> None:
    env = saved()
    for path in (_A, _B):
        env.corrupt(path, 8, 1)
    with pytest.raises(FormatVersionError, match="version 3"):
        reopen(env)


def test_f9_a_failed_save_is_not_tried_again() -> None:
    env, state = fresh()
    ticket = state.begin_save(1, MemberId(7))
    env.fail("sync", 2, "EIO")
    with pytest.raises(DiskError) as caught:
        ticket.run()
    assert caught.value.errno == errno.EIO
    for attempt in (lambda: state.begin_save(2, MemberId(0)), state.rewrite):
        with pytest.raises(LogPoisonedError):
            attempt()
    with pytest.raises(InvariantError):
        state.end_save(ticket)
    assert state.current_term == 0


def test_i2_the_term_never_goes_back_and_one_vote_a_term() -> None:
    _, state = fresh()
    save(state, 5)
    save(state, 5, 3)  # a vote in a term that had none
    save(state, 5, 3)
    for term, voted_for in [(4, 0), (5, 4), (5, 0)]:
        with pytest.raises(InvariantError):
            state.begin_save(term, MemberId(voted_for))
    save(state, 6, 4)


def test_saves_begin_run_and_end_once() -> None:
    _, state = fresh()
    ticket = state.begin_save(1, MemberId(0))
    with pytest.raises(InvariantError, match="one save"):
        state.begin_save(2, MemberId(0))
    with pytest.raises(InvariantError, match="run returned"):
        state.end_save(ticket)
    ticket.run()
    with pytest.raises(InvariantError, match="once"):
        ticket.run()
    state.end_save(ticket)
    with pytest.raises(InvariantError, match="once"):
        state.end_save(ticket)


def test_c7_rewrite_replaces_both_copies() -> None:
    env = saved()
    state = reopen(env)
    generation = state.generation
    state.rewrite()
    assert (state.current_term, state.generation) == (5, generation + 1)
    env.crash(1)
    assert reopen(env).generation == generation + 1
