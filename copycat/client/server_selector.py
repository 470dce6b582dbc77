"""Chooses the server to connect to next. No clock, no socket; random numbers from a seed."""

from __future__ import annotations

import random
from collections.abc import Iterable

from copycat.client.options import Backoff, ServerSelection
from copycat.client.unavailability import Unavailability
from copycat.errors import CopycatError

__all__ = ["ServerSelector"]


class ServerSelector:
    """Chooses servers in rounds: each round tries every server once; before a round there is a
    wait.

    given_addresses: the addresses that the user gave. They are tried beside those that the cluster
    names, since those are the addresses that members use, which a client perhaps cannot reach.
    seed: of the random numbers.
    """

    def __init__(
        self,
        given_addresses: Iterable[str],
        selection: ServerSelection,
        backoff: Backoff,
        *,
        seed: int,
    ) -> None:
        self._given_addresses = tuple(dict.fromkeys(given_addresses))
        self._members: tuple[str, ...] = ()
        self._selection = selection
        self._backoff = backoff
        self._random = random.Random(seed)
        self._untried: list[str] = []
        self._round = 0
        self._avoided: set[str] = set()
        """Servers that could not serve the session, since one last served it."""
        self.leader = ""
        self.failures: dict[str, str] = {}
        """By address: why the last attempt failed, since a session was last opened."""
        self.unavailable: dict[str, Unavailability] = {}
        """By address: what the server said about the cluster in that attempt."""

    def follow(self, leader: str, members: Iterable[str]) -> None:
        """Note which leader and members a server named."""
        self.leader = leader
        self._members = tuple(dict.fromkeys(members)) or self._members

    def next(self) -> tuple[str, float]:
        """The address of the server to try next, and the seconds to wait before."""
        delay = 0.0
        if not self._untried:
            delay = self._backoff.delay(self._round)
            delay *= self._random.uniform(0.75, 1.0)
            self._round += 1
            self._untried = self._candidates()
        elif self._selection is ServerSelection.LEADER and self.leader in self._untried:
            # The leader became known during this round.
            self._untried.remove(self.leader)
            self._untried.insert(0, self.leader)
        return self._untried.pop(0), delay

    @property
    def rounds(self) -> int:
        """How many rounds have begun since a session was last opened."""
        return self._round

    @property
    def is_round_over(self) -> bool:
        """True when this round has tried every server."""
        return not self._untried

    @property
    def members(self) -> tuple[str, ...]:
        """Addresses of the members, as the cluster named them."""
        return self._members

    def count_of(self, kind: type[CopycatError]) -> tuple[int, int]:
        """How many of the known servers gave a reason of this kind in their last answer, and how
        many are known."""
        servers = {*self._members, *self._given_addresses}
        known = [self.unavailable[each] for each in servers if each in self.unavailable]
        return sum(each.kind is kind for each in known), len(servers)

    def failed(
        self, address: str, reason: str, unavailability: Unavailability | None = None
    ) -> None:
        """Note that an attempt failed, with the reason and with what the server said, if
        anything."""
        self.failures[address] = reason
        self.unavailable.pop(address, None)
        if unavailability is not None:
            self.unavailable[address] = unavailability

    def report(self) -> str:
        """The last answer of each server, one line per address; "" when no attempt failed."""
        servers = list(dict.fromkeys((*self._given_addresses, *self._members, *self.failures)))
        if not self.failures:
            return ""
        return "\n".join(f"{a}: {self.failures.get(a, 'not tried yet')}" for a in servers)

    def succeeded(self) -> None:
        """Note that a session was opened: the next round begins without a wait."""
        self._untried = []
        self._round = 0
        self._avoided.clear()
        self.failures.clear()
        self.unavailable.clear()

    def served(self) -> None:
        """Note that a server has served the session: what others said before is out of date."""
        self._avoided.clear()
        self.unavailable.clear()

    def avoid(self, address: str) -> None:
        """Begin a round with all servers but this one, which could not serve the session. Those
        that could not serve it before come last, whatever the selection prefers."""
        self._avoided.add(address)
        others = [other for other in self._candidates() if other != address]
        # False sorts before True, and the order is kept otherwise.
        self._untried = sorted(others, key=self._avoided.__contains__)
        if self._avoided.issuperset(others):
            self._avoided = {address}  # each had its turn
        self._round = 1

    def _candidates(self) -> list[str]:
        servers = list(dict.fromkeys((*self._members, *self._given_addresses)))
        self._random.shuffle(servers)
        if self.leader not in servers or self._selection is ServerSelection.ANY:
            return servers
        servers.remove(self.leader)
        if self._selection is ServerSelection.LEADER:
            return [self.leader, *servers]
        return [*servers, self.leader]  # the leader last, when no follower can be reached
