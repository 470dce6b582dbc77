"""Rows of the fault table that show only while a member runs, or on a real file system."""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path

import pytest

from copycat.errors import CorruptLogError, ProtocolError
from copycat.log.log import Log
from copycat.protocol.codec_client import decode_client
from copycat.protocol.framing import FrameBuffer, split_frame
from copycat.protocol.wire import FrameType
from copycat.storage._native import Batch, FaultEnv, open_log
from copycat.types import ServerState, Span
from tests.log.contract import batch, durable, grow
from tests.log.test_recovery_rows import frame_of
from tests.replica.harness import Node, commands, open_session
from tests.replica.test_durability import PUT


def test_f11_rot_that_shows_while_the_log_is_open_is_told_and_hides_nothing_else() -> None:
    env = FaultEnv()
    log = open_log(env, "/log", max_segment_size=1 << 16, max_entries_per_segment=1000)
    grow(log, 9)
    durable(log)
    env.corrupt("/log/1-1.log", frame_of(4) + 33, 0x10)
    with pytest.raises(CorruptLogError) as caught:
        log.get(4)
    assert (caught.value.index, caught.value.offset) == (4, frame_of(4))
    rows = [log.get(index) for index in (3, 5)]
    assert [row[3] for row in rows if row is not None] == [b"1:3", b"1:5"]
    with pytest.raises(CorruptLogError):
        log.read(4, 6, 1 << 20)
    assert log.last_index == 9, "it is not taken for an entry that was never there"


def run_for(node: Node, turns: int) -> None:
    for _ in range(turns):
        node.turn(100)
        node.stabilize()


def test_f11_apply_stops_before_what_cannot_be_read_and_the_member_with_it() -> None:
    env = FaultEnv()
    log = open_log(env, "/log", max_segment_size=1 << 16, max_entries_per_segment=1000)
    node = Node("127.0.0.1:1", ("127.0.0.1:1",), log=log)
    run_for(node, 40)
    assert node.replica.raft.state is ServerState.LEADER
    session = open_session(node)
    for sequence in range(1, 6):
        node.replica.receive_client(7, commands(session, sequence, PUT))
        node.stabilize()
    victim = log.last_index - 2
    end = log.segments()[-1][4]
    log.close()
    data = env.read_file("/log/1-1.log")[:end]
    env.corrupt("/log/1-1.log", data.rindex(struct.pack("<Q", victim)) + 40, 0x10)
    again = open_log(env, "/log", max_segment_size=1 << 16, max_entries_per_segment=1000)
    back = Node("127.0.0.1:1", ("127.0.0.1:1",), log=again)
    with pytest.raises(CorruptLogError):
        run_for(back, 40)
    assert isinstance(back.replica.stopped, CorruptLogError)
    assert back.replica.status().last_applied < victim
    assert not back.host.replies


@pytest.mark.parametrize("size", [1 << 31, (1 << 32) - 1, 1 << 20])
def test_f28_a_size_beyond_the_bytes_is_refused_before_anything_is_allocated(size: int) -> None:
    frame = bytearray(bytes(memoryview(batch(1, b"abc"))))
    struct.pack_into("<I", frame, 4, size)
    with pytest.raises(ProtocolError):
        Batch.from_wire(bytes(frame), Span(1, 1, 2))


def test_f28_a_count_beyond_the_bytes_is_refused() -> None:
    frame = commands(7, 1, PUT)
    body = bytearray(bytes(frame.body))
    struct.pack_into("<I", body, 24, (1 << 32) - 1)
    header = struct.pack("<IBBH", len(body), FrameType.COMMANDS, 0, 0)
    with pytest.raises(ProtocolError):
        decode_client(split_frame(header + bytes(body)))


def test_f28_a_length_above_the_limit_of_a_stranger_is_refused() -> None:
    buffer = FrameBuffer(4096)
    head = struct.pack("<IBBH", (1 << 32) - 1, FrameType.HELLO, 0, 0)
    buffer.get_buffer(-1)[: len(head)] = head
    with pytest.raises(ProtocolError):
        buffer.buffer_updated(len(head))


_LIMITED = """
import resource, sys
from copycat.errors import StorageError
from copycat.log.log import Log

log = Log.open(sys.argv[1], max_segment_size=8192, max_entries_per_segment=8)
kind = getattr(resource, sys.argv[2])
log.append_many([b"x" * 100] * 4)
resource.setrlimit(kind, (int(sys.argv[3]), resource.getrlimit(kind)[1]))
said = log.last_index
try:
    while said < 4000:
        said = log.append(b"y" * int(sys.argv[4]))
except StorageError as error:
    print(said, type(error).__name__)
resource.setrlimit(kind, resource.getrlimit(kind)[1:] * 2)
print(log.append(b"z"))
"""


def limited(path: Path, kind: str, value: int, nbytes: int) -> list[str]:
    """What a process says that runs into a limit of its system, after its last good append."""
    done = subprocess.run(
        [sys.executable, "-c", _LIMITED, str(path), kind, str(value), str(nbytes)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stdout.split()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "value", "nbytes", "error"),
    [
        pytest.param(
            "RLIMIT_FSIZE", 1 << 16, 100_000, "DiskFullError", id="f12-a-file-that-may-not-grow"
        ),
        pytest.param("RLIMIT_NOFILE", 5, 1000, "ResourceError", id="f29-no-descriptor-left"),
    ],
)
def test_f12_f29_a_real_system_that_refuses_costs_nothing_and_the_log_goes_on(
    tmp_path: Path, kind: str, value: int, nbytes: int, error: str
) -> None:
    output = limited(tmp_path, kind, value, nbytes)
    assert output[1:] == [error, str(int(output[0]) + 1)], output
    with Log.open(tmp_path) as log:
        assert log.last_index == int(output[0]) + 1
        assert [entry.index for entry in log] == list(range(1, log.last_index + 1))
        assert log.append(b"again") == log.last_index
