"""The laws across members fire: each is fed the lie that it is there for."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest

from copycat.raft import leader, progress
from copycat.raft.configuration import Configuration
from copycat.types import MemberId
from tests.raft.laws import BrokenLaw, Entry, History
from tests.raft.schedule import run_schedule

X, Y = Entry(1, "x"), Entry(2, "y")


def two_leaders(history: History) -> None:
    history.elected(1, 3, [])
    history.elected(2, 3, [])


def forgetful_leader(history: History) -> None:
    history.commit(1, [X], [[X], [X], []])
    history.elected(2, 3, [Y])


def two_votes(history: History) -> None:
    history.voted(1, 2, 3, (2, 3))
    history.voted(1, 2, 1, (2, 1))


def early_vote(history: History) -> None:
    history.voted(1, 2, 3, (1, 0))


def two_payloads(history: History) -> None:
    history.appended(1, X, 0)
    history.appended(1, Entry(1, "z"), 0)


def early_promise(history: History) -> None:
    history.acknowledged(1, 2, [X])


def too_few_copies(history: History) -> None:
    history.commit(1, [X], [[X], [Y], []])


def two_commits(history: History) -> None:
    history.commit(1, [X], [[X], [X], []])
    history.commit(1, [Y], [[Y], [Y], []])


def beyond_the_log(history: History) -> None:
    history.commit(2, [X], [[X], [X], []])


def false_match(history: History) -> None:
    history.matched(1, [X], [Y])


def foreign_snapshot(history: History) -> None:
    history.commit(1, [X], [[X], [X], []])
    history.installed(1, [Y])


def high_floor(history: History) -> None:
    history.deletions_allowed(2, 1, [X])


def stale_read(history: History) -> None:
    history.commit(1, [X], [[X], [X], []])
    history.read_requested(1, 5)
    history.read_answered(1, 5, 0)


@pytest.mark.parametrize(
    ("lie", "name"),
    [
        (two_leaders, "I1"),
        (forgetful_leader, "I6 a leader lacks"),
        (two_votes, "I2 one vote"),
        (early_vote, "I2 durable"),
        (two_payloads, "I5"),
        (early_promise, "I3"),
        (too_few_copies, "I6 durable"),
        (two_commits, "I6 committed"),
        (beyond_the_log, "I4"),
        (false_match, "I9"),
        (foreign_snapshot, "I12"),
        (high_floor, "C23"),
        (stale_read, "I14"),
    ],
)
def test_law_fires(lie: Callable[[History], None], name: str) -> None:
    with pytest.raises(BrokenLaw, match=name):
        lie(History())


def believes_anything(self: progress.Progress, request: int, match_index: int) -> bool:
    self.match_index = max(self.match_index, min(match_index + 1, self.next_index - 1))
    return True


def nobody_is_heard(*_: object) -> bool:
    return False


def any_of_them(_: Configuration, match_of: Mapping[MemberId, int]) -> int:
    return max(match_of.values())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("owner", "name", "bug"),
    [
        (progress.Progress, "acknowledge", believes_anything),
        (Configuration, "agreed_index", any_of_them),
        (leader, "_is_quorum_active", nobody_is_heard),
    ],
    ids=["match beyond the promise", "commit by one", "no leader is content"],
)
def test_the_schedules_notice_a_bug(
    owner: object, name: str, bug: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owner, name, bug)
    caught = 0
    for seed in range(20):
        try:
            run_schedule(seed)
        except Exception:  # noqa: BLE001  # whichever law or require sees it first
            caught += 1
    assert caught > 0
