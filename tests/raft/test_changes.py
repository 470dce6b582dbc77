"""What a leader does with requests to change the members (C34, C36, C37)."""

from __future__ import annotations

import pytest

from copycat.protocol.member_record import DirectoryStart
from copycat.protocol.peer import AppendReply, LogPosition, TimeoutNow
from copycat.raft.change_requests import PROMOTION_TIMEOUTS
from copycat.raft.changes import (
    ConfigurationChange,
    goal_holds,
    next_configuration,
    repeated,
)
from copycat.raft.configuration import Configuration, MemberRecord
from copycat.raft.core import Raft
from copycat.raft.effects import (
    Append,
    ChangeFinished,
    Content,
    Effect,
    EndDeparture,
    PeerRegressed,
    ReadReady,
)
from copycat.raft.events import (
    ChangeRequested,
    Proposed,
    Reachable,
    ReadRequested,
    Synced,
    Tick,
    TransferRequested,
)
from copycat.raft.progress import Scope
from copycat.raft.state import NOBODY
from copycat.types import NO_ENTRY, ChangeRefusal, EntryId, MemberId, MemberType
from tests.raft.helpers import OPTIONS, leader, of, receive, sends, ship

ME, B, C, D = map(MemberId, (1, 2, 3, 4))
ACTIVE, PASSIVE, RESERVE = MemberType.ACTIVE, MemberType.PASSIVE, MemberType.RESERVE
NAME = EntryId(2, 9)
FOUNDERS = Configuration.of(ME, B, C)


def record(member: MemberId, kind: MemberType, *, flag: bool = False) -> MemberRecord:
    return MemberRecord(member, kind, since=5 * (kind is PASSIVE), is_promotable=flag)


def with_d(kind: MemberType, *, flag: bool = False) -> Configuration:
    return FOUNDERS.with_record(record(D, kind, flag=flag), EntryId(1, 5))


# ---- the next configuration --------------------------------------------------------------------


def test_c35_who_joined_at_an_entry_that_is_lost_joins_at_the_one_that_repeats_it() -> None:
    again = repeated(with_d(PASSIVE), EntryId(4, 3))
    assert again.entry == EntryId(4, 3)
    assert [each.since for each in again.members] == [0, 0, 0, 3]
    assert repeated(with_d(PASSIVE), NAME).members == with_d(PASSIVE).members


@pytest.mark.parametrize(
    ("now", "change", "expected"),
    [
        (FOUNDERS, ConfigurationChange.add(record(D, RESERVE), NO_ENTRY), (RESERVE, 0, False)),
        (FOUNDERS, ConfigurationChange.add(record(D, PASSIVE), NO_ENTRY), (PASSIVE, 9, False)),
        (FOUNDERS, ConfigurationChange.add(record(D, ACTIVE), NO_ENTRY), (PASSIVE, 9, True)),
        (with_d(RESERVE), ConfigurationChange.promote(D, PASSIVE, NAME), (PASSIVE, 9, False)),
        (with_d(RESERVE), ConfigurationChange.promote(D, ACTIVE, NAME), (PASSIVE, 9, True)),
        (with_d(PASSIVE), ConfigurationChange.promote(D, ACTIVE, NAME), (PASSIVE, 5, True)),
        (with_d(PASSIVE), ConfigurationChange.add(record(D, ACTIVE), NAME), (PASSIVE, 5, True)),
        (with_d(PASSIVE), ConfigurationChange.demote(D, RESERVE, NAME), (RESERVE, 0, False)),
        (with_d(ACTIVE), ConfigurationChange.demote(D, PASSIVE, NAME), (PASSIVE, 0, False)),
        (with_d(ACTIVE), ConfigurationChange.demote(D, RESERVE, NAME), (RESERVE, 0, False)),
        (
            with_d(PASSIVE, flag=True),
            ConfigurationChange.demote(D, PASSIVE, NAME),
            (PASSIVE, 5, False),
        ),
    ],
)
def test_the_next_configuration(
    now: Configuration, change: ConfigurationChange, expected: tuple[MemberType, int, bool]
) -> None:
    after = next_configuration(change, now, NAME)
    assert isinstance(after, Configuration)
    assert after.entry == NAME
    made = after.record(D)
    assert made is not None
    assert (made.type, made.since, made.is_promotable) == expected
    assert after.without(D, NAME) == now.without(D, NAME)


