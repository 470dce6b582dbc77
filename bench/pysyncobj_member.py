"""PySyncObj under the same orders as bench.member. Its journal is never fsynced: not durable."""

from __future__ import annotations

import json
import sys
import threading
import time
from typing import Any

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


def load(sink: Sink, window: int, seconds: float) -> dict[str, float]:
    """Closed loop by callbacks: an answered command is replaced by the next."""
    latencies: list[float] = []
    clock = time.perf_counter
    begun = clock()
    end = begun + seconds
    pending = window
    finished = threading.Event()

    def submit() -> None:
        started = clock()
        sink.put(PAYLOAD, callback=lambda result, error: answered(result, error, started))

    def answered(result: Any, error: Any, started: float) -> None:
        nonlocal pending
        now = clock()
        latencies.append(now - started)
        if now < end:
            submit()
        else:
            pending -= 1
            if pending == 0:
                finished.set()

    for _ in range(window):
        submit()
    finished.wait(timeout=seconds + 30)
    return summary(latencies, clock() - begun)


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
        else:
            print(json.dumps(load(sink, int(words[2]), float(words[3]))), flush=True)
    sink.destroy()


if __name__ == "__main__":
    main()
