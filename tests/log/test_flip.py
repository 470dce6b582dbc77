"""Every byte of one file of each kind is flipped, one recovery for each.

A flip is detected with the typed error of its row (docs/internals/rules.md), or it is in a cache
or a copy that is repaired, or in a byte that nothing reads. It is never a wrong entry.
"""

from __future__ import annotations

from collections import Counter
from functools import cache
from typing import NamedTuple

import pytest

from copycat.errors import CorruptLogError, FormatVersionError, StorageError
from copycat.member.identity import IDENTITY_FILES, Identity
from copycat.storage._native import FaultEnv
from tests.log.contract import contents, durable, expected, grow
from tests.log.oracle import EntryRow
from tests.log.test_directory import MEMBER, PATH, open_member, save

LOG = f"{PATH}/log"
ALONE = ("a:1",)
"""A member with others repairs what is found here: tests/log/test_flip_repair.py."""
MASKS = (0x01, 0x80)
DATA, RECORD, KIND, MARK = 4096, 32, 30, 14
WHOLE = expected(1, 7) + expected(7, 13, term=2)
TRUNCATED = WHOLE[:10] + expected(11, 14, term=3)
STOPPED_OR_KILLED = pytest.mark.parametrize("clean", [True, False], ids=["stopped", "killed"])


@cache
def written(*, clean: bool, members: tuple[str, ...] = ALONE) -> FaultEnv:
    """Two sealed segments and a tail of two entries; stopped cleanly or killed."""
    env = FaultEnv(1)
    directory = open_member(env, members=members)
    save(directory, 3, 9)
    for term in (1, 1, 2, 2):
        grow(directory.log, 3, term=term)
        durable(directory.log)
    directory.log.mark_idle()
    if clean:
        directory.close()
    else:
        env.crash_process()
    return env


@cache
def pending(members: tuple[str, ...] = ALONE) -> FaultEnv:
    """The same, then killed after a truncation that no sync followed, with a spare at hand."""
    env = FaultEnv(1)
    directory = open_member(env, members=members)
    save(directory, 3, 9)
    for term in (1, 1, 2, 2):
        grow(directory.log, 3, term=term)
        durable(directory.log)
    directory.log.truncate(10)
    grow(directory.log, 3, term=3)
    directory.log.prepare_spare()
    env.crash_process()
    return env


def reaction(env: FaultEnv, whole: list[EntryRow] = WHOLE) -> str:
    """What a start makes of it; AssertionError when it serves a wrong entry or vote."""
    try:
        directory = open_member(env, members=ALONE)
    except FormatVersionError:
        return "version"
    except CorruptLogError:
        return "corrupt"
    except StorageError as error:
        return type(error).__name__
    assert (directory.current_term, directory.voted_for) == (3, 9)
    try:
        rows = contents(directory.log)
    except CorruptLogError:
        return "corrupt at read"
    if rows in (whole, WHOLE):
        return "whole" if rows == whole else "old"
    assert rows == whole[: len(rows)], "a wrong entry"
    return f"{len(whole) - len(rows)} lost"


class Region(NamedTuple):
    """Bytes of a segment file that are read alike."""

    name: str
    begin: int
    end: int


