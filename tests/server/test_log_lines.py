"""What a member says in the log: who leads, a quorum lost and found, whom it waits for, why."""

from __future__ import annotations

import asyncio
import logging
import re
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from copycat import ApplicationError, Compaction
from copycat.raft.configuration import Configuration, MemberRecord
from copycat.raft.eligibility import NEVER, Eligibility
from copycat.server import node
from copycat.server.refusal_log import KNOWN_MAX, REASONS_MAX, RefusalLog
from copycat.server.status_log import waiting_text
from copycat.types import EntryId, MemberId, MemberType
from tests.server.cluster import Book, free_address, run, server, trio


def lines(caplog: pytest.LogCaptureFixture, words: str) -> list[str]:
    return [r.getMessage() for r in caplog.records if words in r.getMessage()]


async def logged_lines(caplog: pytest.LogCaptureFixture, words: str, count: int = 1) -> list[str]:
    """Wait until so many lines hold these words; every test is bounded by `run`."""
    while len(matches := lines(caplog, words)) < count:  # noqa: ASYNC110  (no event of its own)
        await asyncio.sleep(0.01)
    return matches


@pytest.mark.slow
def test_who_leads_and_a_quorum_that_is_lost_and_found(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with trio(tmp_path) as cluster:
            await cluster.all_applied()
            leader = str(cluster.leader.address)
            for member in cluster.servers:
                since = rf"{member}: {leader} leads since \d{{4}}-\d\d-\d\d .*, in term \d+"
                assert any(re.match(since, line) for line in lines(caplog, "leads since")), member
            first, second = cluster.followers
            await first.shutdown()
            await second.shutdown()
            (line,) = await logged_lines(caplog, f"{leader}: the quorum is lost")
            assert "1 of 3 members reachable, 2 needed" in line
            assert str(first.address) in line
            assert str(second.address) in line
            await cluster.start(str(first.address))
            await logged_lines(caplog, f"{leader}: the quorum is back after")
            await logged_lines(caplog, f"{leader}: no leader is known; the leader of term")

    with caplog.at_level(logging.INFO, "copycat"):
        run(scenario)


@pytest.mark.slow
def test_who_refuses_is_named_and_a_refusal_is_logged_once_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(node, "WAITING_LOG_S", 0.5)

    async def scenario() -> None:
        one, two = free_address(), free_address()
        async with AsyncExitStack() as stack:
            first = await stack.enter_async_context(server(tmp_path / "one", one))
            second = await stack.enter_async_context(
                server(tmp_path / "two", two, election_timeout=0.31, heartbeat_interval=0.06)
            )
            starting = [
                asyncio.create_task(first.bootstrap(two)),
                asyncio.create_task(second.bootstrap(one, "127.0.0.1:9")),
            ]
            waits = f"{one}: waiting for 1 of {two} (need 2 of 2): {two}: it refused this member"
            await logged_lines(caplog, waits)
            counted = re.compile(r"\(([2-9]|\d\d+) times\)")
            while not counted.search(lines(caplog, waits)[-1]):  # noqa: ASYNC110  (as `said`)
                await asyncio.sleep(0.01)
            refused = [r for r in caplog.records if r.getMessage().startswith("refused the peer")]
            first_times = [r for r in refused if "times by now" not in r.getMessage()]
            assert len(first_times) == 2, "one for each of the two"
            for task in starting:
                task.cancel()
            await asyncio.wait(starting)

    with caplog.at_level(logging.WARNING, "copycat"):
        run(scenario)


def test_refusals_are_counted_and_bounded(caplog: pytest.LogCaptureFixture) -> None:
    refusals = RefusalLog()
    for number in range(100):
        refusals.record("refused the peer at", f"10.0.0.1:{40000 + number}", "another cluster")
    assert [record.getMessage() for record in caplog.records] == [
        "refused the peer at 10.0.0.1:40000: another cluster",
        "refused the peer at 10.0.0.1:40009: another cluster (10 times by now)",
        "refused the peer at 10.0.0.1:40099: another cluster (100 times by now)",
    ]
    assert refusals.all() == ["refused the peer at 10.0.0.1: another cluster (100 times)"]
    for number in range(2 * KNOWN_MAX):
        refusals.record("refused the peer at", f"10.1.{number // 256}.{number % 256}:1", "unknown")
    assert len(refusals.all()) == KNOWN_MAX


def test_a_stranger_that_sends_something_else_each_time_does_not_fill_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    refusals = RefusalLog()
    for number in range(1000):
        refusals.record("closed the connection from", f"10.0.0.1:{number}", f"frame type {number}")
    refusals.record("refused the peer at", "10.0.0.1:1", "another cluster")
    refusals.record("closed the connection from", "10.0.0.2:1", "frame type 7")
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == REASONS_MAX + 3 + 2  # the others: the first, the 10th, the 100th
    assert lines[REASONS_MAX + 1 :] == [
        "closed the connection from 10.0.0.1:41: frame type 41 (10 times by now)",
        "closed the connection from 10.0.0.1:131: frame type 131 (100 times by now)",
        "refused the peer at 10.0.0.1:1: another cluster",
        "closed the connection from 10.0.0.2:1: frame type 7",
    ]
    assert "closed the connection from 10.0.0.1: other reasons (968 times)" in refusals.all()


def test_whom_a_member_waits_for() -> None:
    founders = Configuration.bootstrap(
        {MemberId(n): f"{name}:1" for n, name in enumerate("abc", 1)}
    )
    unlinked = {"b:1": "Connection refused", "c:1": "not tried yet"}
    assert waiting_text(founders, unlinked) == (
        "waiting for 1 of b:1, c:1 (need 2 of 3): b:1: Connection refused; c:1: not tried yet"
    )
    assert not waiting_text(founders, {"c:1": "Connection refused"})


def test_a_member_waits_for_voters_only() -> None:
    configuration = Configuration.from_members(
        MemberRecord(MemberId(n), MemberType.ACTIVE if n <= 3 else MemberType.PASSIVE, f"{name}:1")
        for n, name in enumerate("abcxyz", 1)
    )
    assert not waiting_text(configuration, dict.fromkeys(["c:1", "x:1", "y:1", "z:1"], "refused"))
    assert waiting_text(configuration, dict.fromkeys(["b:1", "c:1", "x:1"], "refused")) == (
        "waiting for 1 of b:1, c:1 (need 2 of 3): b:1: refused; c:1: refused"
    )


@pytest.mark.slow
def test_snapshots_compactions_and_tracebacks_are_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with server(tmp_path / "one", free_address()) as member:
            await member.bootstrap()
            async with member.client() as client:
                for _ in range(3):
                    with pytest.raises(ApplicationError):
                        await client.submit(Book.fail("odd"))
            await member.take_snapshot()
            await member.compact(Compaction.MINOR)
        assert re.search(r"a snapshot of \d+ entries was written: \d+ bytes in", caplog.text)
        raised = [r for r in caplog.records if "a handler raised at entry" in r.getMessage()]
        assert len(raised) == 1, "one kind at one place is logged once"
        assert raised[0].exc_info
        assert "raise ValueError(text)" in caplog.text

    with caplog.at_level(logging.INFO, "copycat"):
        run(scenario)


@pytest.mark.slow
def test_elections_that_do_not_end_are_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both that are left hear each other, and neither votes for the other."""

    async def scenario() -> None:
        async with trio(tmp_path) as cluster:
            await cluster.all_applied()
            leader, (first, second) = cluster.leader, cluster.followers
            monkeypatch.setattr(Eligibility, "vote_floor", _never)
            await leader.shutdown()
            for member in (first, second):
                words = f"{member.address}: no leader is elected although a majority is reachable"
                (line,) = await logged_lines(caplog, words)
                assert f"; unreachable: {leader.address} (connection refused" in line
                assert f"copycat cluster status {member.address} says which" in line

    run(scenario)


def _never(_eligibility: Eligibility, _last: EntryId) -> EntryId:
    return NEVER
