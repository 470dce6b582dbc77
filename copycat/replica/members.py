"""Who the members of the cluster are, and which peers are accepted as one of them.

The core decides who is a member and says so with `ConfigurationChanged` and
`ConfigurationCommitted`. The table is the only place in the replica that remembers it: links,
handshake, sessions, refusals and status all read the table, so a change of members reaches each of
them in one step.

A directory has a random incarnation. The first time that a leader meets a member it commits
the pair; from then on another incarnation under the same id is a lost disk, and its votes and
acknowledgements must not count, since the new directory lacks what the old one had acknowledged
(C16, F8).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import NamedTuple

from copycat.errors import (
    ConfigurationError,
    CopycatError,
    DirectoryRefusedError,
    ProtocolError,
    VersionMismatchError,
    WrongDirectoryError,
)
from copycat.machine.envelope import decode_incarnation
from copycat.protocol.cluster_incarnation import is_recovered
from copycat.protocol.codec_hello import decode_hello, encode_hello_refused
from copycat.protocol.framing import Frame
from copycat.protocol.member_record import NO_START, DirectoryStart, Place
from copycat.protocol.peer import Hello, HelloRefused
from copycat.protocol.wire import PROTOCOL_VERSIONS
from copycat.raft.configuration import Configuration, MemberRecord
from copycat.raft.events import Reachable
from copycat.storage.interface import ReplicaLog
from copycat.types import EntryKind, MemberId, MemberType, SkippedEntry

__all__ = [
    "Guest",
    "Handshake",
    "Judgement",
    "MemberChanges",
    "MemberTable",
    "PeerRefused",
    "logged_incarnations",
]

_READ_NBYTES = 1 << 20
_SEARCH_NBYTES = 64 << 20


class MemberChanges(NamedTuple):
    """What a new configuration means for the links of this member."""

    to_connect: tuple[MemberRecord, ...]
    """New members, and members that have another address now."""
    to_disconnect: tuple[MemberId, ...]
    """Those that are no members any more, and those whose address is another one now."""


class Guest(NamedTuple):
    """Somebody who is no member, as far as this one knows, and has a link all the same."""

    address: str
    """Where it is dialled: where its Hello said, or where whoever asks to add it said."""
    seen_ms: int
    """When it said Hello last, when it was asked to add it, or when it had a link."""


class MemberTable(Mapping[MemberId, str]):
    """The members and their addresses, by id. `member` is this one, and listens at `address`,
    which a member that is in no configuration is told.

    As a mapping it is what its readers need most, the address of each member, as of now: whoever
    is given the table sees each change of it. A member that a newer configuration adds is in it
    at once; one that it removes stays until that is committed (C35).
    """

    def __init__(
        self,
        member: MemberId,
        configuration: Configuration,
        committed: Configuration | None = None,
        address: str = "",
    ) -> None:
        self.member = member
        self.configuration = configuration
        """The newest, committed or not: it counts a majority of its voters."""
        self.committed = configuration if committed is None else committed
        """The newest that is known to be committed: who is passive or a reserve is so by it."""
        self.cluster_incarnation = 0
        """Which cluster this is (C41); 0 while no configuration entry is committed."""
        self.is_behind = False
        """Another member knew which cluster this is when this one did not: the members were
        changed, and some that this one does not know may be among them."""
        self._address = address
        self._records = self._all_records()
        self.links: set[MemberId] = set()
        """Peers that this member can write to. Members only, once a change of them is adopted."""
        self.unavailable: frozenset[MemberId] = frozenset()
        """Whom leaders do not hear, as their entries say that are applied here (C38)."""
        self.guests: dict[MemberId, Guest] = {}
        """The last one that came, or was asked for, last (`Membership`)."""
        self.invited: set[MemberId] = set()
        """Guests whom this leader was asked to add: they may not know yet which cluster it is."""
        self.committed_incarnations: dict[MemberId, int] = {}
        """Member -> incarnation of its directory, as committed and applied here."""
        self.greeted_incarnations: dict[MemberId, int] = {}
        """What each member or guest said last with its Hello; the leader commits those of members
        that are new. None of a member that was removed, or has another address now."""
        self.answers: dict[MemberId, Hello] = {}
        """The Hello of whoever answered last where each member or guest is dialled, if it names
        its starts (C42). A Hello that only came proves nothing: a copy says it from anywhere."""
        self.greeted_places: dict[MemberId, Place] = {}
        """Failure domain and weight of each member or guest, as it said last itself, and of this
        member."""
        self.starts: tuple[DirectoryStart, ...] = ()
        """The starts of this member, oldest first; empty when they are not recorded."""
        self.greeted_addresses: dict[MemberId, str] = {}
        """Where a member listens as its last Hello said, once that was not its record's (C44)."""
        self.moved: dict[MemberId, str] = {}
        """Members that are dialled there, since they do not answer at their record's address."""

    def _all_records(self) -> dict[MemberId, MemberRecord]:
        """By id, those of the newest configuration first."""
        listed = {each.member: each for each in self.configuration.members}
        for each in self.committed.members:
            listed.setdefault(each.member, each)
        return listed

    def adopt(self, configuration: Configuration) -> MemberChanges:
        """`configuration` is the newest from now on; what is different for links."""
        self.configuration = configuration
        return self._changes()

    def commit(self, configuration: Configuration) -> MemberChanges:
        """`configuration` is committed; what is different for links."""
        self.committed = configuration
        if configuration.entry >= self.configuration.entry:
            self.configuration = configuration
        return self._changes()

    def _changes(self) -> MemberChanges:
        before = self._records
        after = self._records = self._all_records()
        to_connect = tuple(
            record
            for member, record in after.items()
            if self._is_dialled_elsewhere(before, after, member)
        )
        to_disconnect = tuple(
            member for member in before if self._is_dialled_elsewhere(before, after, member)
        )
        for member in list(self.moved):
            if _address(before, member) != _address(after, member):
                del self.moved[member]
        for member in before.keys() - after.keys():
            self.greeted_addresses.pop(member, None)
            self.greeted_places.pop(member, None)
        for member, answer in list(self.answers.items()):
            record = after.get(member)
            if record is not None and _lacks_start(answer.starts, record.start):
                del self.answers[member]  # what is written down decides which is the copy
        self.links.difference_update(to_disconnect)
        for member in to_disconnect:  # at another address there may be another directory
            self.greeted_incarnations.pop(member, None)
            self.answers.pop(member, None)
        return MemberChanges(to_connect, to_disconnect)

    def _is_dialled_elsewhere(
        self,
        before: Mapping[MemberId, MemberRecord],
        after: Mapping[MemberId, MemberRecord],
        member: MemberId,
    ) -> bool:
        """Whether the address of `member` changes to one where it is not dialled already."""
        old, new = _address(before, member), _address(after, member)
        return member != self.member and old != new and self.moved.get(member) != new

    # ---- the directories of the members --------------------------------------------------

    def record_incarnation(self, member: MemberId, incarnation: int) -> None:
        """An incarnation was committed, and applied here: the first one of a member is valid for
        ever (C16)."""
        self.committed_incarnations.setdefault(member, incarnation)

    # ---- who and where ---------------------------------------------------------------------

    def __getitem__(self, member: MemberId) -> str:
        return self._records[member].address

    def __contains__(self, member: object) -> bool:
        return member in self._records

    def __iter__(self) -> Iterator[MemberId]:
        return iter(self._records)

    def __len__(self) -> int:
        return len(self._records)

    def type(self, member: MemberId) -> MemberType:
        """What `member` is to the cluster, by what is committed; INACTIVE for who is no member."""
        return self.committed.type(member)

    def is_dialled(self, member: MemberId) -> bool:
        """Whether this member keeps a link to `member`: only of those it remembers anything."""
        return member in self._records or member in self.guests

    def dialled_address(self, member: MemberId) -> str:
        """Where the link to `member` leads; empty when there is to be none."""
        guest = self.guests.get(member)
        if guest is not None:
            return guest.address
        return self.moved.get(member) or self.address(member)

    def greeted_address(self, member: MemberId) -> str:
        """Where `member` listens as it said last itself, if it ever said another address than its
        record's."""
        return self.greeted_addresses.get(member) or self.address(member)

    def greeted(self, hello: Hello) -> None:
        """A member said with its Hello which directory it has."""
        if self.is_dialled(hello.member):
            self.greeted_incarnations[hello.member] = hello.incarnation
            self.greeted_places[hello.member] = hello.place

    def answered(self, hello: Hello) -> None:
        """A member said this Hello where it is dialled."""
        self.greeted(hello)
        if hello.starts and self.is_dialled(hello.member):
            self.answers[hello.member] = hello

    def newest_start(self, member: MemberId) -> DirectoryStart:
        """The newest start of `member` that this one has heard of, from whomever."""
        record = self._records.get(member)
        known = [NO_START if record is None else record.start]
        if member == self.member:
            known += self.starts[-1:]
        elif member in self.answers:
            known.append(self.answers[member].starts[-1])
        return max(known, key=_number_of)  # one that is written down before another of its number

    def place(self, member: MemberId) -> Place:
        """Failure domain and weight of `member`, as it said last itself."""
        record = self._records.get(member)
        return self.greeted_places.get(member, Place() if record is None else record.place)

    def address(self, member: MemberId) -> str:
        """Where `member` listens; empty for who is no member, as for nobody."""
        return _address(self._records, member)

    def member_at(self, address: str) -> MemberId:
        """Who listens at `address`; 0 for nobody."""
        for member, record in self._records.items():
            if record.address == address:
                return member
        return MemberId(0)

    @property
    def own_address(self) -> str:
        """Where this member listens: if it has moved, its record says so later (C44)."""
        return self._address or _address(self._records, self.member)

    @property
    def has_moved(self) -> bool:
        """Whether this member listens at another address than its record says."""
        return self.address(self.member) not in ("", self.own_address)

    @property
    def addresses(self) -> tuple[str, ...]:
        """Of all members, in the order of the configuration."""
        return tuple(record.address for record in self._records.values())

    @property
    def peers(self) -> Mapping[MemberId, str]:
        """The addresses of all other members."""
        return {
            member: record.address
            for member, record in self._records.items()
            if member != self.member
        }


