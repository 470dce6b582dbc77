"""C12: a member that lost entries to damage votes as if it held them, until it does (0017)."""

from __future__ import annotations

import pytest

from copycat.errors import InvariantError
from copycat.protocol.peer import (
    AppendEntries,
    AppendReply,
    InstallReply,
    PreVote,
    PreVoteReply,
    RequestVote,
    TimeoutNow,
    VoteReply,
)
from copycat.raft.configuration import Configuration
from copycat.raft.core import Raft
from copycat.raft.effects import Commit, Effect, ShipSnapshot
from copycat.raft.events import (
    GapsKnown,
    LossAccepted,
    Saved,
    SnapshotInstalled,
    Synced,
    Tick,
)
from copycat.raft.initial_state import InitialState
from copycat.raft.progress import ProgressState
from copycat.types import NO_ENTRY, EntryId, MemberId, ServerState, Span
from tests.raft.cluster import Cluster, runs_of
from tests.raft.helpers import OPTIONS, append, complete_io, leader, of, receive, sends
from tests.raft.laws import BrokenLaw, Entry
from tests.raft.schedule import Chaos

ME, B, C = MemberId(1), MemberId(2), MemberId(3)
LOST_UPTO = EntryId(3, 9)
HUGE = (1 << 63) - 1


def member(*terms: int, lost_upto: EntryId = LOST_UPTO) -> Raft:
    """Its log holds entries of these terms, its disk once had `lost_upto`."""
    raft = Raft(
        ME,
        Configuration.of(ME, B, C),
        OPTIONS,
        InitialState(
            current_term=4,
            term_runs=runs_of([Entry(term, "") for term in terms]),
            last_index=len(terms),
            lost_upto=lost_upto,
        ),
        seed=5,
    )
    raft.step(Tick(101))
    return raft


@pytest.mark.parametrize(
    ("last", "granted"),
    [
        (EntryId(3, 8), False),
        (EntryId(2, 99), False),
        (EntryId(3, 9), True),
        (EntryId(4, 1), True),
    ],
)
def test_it_votes_only_for_who_has_what_it_once_had(last: EntryId, granted: bool) -> None:
    raft = member(2, 3)
    assert (raft.last, raft.eligibility.vote_floor(raft.last)) == (EntryId(3, 2), LOST_UPTO)
    answers = sends(receive(raft, C, PreVote(5, 3, last)))
    assert answers == [(C, PreVoteReply(4, 3, granted))]
    effects = receive(raft, C, RequestVote(5, last, False)) + raft.step(Saved(raft.save_ticket))
    assert (C, VoteReply(5, granted)) in sends(effects)


def test_an_end_that_nobody_knows_asks_for_a_later_term() -> None:
    raft = member(3, lost_upto=EntryId(3, HUGE))
    assert sends(receive(raft, C, PreVote(9, 3, EntryId(3, 1 << 60)))) == [
        (C, PreVoteReply(4, 3, False))
    ]
    assert sends(receive(raft, C, PreVote(9, 4, EntryId(4, 1)))) == [(C, PreVoteReply(4, 4, True))]


def test_it_does_not_campaign_not_even_when_it_is_told_to() -> None:
    raft = member(3)
    receive(raft, B, append(4, 1, (0, 0), []))
    receive(raft, B, TimeoutNow(4))
    raft.step(Tick(1_000_000))
    assert raft.state is ServerState.FOLLOWER
    assert raft.pre_vote_round is None
    assert raft.current_term == 4


def test_it_says_truly_what_it_holds_and_is_fed() -> None:
    raft = member(3, 3)
    effects = receive(raft, B, append(5, 1, (3, 8), []))
    effects += raft.step(Saved(raft.save_ticket))
    assert sends(effects) == [(B, AppendReply(5, 1, False, 0, EntryId(3, 2)))]
    receive(raft, B, append(5, 2, (3, 2), [3, 3, 3]))
    assert sends(complete_io(raft)) == [(B, AppendReply(5, 2, True, 5, NO_ENTRY, 5))]
    assert raft.eligibility.is_recovering


def test_it_recovers_until_as_much_is_durable() -> None:
    raft = member(3, 3)
    receive(raft, B, append(5, 1, (3, 2), [3] * 7))
    assert raft.last == LOST_UPTO
    assert raft.eligibility.is_recovering, "a crash would take it back"
    complete_io(raft)
    assert not raft.eligibility.is_recovering
    raft.step(Tick(10_000))
    assert raft.pre_vote_round is not None, "it may campaign again"


