"""The 128 bits that say which cluster this is (C41), and whether an operator made it (C46).

Their highest bit is the kind, as a UUID has its version among its bits: it is 1 for a cluster
that `copycat recover --new-cluster` made from one member of another cluster. So whoever meets the
number knows that its cluster began with an incarnation, and never was without: nobody who knows no
incarnation can be one of its founders or have a session in it.
"""

from __future__ import annotations

__all__ = ["first_incarnation", "is_recovered", "recovered_incarnation"]

_RECOVERED = 1 << 127


def first_incarnation(random_bits: int) -> int:
    """Of a cluster whose founders change their members for the first time."""
    return random_bits & ~_RECOVERED


def recovered_incarnation(random_bits: int) -> int:
    """Of a cluster that is made from one member of another one."""
    return random_bits | _RECOVERED


def is_recovered(incarnation: int) -> bool:
    """Whether an operator made the cluster from a member of another one; False for 0."""
    return bool(incarnation & _RECOVERED)
