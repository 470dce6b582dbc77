"""Why a cluster does not serve a client now, and the errors that say so. No state."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from copycat.errors import (
    ClusterReplacedError,
    ConfigurationError,
    CopycatError,
    DiskFullError,
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
"""Refusals after which the same server is asked again a little later."""

SWITCH_AT_ONCE = frozenset(
    {
        Refusal.ILLEGAL_MEMBER_STATE,
        Refusal.SERVER_FULL,
        Refusal.WRONG_CLUSTER,
        Refusal.CLUSTER_REPLACED,
    }
)
"""Refusals after which the client connects to another server at once."""

RETRIED_QUERIES = frozenset(
    {Refusal.NO_LEADER, Refusal.NO_QUORUM, Refusal.QUERY, *SWITCH_AT_ONCE, *BACK_PRESSURE}
)
"""Refusals after which a query is sent again, which is harmless since it changes nothing."""

OPERATION_CHARACTERS_MAX = 200

_KINDS: dict[int, type[CopycatError]] = {
    Refusal.NO_LEADER: NoLeaderError,
    Refusal.NO_QUORUM: QuorumLostError,
    Refusal.DISK_FULL: DiskFullError,
    Refusal.ILLEGAL_MEMBER_STATE: NoLeaderError,  # it is about a server, and not about the caller
    Refusal.SERVER_FULL: NoLeaderError,
    Refusal.WRONG_CLUSTER: ConfigurationError,
    Refusal.CLUSTER_REPLACED: ClusterReplacedError,
    Refusal.OVERLOADED: OperationTimeout,
}
_WORDS = {
    Refusal.NO_LEADER: "no leader is known",
    Refusal.NO_QUORUM: "too few members are reachable",
    Refusal.DISK_FULL: "the disk of the leader, or the disks of too many members, are full",
    Refusal.ILLEGAL_MEMBER_STATE: "the server is starting or stopping",
    Refusal.WRONG_CLUSTER: "the server belongs to another cluster",
    Refusal.CLUSTER_REPLACED: "the server belongs to a new cluster of the same name",
    Refusal.SERVER_FULL: "the server has as many clients as it accepts",
    Refusal.OVERLOADED: "the leader is overloaded",
}
_ASK_AGAIN = "a query changes nothing: submit it again"
_SUBMIT_AGAIN = "the command was not sent and will not be sent: submit it again"
_UNKNOWN = (
    "the outcome is unknown, and the command may still take effect: read the state before you"
    " repeat it"
)
_BACK = "bring the missing members back; nothing is lost"
_NO_QUORUM = f'{_BACK}\nqueries with consistency="sequential" are still answered'


class Unavailability(msgspec.Struct, frozen=True):
    """Why a client is not served.

    kind: the type of the error that reports it. text: for that error. missing: addresses of
    members that cannot be reached. since_ms: when it began, by the client's clock; -1 when
    unknown.
    """

    kind: type[CopycatError]
    text: str
    missing: tuple[str, ...] = ()
    since_ms: int = -1
    seen_ms: int = 0
    """When the client was told, by its clock."""


def unavailability_of(message: CommandsRefused | Failure, now_ms: int) -> Unavailability | None:
    """What a refusal says about the cluster; None when it is about the request alone."""
    kind = _KINDS.get(message.code)
    if kind is None:
        return None
    text = message.reason or _WORDS[Refusal(message.code)]
    since_ms = now_ms - message.since_ms if message.since_ms else -1
    return Unavailability(kind, text, message.missing, since_ms, now_ms)


def session_regressed(
    leader: str, next_sequence: int, answered: int, now_ms: int
) -> Unavailability:
    """The leader lacks commands of this session although this client has their results.

    next_sequence: what the leader expects next. answered: the last command that was answered.
    """
    text = (
        f"the leader {leader or '(its address is not known)'} knows this session up to command"
        f" {next_sequence - 1} only, although command {answered} was answered: entries that the"
        " cluster had acknowledged are missing, as when several members come back with older"
        " copies of their directories at once; recover() opens a new session"
    )
    return Unavailability(OperationTimeout, text, seen_ms=now_ms)


DISCONNECTED = Unavailability(NoLeaderError, "no server is connected")


def format_operations(operations: Sequence[object]) -> str:
    """Operations for a message: their number and the first one, cut when it is long."""
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
    """The error of a submission that has timed out; its type names the cause, if one is known.

    operations: what was submitted. wait_s: for how many seconds it has waited. unknown: operations
    that were sent and not answered. unsent: operations that were never sent. unavailability: the
    cause. servers: the last answer of each server.
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
    """The error of `connect` when no server has opened a session.

    unavailable: what servers said. A lost quorum or a full disk decides the type of the error; a
    wrong cluster only if all servers said so. servers: the last answer of each server. tried: how
    many servers.
    """
    kinds: list[type[CopycatError]] = [QuorumLostError, DiskFullError]
    known = list(unavailable)
    if len(known) == tried and all(t.kind is ConfigurationError for t in known):
        kinds = [
            ConfigurationError
        ]  # no server belongs to the right cluster: to wait would not help
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


_NOT_OPENED = "see the answer of each server; during an election, try again after a second"


def _hint_of(kind: type[CopycatError]) -> str:
    if kind is OperationTimeout:
        return ""
    if kind is ConfigurationError:
        return "give addresses of that cluster, or its name as cluster_name="
    return _NO_QUORUM if kind is QuorumLostError else kind.default_hint or ""