def test_one_entry_of_a_later_term_is_as_much() -> None:
    raft = member(3, 3)
    receive(raft, B, append(5, 1, (3, 2), [5]))
    complete_io(raft)
    assert not raft.eligibility.is_recovering


def test_a_snapshot_may_be_as_much() -> None:
    raft = member(3, 3)
    receive(raft, B, append(5, 1, (3, 12), []))
    raft.step(SnapshotInstalled(B, 2, EntryId(4, 12)))
    assert not raft.eligibility.is_recovering
    assert raft.last == EntryId(4, 12)


def test_a_log_that_reaches_as_far_lacks_nothing() -> None:
    assert not member(3, 3, lost_upto=EntryId(3, 2)).eligibility.is_recovering
    assert member(3, 3, lost_upto=EntryId(3, 3)).eligibility.is_recovering


# ---- gaps ----------------------------------------------------------------------------------


def test_it_takes_no_gap_and_asks_for_a_snapshot() -> None:
    raft = member(3, 3)
    message = append(5, 1, (3, 2), [3, 3])
    effects = receive(raft, B, message, has_gaps=True) + raft.step(Saved(raft.save_ticket))
    hint = EntryId(3, 2)
    assert sends(effects) == [(B, AppendReply(5, 1, False, 0, hint, wants_snapshot=True))]
    assert raft.last == hint
    whole = member(lost_upto=NO_ENTRY)
    receive(whole, B, append(5, 1, (0, 0), [3, 3]), has_gaps=True)
    assert whole.last == EntryId(3, 2)


@pytest.mark.usefixtures("no_follower_feeds")
def test_a_leader_then_ships_a_snapshot_of_all_that_is_committed() -> None:
    raft, _ = leader(1, 1, 1)
    assert raft.leader_state is not None
    term = raft.current_term
    receive(
        raft,
        C,
        AppendReply(term, raft.leader_state.progress[C].last_request, True, 4, NO_ENTRY, 0),
    )
    assert raft.commit_index == 4
    assert raft.cluster_deletion_floor == 0, "it has just been elected"
    request = raft.leader_state.progress[B].last_request
    reply = AppendReply(term, request, False, 0, EntryId(1, 2), wants_snapshot=True)
    effects = receive(raft, B, reply)
    (ship,) = of(effects, ShipSnapshot)
    assert (ship.peer, ship.min_index) == (B, 4)
    progress = raft.leader_state.progress[B]
    assert progress.state is ProgressState.SNAPSHOT
    assert progress.next_index == 5, "no heartbeat may match before the snapshot is there"
    assert of(raft.step(Tick(OPTIONS.heartbeat_interval_ms)), ShipSnapshot) == [], "once"
    done = InstallReply(term, ship.request, EntryId(term, 4), 0, done=True)
    receive(raft, B, done)
    assert progress.match_index == 0, "of a snapshot that nobody named"


def asked_for_a_snapshot(raft: Raft, valid_from: int) -> list[Effect]:
    """It was elected with gaps of its log that are valid from there, and B takes no gap."""
    assert raft.leader_state is not None
    raft.step(GapsKnown(valid_from))
    assert raft.commit_index == 0, "nobody needs to know so far"
    request = raft.leader_state.progress[B].last_request
    hint = EntryId(1, 1)
    reply = AppendReply(raft.current_term, request, False, 0, hint, wants_snapshot=True)
    return receive(raft, B, reply)


def test_c22_what_gaps_say_was_committed_needs_no_count() -> None:
    """It restarted, and knows of no commit. Without B it can count none, and B waits for it."""
    raft, _ = leader(1, 1, 1, 1)
    effects = asked_for_a_snapshot(raft, 3)
    assert of(effects, Commit) == [Commit(3)]
    assert [(ship.peer, ship.min_index) for ship in of(effects, ShipSnapshot)] == [(B, 3)]
    assert raft.leader_state is not None
    assert raft.leader_state.progress[B].next_index == 4
    assert of(asked_again(raft), Commit) == [], "the rest is counted as ever"


def asked_again(raft: Raft) -> list[Effect]:
    assert raft.leader_state is not None
    return receive(raft, B, AppendReply(raft.current_term, 1, False, 0, NO_ENTRY, 0, True))


