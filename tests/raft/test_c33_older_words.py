"""C33: what a leader says counts only if it is newer than all that this member was told before,
be it in an earlier process, or by an entry of its own log."""

from __future__ import annotations

import msgspec
import pytest

from copycat.protocol.member_record import ConfigurationRecord
from copycat.protocol.peer import AppendEntries, AppendReply, ConfigurationNotice
from copycat.raft.changes import ConfigurationChange
from copycat.raft.configuration import Configuration, MemberRecord
from copycat.raft.core import Raft
from copycat.raft.effects import ChangeFinished, Replicate, Send, Wipe
from copycat.raft.events import ChangeRequested, GapsKnown, Reachable, Saved, Synced, Tick
from copycat.raft.initial_state import InitialState
from copycat.raft.state import NOBODY
from copycat.types import (
    NO_ENTRY,
    ChangeRefusal,
    EntryId,
    MemberId,
    MemberType,
    ServerState,
    TermRun,
)
from tests.raft.helpers import OPTIONS, append, elect, of, receive, sends

A, B, C, D = map(MemberId, (1, 2, 3, 4))
ACTIVE, PASSIVE, RESERVE = MemberType.ACTIVE, MemberType.PASSIVE, MemberType.RESERVE


def named(index: int, **types: MemberType) -> Configuration:
    """The configuration of entry `index` of term 1, with these members."""
    ids = {"a": A, "b": B, "c": C, "d": D}
    members = [MemberRecord(ids[name], kind) for name, kind in types.items()]
    return Configuration.from_members(members, EntryId(1, index))


WITHOUT_C = named(10, a=ACTIVE, b=ACTIVE, d=RESERVE)
WITH_C = named(20, a=ACTIVE, b=ACTIVE, c=ACTIVE)
C_PASSIVE = named(10, a=ACTIVE, b=ACTIVE, c=PASSIVE)
C_RESERVE = named(20, a=ACTIVE, b=ACTIVE, c=RESERVE)
LATER = named(30, a=ACTIVE, b=ACTIVE, c=RESERVE, d=RESERVE)


def member_c(
    rows: tuple[Configuration, ...], stored: Configuration | None, last_index: int = 0
) -> Raft:
    """C, just started: `stored` is what its directory says is committed."""
    return started(C, Configuration.of(A, B), rows, stored, last_index)


def started(
    member: MemberId,
    first: Configuration,
    rows: tuple[Configuration, ...],
    stored: Configuration | None,
    last_index: int,
) -> Raft:
    initial = InitialState(
        current_term=1,
        term_runs=[TermRun(1, 1)] if last_index else [],
        last_index=last_index,
        configurations=rows,
        stored_configuration=stored,
        committed_configuration=stored,
    )
    raft = Raft(member, first, OPTIONS, initial, seed=0)
    raft.step(Tick(OPTIONS.election_timeout_ms))
    return raft


def notice(configuration: Configuration) -> ConfigurationNotice:
    record = ConfigurationRecord(configuration.entry, 0, configuration.members)
    return ConfigurationNotice(1, A, record)


def order(configuration: Configuration) -> AppendEntries:
    """A heartbeat of A that repeats what C is by `configuration`."""
    own = configuration.record(C)
    return msgspec.structs.replace(
        append(1, 1, NO_ENTRY, []),
        leader=A,
        configuration=configuration.entry,
        member_type=MemberType.INACTIVE if own is None else own.type,
        since=0 if own is None else own.since,
    )


def test_a_restart_remembers_what_is_committed() -> None:
    raft = member_c((WITHOUT_C, WITH_C), WITH_C, 25)
    assert raft.known_configuration == WITH_C
    assert raft.committed_configuration.entry == NO_ENTRY, "the log alone does not say so"
    assert raft.orders.configuration == WITH_C.entry
    assert raft.orders.member_type is ACTIVE
    [(_, answer)] = sends(receive(raft, A, order(WITHOUT_C)))
    assert isinstance(answer, AppendReply)
    assert answer.configuration == WITH_C.entry, "a leader sends nothing older"
    assert raft.orders.member_type is ACTIVE


