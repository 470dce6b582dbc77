"""The state of a member as its users see it, and who is called when it is another one."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from copycat.raft.core import Raft
from copycat.types import MemberType, ServerState

__all__ = ["ServerStates"]

_WITHOUT_ROLE = {
    MemberType.INACTIVE: ServerState.INACTIVE,
    MemberType.RESERVE: ServerState.RESERVE,
    MemberType.PASSIVE: ServerState.PASSIVE,
    MemberType.ACTIVE: ServerState.FOLLOWER,
}
"""The state of a member that does not campaign or lead."""


class ServerStates:
    """A role of the core, or the type of a member that has none."""

    def __init__(self, raft: Raft) -> None:
        self._raft = raft
        self._facts: tuple[object, ...] = ()
        self._shown = self.current
        self._listeners: list[Callable[[ServerState], None]] = []

    @property
    def current(self) -> ServerState:
        """What this member does now."""
        raft = self._raft
        if raft.state is not ServerState.FOLLOWER:
            return raft.state
        return _WITHOUT_ROLE[raft.own_record.member_type]

    def add(self, callback: Callable[[ServerState], None]) -> Callable[[], None]:
        """Call back with each new state; the returned function ends that."""
        self._listeners.append(callback)
        return partial(self._listeners.remove, callback)

    def show(self) -> None:
        """Call the listeners if the state is another one than at the last call."""
        raft = self._raft
        facts = raft.state, raft.configuration, raft.orders
        if facts == self._facts:
            return
        self._facts = facts
        state = self.current
        if state is not self._shown:
            self._shown = state
            for listener in list(self._listeners):
                listener(state)
