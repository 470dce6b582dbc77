"""C38: what the entries about members leave in the state, and which of them are released."""

from __future__ import annotations

from copycat.machine.apply_result import AvailabilityChanged
from copycat.machine.envelope import encode_availability
from copycat.machine.kv import KeyValueStore
from copycat.machine.session_executor import SessionExecutor
from copycat.protocol.codec_configuration import encode_configuration
from copycat.protocol.member_record import ConfigurationRecord, MemberRecord
from copycat.types import EntryId, EntryKind, MemberId, MemberType, Release
from tests.machine.runs import Script

A, B = 1 << 100, 7


def tell(script: Script, member: int, *, is_available: bool) -> list[tuple[Release, list[int]]]:
    """One entry; what it released."""
    payload = encode_availability(member, is_available=is_available)
    outcome = script.entry(EntryKind.AVAILABILITY, payload)
    index, time_ms = outcome.last_applied, outcome.time_ms
    assert outcome.changes == [AvailabilityChanged(member, is_available, index, time_ms)]
    return [(policy, list(indexes)) for policy, indexes in outcome.releases]


def members(script: Script, *ids: int) -> list[list[int]]:
    """An entry with these members; what it released."""
    rows = tuple(MemberRecord(MemberId(each), MemberType.ACTIVE, f"m{each}:1") for each in ids)
    payload = encode_configuration(ConfigurationRecord(EntryId(1, 9), 5, rows))
    outcome = script.entry(EntryKind.CONFIGURATION, payload)
    return [list(indexes) for _, indexes in outcome.releases]


def test_c38_the_newest_entry_of_each_member_counts_and_the_one_before_is_released() -> None:
    script = Script(KeyValueStore())
    assert tell(script, A, is_available=False) == []
    assert tell(script, B, is_available=False) == []
    assert tell(script, A, is_available=True) == [(Release.ANY, [1])]
    rows = script.executor.availability
    assert {member: (row.index, row.is_available) for member, row in rows.items()} == {
        A: (3, True),
        B: (2, False),
    }


def test_c38_who_is_no_member_any_more_is_forgotten() -> None:
    script = Script(KeyValueStore())
    tell(script, A, is_available=False)
    tell(script, B, is_available=False)
    assert members(script, A) == [[2]]
    assert list(script.executor.availability) == [A]
    assert members(script, A) == []


def test_c38_it_is_a_part_of_digest_and_snapshot() -> None:
    left, right = Script(KeyValueStore()), Script(KeyValueStore())
    tell(left, A, is_available=False)
    tell(right, A, is_available=True)
    assert left.executor.digest() != right.executor.digest()
    restored = SessionExecutor(KeyValueStore())
    restored.install(left.executor.snapshot())
    assert restored.availability == left.executor.availability
    assert restored.digest() == left.executor.digest()
    left.executor, script = restored, left
    assert tell(script, A, is_available=True) == [(Release.ANY, [1])]
