"""The policy of healing as a user gives it, and as the configuration holds it."""

from __future__ import annotations

from typing import Any

import pytest

from copycat.client.healing_policy import HealingPolicy
from copycat.errors import ConfigurationError, ProtocolError
from copycat.protocol.codec_configuration import decode_configuration, encode_configuration
from copycat.protocol.member_record import ConfigurationRecord, MemberRecord
from copycat.protocol.member_record import HealingPolicy as PolicyRecord
from copycat.types import EntryId, MemberId, MemberType

A, B = MemberId(1), MemberId(2)
POLICY = HealingPolicy(
    target_active=3, heal_after=1.5, suspend_after=0, replace_slow_after=20, rebalance=False
)


def record(*members: MemberRecord, policy: PolicyRecord = POLICY.record) -> ConfigurationRecord:
    return ConfigurationRecord(EntryId(2, 9), 7, members, policy)


def test_it_comes_back_as_it_was_set() -> None:
    assert HealingPolicy.of(POLICY.record) == POLICY
    assert POLICY.record == PolicyRecord(
        3, 0, 1500, 10_000, 0, 20_000, rebalance=False, is_on=True
    )


def test_all_problems_are_named() -> None:
    with pytest.raises(ConfigurationError) as caught:
        HealingPolicy(target_active=-1, heal_after=0.0, suspend_after=-2.0, replace_slow_after=-1)
    for name in ("target_active", "heal_after", "suspend_after", "replace_slow_after"):
        assert name in caught.value.message


@pytest.mark.parametrize(
    "wrong",
    [
        {"target_active": 3.0},
        {"target_passive": "1"},
        {"heal_after": "30"},
        {"heal_interval": None},
        {"suspend_after": float("nan")},
        {"rebalance": 1},
        {"is_on": "yes"},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_a_value_of_another_type_is_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(wrong))):
        HealingPolicy(**wrong)


def test_policy_domains_and_marks_are_part_of_a_configuration() -> None:
    whole = record(
        MemberRecord(A, MemberType.ACTIVE, "a:1", failure_domain="x", weight=-3, is_leaving=True),
        MemberRecord(B, MemberType.PASSIVE, "b:1", 9, is_promotable=True),
        MemberRecord(MemberId(3), MemberType.RESERVE, "c:1", is_demoted=True),
    )
    assert decode_configuration(encode_configuration(whole), "it") == whole


@pytest.mark.parametrize(
    "wrong",
    [
        record(MemberRecord(A, MemberType.ACTIVE, "a:1", is_demoted=True)),
        record(
            MemberRecord(A, MemberType.ACTIVE, "a:1"),
            MemberRecord(B, MemberType.PASSIVE, "b:1", is_leaving=True),
        ),
        record(MemberRecord(A, MemberType.ACTIVE, "a:1", weight=1001)),
        record(
            MemberRecord(A, MemberType.ACTIVE, "a:1"),
            policy=PolicyRecord(1, 0, heal_after_ms=0, is_on=True),
        ),
    ],
)
def test_what_no_leader_writes_is_refused(wrong: ConfigurationRecord) -> None:
    with pytest.raises(ProtocolError):
        decode_configuration(encode_configuration(wrong), "it")
