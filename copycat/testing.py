"""For the tests of your own state machine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from copycat.errors import ConfigurationError, MachineMismatchError, StateDivergedError
from copycat.machine.envelope import encode_keep_alive, encode_register
from copycat.machine.machine import StateMachine
from copycat.machine.session_executor import SessionExecutor
from copycat.protocol.operations import Command, Operation, encode_operation
from copycat.protocol.results import decode_results
from copycat.types import EntryKind, Release, Run

__all__ = ["check_blind_writes"]

_SESSION = 1
_STEP_MS = 1000


def check_blind_writes(
    machine: Callable[[], StateMachine], operations: Sequence[Operation[Any]]
) -> None:
    """Apply commands, then again without each entry that the machine released (C21).

    The states must agree from the entry on at which it was released. StateDivergedError names
    the commands when they do not: then `key=` promises what the machine does not keep. One
    second of log time passes between two commands, and some after the last one.

    A handler may raise, as in a log. ConfigurationError where none was called: the operation is
    no command of this machine, or its key or expiry cannot be made; or when none returned.
    """
    runs = _log_of(operations)
    _check_applied(machine(), operations, runs)
    states, releases = _play(machine, runs)
    order = sorted(releases, key=lambda release: release[1])
    for at, index, policy in order:
        # A deletion is never deleted before what it deleted, so all older entries are deleted too.
        is_deletion = policy is Release.SEQUENTIAL
        deleted = {index}
        if is_deletion:
            deleted |= {other for when, other, _ in order if other < index and when <= at}
        replay_states, _ = _play(machine, _without(runs, deleted))
        wrong = next((i for i in range(at, len(runs) + 1) if replay_states[i] != states[i]), 0)
        if wrong:
            raise _diverged(operations, index, at, wrong)


def _log_of(operations: Sequence[Operation[Any]]) -> list[Run]:
    time_ms = _STEP_MS
    runs = [Run(1, EntryKind.REGISTER, time_ms, 0, 0, 0, [encode_register("check", 5000)])]
    for sequence, operation in enumerate(operations, 1):
        time_ms += _STEP_MS
        payload = [encode_operation(operation)]
        index = len(runs) + 1
        runs.append(
            Run(index, EntryKind.COMMAND, time_ms, _SESSION, sequence, sequence - 1, payload)
        )
    for _ in range(3):  # what acknowledges the last reply, and takes its activity over
        time_ms += _STEP_MS
        payload = [encode_keep_alive(_SESSION, len(operations))]
        runs.append(Run(len(runs) + 1, EntryKind.KEEP_ALIVE, time_ms, 0, 0, 0, payload))
    return runs


class _Watched(SessionExecutor):
    """Knows which entries reached a handler: an error before that is a result too."""

    def __init__(self, machine: StateMachine) -> None:
        super().__init__(machine)
        self.called: set[int] = set()
        self.returned: set[int] = set()
        table = self._runtime.handlers.table
        for kind, (handler, arguments, keyed) in table.items():
            if issubclass(kind, Command):
                table[kind] = (partial(self._watch, handler), arguments, keyed)

    def _watch(self, handler: Callable[..., Any], *arguments: Any) -> Any:
        index = self._runtime.apply_context.index
        self.called.add(index)
        result = handler(*arguments)
        self.returned.add(index)
        return result


def _check_applied(
    machine: StateMachine, operations: Sequence[Operation[Any]], runs: Sequence[Run]
) -> None:
    """ConfigurationError unless every command came to its handler, and one took effect."""
    executor = _Watched(machine)
    executor.apply([runs[0]])
    kind, count = type(machine).__name__, len(operations)
    first = ""
    for number, operation in enumerate(operations, 1):
        name = operation.__operation_name__
        index = executor.last_applied + 1
        try:
            executor.commands.read(runs[number].payloads[0])
        except MachineMismatchError as error:
            raise _not_applied(number, count, name, kind, error.message) from error
        (reply,) = executor.apply([runs[number]]).replies
        (result,) = decode_results(reply.body, 1, [Any])
        if index not in executor.called:
            raise _not_applied(number, count, name, kind, str(result))
        first = first or f": {name} raised {result}"
    if not executor.returned:
        raise ConfigurationError(
            f"none of {count} commands took effect, so nothing was checked{first}",
            hint=f"give some commands that {kind} does not refuse",
        )


def _not_applied(number: int, count: int, name: str, kind: str, why: str) -> ConfigurationError:
    return ConfigurationError(
        f"operation {number} of {count}, {name}, cannot be applied by {kind}: {why}",
        hint=f"give commands of {kind}, and keys and expiries that can be made of them",
        operation=name,
    )


def _play(
    machine: Callable[[], StateMachine], runs: Sequence[Run]
) -> tuple[dict[int, bytes], list[tuple[int, int, Release]]]:
    """(state after each index, (released at, index, class) of what may be deleted without one)."""
    executor = SessionExecutor(machine())
    states: dict[int, bytes] = {}
    releases: list[tuple[int, int, Release]] = []
    for run in runs:
        outcome = executor.apply([run])
        state = executor.encode_state()
        if state is None:
            raise ConfigurationError(
                f"{type(executor.machine).__name__} has an attribute that has no encoding, so "
                "its states cannot be compared",
                hint="store plain values, structs or dataclasses in its attributes",
            )
        states[outcome.last_applied] = state
        releases += [
            (outcome.last_applied, index, policy)
            for policy, indexes in outcome.releases
            for index in indexes
            if policy <= Release.SEQUENTIAL
        ]
    return states, releases


def _without(runs: Sequence[Run], deleted: set[int]) -> list[Run]:
    """Every deleted entry as a gap of its own."""
    end = len(runs)
    return [
        Run(run.first_index, EntryKind.GAP, run.time_ms, 0, run.end, end, [])
        if run.first_index in deleted
        else run
        for run in runs
    ]


def _diverged(
    operations: Sequence[Operation[Any]], index: int, at: int, wrong: int
) -> StateDivergedError:
    def name(entry: int) -> str:
        operation = operations[entry - 2] if 2 <= entry < len(operations) + 2 else None
        return "a later entry" if operation is None else operation.__operation_name__

    return StateDivergedError(
        f"without entry {index} ({name(index)}), which was released at entry {at} ({name(at)}), "
        f"the state after entry {wrong} ({name(wrong)}) is different",
        hint="a command with key= must leave a state that depends on it alone: mark it with "
        "reads=True if it reads the key before it writes, or leave key= out",
        operation=name(at),
        index=index,
    )
