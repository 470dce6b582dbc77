"""A user who completes a name in an editor sees what is theirs to call, and nothing else."""

from __future__ import annotations

import pytest

from copycat.machine import (
    Commit,
    Scheduled,
    ServerSession,
    SnapshotReader,
    SnapshotWriter,
    StateMachine,
)

NAMES: dict[type[object], str] = {
    Commit: "acquire close command index is_keyed operation query references release session time",
    ServerSession: "client_id id on_state_change state",
    Scheduled: "cancel cancelled",
    SnapshotReader: "attributes left read read_object",
    SnapshotWriter: "finish write write_object",
    StateMachine: "close commit configure context executor on_close on_expire on_key_expired"
    " on_register on_unregister snapshot_aliases version",
}


@pytest.mark.parametrize("kind", NAMES, ids=lambda kind: kind.__name__)
def test_a_class_for_users_shows_what_users_call(kind: type[object]) -> None:
    assert [name for name in dir(kind) if not name.startswith("_")] == NAMES[kind].split()
