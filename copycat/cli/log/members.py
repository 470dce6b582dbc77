"""Shows configurations, in the log and in the file of a member: as words, and as a dictionary."""

from __future__ import annotations

from typing import Any

import msgspec

from copycat.client.healing_policy import HealingPolicy
from copycat.protocol.member_record import NO_HEALING, ConfigurationRecord, MemberRecord

__all__ = ["configuration_fields", "configuration_text"]


def configuration_fields(record: ConfigurationRecord) -> dict[str, Any]:
    """For JSON output."""
    policy = HealingPolicy.of(record.policy)
    return {
        "cluster": f"{record.cluster_incarnation:032x}",
        "policy": msgspec.structs.asdict(policy),
        "members": [
            {
                "member": f"{one.member:032x}",
                "type": one.type.value,
                "address": one.address,
                "since": one.since,
                "is_promotable": one.is_promotable,
                "is_demoted": one.is_demoted,
                "is_leaving": one.is_leaving,
                "failure_domain": one.failure_domain,
                "weight": one.weight,
            }
            for one in record.members
        ],
    }


def configuration_text(record: ConfigurationRecord) -> str:
    """Addresses by type, in the order of the configuration, and what leaders heal by."""
    text = ", ".join(map(_member, record.members))
    policy = record.policy
    if policy == NO_HEALING:
        return text
    state = "" if policy.is_on else ", off"
    targets = f"{policy.target_active} active and {policy.target_passive} passive"
    return f"{text}; heals to {targets}{state}"


def _member(one: MemberRecord) -> str:
    since = f" since {one.since:,}" if one.since else ""
    domain = f" in {one.failure_domain}" if one.failure_domain else ""
    weight = f" weight {one.weight}" if one.weight else ""
    marks = ", to become active" if one.is_promotable else ""
    marks += ", demoted by a user" if one.is_demoted else ""
    marks += ", to be replaced" if one.is_leaving else ""
    return f"{one.address} {one.type}{since}{domain}{weight}{marks}"
