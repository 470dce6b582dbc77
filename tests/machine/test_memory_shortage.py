"""F23: a process with a limit on its memory, and what stops it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from copycat import command
from tests.machine.test_user_code import Poison
from tests.tidy.tree import ROOT

STARVED = """
import resource
from copycat import ApplicationError, MemoryShortageError
from tests.machine.test_user_code import script_of
from tests.machine.test_memory_shortage import Greedy

script = script_of(Greedy())
session = script.register()
resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
error, one = script.results(session, Greedy.take(10**15, False), Greedy.add())
assert isinstance(error, ApplicationError) and one == 1
try:
    script.commands(session, [Greedy.add(), Greedy.take(8 << 30, {caught})])
except MemoryShortageError as cause:
    print("stopped at", cause.index)
"""


class Greedy(Poison):
    @command
    def take(self, size: int, caught: bool) -> int:
        try:
            return len(bytes(size))
        except MemoryError:
            if not caught:
                raise
            return -1


@pytest.mark.slow
@pytest.mark.parametrize("caught", [False, True])
def test_a_process_that_is_short_of_memory_stops_at_the_entry(caught: bool) -> None:
    """An allocation that a machine with more memory grants, in a process that has a limit."""
    script = STARVED.format(caught=caught)
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("stopped at ")
