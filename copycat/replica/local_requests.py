"""Requests that this member's own process makes of its replica, beside those of connections."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

from copycat.protocol.client import ServerMessage

__all__ = ["LocalRequests"]

FIRST_TOKEN = 1 << 63
"""Tokens of connections are below this (`server/listener.py`, `sim/host.py`)."""


class LocalRequests:
    """Who waits for the answer to a request that came by no connection.

    Such a request has a token as a connection has one, so it is forwarded as any other, and a
    leader that changes answers it as any other.
    """

    def __init__(self) -> None:
        self._tokens = count(FIRST_TOKEN)
        self._waiting: dict[int, Callable[[ServerMessage], None]] = {}

    def add(self, done: Callable[[ServerMessage], None]) -> int:
        """The token of a new request; `done` is called once, in a turn, with its answer."""
        token = next(self._tokens)
        self._waiting[token] = done
        return token

    def is_local(self, token: int) -> bool:
        """Whether a request of this process has this token."""
        return token >= FIRST_TOKEN

    def cancel(self, token: int) -> None:
        """Nobody waits for this answer any more."""
        self._waiting.pop(token, None)

    def answer(self, token: int, message: ServerMessage) -> None:
        """The request with this token is answered; a second answer is dropped."""
        done = self._waiting.pop(token, None)
        if done is not None:
            done(message)
