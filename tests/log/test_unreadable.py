"""A sector that the disk does not give back at a start: a bad copy, or damage (F2, F5, F11, F17).

One that fails once and can be read at the second look is neither. Five entries a segment, as in
`test_repair`: entries 1 to 5 are in the first file, 11 and later in the tail.
"""

from __future__ import annotations

import errno
from typing import Any

import pytest

from copycat.errors import CorruptLogError, DiskError
from copycat.member.identity import IDENTITY_FILES, read_identity
from copycat.member.markers import UNSYNCED_ACKS_FILE
from copycat.member.verify import verify
from copycat.storage._native import FaultEnv, open_hard_state
from copycat.storage.reader import segments
from copycat.storage.snapshot_store import SnapshotStore
from copycat.storage.unreadable import is_unreadable
from copycat.types import EntryId
from tests.log.contract import contents, expected
from tests.log.test_directory import PATH, image, open_member
from tests.log.test_repair import ALONE, LOG, SNAPSHOTS, lost_upto, used

OPERATIONS = ["open", "read"]
NO_DAMAGE = ["EACCES", "EMFILE"]
READS = 60


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("copy", [1, 2])
def test_f5_an_unreadable_copy_of_the_vote_is_written_again(operation: str, copy: int) -> None:
    env = FaultEnv()
    used(env)
    env.fail(operation, copy, "EIO")
    hard_state = open_hard_state(env, PATH, create=False)
    assert (hard_state.current_term, hard_state.voted_for) == (3, 9)
    assert hard_state.repaired == 1
    assert not verify(PATH, env=env).damage


def test_f6_two_unreadable_copies_of_the_vote_refuse() -> None:
    env = FaultEnv()
    used(env)
    before = image(env)
    for nth in (1, 2):
        env.fail("read", nth, "EIO")
    with pytest.raises(CorruptLogError, match="no readable copy of term and vote"):
        open_hard_state(env, PATH, create=False)
    for nth in (3, 4):  # behind the two of the identity
        env.fail("read", nth, "EIO")
    with pytest.raises(CorruptLogError, match=r"hard-state-a: Input.*hard-state-b: Input"):
        open_member(env)
    assert image(env) == before


@pytest.mark.parametrize("error", NO_DAMAGE)
def test_f29_a_copy_of_the_vote_that_may_not_be_read_now_is_no_bad_one(error: str) -> None:
    env = FaultEnv()
    used(env)
    env.fail("open", 1, error)
    with pytest.raises(DiskError):
        open_hard_state(env, PATH, create=False)


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("copy", [1, 2])
def test_an_unreadable_copy_of_the_identity_is_ignored(operation: str, copy: int) -> None:
    env = FaultEnv()
    used(env)
    env.fail(operation, copy, "EIO")
    identity, missing = read_identity(env, PATH)
    assert identity is not None
    assert identity.address == "a:1"
    assert missing == (IDENTITY_FILES[copy - 1],)


def test_f7_two_unreadable_copies_of_the_identity_refuse() -> None:
    env = FaultEnv()
    used(env)
    before = image(env)
    for nth in (1, 2):
        env.fail("read", nth, "EIO")
    with pytest.raises(CorruptLogError, match=r"identity-a: Input.*identity-b: Input"):
        open_member(env)
    assert image(env) == before


@pytest.mark.parametrize("operation", OPERATIONS)
def test_f17_an_unreadable_snapshot_falls_back_to_the_one_before(operation: str) -> None:
    env = FaultEnv()
    store = SnapshotStore(env, SNAPSHOTS)
    for index in (5, 9):
        store.admit(store.save(EntryId(1, index), time_ms=1, data=b"state"))
    again = SnapshotStore(env, SNAPSHOTS)
    env.fail(operation, 1, "EIO")
    good = again.newest_good()
    assert good is not None
    assert good[0].entry == EntryId(1, 5)
    assert again.bad == [EntryId(1, 9)]


def test_f29_a_snapshot_that_may_not_be_read_now_is_no_bad_one() -> None:
    env = FaultEnv()
    store = SnapshotStore(env, SNAPSHOTS)
    store.admit(store.save(EntryId(1, 5), time_ms=1, data=b"state"))
    env.fail("open", 1, "EMFILE")
    with pytest.raises(DiskError):
        store.newest_good()
    assert not store.bad


def test_a_marker_of_unsynced_acks_that_cannot_be_read_promises_the_least() -> None:
    env = FaultEnv()
    used(env)
    env.replace_file(f"{PATH}/{UNSYNCED_ACKS_FILE}", b"os one\n")
    env.fail("read", 3, "EIO")  # behind the two of the identity
    assert open_member(env, boot="one").lost


def stumbles(env: FaultEnv, caplog: pytest.LogCaptureFixture, **options: Any) -> list[str]:
    """The log's file that each read of a start misses; "" where another does as well."""
    paths = []
    for nth in range(1, READS):
        one = env.clone()
        one.fail("read", nth, "EIO")
        caplog.clear()
        directory = open_member(one, **options)
        assert directory.lost_entries is None, (
            "one that can be read at the second look is no damage"
        )
        assert directory.log.last_index == 13
        causes = [record.args[0] for record in caplog.records if isinstance(record.args, tuple)]
        paths.append(str(getattr(causes[0], "path", "")) if causes else "")
    assert not any(paths[-10:]), "there are no more"
    return paths


