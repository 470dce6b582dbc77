"""`copycat cluster`: what it asks, what it prints, and how it ends."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace
from typing import Any

import pytest

from copycat.cli.cluster import app
from copycat.cli.cluster.app import ClusterOptions, Verb, run_cluster, run_with
from copycat.cli.main import exit_code_of
from copycat.client import membership
from copycat.errors import (
    ChangeInProgressError,
    ConfigurationError,
    CopycatError,
    IllegalMemberStateError,
    LastVoterError,
    MemberIdReusedError,
    MemberUnreachableError,
    NoLeaderError,
    NotLeaderError,
    QuorumLostError,
    StaleConfigurationError,
    TransferFirstError,
    UnknownMemberError,
)
from copycat.protocol.client import ChangeRequest, MemberView, TransferRequest
from copycat.types import ChangeKind, EntryId, MemberId, MemberType
from tests.cli.fake_cluster import FakeCluster


def run(cluster: FakeCluster, verb: Verb, *addresses: str, **options: Any) -> int:
    options.setdefault("timeout", 0.0)
    return asyncio.run(run_with(cluster, verb, ClusterOptions(addresses, **options)))


def changes(cluster: FakeCluster) -> list[tuple[ChangeKind, int, MemberType]]:
    asked = [one for one in cluster.asked if isinstance(one, ChangeRequest)]
    return [(one.kind, one.member, one.type) for one in asked]


class Clock:
    """Time that passes only while a `Membership` sleeps."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = 0.0
        loop = {name: getattr(asyncio, name) for name in ("ensure_future", "wait")}
        monkeypatch.setattr(membership, "time", SimpleNamespace(monotonic=self.monotonic))
        monkeypatch.setattr(membership, "asyncio", SimpleNamespace(sleep=self.sleep, **loop))

    def monotonic(self) -> float:
        return self.now_s

    async def sleep(self, seconds: float) -> None:
        self.now_s += seconds
        await asyncio.sleep(0)


def three() -> FakeCluster:
    return FakeCluster(a="active", b="active", c="active", d="passive", e="reserve")


# --- changes -------------------------------------------------------------------------


def test_a_promotion_is_one_step_up_and_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    cluster = three()
    assert run(cluster, "promote", "d:1", "e:1") == 0
    assert changes(cluster) == [
        (ChangeKind.PROMOTE, 4, MemberType.ACTIVE),
        (ChangeKind.PROMOTE, 5, MemberType.PASSIVE),
    ]
    out, err = capsys.readouterr()
    assert out == "d:1 is active\ne:1 is passive\n"
    assert "waiting for d:1 to catch up with the log" in err


def test_a_promotion_that_takes_long_says_how_far_the_member_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(membership, "PROGRESS_S", 0.01)
    cluster = three()
    cluster.catch_up_s = 0.1
    assert run(cluster, "promote", "d:1") == 0
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "waiting for d:1 to catch up with the log",
        "waiting for d:1 to catch up with the log: it has entry 20 of 40",
    ]
    asked = [type(one).__name__ for one in cluster.asked]
    assert asked == ["ViewRequest", "ChangeRequest"], "the promotion waits on that connection"


def test_a_reserve_becomes_active_by_way_of_passive() -> None:
    cluster = three()
    assert run(cluster, "promote", "e:1", goal="active") == 0
    assert [type for _, _, type in changes(cluster)] == [MemberType.PASSIVE, MemberType.ACTIVE]


def test_each_change_names_the_configuration_that_was_seen() -> None:
    cluster = three()
    cluster.entry = EntryId(2, 31)
    run(cluster, "demote", "c:1")
    asked = [one for one in cluster.asked if isinstance(one, ChangeRequest)]
    assert [one.base for one in asked] == [EntryId(2, 31)]
    assert changes(cluster) == [(ChangeKind.DEMOTE, 3, MemberType.PASSIVE)]


def test_a_leader_that_is_removed_hands_over_first(capsys: pytest.CaptureFixture[str]) -> None:
    cluster = three()
    assert run(cluster, "remove", "a:1", timeout=5.0) == 0
    kinds = [type(one).__name__ for one in cluster.asked]
    assert [kind for kind in kinds if kind != "ViewRequest"] == [
        "ChangeRequest",
        "TransferRequest",
        "ChangeRequest",
    ]
    assert cluster.leader == "b:1"
    out, err = capsys.readouterr()
    assert out == "a:1 is not a member any more\n"
    assert "waiting for another voter to lead in place of a:1" in err


