"""One run: start a cluster and clients, inflict the faults, heal everything, and judge."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, TextIO

import msgspec

from copycat.seeded_random import SimRandom
from tests.chaos.client import ClientPlan
from tests.chaos.faults import Fault, draw_rounds, summary_of
from tests.chaos.members import Member
from tests.chaos.namespaces import Namespace
from tests.chaos.nemesis import Nemesis
from tests.chaos.network import Network
from tests.chaos.processes import ProcessFailed, ended, last_words, launch, until
from tests.chaos.verdict import Verdict, judge

__all__ = ["ChaosRun", "Plan"]

PLACES = ["n1", "n2", "n3", "n4", "n5"]
CLIENTS = ["c1", "c2"]
OPERATOR = "op"
_FOUNDERS = 3
_CALM_S = 0.8
_HEALED_WITHIN_S = 240.0
_MAY_LEAVE = frozenset({"n4", "n5"})
_COMPACTING = """max_segment_size = "256KiB"
snapshot_threshold = "512KiB"
minor_compaction_interval = 3.0
major_compaction_interval = 20.0
"""
"""Settings of some members, which take snapshots and compact all the time. The others keep
every entry, so that the whole history is in some log."""


class Plan(NamedTuple):
    """The options of the command line. seed: draws the faults and the operations."""

    faults: int
    operations: int
    seed: int
    pause_s: float
    workers: int


class ChaosRun:
    """root: where everything is kept. namespaces: one for each place."""

    def __init__(self, plan: Plan, root: Path, namespaces: dict[str, Namespace]) -> None:
        self.plan = plan
        self._root = root
        self._namespaces = namespaces
        addresses = {place: (f"127.0.0.{at}", 8700 + at) for at, place in enumerate(PLACES, 1)}
        self._addresses = {place: f"{host}:{port}" for place, (host, port) in addresses.items()}
        self._network = Network(namespaces, addresses, SimRandom(plan.seed + 1))
        founders = [self._addresses[place] for place in PLACES[:_FOUNDERS]]
        listed = [word for address in founders for word in ("--member", address)]
        joining = [word for address in founders for word in ("--join", address)]
        words = dict.fromkeys(PLACES[:_FOUNDERS], listed)
        words |= {"n4": [*joining, "--type", "passive"], "n5": [*joining, "--type", "reserve"]}
        self.members = [
            Member(
                namespaces[place],
                addresses[place],
                words[place],
                root,
                "" if place in PLACES[:2] else _COMPACTING,
            )
            for place in PLACES
        ]
        self._clients: list[subprocess.Popen[bytes]] = []
        self._began = time.monotonic()
        self._log: TextIO = (root / "faults.log").open("w", encoding="utf-8", buffering=1)

    def tell(self, text: str) -> None:
        """Print a line with the time since the begin, and keep it."""
        line = f"{time.monotonic() - self._began:9.3f} s  {text}"
        print(line, flush=True)
        self._log.write(line + "\n")

    async def run(self) -> Verdict:
        """Raises ProcessFailed, or HistoryError when a law does not hold."""
        rounds = draw_rounds(self.plan.seed, self.plan.faults, self.plan.pause_s)
        await self._network.open()
        watch = asyncio.create_task(self._watch())
        work = asyncio.create_task(self._work(rounds))
        try:
            await asyncio.wait({watch, work}, return_when=asyncio.FIRST_COMPLETED)
            if watch.done():
                await watch
            return await work
        finally:
            for task in (watch, work):
                task.cancel()
            await asyncio.wait({watch, work})
            self._end_all()
            await self._network.close()
            self._log.close()

    async def _watch(self) -> None:
        """Read what the members print; fails as soon as a process ends by itself."""
        while True:
            for member in self.members:
                if member.starts:
                    member.poll()
            for number, client in enumerate(self._clients):
                if client.poll():
                    words = last_words(self._root / f"{CLIENTS[number]}.out")
                    raise ProcessFailed(f"{CLIENTS[number]} ended by itself\n{words}")
            await asyncio.sleep(0.05)

    def _end_all(self) -> None:
        for process in self._clients:
            process.kill()
            process.wait()
        for member in self.members:
            member.abandon()

    async def _work(self, rounds: Sequence[Sequence[Fault]]) -> Verdict:
        plan = self.plan
        nemesis = Nemesis(
            self.members,
            _MAY_LEAVE,
            CLIENTS,
            self._network,
            self._namespaces[OPERATOR],
            self._root,
            self.tell,
        )
        for member in self.members[:_FOUNDERS]:
            member.launch()
        for member in self.members[:_FOUNDERS]:
            await member.listening()
        for member in self.members[_FOUNDERS:]:
            member.launch()
            await member.listening()
        seconds = self._expected_s(rounds)
        self.tell(f"five members run; {summary_of(rounds)}, in about {seconds:.0f} s")
        self._start_clients(seconds)
        await nemesis.run(rounds, _CALM_S)
        self.tell("all faults are over")
        for process in self._clients:
            if process.stdin is not None:
                process.stdin.close()
        for name, process in zip(CLIENTS, self._clients, strict=True):
            code = await ended(process, f"client process {name}", plan.operations / 20 + 240.0)
            if code != 0:
                words = last_words(self._root / f"{name}.out")
                raise ProcessFailed(f"client process {name} failed\n{words}")
        self.tell("all clients have ended")
        types = await self._caught_up(nemesis)
        states = await self._states([m for m in self.members if types[m.address] != "reserve"])
        await self._stop()
        self.tell("all members have stopped; their logs are read")
        return judge(
            [self._root / f"{name}.jsonl" for name in CLIENTS],
            {one.name: (one.directory, int(one.report["commit_index"])) for one in self.members},
            states,
            summary_of(rounds),
            nemesis.changes,
        )

    def _expected_s(self, rounds: Sequence[Sequence[Fault]]) -> float:
        """For how long the faults will last: the longest of each round counts."""
        longest = [max(fault.after_s + fault.seconds for fault in one) for one in rounds]
        return sum(longest) + _CALM_S * len(rounds)

    def _start_clients(self, seconds: float) -> None:
        plan = self.plan
        for number, name in enumerate(CLIENTS):
            what = ClientPlan(
                number=number,
                processes=len(CLIENTS),
                workers=plan.workers // len(CLIENTS),
                operations=-(-plan.operations // len(CLIENTS)),
                seconds=seconds,
                seed=plan.seed,
                addresses=tuple(self._addresses.values()),
                output=str(self._root / f"{name}.jsonl"),
                parent=os.getpid(),
            )
            words = ["tests.chaos.client", msgspec.json.encode(what).decode()]
            output = self._root / f"{name}.out"
            self._clients.append(launch(self._namespaces[name], words, output))

    async def _caught_up(self, nemesis: Nemesis) -> dict[str, str]:
        """Wait until every member that has a log has applied what the leader had applied after
        the last command; the types of the members."""
        deadline = time.monotonic() + _HEALED_WITHIN_S
        while time.monotonic() < deadline:
            types = await nemesis.types()
            leaders = [one for one in self.members if one.state == "leader"]
            if len(types) == len(self.members) and leaders:
                target = max(leaders, key=_term).applied
                with_log = [one for one in self.members if types[one.address] != "reserve"]
                if target and all(one.applied >= target for one in with_log):
                    return types
            await asyncio.sleep(0.2)
        where = ", ".join(f"{one.name} {one.state} at {one.applied}" for one in self.members)
        raise ProcessFailed(f"not caught up {_HEALED_WITHIN_S:.0f} s after all faults: {where}")

    async def _states(self, members: Sequence[Member]) -> dict[str, list[object]]:
        """The whole state of each of these, by a sequential query in its own namespace."""
        asking = []
        for member in members:
            output = self._root / f"state-{member.name}.out"
            words = ["tests.chaos.states", member.address]
            errors = self._root / f"state-{member.name}.err"
            process = launch(self._namespaces[member.name], words, output, errors)
            asking.append((member, process, output))
        for member, _, output in asking:
            await until(_HasLine(output), f"a session at {member.name}", 120.0)
            session = int(output.read_text(encoding="ascii").split()[0])
            for other in members:
                await until(_HasApplied(other, session), f"{other.name} has applied", 120.0)
        states: dict[str, list[object]] = {}
        for member, process, output in asking:
            if process.stdin is not None:
                process.stdin.close()
            if await ended(process, f"the question to {member.name}", 120.0):
                words_of_end = last_words(self._root / f"state-{member.name}.err")
                raise ProcessFailed(f"{member.name} does not say its state\n{words_of_end}")
            states[member.name] = json.loads(output.read_text(encoding="ascii").splitlines()[1])
        return states

    async def _stop(self) -> None:
        """The followers first, then the leader, which else would hand over its leadership."""
        for member in sorted(self.members, key=_leads):
            await member.stop()


def _term(member: Member) -> int:
    return member.term


def _leads(member: Member) -> bool:
    return member.state == "leader"


class _HasLine:
    """Whether a file has a whole line."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __call__(self) -> bool:
        return "\n" in self._path.read_text(encoding="ascii")


class _HasApplied:
    """Whether a member has applied an entry."""

    def __init__(self, member: Member, index: int) -> None:
        self._member = member
        self._index = index

    def __call__(self) -> bool:
        return self._member.applied >= self._index