def test_an_older_notice_takes_no_log() -> None:
    raft = member_c((WITHOUT_C, WITH_C), WITH_C, 25)
    assert of(receive(raft, A, notice(WITHOUT_C)), Wipe) == []
    assert not raft.is_reserve


REMOVED = named(30, a=ACTIVE, b=ACTIVE, d=RESERVE)


def in_a_higher_term(*, is_candidate: bool) -> Raft:
    """C, a voter, which was away and has asked for votes since: it is in term 5."""
    initial = InitialState(
        current_term=5,
        term_runs=[TermRun(1, 1)],
        last_index=25,
        configurations=(WITHOUT_C, WITH_C),
        stored_configuration=WITH_C,
        committed_configuration=WITH_C,
    )
    raft = Raft(C, Configuration.of(A, B), OPTIONS, initial, seed=0)
    raft.step(Tick(OPTIONS.election_timeout_ms))
    if is_candidate:
        raft.change_role(ServerState.CANDIDATE, NOBODY)
        raft.step(Tick(OPTIONS.election_timeout_ms + 1))
    return raft


@pytest.mark.parametrize("is_candidate", [False, True])
def test_c33_a_removed_voter_with_a_higher_term_is_told(is_candidate: bool) -> None:
    """The cluster does not follow its term, so no leader of its own term ever says so."""
    raft = in_a_higher_term(is_candidate=is_candidate)
    active_until_ms = raft.leader_active_until_ms
    [wiped] = of(receive(raft, A, notice(REMOVED)), Wipe)
    assert wiped.configuration == REMOVED
    assert (raft.current_term, raft.leader) == (5, 0), "it follows nobody of an earlier term"
    assert raft.state is ServerState.FOLLOWER
    assert raft.leader_active_until_ms == active_until_ms
    assert not raft.eligibility.may_vote


@pytest.mark.parametrize("late", [WITHOUT_C, C_RESERVE, named(30, a=ACTIVE, c=ACTIVE)])
def test_c33_nothing_else_that_is_late_counts(late: Configuration) -> None:
    """An older removal; and what a later entry may have changed again."""
    raft = in_a_higher_term(is_candidate=False)
    assert of(receive(raft, A, notice(late)), Wipe) == []
    assert raft.known_configuration == WITH_C
    assert not raft.is_reserve


def test_a_newer_entry_of_the_log_keeps_the_log() -> None:
    """The file of its directory could not be read, so the log alone says what C is."""
    raft = member_c((WITHOUT_C, WITH_C), None, 25)
    assert of(receive(raft, A, notice(WITHOUT_C)), Wipe) == []
    assert not raft.is_reserve
    assert raft.known_configuration == WITHOUT_C
    [wiped] = of(receive(raft, A, notice(LATER)), Wipe)
    assert wiped.configuration == LATER


def test_no_entry_takes_the_log_although_a_notice_came() -> None:
    """The entry that makes C a reserve may never be committed."""
    raft = member_c((C_PASSIVE,), C_PASSIVE, 15)
    raft.configurations.append(C_RESERVE)
    raft.known_configuration = named(5, a=ACTIVE, b=ACTIVE, c=PASSIVE)
    raft.orders = raft.orders._replace(configuration=EntryId(1, 5))
    assert of(receive(raft, A, notice(C_PASSIVE)), Wipe) == []


@pytest.mark.parametrize("says_all", [False, True])
def test_an_older_word_makes_no_member_of_a_reserve(says_all: bool) -> None:
    raft = member_c((), C_RESERVE)
    assert raft.is_reserve
    receive(raft, A, notice(C_PASSIVE) if says_all else order(C_PASSIVE))
    assert raft.is_reserve
    assert not raft.eligibility.may_vote
    newer = named(30, a=ACTIVE, b=ACTIVE, c=PASSIVE)
    receive(raft, A, notice(newer) if says_all else order(newer))
    assert not raft.is_reserve