@pytest.mark.parametrize(
    ("change", "refusal"),
    [
        (ConfigurationChange.promote(MemberId(9), ACTIVE, NAME), ChangeRefusal.UNKNOWN_MEMBER),
        (ConfigurationChange.remove(MemberId(9), NAME), ChangeRefusal.UNKNOWN_MEMBER),
        (ConfigurationChange.promote(D, RESERVE, NAME), ChangeRefusal.WRONG_TYPE),
        (ConfigurationChange.demote(D, ACTIVE, NAME), ChangeRefusal.WRONG_TYPE),
        (ConfigurationChange.demote(D, MemberType.INACTIVE, NAME), ChangeRefusal.WRONG_TYPE),
        (
            ConfigurationChange.add(MemberRecord(D, ACTIVE, "d:2"), NAME),
            ChangeRefusal.MEMBER_ID_REUSED,
        ),
    ],
)
def test_what_makes_no_sense_is_refused(
    change: ConfigurationChange, refusal: ChangeRefusal
) -> None:
    assert next_configuration(change, with_d(PASSIVE), NAME) is refusal


def test_the_last_voter_stays() -> None:
    alone = Configuration.of(ME, non_voters=(B,))
    for change in (
        ConfigurationChange.demote(ME, PASSIVE, NAME),
        ConfigurationChange.remove(ME, NAME),
    ):
        assert next_configuration(change, alone, NAME) is ChangeRefusal.LAST_VOTER


def test_c36_a_goal_that_holds_is_success() -> None:
    now = with_d(PASSIVE)
    stale = EntryId(1, 1)
    assert goal_holds(ConfigurationChange.promote(D, PASSIVE, stale), now)
    demoted = now.with_record(record(D, PASSIVE)._replace(is_demoted=True), now.entry)
    assert goal_holds(ConfigurationChange.demote(D, PASSIVE, stale), demoted)
    assert not goal_holds(ConfigurationChange.demote(D, PASSIVE, stale), now), "C39: by a user"
    assert goal_holds(ConfigurationChange.add(record(D, RESERVE), stale), now)
    assert goal_holds(ConfigurationChange.remove(MemberId(9), stale), now)
    assert not goal_holds(ConfigurationChange.remove(MemberId(9), now.entry), now)
    assert not goal_holds(ConfigurationChange.remove(D, stale), now)
    assert not goal_holds(
        ConfigurationChange.demote(D, PASSIVE, stale), with_d(PASSIVE, flag=True)
    )


# ---- a leader -----------------------------------------------------------------------------------


def answer(raft: Raft, *peers: MemberId, replaying: bool = False) -> list[Effect]:
    """Everything that was sent to these peers arrives, durably, and they say so."""
    assert raft.leader_state is not None
    effects: list[Effect] = []
    for peer in peers:
        progress = raft.leader_state.progress[peer]
        reply = AppendReply(
            raft.current_term,
            progress.last_request,
            True,
            progress.next_index - 1,
            NO_ENTRY,
            configuration=raft.committed_configuration.entry,
            is_replaying=replaying,
        )
        answered = receive(raft, peer, reply)
        effects += [*answered, *ship(raft, answered)]
    return effects


def working(*peers: MemberId) -> Raft:
    """The leader of three, whose first entry is committed; `peers` have links besides."""
    raft, _ = leader(1, 1)
    answer(raft, B, C)
    for peer in (B, C, *peers):
        raft.step(Reachable(peer, fresh=False))
    return raft


