"""An empty passive member catches up with 1 GiB of entries of 256 B, beside `cp` and `sendfile`.

Three voters, and passive members that joined before the log was filled and were stopped then, so
that they are as good as empty and the log is kept for them. A time begins when the process, which
has imported everything, begins to open its directory. Each round also copies the leader's sealed
segments, the same bytes, with `cp` plus an fsync of each, and sends them over loopback with
`sendfile` to a process that throws them away. `mb_per_s` is of those bytes: until they are on the
member's disk, and `applied_mb_per_s` until its machine has applied them.
"""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Iterator
from typing import Any

import pytest

from bench.cluster import Processes
from bench.copies import copy_s, sendfile_s
from bench.filled import ENTRIES, CatchUp, Filled, own_directory
from bench.foreground import Foreground
from bench.scale import SCALE, scaled

ROUNDS = scaled(3)
QUIET_S = max(0.3, 6.0 * SCALE)
GROUP = "an empty passive member catches up with 1 GiB"
DURABILITY = "fsync"
WINDOWS = (1, 64)


@pytest.fixture(scope="module")
def filled() -> Iterator[Filled]:
    with own_directory() as directory, Processes(directory, options=["--keep-log"]) as members:
        yield Filled(members, ROUNDS * (1 + 3 + len(WINDOWS)))


@pytest.mark.parametrize("count", [1, 3])
def bench_catchup(benchmark: Any, filled: Filled, count: int) -> None:
    """The rate is of each of `count` members that catch up at once, until the last one has all."""
    benchmark.group = GROUP
    benchmark.name = f"catchup[{count} at once]"
    catch_ups: list[CatchUp] = []
    copies: list[float] = []
    sends: list[float] = []

    def limits() -> None:
        with own_directory() as directory:
            copies.append(copy_s(filled.files, directory / "copy"))
        sends.append(sendfile_s(filled.files))

    def catch_up() -> None:
        catch_ups.append(asyncio.run(filled.catch_up(count)))

    def forget(*_: object) -> None:
        asyncio.run(filled.forget(catch_ups[-1].numbers))

    benchmark.pedantic(catch_up, setup=limits, teardown=forget, rounds=ROUNDS, iterations=1)
    nbytes = sum(path.stat().st_size for path in filled.files)
    benchmark.extra_info.update(_rates(catch_ups, nbytes, count), **_limits(copies, sends, nbytes))
    benchmark.extra_info.update(
        of_copy=_median([c / one.stored_s for c, one in zip(copies, catch_ups, strict=True)]),
        of_sendfile=_median([s / one.stored_s for s, one in zip(sends, catch_ups, strict=True)]),
    )
    print(f"\n{benchmark.name}: {benchmark.extra_info}")


def _rates(catch_ups: list[CatchUp], nbytes: int, count: int) -> dict[str, object]:
    entries = catch_ups[0].entries
    stored_s = _median([one.stored_s for one in catch_ups])
    applied_s = _median([one.applied_s for one in catch_ups])
    leader_s = _median([one.leader_cpu_s for one in catch_ups])
    receivers_s = _median([one.receivers_cpu_s for one in catch_ups])
    all_s = _median([one.all_cpu_s for one in catch_ups])
    return {
        "durability": DURABILITY,
        "entries": entries,
        "mb": round(nbytes / 1e6, 1),
        "mb_per_s": round(nbytes / stored_s / 1e6, 1),
        "applied_mb_per_s": round(nbytes / applied_s / 1e6, 1),
        "entries_per_s": round(entries / stored_s),
        "applied_entries_per_s": round(entries / applied_s),
        "first_entry_ms": round(_median([one.first_s for one in catch_ups]) * 1e3, 1),
        "leader_cpu_s": round(leader_s, 2),
        "receiver_cpu_s": round(receivers_s / count, 2),
        "cpu_s_per_1000": round(all_s * 1000 / (entries * count), 6),
    }


