"""A blocking client, or a member with a loop of its own, that gets no thread or no descriptor."""

from __future__ import annotations

import _thread
import asyncio
import errno
import gc
import threading
from pathlib import Path
from typing import Any

import pytest

from copycat import ResourceError, blocking
from tests.server.cluster import Book, free_address, run, server

pytestmark = pytest.mark.slow


def no_thread(*_: object, **__: object) -> Any:
    """What the standard library does at a limit of threads."""
    raise RuntimeError("can't start new thread")


def no_descriptor(*_: object, **__: object) -> Any:
    """What it does at a limit of descriptors."""
    raise OSError(errno.EMFILE, "Too many open files")


LACKS = [
    (_thread, "start_new_thread", no_thread, errno.EAGAIN),
    (threading.Thread, "start", no_thread, errno.EAGAIN),
    (asyncio, "new_event_loop", no_descriptor, errno.EMFILE),
]


@pytest.mark.parametrize(("where", "name", "fails", "number"), LACKS)
def test_a_blocking_client_says_what_was_lacking(
    where: Any,
    name: str,
    fails: Any,
    number: int,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    address, before = free_address(), set(threading.enumerate())
    gc.collect()  # futures of earlier tests, which nobody awaited, are logged here and not below
    caplog.clear()
    with monkeypatch.context() as patch:
        patch.setattr(where, name, fails)
        with pytest.raises(ResourceError) as caught:
            blocking.connect(address)
    assert caught.value.errno == number
    assert caught.value.hint
    assert not caplog.records
    began = [each for each in threading.enumerate() if each not in before]
    assert "copycat-client" not in [each.name for each in began], "other tests may have theirs"


@pytest.mark.parametrize(("where", "name", "fails", "number"), LACKS[1:])
def test_a_member_with_a_loop_of_its_own_is_started_when_there_is_one(
    where: Any, name: str, fails: Any, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        member = server(tmp_path / "one", free_address(), loop="thread")
        with monkeypatch.context() as patch:
            patch.setattr(where, name, fails)
            with pytest.raises(ResourceError) as caught:
                await member.bootstrap()
        assert caught.value.errno == number
        async with member:
            await member.bootstrap()
            async with member.client() as client:
                assert await client.submit(Book.add(1)) == 1

    run(scenario)
