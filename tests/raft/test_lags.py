"""C39: who is behind, and who is much nearer to the end of the log, round by round."""

from __future__ import annotations

from copycat.raft.lags import Lags
from copycat.raft.progress import Progress, Scope
from copycat.types import MemberId

B, C, D = MemberId(2), MemberId(3), MemberId(4)


class Leader:
    """C, a voter, is slow; D is passive. Each round commits some entries."""

    def __init__(self) -> None:
        self.lags = Lags()
        self.progress = {each: Progress(1, 0) for each in (B, C, D)}
        self.progress[D].scope = Scope.COMMITTED
        self.commit_index = 100

    def round(self, commits: int, *, slow_lag: int, lag: int) -> None:
        self.commit_index += commits
        self.progress[B].match_index = self.commit_index
        self.progress[C].match_index = self.commit_index - slow_lag
        self.progress[D].reported_index = self.commit_index - lag
        self.lags.on_round(self.progress, self.commit_index - 10, self.commit_index)


def test_c39_only_rounds_in_which_entries_are_committed_are_counted() -> None:
    leader = Leader()
    leader.round(5, slow_lag=40, lag=0)
    assert not leader.lags.is_moving, "nobody knows what was committed before the first round"
    leader.round(5, slow_lag=40, lag=0)
    leader.round(0, slow_lag=40, lag=0)
    assert not leader.lags.is_moving
    leader.round(1, slow_lag=40, lag=0)
    assert leader.lags.is_moving
    assert (leader.lags.rounds_behind(C), leader.lags.rounds_behind(B)) == (2, 0)
    leader.round(0, slow_lag=10, lag=0)
    assert leader.lags.rounds_behind(C) == 0, "it has what was committed a while ago"


def test_c39_nearer_is_who_is_four_times_nearer_in_each_of_the_rounds() -> None:
    leader = Leader()
    leader.round(0, slow_lag=0, lag=0)
    for _ in range(3):
        leader.round(5, slow_lag=40, lag=10)
    assert leader.lags.nearer(C, 3) == {D}
    assert leader.lags.nearer(C, 4) == frozenset()
    leader.round(5, slow_lag=40, lag=11)
    assert leader.lags.nearer(C, 1) == frozenset()
    leader.round(5, slow_lag=40, lag=10)
    assert leader.lags.nearer(C, 1) == {D}
    assert leader.lags.nearer(C, 2) == frozenset(), "it begins anew"


def test_c39_a_new_streak_of_the_slow_voter_begins_with_no_candidates() -> None:
    leader = Leader()
    leader.round(0, slow_lag=0, lag=0)
    for _ in range(3):
        leader.round(5, slow_lag=40, lag=0)
    leader.round(5, slow_lag=0, lag=0)
    leader.round(5, slow_lag=40, lag=0)
    assert leader.lags.nearer(C, 1) == {D}
    assert leader.lags.nearer(C, 2) == frozenset()


def test_c39_what_a_voter_says_that_it_has_committed_counts_for_it() -> None:
    leader = Leader()
    leader.round(0, slow_lag=0, lag=0)
    leader.progress[C].reported_index = 104
    leader.round(5, slow_lag=40, lag=1)
    assert leader.lags.nearer(C, 1) == frozenset(), "it is one entry behind, as D is"


def test_c39_a_voter_is_nobodys_candidate() -> None:
    leader = Leader()
    leader.round(0, slow_lag=0, lag=0)
    leader.progress[B].reported_index = 105
    leader.round(5, slow_lag=40, lag=90)
    assert leader.lags.nearer(C, 1) == frozenset()
