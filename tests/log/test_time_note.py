"""The file `log-time`: whole or nothing, and never a reason to stop (C25)."""

from __future__ import annotations

import pytest

from copycat.errors import DiskError
from copycat.member.checked_line import encode_line
from copycat.member.time_note import TIME_FILE, TimeFile, TimeNote
from copycat.storage import FaultEnv
from tests.log.test_directory import PATH, open_member, used

FILE = f"{PATH}/{TIME_FILE}"
FIRST = TimeNote(1_767_225_600_000, 1_767_229_200_000, 3)
SECOND = TimeNote(1_767_225_600_000, -5, 4)


def made() -> tuple[FaultEnv, TimeFile]:
    env = FaultEnv()
    env.make_directory(PATH)
    return env, TimeFile(env, PATH)


def test_what_was_written_is_there_after_a_power_cut() -> None:
    env, file = made()
    assert file.read() is None
    assert file.write(FIRST)
    env.crash(1)
    assert file.read() == FIRST
    assert file.write(SECOND)
    env.crash(2)
    assert file.read() == SECOND


@pytest.mark.parametrize("operations", range(8))
def test_a_power_cut_leaves_the_old_or_the_new(operations: int) -> None:
    env, file = made()
    assert file.write(FIRST)
    env.stop_after(operations)
    written = file.write(SECOND)
    env.crash(operations)
    env.stop_after(1 << 62)
    assert file.read() in ((SECOND,) if written else (FIRST, SECOND))


@pytest.mark.parametrize("operation", ["create", "write", "sync"])
@pytest.mark.parametrize("error", ["EIO", "ENOSPC", "EMFILE"])
def test_a_disk_that_does_not_take_it_leaves_what_was_there(operation: str, error: str) -> None:
    env, file = made()
    assert file.write(FIRST)
    env.fail(operation, 1, error)
    assert not file.write(SECOND)
    assert file.read() == FIRST
    assert file.write(SECOND)
    assert file.read() == SECOND


def test_any_byte_that_is_wrong_makes_it_unknown() -> None:
    env, file = made()
    for offset in range(len(encode_line(FIRST._asdict())) - 1):
        assert file.write(FIRST)
        env.corrupt(FILE, offset, 1)
        assert file.read() is None


@pytest.mark.parametrize(
    "data", [b"", b"\n", b"00000000 \n", b"\xff\xff garbage\x00", encode_line({"log_time_ms": 5})]
)
def test_what_is_something_else_is_unknown(data: bytes) -> None:
    env, file = made()
    env.replace_file(FILE, data)
    assert file.read() is None


def test_a_sector_that_is_not_given_back_is_no_error_and_another_want_is() -> None:
    env, file = made()
    assert file.write(FIRST)
    env.fail("read", 1, "EIO")
    assert file.read() is None
    env.fail("open", 1, "EMFILE")
    with pytest.raises(DiskError):
        file.read()


def test_a_directory_from_before_there_was_one_opens() -> None:
    env = FaultEnv()
    used(env)
    assert not env.exists(FILE)
    assert open_member(env).time_file.read() is None
