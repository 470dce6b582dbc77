"""A member of the demo as a child process: start, watch, kill and stop it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["MemberFailed", "MemberProcess"]

_APP = "copycat.cli.demo.lines:LineLog"
_WORDS_KEPT = 12


class MemberFailed(Exception):
    """A member process ended by itself, or did not start or stop in time."""


class MemberProcess:
    """A child process with `copycat serve`.

    It has a process group of its own, so that Ctrl-C interrupts the parent only. The kernel kills
    the child when the parent ends (`--parent`).

    members: the options that say of which cluster it is a member.
    """

    def __init__(self, name: str, address: str, members: list[str], root: Path) -> None:
        self.name = name
        self.address = address
        self.directory = root / name
        self.words = root / f"{name}.log"
        self.durability = ""
        self.state = "inactive"
        self.term = 0
        self.leader_since: float | None = None
        self.applied = (0.0, 0)
        """When the child last reported, by the monotonic clock, and its last applied index."""
        self.report: dict[str, Any] = {}
        self.on_failure: Callable[[BaseException], None] = lambda _: None
        self._members = members
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._expected_end = False

    @property
    def pid(self) -> int:
        """The process id of the running child; 0 when there is none."""
        return self._process.pid if self._process is not None else 0

    async def start(self) -> None:
        """Start the child; returns when it listens. MemberFailed when it does not in time."""
        self._expected_end = False
        self.applied = (0.0, 0)
        self.report = {}
        listening = asyncio.Event()
        arguments = ["-m", "copycat", "serve", self.address, "--app", _APP, "--json"]
        arguments += self._members
        arguments += ["--directory", str(self.directory), "--keep-log"]  # the proof reads it whole
        arguments += ["--parent", str(os.getpid())]
        with self.words.open("ab") as words:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                *arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=words,
                process_group=0,
            )
        self._reader = asyncio.create_task(self._read(self._process, listening))
        await self._until(listening.wait(), "listen", 30.0)

    async def _read(self, process: asyncio.subprocess.Process, listening: asyncio.Event) -> None:
        assert_stream = process.stdout
        if assert_stream is None:
            raise MemberFailed(f"{self.name} has no output")
        async for line in assert_stream:
            event = json.loads(line)
            match event["event"]:
                case "listening":
                    self.durability = event["durability"]
                    listening.set()
                case "state":
                    self.state, self.term = event["state"], event["term"]
                    self.leader_since = event["at"] if self.state == "leader" else None
                case "applied":
                    self.applied = event["at"], event["index"]
                case "stopped":
                    self.report = event
        code = await process.wait()
        self.state = "inactive"
        if not self._expected_end:
            self.on_failure(self._failed(f"ended by itself with code {code}"))

    def _failed(self, what: str) -> MemberFailed:
        words = self.words.read_text(errors="replace").splitlines()[-_WORDS_KEPT:]
        return MemberFailed("\n".join([f"{self.name} ({self.address}) {what}; it said:", *words]))

    async def _until(self, waiting: Any, what: str, timeout: float) -> None:
        """Await `waiting`. MemberFailed, with the end of its log, when the child ends or is too
        slow."""
        awaited = asyncio.ensure_future(waiting)
        reader = self._reader
        others = {awaited} if reader is None else {awaited, reader}
        done, _ = await asyncio.wait(others, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        if awaited not in done:
            awaited.cancel()
            raise self._failed(f"did not {what} within {timeout:.0f} s")

    async def kill(self) -> float:
        """Send SIGKILL, and wait for the end; returns the monotonic time at which it was sent."""
        if self._process is None or self._process.returncode is not None:
            raise MemberFailed(f"{self.name} is not running")
        self._expected_end = True
        sent_at = time.monotonic()
        self._process.send_signal(signal.SIGKILL)
        await self._process.wait()
        return sent_at

    async def stop(self, timeout: float = 60.0) -> None:
        """Send SIGTERM, and wait for a clean end. MemberFailed when the child does not end
        cleanly."""
        if self._process is None or self._reader is None:
            raise MemberFailed(f"{self.name} is not running")
        self._expected_end = True
        self._process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(asyncio.shield(self._reader), timeout)
        except TimeoutError:
            raise self._failed(f"did not stop within {timeout:.0f} s") from None
        code = await self._process.wait()
        if code != 0 or not self.report:
            raise self._failed(f"did not stop cleanly (exit code {code})")

    def abandon(self) -> None:
        """Kill the child if it still runs."""
        self._expected_end = True
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
