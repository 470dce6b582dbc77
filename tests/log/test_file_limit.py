"""RLIMIT_FSIZE: a file may not grow any further. An error of that call (EFBIG), and no signal."""

from __future__ import annotations

import errno
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from copycat.errors import DiskFullError
from copycat.log.log import Log
from copycat.types import Durability
from tests.log.forked import in_child

pytestmark = pytest.mark.forks

KIB = 1 << 10


@contextmanager
def file_limit(nbytes: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (nbytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def is_refused(act: Callable[[], object]) -> bool:
    try:
        act()
    except DiskFullError as error:
        refusal = error
    else:
        return False
    assert refusal.retryable
    assert refusal.errno == errno.EFBIG
    assert "ulimit -f" in str(refusal.hint)
    return True


def opened_again(path: Path) -> None:
    with file_limit(KIB * KIB):
        for _ in range(3):
            assert is_refused(lambda: Log.open(path))
        assert not [name for name in path.iterdir() if name.suffix in {".log", ".spare"}]
    with Log.open(path) as log:
        assert log.append(b"a") == 1
    with Log.open(path) as log:
        assert [entry.data for entry in log] == [b"a"]


def test_an_open_that_may_not_allocate_leaves_nothing(tmp_path: Path) -> None:
    in_child(lambda: opened_again(tmp_path))


def appended(path: Path, limit: int, durability: Durability) -> None:
    items = [b"%d " % n * 300 for n in range(300)]
    refused = 0
    with Log.open(path, max_segment_size=64 * KIB, durability=durability) as log:
        for nth, item in enumerate(items, 1):
            with file_limit(limit):
                if not is_refused(partial(log.append, item)):
                    continue
            refused += 1
            assert log.last_index == nth - 1
            assert log[nth - 1].data == items[nth - 2]
            assert log.append(item) == nth
        assert [entry.data for entry in log] == items
        assert log.sync() == 300
    assert refused > 0
    with Log.open(path) as log:
        assert [entry.data for entry in log] == items


@pytest.mark.slow
@pytest.mark.parametrize("durability", [Durability.FSYNC, Durability.OS])
@pytest.mark.parametrize("limit", [8 * KIB, 20 * KIB, 33 * KIB + 1, 64 * KIB - 1])
def test_an_append_past_the_limit_changes_nothing(
    tmp_path: Path, limit: int, durability: Durability
) -> None:
    in_child(lambda: appended(tmp_path, limit, durability))


def many(path: Path) -> None:
    with Log.open(path, max_segment_size=64 * KIB) as log:
        log.append_many([b"x" * 1000] * 50)
        with file_limit(40 * KIB):
            assert is_refused(lambda: log.append_many([b"y" * 1000] * 200))
            assert [entry.data[:1] for entry in log] == [b"x"] * 50
            assert log.last_index == 50
        log.append_many([b"y" * 1000] * 200)
        log.truncate(240)
    with Log.open(path) as log:
        assert [entry.data[:1] for entry in log] == [b"x"] * 50 + [b"y"] * 190


def test_a_batch_past_the_limit_changes_nothing(tmp_path: Path) -> None:
    in_child(lambda: many(tmp_path))
