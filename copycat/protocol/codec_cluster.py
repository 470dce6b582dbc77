"""Bytes of the requests about the members of a cluster, and of their answers."""

from __future__ import annotations

from struct import Struct
from typing import TypeVar, assert_never

from copycat.errors import ProtocolError
from copycat.protocol.client import (
    ChangeRefused,
    ChangeRequest,
    ClusterRequest,
    ClusterView,
    MemberView,
    TransferRequest,
    ViewRequest,
)
from copycat.protocol.codec_configuration import decode_policy, encode_policy
from copycat.protocol.framing import Frame, encode_frame
from copycat.protocol.member_record import NO_HEALING
from copycat.protocol.wire import (
    ADDRESSES_MAX,
    MEMBER_TYPE_CODES,
    MEMBER_TYPES_BY_CODE,
    REASON_MAX,
    FrameType,
    Reader,
    pack_text,
    pack_texts,
    unknown_frame,
)
from copycat.types import (
    ChangeKind,
    ChangeRefusal,
    EntryId,
    MemberId,
    ServerState,
)

__all__ = [
    "decode_cluster_answer",
    "decode_cluster_request",
    "encode_cluster_answer",
    "encode_cluster_request",
]

MEMBERS_MAX = ADDRESSES_MAX
"""Members in one configuration."""

_VIEW = Struct("<QB")
_CHANGE = Struct("<QBBQQ")
_REQUEST = Struct("<Q")
_STATE = Struct("<QBQQQQQQQQQB")
_REFUSED = Struct("<QBQQ")
_MEMBER = Struct("<BBQQ")
_WEIGHT = Struct("<h")
_IS_PROMOTABLE, _IS_REACHABLE, _IS_AVAILABLE, _IS_SLOW, _IS_DEMOTED, _IS_LEAVING = (
    1, 2, 4, 8, 16, 32,
)  # fmt: skip
"""Flags of a member."""
_FLAGS = _IS_PROMOTABLE | _IS_REACHABLE | _IS_AVAILABLE | _IS_SLOW | _IS_DEMOTED | _IS_LEAVING
_COUNT = Struct("<H")

_STATES = {
    0: ServerState.INACTIVE,
    1: ServerState.RESERVE,
    2: ServerState.PASSIVE,
    3: ServerState.FOLLOWER,
    4: ServerState.CANDIDATE,
    5: ServerState.LEADER,
}
_STATE_NUMBERS = {state: number for number, state in _STATES.items()}
_KINDS = {int(kind): kind for kind in ChangeKind if kind is not ChangeKind.MOVE}
_REFUSALS = {int(refusal): refusal for refusal in ChangeRefusal}

T = TypeVar("T")


def _of(numbers: dict[int, T], number: int, what: str) -> T:
    known = numbers.get(number)
    if known is None:
        raise ProtocolError(f"{what} {number} is unknown")
    return known


def _pack_wide(value: int) -> bytes:
    return value.to_bytes(16, "little")


# ---- requests ----------------------------------------------------------------------------------


def encode_cluster_request(message: ClusterRequest) -> bytes:
    """A whole frame."""
    match message:
        case ViewRequest(request, cluster, is_local):
            body = _VIEW.pack(request, is_local) + pack_text(cluster)
            return encode_frame(FrameType.VIEW, body)
        case ChangeRequest(request, kind, member, type, base, address, cluster, policy):
            fixed = _CHANGE.pack(request, kind, MEMBER_TYPE_CODES[type], base.term, base.index)
            texts = pack_text(address) + pack_text(cluster)
            rest = encode_policy(policy) if kind is ChangeKind.POLICY else b""
            return encode_frame(FrameType.CHANGE, fixed + _pack_wide(member) + texts + rest)
        case TransferRequest(request, to, cluster):
            body = _REQUEST.pack(request) + _pack_wide(to) + pack_text(cluster)
            return encode_frame(FrameType.TRANSFER, body)
        case _:
            assert_never(message)


def decode_cluster_request(frame: Frame) -> ClusterRequest:
    """A request about the members. Raises ProtocolError."""
    message: ClusterRequest
    match frame.type:
        case FrameType.VIEW:
            reader = Reader(frame.body, "VIEW")
            request, is_local = reader.unpack(_VIEW)
            message = ViewRequest(request, reader.text(), reader.flag(is_local))
        case FrameType.CHANGE:
            reader = Reader(frame.body, "CHANGE")
            request, number, type_number, term, index = reader.unpack(_CHANGE)
            kind = _of(_KINDS, number, "CHANGE: kind")
            type = _of(MEMBER_TYPES_BY_CODE, type_number, "CHANGE: type")
            member, base = MemberId(reader.wide()), EntryId(term, index)
            address, cluster = reader.text(), reader.text()
            is_policy = kind is ChangeKind.POLICY
            policy = decode_policy(reader, "CHANGE") if is_policy else NO_HEALING
            message = ChangeRequest(request, kind, member, type, base, address, cluster, policy)
        case FrameType.TRANSFER:
            reader = Reader(frame.body, "TRANSFER")
            (request,) = reader.unpack(_REQUEST)
            message = TransferRequest(request, MemberId(reader.wide()), reader.text())
        case _:
            raise unknown_frame(frame, "a request about the members")
    reader.end()
    return message


# ---- answers -----------------------------------------------------------------------------------


