"""Looking into a log from beside: nothing is changed, every damage has a place."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from copycat.errors import CorruptLogError
from copycat.member.verify import verify
from copycat.storage._native import Env, FaultEnv
from copycat.storage.reader import compare, entries, segments
from tests.log.contract import durable, expected, grow
from tests.log.test_directory import PATH, image, open_member, save
from tests.log.test_native import DIRECTORY, open_small


def written() -> FaultEnv:
    env = FaultEnv()
    env.make_directory(DIRECTORY)
    log = open_small(env)
    for term in (1, 2, 3):
        grow(log, 7, term=term, each=3)
        durable(log)
    log.close()
    return env


def rows(env: FaultEnv, first: int = 1) -> list[tuple[int, int, bytes]]:
    return [(e.index, e.term, e.payload) for e in entries(DIRECTORY, first, env=env)]


WHOLE = expected(1, 8) + expected(8, 15, term=2) + expected(15, 22, term=3)


def test_entries_are_those_of_the_log() -> None:
    env = written()
    assert rows(env) == WHOLE
    assert rows(env, 9) == WHOLE[8:]
    assert rows(env, 22) == []


def test_every_frame_has_its_place_and_its_bytes() -> None:
    env = written()
    log = open_small(env)
    sums = {e.index: (e.index, e.term, e.crc) for e in entries(DIRECTORY, env=env)}
    checksums = [row for batch in log.scan(1, 22) for row in batch.checksums()]
    assert list(sums.values()) == checksums
    for entry in entries(DIRECTORY, env=env):
        data = env.read_file(entry.path)
        assert data[entry.offset : entry.offset + len(entry.frame)] == entry.frame
        assert entry.kind == 3
        assert entry.time_ms == 7


def test_verify_counts_what_is_there() -> None:
    env = written()
    report = verify(DIRECTORY, env=env)
    assert report.ok
    assert (report.first_index, report.last_index, report.last_term) == (1, 21, 3)
    assert report.segments == len(segments(DIRECTORY, env=env))
    assert report.torn_bytes == 0


def test_an_open_log_can_be_looked_into(tmp_path: Path) -> None:
    log = open_small(Env(), str(tmp_path))
    grow(log, 10)  # a roll that no sync followed
    assert [(e.index, e.payload) for e in entries(tmp_path)] == [
        (index, data) for index, _, data in expected(1, 11)
    ]
    assert verify(tmp_path).ok
    grow(log, 1)
    log.close()
    assert verify(tmp_path).last_index == 11


def test_a_pending_manifest_that_is_torn_is_passed_over() -> None:
    env = FaultEnv()
    env.make_directory(DIRECTORY)
    log = open_small(env)
    grow(log, 6)
    durable(log)
    log.truncate(3)
    grow(log, 1, term=2)
    assert rows(env) == expected(1, 4) + expected(4, 5, term=2)
    (pending,) = [name for name in env.list(DIRECTORY) if name.endswith(".pending")]
    env.corrupt(f"{DIRECTORY}/{pending}", 60, 1)
    assert rows(env) == expected(1, 7)


def test_truncated_entries_are_not_shown() -> None:
    env = written()
    log = open_small(env)
    log.truncate(10)
    grow(log, 2, term=9)
    log.close()
    assert rows(env) == WHOLE[:10] + expected(11, 13, term=9)
    assert verify(DIRECTORY, env=env).ok


def test_a_torn_tail_is_no_damage() -> None:
    env = FaultEnv()
    env.make_directory(DIRECTORY)
    log = open_small(env)
    grow(log, 3)
    durable(log)
    grow(log, 1)
    tail = f"{DIRECTORY}/{segments(DIRECTORY, env=env)[-1].name}"
    last = list(entries(DIRECTORY, env=env))[-1]
    env.corrupt(tail, last.offset + 33, 1)
    report = verify(DIRECTORY, env=env)
    assert report.ok
    assert report.last_index == 3
    assert report.torn_bytes > 0


@pytest.mark.parametrize("index", [1, 5, 9, 20])
def test_damage_is_named_by_file_offset_and_index(index: int) -> None:
    env = written()
    victim = next(entries(DIRECTORY, index, env=env))
    env.corrupt(victim.path, victim.offset + 33, 1)
    before = image(env, DIRECTORY)
    report = verify(DIRECTORY, env=env)
    assert not report.ok
    (damage,) = report.damage
    assert (damage.path, damage.offset, damage.index) == (victim.path, victim.offset, index)
    with pytest.raises(CorruptLogError) as caught:
        rows(env)
    assert (caught.value.path, caught.value.offset) == (victim.path, victim.offset)
    assert caught.value.index == index
    assert image(env, DIRECTORY) == before


def test_a_lost_segment_is_damage() -> None:
    env = written()
    lost = segments(DIRECTORY, env=env)[1]
    env.remove(f"{DIRECTORY}/{lost.name}")
    (damage,) = verify(DIRECTORY, env=env).damage
    assert damage.index == lost.first_index
    assert damage.path.endswith(lost.name)


def test_a_bad_manifest_is_damage() -> None:
    env = written()
    env.corrupt(f"{DIRECTORY}/manifest", 50, 1)
    (damage,) = verify(DIRECTORY, env=env).damage
    assert damage.path.endswith("manifest")


def test_a_members_directory_is_looked_into_with_its_vote_and_identity() -> None:
    env = FaultEnv()
    directory = open_member(env)
    save(directory, 1, 1)
    grow(directory.log, 3)
    directory.close()
    assert verify(PATH, env=env).ok
    assert verify(PATH, env=env).last_index == 3
    env.corrupt(f"{PATH}/hard-state-b", 40, 1)
    env.corrupt(f"{PATH}/identity-a", 40, 1)
    paths = [damage.path for damage in verify(PATH, env=env).damage]
    assert paths == [f"{PATH}/hard-state-b", f"{PATH}/identity-a"]


# --- compare ----------------------------------------------------------------------------------


def three(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / name for name in ("a", "b", "c")]
    for position, path in enumerate(paths):
        path.mkdir()
        log = open_small(Env(), str(path), entries=4 + position)
        grow(log, 12, each=1 + position)
        log.close()
    return paths


def test_logs_that_were_written_in_other_batches_and_segments_are_equal(tmp_path: Path) -> None:
    paths = three(tmp_path)
    assert compare(paths, 12) is None
    assert compare(paths, 5, first=2) is None


def test_the_first_entry_that_differs_is_named(tmp_path: Path) -> None:
    paths = three(tmp_path)
    shutil.rmtree(paths[1])
    paths[1].mkdir()
    log = open_small(Env(), str(paths[1]))
    grow(log, 7)
    grow(log, 5, term=2)
    log.close()
    assert compare(paths, 7) is None
    difference = compare(paths, 12)
    assert difference is not None
    assert difference.index == 8
    assert [entry.term if entry else 0 for _, entry in difference.entries] == [1, 2, 1]
    assert str(paths[1]) in difference.describe()


def test_an_entry_that_one_log_lacks_is_a_difference(tmp_path: Path) -> None:
    paths = three(tmp_path)
    log = open_small(Env(), str(paths[2]))
    log.truncate(9)
    log.close()
    difference = compare(paths, 12)
    assert difference is not None
    assert difference.index == 10
    assert difference.entries[2][1] is None
    assert "no such entry" in difference.describe()
    both = compare(paths, 13)
    assert both is not None
    assert both.index == 10


def test_entries_that_all_logs_lack_are_a_difference(tmp_path: Path) -> None:
    difference = compare(three(tmp_path), 13)
    assert difference is not None
    assert difference.index == 13


def test_a_trimmed_log_differs_from_its_first_entry_on(tmp_path: Path) -> None:
    paths = three(tmp_path)
    log = open_small(Env(), str(paths[0]))
    log.trim(9)
    first = log.first_index
    log.close()
    assert first > 1
    difference = compare(paths, 12)
    assert difference is not None
    assert difference.index == 1
    assert compare(paths, 12, first=first) is None
