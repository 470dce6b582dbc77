"""State that would be in no snapshot is refused when the machine is made."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

import pytest

from copycat import StateMachine, command
from copycat.errors import ConfigurationError
from copycat.machine import Commit, SnapshotReader, SnapshotWriter
from copycat.machine.session_executor import SessionExecutor
from copycat.protocol.operations import Command


class Writes(StateMachine):
    def snapshot(self, writer: SnapshotWriter) -> None: ...


class Reads(StateMachine):
    def install(self, reader: SnapshotReader, version: int) -> None: ...


class Both(Writes):
    """The other one is its base's."""

    def install(self, reader: SnapshotReader) -> None: ...


class Mixin:
    def install(self, reader: SnapshotReader) -> None: ...


class Mixed(Mixin, Writes):
    pass


class Disabled(Writes):
    """No snapshot() any more: the attributes are written."""

    snapshot = None  # type: ignore[assignment]


class Install(Command[None], frozen=True):
    what: str


class Answers(StateMachine):
    """Operations of these names have nothing to do with snapshots."""

    @command
    def snapshot(self) -> None: ...

    def install(self, commit: Commit[Install]) -> None: ...


@pytest.mark.parametrize(("machine", "has", "lacks"), [
    (Writes, "snapshot", "install"),
    (Reads, "install", "snapshot"),
])  # fmt: skip
def test_a_machine_with_one_of_snapshot_and_install_is_refused(
    machine: type[StateMachine], has: str, lacks: str
) -> None:
    with pytest.raises(ConfigurationError, match=rf"defines {has}\(\) and no {lacks}\(\)") as info:
        SessionExecutor(machine())
    assert f"def {lacks}(self, " in (info.value.hint or "")


@pytest.mark.parametrize("machine", [Both, Mixed, Disabled, Answers])
def test_a_machine_with_both_or_none_of_them_is_taken(machine: type[StateMachine]) -> None:
    SessionExecutor(machine())


@pytest.mark.parametrize("value", [
    {}, {"a": 1}, [], set(), bytearray(), deque(), defaultdict(int), Counter[str](),
])  # fmt: skip
def test_a_collection_in_the_body_of_the_class_is_refused(value: Any) -> None:
    kind = type(value).__name__
    machine = type("Shop", (StateMachine,), {"items": value})
    with pytest.raises(ConfigurationError, match=rf"Shop\.items is a {kind} in the body") as info:
        SessionExecutor(machine())
    assert "self.items = ..." in (info.value.hint or "")
    heir = type("Heir", (machine,), {})
    with pytest.raises(ConfigurationError, match=rf"Heir\.items is a {kind}"):
        SessionExecutor(heir())


class Annotated(StateMachine):
    items: dict[str, int] = {}  # noqa: RUF012  (that is the mistake)


def test_an_annotation_that_is_no_classvar_does_not_help() -> None:
    with pytest.raises(ConfigurationError, match=r"Annotated\.items is a dict"):
        SessionExecutor(Annotated())


class Constants(StateMachine):
    __slots__ = ["extra"]
    LIMITS = {"small": 1}  # noqa: RUF012  (its name says that it is a constant)
    prices: ClassVar[dict[str, int]] = {"chair": 12}
    names: Final = ["a", "b"]
    snapshot_aliases = {"Old": None}  # noqa: RUF012  (StateMachine has the annotation)
    sizes = (1, 2)
    default: list[int] = []  # noqa: RUF012  (the instance has its own)

    def __init__(self) -> None:
        self.default = []
        self.extra: dict[str, int] = {}


@dataclass
class Fields(StateMachine):
    items: dict[str, int] = field(default_factory=dict)


class Own(Both):
    """Knows itself what its state is."""

    items: dict[str, int] = {}  # noqa: RUF012


@pytest.mark.parametrize("machine", [Constants, Fields, Own])
def test_constants_and_what_the_instance_has_are_taken(machine: type[StateMachine]) -> None:
    SessionExecutor(machine())
