"""What the listeners of a cluster are called with, from one configuration to the next.

The member tells it of each configuration that is committed, of leaders and of its links, in the
application's event loop; it works out what is new and calls the listeners.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

from copycat.listener_tasks import ListenerTasks
from copycat.listeners import Listeners
from copycat.protocol.member_record import MemberRecord
from copycat.raft.configuration import Configuration
from copycat.server.member import Member
from copycat.server.member_listeners import MemberListeners
from copycat.types import EntryId, MemberId, MemberStatus, MemberType

__all__ = ["ClusterEvents", "ClusterWatch"]

log = logging.getLogger("copycat.server")


class ClusterEvents:
    """Listeners of one server, over all its starts.

    make_member: makes the object that a listener is called with.
    """

    def __init__(
        self,
        make_member: Callable[[MemberRecord, EntryId], Member],
        member_listeners: MemberListeners,
    ) -> None:
        start = ListenerTasks(log).start
        self.joins: Listeners[Member] = Listeners(log, start)
        self.leaves: Listeners[Member] = Listeners(log, start)
        self.elections: Listeners[Member] = Listeners(log, start)
        self._make_member = make_member
        self._member_listeners = member_listeners
        self._known: Configuration | None = None
        """Listeners have heard of this one."""
        self._election: tuple[MemberId, int] = (MemberId(0), 0)
        """Leader and term that listeners have heard of last."""
        self._unnamed: tuple[MemberId, int] = (MemberId(0), 0)
        """A leader, and its term, that no committed configuration names so far."""

    def started(self, configuration: Configuration) -> None:
        """The server starts and knows this configuration: what is in it is no news."""
        if self._known is None or configuration.entry > self._known.entry:
            self._known = configuration

    def configuration_committed(self, configuration: Configuration) -> None:
        """Call the listeners for what is different in `configuration`, which is committed.

        A member that was a reserve, or away, hears of the difference of two configurations that
        are not neighbours.
        """
        before = self._known
        if before is not None and configuration.entry <= before.entry:
            return
        self._known = configuration
        earlier = {} if before is None else {one.member: one for one in before.members}
        later = {one.member: one for one in configuration.members}
        for member, record in earlier.items():
            if member not in later:
                removed = record._replace(type=MemberType.INACTIVE, is_promotable=False)
                self.leaves.fire(self._make_member(removed, configuration.entry))
                self._member_listeners.fire_type(member, MemberType.INACTIVE)
        for member, record in later.items():
            was = earlier.get(member)
            if was is None:
                self.joins.fire(self._make_member(record, configuration.entry))
            if was is None or was.type is not record.type:
                self._member_listeners.fire_type(member, record.type)
        self.leader_elected(*self._unnamed)

    def leader_elected(self, leader: MemberId, term: int) -> None:
        """`leader` leads `term`; listeners hear of it once, as soon as a committed configuration
        says where it listens (C32 lets a member lead before that)."""
        self._unnamed = leader, term
        if self._known is None or not leader or (leader, term) == self._election:
            return
        record = self._known.record(leader)
        if record is None:
            return
        self._election = leader, term
        self.elections.fire(self._make_member(record, self._known.entry))

    def status_changed(self, member: MemberId, status: MemberStatus) -> None:
        """An entry says that the leader hears `member` again, or not any more."""
        self._member_listeners.fire_status(member, status)


class ClusterWatch:
    """Implements `ClusterListener`: passes what a replica says on to `events`, in another loop.

    call_back: calls a function in the application's event loop, soon.
    """

    def __init__(
        self, events: ClusterEvents, call_back: Callable[[Callable[[], None]], None]
    ) -> None:
        self._events = events
        self._call_back = call_back

    def configuration_committed(self, configuration: Configuration) -> None:
        """See `ClusterListener`."""
        self._call_back(partial(self._events.configuration_committed, configuration))

    def leader_changed(self, leader: MemberId, term: int) -> None:
        """See `ClusterListener`."""
        self._call_back(partial(self._events.leader_elected, leader, term))

    def status_changed(self, member: MemberId, status: MemberStatus) -> None:
        """See `ClusterListener`."""
        self._call_back(partial(self._events.status_changed, member, status))
