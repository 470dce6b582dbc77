"""F2, F3, F11, F17 of a member with others: it fetches what its disk lost, end to end."""

from __future__ import annotations

import asyncio
import errno
import logging
import shutil
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, NoReturn

import pytest

from copycat import CopycatClient, CopycatServer, CorruptLogError, DiskError
from copycat.cli.cluster.app import ClusterOptions, run_cluster
from copycat.member.markers import LOST_ENTRIES_FILE, NOTE_FILE
from copycat.member.recover import accept_lost_entries
from copycat.member.verify import verify
from copycat.server import startup
from copycat.storage import Env
from copycat.storage.reader import compare, entries, segments
from tests.server.cluster import Book, Trio, run

SMALL = {"max_segment_size": 8192, "max_entries_per_segment": 20}


def flip(path: Path, index: int) -> None:
    """One bit of an entry's payload, in whichever file it is."""
    victim = next(entries(path, index))
    assert victim.index == index
    file = Path(victim.path)
    data = bytearray(file.read_bytes())
    data[victim.offset + 33] ^= 0x40
    file.write_bytes(data)


Damage = Callable[[Path], None]


async def trio_of(tmp_path: Path, stack: AsyncExitStack, count: int = 120) -> Trio:
    trio = Trio(tmp_path, stack, **SMALL)
    await trio.start()
    async with CopycatClient(*trio.addresses) as client:
        for number in range(count):
            await client.submit(Book.add(number))
    await trio.all_applied()
    return trio


def directory_of(member: CopycatServer[Book]) -> Path:
    return Path(member.storage.directory)


async def check_equal(trio: Trio, count: int) -> None:
    """Everybody runs, has all commands once, and the same bytes; the loss is forgotten."""
    async with CopycatClient(*trio.addresses) as client:
        await client.submit(Book.add(count))
    await trio.all_applied()
    paths = [directory_of(member) for member in trio.running]
    assert len(paths) == 3
    for member in trio.running:
        assert member.state_machine.entries == list(range(count + 1))
    last = min(member.status().last_applied for member in trio.running)
    first = max(next(iter(segments(path))).first_index for path in paths)
    assert compare(paths, last, first=first) is None
    await trio.until(lambda: not any((path / LOST_ENTRIES_FILE).exists() for path in paths))
    assert all(member.status().missing_entries == "" for member in trio.running)
    for member in trio.running:
        await member.shutdown()
    for path in paths:
        report = verify(path)
        assert report.ok, report.damage


def scenario(tmp_path: Path, damage: Damage) -> Callable[[], Coroutine[Any, Any, None]]:
    async def play() -> None:
        async with AsyncExitStack() as stack:
            trio = await trio_of(tmp_path, stack)
            away = trio.followers[0]
            await away.shutdown()
            damage(directory_of(away))
            await trio.start(str(away.address))
            await check_equal(trio, 120)

    return play


def in_three_places(path: Path) -> None:
    rows = segments(path)
    flip(path, 30)
    flip(path, rows[-1].first_index + 2)
    (path / "log" / rows[2].name).unlink()


def lose_the_tail(path: Path) -> None:
    (path / "log" / segments(path)[-1].name).unlink()


def lose_the_log(path: Path) -> None:
    for file in (path / "log").glob("*.*"):
        file.unlink()
    (path / "log" / "manifest").unlink()


@pytest.mark.slow
@pytest.mark.parametrize("damage", [in_three_places, lose_the_tail, lose_the_log])
def test_f2_f3_it_repairs_its_log_from_the_others(tmp_path: Path, damage: Damage) -> None:
    run(scenario(tmp_path, damage))


@pytest.mark.slow
def test_f11_damage_that_a_replay_meets_stops_it_and_the_next_start_repairs(
    tmp_path: Path,
) -> None:
    async def play() -> None:
        async with AsyncExitStack() as stack:
            trio = await trio_of(tmp_path, stack)
            away = trio.followers[0]
            await away.shutdown()
            path = directory_of(away)
            flip(path, 60)
            before = [row.name for row in segments(path)]
            await trio.start(str(away.address))
            broken = trio.servers[str(away.address)]
            with pytest.raises(CorruptLogError) as caught:
                await broken.wait_stopped()
            assert caught.value.index == 60
            text = caught.value.render()
            assert "start it again: it will fetch entries 60 to" in text
            assert (path / NOTE_FILE).exists()
            assert {row.name for row in segments(path)} >= set(before), "nothing was changed"
            await trio.start(str(away.address))
            await check_equal(trio, 120)

    run(play)


@pytest.mark.slow
def test_f11_damage_that_a_start_meets_is_repaired_by_the_next(tmp_path: Path) -> None:
    """The first entries tell who is a member: they are read before the member runs."""

    async def play() -> None:
        async with AsyncExitStack() as stack:
            trio = await trio_of(tmp_path, stack)
            away = trio.followers[0]
            await away.shutdown()
            path = directory_of(away)
            flip(path, 3)
            with pytest.raises(CorruptLogError) as caught:
                await trio.start(str(away.address))
            assert "start it again: it will fetch entries 3 to" in caught.value.render()
            assert (path / NOTE_FILE).exists()
            await trio.start(str(away.address))
            await check_equal(trio, 120)

    run(play)


