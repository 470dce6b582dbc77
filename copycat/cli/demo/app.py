"""`copycat demo`: a small cluster, lines of text, a SIGKILL half-way, and proof from the disks."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from copycat import ConsistencyLevel, CopycatClient
from copycat.cli.demo.changes import Joined, join, replace
from copycat.cli.demo.drive import Drive
from copycat.cli.demo.lines import LineLog, chain_of, check_lines, read_lines
from copycat.cli.demo.member import MemberFailed, MemberProcess
from copycat.cli.demo.proof import ProofError, prove_same_states
from copycat.cli.formatting import file_system_of
from copycat.cli.progress import progress, say
from copycat.errors import CopycatError

__all__ = ["DemoOptions", "run_demo"]

_FOUNDERS = ("n1", "n2", "n3")
_WARM = "n4"
"""A passive member from the beginning, which gets the vote of the member that is killed."""
_COLD = "n5"
"""It joins with an empty directory while the load runs."""
_LEADER_WITHIN_S = 30.0
_CAUGHT_UP_WITHIN_S = 60.0
_CLOSE_WITHIN_S = 2.0
_SESSION_TIMEOUT_S = 30.0  # on a loaded machine a process may not run for seconds


class DemoOptions(NamedTuple):
    """The options of the command line.

    file: the input; None for the .py files of the standard library. directory: of the members;
    None for a new one. window: how many commands may wait for replies. keep: do not delete it.
    """

    file: Path | None
    directory: Path | None
    window: int
    keep: bool


class _Killed(NamedTuple):
    """The kill of a leader, and what followed; `replaced_s` after the kill the warm member had
    its vote."""

    member: MemberProcess
    without_leader_s: float | None
    replaced_s: float
    joined: Joined


def run_demo(options: DemoOptions) -> int:
    """Run the demo: 0 when everything is proved, 4 when something is not, 1 after a failure."""
    lines = read_lines(options.file)
    if not lines:
        say(f"error[no-input]: {options.file} has no lines; nothing was started")
        return 2
    check_lines(lines)
    root = _root(options)
    try:
        asyncio.run(_Demo(options, lines, root).run())
    except ProofError as cause:
        say(f"{cause}\n  all files are kept in {root}")
        return 4
    except MemberFailed as cause:
        say(f"error[member-failed]: {cause}\n  all files are kept in {root}")
        return 1
    except KeyboardInterrupt:
        say(f"interrupted; every process was ended; {root} is kept")
        return 130
    if options.directory is None and not options.keep:
        shutil.rmtree(root)
    else:
        say(f"the members' directories are kept in {root}")
    return 0


def _root(options: DemoOptions) -> Path:
    """Make a new directory, so that the cluster starts without old files.

    It is in the working directory, since /tmp is often in memory, where a sync proves nothing.
    """
    if options.directory is not None:
        options.directory.mkdir(parents=True, exist_ok=False)
        return options.directory.resolve()
    base = Path(".copycat").resolve()
    base.mkdir(exist_ok=True)
    return Path(tempfile.mkdtemp(prefix="demo-", dir=base))


def _free_addresses(count: int) -> list[str]:
    """Addresses of free loopback ports; all are opened at once, so that they differ."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    addresses = [f"127.0.0.1:{one.getsockname()[1]}" for one in sockets]
    for one in sockets:
        one.close()
    return addresses


