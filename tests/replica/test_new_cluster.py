"""C46: a new cluster of one member of an old one, over disks in memory and real handshakes."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from copycat.errors import (
    ConfigurationError,
    DiskFullError,
    RecoveryRefusedError,
    StorageError,
)
from copycat.machine.kv import KeyValueStore
from copycat.member.configuration_file import StoredConfigurations
from copycat.member.identity import read_identity
from copycat.member.markers import DELETED_LOG_FILE, LostEntries
from copycat.member.new_cluster import begin, complete
from copycat.member.new_cluster_file import (
    NEW_CLUSTER_FILE,
    UNFINISHED_FILE,
    NewCluster,
    read_unfinished,
)
from copycat.member.survivor import Survivor, examine
from copycat.protocol.client import (
    CommandsRefused,
    Failure,
    KeepAlive,
    Refusal,
    Register,
    Registered,
)
from copycat.protocol.cluster_incarnation import is_recovered
from copycat.protocol.framing import split_frame
from copycat.protocol.member_record import ConfigurationRecord, MemberRecord
from copycat.replica.configuration_store import ConfigurationStore
from copycat.replica.known_configurations import KnownConfigurations, configuration_of
from copycat.replica.members import PeerRefused
from copycat.storage import FaultEnv
from copycat.types import ChangeKind, EntryId, MemberId, MemberType, ServerState
from tests.client.test_replaced_cluster import answers_at
from tests.replica.clusters import PATH, Cluster, Member
from tests.replica.harness import commands

D, E, F = "127.0.0.1:4", "127.0.0.1:5", "127.0.0.1:6"
SIZES = (16384, 8)
ONLY_VOTER = "it is the only voter, so that no majority is lost"


def bits() -> Callable[[], int]:
    numbers = itertools.count(1)
    return lambda: (next(numbers) << 100) + 99


def show(member: Member) -> Survivor:
    return examine(member.env, PATH, "")


def recover(env: FaultEnv, address: str = "") -> NewCluster:
    """What `copycat recover --new-cluster` does, and does again after a crash."""
    unfinished = read_unfinished(env, PATH)
    if unfinished is None:
        unfinished = begin(
            env, examine(env, PATH, ""), address=address, random_bits=bits(), sizes=SIZES
        )
    complete(env, PATH, unfinished, SIZES)
    return unfinished


def started(env: FaultEnv, made: NewCluster, now_ms: int = 0) -> Member:
    """The first member of the new cluster, on this disk."""
    member = Member(made.address, (), member=made.member, env=env)
    member.now_ms = max(now_ms, member.now_ms)
    return member


def survive(cluster: Cluster, survivor: Member) -> Member:
    """The others are cut off, the survivor stops, and what it has becomes a new cluster."""
    for each in cluster.up:
        if each is not survivor:
            cluster.cut(each)
    survivor.stop()
    made = recover(survivor.env)
    member = started(survivor.env, made, survivor.now_ms)
    cluster.members[cluster.members.index(survivor)] = member
    cluster.elect()
    return member


@pytest.mark.slow
@pytest.mark.parametrize("was_changed", [False, True])
def test_c46_old_members_return(was_changed: bool) -> None:
    """A survivor of three, or of four with an incarnation: the others come back, are refused by
    name from both sides, and stay as they are."""
    cluster = Cluster(3)
    cluster.elect()
    if was_changed:
        cluster.add(D)
    cluster.append(3)
    cluster.run(20)
    survivor = next(each for each in cluster.up if each is not cluster.leader)
    old = [each for each in cluster.members if each is not survivor]
    member = survive(cluster, survivor)
    assert member.replica.raft.state is ServerState.LEADER
    assert list(member.types) == [member.address]
    own = member.replica.members.cluster_incarnation
    assert is_recovered(own)
    before = [
        (each.directory.hard_state.current_term, each.replica.raft.commit_index) for each in old
    ]
    cluster.refusals.clear()
    for each in old[:1]:
        cluster.mend(each)
    cluster.run(40, 100)
    assert cluster.refusals
    for refusal in cluster.refusals:
        assert f"{own:032x}" in refusal
        assert "another cluster" in refusal
        if not was_changed:
            assert "recover --new-cluster" in refusal
    with pytest.raises(PeerRefused, match=f"another cluster .*{own:032x}"):
        old[0].replica.accept_peer(split_frame(member.replica.hello()))
    assert old[0].replica.raft.state is not ServerState.LEADER
    after = [
        (each.directory.hard_state.current_term, each.replica.raft.commit_index) for each in old
    ]
    assert after == before
    assert member.replica.raft.state is ServerState.LEADER


@pytest.mark.slow
@pytest.mark.parametrize("was_changed", [False, True])
def test_c46_sessions_end(was_changed: bool) -> None:
    """A client's command 10 was acknowledged, the survivor has 8: nothing of the session goes on,
    not even where another session has its number now."""
    cluster = Cluster(3)
    cluster.elect()
    if was_changed:
        cluster.add(D)
    cluster.leader.client(Register(1, "old", 600_000), 8)
    cluster.run(20)
    registered = answers_at(cluster.leader, 8)[-1]
    assert isinstance(registered, Registered)
    session = registered.session
    cluster.append(3)
    cluster.run(20)
    survivor = next(each for each in cluster.up if each is not cluster.leader)
    member = survive(cluster, survivor)
    assert member.executor.session_rows() == []
    assert member.replica.status().sessions == 0
    cluster.leader.client(Register(1, "new", 600_000), 5)
    cluster.run(4)
    opened = answers_at(member, 5)[-1]
    assert isinstance(opened, Registered)
    assert is_recovered(opened.incarnation)
    before = member.replica.status().last_index
    for number, connection in ((session, 9), (opened.session, 10)):
        member.client(KeepAlive(1, number, 0, "test", registered.incarnation), connection)
        frame = commands(number, 1, KeyValueStore.append("k", b"a"))
        member.replica.receive_client(connection, frame)
        cluster.run(2)
        answers = answers_at(member, connection)
        assert [type(each) for each in answers] == [Failure, CommandsRefused]
        for each in answers:
            assert isinstance(each, Failure | CommandsRefused)
            assert each.code == Refusal.CLUSTER_REPLACED
    assert member.replica.status().last_index == before


def test_c46_the_starts_begin_anew_at_the_address_to_which_the_member_moved() -> None:
    """What the old cluster wrote down of the directory does not count any more, and the first
    start writes number 1."""
    cluster = Cluster(3, starts=True)
    cluster.elect()
    cluster.add(D)
    cluster.run(20)
    survivor = next(each for each in cluster.up if each is not cluster.leader)
    cluster.move(survivor, "127.0.0.1:33")
    cluster.run(160, 100)
    assert show(survivor).address == "127.0.0.1:33"
    for each in cluster.up:
        if each is not survivor:
            cluster.cut(each)
    survivor.stop()
    made = recover(survivor.env)
    assert made.address == "127.0.0.1:33"
    identity, _ = read_identity(survivor.env, PATH)
    assert identity is not None
    assert identity.starts == ()
    assert identity.address == "127.0.0.1:33"
    member = Member(made.address, (), member=made.member, env=survivor.env, starts=True)
    assert [each.number for each in member.replica.members.starts] == [1]


@pytest.mark.slow
def test_c46_new_members_are_sent_the_history_of_the_old_cluster() -> None:
    """Its configurations name another cluster, and must not say which one this is."""
    cluster = Cluster(3)
    cluster.elect()
    cluster.add(D)
    cluster.append(3)
    cluster.run(20)
    survivor = next(each for each in cluster.up if each.address == "127.0.0.1:2")
    member = survive(cluster, survivor)
    own = member.replica.members.cluster_incarnation
    new = [cluster.add(address, MemberType.ACTIVE) for address in (E, F)]
    cluster.append(2)
    cluster.run(40)
    for each in (member, *new):
        assert each.replica.members.cluster_incarnation == own
        assert each.stored.cluster_incarnation == own
        assert each.types == {member.address: "active", E: "active", F: "active"}
        assert each.executor.last_applied == member.executor.last_applied
        assert each.executor.digest() == member.executor.digest()
    for each in new:
        cluster.restart(each)
    cluster.run(60)
    for each in new:
        identity, _ = read_identity(each.env, PATH)
        assert identity is not None
        assert identity.cluster_incarnation == own
        assert each.executor.last_applied == member.executor.last_applied


def lone_survivor() -> Member:
    """One of three, stopped cleanly, with entries that are not known to be committed."""
    cluster = Cluster(3)
    cluster.elect()
    cluster.append(5)
    cluster.run(10)
    survivor = next(each for each in cluster.up if each is not cluster.leader)
    survivor.stop()
    return survivor


def power_cut(env: FaultEnv) -> None:
    env.crash(7)


@pytest.mark.slow
@pytest.mark.parametrize("crash", [FaultEnv.crash_process, power_cut])
def test_c46_every_crash_point_leaves_the_old_directory_or_one_that_is_completed(
    crash: Callable[[FaultEnv], Any],
) -> None:
    survivor = lone_survivor()
    last = show(survivor).last
    seen: set[str] = set()
    for operations in range(1 << 20):
        env = survivor.env.clone()
        env.stop_after(operations)
        try:
            recover(env)
        except StorageError:
            pass
        else:
            break
        crash(env)
        env.stop_after(1 << 62)
        if env.exists(f"{PATH}/{UNFINISHED_FILE}"):
            seen.add("unfinished")
            with pytest.raises(ConfigurationError, match="was interrupted here"):
                started(env, NewCluster.read(env, f"{PATH}/{UNFINISHED_FILE}"))
            check_made(env, recover(env), last)
        elif env.exists(f"{PATH}/{NEW_CLUSTER_FILE}"):
            seen.add("new")
            check_made(env, NewCluster.read(env, f"{PATH}/{NEW_CLUSTER_FILE}"), last)
        else:
            seen.add("old")
            after = examine(env, PATH, "")
            assert (after.last, after.obstacles) == (last, ())
            assert after.identity.member == survivor.member
            check_made(env, recover(env), last)
    assert operations > 20
    assert {"old", "unfinished"} <= seen


def check_made(env: FaultEnv, made: NewCluster, last: EntryId) -> None:
    """It is whole, and starts: one voter, no session, all entries of the old cluster."""
    assert made.last == last
    assert made.member != made.parent_member
    after = examine(env, PATH, "")
    assert after.last == made.expiry_entry
    assert after.sessions == ()
    assert [each.why for each in after.obstacles] == [ONLY_VOTER]
    assert after.identity.member == made.member
    assert after.cluster_incarnation == made.cluster_incarnation
    assert after.origin == made
    assert after.term == made.term
    member = started(env, made)
    for _ in range(60):
        member.turn(100)
        member.stabilize()
    assert member.replica.raft.state is ServerState.LEADER
    assert member.replica.raft.commit_index >= made.expiry_entry.index
    assert member.executor.session_rows() == []


@pytest.mark.slow
def test_c46_a_full_disk_changes_nothing_or_is_completed_later() -> None:
    survivor = lone_survivor()
    last = show(survivor).last
    outcomes: set[bool] = set()
    for nth in range(1, 200):
        env = survivor.env.clone()
        env.fail("write", nth, "ENOSPC")
        try:
            recover(env)
        except DiskFullError:
            pass
        else:
            break
        unfinished = env.exists(f"{PATH}/{UNFINISHED_FILE}")
        outcomes.add(unfinished)
        if not unfinished:
            assert examine(env, PATH, "").identity.member == survivor.member
        check_made(env, recover(env), last)
    assert outcomes == {False, True}


def test_c46_what_a_survivor_shows() -> None:
    survivor = lone_survivor()
    shown = show(survivor)
    assert shown.last == survivor.directory.log.last_entry
    assert shown.committed.index == 0
    assert [each.address for each in shown.configuration.members] == list(survivor.founders)
    assert [each.client_id for each in shown.sessions] == [f"client-{n}" for n in range(1, 6)]
    assert shown.obstacles == ()
    rows = {each.session: each for each in survivor.executor.session_rows()}
    assert {each.session for each in shown.sessions} >= set(rows)


def test_c46_who_lacks_something_makes_no_cluster() -> None:
    survivor = lone_survivor()
    env = survivor.env.clone()
    LostEntries(env, PATH, EntryId(1, 99), first_index=9, term=2).write()
    with pytest.raises(RecoveryRefusedError, match="were lost, and no leader has sent"):
        recover(env)
    env = survivor.env.clone()
    env.replace_file(f"{PATH}/weak-promises", b"interval \n")
    with pytest.raises(RecoveryRefusedError, match="before they were synced may be missing"):
        recover(env)
    env = survivor.env.clone()
    env.replace_file(f"{PATH}/weak-promises", b"memory \n")
    with pytest.raises(RecoveryRefusedError, match="in memory"):
        recover(env)
    env = survivor.env.clone()
    env.replace_file(f"{PATH}/damage-seen", b"x")
    with pytest.raises(RecoveryRefusedError, match="could not be read when"):
        recover(env)


@pytest.mark.slow
def test_c46_a_member_that_is_joining_or_a_reserve_makes_no_cluster() -> None:
    cluster = Cluster(3)
    cluster.elect()
    member = cluster.add(D)
    cluster.append(2)
    cluster.run(10)
    stored = member.stored
    (record,) = stored.records
    far = record._replace(
        entry=EntryId(record.entry.term, 500),
        members=tuple(
            each._replace(since=500) if each.member == member.member else each
            for each in record.members
        ),
    )
    member.directory.configuration_file.write(stored._replace(records=(far,)))
    assert "it was joining" in show(member).obstacles[0].why
    member.directory.configuration_file.write(stored)
    cluster.change(ChangeKind.DEMOTE, member, MemberType.RESERVE)
    cluster.run(10)
    assert member.env.exists(f"{PATH}/{DELETED_LOG_FILE}")
    assert "this is reserve: it has no log" in show(member).obstacles[0].why


class Writer:
    """Writes at once."""

    def request_write(self, write: Callable[[], None], written: Callable[[], None]) -> None:
        write()
        written()


def test_c46_an_entry_of_the_old_history_never_names_the_cluster() -> None:
    """A member that is sent the log from its beginning, entry by entry."""
    row = MemberRecord(MemberId(7), MemberType.ACTIVE, "e:5")
    now = ConfigurationRecord(EntryId(3, 20), 2**127 + 5, (row,))
    before = ConfigurationRecord(EntryId(1, 8), 99, (row,))
    known = configuration_of(now)
    directory: Any = SimpleNamespace(
        configuration_file=None,
        record_cluster=None,
        incarnation=1,
        configurations=StoredConfigurations((now,)),
        cluster_incarnation=now.cluster_incarnation,
    )
    writer: Any = Writer()
    store = ConfigurationStore(
        directory,
        writer,
        KnownConfigurations(known, (), known, known, now.cluster_incarnation),
        known,
    )
    store.appended(before)
    assert store.cluster_incarnation == now.cluster_incarnation
    assert store.record(known) == now
    later = now._replace(entry=EntryId(4, 30))
    store.appended(later)
    assert store.record(configuration_of(later)) == later
