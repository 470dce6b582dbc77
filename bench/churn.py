"""Keyed commands over few keys: what each engine keeps, and what it writes to keep no more.

A command is a key of 8 bytes and a value of 64 to 128 bytes. In a log the bench itself knows
which entry a newer one of its key supersedes and releases it; the key-value engines overwrite.
"""

from __future__ import annotations

import sqlite3
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from bench.engines import is_installed
from copycat import Log

__all__ = ["KEYED", "Churn", "CopycatKeyed", "Keyed", "commands", "disk_bytes", "written_bytes"]

_KEY = 8
_FRAME_HEADER = 32


class Churn(NamedTuple):
    """One batch: `keys` as numbers, `items` as (key, value) bytes."""

    keys: np.ndarray[Any, np.dtype[np.int64]]
    items: list[tuple[bytes, bytes]]


def commands(count: int, keys: int, batch: int) -> Iterator[Churn]:
    """The same `count` commands each time, `batch` at a time."""
    rng = np.random.default_rng(7)
    names = [number.to_bytes(_KEY, "big") for number in range(keys)]
    # Random bytes: an engine that compresses would otherwise keep next to nothing.
    values = [rng.bytes(int(size)) for size in rng.integers(64, 129, size=4096)]
    for first in range(0, count, batch):
        size = min(batch, count - first)
        numbers = rng.integers(keys, size=size)
        chosen = rng.integers(len(values), size=size)
        pairs = zip(numbers.tolist(), chosen.tolist(), strict=True)
        yield Churn(numbers, [(names[key], values[value]) for key, value in pairs])


class Keyed(Protocol):
    setting: str

    def put(self, churn: Churn) -> None: ...
    def finish_maintenance(self) -> None: ...
    def close(self) -> None: ...


class CopycatKeyed:
    """The public `Log`: append, release what is superseded; cleaning runs by itself."""

    setting = 'durability="os", cleaning by its own thread'

    def __init__(self, path: Path, **options: Any) -> None:
        self.log: Any = Log.open(path / "log", durability="os", **options)
        self.newest = np.zeros(0, np.int64)

    def put(self, churn: Churn) -> None:
        indexes = self.log.append_many([key + value for key, value in churn.items])
        self.log.release_many(self._superseded(churn.keys, indexes.start))

    def _superseded(self, keys: np.ndarray[Any, np.dtype[np.int64]], first: int) -> array[int]:
        """Indexes that newer ones of their keys replace, inside this batch too."""
        most = int(keys.max()) + 1
        if most > len(self.newest):
            self.newest = np.concatenate(
                [self.newest, np.zeros(most - len(self.newest), np.int64)]
            )
        order = np.argsort(keys, kind="stable")
        ordered = keys[order]
        is_last = np.append(ordered[1:] != ordered[:-1], True)
        before = self.newest[ordered[is_last]]
        self.newest[ordered[is_last]] = first + order[is_last]
        overwritten = np.concatenate([before[before > 0], first + order[~is_last]])
        return array("Q", np.sort(overwritten).astype(np.uint64).tobytes())

    def finish_maintenance(self) -> None:
        """What the thread would do at its next interval."""
        self.log.compactor.compact()

    def live_bytes(self) -> int:
        """Frames of the newest entry of every key, as they lie in the files."""
        live = self.newest[self.newest > 0].tolist()
        sizes = (len(self.log[index].data) for index in live)
        return sum((_FRAME_HEADER + size + 7) // 8 * 8 for size in sizes)

    def close(self) -> None:
        self.log.close()


class _Lmdb:
    setting = "sync=False"

    def __init__(self, path: Path) -> None:
        import lmdb

        self.env = lmdb.open(str(path / "lmdb"), map_size=8 << 30, sync=False, metasync=False)

    def put(self, churn: Churn) -> None:
        with self.env.begin(write=True) as txn, txn.cursor() as cursor:
            cursor.putmulti(churn.items)

    def finish_maintenance(self) -> None:
        self.env.sync(True)

    def close(self) -> None:
        self.env.close()


class _RocksDb:
    setting = "WAL unsynced, default compaction"

    def __init__(self, path: Path) -> None:
        from rocksdict import Options, Rdict

        options = Options(raw_mode=True)
        options.create_if_missing(True)
        self.db: Any = Rdict(str(path / "rocks"), options)

    def put(self, churn: Churn) -> None:
        from rocksdict import WriteBatch

        batch: Any = WriteBatch(raw_mode=True)
        for key, value in churn.items:
            batch.put(key, value)
        self.db.write(batch)

    def finish_maintenance(self) -> None:
        self.db.flush()

    def close(self) -> None:
        self.db.close()


class _Sqlite:
    setting = "WAL, synchronous=OFF"

    def __init__(self, path: Path) -> None:
        self.db = sqlite3.connect(path / "sqlite.db", isolation_level=None)
        self.db.execute("PRAGMA journal_mode=WAL")
        self.db.execute("PRAGMA synchronous=OFF")
        self.db.execute("CREATE TABLE kv (key BLOB PRIMARY KEY, value BLOB) WITHOUT ROWID")

    def put(self, churn: Churn) -> None:
        self.db.execute("BEGIN")
        self.db.executemany("INSERT OR REPLACE INTO kv VALUES (?, ?)", churn.items)
        self.db.execute("COMMIT")

    def finish_maintenance(self) -> None:
        self.db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def close(self) -> None:
        self.db.close()


KEYED: dict[str, Callable[[Path], Keyed]] = {"sqlite": _Sqlite}
"""The peers, each made in an empty directory."""
if is_installed("lmdb"):
    KEYED["lmdb"] = _Lmdb
if is_installed("rocksdict"):
    KEYED["rocksdb"] = _RocksDb


def disk_bytes(directory: Path) -> int:
    """Bytes that the files in `directory` take from the disk, allocated ones too."""
    total = 0
    for path in directory.rglob("*"):
        try:
            total += path.stat().st_blocks * 512
        except FileNotFoundError:  # cleaned meanwhile
            continue
    return total


def written_bytes(*, thread: bool = False) -> int:
    """Bytes that this process, or this thread of it, gave to write calls so far."""
    text = Path(f"/proc/{'thread-self' if thread else 'self'}/io").read_text()
    rows = dict(line.split(": ") for line in text.splitlines())
    return int(rows["wchar"])