@pytest.mark.parametrize("which", ["manifest", "segment", "tail"])
def test_f11_what_cannot_be_read_twice_is_cut_and_recorded_as_lost(
    which: str, caplog: pytest.LogCaptureFixture
) -> None:
    env = FaultEnv()
    used(env)
    names = [row.name for row in segments(LOG, env=env)]
    met = stumbles(env, caplog)
    place = {"manifest": -1, "segment": 1, "tail": 2}[which]
    nth = met.index(f"{LOG}/{'manifest' if place < 0 else names[place]}") + 1
    again = nth + nth - next(i for i, path in enumerate(met) if path)
    # The repair reads the manifest twice, then every file once; it begins anew once.
    for each in (nth, again, *((again + 1, again + 2) if place < 0 else (again + 3 + place,))):
        env.fail("read", each, "EIO")
    directory = open_member(env)
    last = {"manifest": 1, "segment": 6, "tail": 11}[which]
    assert contents(directory.log) == expected(1, last, 2)
    assert directory.lost_entries is not None
    assert directory.lost_entries.first_index == last
    assert lost_upto(directory) >= EntryId(2, 13)
    assert env.exists(f"{PATH}/log-damaged-1/manifest")
    assert verify(PATH, env=env).ok


def test_f2_a_member_alone_refuses_and_says_which_file(caplog: pytest.LogCaptureFixture) -> None:
    env = FaultEnv()
    used(env, **ALONE)
    before = image(env)
    name = segments(LOG, env=env)[1].name
    met = stumbles(env, caplog, **ALONE)
    nth = met.index(f"{LOG}/{name}") + 1
    again = nth + nth - next(i for i, path in enumerate(met) if path)
    for each in (nth, again, again + 4):
        env.fail("read", each, "EIO")
    with pytest.raises(CorruptLogError, match="Input/output error") as caught:
        open_member(env, **ALONE)
    assert (caught.value.path, caught.value.index) == (f"{LOG}/{name}", 6)
    assert image(env) == before


def test_f11_what_stops_being_readable_in_the_repair_itself_is_not_forgotten() -> None:
    env = FaultEnv()
    used(env)
    directory = open_member(env)
    path = f"{LOG}/{segments(LOG, env=env)[-1].name}"
    directory.note(CorruptLogError("bad", path=path, index=12))
    directory.close()
    refused = []
    for nth in range(1, READS):
        one = env.clone()
        one.fail("read", nth, "EIO")
        try:
            again = open_member(one)
        except DiskError as error:
            refused.append(getattr(error, "index", 0))
            again = open_member(one)
        assert again.lost_entries is not None
        assert again.log.last_index + 1 == again.lost_entries.first_index
        assert lost_upto(again) >= EntryId(2, 13)
    assert [index for index in refused if index] == [1, 6, 11], "once for each file that is copied"


@pytest.mark.parametrize("operation", ["write", "sync"])
def test_f9_a_write_of_the_recovery_that_fails_is_no_damage(operation: str) -> None:
    env = FaultEnv()
    used(env)
    env.fail(operation, 1, "EIO")
    with pytest.raises(DiskError) as caught:
        open_member(env)
    assert getattr(caught.value, "operation", "") == operation
    again = open_member(env)
    assert again.lost_entries is None
    assert contents(again.log) == expected(1, 14, 2)


@pytest.mark.parametrize("error", NO_DAMAGE)
def test_f29_a_log_that_may_not_be_opened_now_is_not_damaged(error: str) -> None:
    env = FaultEnv()
    used(env)
    refused = []
    for nth in range(1, READS):
        one = env.clone()
        one.fail("open", nth, error)
        try:
            directory = open_member(one)
        except DiskError as caught:
            refused.append(str(getattr(caught, "path", "")))
            directory = open_member(one)
        assert directory.lost_entries is None
    assert f"{LOG}/{segments(LOG, env=env)[0].name}" in refused
    assert f"{LOG}/manifest" in refused


@pytest.mark.parametrize(
    ("operation", "number", "answer"),
    [
        ("read", errno.EIO, True),
        ("open", errno.EUCLEAN, True),
        ("list", errno.EBADMSG, True),
        ("read", errno.ENODATA, True),
        ("read", errno.ENOMEM, False),
        ("open", errno.EACCES, False),
        ("write", errno.EIO, False),
        ("sync", errno.EIO, False),
    ],
)
def test_f11_what_an_error_says_of_the_bytes(operation: str, number: int, answer: bool) -> None:
    assert is_unreadable(DiskError("x", operation=operation, errno=number)) is answer
    assert not is_unreadable(OSError(number, "x"))


def test_f11_a_note_is_of_bytes_and_of_nothing_else() -> None:
    env = FaultEnv()
    used(env)
    directory = open_member(env)
    for operation, number in (("open", errno.EMFILE), ("read", errno.ENOMEM)):
        error = DiskError("no", path=f"{LOG}/1-1.log", operation=operation, errno=number)
        assert directory.note(error) is None