def ask(raft: Raft, change: ConfigurationChange, token: int = 1) -> list[Effect]:
    effects = raft.step(ChangeRequested(token, change))
    return [*effects, *ship(raft, effects)]


def heartbeat(raft: Raft, *peers: MemberId, replaying: bool = False) -> list[Effect]:
    effects = raft.step(Tick(OPTIONS.heartbeat_interval_ms))
    return [*effects, *ship(raft, effects), *answer(raft, *peers, replaying=replaying)]


def commit(raft: Raft, *peers: MemberId) -> list[Effect]:
    return [*raft.step(Synced(raft.sync_ticket)), *answer(raft, *peers)]


def outcomes(effects: list[Effect]) -> list[tuple[int, ChangeRefusal | None]]:
    return [(each.token, each.refusal) for each in of(effects, ChangeFinished)]


def appended(effects: list[Effect]) -> list[Configuration | None]:
    return [
        each.configuration for each in of(effects, Append) if each.content is Content.CONFIGURATION
    ]


def flagged() -> Raft:
    """D is passive, and shall get its vote; somebody waits for that under token 1."""
    raft = working(D)
    base = raft.committed_configuration.entry
    assert len(appended(ask(raft, ConfigurationChange.add(record(D, ACTIVE), base)))) == 1
    assert outcomes(commit(raft, B, C)) == []
    assert raft.committed_configuration.type(D) is PASSIVE
    return raft


def test_c36_a_request_is_not_made_twice_when_the_members_became_the_same_again() -> None:
    """The first answer was lost, and somebody else has taken the change back."""
    raft = flagged()
    seen = raft.committed_configuration
    demotion = ConfigurationChange.demote(D, PASSIVE, seen.entry)
    ask(raft, demotion)
    assert (1, ChangeRefusal.SUPERSEDED) in outcomes(commit(raft, B, C))
    base = raft.committed_configuration.entry
    ask(raft, ConfigurationChange.promote(D, ACTIVE, base))
    commit(raft, B, C)
    assert raft.committed_configuration.members == seen.members
    effects = ask(raft, demotion, 2)
    assert (appended(effects), outcomes(effects)) == ([], [(2, ChangeRefusal.STALE_BASE)])


def test_c36_what_a_leader_writes_of_itself_makes_no_request_stale() -> None:
    """Addresses and starts: whoever asks has asked for none of it."""
    raft = flagged()
    base = raft.committed_configuration.entry
    for number in (1, 2):
        start, now = DirectoryStart(number, 7), raft.committed_configuration.entry
        record = MemberRecord(D, PASSIVE, f"d:{number}", start=start, weight=number)
        ask(raft, ConfigurationChange.move(record, now))
        commit(raft, B, C)
    assert raft.committed_configuration.entry > base
    effects = ask(raft, ConfigurationChange.demote(D, PASSIVE, base), 2)
    assert len(appended(effects)) == 1


def test_c36_a_promotion_takes_a_round() -> None:
    raft = flagged()
    effects: list[Effect] = []
    for _ in range(3):
        effects += heartbeat(raft, B, C, D)
    assert [each.type(D) for each in appended(effects) if each is not None] == [ACTIVE]
    assert outcomes([*effects, *commit(raft, B, C, D)]) == [(1, None)]
    assert raft.committed_configuration.has_vote(D)


def test_c36_who_replays_gets_no_vote() -> None:
    raft = flagged()
    for _ in range(20):
        assert appended(heartbeat(raft, B, C, D, replaying=True)) == []
    effects = [*heartbeat(raft, B, C, D), *heartbeat(raft, B, C, D)]
    assert len(appended(effects)) == 1


