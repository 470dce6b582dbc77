"""Every law of one member has a state that breaks it."""

from __future__ import annotations

from typing import Any

import pytest

from copycat.errors import InvariantError
from copycat.raft.invariants import Facts, check, observe
from copycat.types import EntryId, MemberId, ServerState, TermRun
from tests.raft.helpers import core, leader, receive
from tests.raft.test_leader import accept


def follower_facts() -> Facts:
    return observe(core(1, 1, 2, current_term=3, voted_for=2))


def leader_facts() -> Facts:
    raft, _ = leader(1, 1)
    receive(raft, 2, accept(raft, 2, 2))
    return observe(raft)


def test_honest_facts_pass() -> None:
    for facts in (follower_facts(), leader_facts()):
        check(None, facts)
        check(facts, facts)


@pytest.mark.parametrize(
    ("wrong", "law"),
    [
        ({"first_index": 5}, "I4: the log ends"),
        ({"first_index": 2}, "I12: the log has lost its front"),
        ({"first_index": 2, "before": EntryId(1, 1)}, "I4: trimmed above"),
        ({"installed_index": 1}, "I12: an install is no commit"),
        ({"deletion_floor": 1}, "C23: a deletion floor above the commit"),
        ({"commit_index": 4}, "I4: committed beyond"),
        ({"durable_index": 4}, "I4: durable beyond"),
        ({"commit_ceiling": 4}, "I8"),
        ({"last": EntryId(9, 3)}, "a term not seen"),
        ({"runs": (TermRun(1, 1), TermRun(2, 4))}, "off the log"),
        ({"leader": MemberId(1)}, "follows itself"),
        ({"matches": (1,), "nexts": (2,)}, "progress of peers"),
        ({"state": ServerState.CANDIDATE}, "without its vote"),
        (
            {"state": ServerState.CANDIDATE, "voted_for": MemberId(1), "may_vote": False},
            "C16",
        ),
    ],
)
def test_laws_of_a_follower(wrong: dict[str, Any], law: str) -> None:
    with pytest.raises(InvariantError, match=law):
        check(None, follower_facts()._replace(**wrong))


@pytest.mark.parametrize(
    ("wrong", "law"),
    [
        ({"leader": MemberId(2)}, "follows another"),
        ({"is_saving": True}, "I2: a leader"),
        ({"matches": (2, 4), "nexts": (4, 4)}, "out of order"),
        ({"matches": (2, 0), "nexts": (4, 9)}, "out of order"),
        ({"matches": (2, 0), "nexts": (4, 0)}, "out of order"),
        ({"stable_indexes": (3, 0)}, "C23: stable what is not durable"),
    ],
)
def test_laws_of_a_leader(wrong: dict[str, Any], law: str) -> None:
    with pytest.raises(InvariantError, match=law):
        check(None, leader_facts()._replace(**wrong))


@pytest.mark.parametrize(
    ("wrong", "law"),
    [
        ({"current_term": 2}, "the term fell"),
        ({"voted_for": MemberId(3)}, "I2"),
        ({"voted_for": MemberId(0)}, "I2"),
        ({"commit_index": 2}, "C2, C24"),
        ({"commit_index": 2, "commit_ceiling": 2, "durable_index": 1}, "C2, C24"),
    ],
)
def test_laws_of_a_follower_s_step(wrong: dict[str, Any], law: str) -> None:
    before = follower_facts()
    with pytest.raises(InvariantError, match=law):
        check(before, before._replace(**wrong))


def test_commit_never_goes_back_and_what_is_committed_stays() -> None:
    after = follower_facts()
    with pytest.raises(InvariantError, match="I4: the commit index fell"):
        check(after._replace(commit_index=2), after)
    with pytest.raises(InvariantError, match="I4: the commit index fell"):
        check(after._replace(commit_ceiling=2), after)
    committed = after._replace(commit_index=3, commit_ceiling=3)
    replaced = committed._replace(runs=(TermRun(1, 1), TermRun(3, 3)), last=EntryId(3, 3))
    with pytest.raises(InvariantError, match="I10"):
        check(committed, replaced)


def test_laws_of_snapshots() -> None:
    now = follower_facts()._replace(commit_index=3, commit_ceiling=3)
    installed = now._replace(installed_index=3)
    check(follower_facts(), installed)
    with pytest.raises(InvariantError, match="I12: the installed index fell"):
        check(installed, now)
    trimmed = now._replace(before=EntryId(1, 2), first_index=3, runs=(TermRun(2, 3),))
    check(now, trimmed)
    with pytest.raises(InvariantError, match="I12: deleted entries came back"):
        check(trimmed, now)
    with pytest.raises(InvariantError, match="C23: the deletion floor fell"):
        check(now._replace(cluster_deletion_floor=2), now)
    leading = leader_facts()
    with pytest.raises(
        InvariantError, match="C23: a deletion floor above the stable index of a member"
    ):
        check(leading, leading._replace(cluster_deletion_floor=1))


def test_laws_of_a_leader_s_step() -> None:
    before = leader_facts()
    with pytest.raises(InvariantError, match="I7: a leader committed an entry of another term"):
        check(before, before._replace(commit_index=2))
    with pytest.raises(InvariantError, match="I7: committed without a majority"):
        check(before, before._replace(commit_index=3))
    with pytest.raises(InvariantError, match="I9"):
        check(before, before._replace(matches=(1, 0)))
    shorter = before._replace(
        last=EntryId(1, 2), runs=before.runs[:1], nexts=(3, 3), durable_index=2
    )
    with pytest.raises(InvariantError, match="I10"):
        check(before._replace(durable_index=2), shorter)
    with pytest.raises(InvariantError, match="C6"):
        check(before, before._replace(durable_index=2))
    with pytest.raises(InvariantError, match="changed its term"):
        check(before, before._replace(current_term=9))
