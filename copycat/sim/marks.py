"""What a run of many seeds must have met: rare branches, and each fault with each state.

Marks are counted in the trace of a seed. All are seen from outside of the members: from what they
send and receive, from what they ask of the host, and from the records of the checkers.
`swarm.py` sums them over seeds, and `baseline.py` says which of them a run must have reached.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from copycat.protocol.feeding import (
    FedEntries,
    FedSnapshot,
    FeedAnswer,
    FeedingMessage,
    FeedRequest,
)
from copycat.protocol.peer import (
    AppendEntries,
    AppendReply,
    InstallReply,
    InstallSnapshot,
    PeerMessage,
    PreVoteReply,
    TimeoutNow,
    VoteReply,
)
from copycat.raft.core import Raft
from copycat.raft.healing import HealingCause
from copycat.raft.progress import ProgressState
from copycat.sim.host import SimHost
from copycat.sim.options import FAULTS, KINDS
from copycat.sim.workers import MOVES, QUICKER
from copycat.sim.world import Trace
from copycat.types import ServerState

__all__ = ["DECLARED", "GROUPS", "OF_NOBODY", "STATES", "Marks", "election_marks", "states_of"]

ALL_FAULTS = (
    *FAULTS,
    "away",
    "clean",
    "disk_lost",
    "disk_rollback",
    "rot",
    "slow_voter",
    "stale_leader",
    "wrong_clock",
    "zone",
)
OF_NOBODY = (
    "disk_lost",
    "disk_rollback",
    "partition",
    "silence",
    "slow_voter",
    "wrong_clock",
    "zone",
)
"""Faults that meet no single member, or choose one by themselves."""

_ROLES = {
    ServerState.LEADER: "it leads",
    ServerState.CANDIDATE: "it campaigns",
    ServerState.FOLLOWER: "it follows",
}
_THREADS = {
    "sync": "a sync runs",
    "save": "a save runs",
    "apply": "a slice is applied",
    "aside": "a file is written",
    "compact": "a segment is rewritten",
}
STATES = (
    *_ROLES.values(),
    *_THREADS.values(),
    "entries wait for a majority",
    "a read round is open",
    "leadership is handed over",
    "a snapshot goes out",
    "a snapshot comes in",
    "gaps are replayed",
    "its disk is full",
    "entries are missing",
    "it may not vote",
    "it is paused",
    "it is down",
)
"""What a member may be busy with when a fault meets it."""

RARE = (
    "a member came back after its disk was lost",
    "a member comes back under a new id",
    "a member that came back has its vote",
    "disk of a non-voter lost",
    "disk of a voter lost",
    "older copy stopped for good",
    "answer to a leader that is none",
    "a leader is asked for entries",
    "election lost by one vote",
    "election won by one vote",
    "entries fed by a member of a higher term",
    "entries fed to a member that does not follow",
    "entries of an old leader",
    "feeder left",
    "feeder renamed",
    "entries refused",
    "log damaged after a disk was lost",
    "offer of a snapshot to a member that has it",
    "order to campaign after its term",
    "poll answered late",
    "poll refused",
    "read round confirmed at a deposed leader",
    "read round open at a deposed leader",
    "read round open when leadership was lost",
    "reads wait behind an open round",
    "session expired while its command waits",
    "snapshot fed",
    "snapshot confirmed late",
    "split vote",
    "term without a leader",
    "two leaders at a time",
    "vote answered late",
    "vote refused",
)
"""Branches that only rare schedules reach."""

GROUPS = {
    **{f"{kind} while": STATES for kind in ALL_FAULTS if kind not in OF_NOBODY},
    **{f"late: {kind} after": MOVES for kind in KINDS},
}
"""Marks of a kind: how all of them begin, and how each ends."""

DECLARED = frozenset(
    {
        *RARE,
        *QUICKER,
        *(f"fault: {kind}" for kind in ALL_FAULTS),
        *(f"healing: {cause}" for cause in HealingCause),
        *(f"{head} {tail}" for head, tails in GROUPS.items() for tail in tails),
    }
)
"""Marks that are known by name; a run says which of them it never reached."""


def states_of(host: SimHost) -> Iterator[str]:
    """What this member is busy with now (see `STATES`)."""
    replica = host.replica
    if replica is None:
        yield "it is down"
        return
    if host.is_paused:
        yield "it is paused"
    raft, lead = replica.raft, replica.raft.leader_state
    yield _ROLES[raft.state]
    for thread, running in host.workers.running.items():
        if running:
            yield _THREADS[thread]
    if lead is not None:
        if raft.commit_index < raft.terms.last_index:
            yield "entries wait for a majority"
        if lead.reads.round_request:
            yield "a read round is open"
        if lead.transfer_to:
            yield "leadership is handed over"
        if any(progress.state is ProgressState.SNAPSHOT for progress in lead.progress.values()):
            yield "a snapshot goes out"
    if raft.commit_index < host.offered_index:
        yield "a snapshot comes in"
    if host.last_applied < host.disk_model.valid_from():
        yield "gaps are replayed"
    if raft.storage_full:
        yield "its disk is full"
    if raft.eligibility.is_recovering:
        yield "entries are missing"
    if not raft.eligibility.may_vote:
        yield "it may not vote"


class Marks:
    """Watches the members of one cluster; members are numbers."""

    def __init__(self, trace: Trace) -> None:
        self._mark = trace.mark
        self._newest_term = 0
        self._rounds: dict[int, tuple[int, int]] = {}
        """By leader: (term, request) of its open read round."""
        self._crowded: dict[int, tuple[int, int]] = {}
        """Rounds behind which other reads were seen to wait."""
        self._feeders: dict[int, tuple[int, int]] = {}
        """By member: whom it asked last for entries, and how many feeders it has left."""

    def fault_meets(self, kind: str, host: SimHost) -> None:
        """A fault of this kind meets `host`."""
        for state in states_of(host):
            self._mark(f"{kind} while {state}")

    # --- leaders ----------------------------------------------------------------------------

    def elected(self, term: int, others: Sequence[SimHost]) -> None:
        """Somebody leads `term` for the first time; `others` may believe that they lead."""
        self._newest_term = max(self._newest_term, term)
        for host in others:
            lead = host.replica.raft.leader_state if host.replica is not None else None
            if lead is not None and host.term < term:
                self._mark("two leaders at a time")
                if lead.reads.round_request:
                    self._mark("read round open at a deposed leader")

    def touched(self, number: int, raft: Raft) -> None:
        """Something happened at a member: look at its read round."""
        lead, before = raft.leader_state, self._rounds.get(number)
        if lead is None:
            if before is not None:
                del self._rounds[number]
                self._mark("read round open when leadership was lost")
            return
        reads = lead.reads
        now = (raft.current_term, reads.round_request) if reads.round_request else None
        if now == before:
            if now is not None and reads.pending_token and self._crowded.get(number) != now:
                self._crowded[number] = now
                self._mark("reads wait behind an open round")
            return
        if before is not None and before[0] == raft.current_term < self._newest_term:
            self._mark("read round confirmed at a deposed leader")
        if now is None:
            del self._rounds[number]
        else:
            self._rounds[number] = now

    def forget(self, number: int) -> None:
        """The process of a member ended."""
        self._feeders.pop(number, None)
        self._rounds.pop(number, None)

    # --- feeding ----------------------------------------------------------------------------

    def fed(self, host: SimHost, message: FeedingMessage) -> None:
        """A question or an answer of a member that is fed is handed to `host`."""
        raft = host.alive.raft
        match message:
            case FedEntries():
                if raft.state is not ServerState.FOLLOWER:
                    self._mark("entries fed to a member that does not follow")
                elif message.term > raft.current_term:
                    self._mark("entries fed by a member of a higher term")
                elif message.span.last > raft.terms.last_index:
                    self._mark("entries fed")
            case FedSnapshot():
                if raft.commit_index < message.entry.index:
                    self._mark("snapshot fed")
            case FeedAnswer():
                self._mark(f"question answered: {message.kind.name.lower()}")
            case FeedRequest():
                if raft.leader_state is not None:
                    self._mark("a leader is asked for entries")

    def watch_feeder(self, host: SimHost) -> None:
        """Whether the member asks another feeder than before, or left one."""
        feeder, left = host.alive.feeding.state
        before = self._feeders.get(host.number)
        if before != (feeder, left):
            if before is not None and left > before[1]:
                self._mark("feeder left")
            if before is not None and feeder and before[0] and feeder != before[0]:
                self._mark("feeder renamed")
            self._feeders[host.number] = (feeder or (before[0] if before else 0), left)

    # --- the wire ---------------------------------------------------------------------------

    def received(self, host: SimHost, message: PeerMessage) -> None:
        """`message` is handed to `host`, which has not looked at it."""
        raft = host.alive.raft
        match message:
            case AppendEntries():
                if message.term < raft.current_term:
                    self._mark("entries of an old leader")
            case AppendReply():
                if message.term < raft.current_term or raft.leader_state is None:
                    self._mark("answer to a leader that is none")
                elif not message.accepted:
                    self._mark("entries refused")
            case VoteReply():
                is_asking = raft.state is ServerState.CANDIDATE
                if not is_asking or message.term < raft.current_term:
                    self._mark("vote answered late")
                elif not message.granted:
                    self._mark("vote refused")
            case PreVoteReply():
                if raft.pre_vote_round is None or message.round != raft.pre_vote_round.round:
                    self._mark("poll answered late")
                elif not message.granted:
                    self._mark("poll refused")
            case InstallSnapshot():
                if raft.commit_index >= message.entry.index:
                    self._mark("offer of a snapshot to a member that has it")
            case InstallReply():
                if message.term < raft.current_term or raft.leader_state is None:
                    self._mark("snapshot confirmed late")
            case TimeoutNow():
                if message.term < raft.current_term or raft.state is not ServerState.FOLLOWER:
                    self._mark("order to campaign after its term")
            case _:
                pass


def election_marks(
    votes: Mapping[tuple[int, int], int], leaders: Mapping[int, int], majority: int
) -> Counter[str]:
    """How close the elections of a seed were.

    votes: (member, term) to the candidate for which it voted. leaders: by term.
    """
    marks: Counter[str] = Counter()
    tallies: dict[int, Counter[int]] = {}
    for (_, term), candidate in votes.items():
        tallies.setdefault(term, Counter())[candidate] += 1
    for term, tally in tallies.items():
        leader = leaders.get(term)
        marks["split vote"] += len(tally) > 1
        marks["term without a leader"] += leader is None
        for candidate, count in tally.items():
            if candidate == leader:
                marks["election won by one vote"] += count == majority > 1
            else:
                marks["election lost by one vote"] += count == majority - 1 > 0
    return marks
