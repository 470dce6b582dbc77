"""What must be true of a run, judged from histories, states and logs alone.

Nothing here knows of time limits or of faults. The laws:

* The logs of the members agree: two members never have different entries at one index.
* Every member applied the same tokens in the same order, none twice; all that were acknowledged,
  none that the client never sent, and none that nobody asked for.
* No token is in the log twice, and the acknowledged ones are there.
* Each answer is what a reference machine answers that is given the same commands in that order.
* A client heard no error but those that the guide to clients names for a cluster in trouble.
* The order of the indexes agrees with real time, and the answers have a linear order
  (`copycat/sim/checkers/linearizability.py`, the two checkers of the simulator).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

from copycat.errors import InvariantError
from copycat.sim.checkers.linearizability import Operation, check_linearizable, check_witness
from copycat.sim.model import ReferenceModel
from tests.chaos.history import History, is_answered, token_of
from tests.chaos.machine import NOTE_KEYS

__all__ = [
    "HistoryError",
    "LoggedEntry",
    "MemberLog",
    "MergedLog",
    "check_applied",
    "check_errors",
    "check_logged",
    "check_order",
    "check_results",
    "merge_logs",
]

_SHOWN = 5
_ERRORS = {"no-leader", "no-quorum", "timeout", "session-expired", "closed-session"}
"""What the client may raise when the cluster does not answer, or has ended the session."""


class HistoryError(Exception):
    """A law of this module does not hold; the text says for what."""


class LoggedEntry(NamedTuple):
    """An entry as it is stored. token: of a command of a client; 0 for all other entries."""

    frame: bytes
    token: int


class MemberLog(NamedTuple):
    """What a member has on its disk, by index, without gaps; and its last commit index."""

    member: str
    commit_index: int
    entries: Mapping[int, LoggedEntry]


class MergedLog(NamedTuple):
    """What all members together have. missing: how many committed entries none has any more,
    since they were compacted everywhere."""

    tokens: dict[int, int]
    """Index -> token, of the commands, ascending."""
    missing: int


def merge_logs(logs: Sequence[MemberLog]) -> MergedLog:
    """The committed entries of all logs. HistoryError when two members disagree on one."""
    known: dict[int, tuple[str, LoggedEntry]] = {}
    for log in logs:
        for index, entry in log.entries.items():
            if index > log.commit_index:
                continue
            other, before = known.setdefault(index, (log.member, entry))
            if before.frame != entry.frame:
                raise HistoryError(
                    f"entry {index} of {log.member} is {entry.frame!r:.120}, and that of {other}"
                    f" is {before.frame!r:.120}"
                )
    last = max((log.commit_index for log in logs), default=0)
    tokens = {index: known[index][1].token for index in sorted(known) if known[index][1].token}
    return MergedLog(tokens, last - len(known))


def check_applied(history: History, orders: Mapping[str, Sequence[int]]) -> list[int]:
    """Each member's tokens in the order in which it applied them; returns that order.

    Notes are not part of it. HistoryError: lost, doubled, invented, or not the same everywhere.
    """
    (first, order), *others = ((member, list(tokens)) for member, tokens in orders.items())
    for member, tokens in others:
        if tokens != order:
            at = _first_difference(order, tokens)
            raise HistoryError(
                f"{first} and {member} applied different commands: from number {at} on, token"
                f" {_some(order[at:])} and {_some(tokens[at:])}"
            )
    applied = set(order)
    if len(applied) != len(order):
        raise HistoryError(f"applied twice: token {_some(_doubled(order))}")
    asked = {token_of(one) for one in history.operations if _is_ordered(one)}
    acknowledged = {token_of(one) for one in history.acknowledged() if _is_ordered(one)}
    if lost := acknowledged - applied:
        raise HistoryError(f"acknowledged and lost: token {_some(sorted(lost))}")
    if sent := applied & history.unsent:
        raise HistoryError(f"applied, and never sent by its client: token {_some(sorted(sent))}")
    if invented := applied - asked:
        raise HistoryError(f"applied, and nobody asked for it: token {_some(sorted(invented))}")
    return order


def check_logged(history: History, order: Sequence[int], log: MergedLog) -> None:
    """Compare the log with what was acknowledged and applied, and give each command its index.

    HistoryError: a token stands in the log twice, an acknowledged one in no log (if no entry is
    missing), or the log has another order.
    """
    logged = list(log.tokens.values())
    indexes = {token: index for index, token in log.tokens.items()}
    if len(indexes) != len(logged):
        raise HistoryError(f"in the log twice: token {_some(_doubled(logged))}")
    if sent := indexes.keys() & history.unsent:
        raise HistoryError(f"in the log, and never sent: token {_some(sorted(sent))}")
    acknowledged = [token_of(one) for one in history.acknowledged()]
    lost = [token for token in acknowledged if token not in indexes]
    if lost and not log.missing:
        raise HistoryError(f"acknowledged, and in no log: token {_some(lost)}")
    positions = [indexes[token] for token in order if token in indexes]
    for at, (one, other) in enumerate(pairwise(positions)):
        if one > other:
            raise HistoryError(
                f"applied in another order than logged: entry {one} before entry {other}, at"
                f" command {at} of those applied"
            )
    for operation in history.operations:
        if not operation.is_query:
            operation.index = indexes.get(token_of(operation), 0)


def check_errors(history: History) -> None:
    """HistoryError for an error that says something else than that the cluster is in trouble."""
    if others := history.codes.keys() - _ERRORS:
        counts = ", ".join(f"{history.codes[code]} {code}" for code in sorted(others))
        raise HistoryError(f"errors that no fault of the cluster explains: {counts}")


def check_results(history: History, order: Sequence[int]) -> None:
    """Replay the applied commands through the reference; HistoryError for another answer."""
    by_token = {token_of(one): one for one in history.operations if _is_ordered(one)}
    reference = ReferenceModel()
    for number, token in enumerate(order, 1):
        one = by_token[token]
        expected = reference.apply(number, one.kind, one.key, one.arguments)
        if is_answered(one) and one.result != expected:
            raise HistoryError(
                f"command {number} was answered wrongly, the reference says {expected!r}:"
                f" {one.summary()}"
            )


def check_order(operations: Iterable[Operation]) -> int:
    """Both checkers of the simulator, the search key by key; returns for how many keys the
    search gave up. HistoryError when one of them finds a history that is not linearizable."""
    by_key: dict[tuple[bool, int], list[Operation]] = {}
    every = list(operations)
    for one in every:
        by_key.setdefault((one.kind in {"append", "items"}, one.key), []).append(one)
    try:
        check_witness(every)
        return sum(not check_linearizable(one) for one in by_key.values())
    except InvariantError as cause:
        raise HistoryError(f"{cause.message}\n{cause.state}") from cause


def _is_ordered(operation: Operation) -> bool:
    """Whether the machine keeps the command's token: it does of all commands but notes."""
    return not operation.is_query and operation.key < NOTE_KEYS


def _doubled(tokens: Iterable[int]) -> list[int]:
    return [token for token, count in Counter(tokens).items() if count > 1]


def _first_difference(one: Sequence[int], other: Sequence[int]) -> int:
    pairs = zip(one, other, strict=False)
    at = next((at for at, (a, b) in enumerate(pairs) if a != b), None)
    return min(len(one), len(other)) if at is None else at


def _some(tokens: Sequence[int]) -> str:
    if not tokens:
        return "none"
    more = f" and {len(tokens) - _SHOWN:,} more" if len(tokens) > _SHOWN else ""
    return ", ".join(map(str, tokens[:_SHOWN])) + more
