"""Who the members are, in effect: what a change of them means for links, directory and listeners.

The core says which configuration is the newest, and which is committed. New members are dialled as
soon as a configuration names them, and links are closed when it is committed that they are no
members any more (C35). Each step is written into the directory (`ConfigurationStore`).

A member is also heard by those whose configuration does not name it: it may be newer than theirs.
To be answered it needs a link of theirs, as a *guest*. A link that is up stays: a leader that is
elected later may have to say that the guest was removed (C33).

Two members have two links, and each dials one of them. Who is no member any more loses both: it
dials again then, is a guest, and can be answered. With its own link open it would notice nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import assert_never

from copycat.protocol.peer import Hello
from copycat.raft.effects import (
    ConfigurationChanged,
    ConfigurationCommitted,
    EndDeparture,
    Wipe,
)
from copycat.replica.cluster_listener import ClusterListener
from copycat.replica.configuration_store import ConfigurationStore
from copycat.replica.driver import MemberEffect
from copycat.replica.host import Host
from copycat.replica.leader_search import LeaderSearch
from copycat.replica.log_clock import LogClock
from copycat.replica.members import Guest, MemberChanges, MemberTable
from copycat.replica.status import Outage
from copycat.types import MemberId, MemberType

__all__ = ["Membership"]

_LOG = logging.getLogger("copycat.replica")

GUESTS_MAX = 16
INVITED_MAX = 8
"""So many guests at most are not dismissed to make room for others."""
SILENT_MS = 60_000
"""A guest that has no link and was not heard for so long is dialled no more."""
LOOK_MS = SILENT_MS // 4
"""How often it is looked whether a guest has a link."""
CLOSE_MS = 1_000
"""At most so often the connection of a peer is closed because there is no link to it: where more
come than may be guests, each takes the place of another one."""


class Membership:
    """Called in turns."""

    def __init__(
        self,
        host: Host,
        clock: LogClock,
        members: MemberTable,
        store: ConfigurationStore,
        outage: Outage,
        search: LeaderSearch,
        listeners: list[ClusterListener],
        link_ended: Callable[[MemberId], None],
        restart: Callable[[], None],
    ) -> None:
        self._host = host
        self._clock = clock
        self._members = members
        self._store = store
        self._outage = outage
        self._search = search
        self._listeners = listeners
        self._link_ended = link_ended
        self._restart = restart
        self._departing: set[MemberId] = set()
        """No members any more, and the leader, this member, still has to tell them."""
        self._closed_ms = 0
        """When the connection of a peer without a link was closed last."""
        members.cluster_incarnation = store.cluster_incarnation

    def execute(self, effect: MemberEffect, *, leads: bool) -> None:
        """What the core decided. leads: whether this member is the leader."""
        match effect:
            case ConfigurationChanged():
                self._store.changed(effect.configuration)
                self._follow(self._members.adopt(effect.configuration))
            case ConfigurationCommitted():
                self._on_committed(effect, leads=leads)
            case EndDeparture():
                self._disconnect(effect.peer)
            case Wipe():
                self._store.wipe(effect.configuration, self._on_wiped)
            case _:
                assert_never(effect)

    def _on_committed(self, effect: ConfigurationCommitted, *, leads: bool) -> None:
        configuration = effect.configuration
        if configuration.entry <= self._members.committed.entry:
            return  # the file of this directory said so before the core heard of it
        self._store.committed(configuration)
        self._members.cluster_incarnation = self._store.cluster_incarnation
        changes = self._members.commit(configuration)
        if leads:
            self._departing.update(changes.to_disconnect)
            changes = MemberChanges(changes.to_connect, ())
        self._follow(changes)
        for listener in self._listeners:
            listener.configuration_committed(configuration)

    def _on_wiped(self) -> None:
        """The directory says it durably: the next start of this member deletes log and state."""
        is_now = self._members.committed.type(self._members.member)
        what = "was removed from the cluster" if is_now is MemberType.INACTIVE else f"is {is_now}"
        _LOG.info(
            "%s: the leader says that this member %s: it deletes its log and its state",
            self._members.own_address,
            what,
        )
        self._restart()

    # ---- links ---------------------------------------------------------------------------

    def _follow(self, changes: MemberChanges) -> None:
        for peer in changes.to_disconnect:
            self._end_both_links(peer)
        for record in changes.to_connect:
            self._members.guests.pop(record.member, None)
            self._members.invited.discard(record.member)
            self._departing.discard(record.member)
            self._host.connect(record.member, record.address)

    def _disconnect(self, peer: MemberId) -> None:
        if peer in self._departing:
            self._departing.discard(peer)
            self._end_both_links(peer)

    def _end_both_links(self, peer: MemberId) -> None:
        """`peer` is no member any more, or has another address. Who is no member has to notice
        it, or it would write for ever to members that cannot answer (C33)."""
        self._end_link(peer)
        if not self._members.is_dialled(peer):
            self._host.close_inbound(peer)

    def _end_link(self, peer: MemberId) -> None:
        """The core hears of it at once, and not only when the host says so: that may be a turn
        later."""
        self._host.disconnect_peer(peer)
        self._link_ended(peer)
        if not self._members.is_dialled(peer):
            self._members.greeted_incarnations.pop(peer, None)
            self._members.greeted_places.pop(peer, None)
            self._members.answers.pop(peer, None)
            self._outage.forget(peer)

    def stepped_down(self) -> None:
        """This member does not lead any more: the next leader tells those that are no members."""
        for peer in list(self._departing):
            self._disconnect(peer)

    def greeted(self, hello: Hello) -> None:
        """A Hello was found good: if it is of no member, it can be answered from now on.

        Who is to be added is dialled where whoever asks for that says, and nowhere else (C37).
        """
        member = hello.member
        if member in self._members or member in self._departing:
            return
        is_invited = member in self._members.invited
        address = self._members.guests[member].address if is_invited else hello.address
        self._receive(member, address)
        self._members.greeted(hello)

    def heard_unlinked(self, peer: MemberId) -> None:
        """A frame came from a peer that this member has no link to: it dials again when its
        connection is closed, and is a guest then, which can be answered."""
        now_ms, members = self._clock.now_ms, self._members
        if members.is_dialled(peer) or peer in self._departing:
            return
        if now_ms - self._closed_ms >= CLOSE_MS:
            self._closed_ms = now_ms
            self._host.close_inbound(peer)

    def _meet(self, member: MemberId, address: str) -> None:
        """Another member says that `member` leads, which was not heard for long: dial it, and dial
        it again if it has a link, for that leader has none to this member, so it seems."""
        members = self._members
        if member in self._departing:
            return
        if member not in members:
            self._receive(member, address)
        elif member in members.links and members.member in members:
            self._end_link(member)
            self._host.connect(member, members[member])

    def invite(self, member: MemberId, address: str) -> None:
        """This leader was asked to add a member: dial it there, for nobody is added without a link
        to the address that its record is to have (C37)."""
        if member in self._members:
            return
        self._members.invited.discard(member)
        invited = [each for each in self._members.guests if each in self._members.invited]
        for oldest in invited[: max(0, len(invited) - INVITED_MAX + 1)]:
            self._dismiss(oldest)
        self._receive(member, address)
        self._members.invited.add(member)

    def end_invitation(self, member: MemberId) -> None:
        """It was not added: if it says Hello, it is dialled where that says."""
        self._members.invited.discard(member)

    def _receive(self, member: MemberId, address: str) -> None:
        """`member` is a guest at this address, the newest one."""
        guests = self._members.guests
        known = guests.pop(member, None)
        guests[member] = Guest(address, self._clock.now_ms)
        if known is not None and known.address != address:
            self._end_link(member)
        while len(guests) > GUESTS_MAX:
            self._dismiss(next(each for each in guests if each not in self._members.invited))
        if known is None or known.address != address:
            self._host.connect(member, address)

    def advance(self, now_ms: int) -> None:
        """Now and then: dial no more the guests that are away, and look for a leader if none is
        known."""
        if self._search.due_ms <= now_ms:
            self._search.advance(now_ms, self._meet)
        guests = self._members.guests
        for member in [each for each in guests if self._due_ms(each) <= now_ms]:
            if member in self._members.links:
                guests[member] = guests[member]._replace(seen_ms=now_ms)
            else:
                self._dismiss(member)

    def _due_ms(self, member: MemberId) -> int:
        seen_ms = max(self._outage.received_ms(member), self._members.guests[member].seen_ms)
        return seen_ms + (LOOK_MS if member in self._members.links else SILENT_MS)

    def _dismiss(self, member: MemberId) -> None:
        del self._members.guests[member]
        self._members.invited.discard(member)
        self._end_link(member)
