"""The members of a run: `copycat serve` as processes, each in its own network namespace."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

from tests.chaos.namespaces import Namespace
from tests.chaos.processes import ProcessFailed, ended, last_words, launch, until

__all__ = ["Member"]

_APP = "tests.chaos.machine:ChaosMachine"


class Member:
    """One member; `poll` reads what its process has printed.

    words: the options that say of which cluster it is a member. settings: of `[storage]`, as
    TOML; empty to keep every entry.
    """

    def __init__(
        self,
        namespace: Namespace,
        address: tuple[str, int],
        words: list[str],
        root: Path,
        settings: str,
    ) -> None:
        self.name = namespace.name
        self.address = f"{address[0]}:{address[1]}"
        self.directory = root / self.name
        self.is_paused = False
        self.state = "inactive"
        self.term = 0
        self.applied = 0
        self.report: dict[str, Any] = {}
        """What the process said at its last clean end."""
        self.starts = 0
        self._namespace = namespace
        self._words = words
        self._output = root / f"{self.name}.out"
        self._log = root / f"{self.name}.log"
        self._settings = root / f"{self.name}.toml"
        if settings:
            self._settings.write_text(f"[storage]\n{settings}", encoding="ascii")
        self._process: subprocess.Popen[bytes] | None = None
        self._is_expected_to_end = False
        self._is_listening = False
        self._offset = 0

    @property
    def is_running(self) -> bool:
        """Whether there is a process, paused or not."""
        return self._process is not None and self._process.poll() is None

    def launch(self) -> None:
        """Start the process."""
        self._is_expected_to_end = self._is_listening = False
        self.state, self.applied, self.report = "inactive", 0, {}
        words = ["copycat", "serve", self.address, "--app", _APP, "--json"]
        words += ["--directory", str(self.directory), "--parent", str(os.getpid())]
        words += [*self._words, "--cluster-name", "chaos"]
        has_settings = self._settings.exists()
        words += ["--config", str(self._settings)] if has_settings else ["--keep-log"]
        self._offset = self._output.stat().st_size if self._output.exists() else 0
        self._process = launch(self._namespace, words, self._output, self._log)
        self.starts += 1

    async def listening(self, seconds: float = 120.0) -> None:
        """Wait until the process serves clients."""
        await until(self._listens, f"{self.name} listens", seconds)

    def _listens(self) -> bool:
        self.poll()
        return self._is_listening

    def poll(self) -> None:
        """Read new lines of output. ProcessFailed when the process has ended by itself."""
        with self._output.open("rb") as file:
            file.seek(self._offset)
            text = file.read()
        whole = text[: text.rfind(b"\n") + 1]
        self._offset += len(whole)
        for line in whole.splitlines():
            self._take(json.loads(line))
        if self._process is not None and not self._is_expected_to_end:
            code = self._process.poll()
            if code is not None:
                words = last_words(self._log)
                raise ProcessFailed(f"{self.name} ended by itself with code {code}\n{words}")

    def _take(self, event: dict[str, Any]) -> None:
        match event["event"]:
            case "listening":
                self._is_listening = True
            case "state":
                self.state, self.term = event["state"], event["term"]
            case "applied":
                self.applied = event["index"]
            case "stopped":
                self.report = event

    def signal(self, number: int) -> None:
        if self._process is not None:
            self._process.send_signal(number)

    async def kill(self) -> None:
        """SIGKILL, and wait for the end."""
        self.state = "inactive"
        await self._end(signal.SIGKILL)

    async def _end(self, number: int) -> int:
        self._is_expected_to_end = True
        self.signal(number)
        return 0 if self._process is None else await ended(self._process, self.name, 120.0)

    def pause(self) -> None:
        """SIGSTOP."""
        self.is_paused = True
        self.signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        self.is_paused = False
        self.signal(signal.SIGCONT)

    async def stop(self) -> None:
        """SIGTERM. ProcessFailed when the end is not clean."""
        code = await self._end(signal.SIGTERM)
        self.poll()
        if code != 0 or not self.report:
            raise ProcessFailed(
                f"{self.name} did not stop cleanly: code {code}\n{last_words(self._log)}"
            )

    def abandon(self) -> None:
        """Kill the process if there is one."""
        self._is_expected_to_end = True
        if self._process is not None:
            self._process.kill()
            self._process.wait()
