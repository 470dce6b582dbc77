"""F29 in a server's threads: what the system has nothing left for waits, and no member stops."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from copycat.errors import DiskError, ResourceError
from copycat.server import workers
from copycat.server.workers import Mailbox, Worker


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "SHORTAGE_S", 0.0)


class Job:
    """Meets `shortages`, then is done."""

    def __init__(self, shortages: int) -> None:
        self.left = shortages
        self.runs = 0

    def __call__(self) -> str:
        self.runs += 1
        if self.left:
            self.left -= 1
            raise ResourceError("open x: Too many open files", errno=24)
        return "done"


def in_loop(scenario: Callable[[Mailbox], Awaitable[None]]) -> None:
    async def run() -> None:
        await scenario(Mailbox(asyncio.get_running_loop(), lambda: None))

    asyncio.run(asyncio.wait_for(run(), 30))


def test_a_job_is_done_when_there_is_what_it_needs() -> None:
    async def scenario(box: Mailbox) -> None:
        failed: list[Any] = []
        worker = Worker("w", box, failed.append, retries=True)
        result: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        job = Job(3)
        worker.run(job, result.set_result)
        assert await result == "done"
        assert (job.runs, failed) == (4, [])
        assert await worker.close(5.0)

    in_loop(scenario)


@pytest.mark.parametrize("retries", [True, False])
def test_another_failure_is_one_at_once(retries: bool) -> None:
    async def scenario(box: Mailbox) -> None:
        failed: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        worker = Worker("w", box, failed.set_result, retries=retries)
        cause = DiskError("EIO") if retries else ResourceError("no")

        def job() -> None:
            raise cause

        worker.run(job, failed.set_result)
        assert await failed is cause

    in_loop(scenario)


def test_a_worker_that_is_closed_waits_no_longer() -> None:
    async def scenario(box: Mailbox) -> None:
        failed: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        worker = Worker("w", box, failed.set_result, retries=True)
        worker.run(Job(1 << 60), failed.set_result)
        assert await worker.close(10.0)
        assert isinstance(await failed, ResourceError)

    in_loop(scenario)


@pytest.mark.parametrize("threads", [1, 3])
def test_jobs_wait_for_a_thread(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    start = threading.Thread.start
    refusals = [5]

    def refused(thread: threading.Thread) -> None:
        if thread.name == "w" and refusals[0]:
            refusals[0] -= 1
            raise RuntimeError("can't start new thread")
        start(thread)

    async def scenario(box: Mailbox) -> None:
        monkeypatch.setattr(threading.Thread, "start", refused)
        results: list[str] = []
        all_done = asyncio.Event()
        worker = Worker("w", box, results.append, threads=threads)

        def done(result: str) -> None:
            results.append(result)
            if len(results) == 4:
                all_done.set()

        for _ in range(4):
            worker.run(Job(0), done)
        await all_done.wait()
        assert results == ["done"] * 4
        assert await worker.close(5.0)

    in_loop(scenario)
    assert refusals == [0]
