"""The laws of one member, checked from outside: basic ones of a state, and of a step.

`check(before, after)` is for the simulator and the tests; the laws that production must never
break are `require`d where they could be. Laws across members (I1, I5, I6) need all of them and
live in the simulator's checker.
"""

from __future__ import annotations

from typing import NamedTuple

from copycat.errors import require
from copycat.raft.configuration import Configuration
from copycat.raft.leader_state import LeaderState
from copycat.raft.state import NOBODY, State
from copycat.types import NO_ENTRY, EntryId, MemberId, ServerState, TermRun

__all__ = ["Facts", "check", "observe"]


class Facts(NamedTuple):
    """What the laws look at, taken by value: cheap enough to take before every step."""

    member: MemberId
    configuration: Configuration
    state: ServerState
    current_term: int
    voted_for: MemberId
    leader: MemberId
    before: EntryId
    first_index: int
    last: EntryId
    durable_index: int
    commit_index: int
    commit_ceiling: int
    installed_index: int
    deletion_floor: int
    cluster_deletion_floor: int
    runs: tuple[TermRun, ...]
    is_saving: bool
    may_vote: bool
    lost_upto: EntryId
    known: EntryId
    """Name of the newest configuration that is known to be committed."""
    orders: EntryId
    is_stateful: bool
    is_reserve: bool
    is_wiping: bool
    peers: tuple[MemberId, ...]
    are_stateful: tuple[bool, ...]
    matches: tuple[int, ...]
    stable_indexes: tuple[int, ...]
    nexts: tuple[int, ...]
    noop_index: int
    valid_from: int
    stalled_promotions: tuple[MemberId, ...]


def observe(raft: State) -> Facts:
    """The facts of this moment."""
    leader_state = raft.leader_state
    progress = {} if leader_state is None else leader_state.progress
    peers = tuple(progress.values())
    return Facts(
        raft.member,
        raft.configuration,
        raft.state,
        raft.current_term,
        raft.voted_for,
        raft.leader,
        raft.terms.before,
        raft.terms.first_index,
        raft.last,
        raft.durable_index,
        raft.commit_index,
        raft.commit_ceiling,
        raft.installed_index,
        raft.deletion_floor,
        raft.cluster_deletion_floor,
        tuple(raft.terms.runs),
        raft.is_saving,
        raft.eligibility.may_vote,
        raft.eligibility.lost_upto,
        raft.known_configuration.entry,
        raft.orders.configuration,
        raft.is_stateful,
        raft.is_reserve,
        raft.is_wiping,
        tuple(progress),
        tuple(peer.is_stateful for peer in peers),
        tuple(peer.match_index for peer in peers),
        tuple(peer.stable_index for peer in peers),
        tuple(peer.next_index for peer in peers),
        0 if leader_state is None else leader_state.noop_index,
        0 if leader_state is None else leader_state.valid_from,
        () if leader_state is None else _stalled_promotions(raft, leader_state),
    )


def _stalled_promotions(raft: State, leader_state: LeaderState) -> tuple[MemberId, ...]:
    """Who has the flag of a promotion that this leader does not continue."""
    promotions = leader_state.changes.promotions
    members = raft.committed_configuration.members
    return tuple(
        each.member for each in members if each.is_promotable and each.member not in promotions
    )


def check(before: Facts | None, after: Facts) -> None:
    """Raise InvariantError when a law of one member does not hold.

    before: the facts before the step, of the same incarnation; None right after a start.
    """
    _check_order(after)
    _check_role(after)
    _check_membership(before, after)
    if before is not None:
        _check_hard_state(before, after)
        _check_commit(before, after)
        _check_log(before, after)
        _check_deletion_floor(before, after)
        _check_leader(before, after)


def _check_order(now: Facts) -> None:
    """I4: first - 1 <= commit <= last; durable <= last; terms within the current one."""
    last = now.last.index
    require(now.first_index - 1 <= last, "I4: the log ends before it begins", facts=now)
    require(now.before.next == now.first_index, "I12: the log has lost its front", facts=now)
    require(now.before.index <= now.commit_index, "I4: trimmed above the commit", facts=now)
    require(now.before.index <= now.durable_index, "C24: trimmed what is not durable", facts=now)
    require(now.installed_index <= now.commit_index, "I12: an install is no commit", facts=now)
    require(
        now.deletion_floor <= now.commit_index, "C23: a deletion floor above the commit", facts=now
    )
    require(0 <= now.commit_index <= last, "I4: committed beyond the log", facts=now)
    require(0 <= now.durable_index <= last, "I4: durable beyond the log", facts=now)
    require(now.commit_ceiling <= last, "I8: verified beyond the log", facts=now)
    require(now.last.term <= now.current_term, "an entry of a term not seen", facts=now)
    for run in now.runs:
        inside = now.first_index <= run.first <= last and run.term >= max(1, now.before.term)
        require(inside, "a term run off the log", facts=now)


def _check_role(now: Facts) -> None:
    """A role has the rights it needs: a vote for itself, on the disk (I2), and a past (C16)."""
    if now.state is ServerState.LEADER:
        require(now.leader == now.member, "a leader that follows another", facts=now)
        require(not now.is_saving, "I2: a leader whose vote is not durable", facts=now)
        require(not now.stalled_promotions, "C36: nobody continues a promotion", facts=now)
    else:
        require(now.leader != now.member, "it follows itself", facts=now)
        require(not now.matches, "a follower with progress of peers", facts=now)
    if now.state is not ServerState.FOLLOWER:
        require(now.voted_for == now.member, "I2: it campaigns without its vote", facts=now)
        require(now.may_vote, "C16: it campaigns and may not even vote", facts=now)
        require(
            now.lost_upto == NO_ENTRY, "C12: it campaigns without what it acknowledged", facts=now
        )
    for match, following in zip(now.matches, now.nexts, strict=True):
        require(0 <= match < following <= now.last.next, "progress out of order", facts=now)
        require(following >= now.first_index, "progress below the log", facts=now)
    for match, stable_index in zip(now.matches, now.stable_indexes, strict=True):
        known = max(match, now.commit_index)
        require(0 <= stable_index <= known, "C23: stable what is not durable", facts=now)


