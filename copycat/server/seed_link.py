"""Addresses that a start was given, and that no member is known to listen at (C44, C45).

The configuration that is stored says who the members are. But all of them may have been replaced,
or have moved, while this member was away: then whoever listens at an address of the arguments is
one of them, or knows them.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Iterable

from copycat.config import Address
from copycat.errors import CopycatError
from copycat.net import Dialler, escaped
from copycat.replica.leader_search import ELECTIONS
from copycat.replica.replica import Replica
from copycat.server.peer_link import LinkHost, greeting
from copycat.types import ServerState

__all__ = ["SeedLink", "seed_links"]

log = logging.getLogger("copycat.server")

WAIT_MIN_S = 0.05
WAIT_MAX_S = 5.0
IDLE_S = 1.0
"""How often it is looked whether somebody leads, while somebody does."""


class SeedLink:
    """Says HELLO at one address as long as no leader is known. Two members that have greeted each
    other so have links as between members; this connection is closed then."""

    def __init__(self, address: str, host: LinkHost, replica: Replica) -> None:
        self._address = Address.parse(address)
        self._dialler = Dialler(self._address)
        self._host = host
        self._replica = replica
        self.reason = "not tried yet"
        """Why the last attempt failed; empty when it did not."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        """Make no further attempt."""
        self._task.cancel()
        await asyncio.wait({self._task})

    async def _run(self) -> None:
        wait = WAIT_MIN_S
        while True:
            if self._is_needed():
                await self._try()
                pause = wait = min(2 * wait, WAIT_MAX_S)
            else:
                pause, wait = IDLE_S, WAIT_MIN_S
            await asyncio.sleep(pause * random.uniform(0.75, 1.25))

    def _is_needed(self) -> bool:
        """Whether nobody leads as far as this member knows, or the leader is silent, and the
        address is no member's. Who has no vote never forgets a leader."""
        raft, members = self._replica.raft, self._replica.members
        if str(self._address) in members.addresses or raft.state is ServerState.LEADER:
            return False
        silent_ms = raft.now_ms - raft.leader_active_until_ms
        return not raft.leader or silent_ms >= ELECTIONS * raft.options.election_timeout_ms

    async def _try(self) -> None:
        before, self.reason = self.reason, ""
        try:
            async with greeting(self._dialler, self._host, self._replica) as (_, frame):
                self._replica.accept_peer(frame)  # as if it had dialled this member
        except (OSError, UnicodeError, CopycatError) as error:
            self._dialler.failed()
            self.reason = str(error) or type(error).__name__
        except Exception as error:  # a link that is given up would be missed for good
            self.reason = f"{type(error).__name__}: {error}"
            log.exception("the link to %s met an error of this program", self._address)
        if self.reason and self.reason != before:
            log.info("no member at %s: %s", self._address, escaped(self.reason))


def seed_links(
    addresses: Iterable[str], own_address: str, host: LinkHost, replica: Replica
) -> list[SeedLink]:
    """A link to each of these addresses that is no known member's."""
    others = set(addresses) - {own_address, *replica.members.addresses}
    return [SeedLink(address, host, replica) for address in sorted(others)]
