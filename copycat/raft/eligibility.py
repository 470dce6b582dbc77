"""What a member may vote for, whether it may campaign, and whether gaps may replace what it lacks.

A member whose log has all that it ever acknowledged votes by the rule of the Raft paper (section
5.4.1): for a candidate whose log is at least as up to date as its own. A member that may lack such
entries must not, for with its vote a leader could win that lacks them too, and then committed
entries would be lost. There are several ways to get there, and each is a `Restriction`, as is to
have no vote at all. What a restriction forbids is a row of `PERMISSIONS`, and each restriction is
lifted by its own proof:

* FRESH: the directory is new, or was wiped. Lifted by a majority of voters whose logs are empty,
  by the directory's own incarnation once it is committed, and by a durable record of what was
  lost.
* LOST: the member keeps its log in memory, and restarted. Lifted by an entry of a term above all
  that the member acknowledged, and replaced by ALL_LOST or LESS_LEFT when every voter has said
  that its log is empty or lost, and where it ends.
* ALL_LOST, LESS_LEFT: every voter lost its log, and this member has the newest of what is left, or
  another one has more. Lifted by a durable entry of a term above all that the member acknowledged.
* RECOVERING: the log lacks entries, and the member knows how far it reached before. Lifted by a
  durable log that reaches as far again, and by an operator who accepts the loss.
* LOSS_ACCEPTED: an operator accepted it. Lifted by an entry at or above the lost ones that is
  committed and durable here.
* NON_VOTER: the configuration gives the member no vote, whatever its log has. Lifted by a
  configuration that does.
* JOINING: the log does not reach the entry that made the member stateful. Lifted by a durable log,
  or a snapshot, that does. Under ALL_LOST and LESS_LEFT it forbids gaps only.
* RESERVE: the member knows that it has no log. Lifted by a leader that says it is stateful.

A member may be under several restrictions at once, and is bound by each. A further kind of
restriction is one more member of `Restriction`, its row, and the event that lifts it.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from copycat.raft.configuration import BOOTSTRAP, Configuration
from copycat.types import NO_ENTRY, EntryId, MemberId

__all__ = ["NEVER", "PERMISSIONS", "Eligibility", "Permissions", "Restriction"]

NEVER: Final = EntryId(1 << 64, 0)
"""The vote floor of a member that votes for nobody: above every entry that a message can name."""


class Restriction(enum.Enum):
    """Why a member may not do all that a voter does."""

    FRESH = "fresh"
    """C16: the directory has no past. The member cannot know whether it is new or was wiped."""
    LOST = "lost"
    """Entries that the member acknowledged may be missing, and it does not know which
    (docs/decisions/0016)."""
    ALL_LOST = "all lost"
    """Every voter lost its log, and none has a newer log left than this member
    (docs/decisions/0030)."""
    LESS_LEFT = "less left"
    """The same, and another voter has a newer log left."""
    RECOVERING = "recovering"
    """C12: the disk lost entries, and the member knows how far its log reached before
    (docs/decisions/0017)."""
    LOSS_ACCEPTED = "loss accepted"
    """An operator accepted that what was lost stays lost (docs/decisions/0017)."""
    NON_VOTER = "non-voter"
    """The member is no voter of the configuration (`Configuration.has_vote`)."""
    JOINING = "joining"
    """C30: the log does not hold the entry that made the member stateful. Below that entry the
    other logs may lack deletions that this member was never asked about."""
    RESERVE = "reserve"
    """C33: a leader said that the member is a reserve or no member, and its log was deleted. It
    does not know any more what it acknowledged."""


class Permissions(NamedTuple):
    """What a member may do under one restriction."""

    may_vote: bool
    """Whether it may vote at all: for a candidate whose log reaches the vote floor.

    A non-voter answers as well, since a log is what a vote is judged by: a candidate counts the
    votes of voters only, and may know a newer configuration than this member does.
    """
    may_campaign: bool
    accepts_gaps: bool
    """Whether gaps in a leader's log may stand for entries that this member lacks.

    An entry that was lost may be a deletion. The other logs may have dropped the deletion because
    this member had acknowledged it, while this member still has what it deleted. Only a snapshot
    is as good as the entry.
    """


PERMISSIONS: Final[Mapping[Restriction, Permissions]] = MappingProxyType(
    {
        Restriction.FRESH: Permissions(may_vote=False, may_campaign=False, accepts_gaps=True),
        Restriction.LOST: Permissions(may_vote=False, may_campaign=False, accepts_gaps=False),
        Restriction.ALL_LOST: Permissions(may_vote=True, may_campaign=True, accepts_gaps=False),
        Restriction.LESS_LEFT: Permissions(may_vote=True, may_campaign=False, accepts_gaps=False),
        Restriction.RECOVERING: Permissions(may_vote=True, may_campaign=False, accepts_gaps=False),
        Restriction.LOSS_ACCEPTED: Permissions(
            may_vote=True, may_campaign=True, accepts_gaps=False
        ),
        Restriction.NON_VOTER: Permissions(may_vote=True, may_campaign=False, accepts_gaps=True),
        Restriction.JOINING: Permissions(may_vote=False, may_campaign=False, accepts_gaps=False),
        Restriction.RESERVE: Permissions(may_vote=False, may_campaign=False, accepts_gaps=False),
    }
)

_PROVED = (Restriction.ALL_LOST, Restriction.LESS_LEFT)
"""Every voter lost its log."""


class Eligibility:
    """The restrictions of one member, and what is known for the proofs that lift them.

    The methods `on_...` return True when they lifted a restriction: a member that may campaign
    from now on waits for a new election timeout first.

    Invariant: FRESH, LOST, ALL_LOST and LESS_LEFT exclude each other. Invariant:
    `contacted_voters` is empty exactly when the member is neither FRESH nor LOST,
    `lost_below_term` is 0 exactly when it is under none of the last three, `lost_upto` is NO_ENTRY
    exactly when it is not RECOVERING, and `accepted_loss` is NO_ENTRY exactly when it is not
    LOSS_ACCEPTED.
    """

    __slots__ = (
        "accepted_loss",
        "contacted_voters",
        "known_at_loss",
        "log_ends",
        "lost_below_term",
        "lost_upto",
        "member",
        "restrictions",
        "unrecorded_loss",
    )

    def __init__(
        self,
        member: MemberId,
        configuration: Configuration,
        *,
        current_term: int,
        fresh: bool,
        lost: bool,
        lost_upto: EntryId,
    ) -> None:
        self.member = member
        self.restrictions: tuple[Restriction, ...] = ()
        self.contacted_voters: frozenset[MemberId] = frozenset()
        """FRESH, LOST: the voters that prove nothing was lost, this member included (C16)."""
        self.log_ends: Mapping[MemberId, EntryId] = {}
        """LOST, ALL_LOST, LESS_LEFT: where each other member said that its log ends."""
        self.lost_below_term = 0
        """The same: every entry that this member ever acknowledged has a lower term."""
        self.known_at_loss = NO_ENTRY
        """The newest configuration that this member knew when every voter had lost its log: its
        log once held that entry. Every entry since then has a greater name."""
        self.lost_upto = lost_upto
        """RECOVERING: the last entry that the log may have acknowledged before it lost entries.

        It may name a greater entry, never a lesser one.
        """
        self.accepted_loss = NO_ENTRY
        """LOSS_ACCEPTED: what `lost_upto` was."""
        self.unrecorded_loss = NO_ENTRY
        """What a peer reported as lost (F8) and is not durable in the directory yet."""
        if (fresh or lost) and not configuration.has_quorum({member}):
            self.contacted_voters = frozenset({member})
            self.lost_below_term = current_term if lost else 0
            self._add(Restriction.LOST if self.lost_below_term else Restriction.FRESH)
        elif lost and configuration.entry != BOOTSTRAP:  # it is every voter
            self.lost_below_term = current_term
            self.known_at_loss = configuration.entry
            self._add(Restriction.ALL_LOST)
        if lost_upto != NO_ENTRY:
            self._add(Restriction.RECOVERING)
        self.on_configuration(configuration)

    # ---- what the member may do --------------------------------------------------------------

    @property
    def may_vote(self) -> bool:
        """Whether it votes at all (C16)."""
        return not self.restrictions or all(
            PERMISSIONS[restriction].may_vote for restriction in self._of_votes
        )

    @property
    def may_campaign(self) -> bool:
        """Whether it may ask for votes: a voter whose log lacks nothing that it acknowledged."""
        return not self.restrictions or all(
            PERMISSIONS[restriction].may_campaign for restriction in self._of_votes
        )

    @property
    def _of_votes(self) -> tuple[Restriction, ...]:
        """Those that count for votes. What a joining member may have acknowledged before it joined
        is lost with every log, and the proof of that lifts its restriction (C13, C30)."""
        if not self.has_proof_of_loss:
            return self.restrictions
        return tuple(each for each in self.restrictions if each is not Restriction.JOINING)

    @property
    def accepts_gaps(self) -> bool:
        """Whether gaps may stand for what it lacks; if not, a snapshot is sent to it instead."""
        return not self.restrictions or all(
            PERMISSIONS[restriction].accepts_gaps for restriction in self.restrictions
        )

    def vote_floor(self, last: EntryId) -> EntryId:
        """The least up-to-date last entry that a candidate may have to get this member's vote
        (Raft paper, section 5.4.1; C12). NEVER: nobody gets it.

        last: the last entry of this member's own log.
        """
        return max(self.position(last), self.lost_upto) if self.may_vote else NEVER

    def position(self, last: EntryId) -> EntryId:
        """What this member compares with the logs of others in an election: its last entry, or the
        entry of the newest configuration that it knew when every voter had lost its log. Who
        knows only an older one than a majority does must not begin again with that (C35)."""
        return max(last, self.known_at_loss)

    @property
    def is_fresh(self) -> bool:
        """C16: whether the directory has no past.

        A wiped voter that votes again could elect a leader without the entries that the voter
        once acknowledged. Two facts prove a directory new: a majority of the voters has empty
        logs, for then nothing was ever committed; or the directory's incarnation is committed in
        the log, for then a leader met this directory for the first time (docs/decisions/0009).
        """
        return Restriction.FRESH in self.restrictions

    @property
    def is_lost(self) -> bool:
        """Whether any entry that this member acknowledged may be missing from its log."""
        return Restriction.LOST in self.restrictions

    @property
    def has_proof_of_loss(self) -> bool:
        """Whether every voter lost its log, and no leader has sent this member anything since."""
        return any(each in self.restrictions for each in _PROVED)

    @property
    def lacks_acknowledged(self) -> bool:
        """What HELLO says: entries that it acknowledged may be missing, and no leader has sent it
        anything since."""
        return self.is_lost or self.has_proof_of_loss

    @property
    def is_recovering(self) -> bool:
        """Whether entries were lost from this disk and no leader has sent them again so far.

        Unlike a lost member, a recovering member knows where its log once ended. It votes as if
        it still had those entries.
        """
        return Restriction.RECOVERING in self.restrictions

    @property
    def is_joining(self) -> bool:
        """C30: whether the log does not reach the entry that made this member stateful."""
        return Restriction.JOINING in self.restrictions

    @property
    def has_accepted_loss(self) -> bool:
        """Whether entries whose loss was accepted may be missing from this log alone."""
        return Restriction.LOSS_ACCEPTED in self.restrictions

    # ---- what adds a restriction -------------------------------------------------------------

    def report_loss(self, acknowledged: EntryId, last: EntryId) -> bool:
        """A peer says that this member acknowledged this entry (F8); `last` is the end of the log.

        True when the log lacks it and the member is bound by it from here on: the caller has it
        recorded, and `on_loss_recorded` follows. A member that is bound by as much already, or
        that has as much, learns nothing from the report.
        """
        if max(last, self.lost_upto) >= acknowledged:
            return False
        self.lost_upto = self.unrecorded_loss = acknowledged
        self._add(Restriction.RECOVERING)
        return True

    def accept_loss(self, lost_upto: EntryId) -> None:
        """An operator accepted the loss: this member votes and campaigns with what it has."""
        self.lost_upto, self.accepted_loss = NO_ENTRY, lost_upto
        self._lift(Restriction.RECOVERING)
        if lost_upto != NO_ENTRY:
            self._add(Restriction.LOSS_ACCEPTED)

    # ---- what lifts one ----------------------------------------------------------------------

    def on_configuration(
        self, configuration: Configuration, *, is_joining: bool = False, is_reserve: bool = False
    ) -> bool:
        """The members are those of `configuration` from now on, and this one votes or does not.

        is_joining, is_reserve: whether this member is under those restrictions.
        """
        holds = {
            Restriction.NON_VOTER: not configuration.has_vote(self.member),
            Restriction.JOINING: is_joining,
            Restriction.RESERVE: is_reserve,
        }
        is_any_lifted = False
        for restriction, is_bound in holds.items():
            if is_bound:
                self._add(restriction)
            else:
                is_any_lifted |= self._lift(restriction)
        return is_any_lifted

    def on_reachable(
        self,
        peer: MemberId,
        configuration: Configuration,
        *,
        fresh: bool,
        lost: bool,
        last: EntryId = NO_ENTRY,
    ) -> bool:
        """A link to `peer` came up, and `peer` said what its log is. This one ends with `last`.

        A fresh directory counts empty logs only, and a majority of them is enough. A lost log
        counts all that hold no more than it does itself, and of those it needs every voter
        (docs/decisions/0016), and where each of their logs ends (`on_log_position`).
        """
        if not self.contacted_voters or peer not in configuration.ids:
            return False
        if not (fresh or (lost and self.is_lost)):
            return False
        self.contacted_voters |= {peer}
        if self.is_lost:
            return self._compare_ends(configuration, last)
        return configuration.has_quorum(self.contacted_voters) and self._prove_log()

    def on_log_position(
        self, peer: MemberId, log_end: EntryId, configuration: Configuration, last: EntryId
    ) -> bool:
        """`peer` said that its log ends with `log_end`; this one ends with `last`. It may say so
        before the link to it is open, or for a second time after a restart."""
        if not self.lacks_acknowledged or peer not in configuration.ids:
            return False
        self.log_ends = {**self.log_ends, peer: log_end}
        return self._compare_ends(configuration, last)

    def _compare_ends(self, configuration: Configuration, last: EntryId) -> bool:
        """When every voter has lost its log, what they have left is all that there is. So the
        newest of it must not be lost too: whoever has less votes, and does not campaign
        (docs/decisions/0030)."""
        voters = configuration.voters
        if self.is_lost and not self.contacted_voters.issuperset(voters):
            return False
        ends = [self.log_ends.get(each) for each in voters if each != self.member]
        known = [end for end in ends if end is not None]
        if len(known) < len(ends):
            return False
        is_newest = max(known, default=NO_ENTRY) <= last
        proved = Restriction.ALL_LOST if is_newest else Restriction.LESS_LEFT
        if proved in self.restrictions:
            return False
        if self.is_lost:
            self.contacted_voters = frozenset()
            self.known_at_loss = configuration.entry
        for restriction in (Restriction.LOST, *_PROVED):
            self._lift(restriction)
        self._add(proved)
        return True

    def on_unreachable(self, peer: MemberId) -> None:
        """The link to `peer` broke. For a lost member `peer` proves nothing any more: it may come
        back with entries."""
        if self.is_lost:
            self.contacted_voters -= {peer}

    def on_incarnation_committed(self) -> bool:
        """The cluster committed the incarnation of this directory (C16)."""
        return self.is_fresh and self._prove_log()

    def on_entry(self, term: int) -> bool:
        """The log, or a snapshot, has an entry of `term` and all that its leader had before it.

        The leader of a term above all that this member acknowledged had every entry that was
        committed before, and so has every log that holds an entry of that leader.
        """
        return self.is_lost and term >= self.lost_below_term and self._prove_log()

    def on_durable(self, entry: EntryId) -> bool:
        """The durable end of the log is `entry`: perhaps it has all again that was lost.

        It has when `entry` is at or above `lost_upto`, in the order of Raft. Such an entry comes
        from a leader that had all that this member ever acknowledged.

        After every voter lost its log, an entry of a new leader says that the log continues from
        the newest that was left.
        """
        is_any_lifted = False
        if self.has_proof_of_loss and entry.term >= self.lost_below_term:
            is_any_lifted = self._prove_log()
        if self.is_recovering and entry >= self.lost_upto:
            self.lost_upto = NO_ENTRY
            is_any_lifted |= self._lift(Restriction.RECOVERING)
        return is_any_lifted

    def on_committed(self, entry: EntryId) -> bool:
        """The log is committed, durable and synced up to `entry`.

        At or above what was accepted as lost, every later leader has the same log up to that
        entry. An entry that is only appended proves nothing, for it may be replaced.
        """
        if not self.has_accepted_loss or entry < self.accepted_loss:
            return False
        self.accepted_loss = NO_ENTRY
        return self._lift(Restriction.LOSS_ACCEPTED)

    def on_loss_recorded(self) -> bool:
        """What `report_loss` took is durable in the directory.

        A copy from before the first election takes itself for new (C16). It is not new, and from
        now on it is bound by the record: with its vote a member can win that has those entries.
        """
        self.unrecorded_loss = NO_ENTRY
        return self.is_fresh and self._prove_log()

    def _prove_log(self) -> bool:
        self.contacted_voters = frozenset()
        self.log_ends = {}
        self.lost_below_term = 0
        proved = (Restriction.FRESH, Restriction.LOST, *_PROVED)
        were_lifted = [self._lift(each) for each in proved]
        return any(were_lifted)

    def _add(self, restriction: Restriction) -> None:
        if restriction not in self.restrictions:
            self.restrictions += (restriction,)

    def _lift(self, restriction: Restriction) -> bool:
        if restriction not in self.restrictions:
            return False
        self.restrictions = tuple(other for other in self.restrictions if other != restriction)
        return True
