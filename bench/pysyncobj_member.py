"""PySyncObj under the same orders as bench.member. Its journal is never fsynced: not durable."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable

from pysyncobj import SyncObj, SyncObjConf, replicated

from bench.load import summary

PAYLOAD = bytes(256)


class Sink(SyncObj):  # type: ignore[misc]
    def __init__(self, address: str, partners: list[str], journal: str) -> None:
        conf = SyncObjConf(journalFile=journal, appendEntriesUseBatch=False)
        super().__init__(address, partners, conf)
        self.total = 0

    @replicated  # type: ignore[untyped-decorator]
    def put(self, data: bytes) -> int:
        self.total += 1
        return self.total


class Loop:
    """A closed loop by callbacks: a command that was answered, or failed, is replaced by the
    next, until `goes_on` says no."""

    def __init__(self, sink: Sink, window: int, goes_on: Callable[[float], bool]) -> None:
        self._sink = sink
        self._goes_on = goes_on
        self._pending = window
        self.answers: list[tuple[float, float]] = []
        """(submitted, answered) of each command that did not fail."""
        self.failures = 0
        self.finished = threading.Event()
        for _ in range(window):
            self._submit()

    def _submit(self) -> None:
        submitted = time.monotonic()

        def answered(_: object, error: int) -> None:
            self._answered(submitted, error)

        self._sink.put(PAYLOAD, callback=answered)

    def _answered(self, submitted: float, error: int) -> None:
        now = time.monotonic()
        if error:
            self.failures += 1
        else:
            self.answers.append((submitted, now))
        if self._goes_on(now):
            if error:
                time.sleep(0.001)  # no leader is known: it fails at once
            self._submit()
            return
        self._pending -= 1
        if not self._pending:
            self.finished.set()


def load(sink: Sink, window: int, seconds: float) -> dict[str, float]:
    """So many commands in flight for a time."""
    begun = time.monotonic()
    end = begun + seconds

    def goes_on(now: float) -> bool:
        return now < end

    loop = Loop(sink, window, goes_on)
    loop.finished.wait(timeout=seconds + 30)
    latencies = [after - before for before, after in loop.answers]
    return summary(latencies, time.monotonic() - begun)


def fill(sink: Sink, count: int) -> dict[str, float]:
    """So many commands."""
    loop = Loop(sink, 1024, lambda _: len(loop.answers) < count - 1024)
    loop.finished.wait()
    return {"total": sink.total}


def probe(sink: Sink, seconds: float) -> dict[str, object]:
    """One command after the other for a time; when each was submitted and answered."""
    end = time.monotonic() + seconds
    loop = Loop(sink, 1, lambda now: now < end)
    loop.finished.wait(timeout=seconds + 60)
    return {"answers": loop.answers, "failures": loop.failures}


def main() -> None:
    directory, address, *members = sys.argv[1:]
    sink = Sink(address, [m for m in members if m != address], f"{directory}.journal")
    sink.waitReady()
    while sink._getLeader() is None:
        time.sleep(0.05)
    print("ready", flush=True)
    for line in sys.stdin:
        words = line.split()
        if words[0] == "state":
            leads = str(sink._getLeader()) == address
            print("leader" if leads else "follower", flush=True)
        elif words[0] == "status":
            print(json.dumps({"total": sink.total, "now": time.monotonic()}), flush=True)
        elif words[0] == "fill":
            print(json.dumps(fill(sink, int(words[1]))), flush=True)
        elif words[0] == "probe":
            print(json.dumps(probe(sink, float(words[1]))), flush=True)
        else:
            print(json.dumps(load(sink, int(words[2]), float(words[3]))), flush=True)
    sink.destroy()


if __name__ == "__main__":
    main()
