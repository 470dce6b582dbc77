"""Why the cluster does not serve a client now, and the errors that say so. Values only."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from copycat.errors import (
    ConfigurationError,
    CopycatError,
    DiskFullError,
    IllegalMemberStateError,
    NoLeaderError,
    OperationTimeout,
    QuorumLostError,
)
from copycat.protocol.client import CommandsRefused, Failure, Refusal
from copycat.protocol.operations import Query

__all__ = [
    "BACK_PRESSURE",
    "DISCONNECTED",
    "RETRIED_QUERIES",
    "SWITCH_AT_ONCE",
    "Unavailability",
    "connect_error",
    "format_operations",
    "session_regressed",
    "timeout_error",
    "unavailability_of",
]

BACK_PRESSURE = frozenset({Refusal.OVERLOADED, Refusal.DISK_FULL})
"""Not now: ask the same server again a little later."""

SWITCH_AT_ONCE = frozenset(
    {Refusal.ILLEGAL_MEMBER_STATE, Refusal.SERVER_FULL, Refusal.WRONG_CLUSTER}
)
"""This server will not serve the client: ask another one."""

RETRIED_QUERIES = frozenset(
    {Refusal.NO_LEADER, Refusal.NO_QUORUM, Refusal.QUERY, *SWITCH_AT_ONCE, *BACK_PRESSURE}
)
"""Refusals of a query after which it is asked again: it changes nothing."""

OPERATION_CHARACTERS_MAX = 200

_KINDS: dict[int, type[CopycatError]] = {
    Refusal.NO_LEADER: NoLeaderError,
    Refusal.NO_QUORUM: QuorumLostError,
    Refusal.DISK_FULL: DiskFullError,
    Refusal.ILLEGAL_MEMBER_STATE: IllegalMemberStateError,
    Refusal.SERVER_FULL: NoLeaderError,
    Refusal.WRONG_CLUSTER: ConfigurationError,
    Refusal.OVERLOADED: OperationTimeout,
}
_WORDS = {
    Refusal.NO_LEADER: "no leader is known",
    Refusal.NO_QUORUM: "too few members are reachable",
    Refusal.DISK_FULL: "the leader's disk is full, or those of too many members",
    Refusal.ILLEGAL_MEMBER_STATE: "the server is of the wrong type",
    Refusal.WRONG_CLUSTER: "the server is of another cluster",
    Refusal.SERVER_FULL: "the server has no room for another client",
    Refusal.OVERLOADED: "the leader has too much to do",
}
_ASK_AGAIN = "a query changes nothing: ask again"
_SUBMIT_AGAIN = "it was never sent and never will be: submit it again"
_UNKNOWN = "the outcome is unknown, it may still take effect: read the state before you repeat it"
_BACK = "bring the missing members back; nothing is lost"
_NO_QUORUM = f'{_BACK}\nreads with consistency="sequential" go on'


class Unavailability(msgspec.Struct, frozen=True):
    """Why nothing is served. `since_ms` is a time of the client's clock; -1 when unknown."""

    kind: type[CopycatError]
    text: str
    missing: tuple[str, ...] = ()
    since_ms: int = -1
    seen_ms: int = 0
    """When the client heard so."""


def unavailability_of(message: CommandsRefused | Failure, now_ms: int) -> Unavailability | None:
    """What a refusal says of the cluster; None when it is about the request alone."""
    kind = _KINDS.get(message.code)
    if kind is None:
        return None
    text = message.reason or _WORDS[Refusal(message.code)]
    since_ms = now_ms - message.since_ms if message.since_ms else -1
    return Unavailability(kind, text, message.missing, since_ms, now_ms)


def session_regressed(
    leader: str, next_sequence: int, answered: int, now_ms: int
) -> Unavailability:
    """The leader lacks commands of this session whose results the client has."""
    text = (
        f"the leader {leader or '(its address is not known)'} knows this session up to command"
        f" {next_sequence - 1} only, although command {answered} was answered: entries that the"
        " cluster had acknowledged are missing, as when several members come back with older"
        " copies of their directories at once; recover() opens a new session"
    )
    return Unavailability(OperationTimeout, text, seen_ms=now_ms)


