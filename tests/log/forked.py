"""Code that changes its process (limits, signals) runs in a child of its own."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable

__all__ = ["in_child"]


def in_child(act: Callable[[], None]) -> None:
    """Call `act` in a forked child; fails with what the child printed when it raised."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(reader)
            act()
            status = 0
        except BaseException:  # noqa: BLE001 - a child of a test must never continue as the test
            os.write(writer, traceback.format_exc().encode()[-60000:])
        finally:
            sys.stdout.flush()
            os._exit(status)
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        report = stream.read().decode()
    _, status = os.waitpid(child, 0)
    assert status == 0, report or f"the child ended with status {status}"