class _Demo:
    def __init__(self, options: DemoOptions, lines: list[bytes], root: Path) -> None:
        self.options = options
        self.lines = lines
        self.root = root
        *founders, warm, cold = _free_addresses(len(_FOUNDERS) + 2)
        listed = [word for address in founders for word in ("--member", address)]
        joining = [word for address in founders for word in ("--join", address)]
        joining += ["--type", "passive"]
        self.members = [
            MemberProcess(name, address, listed, root)
            for name, address in zip(_FOUNDERS, founders, strict=True)
        ]
        self.warm = MemberProcess(_WARM, warm, joining, root)
        self.cold = MemberProcess(_COLD, cold, joining, root)
        self.members += [self.warm, self.cold]

    async def run(self) -> None:
        """Run the demo; raises MemberFailed as soon as a member ends by itself."""
        failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        for member in self.members:
            member.on_failure = partial(_fail, failure)
        work = asyncio.create_task(self._run())
        try:
            await asyncio.wait({work, failure}, return_when=asyncio.FIRST_COMPLETED)
            if failure.done():
                failure.result()
            await work
        finally:
            work.cancel()
            failure.cancel()
            for member in self.members:
                member.abandon()
            await asyncio.wait({work})

    async def _run(self) -> None:
        size = sum(map(len, self.lines))
        source = self.options.file or "the standard library of this Python"
        say(f"{len(self.lines):,} lines ({size / 1e6:,.1f} MB) of {source}")
        running = [member for member in self.members if member is not self.cold]
        founders = [member for member in running if member is not self.warm]
        await asyncio.gather(*(member.start() for member in founders))
        await self.warm.start()
        leader = await self._leader()
        for member in running:
            say(f"  {member.name}  {member.address}  pid {member.pid}  {member.directory}")
        say(f"{_WARM} is a passive member: it has the log, and no vote")
        say(f"{leader.name} leads term {leader.term}; durability {self._durability()}")
        drive, killed, seconds = await self._load()
        await self._caught_up()
        states = await self._states()
        await self._stop()
        say("stopped cleanly; a separate process now reads the five logs from disk")
        verdict = await self._verify()
        prove_same_states(states, len(self.lines), chain_of(self.lines))
        self._report(drive, killed, seconds, verdict)

    def _durability(self) -> str:
        modes = {member.durability for member in self.members if member.durability}
        return f"{', '.join(sorted(modes))} on {file_system_of(self.root)}"

    async def _leader(self, above_term: int = 0) -> MemberProcess:
        """The member that leads the highest term above `above_term`. MemberFailed when none
        does."""
        deadline = time.monotonic() + _LEADER_WITHIN_S
        while time.monotonic() < deadline:
            leaders = [
                member
                for member in self.members
                if member.state == "leader" and member.term > above_term
            ]
            if leaders:
                return max(leaders, key=lambda member: member.term)
            await asyncio.sleep(0.005)
        raise MemberFailed(f"no member led a term above {above_term} in {_LEADER_WITHIN_S:.0f} s")

    async def _load(self) -> tuple[Drive, _Killed, float]:
        total = len(self.lines)
        addresses = [member.address for member in self.members if member.pid]
        half = asyncio.Event()
        with progress("lines", total) as (advance, tell):

            def on_count(done: int) -> None:
                advance(done)
                if 2 * done >= total:
                    half.set()

            async with _client(*addresses) as client:
                drive = Drive(client, self.lines, self.options.window, on_count=on_count)
                killer = asyncio.create_task(self._change_members(half, drive, tell))
                killer.add_done_callback(_tell_failure(drive))
                started = time.monotonic()
                try:
                    await drive.run()
                    seconds = time.monotonic() - started
                    killed = await killer
                finally:
                    killer.cancel()
        return drive, killed, seconds

    async def _change_members(
        self, half: asyncio.Event, drive: Drive, tell: Callable[[str], None]
    ) -> _Killed:
        """Kill the leader half-way, and give its vote to the warm member; have the cold one join;
        and restart the one that was killed."""
        await half.wait()
        victim = await self._leader()
        term = victim.term
        at = await victim.kill()
        drive.release()
        tell(f"SIGKILL to {victim.name}, leader of term {term}, at {drive.acknowledged:,} lines")
        successor = await self._leader(above_term=term)
        since = successor.leader_since or at
        answered = drive.first_acknowledged_after(since)
        while answered is None and drive.acknowledged < len(self.lines):
            await asyncio.sleep(0.005)
            answered = drive.first_acknowledged_after(since)
        without = None if answered is None else answered - at
        tell(f"{successor.name} leads term {successor.term}")
        places = [one.address for one in self.members if one is not victim and one.pid]
        replaced_s = await replace(places, victim.address, self.warm.address) - at
        tell(f"{_WARM} is active in place of {victim.name}, which is passive now")
        joined = await join(self.cold, self._leader, drive)
        tell(f"{_COLD} has joined as passive (pid {self.cold.pid}), and has caught up")
        await victim.start()
        tell(f"{victim.name} runs again on its old directory (pid {victim.pid}), as passive")
        return _Killed(victim, without, replaced_s, joined)

    async def _caught_up(self) -> None:
        """Wait until each member has applied all that the leader has applied now."""
        loaded_at = time.monotonic()
        deadline = loaded_at + _CAUGHT_UP_WITHIN_S
        while time.monotonic() < deadline:
            reported_at, least_index = (await self._leader()).applied
            if reported_at > loaded_at and all(m.applied[1] >= least_index for m in self.members):
                return
            await asyncio.sleep(0.02)
        where = ", ".join(f"{m.name} at {m.applied[1]}" for m in self.members)
        raise MemberFailed(f"not caught up in {_CAUGHT_UP_WITHIN_S:.0f} s: {where}")

    async def _states(self) -> dict[str, tuple[int, bytes]]:
        """The state of each member, by a sequential query to that member.

        A member that does not know the session yet forwards the query, so all members must have
        caught up with the entries that open the sessions.
        """
        states: dict[str, tuple[int, bytes]] = {}
        async with AsyncExitStack() as stack:
            clients = {
                member.name: await stack.enter_async_context(
                    CopycatClient(member.address, session_timeout=_SESSION_TIMEOUT_S)
                )
                for member in self.members
            }
            await self._caught_up()
            for name, client in clients.items():
                states[name] = await client.submit(
                    LineLog.summary(), consistency=ConsistencyLevel.SEQUENTIAL
                )
        return states

    async def _stop(self) -> None:
        """Stop the followers, then the leader, which else would transfer leadership to one of
        them."""
        leader = await self._leader()
        for member in self.members:
            if member is not leader:
                await member.stop()
        await leader.stop()

    async def _verify(self) -> dict[str, Any]:
        arguments = ["-m", "copycat.cli.demo.verify"]
        for member in self.members:
            commit_index = member.report["commit_index"]
            arguments += ["--member", member.name, str(member.directory), str(commit_index)]
        if self.options.file is not None:
            arguments += ["--file", str(self.options.file)]
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *arguments,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            output, words = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
        verdict = json.loads(output) if output.strip() else {}
        if process.returncode != 0:
            raise ProofError(
                verdict.get("what", words.decode(errors="replace")),
                member=verdict.get("member", "verifier"),
                index=verdict.get("index", 0),
                expected=verdict.get("expected", "exit code 0"),
                actual=verdict.get("actual", f"exit code {process.returncode}"),
            )
        return dict(verdict)

    def _report(
        self, drive: Drive, killed: _Killed, seconds: float, verdict: dict[str, Any]
    ) -> None:
        total, latencies = len(self.lines), drive.latencies()
        gap = "no line was left to send: use a longer input"
        if killed.without_leader_s is not None:
            gap = (
                f"{killed.without_leader_s * 1e3:,.0f} ms from SIGKILL of {killed.member.name}"
                " to the next acknowledged command"
            )
        joined, name = killed.joined, killed.member.name
        p50, p99 = (latencies[int(share * (total - 1))] * 1e3 for share in (0.5, 0.99))
        print(
            f"commands per second {total / seconds:,.0f}  ({total:,} in {seconds:.1f} s, one"
            f" client, at most {self.options.window:,} in flight)\n"
            f"latency             p50 {p50:.1f} ms, p99 {p99:.1f} ms\n"
            f"without a leader    {gap}\n"
            f"voter replaced      {killed.replaced_s * 1e3:,.0f} ms from SIGKILL of {name} until"
            f" {_WARM}, which was passive, had its vote\n"
            f"member added        {joined.name} joined with an empty directory"
            f" {joined.member_s * 1e3:,.0f} ms after its start, and had\n"
            f"                    caught up, as far as entry {joined.last_applied:,}, after"
            f" {joined.caught_up_s * 1e3:,.0f} ms;\n"
            f"                    {joined.lines:,} lines were acknowledged meanwhile\n"
            f"durability          {self._durability()}\n"
            f"proved              each of {total:,} lines applied exactly once and in order;\n"
            f"                    the states of {', '.join(m.name for m in self.members)} equal"
            f" (chain {verdict['chain'][:16]}…);\n"
            f"                    their logs byte-identical, entry by entry, up to commit"
            f" index {verdict['commit_index']:,}"
            f"{_beginnings(verdict['first_index'])}"
        )


def _beginnings(first: dict[str, int]) -> str:
    """Where logs begin that do not begin at entry 1: a snapshot was sent in place of it."""
    late = [f"{name} at entry {index:,}" for name, index in first.items() if index > 1]
    if not late:
        return ""
    return f";\n                    logs that begin behind a snapshot: {', '.join(late)}"


@asynccontextmanager
async def _client(*addresses: str) -> AsyncIterator[CopycatClient]:
    """A connected client. An error in the block is raised, and not one of the close after it."""
    client = CopycatClient(*addresses, session_timeout=_SESSION_TIMEOUT_S)
    await client.connect()
    try:
        yield client
    except BaseException:
        with suppress(CopycatError, TimeoutError):
            await asyncio.wait_for(client.close(), _CLOSE_WITHIN_S)
        raise
    await client.close()


def _fail(failure: asyncio.Future[None], cause: BaseException) -> None:
    if not failure.done():
        failure.set_exception(cause)


def _tell_failure(drive: Drive) -> Callable[[asyncio.Task[_Killed]], None]:
    def done(task: asyncio.Task[_Killed]) -> None:
        if not task.cancelled() and (cause := task.exception()) is not None:
            drive.fail(cause)

    return done