def _check_membership(before: Facts | None, after: Facts) -> None:
    """C28, C33: no older word of a leader counts after a newer one, and only a newer one gives a
    log to a reserve, or takes that of another member."""
    require(after.orders >= after.known, "C28: orders older than what is known", facts=after)
    if before is None:
        require(
            after.is_reserve or after.is_stateful,
            "C33: it starts with no right to a log",
            facts=after,
        )
        return
    require(after.known >= before.known, "C28: it knew a newer configuration", facts=after)
    require(
        after.is_stateful or after.is_reserve or not before.is_reserve,
        "C33: a reserve took up a log that nothing newer gives it",
        before=before,
        after=after,
    )
    require(
        before.is_wiping or not (after.is_wiping and after.is_stateful),
        "C33: it deletes a log that something newer gives it",
        before=before,
        after=after,
    )


def _check_hard_state(before: Facts, after: Facts) -> None:
    require(after.current_term >= before.current_term, "the term fell", facts=after)
    if after.current_term == before.current_term:
        require(
            before.voted_for in (NOBODY, after.voted_for),
            "I2: the vote changed without the term",
            before=before,
            after=after,
        )


def _check_commit(before: Facts, after: Facts) -> None:
    require(
        after.commit_index >= before.commit_index
        and after.commit_ceiling >= before.commit_ceiling,
        "I4: the commit index fell",
        before=before,
        after=after,
    )
    require(
        after.installed_index >= before.installed_index,
        "I12: the installed index fell",
        after=after,
    )
    if after.commit_index > max(before.commit_index, after.installed_index):
        if after.state is ServerState.LEADER:
            facts = {after.valid_from, after.known.index}
            if after.commit_index in facts and after.commit_index < after.noop_index:
                return  # C22, C30: not by count; gaps, or the directory, say that it is committed
            require(
                after.commit_index >= after.noop_index,
                "I7: a leader committed an entry of another term by count",
                after=after,
            )
            match_of = dict(zip(after.peers, after.matches, strict=True))
            match_of[after.member] = after.durable_index
            # What is committed in a step may let the next configuration be appended in it.
            counting = (before.configuration, after.configuration)
            require(
                any(after.commit_index <= each.agreed_index(match_of) for each in counting),
                "I7: committed without a majority",
                after=after,
            )
        else:
            # A leader may commit what others made durable; stepping down takes nothing back.
            require(
                after.commit_index <= min(after.durable_index, after.commit_ceiling),
                "C2, C24: a follower committed what it has not verified and synced",
                after=after,
            )


def _check_log(before: Facts, after: Facts) -> None:
    """I10: what was committed stays, in the log or in a snapshot; a leader's log only grows."""
    fixed_index = max(before.commit_index, before.commit_ceiling)
    if before.state is after.state is ServerState.LEADER:
        fixed_index = before.last.index
        require(
            after.durable_index >= before.durable_index,
            "C6: the durable index of a leader fell",
            after=after,
        )
    require(
        after.before.index >= before.before.index, "I12: deleted entries came back", after=after
    )
    first = after.first_index
    same = _between(before.runs, first, fixed_index) == _between(after.runs, first, fixed_index)
    require(
        after.last.index >= fixed_index and same,
        "I10: a truncation reached what must stay",
        fixed_index=fixed_index,
        before=before,
        after=after,
    )


def _between(runs: tuple[TermRun, ...], first: int, last: int) -> list[TermRun]:
    """The runs of the entries first .. last; none when `last` is below."""
    runs_between: list[TermRun] = []
    for run in runs if first <= last else ():
        if run.first <= first:
            runs_between = [TermRun(run.term, first)]
        elif run.first <= last:
            runs_between.append(run)
    return runs_between


def _check_deletion_floor(before: Facts, after: Facts) -> None:
    """C23, I22: only what members have moves the deletion floor, never back and never by time."""
    require(
        after.cluster_deletion_floor >= before.cluster_deletion_floor,
        "C23: the deletion floor fell",
        after=after,
    )
    if (
        after.state is ServerState.LEADER
        and after.cluster_deletion_floor > before.cluster_deletion_floor
    ):
        pairs = zip(after.stable_indexes, after.are_stateful, strict=True)
        stable_indexes = [stable_index for stable_index, is_stateful in pairs if is_stateful]
        least = min(after.commit_index, after.durable_index, *stable_indexes)
        require(
            after.cluster_deletion_floor <= least,
            "C23: a deletion floor above the stable index of a member",
            after=after,
        )


def _check_leader(before: Facts, after: Facts) -> None:
    """I9: what a follower once acknowledged is a fact for the rest of the term, while it has the
    log about which it said that."""
    if before.state is not ServerState.LEADER or after.state is not ServerState.LEADER:
        return
    require(before.current_term == after.current_term, "a leader changed its term", after=after)
    was = dict(
        zip(before.peers, zip(before.are_stateful, before.matches, strict=True), strict=True)
    )
    now = dict(zip(after.peers, zip(after.are_stateful, after.matches, strict=True), strict=True))
    for peer in was.keys() & now.keys():
        (had_log, match_before), (has_log, match_after) = was[peer], now[peer]
        require(
            match_after >= match_before or not (had_log and has_log),
            "I9: a match index fell",
            before=before,
            after=after,
        )
