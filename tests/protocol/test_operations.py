"""Operations are checked before they are sent; results come back typed; errors are values."""

from __future__ import annotations

import contextlib
import enum
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from copycat.errors import (
    ApplicationError,
    CopycatError,
    EntryTooLargeError,
    InternalError,
    NoLeaderError,
    ProtocolError,
    QueryError,
    SerializationError,
    UnknownSessionError,
)
from copycat.protocol.client import Refusal
from copycat.protocol.operations import (
    Command,
    CompactionMode,
    Operation,
    Query,
    encode_operation,
    result_type_of,
)
from copycat.protocol.results import (
    decode_result,
    decode_results,
    encode_result,
    encode_results,
    error_value,
    freeze,
    refusal_error,
)
from copycat.types import ConsistencyLevel


class Put(Command[bytes], frozen=True):
    key: str
    value: bytes
    ttl: int = 0


class Get(Query[list[int]], frozen=True):
    key: str


class Untyped(Command, frozen=True):  # type: ignore[type-arg]
    key: str


class Colour(enum.Enum):
    RED = "red"


def test_the_name_leads_and_fields_are_positional() -> None:
    assert msgspec.msgpack.decode(encode_operation(Put("a", b"b"))) == ["Put", "a", b"b", 0]


def test_the_result_type_comes_from_the_class() -> None:
    assert result_type_of(Put("a", b"b")) is bytes
    assert result_type_of(Get) == list[int]
    assert result_type_of(Untyped("a")) is Any


def test_defaults_of_modes() -> None:
    assert Put("a", b"").compaction() is CompactionMode.DEFAULT
    assert Get("a").consistency() is ConsistencyLevel.LINEARIZABLE


@pytest.mark.parametrize("value", [3.5, "text", None, [1], Colour.RED, object()])
def test_a_wrong_type_is_named_before_it_is_sent(value: object) -> None:
    got = type(value).__name__
    with pytest.raises(SerializationError) as caught:
        encode_operation(Put("a", value))  # type: ignore[arg-type]
    error: Any = caught.value
    assert error.message == f"Put: expected `bytes`, got `{got}` at value; nothing was sent"
    assert (error.field, error.expected, error.got) == ("value", "bytes", got)


def test_numbers_and_strings_without_encoding_are_named() -> None:
    with pytest.raises(SerializationError, match="at ttl"):
        encode_operation(Put("a", b"", 1 << 70))
    with pytest.raises(SerializationError, match="at key"):
        encode_operation(Put("\ud800", b""))


@pytest.mark.parametrize("stranger", [3, None, "put", msgspec.Raw(b"x"), Operation()])
def test_only_operations_are_taken(stranger: Any) -> None:
    with pytest.raises(SerializationError, match="is not an operation; nothing was sent"):
        encode_operation(stranger)


def test_the_size_limit_is_checked_before_it_is_sent() -> None:
    size = len(encode_operation(Put("a", bytes(100))))
    assert encode_operation(Put("a", bytes(100)), max_size=size)
    with pytest.raises(EntryTooLargeError, match=f"{size} bytes encoded, the limit is 50"):
        encode_operation(Put("a", bytes(100)), max_size=50)


def test_results_of_one_type_and_of_many() -> None:
    body = encode_results([1, 2, 3])
    assert decode_results(body, 3, [int, int, int]) == [1, 2, 3]
    body = encode_results([freeze(1), freeze("a"), freeze([1, 2]), freeze(None)])
    assert decode_results(body, 4, [int, str, tuple[int, ...], None]) == [1, "a", (1, 2), None]


def test_an_exception_is_a_value_in_its_place() -> None:
    body = encode_results([1, error_value(KeyError("chair")), 3])
    for types in ([int] * 3, [int, str, int], [Any] * 3):
        one, error, three = decode_results(body, 3, types)
        assert (one, three) == (1, 3)
        assert isinstance(error, ApplicationError)
        assert error.message == "KeyError: 'chair'"
        assert error.type_name == "KeyError"


def test_error_texts_are_bounded_and_the_same_everywhere() -> None:
    long = decode_result(encode_result(error_value(ValueError("ü" * 5000))), int)
    assert len(long.text.encode()) == 1024
    thing = decode_result(encode_result(error_value(ValueError(object()))), int)
    assert thing.text == "<object object at 0x...>"


def test_an_exception_whose_text_raises_is_still_a_result() -> None:
    class RudeError(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    error = decode_result(encode_result(error_value(RudeError())), int)
    assert isinstance(error, ApplicationError)
    assert "could not be made" in error.text


def test_serialization_errors_keep_their_type() -> None:
    error = decode_result(encode_result(error_value(SerializationError("bad"))), int)
    assert type(error) is SerializationError


def test_a_mutable_result_is_encoded_at_once() -> None:
    mutable = [1]
    frozen = freeze(mutable)
    mutable.append(2)
    assert decode_results(encode_results([frozen]), 1, [list[int]]) == [[1]]


@pytest.mark.parametrize("result", [object(), {1: {object()}}, 1 << 70, "\ud800", [1 << 70]])
def test_a_result_without_encoding_is_an_error_in_its_place(result: object) -> None:
    one, bad, two = decode_results(encode_results([1, freeze(result), 2]), 3, [int] * 3)
    assert (one, two) == (1, 2)
    assert isinstance(bad, SerializationError)


def test_a_result_of_another_type_is_told() -> None:
    (error,) = decode_results(encode_results(["text"]), 1, [int])
    assert isinstance(error, SerializationError)
    assert "returned a str" in error.message


def test_an_extension_that_is_no_error_of_ours_is_told() -> None:
    for ext in (msgspec.msgpack.Ext(9, b"x"), msgspec.msgpack.Ext(1, b"\xc1")):
        (error,) = decode_results(encode_results([freeze(ext)]), 1, [int])
        assert isinstance(error, SerializationError)
        assert f"extension {ext.code}" in error.message


def test_counts_must_agree() -> None:
    with pytest.raises(ProtocolError, match="2 results came where 3"):
        decode_results(encode_results([1, 2]), 3, [int] * 3)
    with pytest.raises(ProtocolError):
        decode_results(b"\x01", 1, [int])


@pytest.mark.slow
@settings(max_examples=300)
@given(garbage=st.binary(max_size=60), kind=st.sampled_from([int, str, Any, list[int], None]))
def test_garbage_results_never_raise_past_the_codec(garbage: bytes, kind: Any) -> None:
    for decode in (
        lambda: decode_results(garbage, 2, [kind, kind]),
        lambda: decode_results(garbage, 2, [kind, int]),
        lambda: decode_result(garbage, kind),
    ):
        with contextlib.suppress(ProtocolError):
            decode()


def test_refusals_become_errors() -> None:
    assert type(refusal_error(Refusal.NO_LEADER, "r", leader="a:1")) is NoLeaderError
    assert type(refusal_error(Refusal.UNKNOWN_SESSION, "")) is UnknownSessionError
    busy = refusal_error(Refusal.OVERLOADED, "busy")
    assert type(busy) is QueryError
    assert busy.retryable
    assert type(refusal_error(99, "")) is InternalError
    for code in Refusal:
        error = refusal_error(code, "why", leader="a:1")
        assert isinstance(error, CopycatError)
        assert (error.refusal, error.leader) == (code, "a:1")
