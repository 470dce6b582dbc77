"""F2 of a cluster of one: it refuses with what is lost, and an operator may accept the loss."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from copycat import ConfigurationError, CorruptLogError, Storage
from copycat.cli.main import tree
from copycat.errors import DirectoryInUseError
from copycat.member.markers import LOST_ENTRIES_FILE, UNSYNCED_ACKS_FILE, LostEntries
from copycat.member.recover import AUDIT_FILE, accept_loss, complete, plan
from copycat.member.verify import verify
from copycat.storage import Env
from copycat.storage.reader import entries
from copycat.types import EntryId
from tests.server.cluster import Book, free_address, run, server


def image(path: Path) -> dict[str, bytes]:
    """Every file but the lock: what a refusal must leave as it was."""
    return {
        str(file.relative_to(path)): file.read_bytes()
        for file in sorted(path.rglob("*"))
        if file.is_file() and file.name != "lock"
    }


def used(path: Path, count: int = 8) -> str:
    """A lone member applied `count` commands and stopped cleanly; its address."""
    address = free_address()

    async def scenario() -> None:
        async with server(path, address) as member:
            await member.bootstrap()
            async with member.client() as client:
                for number in range(count):
                    await client.submit(Book.add(number))

    run(scenario)
    return address


def rot(path: Path, back: int = 3) -> int:
    """Flip a byte in the payload of one of the last entries; its index."""
    victim = list(entries(path))[-back]
    file = Path(victim.path)
    data = bytearray(file.read_bytes())
    data[victim.offset + 33] ^= 0x40
    file.write_bytes(data)
    return victim.index


def recover(path: Path, *arguments: str) -> Result:
    return CliRunner().invoke(tree, ["recover", str(path), *arguments])


def started(path: Path, address: str, check: Callable[[list[int]], None]) -> None:
    async def scenario() -> None:
        async with server(path, address) as member:
            await member.bootstrap()
            async with member.client() as client:
                check(await client.submit(Book.all()))
                await client.submit(Book.add(99))
                assert (await client.submit(Book.all()))[-1] == 99

    run(scenario)


@pytest.mark.slow
def test_f2_a_member_alone_refuses_and_says_what_can_be_done(tmp_path: Path) -> None:
    path = tmp_path / "one"
    address = used(path)
    index = rot(path)
    before = image(path)

    async def scenario() -> None:
        member = server(path, address)
        with pytest.raises(CorruptLogError) as caught:
            await member.bootstrap()
        text = caught.value.render()
        assert f"--accept-loss-from {index}" in text
        assert "No other member votes, so no other copy counts" in text
        assert caught.value.index == index

    run(scenario)
    assert image(path) == before


@pytest.mark.slow
def test_f2_recover_keeps_what_is_before_the_damage(tmp_path: Path) -> None:
    path = tmp_path / "one"
    address = used(path)
    index = rot(path)
    damaged = image(path / "log")
    shown = recover(path, "--accept-loss-from", str(index))
    assert shown.exit_code == 1
    assert "nothing was changed" in shown.output
    assert image(path / "log") == damaged
    done = recover(path, "--accept-loss-from", str(index), "--cluster-name", "test", "--yes")
    assert done.exit_code == 0, done.output
    assert verify(path).last_index == index - 1
    (aside,) = path.glob("log-damaged-*")
    assert image(aside) == damaged, "the damaged log is kept as it was"
    (line,) = (path / AUDIT_FILE).read_text().splitlines()
    report = json.loads(line)
    assert report["index"] == index
    assert report["incarnation"] != report["new_incarnation"]
    started(path, address, lambda values: check_prefix(values, 8))


def check_prefix(values: list[int], count: int) -> None:
    assert values == list(range(len(values)))
    assert 0 < len(values) < count


@pytest.mark.slow
def test_recover_needs_the_clusters_name_and_a_stopped_member(tmp_path: Path) -> None:
    path = tmp_path / "one"
    used(path)
    index = rot(path)
    before = image(path)
    options = ["--accept-loss-from", str(index), "--yes"]
    assert isinstance(recover(path, *options).exception, ConfigurationError)
    wrong = recover(path, *options, "--cluster-name", "another")
    assert isinstance(wrong.exception, ConfigurationError)
    env = Env()
    lock = env.lock(str(path / "lock"))
    try:
        busy = recover(path, *options, "--cluster-name", "test")
        assert isinstance(busy.exception, DirectoryInUseError)
    finally:
        lock.close()
    assert image(path) == before


@pytest.mark.slow
def test_f2_a_cut_above_the_damage_or_outside_of_the_log_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "one"
    used(path)
    index = rot(path)
    with pytest.raises(CorruptLogError, match=f"entry {index}"):
        plan(Env(), str(path), index + 1)
    used(tmp_path / "whole")
    with pytest.raises(ConfigurationError, match="the log holds"):
        plan(Env(), str(tmp_path / "whole"), 10_000)
    with pytest.raises(ConfigurationError, match="no member's directory"):
        plan(Env(), str(tmp_path), 1)


@pytest.mark.slow
def test_f2_a_recovery_that_was_cut_between_its_renames_is_completed(tmp_path: Path) -> None:
    path = tmp_path / "one"
    address = used(path)
    index = rot(path)
    env = Env()
    accept_loss(env, plan(env, str(path), index), "test", 77)
    (path / "log").rename(path / "log-recovered-0000")

    async def scenario() -> None:
        with pytest.raises(CorruptLogError, match="an identity, but no log"):
            async with server(path, address) as member:
                await member.bootstrap()

    run(scenario)
    assert complete(env, str(path), "test")
    assert not complete(env, str(path), "test")
    started(path, address, lambda values: check_prefix(values, 8))


@pytest.mark.slow
def test_an_operator_may_accept_what_was_not_synced(tmp_path: Path) -> None:
    path = tmp_path / "one"
    used(path)
    whole = recover(path, "--accept-unsynced-loss", "--cluster-name", "test", "--yes")
    assert isinstance(whole.exception, ConfigurationError)
    (path / UNSYNCED_ACKS_FILE).write_text("os another-boot\n")
    assert recover(path, "--accept-unsynced-loss").exit_code == 1
    assert (path / UNSYNCED_ACKS_FILE).exists()
    done = recover(path, "--accept-unsynced-loss", "--cluster-name", "test", "--yes")
    assert done.exit_code == 0
    assert not (path / UNSYNCED_ACKS_FILE).exists()
    assert "accept-unsynced-loss" in (path / AUDIT_FILE).read_text()


@pytest.mark.slow
def test_f2_recover_keeps_gaps_and_a_log_that_begins_behind_a_snapshot(tmp_path: Path) -> None:
    path = tmp_path / "one"
    address = free_address()

    async def scenario() -> None:
        async with server(path, address, storage=small(path)) as member:
            await member.bootstrap()
            async with member.client() as client:
                for number in range(80):
                    await client.submit(Book.add(number))
                    if number in (30, 50):
                        await member.take_snapshot()
            assert member.status().first_index > 1

    run(scenario)
    first = verify(path).first_index
    assert first > 1
    index = rot(path, 4)
    done = recover(path, "--accept-loss-from", str(index), "--cluster-name", "test", "--yes")
    assert done.exit_code == 0, done.output
    report = verify(path)
    assert (report.first_index, report.last_index) == (first, index - 1)
    assert report.ok


def small(path: Path) -> Storage:
    return Storage(directory=str(path), max_segment_size=8192, max_entries_per_segment=10)


@pytest.mark.slow
def test_an_operator_may_accept_what_nobody_can_give_back(tmp_path: Path) -> None:
    path = tmp_path / "one"
    used(path)
    options = ("--accept-missing-entries", "--cluster-name", "test", "--yes")
    assert isinstance(recover(path, *options).exception, ConfigurationError)
    LostEntries(Env(), str(path), EntryId(1, 99), first_index=50, term=2).write()
    assert recover(path, "--accept-missing-entries").exit_code == 1
    assert (path / LOST_ENTRIES_FILE).exists()
    assert recover(path, *options).exit_code == 0
    assert not (path / LOST_ENTRIES_FILE).exists()
    assert "accept-missing-entries" in (path / AUDIT_FILE).read_text()
