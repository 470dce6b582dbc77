"""Bytes of a configuration: who the members of the cluster are, and of which cluster.

The same bytes are the payload of a CONFIGURATION entry, a field of a snapshot file, a part of the
file `configuration` in a member's directory, and the body of a CONFIGURATION_NOTICE. They begin
with a version of their own (C47), so that a member that does not know it stops at the entry and
says so. Nobody skips a configuration.
"""

from __future__ import annotations

from struct import Struct

from copycat.config import FAILURE_DOMAIN_NBYTES_MAX, WEIGHT_MAX
from copycat.errors import ConfigurationError, ProtocolError, VersionMismatchError
from copycat.protocol.framing import Buffer
from copycat.protocol.member_record import (
    NO_HEALING,
    NO_START,
    ConfigurationRecord,
    DirectoryStart,
    HealingPolicy,
    MemberRecord,
    Place,
)
from copycat.protocol.wire import (
    ADDRESSES_MAX,
    MEMBER_TYPE_CODES,
    MEMBER_TYPES_BY_CODE,
    Reader,
    pack_text,
)
from copycat.types import EntryId, MemberId, MemberType

__all__ = [
    "CONFIGURATION_VERSION",
    "MEMBERS_MAX",
    "decode_configuration",
    "decode_policy",
    "encode_configuration",
    "encode_policy",
    "pack_place",
    "read_place",
]

CONFIGURATION_VERSION = 1
MEMBERS_MAX = ADDRESSES_MAX
"""Members of one configuration: clients are sent the addresses of all of them."""

_VERSION = Struct("<H")
_HEAD = Struct("<QQHB")
"""Name of the entry (term, index), number of members, whether a policy follows."""
_POLICY = Struct("<HHQQQQBB")
"""Two targets, four durations, whether live voters are spread, whether it is on."""
_MEMBER = Struct("<BBQ")
"""Type, flags, `since`."""
_START = Struct("<QQ")
"""Number and random bits of the newest start."""
_PLACE = Struct("<h")
"""Weight, behind the failure domain."""
_IS_PROMOTABLE, _HAS_START, _REPLACES, _HAS_PLACE, _IS_DEMOTED, _IS_LEAVING = 1, 2, 4, 8, 16, 32
"""Flags of a member."""
_FLAGS = _IS_PROMOTABLE | _HAS_START | _REPLACES | _HAS_PLACE | _IS_DEMOTED | _IS_LEAVING


def encode_configuration(record: ConfigurationRecord) -> bytes:
    """The bytes of a configuration. ConfigurationError when it is beyond a limit."""
    members = record.members
    if len(members) > MEMBERS_MAX:
        raise ConfigurationError(f"{len(members)} members; the limit is {MEMBERS_MAX}")
    parts = [
        _VERSION.pack(CONFIGURATION_VERSION),
        record.cluster_incarnation.to_bytes(16, "little"),
        _HEAD.pack(
            record.entry.term, record.entry.index, len(members), record.policy != NO_HEALING
        ),
    ]
    if record.policy != NO_HEALING:
        parts.append(encode_policy(record.policy))
    for row in members:
        has_place = row.place != Place()
        flags = (
            _IS_PROMOTABLE * row.is_promotable
            | _HAS_START * (row.start != NO_START)
            | _REPLACES * bool(row.replaces)
            | _HAS_PLACE * has_place
            | _IS_DEMOTED * row.is_demoted
            | _IS_LEAVING * row.is_leaving
        )
        parts.append(row.member.to_bytes(16, "little"))
        parts.append(_MEMBER.pack(MEMBER_TYPE_CODES[row.type], flags, row.since))
        parts.append(pack_text(row.address))
        if row.start != NO_START:
            parts.append(_START.pack(*row.start))
        if row.replaces:
            parts.append(row.replaces.to_bytes(16, "little"))
        if has_place:
            parts.append(pack_place(row.place))
    return b"".join(parts)


def pack_place(place: Place) -> bytes:
    """Failure domain and weight, where a member has one of them."""
    return pack_text(place.failure_domain, FAILURE_DOMAIN_NBYTES_MAX) + _PLACE.pack(place.weight)


def read_place(reader: Reader, what: str) -> Place:
    """The next bytes as a failure domain and a weight; ProtocolError."""
    failure_domain = reader.text(FAILURE_DOMAIN_NBYTES_MAX)
    (weight,) = reader.unpack(_PLACE)
    place = Place(failure_domain, weight)
    if abs(weight) > WEIGHT_MAX or place == Place():
        raise ProtocolError(f"{what}: {failure_domain!r} with weight {weight} is no place")
    return place


