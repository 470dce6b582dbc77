"""What users submit, as bytes: positional MessagePack arrays that begin with the name.

An operation is checked by decoding what was encoded, before it is sent: a wrong type fails at
the caller, never in the log. Fields are positional on the
wire: append new ones with defaults, never reorder or remove.
"""

from __future__ import annotations

import enum
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar, get_args, get_origin

import msgspec

from copycat.errors import EntryTooLargeError, SerializationError
from copycat.protocol.obstacles import INTEGERS, obstacles_in
from copycat.types import ConsistencyLevel

__all__ = [
    "Command",
    "CompactionMode",
    "Operation",
    "Query",
    "describe_type",
    "encode_operation",
    "misfit_of",
    "result_type_of",
]

R_co = TypeVar("R_co", covariant=True)

_ERRORS = (msgspec.MsgspecError, TypeError, ValueError, OverflowError, RecursionError)
"""What msgspec raises for values that it cannot encode or decode."""

_TOO_LARGE = (
    "store the value elsewhere and log a reference to it; or raise "
    "storage.max_entry_size of every member first, then CopycatClient(max_entry_size=...)"
)

_encode = msgspec.msgpack.Encoder().encode


class CompactionMode(enum.StrEnum):
    """When a command's entry may be deleted from the log, once the machine released it.

    Three names are aliases: they say why an entry is released, and mean the same as another.
    """

    DEFAULT = "default"
    """QUORUM for a keyed command; else SNAPSHOT when the machine defines snapshot and install,
    SEQUENTIAL when it does not. A tombstone's default is SEQUENTIAL."""
    QUORUM = "quorum"
    """By any compaction: for what sets a state that something else has set since."""
    RELEASE = QUORUM
    FULL = "full"
    """By any compaction, once every member has the entry."""
    SEQUENTIAL = "sequential"
    """Once every member has the entry, and never before an older one: for what deletes."""
    EXPIRING = SEQUENTIAL
    """For a state that ends by itself."""
    TOMBSTONE = SEQUENTIAL
    """For a deletion."""
    SNAPSHOT = "snapshot"
    """Once a snapshot covers the entry: for what changes state by what was there before, as a
    counter does."""
    UNKNOWN = "unknown"
    """The strictest: once a snapshot covers the entry and every member has it."""

    @classmethod
    def _missing_(cls, value: object) -> CompactionMode | None:
        """The words of the aliases are still understood where a word is given."""
        return _ALIASES.get(value) if isinstance(value, str) else None


_ALIASES = {
    "release": CompactionMode.RELEASE,
    "expiring": CompactionMode.EXPIRING,
    "tombstone": CompactionMode.TOMBSTONE,
}


class Operation(
    msgspec.Struct,
    Generic[R_co],
    frozen=True,
    array_like=True,
    tag=True,
    forbid_unknown_fields=True,
):
    """Something to submit; `R_co` is the type of its result.

    Subclass `Command[R]` or `Query[R]`; the class name is its name on the wire.
    """

    __result_type__: ClassVar[Any] = Any
    """What the result is converted to at the client."""
    __operation_name__: ClassVar[str] = ""
    """How messages call it: "Inventory.receive"."""
    __check__: ClassVar[Any] = None

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls.__check__ = None
        cls.__operation_name__ = cls.__qualname__
        for base in cls.__dict__.get("__orig_bases__", ()):
            origin = get_origin(base)
            if isinstance(origin, type) and issubclass(origin, Operation):
                (argument,) = get_args(base)
                cls.__result_type__ = Any if isinstance(argument, TypeVar) else argument


class Command(Operation[R_co], Generic[R_co], frozen=True):
    """Changes state: it becomes an entry of the log, and takes effect exactly once."""

    __compaction__: ClassVar[CompactionMode] = CompactionMode.DEFAULT
    __since__: ClassVar[int] = 1
    __key__: ClassVar[Any] = None
    """The field that is its key, or a function of the operation; None for no key (C21)."""
    __tombstone__: ClassVar[bool] = False
    """It deletes its key."""
    __reads__: ClassVar[bool] = False
    """What it does depends on what its key is: it supersedes nothing."""
    __expires__: ClassVar[Any] = None
    """The field, or a function, with the seconds (or timedelta, or None) that its key lives."""

    def compaction(self) -> CompactionMode:
        """When its entry may leave the log."""
        return type(self).__compaction__