def test_a_leader_without_a_follower_in_reach_is_not_demoted() -> None:
    cluster = three()
    cluster.down |= {"b:1", "c:1"}
    with pytest.raises(TransferFirstError) as caught:
        run(cluster, "demote", "a:1", timeout=5.0)
    assert exit_code_of(caught.value) == 3


def test_a_server_that_waits_is_added(capsys: pytest.CaptureFixture[str]) -> None:
    cluster = three()
    cluster.waiting["f:1"] = MemberId(99)
    assert run(cluster, "add", "f:1", members=("a:1",)) == 0
    assert changes(cluster) == [
        (ChangeKind.ADD, 99, MemberType.PASSIVE),
        (ChangeKind.PROMOTE, 99, MemberType.ACTIVE),
    ]
    assert capsys.readouterr().out == "f:1 is active\n"


@pytest.mark.slow
def test_two_servers_that_join_together_wait_for_each_other() -> None:
    """Neither has looked at the members: a change of another one is no obstacle."""
    cluster = three()
    cluster.waiting["f:1"] = MemberId(99)
    cluster.busy = 2
    seen: list[str] = []

    async def join() -> None:
        member = membership.Membership(cluster.ask, say=seen.append, patience=5.0)
        await member.add(MemberId(99), "f:1", MemberType.ACTIVE, EntryId(0, 7))

    asyncio.run(join())
    assert cluster.members["f:1"].type is MemberType.ACTIVE
    assert "waiting: refused: IN_FLIGHT" in seen


def test_a_reserve_is_added_in_one_step() -> None:
    cluster = three()
    cluster.waiting["f:1"] = MemberId(99)
    assert run(cluster, "add", "f:1", members=("a:1",), goal="reserve") == 0
    assert changes(cluster) == [(ChangeKind.ADD, 99, MemberType.RESERVE)]


def test_a_change_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    cluster = three()
    assert run(cluster, "promote", "d:1", as_json=True) == 0
    assert json.loads(capsys.readouterr().out) == {
        "schema": 1,
        "changed": [{"address": "d:1", "type": "active", "configuration": [3, 41], "term": 3}],
    }


def test_leadership_is_handed_to_the_member_that_is_named(
    capsys: pytest.CaptureFixture[str],
) -> None:
    cluster = three()
    assert run(cluster, "transfer", "c:1") == 0
    asked = [one for one in cluster.asked if isinstance(one, TransferRequest)]
    assert [one.to for one in asked] == [3]
    assert capsys.readouterr().out == "c:1 leads term 4\n"
    assert run(cluster, "transfer", members=("a:1",), as_json=True) == 0
    (row,) = json.loads(capsys.readouterr().out)["changed"]
    assert row["address"] == "a:1"
    assert row["leader"] is True


# --- refusals ------------------------------------------------------------------------


def refused(cluster: FakeCluster, verb: Verb, *words: str, **options: Any) -> CopycatError:
    with pytest.raises(CopycatError) as caught:
        run(cluster, verb, *words, **options)
    return caught.value


def test_every_refusal_has_a_type_and_an_exit_code() -> None:
    cluster = FakeCluster(a="active", d="passive")
    last = refused(cluster, "remove", "a:1")
    assert isinstance(last, LastVoterError)
    assert exit_code_of(last) == 5
    assert "active a:1 (leader)" in last.render()

    unknown = refused(cluster, "promote", "x:1")
    assert isinstance(unknown, UnknownMemberError)
    assert exit_code_of(unknown) == 2
    assert "a:1, d:1" in unknown.message

    cluster.down.add("d:1")
    unreachable = refused(cluster, "promote", "d:1")
    assert isinstance(unreachable, MemberUnreachableError)
    assert exit_code_of(unreachable) == 3

    cluster.busy = 1
    busy = refused(cluster, "promote", "d:1")
    assert isinstance(busy, ChangeInProgressError)
    assert exit_code_of(busy) == 3

    cluster.waiting["f:1"] = MemberId(1)
    cluster.used_ids.add(MemberId(9))
    cluster.waiting["g:1"] = MemberId(9)
    reused = refused(cluster, "add", "g:1", members=("a:1",))
    assert isinstance(reused, MemberIdReusedError)
    assert exit_code_of(reused) == 5


