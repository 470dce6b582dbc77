"""Who may be a peer: names, lists and incarnations (C16). No sockets: values in, values out.

A directory has a random incarnation. The first time that a leader meets a member it commits
the pair; from then on another incarnation under the same id is a lost disk, and its votes and
acknowledgements must not count: it forgot what it promised (F8).
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from copycat.errors import (
    ConfigurationError,
    CopycatError,
    ProtocolError,
    VersionMismatchError,
    WrongDirectoryError,
)
from copycat.machine.envelope import decode_incarnation
from copycat.protocol.codec_peer import decode_hello, encode_hello_refused
from copycat.protocol.framing import Frame
from copycat.protocol.peer import Hello, HelloRefused
from copycat.raft.events import Reachable
from copycat.storage.interface import ReplicaLog
from copycat.types import EntryKind, MemberId, SkippedEntry

__all__ = ["PROTOCOL_VERSIONS", "Handshake", "Peer", "PeerRefused", "logged_pins"]

PROTOCOL_VERSIONS = (3, 3)
"""Lowest and highest version of the peer protocol that this build speaks."""


_READ_NBYTES = 1 << 20
_SEARCH_NBYTES = 64 << 20


class Peer(msgspec.Struct, frozen=True):
    """A voter of configuration 0."""

    member: MemberId
    address: str


class PeerRefused(ProtocolError):
    """A dialler that is not let in. `frame` tells it why; the listener then closes."""

    code = "peer-refused"
    default_hint = "see the reason above"
    frame: bytes = b""

    @classmethod
    def of(cls, cause: CopycatError) -> PeerRefused:
        """Refuse for this cause."""
        frame = encode_hello_refused(HelloRefused(cause.code, cause.message))
        return cls(cause.message, hint=cause.hint, frame=frame)


class Handshake:
    """Judges the Hello of a dialler, and the answer to our own."""

    def __init__(
        self,
        *,
        cluster_name: str,
        me: Peer,
        peers: tuple[Peer, ...],
        incarnation: int,
        logged: Mapping[MemberId, int],
        skips: tuple[SkippedEntry, ...] = (),
    ) -> None:
        self._skips = skips
        self._cluster_name = cluster_name
        self._me = me
        self._addresses = tuple(sorted([me.address, *(peer.address for peer in peers)]))
        self._by_member = {peer.member: peer for peer in peers}
        self._incarnation = incarnation
        self.pins: dict[MemberId, int] = {}
        """member -> incarnation, as committed and applied here."""
        self._logged = logged
        """The same as far as the log told at the start. Nothing is applied yet then, and a
        wiped member that is let in before would help to elect somebody who lacks entries."""
        self.met: dict[MemberId, int] = {}
        """What each peer said last; the leader commits those that are not pinned yet."""

    def hello(self, *, fresh: bool, lost: bool = False) -> Hello:
        """What this member opens its links with."""
        return Hello(
            self._cluster_name,
            self._addresses,
            self._me.member,
            self._incarnation,
            self._me.address,
            fresh,
            PROTOCOL_VERSIONS,
            lost,
            self._skips,
        )

    def judge(self, hello: Hello) -> Peer:
        """The peer that said this Hello; raises the reason why it is not let in."""
        if hello.cluster_name != self._cluster_name:
            raise self._wrong(
                f'{hello.address} is a member of cluster "{hello.cluster_name}", '
                f'{self._me.address} of "{self._cluster_name}"'
            )
        low, high = hello.protocol
        if low > PROTOCOL_VERSIONS[1] or high < PROTOCOL_VERSIONS[0]:
            raise VersionMismatchError(
                f"{hello.address} speaks protocol {low} to {high}, {self._me.address} "
                f"{PROTOCOL_VERSIONS[0]} to {PROTOCOL_VERSIONS[1]}"
            )
        if hello.members != self._addresses:
            raise ConfigurationError(
                f"{hello.address} was started with members {', '.join(hello.members)}; "
                f"{self._me.address} with {', '.join(self._addresses)}",
                hint="start every founding member with the same list of addresses",
            )
        peer = self._by_member.get(hello.member)
        if peer is None or peer.address != hello.address:
            raise self._wrong(
                f"{hello.address} with member id {hello.member:032x} is no other member of "
                f'cluster "{self._cluster_name}"'
            )
        if hello.skips != self._skips:
            raise ConfigurationError(
                f"{hello.address} skips {_listed(hello.skips)}, {self._me.address} skips"
                f" {_listed(self._skips)}: their states would differ",
                hint="stop both, and have every member skip the same entries: copycat recover"
                " --skip-entry INDEX DIRECTORY, or copy the file skipped-entries",
            )
        self._check_incarnation(peer, hello.incarnation)
        self.met[peer.member] = hello.incarnation
        return peer

    def accept(self, frame: Frame) -> MemberId:
        """A dialler's Hello: who it is. PeerRefused: the frame of it says why."""
        try:
            return self.judge(decode_hello(frame)).member
        except CopycatError as cause:
            raise PeerRefused.of(cause) from cause

    def answered(self, peer: MemberId, frame: Frame) -> Reachable:
        """The answer to our Hello on a link to `peer`, as `Replica.peer_up` wants it."""
        hello = decode_hello(frame)
        if self.judge(hello).member != peer:
            address = self._by_member[peer].address if peer in self._by_member else peer
            raise ProtocolError(f"{hello.address} answered on the link to {address}")
        return Reachable(peer, hello.fresh, hello.lost)

    def _check_incarnation(self, peer: Peer, incarnation: int) -> None:
        pinned = self.pins.get(peer.member, self._logged.get(peer.member))
        if pinned is not None and pinned != incarnation:
            raise WrongDirectoryError(
                f"{peer.address} came back with another directory (incarnation "
                f"{incarnation:032x}, the cluster knows {pinned:032x}): what it acknowledged "
                "may be lost, so it has no vote",
                hint="bring the old directory back, or replace this member by a new one",
            )

    def pin(self, member: MemberId, incarnation: int) -> CopycatError | None:
        """A committed pin was applied. An error when it is not the directory that we have."""
        self.pins.setdefault(member, incarnation)
        is_alone = len(self._addresses) == 1  # nobody else acted on what it promised
        if member == self._me.member and self.pins[member] != self._incarnation and not is_alone:
            return self._wrong(
                f"the cluster knows {self._me.address} by incarnation "
                f"{self.pins[member]:032x}; this directory is {self._incarnation:032x}"
            )
        return None

    def unpinned(self) -> list[tuple[MemberId, int]]:
        """Pairs that the leader should commit now: itself, and every peer it has met."""
        known = [(self._me.member, self._incarnation), *self.met.items()]
        return [(member, number) for member, number in known if member not in self.pins]

    @staticmethod
    def _wrong(message: str) -> WrongDirectoryError:
        return WrongDirectoryError(f"{message}; it was not let in")


def _listed(skips: tuple[SkippedEntry, ...]) -> str:
    each = [f"{skip.index} (term {skip.term}, checksum {skip.crc:08x})" for skip in skips]
    return "entry " + ", entry ".join(each) if each else "no entry"


def logged_pins(log: ReplicaLog, members: int) -> dict[MemberId, int]:
    """Member -> incarnation, as the entries of the log say, committed or not.

    Members are pinned when they first meet, so the first few entries nearly always tell all;
    where a member never came, the search ends after `_SEARCH_NBYTES`.
    """
    pins: dict[MemberId, int] = {}
    index, end, searched = log.first_index, log.last_index + 1, 0
    while members > 1 and index < end and len(pins) < members and searched < _SEARCH_NBYTES:
        batch = log.read(index, end, _READ_NBYTES)
        searched += batch.nbytes
        index = batch.span.end
        for run in batch.runs(batch.span.first, index):
            if run.kind == EntryKind.INCARNATION:
                member, incarnation = decode_incarnation(run.payloads[0])
                pins.setdefault(MemberId(member), incarnation)
    return pins