def encode_policy(policy: HealingPolicy) -> bytes:
    """The bytes of a policy, in a configuration and in a request."""
    return _POLICY.pack(*policy)


def decode_policy(reader: Reader, what: str) -> HealingPolicy:
    """The next bytes as a policy; ProtocolError."""
    *numbers, rebalance, is_on = reader.unpack(_POLICY)
    active, passive, after_ms, interval_ms, suspend_ms, slow_ms = numbers
    is_impossible = after_ms < 1 or interval_ms < 1 or max(active, passive) > MEMBERS_MAX
    if is_impossible or max(rebalance, is_on) > 1:
        raise ProtocolError(f"{what}: a policy of healing that nobody could set")
    return HealingPolicy(
        active,
        passive,
        after_ms,
        interval_ms,
        suspend_ms,
        slow_ms,
        rebalance=bool(rebalance),
        is_on=bool(is_on),
    )


def decode_configuration(data: Buffer, what: str) -> ConfigurationRecord:
    """The configuration in `data`. what: where the bytes were found, for an error.

    VersionMismatchError for a version that this build does not know; ProtocolError for bytes that
    are no configuration.
    """
    reader = Reader(data, what)
    (version,) = reader.unpack(_VERSION)
    if version != CONFIGURATION_VERSION:
        raise VersionMismatchError(
            f"{what} is a configuration of version {version}; this copycat reads version"
            f" {CONFIGURATION_VERSION}, and nobody may skip a configuration",
            hint="run the version of copycat that wrote it, or a newer one",
        )
    incarnation = reader.wide()
    term, index, count, has_policy = reader.unpack(_HEAD)
    if not 0 < count <= MEMBERS_MAX:
        raise ProtocolError(f"{what}: {count} members; there are 1 to {MEMBERS_MAX}")
    policy = decode_policy(reader, what) if reader.flag(has_policy) else NO_HEALING
    members = tuple(_read_member(reader, what) for _ in range(count))
    reader.end()
    _check(members, index, what)
    return ConfigurationRecord(EntryId(term, index), incarnation, members, policy)


def _read_member(reader: Reader, what: str) -> MemberRecord:
    member = MemberId(reader.wide())
    code, flags, since = reader.unpack(_MEMBER)
    kind = MEMBER_TYPES_BY_CODE.get(code, MemberType.INACTIVE)
    if kind is MemberType.INACTIVE or flags & ~_FLAGS:
        raise ProtocolError(f"{what}: a member of type {code} with flags {flags:#x} is not known")
    address = reader.text()
    start = DirectoryStart(*reader.unpack(_START)) if flags & _HAS_START else NO_START
    if bool(flags & _HAS_START) != (start.number > 0):
        raise ProtocolError(f"{what}: start {start.number} of a member is none")
    replaces = MemberId(reader.wide() if flags & _REPLACES else 0)
    if bool(flags & _REPLACES) != (replaces not in (0, member)):
        raise ProtocolError(f"{what}: a member replaces {replaces:032x}, which is nobody else")
    place = read_place(reader, what) if flags & _HAS_PLACE else Place()
    return MemberRecord(
        member,
        kind,
        address,
        since,
        bool(flags & _IS_PROMOTABLE),
        start,
        replaces,
        place.failure_domain,
        place.weight,
        bool(flags & _IS_DEMOTED),
        bool(flags & _IS_LEAVING),
    )


def _check(members: tuple[MemberRecord, ...], index: int, what: str) -> None:
    ids = {row.member for row in members}
    if len(ids) < len(members) or 0 in ids:
        raise ProtocolError(f"{what}: a member is listed twice, or has no id")
    if all(row.type is not MemberType.ACTIVE for row in members):
        raise ProtocolError(f"{what}: none of {len(members)} members is active")
    if any(row.is_promotable and row.type is not MemberType.PASSIVE for row in members):
        raise ProtocolError(f"{what}: a member that is not passive is marked as promotable")
    if not all(row.has_right_marks for row in members):
        raise ProtocolError(f"{what}: a mark that a member of its type cannot have")
    if any(row.since > index for row in members):
        raise ProtocolError(f"{what}: a member is there since an entry behind {index}")
