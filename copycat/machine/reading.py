"""Operations of a machine, from their bytes; and what is said of those that it does not have.

A leader logs no command that its own machine cannot read: a stand-in takes its place and its
sequence, has no effect on any member, and its result is the error. So a command in the log that
a machine cannot read was written by other code of the same machine, and must not be skipped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Union

import msgspec
from msgspec.msgpack import Ext

from copycat.errors import MachineMismatchError, SerializationError
from copycat.machine.nested import check_field_names, has_records
from copycat.protocol.machine_tag import split_tag
from copycat.protocol.operations import Operation, misfit_of
from copycat.protocol.results import ERROR_EXT, failure_value

__all__ = ["OperationReader", "StandIn", "stand_in_of"]

_TEXT_MAX = 400
"""Bytes of what a stand-in says."""
_NAME_MAX = 100
_EXPLAINED_MAX = 64
"""So many of a run are explained: whoever sends thousands must not hold up the leader."""
_REFUSED = "the command was refused before it was logged, and had no effect"

_encode = msgspec.msgpack.Encoder().encode
_decode_any = msgspec.msgpack.Decoder().decode


class StandIn:
    """Stands in the log for a command that was refused. `result` is the command's result."""

    __slots__ = ("result",)

    def __init__(self, result: Ext) -> None:
        self.result = result


def stand_in_of(payload: bytes) -> StandIn | None:
    """The stand-in in the bytes of a command; None when they are none.

    Empty bytes are one too: what a client sends in place of a command that is too large.
    """
    if not payload:
        return StandIn(
            failure_value(SerializationError.code, SerializationError.__name__, _REFUSED)
        )
    try:
        value = _decode_any(payload)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    return StandIn(value) if isinstance(value, Ext) and value.code == ERROR_EXT else None


class _Nothing(msgspec.Struct, array_like=True, tag="\0"):
    """What a machine without commands (or queries) can decode."""


def _again(operation: Any) -> bytes | None:
    try:
        return _encode(operation)
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001  (its own code made something of a field)
        return None


def _stand_in(text: str) -> bytes:
    cut = text.encode("utf-8", "replace")[:_TEXT_MAX].decode("utf-8", "ignore")
    kind = MachineMismatchError
    return _encode(failure_value(kind.code, kind.__name__, cut))


