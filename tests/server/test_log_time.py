"""C25 end to end: a lease outlives clocks that are set while members run, and an outage of all."""

from __future__ import annotations

import time
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from copycat import CopycatClient, ServerState, StateMachine, command, query
from copycat.member.time_note import TimeFile, TimeNote
from copycat.server import host, startup
from copycat.storage import Env
from tests.server.cluster import Trio, run

HOUR = 3600


class Leases(StateMachine):
    """Who has what, for so many seconds."""

    def __init__(self) -> None:
        self.holders: dict[str, str] = {}

    @command(key="name", expires="seconds")
    def lend(self, name: str, holder: str, seconds: float | None) -> None:
        self.holders[name] = holder

    def on_key_expired(self, name: str) -> None:
        self.holders.pop(name, None)

    @query
    def lease_names(self) -> list[str]:
        return sorted(self.holders)


class Wall:
    """The wall clock of the machine that all three run on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, wrong_by_s: int) -> None:
        self.wrong_by_s = wrong_by_s
        for module in (host, startup):
            monkeypatch.setattr(module, "wall_ms", self.show_ms)

    def show_ms(self) -> int:
        return int((time.time() + self.wrong_by_s) * 1000)


def notes(trio: Trio) -> list[TimeNote]:
    files = [TimeFile(Env(), member.storage.directory) for member in trio.servers.values()]
    return [note for file in files if (note := file.read()) is not None]


async def record_damage(trio: Trio, wall: Wall) -> None:
    """Each member has noted what its wall clock shows now, and who leads."""

    def holds() -> bool:
        term = max(member.status().term for member in trio.running)
        fresh_notes = [
            note
            for note in notes(trio)
            if abs(note.wall_ms - wall.show_ms()) < 60_000 and note.term == term
        ]
        return len(fresh_notes) == 3

    await trio.until(holds)


async def stop_all(trio: Trio) -> None:
    """The leader last: nobody else leads meanwhile."""
    for member in sorted(trio.running, key=lambda one: one.state is ServerState.LEADER):
        await member.shutdown()


@pytest.mark.slow
@pytest.mark.parametrize("away_s", [0, HOUR // 2])
def test_all_clocks_are_set_while_members_run_and_then_all_are_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, away_s: int
) -> None:
    """They showed 1976, and are right now: no lease ends because of that."""

    async def play() -> None:
        wall = Wall(monkeypatch, -50 * 8766 * HOUR)
        async with AsyncExitStack() as stack:
            trio = Trio(tmp_path, stack, Leases)
            await trio.start()
            await trio.all_applied()
            async with CopycatClient(*trio.addresses) as client:
                await client.submit(Leases.lend("a", "me", HOUR))
            await record_damage(trio, wall)
            wall.wrong_by_s = 0
            await record_damage(trio, wall)
            await stop_all(trio)
            wall.wrong_by_s = away_s
            await trio.start()
            await trio.all_applied()
            async with CopycatClient(*trio.addresses) as client:
                await client.submit(Leases.lend("b", "me", None))
                assert await client.submit(Leases.lease_names()) == ["a", "b"]

    run(play)
