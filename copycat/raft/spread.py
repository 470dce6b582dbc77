"""How well the voters that are heard are spread over failure domains, and which exchange of a live
voter would spread them better (C39)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from typing import NamedTuple

from copycat.protocol.member_record import MemberRecord
from copycat.raft.configuration import Configuration
from copycat.types import MemberId, MemberType

__all__ = ["Spread", "Swap", "best_rebalancing", "by_weight", "spread", "swapped"]


class Spread(NamedTuple):
    """What no step makes less, and a swap of live voters as a whole makes greater."""

    voters: int
    """So many of them are heard, up to the target."""
    domains: int
    """Over so many failure domains they are spread."""
    fullest: int
    """How many are in the fullest domain, as a negative number."""
    fullest_domains: int
    """How many domains are as full as that, as a negative number."""


class Swap(NamedTuple):
    """A voter that goes, and the member that takes its place."""

    voter: MemberRecord
    candidate: MemberRecord


def spread(now: Configuration, heard: Collection[MemberId], target: int) -> Spread:
    """Of the voters in `now` that are among `heard`."""
    counts = _counts(each for each in _voters(now) if each.member in heard)
    fullest = max(counts.values(), default=0)
    n_fullest = sum(count == fullest for count in counts.values())
    return Spread(min(counts.total(), target), len(counts), -fullest, -n_fullest)


def swapped(now: Configuration, swap: Swap) -> Configuration:
    """`now`, after both halves of a swap."""
    after = now.with_record(swap.candidate._replace(type=MemberType.ACTIVE), now.entry)
    passive = swap.voter._replace(type=MemberType.PASSIVE, is_leaving=False)
    return after.with_record(passive, now.entry)


def best_rebalancing(
    now: Configuration,
    leader: MemberId,
    heard: Collection[MemberId],
    able: Iterable[MemberRecord],
) -> Swap | None:
    """A voter of the fullest domain for one of `able`, of the domain with the fewest voters; None
    when that would not spread the voters better.

    Only while all voters are heard, and only among members that name a domain: while domains are
    being named, one member after the other, no vote is moved. Where something can be gained the
    fullest domain has two voters, so the leader never is the only one that could go.
    """
    voters = _voters(now)
    candidates = [each for each in able if each.failure_domain]
    is_known = all(each.failure_domain and each.member in heard for each in voters)
    if not candidates or not is_known:
        return None
    counts = _counts(voters)
    fullest = max(counts.values())
    leaving = [
        each for each in voters if counts[each.failure_domain] == fullest and each.member != leader
    ]
    if not leaving:
        return None
    fewest = min(counts[each.failure_domain] for each in candidates)
    best = [each for each in candidates if counts[each.failure_domain] == fewest]
    swap, target = Swap(min(leaving, key=_lightest), max(best, key=by_weight)), len(voters)
    heard = {*heard, swap.candidate.member}
    is_better = spread(swapped(now, swap), heard, target) > spread(now, heard, target)
    return swap if is_better else None


def by_weight(each: MemberRecord) -> tuple[int, int]:
    """The key of the preferred one: the greatest weight, and then the smallest id."""
    return each.weight, -each.member


def _lightest(each: MemberRecord) -> tuple[int, int]:
    return each.weight, each.member


def _voters(now: Configuration) -> list[MemberRecord]:
    return [each for each in now.members if each.type is MemberType.ACTIVE]


def _counts(voters: Iterable[MemberRecord]) -> Counter[str]:
    return Counter(each.failure_domain for each in voters)
