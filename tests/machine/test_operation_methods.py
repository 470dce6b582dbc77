"""A signature is an operation; what cannot be one fails when the class is defined."""

from __future__ import annotations

import re
from typing import Any

import msgspec
import pytest

from copycat.errors import ConfigurationError, MachineMismatchError, SerializationError
from copycat.machine import Commit, StateMachine, StateMachineExecutor, command, query
from copycat.machine.session_executor import SessionExecutor
from copycat.protocol.operations import Command, CompactionMode, Query, encode_operation
from copycat.types import ConsistencyLevel
from tests.machine.runs import Script


class Opaque:
    """Something that has no encoding."""


class Inventory(StateMachine):
    def __init__(self) -> None:
        self.stock: dict[str, int] = {}

    @command
    def receive(self, sku: str, count: int = 1) -> int:
        """Put into stock."""
        self.stock[sku] = self.stock.get(sku, 0) + count
        return self.stock[sku]

    @command(compaction=CompactionMode.QUORUM, name="drop", since=2)
    def discard(self, sku: str) -> None:
        self.stock.pop(sku, None)

    @query
    def available(self, sku: str) -> int:
        return self.stock.get(sku, 0)

    @query(consistency=ConsistencyLevel.SEQUENTIAL)
    def everything(self) -> dict[str, int]:
        return self.stock


class Put(Command[bytes], frozen=True):
    key: str
    value: bytes


class Get(Query[bytes], frozen=True):
    key: str


class Del(Command[bool], frozen=True):
    key: str