def _lacks_start(starts: tuple[DirectoryStart, ...], start: DirectoryStart) -> bool:
    """C42: whether a directory with these starts should have this one, and does not."""
    return start not in starts and start.number >= starts[0].number


def _number_of(start: DirectoryStart) -> int:
    return start.number


def _address(records: Mapping[MemberId, MemberRecord], member: MemberId) -> str:
    record = records.get(member)
    return "" if record is None else record.address


class PeerRefused(ProtocolError):
    """A dialler that is refused. `frame` tells it why; the listener then closes the connection."""

    code = "peer-refused"
    default_hint = "see the reason above"
    frame: bytes = b""

    @classmethod
    def of(cls, cause: CopycatError, judgement: Judgement) -> PeerRefused:
        """Refuse for this cause."""
        refused = HelloRefused(cause.code, cause.message)
        if isinstance(cause, DirectoryRefusedError):
            refused = HelloRefused(cause.code, cause.message, *judgement)
        return cls(cause.message, hint=cause.hint, frame=encode_hello_refused(refused))


class Judgement(NamedTuple):
    """What weight a refusal of a directory has (C43)."""

    is_final: bool
    """This member leads, and hears a majority without the refused one."""
    leader: str
    """Who may say so instead: the address of the leader that this member follows."""


class Handshake:
    """Judges the Hello of a dialler, and the answer to our own.

    founders: addresses of the founding members, of which this one was one; empty otherwise.
    incarnation: of this directory.  logged: those of all directories as far as the log told at the
    start, committed or not; nothing is applied yet then, and a member whose disk was wiped, if it
    is accepted before, would help to elect a leader that lacks entries.
    """

    def __init__(
        self,
        members: MemberTable,
        *,
        cluster_name: str,
        founders: tuple[str, ...],
        incarnation: int,
        logged: Mapping[MemberId, int],
        skips: tuple[SkippedEntry, ...] = (),
    ) -> None:
        self._members = members
        self._cluster_name = cluster_name
        self._founders = tuple(sorted(founders))
        self._incarnation = incarnation
        self._logged = logged
        self._skips = skips

    def hello(self, *, fresh: bool, lost: bool = False) -> Hello:
        """What this member opens its links with.

        fresh: its log never held anything. That says nothing in a cluster whose members changed:
        a member may have been a reserve, whose log was deleted.
        """
        cluster_incarnation = self._members.cluster_incarnation
        return Hello(
            self._cluster_name,
            self._founders,
            self._members.member,
            self._incarnation,
            self._members.own_address,
            fresh and not cluster_incarnation,
            PROTOCOL_VERSIONS,
            lost,
            self._skips,
            cluster_incarnation,
            self._members.starts,
            self._members.place(self._members.member),
        )

    def judge(self, hello: Hello) -> MemberId:
        """The peer that said this Hello; raises the reason why it is not let in."""
        own_address = self._members.own_address
        if hello.cluster_name != self._cluster_name:
            raise self._wrong(
                f'{hello.address} is a member of cluster "{hello.cluster_name}", '
                f'{own_address} of "{self._cluster_name}"'
            )
        low, high = hello.protocol
        if low > PROTOCOL_VERSIONS[1] or high < PROTOCOL_VERSIONS[0]:
            raise VersionMismatchError(
                f"{hello.address} speaks protocol {low} to {high}, {own_address} "
                f"{PROTOCOL_VERSIONS[0]} to {PROTOCOL_VERSIONS[1]}"
            )
        self._check_cluster(hello)
        if hello.member == self._members.member or not self._may_be_heard(hello):
            raise self._stranger(hello)
        if hello.skips != self._skips:
            raise ConfigurationError(
                f"{hello.address} skips {_listed(hello.skips)}, {own_address} skips"
                f" {_listed(self._skips)}: their states would differ",
                hint="stop both, and have every member skip the same entries: copycat recover"
                " --skip-entry INDEX DIRECTORY, or copy the file skipped-entries",
            )
        self._check_incarnation(hello)
        self._check_starts(hello)
        if hello.cluster_incarnation and not self._members.cluster_incarnation:
            self._members.is_behind = True
        return hello.member

    def _stranger(self, hello: Hello) -> WrongDirectoryError:
        who = f"{hello.address} with member id {hello.member:032x}"
        if hello.member == self._members.member or not self._members.cluster_incarnation:
            return self._wrong(f'{who} is no other member of cluster "{self._cluster_name}"')
        if not hello.members:  # it has no founders: it waits to be added, and tries again
            return self._wrong(f"{who} is no member yet; it joins with an empty directory")
        return DirectoryRefusedError(
            f'{who} is no member of cluster "{self._cluster_name}", and no directory of it: it was'
            " removed before it ever took part, or is of another cluster with this name. To become"
            " a member it needs an empty directory, and joins; it was not let in"
        )

    def _may_be_heard(self, hello: Hello) -> bool:
        """Whether a Hello is a member's, or of one that may be a member without our knowledge.

        A member of the same cluster is heard whatever the configuration here says: it may be
        newer there, and its log decides about votes. So is one that was no founder while
        the cluster has only founders so far: it may be about to join.

        Who does not know the cluster, where the members were changed, is a founder that was away
        and has been removed since. The cluster knows its directory by the incarnation that a
        leader committed, so it is heard, and told (C33). Else it may be of another cluster.
        """
        if hello.member in self._members or hello.member in self._members.invited:
            return True
        if hello.cluster_incarnation:
            return True  # `_check_cluster` compared it, if this member knows it
        if self._known_incarnation(hello.member) == hello.incarnation:
            return True
        is_joining = not (hello.members and self._founders)
        return not self._members.cluster_incarnation and is_joining

    def _check_cluster(self, hello: Hello) -> None:
        """Whether the two mean one cluster, where one name may have been used twice (C41).

        The incarnation of a cluster says that. While neither side knows one, both are as they were
        started: the list of founders has to be the same then. Who was no founder has no list. A
        founder may have moved since (C44), but not to the address of another one.
        """
        ours, theirs = self._members.cluster_incarnation, hello.cluster_incarnation
        if ours and theirs and ours != theirs:
            raise self._wrong(
                f"{hello.address} is a member of another cluster"
                f' "{self._cluster_name}" (incarnation {theirs:032x}, that of'
                f" {self._members.own_address} is {ours:032x})"
            )
        if is_recovered(ours or theirs) and not (ours and theirs):
            self._check_founder(hello)
        if ours or theirs or not (hello.members and self._founders):
            return
        if hello.members != self._founders:
            raise ConfigurationError(
                f"{hello.address} was started with members {', '.join(hello.members)}; "
                f"{self._members.own_address} with {', '.join(self._founders)}",
                hint="start every founding member with the same list of addresses",
            )
        is_known = hello.member in self._members
        if is_known and self._members.member_at(hello.address) not in (0, hello.member):
            raise self._wrong(
                f"{hello.address} says that it is member {hello.member:032x}, which is at"
                f" {self._members.address(hello.member)}"
            )

    def _check_founder(self, hello: Hello) -> None:
        """A founder that knows no incarnation is of a cluster that never had one, and not of one
        that an operator made from a member (C46)."""
        ours, theirs = self._members.cluster_incarnation, hello.cluster_incarnation
        if not (self._founders if theirs else hello.members):
            return
        made_by = "was made by `copycat recover --new-cluster` from one member"
        if theirs:
            raise self._wrong(
                f'{hello.address} is a member of another cluster "{self._cluster_name}"'
                f" (incarnation {theirs:032x}), which {made_by}; {self._members.own_address} is a"
                " founder of the one before it, which had no incarnation"
            )
        raise self._wrong(
            f'{hello.address} is a founder of another cluster "{self._cluster_name}", which had no'
            f" incarnation; that of {self._members.own_address} (incarnation {ours:032x})"
            f" {made_by}"
        )

    def accept(self, frame: Frame, judgement: Callable[[MemberId], Judgement]) -> Hello:
        """A dialler's Hello, which was found good. PeerRefused: the frame of it says why.

        judgement: what this member may say of the directory of a member that it refuses.
        """
        member = MemberId(0)
        try:
            hello = decode_hello(frame)
            member = hello.member
            self.judge(hello)
        except CopycatError as cause:
            raise PeerRefused.of(cause, judgement(member)) from cause
        self._members.greeted(hello)
        return hello

    def answered(self, peer: MemberId, frame: Frame) -> Reachable:
        """The answer to our Hello on a link to `peer`, as `Replica.peer_up` wants it."""
        hello = decode_hello(frame)
        if self.judge(hello) != peer:
            address = self._members.dialled_address(peer) or f"{peer:032x}"
            raise ProtocolError(
                f"{hello.address} answered on the link to {address}: it is member"
                f" {hello.member:032x}, not {peer:032x}"
            )
        self._members.answered(hello)
        return Reachable(peer, hello.fresh, hello.lost)

    def _known_incarnation(self, member: MemberId) -> int | None:
        """Of the directory that `member` had when a leader met it first."""
        logged = self._logged.get(member)
        return self._members.committed_incarnations.get(member, logged)

    def _check_incarnation(self, hello: Hello) -> None:
        known = self._known_incarnation(hello.member)
        if known is not None and known != hello.incarnation:
            raise DirectoryRefusedError(
                f"{hello.address} came back with another directory (incarnation "
                f"{hello.incarnation:032x}, the cluster knows {known:032x}): what it acknowledged "
                "may be lost, so it has no vote",
                hint="bring the old directory back, or remove this member and add a new one",
            )

    def _check_starts(self, hello: Hello) -> None:
        """C42: whether the starts of this directory are those that leaders wrote down of the
        member, committed or not. If they are not, it was restored from a backup, or two processes
        have copies of one directory. A list that begins later is that of a member which was
        started often since: who judges is behind.

        What nobody has written down counts as long as this process remembers it: a cluster of
        founders has no configuration that names starts.
        """
        known = (self._members.configuration, self._members.committed)
        start = self.misses_start(hello.member, hello.starts, known) or self._forgets(hello)
        if start is not None:
            raise DirectoryRefusedError(
                f"{hello.address} came with a directory that was not started"
                f" as number {start.number} when this member was (it names starts"
                f" {hello.starts[0].number} to {hello.starts[-1].number}): it is a copy, or was"
                " restored from a backup, and what it acknowledged may be lost, so it has no vote",
                hint="if another process has the original directory, stop this one; else remove"
                " this member and add a new one with an empty directory",
            )

    @staticmethod
    def misses_start(
        member: MemberId,
        starts: tuple[DirectoryStart, ...],
        configurations: tuple[Configuration, ...],
    ) -> DirectoryStart | None:
        """The start of `member` in one of these configurations that its directory should name, and
        does not. None for a build without starts."""
        if not starts:
            return None
        for configuration in configurations:
            record = configuration.record(member)
            start = NO_START if record is None else record.start
            if _lacks_start(starts, start):
                return start
        return None

    def _forgets(self, hello: Hello) -> DirectoryStart | None:
        """The start with which this directory was used when it answered last, if its list shows
        that it never was. A list with a gap there shows nothing: its member was started often
        without being heard."""
        answer = self._members.answers.get(hello.member)
        if answer is None or not hello.starts or answer.incarnation != hello.incarnation:
            return None
        start, newest = answer.starts[-1], hello.starts[-1]
        random_bits = dict(hello.starts).get(start.number, start.random_bits)
        is_known = start.number <= newest.number and random_bits == start.random_bits
        return None if is_known else start

    def record_incarnation(self, member: MemberId, incarnation: int) -> CopycatError | None:
        """The incarnation of a member's directory was committed, and that was applied here. An
        error when it is this member, and not the directory that it has."""
        members = self._members
        members.record_incarnation(member, incarnation)
        is_alone = not members.peers  # nobody else acted on what it promised
        committed = members.committed_incarnations[member]
        if member == members.member and committed != self._incarnation and not is_alone:
            return self._wrong(
                f"the cluster knows {members.own_address} by incarnation "
                f"{committed:032x}; this directory is {self._incarnation:032x}"
            )
        return None

    def uncommitted_incarnations(self) -> list[tuple[MemberId, int]]:
        """What the leader should commit now: its own, and that of every peer that it has met."""
        members = self._members
        known = [(members.member, self._incarnation), *members.greeted_incarnations.items()]
        committed = members.committed_incarnations
        return [
            (member, number)
            for member, number in known
            if member not in committed and member in members
        ]

    @staticmethod
    def _wrong(message: str) -> WrongDirectoryError:
        return WrongDirectoryError(f"{message}; it was not let in")


def _listed(skips: tuple[SkippedEntry, ...]) -> str:
    each = [f"{skip.index} (term {skip.term}, checksum {skip.crc:08x})" for skip in skips]
    return "entry " + ", entry ".join(each) if each else "no entry"


def logged_incarnations(log: ReplicaLog, members: Collection[MemberId]) -> dict[MemberId, int]:
    """Member -> incarnation, as the entries of the log say, committed or not.

    An incarnation is committed when a leader first meets the member, so the first few entries
    nearly always tell all; where a member never came, the search ends after `_SEARCH_NBYTES`.
    """
    incarnations: dict[MemberId, int] = {}
    missing = set(members) if len(members) > 1 else set()
    index, end, searched = log.first_index, log.last_index + 1, 0
    while missing and index < end and searched < _SEARCH_NBYTES:
        batch = log.read(index, end, _READ_NBYTES)
        searched += batch.nbytes
        index = batch.span.end
        for run in batch.runs(batch.span.first, index):
            if run.kind == EntryKind.INCARNATION:
                member, incarnation = decode_incarnation(run.payloads[0])
                incarnations.setdefault(MemberId(member), incarnation)
                missing.discard(MemberId(member))
    return incarnations
