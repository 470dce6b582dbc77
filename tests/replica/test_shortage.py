"""F29 in a replica: one descriptor that is lacking for a moment stops no member."""

from __future__ import annotations

import pytest

from copycat.errors import ResourceError
from copycat.machine.kv import KeyValueStore
from copycat.protocol.client import Results
from copycat.storage._native import FaultEnv, open_log
from tests.log.contract import contents
from tests.replica.harness import commands, lone_leader, open_session

LOG = "/member/log"


@pytest.mark.parametrize("operation", ["create", "rename", "allocate"])
def test_f29_an_append_that_meets_a_shortage_is_tried_once_more(operation: str) -> None:
    env = FaultEnv()
    env.make_directory(LOG)
    log = open_log(env, LOG, max_segment_size=16384, max_entries_per_segment=8)
    node = lone_leader(log=log)
    session = open_session(node)
    for number in range(1, 41):
        env.fail(operation, 1, "ENOMEM")
        node.replica.receive_client(7, commands(session, number, KeyValueStore.append("k", b"a")))
        node.stabilize()
        assert isinstance(node.last_reply(), Results)
        assert node.host.stopped is None
    assert len(log.segments()) > 4
    assert len(contents(log)) >= 40


def test_f29_a_member_that_lacks_it_still_stops_by_name() -> None:
    env = FaultEnv()
    env.make_directory(LOG)
    log = open_log(env, LOG, max_segment_size=16384, max_entries_per_segment=8)
    node = lone_leader(log=log)
    session = open_session(node)
    commanded = KeyValueStore.append("k", b"a")

    def lacking() -> None:
        for number in range(1, 20):
            env.fail("create", 1, "EMFILE")
            env.fail("create", 2, "EMFILE")
            node.replica.receive_client(7, commands(session, number, commanded))
            node.stabilize()

    with pytest.raises(ResourceError):
        lacking()
    assert isinstance(node.host.stopped, ResourceError)