def test_a_stale_view_is_answered_with_the_fresh_one(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = three()

    async def another_change(self: membership.Membership) -> Any:
        view = cluster.view(cluster.leader)
        cluster.entry = EntryId(3, 77)
        return view

    monkeypatch.setattr(membership.Membership, "view", another_change)
    stale = refused(cluster, "promote", "d:1")
    assert isinstance(stale, StaleConfigurationError)
    assert isinstance(stale, ConfigurationError)
    assert stale.entry == (3, 77)
    assert ("d:1", "passive") in stale.members
    assert exit_code_of(stale) == 3


def test_what_holds_already_is_success_and_nothing_is_waited_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    cluster = three()
    assert run(cluster, "promote", "c:1", goal="active") == 0
    assert run(cluster, "demote", "d:1", goal="passive") == 0
    assert run(cluster, "add", "c:1", goal="passive") == 0
    out, err = capsys.readouterr()
    assert out == "c:1 is active already\nd:1 is passive already\nc:1 is active already\n"
    assert err == ""


@pytest.mark.parametrize(
    ("verb", "address", "goal", "hint"),
    [
        ("promote", "c:1", "passive", "demote it: copycat cluster demote c:1 --type passive"),
        ("demote", "d:1", "active", "promote it: copycat cluster promote d:1 --type active"),
        ("demote", "e:1", None, "take it out of the cluster: copycat cluster remove e:1"),
    ],
)
def test_a_wrong_step_is_answered_with_the_command_for_it(
    verb: Verb, address: str, goal: str | None, hint: str
) -> None:
    assert refused(three(), verb, address, goal=goal).hint == hint


@pytest.mark.parametrize(
    ("name", "addresses", "hint"),
    [
        ("localhost:8701", ["10.0.0.1:8701", "10.0.0.2:8702"], "did you mean 10.0.0.1:8701?"),
        ("10.0.0.2:8701", ["10.0.0.1:8700", "10.0.0.2:8702"], "did you mean 10.0.0.2:8702?"),
        ("10.0.0.3:8700", ["10.0.0.1:8700", "10.0.0.2:8700"], None),
        ("127.0.0.1:8709", ["127.0.0.1:8701", "127.0.0.1:8702"], None),
        ("127.0.0.1:8709", ["127.0.0.1:8701"], None),
    ],
)
def test_of_several_members_none_is_suggested(
    name: str, addresses: list[str], hint: str | None
) -> None:
    """It may be removed by whoever takes the suggestion."""
    error = membership.unknown_member(name, addresses, "orders")
    assert error.hint == (hint or UnknownMemberError.default_hint)


@pytest.mark.parametrize("as_json", [False, True])
def test_what_was_changed_before_a_refusal_is_shown(
    capsys: pytest.CaptureFixture[str], *, as_json: bool
) -> None:
    unknown = refused(three(), "promote", "d:1", "x:1", "e:1", as_json=as_json)
    assert isinstance(unknown, UnknownMemberError)
    out = capsys.readouterr().out
    if not as_json:
        assert out == "d:1 is active\n"
        return
    assert [(one["address"], one["type"]) for one in json.loads(out)["changed"]] == [
        ("d:1", "active")
    ]


def test_a_change_waits_until_another_one_is_made(capsys: pytest.CaptureFixture[str]) -> None:
    """As right after a transfer: the new leader hands over again before it is demoted."""
    cluster = three()
    cluster.busy = 2
    assert run(cluster, "demote", "c:1", timeout=5.0) == 0
    out, err = capsys.readouterr()
    assert out == "c:1 is passive\n"
    assert err.count("refused: IN_FLIGHT") == 1
    cluster.busy = 1
    assert isinstance(refused(cluster, "demote", "b:1"), ChangeInProgressError)


OLD, NEW = MemberId(0x1111 << 112), MemberId(0x2222 << 112)


def replaced() -> FakeCluster:
    """The disk of a voter was lost, and a new member has joined at its address."""
    cluster = three()
    cluster.members |= {
        "old": MemberView(OLD, MemberType.ACTIVE, "g:1", is_reachable=False),
        "g:1": MemberView(NEW, MemberType.PASSIVE, "g:1"),
    }
    cluster.cut_off.add("old")
    return cluster


def test_of_two_members_at_one_address_the_id_says_which(
    capsys: pytest.CaptureFixture[str],
) -> None:
    cluster = replaced()
    error = refused(cluster, "remove", "g:1")
    assert error.message == "2 members are meant by g:1"
    assert error.state == f"{OLD:032x}: active, reachable\n{NEW:032x}: passive, reachable"
    assert error.hint == "name one by its id, or by the beginning of its id"
    assert changes(cluster) == []
    assert run(cluster, "promote", f"{NEW:032x}"[:8], members=("a:1",)) == 0
    assert changes(cluster) == [(ChangeKind.PROMOTE, NEW, MemberType.ACTIVE)]
    assert capsys.readouterr().out == "g:1 (id 22220000) is active\n"


def test_status_tells_two_members_at_one_address_apart(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(replaced(), "status") == 0
    rows = [row for row in capsys.readouterr().out.splitlines() if row.startswith("g:1")]
    (old, new) = rows
    assert old.startswith("g:1 (id 11110000)  active   unreachable")
    assert old.endswith(f"member {NEW:032x} answers there")
    assert new.startswith("g:1 (id 22220000)  passive  passive")


def test_how_long_there_was_no_leader_is_said_once(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def wait() -> None:
        asked = 0

        async def ask(message: object) -> Any:
            nonlocal asked
            asked += 1
            if asked > 3:
                raise NotLeaderError("a:1 does not lead")
            raise QuorumLostError(f"no leader for {asked} s", missing=("b:1",), since=asked)

        one = membership.Membership(ask, say=print, patience=4 * membership.AGAIN_S)
        await one.view()

    Clock(monkeypatch)
    with pytest.raises(NotLeaderError):
        asyncio.run(wait())
    assert capsys.readouterr().out == ("waiting: no leader for 1 s\nwaiting for the next leader\n")


def test_a_step_in_the_wrong_direction_is_not_asked() -> None:
    cluster = three()
    for verb, address, goal in (
        ("promote", "c:1", None),
        ("promote", "c:1", "passive"),
        ("demote", "e:1", None),
        ("demote", "d:1", "active"),
    ):
        error = refused(cluster, verb, address, goal=goal)  # type: ignore[arg-type]
        assert isinstance(error, IllegalMemberStateError)
    assert changes(cluster) == []


def test_without_a_leader_it_waits_and_says_so(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster, clock = three(), Clock(monkeypatch)
    cluster.leader = ""
    error = refused(cluster, "promote", "d:1", timeout=0.6)
    assert isinstance(error, NoLeaderError)
    assert exit_code_of(error) == 3
    assert "no leader has been known" in error.message
    assert "waiting for a leader" in capsys.readouterr().err
    assert 0.6 <= clock.now_s < 1.2, "it waits once, and not for each request"


def test_nobody_waits_where_a_server_is_to_be_added() -> None:
    error = refused(three(), "add", "f:1", members=("a:1",))
    assert isinstance(error, ConfigurationError)
    assert "no server waits at f:1: connection refused" in error.message


def test_leadership_is_handed_to_a_voter_only() -> None:
    """Nobody waits for a member that can never lead, and no time runs out."""
    cluster = three()
    error = refused(cluster, "transfer", "d:1")
    assert isinstance(error, IllegalMemberStateError)
    assert error.message == "d:1 is passive and has no vote, so it cannot lead"
    assert error.hint == "promote it first: copycat cluster promote d:1 --type active"
    assert not any(isinstance(one, TransferRequest) for one in cluster.asked)


def test_the_status_of_an_address_is_asked_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """The members of the environment may be another cluster's."""
    asked: list[tuple[str, ...]] = []

    def connection(places: tuple[str, ...], cluster_name: str) -> object:
        asked.append(places)
        raise KeyboardInterrupt  # nothing is dialled

    monkeypatch.setattr(app, "ClusterConnection", connection)
    monkeypatch.setenv("COPYCAT_MEMBERS", "127.0.0.1:1")
    commands: list[tuple[Verb, tuple[str, ...], tuple[str, ...]]] = [
        ("status", ("127.0.0.1:2",), ()),
        ("status", ("127.0.0.1:2",), ("127.0.0.1:3",)),
        ("status", (), ("127.0.0.1:3",)),
        ("status", (), ()),
        ("promote", ("127.0.0.1:2",), ()),
        ("promote", ("127.0.0.1:2",), ("127.0.0.1:3",)),
    ]
    for verb, addresses, members in commands:
        with pytest.raises(KeyboardInterrupt):
            run_cluster(verb, ClusterOptions(addresses, members))
    ports = [[int(place.rpartition(":")[2]) for place in places] for places in asked]
    assert ports == [[2], [2, 3], [3], [1], [1], [3]]


def test_somebody_to_ask_must_be_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COPYCAT_MEMBERS", raising=False)
    with pytest.raises(ConfigurationError, match="no member is given to ask"):
        run_cluster("status", ClusterOptions(()))
    with pytest.raises(ConfigurationError, match="in plaintext"):
        run_cluster("status", ClusterOptions(("10.0.0.1:8700",)))
    monkeypatch.setenv("COPYCAT_MEMBERS", "10.0.0.2:8700,10.0.0.3:8700")
    with pytest.raises(ConfigurationError, match=r"10\.0\.0\.3:8700 in plaintext"):
        run_cluster("status", ClusterOptions(()))