@pytest.mark.parametrize("valid_from", [5, 6, 99])
def test_c22_its_own_entries_are_never_committed_by_gaps(valid_from: int) -> None:
    """Gaps say that more was committed than it had when it was elected: a loss was accepted.

    Nor may a heartbeat match before there is a snapshot: the gaps would go out once a round trip.
    """
    raft, _ = leader(1, 1, 1, 1)
    assert raft.leader_state is not None
    assert raft.leader_state.noop_index == 5
    effects = asked_for_a_snapshot(raft, valid_from)
    assert of(effects, Commit) == []
    assert [ship.min_index for ship in of(effects, ShipSnapshot)] == [valid_from]
    assert raft.leader_state.progress[B].next_index == 6


def test_c22_who_does_not_lead_takes_nothing_for_committed() -> None:
    raft = member(3, 3, lost_upto=NO_ENTRY)
    assert raft.step(GapsKnown(2)) == []
    assert raft.commit_index == 0


# ---- a loss that was accepted ----------------------------------------------------------------


def accepted_loss(*terms: int) -> Raft:
    raft = member(*terms)
    assert raft.step(LossAccepted(LOST_UPTO)) == []
    return raft


def test_whose_loss_was_accepted_votes_and_campaigns_with_what_it_has() -> None:
    raft = accepted_loss(3)
    assert not raft.eligibility.is_recovering
    assert raft.eligibility.vote_floor(raft.last) == raft.last
    assert sends(receive(raft, C, PreVote(5, 3, EntryId(3, 1)))) == [(C, PreVoteReply(4, 3, True))]
    raft.step(Tick(10_000))
    assert raft.pre_vote_round is not None


def test_it_takes_no_gap_until_something_newer_is_committed() -> None:
    raft = accepted_loss(3, 3)
    effects = receive(raft, B, append(5, 1, (3, 2), [3, 3]), has_gaps=True)
    assert raft.last == EntryId(3, 2)
    effects = [*effects, *raft.step(Saved(raft.save_ticket))]
    hint = EntryId(3, 2)
    assert sends(effects) == [(B, AppendReply(5, 1, False, 0, hint, wants_snapshot=True))]
    receive(raft, B, append(5, 2, (3, 2), [5], commit=2))
    complete_io(raft)
    assert raft.commit_index == 2
    assert not raft.eligibility.accepts_gaps, "another leader may replace what is not committed"
    receive(raft, B, append(5, 3, (5, 3), [], commit=3))
    assert raft.commit_index == 3
    assert raft.eligibility.accepts_gaps
    receive(raft, B, append(5, 4, (5, 3), [5, 5]), has_gaps=True)
    assert raft.last == EntryId(5, 5)


def test_a_snapshot_that_covers_all_that_it_held_is_as_good() -> None:
    raft = accepted_loss(3, 3)
    receive(raft, B, append(5, 1, (3, 9), []))
    raft.step(Saved(raft.save_ticket))
    raft.step(SnapshotInstalled(B, 2, EntryId(3, 8)))
    assert not raft.eligibility.accepts_gaps, "it held one entry more"
    raft.step(SnapshotInstalled(B, 3, EntryId(3, 9)))
    raft.step(Synced(raft.sync_ticket))
    assert raft.eligibility.accepts_gaps


# ---- the law of one member ------------------------------------------------------------------


def test_the_law_sees_who_campaigns_without_what_it_held() -> None:
    from copycat.raft.invariants import check, observe

    raft, _ = leader(1)
    assert raft.eligibility.report_loss(EntryId(9, 9), raft.last)
    with pytest.raises(InvariantError, match="C12"):
        check(None, observe(raft))


# ---- all members ----------------------------------------------------------------------------


def without_its_entries(*, is_recovering: bool) -> Cluster:
    """1 and 2 commit x, the disk of 2 loses it, 1 its power; 3, which has nothing, campaigns."""
    cluster = Cluster(3)
    cluster.age()
    cluster.elect(1)
    cluster.stabilize()
    cluster.blocked |= {(1, 3), (3, 1), (2, 3), (3, 2)}
    cluster.propose(1, "x")
    cluster.stabilize()
    cluster.crash(1)
    cluster.rot(2, 2, is_recovering=is_recovering)
    cluster.blocked.clear()
    cluster.tick(2, 300)
    for _ in range(5):
        cluster.tick(3, 300)
        cluster.stabilize()
    return cluster


def test_without_the_rule_an_acknowledged_entry_is_lost() -> None:
    """The same trace twice: only the knowledge of what was there keeps x."""
    safe = without_its_entries(is_recovering=True)
    assert safe.nodes[3].raft.state is not ServerState.LEADER
    with pytest.raises(BrokenLaw, match=r"I6|C23"):
        without_its_entries(is_recovering=False)


