"""The README's programs run as printed: a durable log, and a replicated state machine."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tidy.tree import ROOT

_PROGRAM = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_PORT = "127.0.0.1:8700"
_SLOW_STEP = re.compile(r"^Executing <.*> took \d+\.\d+ seconds\n", re.MULTILINE)
"""What asyncio's development mode says of a step above 0.1 s: that this machine is busy, which
is no business of a test. That the product does its long work off the loop is shown elsewhere."""


def programs() -> list[str]:
    """Every Python block of the README, in order."""
    return _PROGRAM.findall((ROOT / "README.md").read_text(encoding="utf-8"))


def free_address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as one:
        return f"127.0.0.1:{one.getsockname()[1]}"


def run(program: str, at: Path) -> str:
    """What the program prints in directory `at`; warnings are errors there as here."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-X", "dev", "-c", program],
        cwd=at,
        env={"PYTHONPATH": str(ROOT), "PYTHONDEVMODE": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert not _SLOW_STEP.sub("", done.stderr)
    return done.stdout


def test_the_readme_has_two_programs_of_the_promised_size() -> None:
    log, machine = programs()
    assert len(log.strip().splitlines()) <= 9
    assert len(machine.strip().splitlines()) <= 26


@pytest.mark.slow
def test_the_log_program_runs_twice(tmp_path: Path) -> None:
    program = programs()[0]
    for times in (1, 2):
        words = run(program, tmp_path).splitlines()
        assert words[0] == f"{1001 * (times - 1) + 1} b'user 7 signed in'"
        assert words[-1] == f"{1001 * times} entries in 1 segment(s)"


@pytest.mark.slow
def test_the_machine_program_runs_twice(tmp_path: Path) -> None:
    """As printed but for the port, which another program of this machine may have."""
    program = programs()[1]
    assert _PORT in program
    program = program.replace(_PORT, free_address())
    assert run(program, tmp_path) == "chairs: 12\n"
    assert run(program, tmp_path) == "chairs: 24\n"
