"""How long a client's connection may take nothing, or say nothing, before it is closed.

What counts is progress, not amount: a client that reads slowly but steadily may have any number
of bytes waiting for it.
"""

from __future__ import annotations

__all__ = ["ProgressTimeout"]


class ProgressTimeout:
    """Judges one connection by its counters. Times in seconds of one monotonic clock."""

    __slots__ = ("_alive_s", "_received", "_sent", "_sent_s")

    def __init__(self, now_s: float) -> None:
        self._received = self._sent = 0
        self._alive_s = self._sent_s = now_s

    def extend(self, late_s: float) -> None:
        """For so long nobody could be heard, since this process was held up: it does not count."""
        self._alive_s += late_s
        self._sent_s += late_s

    def reason_to_close(
        self, now_s: float, limit_s: float, *, received: int, sent: int, unsent: int
    ) -> str:
        """Why the connection is to be closed; "" while it is not.

        received: bytes that came from the peer so far. sent: bytes of ours that it
        acknowledged so far, `unsent` those that it did not yet.
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
            return f"nothing was heard of it for {now_s - self._alive_s:.1f} s"
        return ""