def _limits(copies: list[float], sends: list[float], nbytes: int) -> dict[str, object]:
    return {
        "copy_mb_per_s": round(nbytes / _median(copies) / 1e6, 1),
        "sendfile_mb_per_s": round(nbytes / _median(sends) / 1e6, 1),
    }


def _median(values: list[float]) -> float:
    return round(statistics.median(values), 5)


@pytest.mark.parametrize("window", WINDOWS)
def bench_catchup_foreground(benchmark: Any, filled: Filled, window: int) -> None:
    """A client with `window` commands in flight, without and with a member that catches up."""
    benchmark.group = "what clients notice of a catch-up of 1 GiB"
    benchmark.name = f"catchup_foreground[w={window}]"
    members = filled.processes
    rounds: list[tuple[dict[str, float], dict[str, float], float]] = []

    async def one_round() -> None:
        async with Foreground(members.addresses[:3], window) as load:
            await asyncio.sleep(QUIET_S / 4)
            begin = asyncio.get_running_loop().time()
            await asyncio.sleep(QUIET_S)
            quiet = load.between(begin, begin + QUIET_S)
            caught = await filled.catch_up()
            busy = load.between(caught.began, caught.ended)
        assert not load.failures, load.failures
        rounds.append((quiet, busy, caught.applied_s))
        await filled.forget(caught.numbers)

    def run() -> None:
        asyncio.run(one_round())

    benchmark.pedantic(run, rounds=ROUNDS, iterations=1)
    info: dict[str, object] = {"durability": DURABILITY}
    for name, at in (("", 0), ("busy_", 1)):
        for column in ("commands_per_s", "p50_us", "p99_us"):
            info[name + column] = _median([one[at][column] for one in rounds])
    info["rate_ratio"] = _median([b["commands_per_s"] / q["commands_per_s"] for q, b, _ in rounds])
    info["p99_ratio"] = _median([b["p99_us"] / q["p99_us"] for q, b, _ in rounds])
    info["catchup_s"] = _median([seconds for _, _, seconds in rounds])
    benchmark.extra_info.update(info)
    print(f"\n{benchmark.name}: {info}")


def bench_catchup_snapshot(benchmark: Any) -> None:
    """The same entries as the state of a machine that keeps them all: a snapshot, and no log.

    A cluster of one, for the state is in memory once for each member.
    """
    benchmark.group = GROUP
    benchmark.name = "catchup[with a snapshot]"
    catch_ups: list[CatchUp] = []
    copies: list[float] = []
    sends: list[float] = []
    options = ["--keep-log", "--store"]
    with own_directory() as directory, Processes(directory, count=1, options=options) as members:
        filled = Filled(members)
        taken_s = members.ask(0, "snapshot")["seconds"]
        files = sorted(members.directory(0).rglob("*.snap"))[-1:]
        nbytes = files[0].stat().st_size

        def limits() -> None:
            with own_directory() as beside:
                copies.append(copy_s(files, beside / "copy"))
            sends.append(sendfile_s(files))

        def catch_up() -> None:
            catch_ups.append(asyncio.run(filled.join()))
            assert catch_ups[-1].first_index > ENTRIES

        def forget(*_: object) -> None:
            asyncio.run(filled.forget(catch_ups[-1].numbers))

        benchmark.pedantic(catch_up, setup=limits, teardown=forget, rounds=ROUNDS, iterations=1)
    benchmark.extra_info.update(_rates(catch_ups, nbytes, 1), **_limits(copies, sends, nbytes))
    benchmark.extra_info.update(
        of_copy=_median([c / one.applied_s for c, one in zip(copies, catch_ups, strict=True)]),
        of_sendfile=_median([s / one.applied_s for s, one in zip(sends, catch_ups, strict=True)]),
        joined_ms=_median([one.started_s * 1e3 for one in catch_ups]),
        snapshot_taken_s=round(taken_s, 2),
    )
    print(f"\n{benchmark.name}: {benchmark.extra_info}")
