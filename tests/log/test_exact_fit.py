"""A segment filled to each of its last bytes: closed cleanly, damaged, crashed (C6, C7)."""

from __future__ import annotations

from contextlib import suppress
from functools import cache

import pytest

from copycat.errors import CorruptLogError, DiskError
from copycat.storage._native import FaultEnv
from tests.log.contract import batch, contents, durable
from tests.log.test_native import DIRECTORY, open_small

SEGMENT = 16384
DATA, MARK, HEADER = 4096, 32, 32
CLOSING_MARKS = 2 * MARK
"""Kept free at the end of a segment, for an idle mark and the close mark."""
STEPS = range(-CLOSING_MARKS, CLOSING_MARKS + 1, 8)
"""How many bytes are left above what is reserved: frames are padded to 8."""


def frame_nbytes(payload: int) -> int:
    return HEADER + (payload + 7) // 8 * 8


def payload_for(left: int) -> int:
    """Of the third entry, so that so many bytes are left free behind it, beyond the reserve."""
    used = DATA + 2 * (MARK + frame_nbytes(8)) + MARK + HEADER
    return SEGMENT - CLOSING_MARKS - left - used


@cache
def filled(left: int, *, idle: bool = False) -> FaultEnv:
    """Three entries; the third ends that near to the end of its file. Closed cleanly.

    One that does not fit begins a segment of its own. idle: with a mark before the close mark,
    so that this one ends with the file.
    """
    env = FaultEnv(4)
    env.make_directory(DIRECTORY)
    log = open_small(env)
    for index in (1, 2):
        log.append(batch(index, b"%08d" % index))
        durable(log)
    log.append(batch(3, b"\xa5" * payload_for(left)))
    durable(log)
    if idle:
        log.mark_idle()
    log.close()
    return env


def entries(left: int) -> list[tuple[int, int, bytes]]:
    return [(1, 1, b"%08d" % 1), (2, 1, b"%08d" % 2), (3, 1, b"\xa5" * payload_for(left))]


def tail_path(env: FaultEnv) -> str:
    numbers = [int(name.split("-")[0]) for name in env.list(DIRECTORY) if name.endswith(".log")]
    return f"{DIRECTORY}/{max(numbers)}-1.log"


@pytest.mark.parametrize("left", STEPS)
def test_it_is_closed_cleanly_and_goes_on(left: int) -> None:
    env = filled(left).clone()
    files = [name for name in env.list(DIRECTORY) if name.endswith(".log")]
    assert len(files) == (1 if left >= 0 else 2)
    log = open_small(env)
    assert log.report.clean
    assert contents(log) == entries(left)
    for index in range(4, 9):
        log.append(batch(index, b"after"))
        durable(log)
    log.close()
    again = open_small(env)
    assert again.report.clean
    assert contents(again)[:3] == entries(left)
    assert again.last_index == 8


@pytest.mark.parametrize("left", STEPS)
def test_opened_and_closed_again_and_again_it_stays_clean(left: int) -> None:
    """Each life takes marks of what is reserved."""
    env = filled(left).clone()
    for _ in range(6):
        log = open_small(env)
        assert log.report.clean
        log.mark_idle()
        assert contents(log) == entries(left)
        log.close()
    assert len(open_small(env).segments()) <= 3


def is_reported(env: FaultEnv) -> bool:
    """Whether damage is damage: at the open, or when the entry is read; never a shorter log."""
    try:
        log = open_small(env)
    except CorruptLogError:
        return True
    assert log.last_index == 3, "acknowledged, closed cleanly, and gone without a word"
    with pytest.raises(CorruptLogError):
        log.get(3)
    return True


@pytest.mark.slow
@pytest.mark.parametrize("idle", [True, False])
@pytest.mark.parametrize("has_index", [True, False])
@pytest.mark.parametrize("left", STEPS)
def test_c6_each_flip_of_its_last_entry_is_reported(
    left: int, has_index: bool, idle: bool
) -> None:
    clean = filled(left, idle=idle)
    path = tail_path(clean)
    if not has_index:
        clean = clean.clone()
        clean.remove(path.replace(".log", ".idx"))
        assert open_small(clean.clone()).report.clean
    nbytes = frame_nbytes(payload_for(left))
    end = SEGMENT - CLOSING_MARKS - left if left >= 0 else DATA + MARK + nbytes
    begin = end - nbytes
    places = [*range(begin, begin + HEADER), *range(begin + HEADER, end, 997), end - 1]
    for place in places:
        is_padding = place >= begin + HEADER + payload_for(left)
        assert not is_padding
        env = clean.clone()
        env.corrupt(path, place, 0x10)
        assert is_reported(env), place


def with_flips(env: FaultEnv, path: str, begin: int, end: int) -> list[FaultEnv]:
    flipped = []
    for place in range(begin, end):
        one = env.clone()
        one.corrupt(path, place, 0x01)
        flipped.append(one)
    return flipped


@pytest.mark.parametrize("left", [0, 8, 24, 32, 56, 64])
def test_a_flip_of_the_close_mark_costs_no_entry(left: int) -> None:
    """A mark proves that entries are durable; without it they are what can be read."""
    clean = filled(left)
    end = SEGMENT - CLOSING_MARKS - left
    for env in with_flips(clean, tail_path(clean), end, end + 2 * MARK):
        log = open_small(env)
        assert contents(log) == entries(left)


@pytest.mark.slow
@pytest.mark.parametrize("left", STEPS)
def test_c7_a_crash_on_the_way_there_loses_nothing_durable(left: int) -> None:
    for step in range(14):
        for seed in range(4):
            env = FaultEnv(seed)
            env.make_directory(DIRECTORY)
            log = open_small(env)
            log.append(batch(1, b"%08d" % 1))
            log.append(batch(2, b"%08d" % 2))
            durable(log)
            promised = 2
            env.stop_after(step)
            with suppress(DiskError):
                log.append(batch(3, b"\xa5" * payload_for(left)))
                durable(log)
                promised = 3
                log.close()
            env.crash(seed)
            rows = contents(open_small(env))
            assert rows == entries(left)[: len(rows)]
            assert len(rows) >= promised


@pytest.mark.parametrize("left", STEPS)
def test_c6_damage_in_it_is_reported_after_a_crash_too(left: int) -> None:
    """A mark of the next life says that it was durable."""
    env = filled(left).clone()
    log = open_small(env)
    segments = [row for row in log.segments() if row[2] <= 3 <= row[3]]
    path = f"{DIRECTORY}/{segments[0][0]}-1.log"
    log.append(batch(4, b"next"))
    durable(log)
    env.crash_process()
    nbytes = frame_nbytes(payload_for(left))
    end = SEGMENT - CLOSING_MARKS - left if left >= 0 else DATA + MARK + nbytes
    for place in (end - nbytes, end - nbytes + 4, end - nbytes + 30, end - 1):
        one = env.clone()
        one.corrupt(path, place, 0x10)
        assert is_reported_below(one), place


def is_reported_below(env: FaultEnv) -> bool:
    try:
        log = open_small(env)
    except CorruptLogError:
        return True
    assert log.last_index == 4
    with pytest.raises(CorruptLogError):
        log.get(3)
    return True
