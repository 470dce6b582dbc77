"""KeyboardInterrupt at a chosen instruction of copycat's own Python code, and by a timer."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
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


@contextmanager
def alarm_calls(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """SIGALRM calls `handler`, which may raise KeyboardInterrupt; no alarm is left at the end.

    Where the garbage collector runs a callback of a weak reference or a finalizer (those of
    `threading` among them), Python itself drops what is raised in it and reports that to
    `sys.unraisablehook`. The code under test was not interrupted then, so that is no failure.
    """
    handler_before, hook_before = signal.signal(signal.SIGALRM, handler), sys.unraisablehook

    def hook(dropped: sys.UnraisableHookArgs) -> None:
        if not isinstance(dropped.exc_value, KeyboardInterrupt):
            hook_before(dropped)

    sys.unraisablehook = hook
    try:
        yield
    finally:
        with suppress(KeyboardInterrupt):
            signal.setitimer(signal.ITIMER_REAL, 0)
        sys.unraisablehook = hook_before
        signal.signal(signal.SIGALRM, handler_before)


def alarmed(call: Callable[[], object], seconds: float) -> None:
    """Call it; a signal handler raises KeyboardInterrupt after so long, wherever that is."""
    armed = [True]

    def handler(number: int, frame: FrameType | None) -> None:
        if armed[0]:
            armed[0] = False
            raise KeyboardInterrupt

    with alarm_calls(handler):
        try:
            signal.setitimer(signal.ITIMER_REAL, seconds)
            call()
            armed[0] = False
        except KeyboardInterrupt:
            pass
        finally:
            armed[0] = False
