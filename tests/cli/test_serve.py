"""`copycat serve`: it serves whoever reads what it says, and a clean stop ends with 0."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from copycat import Backoff, CopycatClient, Log, Storage
from copycat.cli.output import WAITING_MAX, Lines
from copycat.cli.serve import ServeOptions, _EventPrinter, _serve, _Stop
from copycat.machine.kv import KeyValueStore
from tests.server.cluster import free_address
from tests.tidy.tree import ROOT

LIMIT_S = 60.0


@pytest.fixture(autouse=True)
def hangups_count() -> Iterator[None]:
    """A process that is started below stops at a SIGHUP, also if these tests run under `nohup`."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


class Member:
    """A `copycat serve` in a process of its own; ended in any case."""

    def __init__(
        self,
        path: Path,
        *words: str,
        app: str = "copycat.machine.kv:KeyValueStore",
        **streams: Any,
    ) -> None:
        self.address = free_address()
        arguments = ["serve", self.address, "--app", app, "--directory", str(path / "member")]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "copycat", *arguments, *words],
            env={**os.environ, "PYTHONPATH": f"{ROOT}:{path}"},
            **streams,
        )

    def __enter__(self) -> Member:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(LIMIT_S)


async def used(address: str, *operations: Any) -> None:
    """Submit all of them, as soon as the member listens: a busy machine may take a while."""
    patient = Backoff.exponential(give_up_after=LIMIT_S)
    client = CopycatClient(address, connection_strategy=patient)
    async with asyncio.timeout(LIMIT_S), client:
        for operation in operations:
            await client.submit(operation)


@pytest.mark.slow
@pytest.mark.parametrize("as_json", [True, False])
def test_readers_that_go_away_change_nothing(tmp_path: Path, as_json: bool) -> None:
    pipes = [os.pipe(), os.pipe()]
    words = ["--json"] if as_json else []
    with Member(tmp_path, *words, stdout=pipes[0][1], stderr=pipes[1][1]) as member:
        for _, write_end in pipes:
            os.close(write_end)
        heard = os.read(pipes[0 if as_json else 1][0], 1)
        assert heard
        for read_end, _ in pipes:
            os.close(read_end)
        asyncio.run(used(member.address, *[KeyValueStore.append("k", b"x")] * 20))
        assert member.stop() == 0


@pytest.mark.slow
@pytest.mark.parametrize("to", ["a full disk", "nothing", "nothing, and nothing to read"])
def test_a_full_disk_or_closed_streams_change_nothing(tmp_path: Path, to: str) -> None:
    streams: dict[str, Any] = {}
    if to != "a full disk":
        streams["preexec_fn"] = close_both if to == "nothing" else close_all
    with Path("/dev/full").open("wb") as full:
        if to == "a full disk":
            streams = {"stdout": full, "stderr": full}
        with Member(tmp_path, "--json", **streams) as member:
            asyncio.run(used(member.address, KeyValueStore.append("k", b"x")))
            assert member.stop() == 0


def close_both() -> None:
    """In the child, before it begins: `>&- 2>&-`."""
    os.close(1)
    os.close(2)


def close_all() -> None:
    """The same with `<&-`, as a daemon begins: the lowest numbers are free."""
    os.close(0)
    close_both()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_each_signal_stops_cleanly_however_often_it_comes(
    tmp_path: Path, number: signal.Signals
) -> None:
    with Member(tmp_path, "--json", stdout=subprocess.PIPE) as member:
        assert member.process.stdout is not None
        for line in member.process.stdout:
            event = json.loads(line)["event"]
            if event in ("listening", "state", "stopped"):
                member.process.send_signal(number)
        while member.process.poll() is None:  # also while the interpreter ends
            member.process.send_signal(number)
        assert event == "stopped"
        assert member.process.returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "module"),
    [
        (signal.SIGINT, "click"),
        (signal.SIGTERM, "msgspec"),
        (signal.SIGINT, "app"),
        (signal.SIGHUP, "app"),
    ],
)
def test_a_signal_before_the_start_ends_with_0_and_writes_nothing(
    tmp_path: Path, number: signal.Signals, module: str
) -> None:
    name = f"{module}.py"
    (tmp_path / name).write_text(f"import os, time\nos.kill(os.getpid(), {int(number)})\n")
    with (tmp_path / name).open("a") as file:
        file.write("while True:\n    time.sleep(1)\n")
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with Member(tmp_path, app="app:Machine", **streams) as member:
        out, errors = member.process.communicate(timeout=LIMIT_S)
        assert (out, errors, member.process.returncode) == (b"", b"", 0)
    left = {path.name for path in tmp_path.iterdir()} - {"__pycache__"}
    assert left == {name}


def test_a_signal_between_the_import_and_the_start_opens_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[str] = []
    lines = Lines.__new__(Lines)
    monkeypatch.setattr(lines, "put", heard.append)
    with restored_signals():
        stop = _Stop()
        signal.raise_signal(signal.SIGTERM)
        storage = Storage(directory=str(tmp_path / "member"))
        options = ServeOptions(
            "127.0.0.1:0", "", (), storage, cluster_name="c", as_json=False, parent=None
        )
        words = _EventPrinter(lines, as_json=False)
        asyncio.run(_serve(options, words, KeyValueStore, stop))
    assert heard == ["stopped"]
    assert not list(tmp_path.iterdir())


