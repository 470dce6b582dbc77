"""Fields that bytes have and a class does not, inside the parameters of an operation.

msgspec passes over a key that a dataclass or Struct does not know. In a log that would lose what
older or newer code wrote, without a word; so it is looked for, where the bytes of an operation
are not those that it would have now.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Set as AbstractSet
from typing import Any

import msgspec
import msgspec.inspect

__all__ = ["UnknownFieldError", "check_field_names", "has_records"]

_RECORDS = (
    msgspec.inspect.StructType,
    msgspec.inspect.DataclassType,
    msgspec.inspect.TypedDictType,
)
_decode_any = msgspec.msgpack.Decoder().decode


class UnknownFieldError(ValueError):
    """A field in the bytes that the class does not have."""


def has_records(operation: type[msgspec.Struct]) -> bool:
    """Whether parameters of this class of operations are, or hold, values with named fields."""
    seen: set[int] = set()
    for field in msgspec.structs.fields(operation):
        try:
            info = msgspec.inspect.type_info(field.type)
        except TypeError:
            continue
        if _finds_record(info, seen):
            return True
    return False


def _finds_record(info: Any, seen: set[int]) -> bool:
    if isinstance(info, _RECORDS):
        return True
    if isinstance(info, list | tuple):
        return any(_finds_record(part, seen) for part in info)
    if not isinstance(info, msgspec.Struct) or id(info) in seen:
        return False
    seen.add(id(info))
    return any(_finds_record(getattr(info, name), seen) for name in info.__struct_fields__)


def check_field_names(operation: msgspec.Struct, payload: bytes) -> None:
    """UnknownFieldError names the first field of the bytes that the operation has not."""
    values = _decode_any(payload)[1:]
    for name, raw in zip(operation.__struct_fields__, values, strict=False):
        _check(getattr(operation, name), raw, name)


def _check(value: Any, raw: Any, path: str) -> None:
    """`value` was made of `raw`; what cannot be paired is passed over."""
    if isinstance(raw, dict):
        _check_dict(value, raw, path)
    elif isinstance(raw, list):
        if isinstance(value, list | tuple) and len(value) == len(raw):
            for number, (one, other) in enumerate(zip(value, raw, strict=True)):
                _check(one, other, f"{path}[{number}]")
        elif isinstance(value, AbstractSet):
            kinds = {type(one): one for one in value}
            if len(kinds) == 1:  # which is which cannot be told, and their fields are alike
                (one,) = kinds.values()
                for other in raw:
                    _check_names(one, other, path)


def _check_dict(value: Any, raw: dict[Any, Any], path: str) -> None:
    names = _check_names(value, raw, path)
    if names is not None:
        for key, name in names.items():
            if key in raw:
                _check(getattr(value, name), raw[key], f"{path}.{name}")
    elif isinstance(value, dict):
        if len(value) < len(raw):  # a TypedDict without them
            unknown_keys = [key for key in raw if key not in value]
            if unknown_keys and all(isinstance(key, str) for key in raw):
                raise _unknown(path, unknown_keys[0], "it")
        for key, one in value.items():
            if key in raw:
                _check(one, raw[key], f"{path}[{key!r}]")


def _check_names(value: Any, raw: Any, path: str) -> dict[str, str] | None:
    """{name in the bytes: name} of the fields of a record; None when it is none."""
    kind = type(value)
    if isinstance(value, msgspec.Struct):
        names = dict(zip(value.__struct_encode_fields__, value.__struct_fields__, strict=True))
        tag = value.__struct_config__.tag_field
    elif dataclasses.is_dataclass(value):
        names, tag = {field.name: field.name for field in dataclasses.fields(value)}, None
    else:
        return None
    if isinstance(raw, dict):
        for key in raw:
            if key not in names and key != tag:
                raise _unknown(path, key, kind.__qualname__)
    return names


def _unknown(path: str, key: object, kind: str) -> UnknownFieldError:
    return UnknownFieldError(f"there is a field {key!r} at {path}, which {kind} does not have")
