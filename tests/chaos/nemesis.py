"""Carries the faults out, each in a task of its own, and undoes each one."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from copycat.seeded_random import SimRandom
from tests.chaos.faults import Fault
from tests.chaos.members import Member
from tests.chaos.namespaces import Namespace
from tests.chaos.network import Link, Network
from tests.chaos.processes import ended, launch, until

__all__ = ["Nemesis"]

_MILLION = 1_000_000
_COMMAND_S = 8.0
_VOTERS = range(3, 6)
_Pair = tuple[str, str]


class Nemesis:
    """members: all of them; those whose name is in `may_leave` may become a reserve.
    operator: where `copycat cluster` runs, whose links have no faults; what it prints is kept in
    `root`. tell: prints a line.
    """

    def __init__(
        self,
        members: Sequence[Member],
        may_leave: frozenset[str],
        clients: Sequence[str],
        network: Network,
        operator: Namespace,
        root: Path,
        tell: Callable[[str], None],
    ) -> None:
        self._members = list(members)
        self._may_leave = may_leave
        self._clients = list(clients)
        self._network = network
        self._operator = operator
        self._root = root
        self._commands = 0
        self._tell = tell
        self._busy: set[str] = set()
        """Members that a fault has killed or paused."""
        self.changes: dict[str, int] = {}
        """How the changes of the members ended."""

    async def run(self, rounds: Sequence[Sequence[Fault]], calm_s: float) -> None:
        """One round after the other, each whole again before the next."""
        for one in rounds:
            try:
                async with asyncio.TaskGroup() as group:
                    for fault in one:
                        group.create_task(self._inflict(fault))
            except ExceptionGroup as failed:
                raise failed.exceptions[0] from failed
            await asyncio.sleep(calm_s)

    async def _inflict(self, fault: Fault) -> None:
        await asyncio.sleep(fault.after_s)
        random = SimRandom(fault.seed)
        match fault.kind:
            case "kill":
                await self._kill(fault, random)
            case "kill-all":
                await self._kill_all(fault)
            case "pause":
                await self._pause(fault, random)
            case "change":
                await self._change(fault, random)
            case _:
                await self._disturb(fault, random)

    def _say(self, fault: Fault, text: str) -> None:
        self._tell(f"#{fault.number} {fault.kind}: {text}")

    def _described(self, member: Member) -> str:
        return f"{member.name} ({member.state})"

    def _pick(self, random: SimRandom, candidates: Sequence[Member]) -> Member:
        """The leader in three of five cases, else anybody."""
        leaders = [one for one in candidates if one.state == "leader"]
        if leaders and random.chance(600_000):
            return max(leaders, key=_term)
        return random.pick(candidates)

    async def _one_member(self, random: SimRandom) -> Member:
        """A member that runs undisturbed; waits until there is one."""
        await until(self._has_free, "a fault ends", 120.0)
        return self._pick(random, self._free())

    def _free(self) -> list[Member]:
        return [one for one in self._members if one.name not in self._busy]

    def _has_free(self) -> bool:
        return bool(self._free())

    # --- processes --------------------------------------------------------------------------

    async def _kill(self, fault: Fault, random: SimRandom) -> None:
        member = await self._one_member(random)
        self._busy.add(member.name)
        self._say(fault, f"SIGKILL to {self._described(member)} for {fault.seconds:.1f} s")
        await member.kill()
        await asyncio.sleep(fault.seconds)
        await self._start([member])

    async def _kill_all(self, fault: Fault) -> None:
        await until(self._has_free, "a fault ends", 120.0)
        members = self._free()
        self._busy |= {one.name for one in members}
        names = ", ".join(self._described(one) for one in members)
        self._say(fault, f"SIGKILL to {names} for {fault.seconds:.1f} s")
        await asyncio.gather(*(one.kill() for one in members))
        await asyncio.sleep(fault.seconds)
        await self._start(members)

    async def _start(self, members: Iterable[Member]) -> None:
        """Launch them; they are busy until their processes run, and may wait for each other."""
        for member in members:
            member.launch()
            self._busy.discard(member.name)

    async def _pause(self, fault: Fault, random: SimRandom) -> None:
        member = await self._one_member(random)
        self._busy.add(member.name)
        self._say(fault, f"SIGSTOP to {self._described(member)} for {fault.seconds:.1f} s")
        member.pause()
        await asyncio.sleep(fault.seconds)
        member.resume()
        self._busy.discard(member.name)

    # --- links ------------------------------------------------------------------------------

    async def _disturb(self, fault: Fault, random: SimRandom) -> None:
        member = self._pick(random, self._members)
        one = member.name
        others = random.shuffled([each.name for each in self._members if each.name != one])
        other, seconds = others[0], f"for {fault.seconds:.1f} s"
        match fault.kind:
            case "one-way":
                is_to_all = random.chance(_MILLION // 2)
                to = others if is_to_all else others[: random.between(1, len(others))]
                pairs = [(one, each) for each in to]
                if random.chance(_MILLION // 2):
                    pairs = [(each, one) for each in to]
                self._say(fault, f"nothing passes {_listed(pairs)} {seconds}")
                await self._cut(fault, pairs, random)
            case "partial":
                self._say(fault, f"{one} and {other} do not reach each other {seconds}")
                await self._cut(fault, _both(one, [other]), random)
            case "isolate":
                rest = [*others, *(self._clients if random.chance(_MILLION // 4) else [])]
                self._say(
                    fault, f"{self._described(member)} reaches none of {', '.join(rest)} {seconds}"
                )
                await self._cut(fault, _both(one, rest), random)
            case "clients":
                client = random.pick(self._clients)
                to = [one, *others][: random.between(1, len(self._members))]
                self._say(fault, f"{client} does not reach {', '.join(to)} {seconds}")
                await self._cut(fault, _both(client, to), random)
            case "flapping":
                self._say(fault, f"the link of {one} and {other} comes and goes {seconds}")
                await self._flap(fault, _both(one, [other]), random)
            case "lossy":
                to = others[: random.between(1, len(others))]
                loss = random.between(10_000, 300_000)
                self._say(fault, f"{loss / 10_000:.0f} % lost at {one}, {', '.join(to)} {seconds}")
                await self._lose(fault, _both(one, to), loss)
            case _:
                delay_s = random.between(20, 500) / 1000
                text = f"up to {delay_s * 1000:.0f} ms of delay on all links of {one} {seconds}"
                self._say(fault, text)
                await self._delay(fault, _both(one, [*others, *self._clients]), delay_s)

    def _links(self, pairs: Sequence[_Pair]) -> list[Link]:
        return [self._network.links[pair] for pair in pairs]

    async def _cut(self, fault: Fault, pairs: Sequence[_Pair], random: SimRandom) -> None:
        async with self._cutting(pairs):
            await asyncio.sleep(fault.seconds)
            if random.chance(_MILLION // 2):  # else all that waits arrives now, late
                for one, other in pairs:
                    self._network.reset(one, other)

    @asynccontextmanager
    async def _cutting(self, pairs: Sequence[_Pair]) -> AsyncIterator[None]:
        for link in self._links(pairs):
            link.cuts += 1
            link.changed()
        try:
            yield
        finally:
            for link in self._links(pairs):
                link.cuts -= 1
                link.changed()

    async def _flap(self, fault: Fault, pairs: Sequence[_Pair], random: SimRandom) -> None:
        end = time.monotonic() + fault.seconds
        while time.monotonic() < end:
            async with self._cutting(pairs):
                await asyncio.sleep(random.between(50, 900) / 1000)
                if random.chance(_MILLION // 2):
                    for one, other in pairs:
                        self._network.reset(one, other)
            await asyncio.sleep(random.between(50, 600) / 1000)

    async def _lose(self, fault: Fault, pairs: Sequence[_Pair], loss: int) -> None:
        links = self._links(pairs)
        for link in links:
            link.loss, link.resets = loss, True
        try:
            await asyncio.sleep(fault.seconds)
        finally:
            for link in links:
                link.loss, link.resets = 0, False

    async def _delay(self, fault: Fault, pairs: Sequence[_Pair], delay_s: float) -> None:
        links = self._links(pairs)
        for link in links:
            link.delay_s = delay_s
        try:
            await asyncio.sleep(fault.seconds)
        finally:
            for link in links:
                link.delay_s = 0.0

    # --- members ----------------------------------------------------------------------------

    async def types(self) -> dict[str, str]:
        """Address -> type of each member, from any that answers; empty when none does."""
        addresses = [one.address for one in self._members]
        code, text = await self.command("status", *addresses, "--json")
        if code != 0:
            return {}
        return {row["address"]: row["type"] for row in json.loads(text)["members"]}

    async def _change(self, fault: Fault, random: SimRandom) -> None:
        words = self._choose(random, await self.types())
        places = [word for one in self._members for word in ("--member", one.address)]
        code, text = await self.command(*words, *places, "--timeout", f"{_COMMAND_S}")
        last = [line for line in text.splitlines() if line.startswith("error[")] or [
            f"code {code}"
        ]
        outcome = "done" if code == 0 else last[-1].partition(":")[0]
        self.changes[outcome] = self.changes.get(outcome, 0) + 1
        self._say(fault, f"copycat cluster {' '.join(words)}: {outcome}")

    def _choose(self, random: SimRandom, types: dict[str, str]) -> list[str]:
        voters = sum(one == "active" for one in types.values())
        choices: list[list[str]] = [["transfer"]]
        for member in self._members:
            match types.get(member.address):
                case "active" if voters > _VOTERS.start:
                    choices.append(["demote", member.address])
                case "passive":
                    if voters < _VOTERS.stop - 1:
                        choices.append(["promote", member.address])
                    if member.name in self._may_leave:
                        choices.append(["demote", member.address])
                case "reserve":
                    choices.append(["promote", member.address])
                case _:
                    pass
        return random.pick(choices)

    async def command(self, *words: str) -> tuple[int, str]:
        """Run `copycat cluster`; its exit code, and what it printed."""
        self._commands += 1
        output = self._root / f"command-{self._commands}.out"
        process = launch(self._operator, ["copycat", "cluster", *words], output)
        code = await ended(process, "copycat cluster", 120.0)
        return code, output.read_text(errors="replace")


def _term(member: Member) -> int:
    return member.term


def _both(one: str, others: Sequence[str]) -> list[_Pair]:
    """Both directions between one place and others."""
    return [pair for other in others for pair in ((one, other), (other, one))]


def _listed(pairs: Sequence[_Pair]) -> str:
    return ", ".join(f"{one}→{other}" for one, other in pairs)
