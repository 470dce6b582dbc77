"""Configurations as bytes: golden, round trips, and garbage that never raises past the codec."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from copycat.config import FAILURE_DOMAIN_NBYTES_MAX, WEIGHT_MAX
from copycat.errors import ConfigurationError, ProtocolError, VersionMismatchError
from copycat.protocol.codec_configuration import (
    MEMBERS_MAX,
    decode_configuration,
    encode_configuration,
)
from copycat.protocol.member_record import (
    NO_START,
    NOBODY,
    ConfigurationRecord,
    DirectoryStart,
    MemberRecord,
)
from copycat.types import NO_ENTRY, EntryId, MemberId, MemberType
from tests.golden import compare_or_rewrite

ACTIVE = MemberRecord(MemberId((1 << 127) + 7), MemberType.ACTIVE, "127.0.0.1:8700")
PASSIVE = MemberRecord(MemberId(8), MemberType.PASSIVE, "b:1", since=17, is_promotable=True)
RESERVE = MemberRecord(MemberId(9), MemberType.RESERVE, "ü.example:1")

SAME = MemberId(77)
RECORDS = {
    "founders": ConfigurationRecord(NO_ENTRY, 0, (ACTIVE,)),
    "all-types": ConfigurationRecord(EntryId(3, 40), (1 << 120) + 5, (ACTIVE, PASSIVE, RESERVE)),
    "replaces": ConfigurationRecord(
        EntryId(3, 40), 1, (ACTIVE, PASSIVE._replace(replaces=ACTIVE.member))
    ),
}

members = st.lists(
    st.builds(
        MemberRecord,
        st.integers(1, (1 << 128) - 1).map(MemberId),
        st.sampled_from([MemberType.ACTIVE, MemberType.PASSIVE, MemberType.RESERVE]),
        st.text(max_size=60),
        st.integers(0, (1 << 64) - 1),
        st.just(False),
        st.sampled_from([NO_START, DirectoryStart(1, 0), DirectoryStart(1 << 63, 1 << 63)]),
        st.sampled_from([NOBODY, MemberId(0xB << 124), MemberId(1)]),
        failure_domain=st.text(max_size=FAILURE_DOMAIN_NBYTES_MAX // 4),
        weight=st.integers(-WEIGHT_MAX, WEIGHT_MAX),
        is_demoted=st.just(False),
        is_leaving=st.just(False),
    ),
    max_size=9,
    unique_by=lambda row: row.member,
)


def encoded(record: ConfigurationRecord) -> bytes:
    return encode_configuration(record)


def test_golden_bytes(rewrite: bool) -> None:
    lines = [f"{name} {encoded(record).hex()}" for name, record in RECORDS.items()]
    golden = Path(__file__).parent / "golden_configurations.txt"
    compare_or_rewrite(golden, "\n".join(lines) + "\n", rewrite=rewrite)


@pytest.mark.parametrize("name", RECORDS)
def test_they_round_trip(name: str) -> None:
    assert decode_configuration(encoded(RECORDS[name]), name) == RECORDS[name]


@settings(max_examples=50, deadline=None)
@given(members, st.integers(0, (1 << 128) - 1), st.integers(0, (1 << 64) - 1))
def test_any_configuration_round_trips(
    rows: list[MemberRecord], incarnation: int, index: int
) -> None:
    index = max(index, *(row.since for row in rows), 0)
    rows = [*rows, MemberRecord(MemberId(0xA << 124), MemberType.ACTIVE, "a:1")]
    if len({row.member for row in rows}) < len(rows):
        rows = rows[:1]
    if not any(row.type is MemberType.ACTIVE for row in rows):
        return
    rows = [row._replace(replaces=NOBODY) if row.replaces == row.member else row for row in rows]
    record = ConfigurationRecord(EntryId(2, index), incarnation, tuple(rows))
    assert decode_configuration(encoded(record), "x") == record


def test_c47_an_unknown_version_is_named_and_nothing_behind_it_is_read() -> None:
    data = (2).to_bytes(2, "little") + b"whatever a later version says"
    with pytest.raises(VersionMismatchError, match="entry 17 is a configuration of version 2"):
        decode_configuration(data, "entry 17")


def test_every_byte_too_few_or_too_many_is_an_error() -> None:
    for record in RECORDS.values():
        data = encoded(record)
        for cut in range(2, len(data)):
            with pytest.raises(ProtocolError):
                decode_configuration(data[:cut], "x")
        with pytest.raises(ProtocolError, match="1 bytes too many"):
            decode_configuration(data + b"\0", "x")


@pytest.mark.parametrize(
    ("rows", "word"),
    [
        ((), "0 members"),
        ((ACTIVE, ACTIVE), "listed twice"),
        ((ACTIVE._replace(member=MemberId(0)),), "no id"),
        ((RESERVE,), "none of 1 members is active"),
        ((ACTIVE._replace(is_promotable=True),), "marked as promotable"),
        ((ACTIVE._replace(since=2),), "since an entry behind 1"),
    ],
)
def test_what_is_no_configuration_is_refused(rows: tuple[MemberRecord, ...], word: str) -> None:
    data = encoded(ConfigurationRecord(EntryId(1, 1), 1, rows))
    with pytest.raises(ProtocolError, match=word):
        decode_configuration(data, "x")


def test_types_and_flags_are_checked() -> None:
    data = encoded(RECORDS["founders"])
    at = 2 + 16 + 19 + 16
    for offset, value in ((0, 0), (0, 4), (1, 64)):
        broken = bytearray(data)
        broken[at + offset] = value
        with pytest.raises(ProtocolError, match="is not known"):
            decode_configuration(bytes(broken), "x")


def test_c43_who_replaces_itself_or_nobody_is_refused() -> None:
    for replaces in (ACTIVE.member, NOBODY):
        data = bytearray(
            encoded(ConfigurationRecord(NO_ENTRY, 0, (ACTIVE._replace(replaces=SAME),)))
        )
        data[-16:] = replaces.to_bytes(16, "little")
        with pytest.raises(ProtocolError, match="which is nobody else"):
            decode_configuration(bytes(data), "x")


def test_f28_there_is_a_limit_of_members() -> None:
    rows = tuple(
        MemberRecord(MemberId(number), MemberType.ACTIVE, "a:1")
        for number in range(1, MEMBERS_MAX + 2)
    )
    with pytest.raises(ConfigurationError, match="129 members; the limit is 128"):
        encoded(ConfigurationRecord(EntryId(1, 1), 1, rows))
    whole = ConfigurationRecord(EntryId(1, 1), 1, rows[:-1])
    assert decode_configuration(encoded(whole), "x") == whole


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200), st.booleans())
def test_garbage_is_an_error_of_the_codec(data: bytes, has_version: bool) -> None:
    data = b"\1\0" * has_version + data
    try:
        record = decode_configuration(data, "x")
    except (ProtocolError, VersionMismatchError):
        return
    assert encoded(record) == data


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 255))
def test_a_flipped_byte_reads_as_something_or_is_an_error(at: int, flip: int) -> None:
    data = bytearray(encoded(RECORDS["all-types"]))
    data[at % len(data)] ^= flip
    try:
        record = decode_configuration(bytes(data), "x")
    except (ProtocolError, VersionMismatchError):
        return
    assert encoded(record) == bytes(data)
