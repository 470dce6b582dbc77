"""A member that does not lead passes its clients' requests on, untouched, and answers back.

The leader answers over its own link with the connection's token. When the leader changes, what
was passed on may be lost, so its clients are told at once and resend (X26); the sequence
numbers make that harmless (C18).
"""

from __future__ import annotations

from collections.abc import Callable

from copycat.protocol.client import (
    ClientMessage,
    Commands,
    CommandsRefused,
    Failure,
    Refusal,
    ServerMessage,
)

__all__ = ["Relay"]


class _Passed:
    """What one connection has under way at the leader."""

    __slots__ = ("requests", "sessions")

    def __init__(self) -> None:
        self.sessions: set[int] = set()
        self.requests: set[int] = set()


class Relay:
    """Remembers who waits for the leader."""

    def __init__(self, answer: Callable[[int, ServerMessage], None]) -> None:
        self._answer = answer
        self._passed: dict[int, _Passed] = {}

    def passed(self, connection: int, message: ClientMessage) -> None:
        """This request of a connection went to the leader."""
        passed = self._passed.setdefault(connection, _Passed())
        if isinstance(message, Commands):
            passed.sessions.add(message.session)
        else:
            passed.requests.add(message.request)

    def returned(self, connection: int, request: int) -> None:
        """The leader answered a numbered request."""
        passed = self._passed.get(connection)
        if passed is not None:
            passed.requests.discard(request)

    def connection_gone(self, connection: int) -> None:
        """Nobody waits there any more."""
        self._passed.pop(connection, None)

    def leader_gone(self, leader: str) -> None:
        """Tell every waiting client that its requests may be lost; `leader` is the new one."""
        gone, self._passed = self._passed, {}
        for connection, passed in gone.items():
            reason = "the leader that this request was passed to is gone"
            for session in sorted(passed.sessions):
                refusal = CommandsRefused(session, 1, Refusal.NO_LEADER, leader, reason)
                self._answer(connection, refusal)
            for request in sorted(passed.requests):
                failure = Failure(request, Refusal.NO_LEADER, leader, reason)
                self._answer(connection, failure)
