"""Random bytes in place of each kind of file: a typed error or a right log, never anything else.

The disk is one in memory; what an entry should be follows from its index and term, so a wrong
one is seen whatever was damaged.
"""

from __future__ import annotations

from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from copycat.errors import CorruptLogError, FormatVersionError
from copycat.storage._native import FaultEnv
from tests.log.contract import contents, durable, grow
from tests.log.test_limits import opened
from tests.log.test_native import DIRECTORY

PLACES = st.sampled_from([0, 8, 16, 40, 64, 104, 4096, 4104, 4112, 4126, 4128, 4168, 4200])
WORDS = st.sampled_from([bytes(8), b"\xff" * 8, (1 << 32).to_bytes(8, "little"), b"\x0e" * 8])
DAMAGE = st.one_of(
    st.tuples(st.just("replace"), st.integers(0), st.binary(max_size=200)),
    st.tuples(st.just("cut"), st.integers(0, 1 << 14), st.just(b"")),
    st.tuples(st.just("extend"), st.integers(0), st.binary(min_size=1, max_size=64)),
    st.tuples(st.just("poke"), PLACES, WORDS | st.binary(min_size=1, max_size=8)),
    st.tuples(st.just("swap"), st.integers(0, 99), st.just(b"")),
)


@cache
def image(*, clean: bool, pending: bool) -> FaultEnv:
    """Two sealed segments and a tail; with a roll and a truncation that no sync followed."""
    env = FaultEnv(1)
    env.make_directory(DIRECTORY)
    log = opened(env)
    for term in (1, 1, 2, 2):
        grow(log, 3, term=term)
        durable(log)
    log.mark_idle()
    if pending:
        grow(log, 5, term=2)
        log.truncate(14)
        grow(log, 2, term=3)
    if clean:
        log.close()
    else:
        env.crash_process()
    return env


def damaged(data: bytes, kind: str, at: int, extra: bytes, other: bytes) -> bytes:
    if kind == "replace":
        return extra
    if kind == "cut":
        return data[:at]
    if kind == "extend":
        return data + extra
    if kind == "swap":
        return other
    return data[:at] + extra + data[at + len(extra) :] if at < len(data) else data


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(st.booleans(), st.booleans(), st.lists(st.tuples(st.integers(0, 99), DAMAGE), max_size=3))
def test_garbage_is_a_typed_error_or_a_right_log(
    clean: bool, pending: bool, damages: list[tuple[int, tuple[str, int, bytes]]]
) -> None:
    env = image(clean=clean, pending=pending).clone()
    names = [name for name in env.list(DIRECTORY) if name != "lock"]
    for pick, (kind, at, extra) in damages:
        path = f"{DIRECTORY}/{names[pick % len(names)]}"
        other = env.read_file(f"{DIRECTORY}/{names[at % len(names)]}")
        data = damaged(env.read_file(path), kind, at, extra, other)
        env.remove(path)
        file = env.create(path)
        file.allocate(len(data))
        for offset in range(0, len(data), 8):  # zeros are not written: the log may do that
            if any(word := data[offset : offset + 8]):
                file.write(offset, word)
    try:
        log = opened(env)
        rows = contents(log)
    except (CorruptLogError, FormatVersionError):
        return
    assert rows == [
        (index, term, b"%d:%d" % (term, index)) for index, (_, term, _) in enumerate(rows, 1)
    ]
    grow(log, 5, term=9)
    durable(log)
    log.close()
    assert contents(opened(env))[:-5] == rows