def test_all_three_suspect_at_one_index_nobody_leads_and_nothing_is_discarded() -> None:
    cluster = Cluster(3)
    cluster.age()
    cluster.elect(1)
    cluster.propose(1, "x")
    cluster.stabilize()
    for number in cluster.nodes:
        cluster.rot(number, 2)
    cluster.age()
    for _ in range(20):
        for number in cluster.nodes:
            cluster.tick(number, 200)
        cluster.stabilize()
    for node in cluster.nodes.values():
        assert node.raft.state is ServerState.FOLLOWER
        assert (node.raft.current_term, node.raft.eligibility.lost_upto) == (2, EntryId(1, 2))
        assert len(node.durable_log) == 1


class Rotting(Chaos):
    """A storm in which disks rot: of one member at a time, from any entry on.

    The next one rots when the last has all of it back: so a readable copy of every committed
    entry is left at whoever else acknowledged it.
    """

    def __init__(self, seed: int) -> None:
        super().__init__(seed, 400)
        self.weights[8] = 3  # crash or restart
        self.rots = 0
        self.cluster.watch = self.look
        self.by_gaps = 0
        """Commits that a leader took from gaps of its log (C22)."""

    def look(self, number: int, effect: Effect) -> None:
        leader_state = self.cluster.nodes[number].raft.leader_state
        if (
            isinstance(effect, Commit)
            and leader_state is not None
            and effect.index < leader_state.noop_index
        ):
            self.by_gaps += 1

    def calm(self) -> None:
        """First everybody goes down: whoever is elected then knows of no commit."""
        for number, node in self.cluster.nodes.items():
            if node.is_up:
                self.cluster.crash(number)
        super().calm()

    def crash_or_restart(self) -> None:
        nodes = self.cluster.nodes
        number = self.rng.choice(list(nodes))
        node = nodes[number]
        if node.is_up and self.rng.random() < 0.5:
            node.gaps = (node.commit_index, node.commit_index)
        first = node.durable_first
        is_next = all(each.lost_upto == NO_ENTRY for each in nodes.values())
        if (
            node.is_up
            or len(nodes) < 3
            or not is_next
            or first > len(node.durable_log)
            or self.rng.random() < 0.4
        ):
            super().crash_or_restart()
        else:
            self.rots += 1
            self.cluster.rot(number, self.rng.randrange(first, len(node.durable_log) + 1))


@pytest.mark.slow
@pytest.mark.parametrize("block", range(4))
def test_laws_hold_while_disks_rot(block: int) -> None:
    rotten = by_gaps = 0
    for seed in range(50 * block, 50 * block + 50):
        chaos = Rotting(seed)
        chaos.storm()
        chaos.calm()
        rotten += chaos.rots
        by_gaps += chaos.by_gaps
    assert rotten > 25
    assert by_gaps > 0


def test_entries_that_it_acknowledges_meanwhile_count() -> None:
    """It is a voter like any other while it is fed: 2 and 1 commit y with 3 away."""
    cluster = Cluster(3)
    cluster.age()
    cluster.elect(1)
    cluster.propose(1, *"abcdef")
    cluster.stabilize()
    cluster.rot(2, 3)
    cluster.crash(3)
    cluster.tick(2, 150)
    cluster.tick(1, 20)
    cluster.stabilize()
    assert not cluster.leaders(), "1 has heard of a newer term"
    while not cluster.propose(1, "y"):
        cluster.tick(1, 20)
        cluster.stabilize()
    cluster.stabilize()
    assert cluster.nodes[1].commit_index == len(cluster.nodes[1].log)
    assert not cluster.nodes[2].raft.eligibility.is_recovering
    assert cluster.nodes[2].durable_log == cluster.nodes[1].log


def test_append_entries_is_well_formed_here() -> None:
    """The helper's messages are the ones that a leader makes."""
    assert append(5, 2, (3, 2), [3]) == AppendEntries(
        5, MemberId(0), 2, EntryId(3, 2), Span(3, 3, 4), 0
    )


def test_a_sync_of_what_was_there_before_clears_nothing() -> None:
    raft = member(3, 3)
    receive(raft, B, append(5, 1, (3, 2), [3]))
    raft.step(Saved(raft.save_ticket))
    raft.step(Synced(raft.sync_ticket, 3))
    assert raft.eligibility.is_recovering
