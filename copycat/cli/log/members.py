"""Shows configurations, in the log and in the file of a member: as words, and as a dictionary."""

from __future__ import annotations

from typing import Any

from copycat.protocol.member_record import ConfigurationRecord, MemberRecord

__all__ = ["configuration_fields", "configuration_text"]


def configuration_fields(record: ConfigurationRecord) -> dict[str, Any]:
    """For JSON output."""
    return {
        "cluster": f"{record.cluster_incarnation:032x}",
        "members": [
            {
                "member": f"{one.member:032x}",
                "type": one.type.value,
                "address": one.address,
                "since": one.since,
                "is_promotable": one.is_promotable,
            }
            for one in record.members
        ],
    }


def configuration_text(record: ConfigurationRecord) -> str:
    """Addresses by type, in the order of the configuration."""
    return ", ".join(map(_member, record.members))


def _member(one: MemberRecord) -> str:
    since = f" since {one.since:,}" if one.since else ""
    goal = ", to become active" if one.is_promotable else ""
    return f"{one.address} {one.type}{since}{goal}"