def test_a_newer_word_that_gives_no_log_lifts_nothing() -> None:
    raft = member_c((), C_RESERVE)
    receive(raft, A, order(LATER))
    assert raft.is_reserve


def test_a_log_that_a_reserve_began_by_a_heartbeat_is_deleted() -> None:
    """It was restarted before it had the entry that makes it stateful, or a notice of that."""
    raft = member_c((), C_RESERVE, 5)
    assert raft.is_reserve
    [(_, answer)] = sends(receive(raft, A, append(1, 1, (1, 5), [1])))
    assert isinstance(answer, AppendReply)
    assert answer.match_index == 0
    [wiped] = of(receive(raft, A, notice(LATER)), Wipe)
    assert wiped.configuration == LATER
    latest = named(40, a=ACTIVE, b=ACTIVE, c=RESERVE)
    assert of(receive(raft, A, notice(latest)), Wipe) == [], "once is enough"


def test_c33_who_shall_delete_its_log_acknowledges_nothing() -> None:
    """A sync that was under way ends after the notice."""
    raft = member_c((C_PASSIVE,), C_PASSIVE, 15)
    receive(raft, A, append(1, 1, (1, 15), [1]))
    [wiped] = of(receive(raft, A, notice(C_RESERVE)), Wipe)
    assert wiped.configuration == C_RESERVE
    assert sends(raft.step(Synced(raft.sync_ticket))) == []
    assert sends(receive(raft, A, append(1, 2, (1, 16), []))) == []


def test_c36_a_lost_configuration_is_not_the_present_one() -> None:
    """An operator accepted its loss, or all logs were in memory. Whoever asks for a change by the
    answer to the first request is not refused for ever."""
    raft = started(A, Configuration.of(A), (), named(90, a=ACTIVE, b=PASSIVE), 30)
    raft.step(Tick(2 * OPTIONS.election_timeout_ms))
    raft.step(Saved(raft.save_ticket))
    raft.step(Synced(raft.sync_ticket))
    raft.step(Reachable(C, fresh=False))
    again = raft.committed_configuration
    assert again.entry == EntryId(2, 31), "the first entry of the leader holds it once more (C35)"
    assert again.ids == (A, B)
    for base in (EntryId(1, 90), again.entry):
        change = ConfigurationChange.add(MemberRecord(C, RESERVE), base)
        effects = raft.step(ChangeRequested(1, change))
        effects += raft.step(Synced(raft.sync_ticket))
        [answer] = of(effects, ChangeFinished)
        assert answer.refusal == (ChangeRefusal.STALE_BASE if base != again.entry else None)
        assert answer.refusal is None or answer.configuration == again


# ---- the leader ---------------------------------------------------------------------------------


def test_c28_a_leader_announces_nothing_before_its_own_entry_is_committed() -> None:
    """What its log says was committed before the gaps may be less than what is committed."""
    with_reserve = named(10, a=ACTIVE, b=ACTIVE, c=ACTIVE, d=RESERVE)
    removed = named(20, a=ACTIVE, b=ACTIVE, c=ACTIVE)
    raft = started(A, Configuration.of(A, B, C), (with_reserve, removed), None, 30)
    elect(raft)
    raft.step(GapsKnown(15))
    heartbeat = of(raft.step(Tick(OPTIONS.heartbeat_interval_ms)), Replicate)[0]
    rejected = AppendReply(1, heartbeat.request, False, 0, NO_ENTRY, wants_snapshot=True)
    effects = receive(raft, B, msgspec.structs.replace(rejected, term=raft.current_term))
    assert raft.committed_configuration == with_reserve
    assert not any(isinstance(each.message, ConfigurationNotice) for each in of(effects, Send))