class OperationReader:
    """Reads the commands, or the queries, of one machine.

    names: all operations of the machine by their name on the wire. machine_id: what their tags
    name it by; an operation of another machine is as unknown as one of another name.
    """

    def __init__(
        self,
        machine: type[Any],
        names: Mapping[str, type[Operation[Any]]],
        base: type[Operation[Any]],
        machine_id: int = 0,
    ) -> None:
        self._machine_id = machine_id
        self._machine = machine.__name__
        self._unexplained = _stand_in(f"{self._machine} cannot read it, nor others of its run")
        self._names = names
        self._base = base
        self._word = base.__name__.lower()
        kinds = tuple(kind for kind in names.values() if issubclass(kind, base))
        union: Any = Union[kinds or (_Nothing,)]  # noqa: UP007  (built at run time)
        self._decode: Callable[[bytes], Any] = msgspec.msgpack.Decoder(union).decode
        self._nested = frozenset(filter(has_records, kinds))
        decode = self._decode_whole if self._nested else self._decode
        self.decode = partial(self._decode_tagged, decode) if machine_id else decode
        """Raises whatever msgspec raises, or the user's own code in a field's type; and
        UnknownFieldError. The tag of an operation of machine 0 has no id, so that its bytes are
        decoded by msgspec directly, which refuses every tag that has one."""

    def _decode_tagged(self, decode: Callable[[bytes], Any], payload: bytes) -> Any:
        machine_id, operation = split_tag(payload)
        if machine_id != self._machine_id:
            raise ValueError(f"an operation of machine {machine_id}")
        return decode(operation)

    def _decode_whole(self, payload: bytes) -> Any:
        operation = self._decode(payload)
        if type(operation) in self._nested and _again(operation) != payload:
            check_field_names(operation, payload)
        return operation

    def read(self, payload: bytes, index: int = 0) -> Any:
        """One operation, or a StandIn. MachineMismatchError for what the machine cannot read.

        index: of its entry in the log; 0 when it has none.
        """
        try:
            return self.decode(payload)
        except (MemoryError, KeyboardInterrupt):
            raise
        except BaseException as error:  # the code of a field's type may raise anything
            stand_in = stand_in_of(payload)
            if stand_in is not None:
                return stand_in
            raise self.mismatch(payload, error, index) from error

    def refusals(self, payloads: Sequence[bytes]) -> dict[int, bytes]:
        """Which of these commands a leader must not log, with the bytes to log instead."""
        decode = self.decode
        try:
            for payload in payloads:
                decode(payload)
        except BaseException as error:  # the code of a field's type may raise anything
            refused: dict[int, bytes] = {}
            for at, payload in enumerate(payloads):
                instead = self._refusal(payload, explains=len(refused) < _EXPLAINED_MAX)
                if instead is not None:
                    refused[at] = instead
            if isinstance(error, KeyboardInterrupt) and not refused:
                raise  # it was a signal: all of them can be read
            return refused
        return {}

    def _refusal(self, payload: bytes, *, explains: bool) -> bytes | None:
        if not payload:
            return None  # the client's own stand-in
        try:
            self.decode(payload)
        except BaseException as error:  # noqa: BLE001
            if not explains:
                return self._unexplained
            return _stand_in(self.mismatch(payload, error, 0).message)
        return None

    # ---- what is wrong -----------------------------------------------------------------------

    def mismatch(self, payload: bytes, error: BaseException, index: int) -> MachineMismatchError:
        """What is wrong with these bytes; `error` is what `decode` raised."""
        machine_id, payload = split_tag(payload)
        if machine_id != self._machine_id:
            return self._other_machine(machine_id, _name_in(payload), index)
        name = _name_in(payload)
        known = self._names.get(name)
        if known is not None and issubclass(known, self._base):
            operation = known.__operation_name__
            problem = f"{operation}: its parameters do not fit: {_misfit(known, payload, error)}"
            hint = (
                f"append new parameters of {operation} with defaults; never remove or reorder "
                "any, and never change their types: write a new method instead"
            )
        elif name:
            operation = f"{self._machine}.{name}"
            other = "" if known is None else f" ({known.__operation_name__} is the other kind)"
            problem = f"{operation}: {name!r} is no {self._word} of {self._machine}{other}"
            hint = self._renamed(name)
        else:
            operation = self._machine
            problem = f"{len(payload)} bytes are no {self._word} of {self._machine}"
            hint = f"start the member with the {self._machine} that wrote them"
            if index:
                hint += (
                    "\nif none did, stop all members and have each skip it: "
                    f"copycat recover --skip-entry {index} DIRECTORY"
                )
        message = f"entry {index}: {problem}; nothing of it was applied" if index else problem
        return MachineMismatchError(message, hint=hint, operation=operation, index=index)

    def _other_machine(self, machine_id: int, name: str, index: int) -> MachineMismatchError:
        problem = (
            f"{name!r} is for machine {machine_id}, which this member does not have; "
            f"{self._machine} is machine {self._machine_id}"
        )
        message = f"entry {index}: {problem}; nothing of it was applied" if index else problem
        return MachineMismatchError(
            message,
            hint=f"start the member with all machines of its cluster, {machine_id} among them",
            operation=name,
            index=index,
        )

    def _renamed(self, name: str) -> str:
        quoted = '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'
        hint = f"add `@{self._word}(name={quoted})` to the method with the new name"
        if any(_is_class(kind) for kind in self._names.values()):
            base = f"{self._base.__name__}[...], tag={quoted}, frozen=True"
            hint += f"\nor add a tag to the class with the new name: `class New({base})`"
        return f"{hint}\nif newer code wrote the command, start the member with that code"


def _misfit(kind: type[Operation[Any]], payload: bytes, error: BaseException) -> str:
    """Which parameter it is, where that can be said."""
    values = _decode_any(payload)[1:]
    fields = msgspec.structs.fields(kind)
    if len(values) > len(fields):
        return f"there are {len(values)}, and it takes {len(fields)}"
    for field, value in zip(fields, values, strict=False):
        try:
            misfit = misfit_of(field.type, value, field.name)
        except BaseException:  # noqa: BLE001  (the code of a field's type may raise anything)
            break
        if misfit is not None:
            return misfit.text
    missing = [field.name for field in fields[len(values) :] if field.required]
    if missing:
        return f"{missing[0]} is missing and has no default"
    return _text_of(error)


def _text_of(error: BaseException) -> str:
    try:
        return str(error) or type(error).__name__
    except BaseException:  # noqa: BLE001  (the user's __str__ may do anything)
        return f"{type(error).__name__} was raised"


def _is_class(kind: type[Operation[Any]]) -> bool:
    """Written by the user as a class, and not derived from a method."""
    return "." not in kind.__name__


def _name_in(payload: bytes) -> str:
    """The name that the bytes of an operation begin with; "" when they are no operation."""
    try:
        value = _decode_any(payload)
    except (msgspec.MsgspecError, ValueError, TypeError, RecursionError):
        return ""
    is_named = isinstance(value, list) and value and isinstance(value[0], str)
    name: str = value[0] if is_named else ""
    return name if len(name) <= _NAME_MAX else f"{name[:_NAME_MAX]}..."
