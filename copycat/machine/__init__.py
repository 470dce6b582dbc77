"""Entries at work: sessions and the user's state machine. Deterministic, without a clock."""

from __future__ import annotations

from copycat.machine.commit import Commit
from copycat.machine.context import Clock, StateMachineContext, StateMachineExecutor
from copycat.machine.machine import StateMachine
from copycat.machine.operation_methods import OperationMethod, command, query
from copycat.machine.sessions import ServerSession, Sessions
from copycat.machine.snapshot_io import SnapshotReader, Snapshottable, SnapshotWriter
from copycat.machine.timers import Scheduled

__all__ = [
    "Clock",
    "Commit",
    "OperationMethod",
    "Scheduled",
    "ServerSession",
    "Sessions",
    "SnapshotReader",
    "SnapshotWriter",
    "Snapshottable",
    "StateMachine",
    "StateMachineContext",
    "StateMachineExecutor",
    "command",
    "query",
]
