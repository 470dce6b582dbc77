"""A damaged block of a packed segment, and reads all around it against a model.

An entry is what was appended, or damage that its block explains, in whatever order it is read.
No read does more work than its own: that is counted in bytes, and in processor time, which a read
that never ends uses up.
"""

from __future__ import annotations

import random
import resource
from functools import partial
from pathlib import Path

import pytest

from copycat.errors import CorruptLogError
from copycat.log.log import Log
from copycat.storage.reader import segments
from tests.log.forked import in_child
from tests.log.test_packed import BLOCK, payloads

pytestmark = pytest.mark.forks

CPU_S = 6
_HEADER = 32
_GAP = 16


def bytes_read() -> int:
    """By this process, from files."""
    words = Path("/proc/self/io").read_text(encoding="ascii").split()
    return int(words[words.index("rchar:") + 1])


def made(path: Path) -> list[bytes]:
    """A log whose first segments are packed; its items."""
    items = payloads(1500)
    with Log.open(path, max_segment_size=256 << 10, min_free_space=0) as log:
        log.append_many(items)
        log.release_many(range(50, 1500, 100))
        log.compactor.compact("major")
    assert segments(path)[0].packed
    return items


def damage(path: Path, number: int) -> int:
    """Flip a byte of block `number` of the first segment (-1: the last); its number from 0."""
    file = path / segments(path)[0].name
    data = bytearray(file.read_bytes())
    table = int.from_bytes(data[64:72], "little")
    rows = [data[at : at + 12] for at in range(table, len(data), 12)]
    offset, size = (int.from_bytes(rows[number][at : at + 4], "little") for at in (0, 4))
    data[offset + size // 2] ^= 1
    file.write_bytes(data)
    return number % len(rows)


def check(path: Path, items: list[bytes], number: int, seed: int) -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S))
    rng = random.Random(seed)
    log = Log.open(path, read_only=True)
    segment = log.segments[0]
    bad = set()
    index = segment.first_index
    for slot in log.index_array(segment):
        size = _GAP if index % 100 == 50 else int(slot["size"])
        begin, end = int(slot["offset"]), int(slot["offset"]) + _HEADER + size
        if begin < (number + 1) * BLOCK and end > number * BLOCK:
            bad.add(index)
        index += 1
    assert bad
    whole = (path / segments(path)[0].name).stat().st_size
    for _ in range(150):
        at = rng.choice([rng.randint(1, segment.last_index), min(bad), max(bad), index - 9])
        for position in range(max(at - rng.randint(0, 40), 1), min(at + 20, segment.last_index)):
            before = bytes_read()
            if position in bad:
                with pytest.raises(CorruptLogError):
                    log.get(position)
                assert bytes_read() - before < 20 * whole + BLOCK
                continue
            is_dropped = position % 100 == 50
            assert log.get(position) == (
                None if is_dropped else (position, 1, items[position - 1])
            )
            assert bytes_read() - before < 6 * BLOCK + len(items[position - 1])
    log.close()


@pytest.mark.slow
@pytest.mark.parametrize("number", [1, 3, -2, -1])
def test_reads_around_a_damaged_block_are_right_and_end(tmp_path: Path, number: int) -> None:
    items = made(tmp_path)
    block = damage(tmp_path, number)
    for seed in range(3):
        in_child(partial(check, tmp_path, items, block, seed))
