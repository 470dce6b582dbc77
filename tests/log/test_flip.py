"""G6: every byte of one small file of each kind is flipped, one recovery for each.

A flip is detected with the typed error of its row in faults.md, or it is in a cache or a copy
that is repaired, or in a byte that nothing reads. It is never a wrong entry.
"""

from __future__ import annotations

from collections import Counter

import pytest

from copycat.errors import CorruptLogError, FormatVersionError, StorageError
from copycat.log._native import FaultEnv
from copycat.log.identity import IDENTITY_FILES, Identity
from tests.log.contract import contents, durable, expected, grow
from tests.log.test_directory import MEMBER, PATH, open_member, save

LOG = f"{PATH}/log"
MASKS = (0x01, 0x80)


def written(*, clean: bool) -> FaultEnv:
    """Two sealed segments and a tail of two entries; stopped cleanly or killed."""
    env = FaultEnv(1)
    directory = open_member(env)
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


WHOLE = expected(1, 7) + expected(7, 13, term=2)


def reaction(env: FaultEnv) -> str:
    """What a start makes of it; AssertionError when it serves a wrong entry or vote."""
    try:
        directory = open_member(env)
    except FormatVersionError:
        return "version"
    except CorruptLogError:
        return "corrupt"
    except StorageError as error:
        return type(error).__name__
    assert (directory.current_term, directory.voted_for) == (3, 9)
    try:
        found = contents(directory.log)
    except CorruptLogError:
        return "corrupt at read"
    assert found == WHOLE[: len(found)], "a wrong entry"
    return "whole" if found == WHOLE else f"{len(WHOLE) - len(found)} lost"


def flips(env: FaultEnv, path: str, *, step: int = 1, end: int | None = None) -> Counter[str]:
    size = env.size(path) if end is None else end
    found: Counter[str] = Counter()
    for offset in range(0, size, step):
        image = env.clone()
        image.corrupt(path, offset, MASKS[offset % 2])
        found[reaction(image)] += 1
    return found


def names(env: FaultEnv, suffix: str) -> list[str]:
    return [f"{LOG}/{name}" for name in env.list(LOG) if name.endswith(suffix)]


def test_the_whole_log_is_read_when_nothing_is_flipped() -> None:
    assert reaction(written(clean=True)) == "whole"
    assert reaction(written(clean=False)) == "whole"


@pytest.mark.slow
@pytest.mark.parametrize("clean", [True, False], ids=["stopped", "killed"])
def test_a_sealed_segment(clean: bool) -> None:
    env = written(clean=clean)
    path = names(env, ".log")[0]
    header = flips(env, path, end=64)
    assert set(header) <= {"corrupt", "version"}, header
    image = env.clone()
    image.corrupt(path, 4096 + 40, 1)
    used = 4096 + 12 * 64
    found: Counter[str] = Counter()
    for offset in range(4096, min(used, env.size(path))):
        image = env.clone()
        image.corrupt(path, offset, MASKS[offset % 2])
        found[reaction(image)] += 1
    assert set(found) <= {"corrupt", "corrupt at read", "whole"}, found
    assert found["corrupt"] + found["corrupt at read"] >= 5 * 40, found


@pytest.mark.slow
@pytest.mark.parametrize("clean", [True, False], ids=["stopped", "killed"])
def test_the_tail(clean: bool) -> None:
    """F1, F2: durable entries are convicted by a later mark; the last append may be torn."""
    env = written(clean=clean)
    path = names(env, ".log")[-1]
    found: Counter[str] = Counter()
    for offset in [*range(64), *range(4096, 4096 + 640)]:
        image = env.clone()
        image.corrupt(path, offset, MASKS[offset % 2])
        found[reaction(image)] += 1
    assert set(found) <= {"corrupt", "corrupt at read", "whole", "version"}, found
    assert found["corrupt"] + found["corrupt at read"] >= 64 + 2 * 40, found


@pytest.mark.slow
def test_an_index_file_is_rebuilt() -> None:
    env = written(clean=True)
    for path in names(env, ".idx")[:2]:
        assert set(flips(env, path)) == {"whole"}


@pytest.mark.slow
def test_the_manifest() -> None:
    env = written(clean=True)
    assert set(flips(env, f"{LOG}/manifest")) <= {"corrupt", "version"}


@pytest.mark.slow
@pytest.mark.parametrize("copy", ["hard-state-a", "hard-state-b"])
def test_f5_a_hard_state_file(copy: str) -> None:
    assert set(flips(written(clean=True), f"{PATH}/{copy}")) == {"whole"}


@pytest.mark.slow
@pytest.mark.parametrize("copy", IDENTITY_FILES)
def test_d6_an_identity_file(copy: str) -> None:
    assert set(flips(written(clean=True), f"{PATH}/{copy}")) == {"whole"}


def test_d6_every_byte_of_an_identity_is_covered() -> None:
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
