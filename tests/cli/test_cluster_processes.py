"""`copycat serve --join` and `copycat cluster` as processes: one that is killed comes back as the
member that its directory says."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.server.cluster import free_address
from tests.tidy.tree import ROOT

pytestmark = pytest.mark.slow

LIMIT_S = 40.0
APP = "copycat.machine.kv:KeyValueStore"


def started(path: Path, address: str, *words: str) -> subprocess.Popen[str]:
    """A member in a process of its own."""
    name = address.rpartition(":")[2]
    arguments = ["serve", address, "--app", APP, "--directory", str(path / name), *words]
    return subprocess.Popen(
        [sys.executable, "-m", "copycat", *arguments, "--log-level", "error"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def command(*words: str) -> subprocess.CompletedProcess[str]:
    """`copycat cluster`, run to its end."""
    return subprocess.run(
        [sys.executable, "-m", "copycat", "cluster", *words],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )


def until_seen(address: str, expected: dict[str, tuple[str, str]]) -> None:
    """Wait until the member at this address shows these members: address -> (type, role)."""
    deadline = time.monotonic() + LIMIT_S
    actual: Any = None
    while time.monotonic() < deadline:
        done = command("status", address, "--json")
        if done.returncode == 0:
            rows = json.loads(done.stdout)["members"]
            actual = {row["address"]: (row["type"], row["role"]) for row in rows}
            if actual == expected:
                return
    raise AssertionError(f"{address} shows {actual}, and not {expected}")


def test_a_member_that_is_killed_is_the_member_that_it_was(tmp_path: Path) -> None:
    first, second, third = (free_address() for _ in range(3))
    processes = {first: started(tmp_path, first)}
    try:
        until_seen(first, {first: ("active", "leader")})
        processes[second] = started(tmp_path, second, "--join", first, "--type", "passive")
        processes[third] = started(tmp_path, third, "--join", first, "--type", "inactive")
        until_seen(first, {first: ("active", "leader"), second: ("passive", "passive")})

        added = command("add", third, "--type", "reserve", "--member", second)
        assert (added.returncode, added.stdout) == (0, f"{third} is reserve\n"), added.stderr
        assert f"waiting for the cluster to add {third} as reserve" in added.stderr
        last = command("remove", first)
        assert last.returncode == 5
        assert last.stderr.splitlines()[-3].startswith("error[last-voter]: ")

        for address in (second, third):
            processes[address].send_signal(signal.SIGKILL)
            processes[address].wait(LIMIT_S)
            processes[address] = started(tmp_path, address)
        everybody = {
            first: ("active", "leader"),
            second: ("passive", "passive"),
            third: ("reserve", "reserve"),
        }
        until_seen(third, everybody)
        promoted = command("promote", second, "--member", third)
        assert (promoted.returncode, promoted.stdout) == (0, f"{second} is active\n")
    finally:
        for process in processes.values():
            process.send_signal(signal.SIGTERM)
        for process in processes.values():
            process.wait(LIMIT_S)
