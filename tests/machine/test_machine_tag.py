"""An operation's tag names its machine; a member refuses those of machines that it has not."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from copycat.errors import CorruptLogError, MachineMismatchError
from copycat.machine.apply_result import MachineQuery
from copycat.machine.machine_runtime import MachineRuntime
from copycat.machine.session_executor import SessionExecutor
from copycat.machine.sessions import SessionTable
from copycat.machine.snapshot import read_snapshot
from copycat.protocol.machine_tag import MACHINE_ID_MAX, machine_of, split_tag, with_machine
from copycat.protocol.operations import encode_operation
from copycat.protocol.results import decode_result
from tests.machine.runs import Script
from tests.machine.test_mismatch import Counter

ADD = encode_operation(Counter.add(1))


def test_an_operation_of_machine_0_has_the_bytes_that_it_always_had() -> None:
    assert with_machine(ADD, 0) == ADD == msgspec.msgpack.encode(["add", 1])
    assert split_tag(ADD) == (0, ADD)


@pytest.mark.parametrize("machine_id", [1, 9, MACHINE_ID_MAX])
def test_a_tag_names_the_machine_and_is_taken_off_again(machine_id: int) -> None:
    payload = with_machine(ADD, machine_id)
    assert machine_of(payload) == machine_id
    assert split_tag(payload) == (machine_id, ADD)


@pytest.mark.parametrize("machine_id", [-1, MACHINE_ID_MAX + 1])
def test_a_machine_has_an_id_of_one_byte(machine_id: int) -> None:
    with pytest.raises(ValueError, match="is no id of a machine"):
        with_machine(ADD, machine_id)


@pytest.mark.parametrize("payload", [b"", b"\x05", b"\x05\x05", b"\xa3add", b"\xc0"])
def test_bytes_that_are_no_operation_name_no_machine(payload: bytes) -> None:
    assert split_tag(payload) == (0, payload)


def test_a_leader_logs_no_operation_of_a_machine_that_it_has_not() -> None:
    commands = SessionExecutor(Counter()).commands
    refused = commands.refusals([ADD, with_machine(ADD, 2), ADD])
    assert list(refused) == [1]
    error = decode_result(refused[1], Any)
    assert isinstance(error, MachineMismatchError)
    assert "is for machine 2, which this member does not have" in error.message


def test_a_logged_operation_of_an_unknown_machine_stops_the_member_by_its_name() -> None:
    script = Script(Counter())
    session = script.register()
    with pytest.raises(MachineMismatchError) as caught:
        script.commands(session, [with_machine(ADD, 2)])
    assert caught.value.operation == "add"
    assert caught.value.index == 2
    assert script.machine.total == 0


def test_a_query_of_an_unknown_machine_is_answered_with_the_same_error() -> None:
    script = Script(Counter())
    ask = MachineQuery(1, script.register(), with_machine(encode_operation(Counter.now()), 2))
    (answer,) = script.executor.query([ask])
    error = decode_result(answer.body, Any)
    assert isinstance(error, MachineMismatchError)
    assert "'now' is for machine 2" in error.message


def test_a_runtime_with_an_id_reads_its_own_operations_alone() -> None:
    commands = MachineRuntime(Counter(), SessionTable(), machine_id=2).commands
    operation: Any = commands.read(with_machine(ADD, 2))
    assert operation == Counter.add(1)
    for payload, machine in ((ADD, "machine 0"), (with_machine(ADD, 3), "machine 3")):
        with pytest.raises(MachineMismatchError, match=machine):
            commands.read(payload)


def test_a_machine_reads_its_section_without_the_sessions_of_others() -> None:
    script = Script(Counter())
    script.commands(script.register(), [Counter.add(3)])
    session_section, machine_section = read_snapshot(script.executor.snapshot())
    assert [row.sequence for row in session_section.sessions] == [1]
    assert (machine_section.machine_id, machine_section.machine) == (0, "Counter")

    machine = Counter()
    MachineRuntime(machine, SessionTable()).prepare_section(machine_section, {})()
    assert machine.total == 3


def test_a_section_of_an_unknown_machine_is_refused_and_changes_nothing() -> None:
    script = Script(Counter())
    script.commands(script.register(), [Counter.add(3)])
    _, section = read_snapshot(script.executor.snapshot())
    machine = Counter()
    runtime = MachineRuntime(machine, SessionTable())
    with pytest.raises(MachineMismatchError, match="a section of machine 1"):
        runtime.prepare_section(msgspec.structs.replace(section, machine_id=1), {})
    assert machine.total == 0


def test_bytes_without_sections_are_no_snapshot() -> None:
    with pytest.raises(CorruptLogError):
        read_snapshot(b"CCST\x02\x90")
