"""A member with others: whatever byte is flipped, it starts again, and records what it lost.

Every byte of a segment or manifest that means something is flipped once. What a process meets
only when it reads is noted by it, as a server does, and repaired by the next one (F11).
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from copycat.errors import CorruptLogError, FormatVersionError
from copycat.member.directory import MemberDirectory
from copycat.member.verify import verify
from copycat.storage._native import FaultEnv
from copycat.types import EntryId
from tests.log.contract import contents
from tests.log.test_directory import MEMBERS, PATH, open_member
from tests.log.test_flip import LOG, MASKS, STOPPED_OR_KILLED, WHOLE, names, regions, written


def bytes_that_count(env: FaultEnv, path: str) -> Iterator[int]:
    for region in regions(env, path):
        if region.name not in {"unused", "zeros"}:
            yield from range(region.begin, region.end)


def started(env: FaultEnv) -> tuple[MemberDirectory, bool]:
    """A member that could be started, after a second start if need be; whether it was noted."""
    directory = open_member(env)
    try:
        contents(directory.log)
    except CorruptLogError as error:
        note = directory.note(error)
    else:
        return directory, False
    assert note is not None
    directory.close()
    return open_member(env), True


def outcome(env: FaultEnv) -> str:
    """What a member makes of the directory; AssertionError when it forgets a promise."""
    try:
        directory, was_noted = started(env)
    except FormatVersionError:
        return "version"
    rows = contents(directory.log)
    assert rows == WHOLE[: len(rows)], "a wrong entry"
    lost_entries = directory.lost_entries
    if rows == WHOLE and lost_entries is None:
        assert (directory.current_term, directory.voted_for) == (3, 9)
        return "whole"
    assert lost_entries is not None, "entries are gone, and nobody is told"
    assert lost_entries.lost_upto >= EntryId(2, 12)
    assert directory.log.last_entry < lost_entries.lost_upto
    assert directory.hard_state.current_term == 4
    assert not directory.fresh
    report = verify(PATH, env=env)
    assert report.ok, report.damage
    return "lost, noted" if was_noted else "lost"


def outcomes(env: FaultEnv, path: str, offsets: Iterator[int]) -> set[str]:
    kinds = set()
    for offset in offsets:
        image = env.clone()
        image.corrupt(path, offset, MASKS[offset % 2])
        kinds.add(outcome(image))
    return kinds


@pytest.mark.slow
@STOPPED_OR_KILLED
def test_f2_f11_every_byte_of_a_sealed_segment(clean: bool) -> None:
    env = written(clean=clean, members=MEMBERS)
    path = names(env, ".log")[0]
    kinds = outcomes(env, path, bytes_that_count(env, path))
    assert kinds == {"version", "whole", "lost", "lost, noted"}


@pytest.mark.slow
@STOPPED_OR_KILLED
def test_f2_f11_every_byte_of_a_tail(clean: bool) -> None:
    env = written(clean=clean, members=MEMBERS)
    path = names(env, ".log")[-1]
    kinds = outcomes(env, path, bytes_that_count(env, path))
    noted = {"lost, noted"} if clean else set()
    assert kinds == {"version", "whole", "lost"} | noted


@pytest.mark.slow
@STOPPED_OR_KILLED
def test_f3_every_byte_of_the_manifest(clean: bool) -> None:
    env = written(clean=clean, members=MEMBERS)
    path = f"{LOG}/manifest"
    assert outcomes(env, path, iter(range(env.size(path)))) == {"version", "lost"}