@contextmanager
def restored_signals() -> Iterator[None]:
    numbers = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP]
    before = [signal.getsignal(number) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


@pytest.mark.slow
def test_the_last_lines_say_where_the_log_ends(tmp_path: Path) -> None:
    with Member(tmp_path, "--json", stdout=subprocess.PIPE) as member:
        assert member.process.stdout is not None
        asyncio.run(used(member.address, *[KeyValueStore.append("k", b"x")] * 3))
        assert member.stop() == 0
        lines = [json.loads(line) for line in member.process.stdout]
    states = [line for line in lines if line["event"] == "state"]
    last = lines[-1]
    assert last["event"] == "stopped"
    assert states[-1]["state"] == "inactive"
    assert last["term"] == states[-1]["term"] > 0
    # what leads, the session, three commands, and the end of the session
    assert last["commit_index"] == last["last_applied"] >= 5
    with Log.open(tmp_path / "member" / "log", read_only=True) as log:
        assert last["last_applied"] <= log.last_index


@pytest.mark.slow
def test_a_hangup_that_nohup_ignores_stops_nothing(tmp_path: Path) -> None:
    streams: dict[str, Any] = {"preexec_fn": ignore_hangups, "stdout": subprocess.PIPE}
    with Member(tmp_path, "--json", **streams) as member:
        assert member.process.stdout is not None
        for line in member.process.stdout:
            if json.loads(line)["event"] == "listening":
                break
        member.process.send_signal(signal.SIGHUP)
        asyncio.run(used(member.address, KeyValueStore.append("k", b"x")))
        assert member.stop() == 0


def ignore_hangups() -> None:
    """In the child, before it begins: `nohup`."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


@pytest.mark.slow
def test_a_working_directory_that_was_deleted_is_not_needed(tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    streams: dict[str, Any] = {"preexec_fn": partial(stay_in_deleted, tmp_path / "gone")}
    with Member(tmp_path, **streams) as member:
        asyncio.run(used(member.address, KeyValueStore.append("k", b"x")))
        assert member.stop() == 0


def stay_in_deleted(directory: Path) -> None:
    """In the child, before it begins."""
    os.chdir(directory)
    directory.rmdir()


@pytest.mark.slow
@pytest.mark.parametrize("reader", ["gone", "stuck"])
def test_what_an_application_prints_cannot_fail_or_wait(tmp_path: Path, reader: str) -> None:
    (tmp_path / "talker.py").write_text(
        textwrap.dedent(
            """
            from copycat import StateMachine, command

            class Talker(StateMachine):
                @command
                def talk(self) -> int:
                    print("x" * 100_000)
                    return 1
            """
        ),
        encoding="utf-8",
    )
    sys.path.insert(0, str(tmp_path))
    try:
        from talker import Talker  # type: ignore[import-not-found]
    finally:
        sys.path.remove(str(tmp_path))
    read_end, write_end = os.pipe()
    with Member(tmp_path, app="talker:Talker", stdout=write_end, stderr=write_end) as member:
        os.close(write_end)
        assert os.read(read_end, 1)
        if reader == "gone":
            os.close(read_end)
        asyncio.run(used(member.address, *[Talker.talk()] * 20))
        assert member.stop() == 0
        if reader == "stuck":
            os.close(read_end)


@pytest.mark.slow
def test_serve_says_for_whom_it_waits_and_logs_from_a_level_on(tmp_path: Path) -> None:
    missing = free_address()
    with Member(tmp_path, "--member", missing, stderr=subprocess.PIPE) as member:
        line = next(line for line in errors(member) if "waiting for" in line)
        assert f"WARNING copycat.server: {member.address}: waiting for 1 of {missing}" in line
        assert "refused" in line.lower() or "Connect" in line
        assert member.stop() == 0
    with Member(tmp_path / "two", "--log-level", "error", stderr=subprocess.PIPE) as member:
        asyncio.run(used(member.address, KeyValueStore.append("k", b"x")))
        assert member.stop() == 0
        assert not [line for line in errors(member) if "copycat.server" in line]


def errors(member: Member) -> Iterator[str]:
    assert member.process.stderr is not None
    return (line.decode() for line in member.process.stderr)


@pytest.mark.slow
def test_serve_says_on_stdout_what_programs_read(tmp_path: Path) -> None:
    with Member(tmp_path, "--json", stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as member:
        assert member.process.stdout is not None
        events = (json.loads(line)["event"] for line in member.process.stdout)
        assert next(event for event in events if event == "listening")
        assert member.stop() == 0
        assert list(events)[-1] == "stopped"


class Stuck:
    """A stream whose reader does not read, until the test lets it."""

    encoding = "utf-8"

    def __init__(self) -> None:
        self.go_on = threading.Event()
        self.written: list[str] = []

    def fileno(self) -> int:
        raise OSError("in memory")

    def write(self, text: str) -> None:
        assert self.go_on.wait(LIMIT_S)
        self.written.append(text)


def test_lines_for_a_stuck_reader_are_bounded() -> None:
    stream: Any = Stuck()
    lines = Lines(stream, "test")
    for number in range(2 * WAITING_MAX):
        lines.put(str(number))
    stream.go_on.set()
    lines.close(LIMIT_S)
    assert WAITING_MAX <= len(stream.written) <= WAITING_MAX + 1
    assert stream.written[:2] == ["0\n", "1\n"]