def regions(env: FaultEnv, path: str) -> list[Region]:
    """A segment file by what its bytes are for: without a gap, to the last byte."""
    data = env.read_file(path)
    parts = [Region("version", 8, 12), Region("header", 0, 64), Region("unused", 64, DATA)]
    at = DATA
    while any(data[at : at + RECORD]):
        size = RECORD
        if data[at + KIND] == MARK:
            name = "mark" if parts[-1].name in {"frame", "mark"} else "first mark"
        else:
            name = "frame"
            size += -(-int.from_bytes(data[at + 4 : at + 8], "little") // 8) * 8
        parts.append(Region(name, at, at + size))
        at += size
    for place in reversed(range(len(parts))):
        if parts[place].name == "frame":
            break
        parts[place] = parts[place]._replace(name="last mark")
    return [*parts, Region("zeros", at, len(data))]


def flips(env: FaultEnv, path: str, whole: list[EntryRow] = WHOLE) -> Counter[str]:
    """How many bytes of this file had each reaction."""
    return Counter(flip(env, path, offset, whole) for offset in range(env.size(path)))


def flip(env: FaultEnv, path: str, offset: int, whole: list[EntryRow]) -> str:
    image = env.clone()
    image.corrupt(path, offset, MASKS[offset % 2])
    return reaction(image, whole)


def segment_flips(env: FaultEnv, path: str, whole: list[EntryRow] = WHOLE) -> dict[str, set[str]]:
    """The reactions to every byte of a segment file, by what the byte is for."""
    reactions: dict[str, set[str]] = {}
    done: set[int] = set()
    for region in regions(env, path):
        for offset in set(range(region.begin, region.end)) - done:
            reactions.setdefault(region.name, set()).add(flip(env, path, offset, whole))
            done.add(offset)
    assert done == set(range(env.size(path))), "every byte, once"
    return reactions


def names(env: FaultEnv, suffix: str) -> list[str]:
    return [f"{LOG}/{name}" for name in env.list(LOG) if name.endswith(suffix)]


def test_the_whole_log_is_read_when_nothing_is_flipped() -> None:
    assert reaction(written(clean=True).clone()) == "whole"
    assert reaction(written(clean=False).clone()) == "whole"
    assert reaction(pending().clone(), TRUNCATED) == "whole"


@pytest.mark.slow
@STOPPED_OR_KILLED
def test_f2_a_sealed_segment(clean: bool) -> None:
    """Its index leads to the frames: a bad one, or a mark between, is found when it is read.

    A mark that stands where one read ends and the next begins is not read at all.
    """
    env = written(clean=clean)
    assert segment_flips(env, names(env, ".log")[0]) == {
        "version": {"version"},
        "header": {"corrupt"},
        "unused": {"whole"},
        "first mark": {"whole"},
        "mark": {"corrupt at read", "whole"},
        "frame": {"corrupt at read"},
        "zeros": {"whole"},
    }


@pytest.mark.slow
def test_the_tail_of_a_clean_stop() -> None:
    env = written(clean=True)
    assert segment_flips(env, names(env, ".log")[-1]) == {
        "version": {"version"},
        "header": {"corrupt"},
        "unused": {"whole"},
        "first mark": {"whole"},
        "mark": {"corrupt at read"},
        "frame": {"corrupt at read"},
        "last mark": {"whole"},
        "zeros": {"whole"},
    }


@pytest.mark.slow
def test_f1_f2_the_tail_of_a_killed_process() -> None:
    """A later mark proves entries durable; nothing follows the last one (C6)."""
    env = written(clean=False)
    assert segment_flips(env, names(env, ".log")[-1]) == {
        "version": {"version"},
        "header": {"corrupt"},
        "unused": {"whole"},
        "first mark": {"corrupt"},
        "mark": {"corrupt"},
        "frame": {"corrupt"},
        "last mark": {"whole"},
        "zeros": {"whole"},
    }


@pytest.mark.slow
@STOPPED_OR_KILLED
def test_f14_an_index_file_is_rebuilt(clean: bool) -> None:
    env = written(clean=clean)
    paths = names(env, ".idx")
    assert len(paths) == (3 if clean else 2)
    for path in paths:
        assert set(flips(env, path)) == {"whole"}


@pytest.mark.slow
@STOPPED_OR_KILLED
def test_f3_the_manifest(clean: bool) -> None:
    env = written(clean=clean)
    reactions = flips(env, f"{LOG}/manifest")
    # One bit makes version 2 of version 3, which does not fit rows that name no packed segment.
    assert reactions == {"version": 3, "corrupt": env.size(f"{LOG}/manifest") - 3}


@pytest.mark.slow
def test_c8_a_pending_manifest() -> None:
    """A bad one is none: the durable manifest and all that it names are still there."""
    env = pending()
    (path,) = names(env, ".pending")
    assert set(flips(env, path, TRUNCATED)) == {"old"}


@pytest.mark.slow
def test_c8_the_segment_that_only_a_pending_manifest_names() -> None:
    """Its header holds it to the manifest; its entries, which nobody promised, may be torn."""
    env = pending()
    path = names(env, ".log")[-1]
    assert segment_flips(env, path, TRUNCATED) == {
        "version": {"old"},
        "header": {"old"},
        "unused": {"whole"},
        "first mark": {"3 lost"},
        "mark": {"1 lost", "2 lost"},
        "frame": {"1 lost", "2 lost", "3 lost"},
        "zeros": {"whole"},
    }


@pytest.mark.slow
def test_f4_a_spare() -> None:
    env = pending()
    # The other one is empty: it was made ahead for the next manifest (F29).
    (path,) = [path for path in names(env, ".spare") if env.size(path)]
    assert set(flips(env, path, TRUNCATED)) == {"whole"}


@pytest.mark.slow
@pytest.mark.parametrize("copy", ["hard-state-a", "hard-state-b"])
def test_f5_a_hard_state_file(copy: str) -> None:
    assert set(flips(written(clean=True), f"{PATH}/{copy}")) == {"whole"}


@pytest.mark.slow
@pytest.mark.parametrize("copy", IDENTITY_FILES)
def test_any_flip_in_one_copy_of_the_identity_is_survived(copy: str) -> None:
    assert set(flips(written(clean=True), f"{PATH}/{copy}")) == {"whole"}


def test_every_byte_of_an_identity_is_covered() -> None:
    identity = Identity(
        cluster_name="n", address="a:1", members=("a:1",), member=MEMBER, incarnation=3
    )
    good = identity.encode()
    assert Identity.decode(good, "here") == identity
    for offset in range(len(good)):
        bad = bytearray(good)
        bad[offset] ^= MASKS[offset % 2]
        with pytest.raises(CorruptLogError):
            Identity.decode(bytes(bad), "here")
    for size in range(len(good)):
        with pytest.raises(CorruptLogError):
            Identity.decode(good[:size], "here")