def test_c36_a_round_that_takes_too_long_is_no_proof() -> None:
    raft = flagged()
    for _ in range(OPTIONS.election_timeout_ms // OPTIONS.heartbeat_interval_ms):
        heartbeat(raft, B, C)
    assert appended(answer(raft, D)) == []
    assert len(appended([*heartbeat(raft, B, C, D), *heartbeat(raft, B, C, D)])) == 1


def test_c36_the_flag_is_taken_back_after_a_while() -> None:
    raft = flagged()
    made: list[Configuration | None] = []
    beats = PROMOTION_TIMEOUTS * OPTIONS.election_timeout_ms // OPTIONS.heartbeat_interval_ms
    effects: list[Effect] = []
    for _ in range(beats + 2):
        effects = heartbeat(raft, B, C)
        made += appended(effects)
        if made:
            break
    assert [each.record(D) for each in made if each is not None] == [
        MemberRecord(D, PASSIVE, since=4)
    ]
    assert outcomes([*effects, *commit(raft, B, C)]) == [(1, ChangeRefusal.TIMED_OUT)]


@pytest.mark.parametrize(
    ("away", "replaying", "refusal"),
    [(C, False, ChangeRefusal.NO_MAJORITY), (NOBODY, True, ChangeRefusal.TIMED_OUT)],
)
def test_c36_what_others_write_is_no_gain(
    away: MemberId, replaying: bool, refusal: ChangeRefusal
) -> None:
    """The member has all entries at once, and yet cannot get its vote: the flag is taken back in a
    cluster that is written to, as it is in one where nothing happens."""
    raft = flagged()
    peers = [peer for peer in (B, C, D) if peer != away]
    for _ in range(2 * OPTIONS.election_timeout_ms // OPTIONS.heartbeat_interval_ms):
        heartbeat(raft, *[peer for peer in peers if peer != D])
    made: list[Configuration | None] = []
    effects: list[Effect] = []
    beats = PROMOTION_TIMEOUTS * OPTIONS.election_timeout_ms // OPTIONS.heartbeat_interval_ms
    for _ in range(beats + 4):
        ship(raft, raft.step(Proposed(1)))
        effects = heartbeat(raft, *peers, replaying=replaying)
        effects += raft.step(Synced(raft.sync_ticket))
        made = appended(effects)
        if made:
            break
    assert [each.record(D) for each in made if each is not None] == [
        MemberRecord(D, PASSIVE, since=4)
    ]
    assert outcomes([*effects, *commit(raft, *peers)]) == [(1, refusal)]


def test_c36_whoever_asks_for_the_same_promotion_waits_for_it() -> None:
    raft = flagged()
    again = ConfigurationChange.promote(D, ACTIVE, NO_ENTRY)
    assert outcomes(ask(raft, again, token=2)) == []
    base = raft.committed_configuration.entry
    effects = ask(raft, ConfigurationChange.remove(D, base), token=3)
    assert outcomes([*effects, *commit(raft, B, C)]) == [
        (1, ChangeRefusal.SUPERSEDED),
        (2, ChangeRefusal.SUPERSEDED),
        (3, None),
    ]


def test_who_is_no_member_is_not_removed_by_the_change_of_another() -> None:
    raft = working(D)
    ask(raft, ConfigurationChange.add(record(D, PASSIVE), NO_ENTRY))
    effects = ask(raft, ConfigurationChange.remove(MemberId(99), NO_ENTRY), token=2)
    assert outcomes(effects) == [(2, ChangeRefusal.IN_FLIGHT)]


def test_who_stops_leading_answers_whoever_waits() -> None:
    raft = flagged()
    base = raft.committed_configuration.entry
    ask(raft, ConfigurationChange.remove(C, base), token=2)
    effects = receive(raft, B, TimeoutNow(raft.current_term + 1))
    assert outcomes(effects) == [(1, ChangeRefusal.NOT_LEADER), (2, ChangeRefusal.NOT_LEADER)]


def test_nothing_changes_while_leadership_is_handed_over() -> None:
    raft = working(D)
    raft.step(TransferRequested(B))
    change = ConfigurationChange.add(record(D, PASSIVE), NO_ENTRY)
    assert outcomes(ask(raft, change)) == [(1, ChangeRefusal.IN_FLIGHT)]


def test_c34_a_leader_does_not_take_its_own_vote() -> None:
    raft = working()
    effects = ask(raft, ConfigurationChange.demote(ME, PASSIVE, NO_ENTRY))
    assert appended(effects) == []
    assert [type(message) for _, message in sends(effects)] == [TimeoutNow]
    for _ in range(OPTIONS.election_timeout_ms // OPTIONS.heartbeat_interval_ms):
        effects = heartbeat(raft, B, C)
    assert outcomes(effects) == [(1, ChangeRefusal.LEADER_ITSELF)]
    assert raft.can_propose


def test_c37_a_refusal_says_what_would_help() -> None:
    raft = working(D)
    base = NO_ENTRY
    ask(raft, ConfigurationChange.add(record(D, PASSIVE), base))
    commit(raft, B, C)
    for _ in range(2 * OPTIONS.election_timeout_ms // OPTIONS.heartbeat_interval_ms):
        heartbeat(raft, B, D)
    base = raft.committed_configuration.entry
    [refused] = of(ask(raft, ConfigurationChange.promote(D, ACTIVE, base)), ChangeFinished)
    assert refused.refusal is ChangeRefusal.NO_MAJORITY
    assert refused.missing == (C,)
    assert refused.demote_first == C
    assert outcomes(
        [*ask(raft, ConfigurationChange.demote(C, PASSIVE, base), 2), *commit(raft, B)]
    ) == [(2, None)]


def test_c30_a_member_that_joins_may_begin_again() -> None:
    """It acknowledged entries below its `since`, restarts as a reserve, and has none: its disk is
    not to blame."""
    raft = working(D)
    assert len(appended(ask(raft, ConfigurationChange.add(record(D, PASSIVE), NO_ENTRY)))) == 1
    commit(raft, B, C)
    assert raft.leader_state is not None
    heartbeat(raft)
    progress = raft.leader_state.progress[D]
    progress.acknowledge(progress.last_request, 2)
    assert (progress.match_index, progress.orders.since) == (2, 4)
    effects = receive(raft, D, LogPosition(raft.current_term, NO_ENTRY))
    assert (sends(effects), of(effects, PeerRegressed)) == ([], [])
    heartbeat(raft)
    rejected = AppendReply(raft.current_term, progress.last_request, False, 0, NO_ENTRY)
    effects = receive(raft, D, rejected)
    assert of(effects, PeerRegressed) == []
    assert raft.match_index(D) == 0
    assert raft.leader_state.progress[D].scope is Scope.COMMITTED


def test_a_read_ends_when_fewer_voters_are_enough() -> None:
    raft = working()
    for _ in range(2 * OPTIONS.election_timeout_ms // OPTIONS.heartbeat_interval_ms):
        heartbeat(raft, B)
    commit(raft, B)
    ask(raft, ConfigurationChange.demote(C, PASSIVE, NO_ENTRY))
    commit(raft, B)
    base = raft.committed_configuration.entry
    raft.step(ReadRequested(7))
    effects = ask(raft, ConfigurationChange.remove(B, base), token=2)
    effects += raft.step(Synced(raft.sync_ticket))
    assert outcomes(effects) == [(2, None)]
    assert [each.token for each in of(effects, ReadReady)] == [7]


def test_c34_a_member_that_was_removed_and_has_a_higher_term_is_let_go() -> None:
    raft = working()
    ask(raft, ConfigurationChange.remove(C, NO_ENTRY))
    assert raft.leader_state is not None
    assert of(commit(raft, B), EndDeparture) == []
    assert raft.leader_state.departing == (C,)
    term = raft.current_term
    effects = receive(raft, C, AppendReply(term + 1, 99, False, 0, NO_ENTRY))
    assert of(effects, EndDeparture) == [EndDeparture(C)]
    assert (raft.current_term, raft.peers) == (term, (B,))