class Explicit(StateMachine):
    """Handlers by annotation, and one registered by hand."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}
        self.indexes: list[int] = []

    def configure(self, executor: StateMachineExecutor) -> None:
        executor.register(Del, self._delete)

    def put(self, commit: Commit[Put]) -> bytes:
        self.indexes.append(commit.index)
        before = self.values.get(commit.operation.key, b"")
        self.values[commit.command.key] = commit.operation.value
        return before

    def get(self, commit: Commit[Get]) -> bytes:
        return self.values[commit.query.key]

    def _delete(self, commit: Commit[Any]) -> bool:
        return self.values.pop(commit.operation.key, None) is not None


def test_on_the_class_it_is_an_operation() -> None:
    operation = Inventory.receive("chair", 12)
    assert repr(operation) == "Inventory.receive(sku='chair', count=12)"
    assert operation == Inventory.receive(sku="chair", count=12)
    assert isinstance(operation, Command)
    assert operation.__result_type__ is int
    assert msgspec.msgpack.decode(encode_operation(operation)) == ["receive", "chair", 12]


def test_on_an_instance_it_is_the_method() -> None:
    assert Inventory().receive("chair", 3) == 3
    assert Inventory.available.__doc__ is None
    assert Inventory.receive.__doc__ == "Put into stock."


def test_options_are_metadata() -> None:
    drop = Inventory.discard("a")
    assert isinstance(drop, Command)
    assert drop.compaction() is CompactionMode.QUORUM
    assert msgspec.msgpack.decode(encode_operation(drop)) == ["drop", "a"]
    everything = Inventory.everything()
    assert isinstance(everything, Query)
    assert everything.consistency() is ConsistencyLevel.SEQUENTIAL


def test_methods_answer() -> None:
    script = Script(Inventory())
    session = script.register()
    results = script.results(session, Inventory.receive("a", 2), Inventory.receive("a"))
    assert results == [2, 3]
    assert script.query(session, Inventory.available("a")) == 3
    assert script.results(session, Inventory.discard("a")) == [None]
    assert script.query(session, Inventory.everything()) == {}


def test_an_older_sender_leaves_out_new_fields_and_a_newer_one_is_refused() -> None:
    script = Script(Inventory())
    session = script.register()
    encode = msgspec.msgpack.encode
    assert script.results(session, encode(["receive", "a"])) == [1]
    with pytest.raises(MachineMismatchError, match=r"Inventory.receive: its parameters do"):
        script.results(session, encode(["receive", "a", 1, "new"]))


def test_wrong_arguments_fail_before_they_are_sent() -> None:
    with pytest.raises(SerializationError, match="expected `int`, got `float` at count") as caught:
        encode_operation(Inventory.receive("chair", 1.5))  # type: ignore[arg-type]
    assert caught.value.message.startswith("Inventory.receive: ")
    with pytest.raises(TypeError):
        Inventory.receive()  # type: ignore[call-arg]


def test_commit_methods_and_registered_handlers_answer() -> None:
    script = Script(Explicit())
    session = script.register()
    results = script.results(session, Put("a", b"1"), Put("a", b"2"), Del("b"))
    assert results == [b"", b"1", False]
    assert script.machine.indexes == [2, 3]
    assert script.query(session, Get("a")) == b"2"


def test_a_subclass_overrides_and_inherits() -> None:
    class Doubling(Inventory):
        @command
        def receive(self, sku: str, count: int = 1) -> int:
            return super().receive(sku, 2 * count)

    script = Script(Doubling())
    session = script.register()
    assert script.results(session, Inventory.receive("a", 2)) == [4]  # the same on the wire
    assert script.results(session, Doubling.receive("a", 1)) == [6]
    assert script.query(session, Doubling.available("a")) == 6


def test_a_subclass_can_take_an_operation_back() -> None:
    class Closed(Inventory):
        receive = None  # type: ignore[assignment]

    script = Script(Closed())
    session = script.register()
    with pytest.raises(MachineMismatchError, match="'receive' is no command of Closed"):
        script.results(session, Inventory.receive("a"))


def test_a_mixin_needs_a_machine() -> None:
    class Mixin:
        @command
        def poke(self) -> int:
            return 7

    with pytest.raises(ConfigurationError, match="does not derive from StateMachine"):
        Mixin.poke  # noqa: B018

    class Poked(Mixin, StateMachine):
        pass

    executor = SessionExecutor(Poked())
    assert executor.last_applied == 0
    script = Script(Poked())
    assert script.results(script.register(), Poked.poke()) == [7]


def define(body: dict[str, Any]) -> type[StateMachine]:
    return type("Faulty", (StateMachine,), body)


def test_a_missing_annotation_fails_at_the_definition() -> None:
    def receive(self, sku) -> int:  # type: ignore[no-untyped-def]  # noqa: ANN001
        return 1

    with pytest.raises(SerializationError, match=r"'sku' has no annotation \(test_oper.*py:\d+\)"):
        define({"receive": command(receive)})

    def silent(self, sku: str):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        return 1

    with pytest.raises(SerializationError, match="its result has no annotation"):
        define({"silent": command(silent)})


@pytest.mark.parametrize("annotation", [Opaque, list[Opaque], int | Opaque, dict[str, Opaque]])
def test_a_type_without_encoding_fails_at_the_definition(annotation: Any) -> None:
    def receive(self: Any, when: Any) -> int:
        return 1

    receive.__annotations__["when"] = annotation
    with pytest.raises(SerializationError, match=r"'when' has type .*Opaque.* cannot encode"):
        define({"receive": command(receive)})


def test_an_unknown_annotation_fails_at_the_definition() -> None:
    def receive(self: Any, when: Missing) -> int:  # type: ignore[name-defined]  # noqa: F821
        return 1

    with pytest.raises(SerializationError, match="'Missing' is not defined"):
        define({"receive": command(receive)})


def test_shapes_that_are_not_positional_fail_at_the_definition() -> None:
    def star(self: Any, *skus: str) -> int:
        return 1

    def keyword(self: Any, *, sku: str) -> int:
        return 1

    async def later(self: Any) -> int:
        return 1

    def reserved(self: Any, compaction: str) -> int:
        return 1

    for function, word in (
        (star, "variadic"),
        (keyword, "keyword-only"),
        (later, "plain function"),
        (reserved, "reserved"),
    ):
        with pytest.raises(SerializationError, match=word):
            define({function.__name__: command(function)})


def test_two_operations_of_one_name_are_refused() -> None:
    class Twice(Inventory):
        @command(name="receive")
        def other(self) -> int:
            return 1

    with pytest.raises(ConfigurationError, match="two operations named 'receive'"):
        SessionExecutor(Twice())


def test_registering_ends_with_configure() -> None:
    machine = Explicit()
    SessionExecutor(machine)
    with pytest.raises(ConfigurationError, match=r"inside configure\(\) only"):
        machine.executor.register(Put, machine.put)


def test_only_commands_and_queries_are_registered() -> None:
    class Wrong(StateMachine):
        def configure(self, executor: StateMachineExecutor) -> None:
            executor.register(int, lambda _: None)  # type: ignore[arg-type]

    with pytest.raises(ConfigurationError, match="neither a Command nor a Query"):
        SessionExecutor(Wrong())


def test_decorators_go_on_methods() -> None:
    with pytest.raises(ConfigurationError, match="are for methods"):
        command(3)  # type: ignore[call-overload]


def test_an_unresolved_commit_annotation_is_named() -> None:
    class Lost(StateMachine):
        def put(self, commit: Commit[Missing]) -> int:  # type: ignore[name-defined]  # noqa: F821
            return 1

    with pytest.raises(SerializationError, match=r"Lost.put: .*Missing"):
        SessionExecutor(Lost())


def keyword(self: Any, *, sku: str) -> int:
    return 1


async def later(self: Any) -> int:
    return 1


async def lazily(self: Any) -> Any:
    yield 1


def generator(self: Any, *_: Any) -> Any:
    yield 1


def selfless() -> int:
    return 1


def unfit(self: Any, sku: int = None) -> int:  # type: ignore[assignment]  # noqa: RUF013
    return 1


def typed(self: Any, type: str) -> int:
    return 1


@pytest.mark.parametrize(
    ("function", "hint"),
    [
        (keyword, "stores parameters by position"),
        (later, "without `async`"),
        (lazily, "without `async` and without `yield`"),
        (selfless, r"def name\(self"),
        (unfit, r"sku: int \| None = None"),
        (typed, "another name"),
    ],
)
def test_the_hint_is_about_what_is_wrong_with_the_signature(function: Any, hint: str) -> None:
    with pytest.raises(SerializationError) as caught:
        define({"receive": command(function)})
    assert re.search(hint, caught.value.hint or "")


@pytest.mark.parametrize("name", [5, None, b"x", "\ud800", "a\nb"])
def test_a_name_is_printable_text(name: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"^name \(.*must be printable text"):
        command(name=name)(typed)


@pytest.mark.parametrize("thing", ["add", 5, staticmethod(selfless), property(generator)])
def test_what_is_no_method_is_named_with_the_form_that_is(thing: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        command(thing)
    assert type(thing).__name__ in caught.value.message
    assert "@command(name=...)" in (caught.value.hint or "")


def test_a_mode_of_compaction_that_is_none_is_a_configuration_error() -> None:
    bad: Any = "bogus"
    with pytest.raises(ConfigurationError, match=r"compaction \('bogus'\) must be one of"):
        command(compaction=bad)(typed)


@pytest.mark.parametrize("function", [later, lazily, generator])
@pytest.mark.parametrize("name", ["snapshot", "install", "configure", "on_register", "close"])
def test_what_a_machine_defines_is_plain_or_nothing_of_it_would_run(
    name: str, function: Any
) -> None:
    kind: Any = type("Waiting", (StateMachine,), {name: function})
    with pytest.raises(ConfigurationError, match=rf"^Waiting\.{name} is "):
        SessionExecutor(kind())


def test_what_configure_raises_is_named() -> None:
    class Broken(StateMachine):
        def configure(self, executor: StateMachineExecutor) -> None:
            raise SystemExit(3)

    with pytest.raises(ConfigurationError, match=r"^Broken\.configure\(\) raised SystemExit"):
        SessionExecutor(Broken())
