"""`copycat serve`: runs one member in this process until a signal stops it."""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import signal
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from importlib.util import find_spec
from typing import Any, NamedTuple

import msgspec

from copycat import CopycatServer, StateMachine, Storage
from copycat.cli.app import machine_class, new_machine
from copycat.cli.output import Lines, logged_to, unhindered_output
from copycat.errors import ConfigurationError
from copycat.types import MemberType, ServerState

__all__ = ["ServeOptions", "run_serve", "storage_of"]

_PR_SET_PDEATHSIG = 1
_APPLIED_S = 0.1
"""How often the JSON output says up to which index this member has applied."""


class ServeOptions(NamedTuple):
    """The options of the command line.

    storage: from `storage_of`. parent: the id of a process; when that process ends, this one is
    killed. bind: the address to listen on; None for `address`. joins: members of a cluster to
    join, as a member of type `goal`.
    """

    address: str
    app: str
    members: tuple[str, ...]
    storage: Storage
    cluster_name: str
    as_json: bool
    parent: int | None
    bind: str | None = None
    insecure: bool = False
    log_level: str = "info"
    joins: tuple[str, ...] = ()
    goal: str = "active"
    rejoin: bool = True
    failure_domain: str = ""
    weight: int = 0


def run_serve(options: ServeOptions) -> int:
    """Run a member until SIGTERM, SIGINT or SIGHUP; returns 0 after a clean stop.

    Neither a reader of the output that has ended nor further signals change that.
    """
    if options.parent is not None and not _end_with_parent(options.parent):
        return 1
    with unhindered_output() as (out, errors):
        machine = machine_class(options.app)
        words = _EventPrinter(out if options.as_json else errors, as_json=options.as_json)
        stop = _Stop()  # until here, a signal ends the process at once (`copycat.__main__`)
        with logged_to(errors, options.log_level):
            _run(options, words, partial(new_machine, options.app, machine), stop)
        stop.ignore()
    return 0


def _run(
    options: ServeOptions, words: _EventPrinter, machine: Callable[[], StateMachine], stop: _Stop
) -> None:
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(_serve(options, words, machine, stop))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's, if it is installed; None for asyncio's own event loop."""
    if find_spec("uvloop") is None:
        return None
    import uvloop

    return uvloop.new_event_loop


def _end_with_parent(parent: int) -> bool:
    """Have the kernel kill this process when `parent` ends; False when `parent` has ended."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    return os.getppid() == parent


class _Stop:
    """Handles the signals that stop this process; repeated ones change nothing.

    The handlers of an event loop would end with the loop, which is too early.
    """

    def __init__(self) -> None:
        self.has_come = False
        self._event = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._numbers = [signal.SIGTERM, signal.SIGINT]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as `nohup` leaves it
            self._numbers.append(signal.SIGHUP)
        for number in self._numbers:
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: object) -> None:
        self.has_come = True
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._event.set)

    async def wait(self) -> None:
        """Wait for a signal; returns at once when one has arrived before."""
        self._loop = asyncio.get_running_loop()
        if not self.has_come:
            await self._event.wait()

    def ignore(self) -> None:
        """Ignore the signals from now on: at the end of the interpreter they would have their
        default effect, and kill the process."""
        for number in self._numbers:
            signal.signal(number, signal.SIG_IGN)


class _EventPrinter:
    """Prints the events of `serve`: as JSON lines for programs, as words for people."""

    def __init__(self, lines: Lines, *, as_json: bool) -> None:
        self._lines = lines
        self.as_json = as_json

    def say(self, event: str, **fields: Any) -> None:
        if self.as_json:
            self._lines.put(json.dumps({"event": event, "at": time.monotonic(), **fields}))
            return
        words = [event, *(f"{name} {value}" for name, value in fields.items())]
        self._lines.put("  ".join(words))


async def _serve(
    options: ServeOptions, words: _EventPrinter, machine: Callable[[], StateMachine], stop: _Stop
) -> None:
    server = CopycatServer(
        options.address,
        machine,
        cluster_name=options.cluster_name,
        storage=options.storage,
        bind=options.bind,
        failure_domain=options.failure_domain,
        weight=options.weight,
        insecure=options.insecure,
        rejoin=options.rejoin,
    )

    def on_state(state: ServerState) -> None:
        words.say("state", state=str(state), term=server.status().term)

    server.on_state_change(on_state)
    if stop.has_come:  # a signal came before the start: nothing is opened
        words.say("stopped")
        return
    async with server:
        if await _first(_started(server, options), stop):
            words.say(
                "listening",
                address=str(server.address),
                directory=server.storage.directory,
                durability=str(server.storage.durability),
            )
            printing = asyncio.create_task(_print_applied(server, words, every=_APPLIED_S))
            await _first(server.wait_stopped(), stop)
            printing.cancel()
    last = server.status()
    if not last.term:  # it was stopped before it had opened its log
        words.say("stopped")
        return
    words.say(
        "stopped", term=last.term, commit_index=last.commit_index, last_applied=last.last_applied
    )


async def _started(server: CopycatServer[Any], options: ServeOptions) -> None:
    if options.joins and options.members:
        raise ConfigurationError(
            "--member and --join exclude each other",
            hint="--member names the founders of a new cluster, --join a member of another one",
        )
    if options.joins:
        await server.join(*options.joins, type=MemberType(options.goal))
    else:
        await server.bootstrap(*options.members)


def storage_of(directory: str | None, config: str | None, *, keep_log: bool) -> Storage:
    """The settings in the file `config`.

    directory: replaces the directory in that file. keep_log: no snapshots and no compactions.
    """
    storage = Storage() if config is None else Storage.from_toml(config)
    changes: dict[str, Any] = {}
    if directory is not None:
        changes["directory"] = directory
    if keep_log:
        year = 365 * 86400.0
        changes["snapshot_threshold"] = 0
        changes["minor_compaction_interval"] = changes["major_compaction_interval"] = year
    return msgspec.structs.replace(storage, **changes)


async def _print_applied(
    server: CopycatServer[Any], words: _EventPrinter, *, every: float
) -> None:
    """Print again and again up to which index the member has applied; only with JSON output."""
    while words.as_json:
        words.say("applied", index=server.status().last_applied)
        await asyncio.sleep(every)


async def _first(work: Coroutine[Any, Any, object], stop: _Stop) -> bool:
    """Wait for `work` or a signal; True when `work` ended first. Raises what `work` raises."""
    working, stopping = asyncio.ensure_future(work), asyncio.ensure_future(stop.wait())
    await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if working.done():
        working.result()
        return True
    working.cancel()
    await asyncio.wait({working})
    return False
