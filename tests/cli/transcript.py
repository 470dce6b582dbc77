"""Runs the commands of a document as somebody would who types them, and compares what they print.

A line that begins with `$ ` is a command, and what follows, up to the next one, is its output.
The ports of a document are replaced by free ones with as many digits. What may differ from one
run to the next is left out on both sides: terms and indexes, who of the voters leads, for what
a command waits, and random numbers. `…` stands for lines that the document leaves out.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from tests.tidy.tree import ROOT

__all__ = ["Shell", "Step", "program", "steps"]

LIMIT_S = 120.0
_BLOCK = re.compile(r"^```\n(\$ .*?)^```$", re.MULTILINE | re.DOTALL)
_PROGRAM = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_PORT = re.compile(r"(?<=127\.0\.0\.1:)(\d{4})\b")
_KILL = re.compile(r"kill (-KILL )?\$\(cat ([\w-]+)/lock\)")
_NUMBER = re.compile(r"(?<![\w.:])(?:[\d,]+(?:\.\d+ s)?|–)(?![\w.:])")
_ROLE = re.compile(r"\b(?:leader|follower)\b")
_ROW = re.compile(r"127\.0\.0\.1:\d+ .*  ")
_NAME = re.compile(r"\b(term|configuration|entry|last entry +|entries \d+ to|up to) ?\d+\b")
_RANDOM = re.compile(r"\b[0-9a-f]{32}\b")
_UNKNOWN = "may have been committed, or not"
"""Entries above the last one that a directory knows to be committed: there may be none."""
_OMITTED = "…"
_LEADER = re.compile(r"leader 127\.0\.0\.1:\d+| \(leader\)")


class Step(NamedTuple):
    """One command, and the lines that the document says that it prints."""

    command: str
    output: list[str]


def steps(text: str) -> list[Step]:
    """The commands of a document, in order."""
    typed: list[Step] = []
    for block in _BLOCK.findall(text):
        for line in block.splitlines():
            if line.startswith("$ "):
                typed.append(Step(line[2:], []))
            else:
                typed[-1].output.append(line)
    return typed


def program(text: str) -> str:
    """The first Python program of a document."""
    match = _PROGRAM.search(text)
    assert match is not None
    return match[1]


def comparable(lines: list[str]) -> list[str]:
    """Without what may differ, and without the lines that may be there or not."""
    left = [line for line in lines if not line.startswith("waiting") and _UNKNOWN not in line]
    without_leader = [_LEADER.sub("", line) for line in left]
    return [" ".join(_masked(line).split()) for line in without_leader]


def _masked(line: str) -> str:
    if _ROW.match(line):
        line = _NUMBER.sub("N", _ROLE.sub("voter", line))
    return _NAME.sub(r"\1 N", _RANDOM.sub("ID", line))


def is_as_printed(expected: list[str], printed: list[str]) -> bool:
    """Whether the lines are those of the document, of which one may stand for any lines."""
    if _OMITTED not in expected:
        return printed == expected
    at = expected.index(_OMITTED)
    before, after = expected[:at], expected[at + 1 :]
    if len(printed) < len(before) + len(after):
        return False
    return printed[:at] == before and printed[len(printed) - len(after) :] == after


def free_ports(named: list[str]) -> dict[str, str]:
    """The ports of a document -> as many free ones, in the same order."""
    for first in range(5000 + os.getpid() % 997 * 3, 9900, 10):
        ports = [str(first + number) for number in range(len(named))]
        with suppress(OSError):
            for port in ports:
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", int(port)))
            return dict(zip(named, ports, strict=True))
    raise AssertionError("no free ports")


class Shell:
    """Types commands in the directory `at`; `close` ends what still runs."""

    def __init__(self, at: Path, ports: dict[str, str]) -> None:
        self._at = at
        self._ports = ports
        self._names = {own: named for named, own in ports.items()}
        self._environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{at}"}
        self._environment.pop("COPYCAT_MEMBERS", None)
        self._servers: dict[str, subprocess.Popen[bytes]] = {}

    def close(self) -> None:
        """End all servers."""
        for server in self._servers.values():
            server.kill()
            server.wait()

    def run(self, step: Step) -> None:
        """Type one command. AssertionError when it prints something else."""
        words = shlex.split(self._renamed(step.command, self._ports))
        if kill := _KILL.fullmatch(step.command):
            self._kill(kill[2], signal.SIGKILL if kill[1] else signal.SIGTERM)
        elif words[:2] == ["rm", "-r"]:
            for name in words[2:]:
                shutil.rmtree(self._at / name)
        elif words[0] == "export":
            name, _, value = words[1].partition("=")
            self._environment[name] = value
        elif words[:2] == ["copycat", "serve"]:
            self._serve(words)
        else:
            assert words[:2] in (["copycat", "cluster"], ["copycat", "recover"]), step.command
            self._ask(step, words)

    @staticmethod
    def _renamed(text: str, ports: dict[str, str]) -> str:
        return _PORT.sub(lambda match: ports.get(match[1], match[1]), text)

    def _kill(self, directory: str, number: signal.Signals) -> None:
        server = self._servers.pop(directory)
        assert server.pid == int((self._at / directory / "lock").read_text())
        server.send_signal(number)
        server.wait()

    def _serve(self, words: list[str]) -> None:
        """Start a server; returns when it says that it listens."""
        directory = words[words.index("--directory") + 1]
        log = self._at / f"{directory}.log"
        with log.open("wb") as errors:
            self._servers[directory] = server = subprocess.Popen(
                [sys.executable, "-m", *words], cwd=self._at, env=self._environment, stderr=errors
            )
        deadline = time.monotonic() + LIMIT_S
        while time.monotonic() < deadline:
            text = log.read_text(errors="replace")
            if re.search("^listening|no member of copycat", text, re.MULTILINE):
                return
            assert server.poll() is None, text
            time.sleep(0.02)
        raise AssertionError(f"{words} does not listen:\n{log.read_text(errors='replace')}")

    def _ask(self, step: Step, words: list[str]) -> None:
        """A change is made once; the status is asked for until it is the one in the document,
        since members say a moment later what they have become."""
        expected = comparable(step.output)
        deadline = time.monotonic() + (LIMIT_S / 4 if words[2] == "status" else 0.0)
        while True:
            done = subprocess.run(
                [sys.executable, "-m", *words],
                cwd=self._at,
                env=self._environment,
                capture_output=True,
                text=True,
                timeout=LIMIT_S,
                check=False,
            )
            printed = self._renamed(done.stderr + done.stdout, self._names).splitlines()
            if is_as_printed(expected, comparable(printed)) or time.monotonic() >= deadline:
                break
            time.sleep(0.2)
        assert is_as_printed(expected, comparable(printed)), "\n".join([step.command, *printed])
        waiting = [line for line in step.output if line.startswith("waiting")]
        assert waiting[:1] == [line for line in printed if line.startswith("waiting")][:1]


def shell(text: str, at: Path) -> Iterator[Shell]:
    """A shell for the commands of this document."""
    ports = sorted(set(_PORT.findall("\n".join(step.command for step in steps(text)))))
    one = Shell(at, free_ports(ports))
    try:
        yield one
    finally:
        one.close()
