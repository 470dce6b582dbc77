"""The arithmetic of a churn, and its run over a log that can be cleaned."""

from __future__ import annotations

from copycat.cli.tune.churn import Amplification
from copycat.log.log import Segment


def segment(number: int, version: int, size: int) -> Segment:
    return Segment(number, version, 1, 2, size, 2, is_sealed=True)


def test_what_is_rewritten_counts_once_and_what_is_kept_is_a_mean() -> None:
    amplification = Amplification()
    amplification.look([segment(1, 1, 100), segment(2, 1, 100)], 100)
    assert (amplification.written(200), amplification.mean_space) == (1, 2)
    amplification.look([segment(3, 2, 60), segment(4, 1, 40)], 100)
    amplification.look([segment(3, 2, 60), segment(5, 3, 40), segment(6, 1, 100)], 100)
    assert amplification.written(400) == 1.25
    assert amplification.mean_space == (2 + 1 + 2) / 3
    assert Amplification().mean_space == 0