def encode_cluster_answer(message: ClusterView | ChangeRefused) -> bytes:
    """A whole frame."""
    if isinstance(message, ClusterView):
        fixed = _STATE.pack(
            message.request,
            _STATE_NUMBERS[message.state],
            message.term,
            message.entry.term,
            message.entry.index,
            message.first_index,
            message.last_index,
            message.commit_index,
            message.last_applied,
            message.applied_time_ms,
            message.sessions,
            message.storage_full,
        )
        ids = (message.member, message.leader, message.feeder, message.incarnation)
        texts = (message.cluster, message.version, message.durability)
        parts = [fixed, *map(_pack_wide, ids), *map(pack_text, texts)]
        parts += [_pack_members(message.members), encode_policy(message.policy)]
        parts += [pack_text(message.obstacles, REASON_MAX, cut=True)]
        return encode_frame(FrameType.CLUSTER_VIEW, b"".join(parts))
    fixed = _REFUSED.pack(message.request, message.refusal, *message.entry)
    words = pack_text(message.leader) + pack_text(message.reason, REASON_MAX, cut=True)
    rest = pack_texts(message.missing) + _pack_members(message.members)
    return encode_frame(FrameType.CHANGE_REFUSED, fixed + words + rest)


def _pack_members(members: tuple[MemberView, ...]) -> bytes:
    parts = [_COUNT.pack(len(members))]
    for one in members:
        flags = (
            _IS_PROMOTABLE * one.is_promotable
            | _IS_REACHABLE * one.is_reachable
            | _IS_AVAILABLE * one.is_available
            | _IS_SLOW * one.is_slow
            | _IS_DEMOTED * one.is_demoted
            | _IS_LEAVING * one.is_leaving
        )
        fixed = _MEMBER.pack(MEMBER_TYPE_CODES[one.type], flags, one.since, one.match_index)
        texts = pack_text(one.address) + pack_text(one.failure_domain)
        parts += [_pack_wide(one.member), fixed, texts, _WEIGHT.pack(one.weight)]
        parts.append(_pack_wide(one.replaces))
    return b"".join(parts)


def decode_cluster_answer(frame: Frame) -> ClusterView | ChangeRefused:
    """An answer to a request about the members. Raises ProtocolError."""
    message: ClusterView | ChangeRefused
    match frame.type:
        case FrameType.CLUSTER_VIEW:
            reader = Reader(frame.body, "CLUSTER_VIEW")
            message = _view(reader)
        case FrameType.CHANGE_REFUSED:
            reader = Reader(frame.body, "CHANGE_REFUSED")
            request, number, term, index = reader.unpack(_REFUSED)
            refusal = _of(_REFUSALS, number, "CHANGE_REFUSED: refusal")
            leader, reason, missing = reader.text(), reader.text(REASON_MAX), reader.texts()
            members = _members(reader, "CHANGE_REFUSED")
            entry = EntryId(term, index)
            message = ChangeRefused(request, refusal, entry, leader, reason, missing, members)
        case _:
            raise unknown_frame(frame, "an answer about the members")
    reader.end()
    return message


def _view(reader: Reader) -> ClusterView:
    request, state, term, entry_term, entry_index, *indexes, is_full = reader.unpack(_STATE)
    first_index, last_index, commit_index, last_applied, time_ms, sessions = indexes
    member, leader = MemberId(reader.wide()), MemberId(reader.wide())
    feeder, incarnation = MemberId(reader.wide()), reader.wide()
    cluster, version, durability = reader.text(), reader.text(), reader.text()
    return ClusterView(
        request=request,
        member=member,
        state=_of(_STATES, state, "CLUSTER_VIEW: state"),
        term=term,
        leader=leader,
        entry=EntryId(entry_term, entry_index),
        first_index=first_index,
        last_index=last_index,
        commit_index=commit_index,
        last_applied=last_applied,
        applied_time_ms=time_ms,
        sessions=sessions,
        storage_full=reader.flag(is_full),
        incarnation=incarnation,
        cluster=cluster,
        version=version,
        durability=durability,
        members=_members(reader, "CLUSTER_VIEW"),
        policy=decode_policy(reader, "CLUSTER_VIEW"),
        feeder=feeder,
        obstacles=reader.text(REASON_MAX),
    )


def _members(reader: Reader, what: str) -> tuple[MemberView, ...]:
    (count,) = reader.unpack(_COUNT)
    if count > MEMBERS_MAX:
        raise ProtocolError(f"{what}: {count} members; the limit is {MEMBERS_MAX}")
    return tuple(_member(reader, what) for _ in range(count))


def _member(reader: Reader, what: str) -> MemberView:
    member = MemberId(reader.wide())
    type_number, flags, since, match_index = reader.unpack(_MEMBER)
    if flags & ~_FLAGS:
        raise ProtocolError(f"{what}: the flags of a member are {flags}")
    type = _of(MEMBER_TYPES_BY_CODE, type_number, f"{what}: type")
    address, failure_domain = reader.text(), reader.text()
    (weight,) = reader.unpack(_WEIGHT)
    return MemberView(
        member=member,
        type=type,
        address=address,
        since=since,
        is_promotable=bool(flags & _IS_PROMOTABLE),
        is_reachable=bool(flags & _IS_REACHABLE),
        is_available=bool(flags & _IS_AVAILABLE),
        is_slow=bool(flags & _IS_SLOW),
        is_demoted=bool(flags & _IS_DEMOTED),
        is_leaving=bool(flags & _IS_LEAVING),
        failure_domain=failure_domain,
        weight=weight,
        match_index=match_index,
        replaces=MemberId(reader.wide()),
    )
