"""Listeners of single members: for their types and for whether they are reachable."""

from __future__ import annotations

import logging

from copycat.listener_tasks import ListenerTasks
from copycat.listeners import Listeners
from copycat.types import MemberId, MemberStatus, MemberType

__all__ = ["MemberListeners"]

log = logging.getLogger("copycat.server")


class MemberListeners:
    """By member, whether it is one now or not."""

    def __init__(self) -> None:
        self._start = ListenerTasks(log).start
        self._types: dict[MemberId, Listeners[MemberType]] = {}
        self._statuses: dict[MemberId, Listeners[MemberStatus]] = {}

    def types(self, member: MemberId) -> Listeners[MemberType]:
        """Who is called with each new type of `member`."""
        if member not in self._types:
            self._types[member] = Listeners(log, self._start)
        return self._types[member]

    def statuses(self, member: MemberId) -> Listeners[MemberStatus]:
        """Who is called with each new status of `member`."""
        if member not in self._statuses:
            self._statuses[member] = Listeners(log, self._start)
        return self._statuses[member]

    def fire_type(self, member: MemberId, type: MemberType) -> None:
        """`member` is of this type now."""
        if member in self._types:
            self._types[member].fire(type)

    def fire_status(self, member: MemberId, status: MemberStatus) -> None:
        """`member` has this status now."""
        if member in self._statuses:
            self._statuses[member].fire(status)
