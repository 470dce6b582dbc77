"""Which faults a run has, all drawn from one seed before it begins.

A round is a few faults that begin within a short time of each other and overlap; between two
rounds everything is whole again for a moment. Only who is hit is decided in the run, since
nobody knows before who leads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from copycat.seeded_random import SimRandom

__all__ = ["KINDS", "Fault", "draw_rounds"]

KINDS = {
    "kill": 22,
    "kill-all": 2,
    "pause": 12,
    "one-way": 15,
    "partial": 12,
    "isolate": 9,
    "flapping": 9,
    "lossy": 9,
    "slow": 4,
    "clients": 4,
    "change": 12,
}
"""Of each kind, how many of 110 faults there are on average.

kill: SIGKILL. kill-all: of every member at once. pause: SIGSTOP. one-way: bytes pass in one
direction only. partial: two members are cut from each other, and both reach the others.
isolate: one is cut from all. flapping: a link comes and goes. lossy: packets are lost, and some
connections reset. slow: a delay on all links of a member. clients: one client process is cut
from some members. change: of the members, or a transfer of leadership.
"""

_ROUND_MAX = 4


class Fault(NamedTuple):
    """One fault. after_s: since the begin of its round. seed: of all else that it draws."""

    number: int
    kind: str
    after_s: float
    seconds: float
    seed: int


def draw_rounds(seed: int, count: int, pause_s: float) -> list[list[Fault]]:
    """`count` faults in rounds. Of a run with enough of them, every kind is there."""
    random = SimRandom(seed)
    weighted = [kind for kind, weight in KINDS.items() for _ in range(weight)]
    kinds = list(KINDS)[:count]
    kinds = random.shuffled(kinds + [random.pick(weighted) for _ in range(count - len(kinds))])
    rounds: list[list[Fault]] = []
    while kinds:
        size = min(len(kinds), random.between(1, _ROUND_MAX))
        numbers = range(count - len(kinds) + 1, count - len(kinds) + size + 1)
        drawn, kinds = kinds[:size], kinds[size:]
        rounds.append(
            [
                _draw(random, number, kind, pause_s)
                for number, kind in zip(numbers, drawn, strict=True)
            ]
        )
    return rounds


def _draw(random: SimRandom, number: int, kind: str, pause_s: float) -> Fault:
    longest_ms = 3_000 if kind in {"kill", "kill-all"} else 6_000
    seconds = random.between(300, longest_ms) / 1000
    if kind == "pause":
        seconds = pause_s
    return Fault(number, kind, random.below(2_000) / 1000, seconds, random.next())


def summary_of(rounds: Sequence[Sequence[Fault]]) -> str:
    """How many there are of each kind, in words."""
    kinds = [fault.kind for one in rounds for fault in one]
    counts = {kind: kinds.count(kind) for kind in KINDS}
    return ", ".join(f"{count} {kind}" for kind, count in counts.items() if count)
