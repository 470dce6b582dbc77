"""KeyboardInterrupt at a chosen instruction of copycat's own Python code, and by a timer."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import copycat

_OURS = copycat.__file__.removesuffix("__init__.py")


class Interrupt:
    """Raises before the `at`th instruction that runs; `was_raised` when there were so many."""

    def __init__(self, at: int) -> None:
        self._left = at
        self.was_raised = False

    def run(self, call: Callable[[], object]) -> object:
        """What `call` returns; None when it was interrupted."""
        sys.settrace(self._enter)
        try:
            return call()
        except KeyboardInterrupt:
            return None
        finally:
            sys.settrace(None)

    def _enter(self, frame: FrameType, event: str, _: Any) -> Any:
        if not frame.f_code.co_filename.startswith(_OURS):
            return None
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        return self._step

    def _step(self, frame: FrameType, event: str, _: Any) -> Any:
        if event == "opcode":
            self._left -= 1
            if self._left == 0:
                self.was_raised = True
                raise KeyboardInterrupt
        return self._step


def everywhere(attempt: Callable[[Interrupt], None], *, step: int = 1) -> int:
    """Call `attempt` with an interrupt before each `step`th instruction, until one comes too
    late; how often it was interrupted."""
    at = count = 0
    while True:
        at += step
        interrupt = Interrupt(at)
        attempt(interrupt)
        if not interrupt.was_raised:
            return count
        count += 1


def alarmed(call: Callable[[], object], seconds: float) -> None:
    """Call it; a signal handler raises KeyboardInterrupt after so long, wherever that is."""
    armed = [True]

    def handler(number: int, frame: FrameType | None) -> None:
        if armed[0]:
            armed[0] = False
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds)
        call()
        armed[0] = False
    except KeyboardInterrupt:
        pass
    finally:
        armed[0] = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
