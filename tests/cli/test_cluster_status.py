"""`copycat cluster status` against a cluster that is simulated in the test."""

from __future__ import annotations

import json

import msgspec
import pytest

from copycat.cli.cluster.page import status_lines
from copycat.protocol.member_record import HealingPolicy
from copycat.types import MemberId
from tests.cli.test_cluster import run, three


def test_status_shows_each_member_and_what_the_cluster_bears(
    capsys: pytest.CaptureFixture[str],
) -> None:
    cluster = three()
    cluster.down.add("c:1")
    assert run(cluster, "status", "b:1") == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0].split() == [
        "MEMBER", "TYPE", "ROLE", "TERM", "LAST", "COMMIT", "APPLIED", "LAG", "DISK", "VERSION",
    ]  # fmt: skip
    assert out[1].split() == ["a:1", "active", "leader", "3", "40", "40", "40", "0", "ok", "0.1.0"]
    assert out[3].split()[:9] == ["c:1", "active", "unreachable", *"––––", "20", "–"]
    assert out[4].split()[:3] == ["d:1", "passive", "passive"]
    assert out[5].split() == ["e:1", "reserve", "reserve", "3", "–", "–", "–", "–", "ok", "0.1.0"]
    assert "leader a:1 · quorum 2 of 3, 2 reachable, bears no further loss" in out[6]


def test_status_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    cluster = three()
    cluster.down.add("d:1")
    assert run(cluster, "status", as_json=True) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == 1
    assert document["leader"] == "a:1"
    assert document["quorum"] == {"voters": 3, "size": 2, "reachable": 3, "losses": 1}
    by_address = {one["address"]: one for one in document["members"]}
    assert by_address["a:1"]["lag"] == {"entries": 0, "seconds": 0.0}
    assert by_address["d:1"]["role"] == "unreachable"
    assert by_address["d:1"]["lag"] == {"entries": 20, "seconds": None}
    assert by_address["e:1"]["lag"] is None
    assert by_address["d:1"]["reason"] == "connection refused"


def test_a_voter_that_the_leader_does_not_reach_bears_no_loss(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It answers this command, and the leader has no link to it: it counts for no majority."""
    cluster = three()
    cluster.cut_off.add("c:1")
    assert run(cluster, "status") == 0
    out = capsys.readouterr().out.splitlines()
    assert out[3].split()[:5] == ["c:1", "active", "follower", "(no", "link)"]
    assert "quorum 2 of 3, 2 reachable, bears no further loss" in out[6]
    cluster.leader = ""
    assert run(cluster, "status") == 3
    assert "quorum 2 of 3, 3 reachable" in capsys.readouterr().out


def test_without_a_majority_that_answers_status_says_so(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A leader hears a majority, or it would not lead; perhaps this command reaches only some."""
    cluster = three()
    cluster.down |= {"b:1", "c:1"}
    assert run(cluster, "status") == 0
    assert "1 reachable, too few voters answer this command" in capsys.readouterr().out
    cluster.leader = ""
    assert run(cluster, "status") == 3
    assert "1 reachable, no majority: writes are paused" in capsys.readouterr().out


def test_status_without_a_leader_ends_with_3(capsys: pytest.CaptureFixture[str]) -> None:
    cluster = three()
    cluster.leader = ""
    assert run(cluster, "status") == 3
    out = capsys.readouterr().out
    assert "no leader" in out
    lags = [row.split()[7] for row in out.splitlines()[1:4]]
    assert lags == ["–", "–", "–"], "there is nobody whom they could be behind"


def test_a_voter_that_hinders_elections_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    cluster = three()
    cluster.obstacles = {"b:1": "b:1 misses entries 5 to 9", "d:1": "d:1 has no vote"}
    assert run(cluster, "status") == 0
    assert "misses" not in capsys.readouterr().out, "while somebody leads it does not matter"
    cluster.leader = ""
    assert run(cluster, "status") == 3
    out = capsys.readouterr().out.splitlines()
    assert "3 reachable, writes are paused until one is elected" in out[6]
    assert out[7:] == ["b:1: b:1 misses entries 5 to 9"]
    assert run(cluster, "status", as_json=True) == 3
    members = json.loads(capsys.readouterr().out)["members"]
    assert [one["obstacles"] for one in members[:2]] == [None, "b:1 misses entries 5 to 9"]


def test_who_is_to_become_active_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    cluster = three()
    flagged = msgspec.structs.replace(cluster.members["d:1"], is_promotable=True)
    cluster.members["d:1"] = flagged
    run(cluster, "status")
    assert "d:1     passive→active  passive" in capsys.readouterr().out


def test_who_is_to_lose_its_vote_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    cluster = three()
    marked = msgspec.structs.replace(cluster.members["b:1"], is_leaving=True)
    cluster.members["b:1"] = marked
    run(cluster, "status")
    assert "b:1     active→passive  follower" in capsys.readouterr().out


def test_who_replaces_a_lost_disk_is_said_with_what_is_left_to_do() -> None:
    cluster = three()
    back = msgspec.structs.replace(cluster.members["d:1"], replaces=MemberId(3))
    cluster.members["d:1"] = back
    view = cluster.view("a:1")
    todo = "it is removed: copycat cluster remove 00000000"
    assert status_lines(view, [], as_json=False)[-1] == (
        f"d:1 replaces c:1, which has a vote until {todo}"
    )
    healed = msgspec.structs.replace(view, policy=HealingPolicy(target_active=3, is_on=True))
    assert status_lines(healed, [], as_json=False)[-1] == (
        f"d:1 replaces c:1, which has a vote until the leader heals that, or {todo}"
    )