class Query(Operation[R_co], Generic[R_co], frozen=True):
    """Reads state: is never logged."""

    __consistency__: ClassVar[ConsistencyLevel] = ConsistencyLevel.LINEARIZABLE
    __since__: ClassVar[int] = 1

    def consistency(self) -> ConsistencyLevel:
        """What the result may miss."""
        return type(self).__consistency__


def result_type_of(operation: Operation[Any] | type[Operation[Any]]) -> Any:
    """The annotated type of the result; `Any` when there is none."""
    return operation.__result_type__


def encode_operation(operation: Operation[Any], max_size: int = 0) -> bytes:
    """The bytes of one operation, checked against the types of its fields.

    SerializationError with fields `operation`, `field`, `expected`, `got`; EntryTooLargeError
    above `max_size` bytes unless that is 0. Nothing was sent in either case.
    """
    if not isinstance(operation, Operation):
        raise _stranger(operation)
    try:
        data = _encode(operation)
        check = operation.__check__ or _checker_of(operation)
        check(data)
    except _ERRORS as error:
        raise _explain(operation, error) from error
    if max_size and len(data) > max_size:
        raise EntryTooLargeError(
            f"{operation.__operation_name__} is {len(data)} bytes encoded, the limit is "
            f"{max_size} (max_entry_size of this client); nothing was sent",
            hint=_TOO_LARGE,
            size=len(data),
            limit=max_size,
        )
    return data


def _checker_of(operation: Operation[Any]) -> Any:
    kind = type(operation)
    if kind in {Operation, Command, Query}:
        raise _stranger(operation)
    kind.__check__ = msgspec.msgpack.Decoder(kind).decode
    return kind.__check__


def _stranger(value: object) -> SerializationError:
    if isinstance(value, type) and issubclass(value, Operation):
        name = value.__operation_name__
        fields = ", ".join(value.__struct_fields__)
        return SerializationError(
            f"{name} was not called, so it is not an operation; nothing was sent",
            hint=f"call it: submit({name}({fields}))",
            operation=name,
        )
    if callable(value):
        name = getattr(value, "__qualname__", type(value).__name__)
        return SerializationError(
            f"{name} is not an operation; nothing was sent",
            hint="submit what a @command or @query of the machine's class returns, called on the "
            "class and not on an instance: submit(Machine.method(...))",
        )
    return SerializationError(
        f"{type(value).__name__} is not an operation; nothing was sent",
        hint="submit what a @command or @query of the machine's class returns, or an instance "
        "of a class derived from Command or Query; on an instance of the machine a method is "
        "only called, and gives its result",
    )


def _explain(operation: Operation[Any], error: Exception) -> SerializationError:
    """Find the field that does not fit; only called when one does not."""
    if isinstance(error, SerializationError):
        return error
    name = operation.__operation_name__
    for field in msgspec.structs.fields(type(operation)):
        misfit = misfit_of(field.type, getattr(operation, field.name), field.name)
        if misfit is not None:
            return SerializationError(
                f"{name}: {misfit.text}; nothing was sent",
                hint=misfit.hint,
                operation=name,
                field=field.name,
                expected=misfit.expected,
                got=misfit.got,
            )
    return SerializationError(f"{name}: {error}; nothing was sent", operation=name, field="")


class Misfit(NamedTuple):
    """Why a value cannot be what is annotated."""

    text: str
    expected: str
    got: str
    hint: str | None


def misfit_of(annotation: Any, value: Any, name: str) -> Misfit | None:
    """What is wrong with a value of the parameter `name`; None when nothing is."""
    expected, got = describe_type(annotation), type(value).__name__
    try:
        data = _encode(value)
    except _ERRORS:
        obstacles = obstacles_in(value)
        shown, path, is_integer = obstacles[0] if obstacles else ("", "", False)
        if path or isinstance(value, int | str):
            got = shown or got
        else:
            shown = f"`{got}`"
        text = f"expected `{expected}`, got {shown or got} at {name}{path}"
        return Misfit(text, expected, got, INTEGERS if is_integer else None)
    try:
        msgspec.msgpack.Decoder(annotation).decode(data)
    except _ERRORS as error:
        inside = f" ({error})" if got in expected else ""
        text = f"expected `{expected}`, got `{got}` at {name}{inside}"
        hint = f"give {name} the type that its annotation says: {expected}"
        return Misfit(text, expected, got, hint)
    return None


def describe_type(annotation: Any) -> str:
    """How a message names an annotation."""
    if isinstance(annotation, type) and get_origin(annotation) is None:
        return annotation.__name__
    return str(annotation).replace("typing.", "")