@pytest.mark.slow
def test_f11_a_sector_that_a_start_cannot_read_is_repaired_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def play() -> None:
        async with AsyncExitStack() as stack:
            trio = await trio_of(tmp_path, stack)
            away = trio.followers[0]
            await away.shutdown()
            file = f"{directory_of(away)}/log/1-1.log"

            def replay(*_: object) -> NoReturn:
                raise DiskError(f"read {file}", path=file, operation="read", errno=errno.EIO)

            with monkeypatch.context() as patched:
                patched.setattr(startup, "_replica", replay)
                with pytest.raises(CorruptLogError) as caught:
                    await trio.start(str(away.address))
            assert "start it again: it will fetch entries 1 to" in caught.value.render()
            assert (directory_of(away) / NOTE_FILE).exists()
            await trio.start(str(away.address))
            await check_equal(trio, 120)

    run(play)


@pytest.mark.slow
def test_f17_without_a_good_snapshot_it_is_sent_one(tmp_path: Path) -> None:
    async def play() -> None:
        async with AsyncExitStack() as stack:
            trio = await trio_of(tmp_path, stack)
            away = trio.followers[0]
            for _ in range(2):
                for member in trio.running:
                    await member.take_snapshot()
                async with CopycatClient(*trio.addresses) as client:
                    await client.submit(Book.add(len(trio.leader.state_machine.entries)))
                await trio.all_applied()
            path = directory_of(away)
            await trio.until(lambda: away.status().first_index > 1)
            await away.shutdown()
            for file in (path / "snapshots").glob("*.snap"):
                data = bytearray(file.read_bytes())
                data[-9] ^= 1
                file.write_bytes(data)
            await trio.start(str(away.address))
            await check_equal(trio, 122)
            assert list((path / "snapshots").glob("*.snap.bad"))

    run(play)


@pytest.mark.slow
def test_c12_one_gone_and_one_damaged_wait_for_their_operator(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two losses of three voters: the entries that both had are lost, and both members that are
    left say what they wait for. When their operator accepts the loss, they go on."""

    async def play() -> None:
        async with AsyncExitStack() as stack:
            trio = await trio_of(tmp_path, stack)
            whole, (absent, damaged) = trio.followers[0], [trio.leader, trio.followers[1]]
            await whole.shutdown()
            async with CopycatClient(*trio.addresses) as client:
                for number in range(120, 156):
                    await client.submit(Book.add(number))
            await absent.shutdown()
            await damaged.shutdown()
            shutil.rmtree(directory_of(absent))
            path = directory_of(damaged)
            lose_the_tail(path)
            left = [str(whole.address), str(damaged.address)]
            starting = asyncio.create_task(trio.start(*left))
            wait = f"it waits for {absent.address}, which it cannot reach"
            command = f"run: copycat recover {path} --accept-missing-entries"
            with caplog.at_level(logging.WARNING):
                await trio.until(lambda: f"{wait}, to come back" in caplog.text)
            assert command in caplog.text
            assert f"; {absent.address}: connection refused" in caplog.text
            asker = ClusterOptions((left[0],))
            assert await asyncio.to_thread(run_cluster, "status", asker) == 3
            out = capsys.readouterr().out
            assert "no leader · quorum 2 of 3, 2 reachable, writes are paused until" in out
            assert f"{damaged.address}: {damaged.address} misses entries from 161 on" in out
            assert wait in out
            assert command in out
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)
            accept_lost_entries(Env(), str(path), "test")
            await trio.start(*left)
            async with CopycatClient(*left) as client:
                await client.submit(Book.add(1_000))
                result = await client.submit(Book.all())
            assert result[:120] == list(range(120))
            assert result[-1] == 1_000

    run(play)


@pytest.mark.slow
def test_f3_all_members_suspect_say_so_and_nothing_is_discarded(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def play() -> None:
        async with AsyncExitStack() as stack:
            trio = await trio_of(tmp_path, stack)
            paths = [directory_of(member) for member in trio.running]
            for member in list(trio.running):
                await member.shutdown()
            for path in paths:
                (path / "log" / segments(path)[1].name).unlink()
            starting = asyncio.create_task(trio.start())
            with caplog.at_level(logging.WARNING):
                await trio.until(
                    lambda: len(trio.running) == 3 and caplog.text.count("were damaged on") >= 3
                )
            assert not starting.done()
            for member in trio.running:
                status = member.status()
                assert status.missing_entries.startswith("entries 21 to 12")
                assert not status.leader
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)
            for path in paths:
                assert verify(path).last_index == 20
                assert len(list(path.glob("log-damaged-1/*.log"))) >= 5

    run(play)