DISCONNECTED = Unavailability(NoLeaderError, "no server is connected")


def format_operations(operations: Sequence[object]) -> str:
    """Operations as a message names them, cut when they are long."""
    text = repr(operations[0]) if operations else "nothing"
    if len(text) > OPERATION_CHARACTERS_MAX:
        text = f"{text[:OPERATION_CHARACTERS_MAX]}... ({len(text)} characters)"
    return text if len(operations) == 1 else f"{len(operations)} commands, the first {text}"


def timeout_error(
    operations: Sequence[object],
    wait_s: float,
    *,
    unknown: Sequence[object] = (),
    unsent: Sequence[object] = (),
    unavailability: Unavailability | None,
    servers: str,
    now_ms: int,
) -> CopycatError:
    """The error for a caller whose time is over: of the cause's type where there is one.

    operations: what the caller submitted. unknown: those of them that were sent, and may take
    effect. unsent: those that never were. servers: what each server answered last.
    """
    is_query = isinstance(operations[0], Query)
    done = 0 if is_query else len(operations) - len(unknown) - len(unsent)
    hints = []
    text = f"{format_operations(operations)} had no answer within {wait_s:g} s"
    if unavailability is not None:
        text += f": {unavailability.text}"
    if unknown or done:
        hints.append(_UNKNOWN)
    elif not is_query:
        hints.append(_SUBMIT_AGAIN)
        text += "; nothing of it was sent" if len(operations) > 1 else "; it was never sent"
    else:
        hints.append(_ASK_AGAIN)
    state = servers
    if len(operations) > 1 and (done or (unknown and unsent)):
        text += f"; {done} took effect" if done else ""
        text += f"; {len(unknown)} have an unknown outcome, {len(unsent)} were never sent"
    kind: type[CopycatError] = OperationTimeout
    missing: tuple[str, ...] = ()
    since = 0.0
    if unavailability is not None:
        kind, missing = unavailability.kind, unavailability.missing
        since = 0.0 if unavailability.since_ms < 0 else (now_ms - unavailability.since_ms) / 1000
        hints.append(_hint_of(kind))
    return kind(
        text,
        hint="\n".join(hint for hint in hints if hint),
        state=state or None,
        operation=operations[0],
        pending=tuple(unknown),
        unsent=tuple(unsent),
        outcome_unknown=bool(unknown or done),
        retryable=not (unknown or done),
        missing=missing,
        since=since,
    )


def connect_error(
    elapsed_s: float,
    unavailable: Iterable[Unavailability],
    *,
    servers: str,
    tried: int,
    now_ms: int,
) -> CopycatError:
    """The error of `connect`: no server opened a session. The most telling answer wins."""
    kinds: list[type[CopycatError]] = [QuorumLostError, DiskFullError]
    known = list(unavailable)
    if len(known) == tried and all(t.kind is ConfigurationError for t in known):
        kinds = [ConfigurationError]  # no server is of the right cluster: waiting helps nobody
    reason = next((t for kind in kinds for t in known if t.kind is kind), None)
    text = f"no server opened a session in {elapsed_s:.1f} s ({tried} tried)"
    if reason is None:
        return NoLeaderError(text, state=servers, hint=_NOT_OPENED)
    missing = sorted({address for t in known for address in t.missing})
    since_ms = min((t.since_ms for t in known if t.since_ms >= 0), default=now_ms)
    return reason.kind(
        f"{text}: {reason.text}",
        state=servers,
        hint=_BACK if reason.kind is QuorumLostError else _hint_of(reason.kind),
        missing=tuple(missing),
        since=(now_ms - since_ms) / 1000,
    )


_NOT_OPENED = "see what each server answered; an election may be under way: try again in a second"


def _hint_of(kind: type[CopycatError]) -> str:
    if kind is OperationTimeout:
        return ""
    if kind is ConfigurationError:
        return "give addresses of that cluster, or its name as cluster_name="
    return _NO_QUORUM if kind is QuorumLostError else kind.default_hint or ""
