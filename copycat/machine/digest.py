"""A state as bytes that are equal on every member, whatever its hash seed (I20).

Lists keep their order, which follows from the commands. Sets have an order of their own making,
and dictionaries one that cleaning may change: both are sorted.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections import deque
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from operator import itemgetter
from typing import Any

import msgspec

from copycat.machine.availability import SavedRow
from copycat.machine.commit import Commit
from copycat.machine.sessions import ServerSession, SessionTable
from copycat.machine.timers import Scheduled, timer_of

__all__ = ["digest_of", "encode_state"]

_encode = msgspec.msgpack.Encoder().encode
_ORDERED = frozenset({int, str, bytes})
_ERRORS = (msgspec.MsgspecError, TypeError, ValueError, RecursionError)
_LEAVES = frozenset({type(None), bool, int, float, str, bytes})


def encode_state(state: dict[str, Any]) -> bytes | None:
    """Canonical bytes of a machine's attributes; None when one of them has no encoding."""
    try:
        return _encode(_canonical(state))
    except OverflowError:
        pass  # an integer above 64 bits: rare, and looked for only then
    except _ERRORS:
        return None
    try:
        return _encode(_canonical(_narrowed(state)))
    except (OverflowError, *_ERRORS):
        return None


def _narrowed(value: Any) -> Any:
    """The same with texts in place of the integers that MessagePack cannot hold."""
    if type(value) is int:
        return value if -(1 << 63) <= value < 1 << 64 else f"int {value:x}"
    if isinstance(value, dict):
        return {_narrowed(key): _narrowed(item) for key, item in value.items()}
    if type(value) is tuple:
        return tuple(map(_narrowed, value))
    if isinstance(value, list | deque):
        return [_narrowed(item) for item in value]
    if isinstance(value, AbstractSet):
        return frozenset(map(_narrowed, value))
    parts = _fields_of(value)
    if parts is None:
        return value
    return [type(value).__qualname__, *map(_narrowed, parts)]


def _canonical(value: Any) -> Any:
    if type(value) in _LEAVES:
        return value
    if isinstance(value, dict):
        return _by_key(value)
    if isinstance(value, tuple):  # stays hashable: it may be a key
        return tuple(map(_canonical, value))
    if isinstance(value, list | deque):
        if _LEAVES.issuperset(map(type, value)):
            return list(value)
        return [_canonical(item) for item in value]
    if isinstance(value, AbstractSet):
        return [msgspec.Raw(item) for item in sorted(_encode(_canonical(item)) for item in value)]
    parts = _fields_of(value)
    if parts is not None:
        return [type(value).__qualname__, *map(_canonical, parts)]
    if isinstance(value, Commit):
        return value.index
    if isinstance(value, ServerSession):
        return value.id
    if isinstance(value, Scheduled):
        timer = timer_of(value)
        return [timer.due_ms, timer.interval_ms, timer.is_cancelled]
    return value  # datetime, Enum, UUID, Decimal ...: the encoder knows, or refuses


def _fields_of(value: Any) -> Iterable[Any] | None:
    """What a record holds; None for what is no record."""
    if isinstance(value, msgspec.Struct):
        return msgspec.structs.astuple(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [getattr(value, field.name) for field in dataclasses.fields(value)]
    return None


def _by_key(value: dict[Any, Any]) -> Any:
    """The items of a dictionary in an order of its keys: they come in another order where a log
    was cleaned (decision 0012)."""
    if not _LEAVES.issuperset(map(type, value.values())):
        value = {key: _canonical(item) for key, item in value.items()}
    kinds = set(map(type, value))
    if len(kinds) == 1 and kinds <= _ORDERED:
        return dict(sorted(value.items()))
    items = [(_encode(_canonical(key)), item) for key, item in value.items()]
    items.sort(key=itemgetter(0))
    return [[msgspec.Raw(key), item] for key, item in items]


def digest_of(
    position: tuple[int, int],
    sessions: SessionTable,
    members: tuple[dict[int, int], list[SavedRow]],
    due_times: tuple[list[tuple[int, int]], list[tuple[int, int]]],
    state: bytes | None,
) -> bytes:
    """32 bytes over all that followed from the log. The cut into runs does not show.

    members: the incarnations, and which members are heard.
    """
    digest = hashlib.sha256()
    incarnations = [(f"{member:x}", f"{number:x}") for member, number in members[0].items()]
    digest.update(_encode((position, incarnations, due_times)))
    if members[1]:
        digest.update(_encode(members[1]))
    for record in sessions:
        row = (
            record.session,
            record.client_id,
            record.timeout_ms,
            record.time_ms,
            record.active_index,
            record.sequence,
            record.acked_sequence,
            record.claimed,
        )
        digest.update(_encode(row))
        for result in record.unacked_results():
            digest.update(result)
    digest.update(b"opaque" if state is None else b"state" + state)
    return digest.digest()
