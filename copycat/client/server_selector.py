"""Which server next. Its random numbers come from a seed: no clock, no socket."""

from __future__ import annotations

import random
from collections.abc import Iterable

from copycat.client.options import Backoff, ServerSelection
from copycat.client.unavailability import Unavailability

__all__ = ["ServerSelector"]


class ServerSelector:
    """Walks the servers in rounds: every candidate once, then a wait that grows.

    seeds: addresses that the user gave, kept for ever beside those that the cluster names,
    which a client may not be able to reach (they are as the members see each other).
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
        self.leader = ""
        self.failures: dict[str, str] = {}
        """address -> why it did not do, since the last success."""
        self.unavailable: dict[str, Unavailability] = {}
        """address -> what it said of the cluster, of those."""

    def follow(self, leader: str, members: Iterable[str]) -> None:
        """What a server said of the cluster."""
        self.leader = leader
        self._members = tuple(dict.fromkeys(members)) or self._members

    def next(self) -> tuple[str, float]:
        """(address to try now, seconds to wait before)."""
        delay = 0.0
        if not self._untried:
            delay = self._backoff.delay(self._round)
            delay *= self._random.uniform(0.75, 1.0)
            self._round += 1
            self._untried = self._candidates()
        elif self._selection is ServerSelection.LEADER and self.leader in self._untried:
            # The hint came while this round was under way.
            self._untried.remove(self.leader)
            self._untried.insert(0, self.leader)
        return self._untried.pop(0), delay

    @property
    def rounds(self) -> int:
        """Rounds begun since the last success."""
        return self._round

    @property
    def is_round_over(self) -> bool:
        """True when every candidate of this round was tried."""
        return not self._untried

    @property
    def members(self) -> tuple[str, ...]:
        """The members that the cluster named."""
        return self._members

    def failed(
        self, address: str, reason: str, unavailability: Unavailability | None = None
    ) -> None:
        """This one did not do; `unavailability`: what it said of the cluster."""
        self.failures[address] = reason
        self.unavailable.pop(address, None)
        if unavailability is not None:
            self.unavailable[address] = unavailability

    def report(self) -> str:
        """What each server answered last, one line an address."""
        servers = list(dict.fromkeys((*self._given_addresses, *self._members, *self.failures)))
        if not self.failures:
            return ""
        return "\n".join(f"{a}: {self.failures.get(a, 'not tried yet')}" for a in servers)

    def succeeded(self) -> None:
        """A session is served: the next loss begins with a round without a wait."""
        self._untried = []
        self._round = 0
        self.failures.clear()
        self.unavailable.clear()

    def avoid(self, address: str) -> None:
        """It was connected and could not serve: begin the next round with the others."""
        self._untried = [other for other in self._candidates() if other != address]
        self._round = 1

    def _candidates(self) -> list[str]:
        servers = list(dict.fromkeys((*self._members, *self._given_addresses)))
        self._random.shuffle(servers)
        if self.leader not in servers or self._selection is ServerSelection.ANY:
            return servers
        servers.remove(self.leader)
        if self._selection is ServerSelection.LEADER:
            return [self.leader, *servers]
        return [*servers, self.leader]  # better the leader than nobody
