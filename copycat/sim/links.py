"""One member's outgoing links to its peers: dialled, opened by Hello, broken, dialled again.

Every ordered pair of members has one link, and only its owner learns of its end (`peer_down`).
A link connects two processes, its owner's and its target's; frames of a link that broke arrive
late or never.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from copycat.errors import CopycatError
from copycat.protocol.codec_hello import decode_hello
from copycat.protocol.framing import split_frame
from copycat.protocol.peer import Hello, PeerMessage
from copycat.replica.replica import Replica
from copycat.seeded_random import SimRandom
from copycat.sim.checkers.log_history import violated
from copycat.sim.network import Network
from copycat.sim.world import MS, Trace, World
from copycat.types import MemberId

__all__ = ["Links", "Process"]

BACKOFF_US = 20 * MS
DIAL_TIMEOUT_US = 300 * MS


class Process(Protocol):
    """What a link asks of the member at either of its ends (`SimHost`)."""

    number: int
    process: int
    """The number of the current process."""
    is_up: bool
    replica: Replica | None
    links: Links

    def soon(self, delay_us: int, callback: Callable[..., None], *args: object) -> None: ...
    def guarded(self, process: int, callback: Callable[..., None], *args: object) -> None: ...
    def receive(self, source: int, data: bytes, message: PeerMessage | None) -> None: ...


class _Link:
    __slots__ = ("dial", "generation", "is_cut", "is_dialled", "is_up", "target_process")

    def __init__(self) -> None:
        self.dial = 0
        """The Hello that may open it; a later one makes earlier answers void."""
        self.generation = 0
        self.is_dialled = False
        """The replica asked for it (`Host.connect`)."""
        self.is_up = False
        self.is_cut = False
        """The link is broken, but its owner has not noticed."""
        self.target_process = 0


class Links:
    """All outgoing links of `host`."""

    def __init__(
        self,
        host: Process,
        hosts: Sequence[Process],
        ids: Sequence[MemberId],
        world: World,
        network: Network,
        random: SimRandom,
        trace: Trace,
    ) -> None:
        self.ids = ids
        self.numbers = {member: number for number, member in enumerate(ids)}
        self._host = host
        self._hosts = hosts
        self._world = world
        self._network = network
        self._random = random
        self._trace = trace
        self._links = {n: _Link() for n in range(len(ids)) if n != host.number}

    # --- the owner's view -----------------------------------------------------------------

    def is_up(self, to: int) -> bool:
        return self._links[to].is_up

    def connect(self, to: int) -> None:
        """Dial this member, and again whenever the link to it breaks."""
        self._links[to].is_dialled = True
        self._host.soon(self._random.around(MS), self._dial, to)

    def disconnect(self, to: int) -> None:
        """End the link to this member, and do not dial it any more."""
        link = self._links[to]
        link.is_dialled = False
        link.dial += 1
        if link.is_up:
            self.cut(to, self._random.around(MS))

    def close_inbound(self, source: int) -> None:
        """End the link of that member to this one: it notices, and dials again."""
        self._hosts[source].links.cut(self._host.number, self._random.around(MS))

    def transmit(self, to: int, data: bytes, message: PeerMessage | None) -> None:
        """Put one frame on the link. On a broken link it is lost; a target that is up again
        answers that it knows of no such connection."""
        link = self._links[to]
        if link.is_cut and self._hosts[to].is_up:
            self._host.soon(self._random.around(2 * MS), self._noticed, to, link.generation)
        if link.is_up and not link.is_cut:
            self._network.transmit(
                self._host.number, to, self._arrive, to, link.generation, data, message
            )

    def _arrive(self, to: int, generation: int, data: bytes, message: PeerMessage | None) -> None:
        link, target = self._links[to], self._hosts[to]
        if generation != link.generation or link.is_cut:
            if target.process != link.target_process or not self._random.chance(500_000):
                return
            self._trace.mark("frame of a broken link arrives")
        target.guarded(link.target_process, target.receive, self._host.number, data, message)

    # --- the end of a link ------------------------------------------------------------------

    def cut(self, to: int, notice_us: int) -> None:
        """The link breaks; its owner notices a little later."""
        link = self._links[to]
        if link.is_up and not link.is_cut:
            link.is_cut = True
            self._host.soon(notice_us, self._noticed, to, link.generation)

    def _noticed(self, to: int, generation: int) -> None:
        link, replica = self._links[to], self._host.replica
        if generation != link.generation or not link.is_up or replica is None:
            return
        link.is_up = False
        self._trace.record(self._world.now_us, self._host.number, "link down", to)
        replica.peer_down(self.ids[to])
        self._host.soon(self._random.around(BACKOFF_US), self._dial, to)

    def lost(self, *, was_power: bool) -> None:
        """The owner's process ended: its links end, and other members notice that theirs to it
        broke."""
        for link in self._links.values():
            link.is_up = link.is_cut = link.is_dialled = False
            link.dial += 1
        for other in self._hosts:
            if other is not self._host and other.is_up:
                wait = self._random.around(500 * MS) if was_power else self._random.around(2 * MS)
                other.links.cut(self._host.number, wait)

    # --- dialling ---------------------------------------------------------------------------

    def _dial(self, to: int) -> None:
        link, host = self._links[to], self._host
        if link.is_up or not link.is_dialled or host.replica is None:
            return
        link.dial += 1
        hello = host.replica.hello()
        target = self._hosts[to]
        self._network.transmit(
            host.number, to, target.links.on_hello, host.number, host.process, link.dial, hello
        )
        timeout_us = DIAL_TIMEOUT_US + self._random.around(BACKOFF_US)
        host.soon(timeout_us, self._dial_expired, to, link.dial)

    def _dial_expired(self, to: int, dial: int) -> None:
        if self._links[to].dial == dial and not self._links[to].is_up:
            self._dial(to)

    def on_hello(self, source: int, source_process: int, dial: int, hello: bytes) -> None:
        """A peer's Hello reached this member."""
        host = self._host
        host.guarded(host.process, self._answer, source, source_process, dial, hello)

    def _answer(self, source: int, source_process: int, dial: int, hello: bytes) -> None:
        host, replica = self._host, self._host.replica
        if replica is None:
            return
        try:
            member, answer = replica.accept_peer(split_frame(hello))
        except CopycatError as cause:
            if self._is_unknown_newcomer(replica, decode_hello(split_frame(hello))):
                self._trace.mark("newcomer refused")
                return
            raise violated("C16", "an honest peer was refused", cause=str(cause)) from cause
        if self.numbers[member] != source:
            raise violated("C16", "a Hello of somebody else", source=source, member=member)
        dialler = self._hosts[source]
        self._network.transmit(
            host.number,
            source,
            dialler.guarded,
            source_process,
            dialler.links.opened,
            host.number,
            host.process,
            dial,
            answer,
        )

    @staticmethod
    def _is_unknown_newcomer(replica: Replica, hello: Hello) -> bool:
        """Whether nobody asked this member to add the dialler, which does not know yet which
        cluster this is: it took what it knows from before the first change."""
        return hello.cluster_incarnation == 0 and hello.member not in replica.members

    def opened(self, to: int, target_process: int, dial: int, answer: bytes) -> None:
        """The answer to our Hello: the link is up, unless something newer happened."""
        link, host, replica = self._links[to], self._host, self._host.replica
        if link.is_up or link.dial != dial or replica is None:
            return
        frame = split_frame(answer)
        try:
            event = replica.check_hello(self.ids[to], frame)
        except CopycatError as cause:
            if self._is_unknown_newcomer(replica, decode_hello(frame)):
                self._trace.mark("newcomer refused")
                return
            raise violated("C16", "an honest answer was refused", cause=str(cause)) from cause
        link.dial += 1
        link.generation += 1
        link.is_up, link.is_cut, link.target_process = True, False, target_process
        self._trace.record(self._world.now_us, host.number, "link up", to)
        replica.peer_up(event)
        if self._hosts[to].process != target_process:
            self.cut(to, self._random.around(2 * MS))
