"""Leadership that somebody asked to be handed over: whom to tell how that went."""

from __future__ import annotations

from collections.abc import Callable

from copycat.raft.events import Event, TransferRequested
from copycat.raft.raft import Raft
from copycat.types import MemberId, ServerState

__all__ = ["Handover"]


class Handover:
    """One answer of the core ends all that were asked meanwhile."""

    def __init__(self, raft: Raft, step: Callable[[Event], None]) -> None:
        self._raft = raft
        self._step = step
        self._asked: list[Callable[[bool], None]] = []

    def ask(self, to: MemberId, done: Callable[[bool], None]) -> None:
        """In a turn: to `to`, or to the best follower when 0. False at once if none leads here."""
        if self._raft.state is not ServerState.LEADER:
            done(False)
            return
        self._asked.append(done)
        self._step(TransferRequested(to))

    def finished(self, ok: bool) -> None:
        """The core said how it went."""
        asked, self._asked = self._asked, []
        for done in asked:
            done(ok)
