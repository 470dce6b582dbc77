"""Closes a client's connection on which nothing was read, or nothing was sent, for too long.

What counts is progress: a client that reads slowly but steadily may have any number of bytes
waiting for it.
"""

from __future__ import annotations

__all__ = ["ProgressTimeout"]


class ProgressTimeout:
    """The progress of one connection, by its counters. Times in seconds of one monotonic clock."""

    __slots__ = ("_alive_s", "_received", "_sent", "_sent_s")

    def __init__(self, now_s: float) -> None:
        self._received = self._sent = 0
        self._alive_s = self._sent_s = now_s

    def extend(self, late_s: float) -> None:
        """Do not count `late_s` seconds in which this process was blocked and could read
        nothing."""
        self._alive_s += late_s
        self._sent_s += late_s

    def reason_to_close(
        self, now_s: float, limit_s: float, *, received: int, sent: int, unsent: int
    ) -> str:
        """Why the connection must be closed now; "" when it need not be closed.

        limit_s: how many seconds may pass without progress. received: bytes that have arrived
        from the client. sent: bytes that the client has acknowledged. unsent: bytes that were
        written and that the client has not acknowledged yet.
        """
        if (received, sent) != (self._received, self._sent):
            self._alive_s = now_s
        if sent != self._sent or not unsent:
            self._sent_s = now_s
        self._received, self._sent = received, sent
        if unsent and now_s - self._sent_s >= limit_s:
            return (
                f"it does not read: {unsent} bytes of replies wait, and it took none of them in"
                f" {now_s - self._sent_s:.1f} s"
            )
        if not unsent and now_s - self._alive_s >= limit_s:
            return f"it sent nothing for {now_s - self._alive_s:.1f} s"
        return ""
