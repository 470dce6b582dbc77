"""Who the members of a cluster are, as values that disk and wire have bytes for.

`copycat.raft` counts majorities of them; `codec_configuration.py` gives them bytes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from copycat.types import EntryId, MemberId, MemberType

__all__ = [
    "ID_DIGITS",
    "NOBODY",
    "NO_HEALING",
    "NO_START",
    "ConfigurationRecord",
    "DirectoryStart",
    "HealingPolicy",
    "MemberRecord",
    "Place",
    "member_name",
]

ID_DIGITS = 8
"""So much of an id is shown beside an address that two members have."""


class DirectoryStart(NamedTuple):
    """One start of a member with its directory (C42)."""

    number: int
    """One higher than that of the start before; the first is 1. 0: no start is known."""
    random_bits: int
    """64 random bits: two processes that begin with copies of one directory differ here."""


NO_START: Final = DirectoryStart(0, 0)
NOBODY: Final = MemberId(0)


class Place(NamedTuple):
    """What a member says of itself with its Hello, for those who choose among members."""

    failure_domain: str = ""
    weight: int = 0


class MemberRecord(NamedTuple):
    """One member: who it is, what it may do, and where it listens."""

    member: MemberId
    type: MemberType
    address: str = ""
    """`host:port`; empty only in tests of the core, which asks nobody's address."""
    since: int = 0
    """Index of the configuration entry that made the member stateful, the last time; 0 for a
    founder, and for a reserve. Every deletion that left a log without asking this member lies
    below."""
    is_promotable: bool = False
    """Whether a PASSIVE member shall become ACTIVE: it is sent entries before they are committed,
    as a voter is."""
    start: DirectoryStart = NO_START
    """The newest start of the member that a leader has heard of (C42)."""
    replaces: MemberId = NOBODY
    """Who was the member at this address before, and has lost its directory (C43); 0: nobody."""
    failure_domain: str = ""
    """What the member fails together with, as a room or a zone; empty when it names none."""
    weight: int = 0
    """Orders candidates: the member of the greatest weight is preferred."""
    is_demoted: bool = False
    """A user demoted it: healing does not promote it before a user does (C39)."""
    is_leaving: bool = False
    """A voter whose place another member takes: healing demotes it when that one votes (C39)."""

    @property
    def is_stateful(self) -> bool:
        """Whether the member has a log and a state: it is ACTIVE or PASSIVE."""
        return self.type.is_stateful

    @property
    def place(self) -> Place:
        """Failure domain and weight."""
        return Place(self.failure_domain, self.weight)

    @property
    def has_right_marks(self) -> bool:
        """Whether a member of this type can have the marks that it has."""
        is_voter = self.type is MemberType.ACTIVE
        if self.is_promotable and self.type is not MemberType.PASSIVE:
            return False
        return not (self.is_demoted if is_voter else self.is_leaving)


class HealingPolicy(NamedTuple):
    """What a leader may change by itself when members are away (C39). Durations in ms."""

    target_active: int = 0
    """So many voters there are to be that are heard; 0: voters are left alone."""
    target_passive: int = 0
    """So many passive members there are to be that are heard; 0: a reserve is left alone."""
    heal_after_ms: int = 30_000
    """A member is replaced when the leader has not heard it for so long."""
    heal_interval_ms: int = 10_000
    """Between two steps."""
    suspend_after_ms: int = 3_600_000
    """A passive member that was not heard for so long becomes a reserve; 0: never."""
    replace_slow_after_ms: int = 0
    """A voter that answers and was behind for so long gives its place to a member that was much
    nearer to the end of the log; 0: never."""
    rebalance: bool = True
    """Whether voters that are alive give their places to members of other failure domains, where
    the voters are spread better then."""
    is_on: bool = False
    """Nothing is changed while it is off; the rest is kept."""


NO_HEALING: Final = HealingPolicy()


class ConfigurationRecord(NamedTuple):
    """One configuration, and of which cluster it is."""

    entry: EntryId
    """The name of the entry that holds it; NO_ENTRY: no entry, as with that of the founders."""
    cluster_incarnation: int
    """128 bits that say which cluster this is (C41); 0 with the founders' configuration."""
    members: tuple[MemberRecord, ...]
    policy: HealingPolicy = NO_HEALING


def member_name(member: MemberId, address: str, addresses: Iterable[str]) -> str:
    """How a message names a member: by its address, and by the beginning of its id too where
    `addresses`, those of all members, have that address twice: as that of a member whose disk was
    lost, and of the one that has taken its place."""
    number = f"{member:032x}"
    if not address:
        return number
    is_shared = sum(each == address for each in addresses) > 1
    return f"{address} (id {number[:ID_DIGITS]})" if is_shared else address
