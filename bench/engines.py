"""The engines that bench_log compares: copycat's log and what people use instead of it.

Each takes a directory and offers append(items) (made durable when `sync`), scan() -> entries
read, get(n) -> one entry, force() to the disk, close(). Keys are 64-bit positions, from 0, where
an engine needs keys. `settings` says in its own words what "fsync" and "os" set.
"""

from __future__ import annotations

import importlib.util
import io
import os
import sqlite3
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from bench.scale import scaled
from copycat import Log
from copycat.types import StorageLevelLike

__all__ = ["ENGINES", "LEVELS", "READERS", "Engine", "is_installed"]


class Engine(Protocol):
    settings: tuple[str, str]
    """What a synced and what an unsynced engine was told."""

    def append(self, items: Sequence[bytes]) -> None: ...
    def scan(self) -> int: ...
    def get(self, number: int) -> bytes: ...
    def force(self) -> None: ...
    def close(self) -> None: ...


class CopycatLog:
    """The public `Log`: checksummed frames, marks, segments, an index."""

    settings = ('durability="fsync"', 'durability="os"')

    level: StorageLevelLike = "disk"

    def __init__(self, path: Path, *, sync: bool) -> None:
        self.log = Log.open(path, durability="fsync" if sync else "os", level=self.level)

    def append(self, items: Sequence[bytes]) -> None:
        if len(items) == 1:
            self.log.append(items[0])
        else:
            self.log.append_many(items)

    def scan(self) -> int:
        return sum(1 for entry in self.log if entry.data)

    def get(self, number: int) -> bytes:
        return self.log[number + 1].data

    def force(self) -> None:
        self.log.sync()

    def close(self) -> None:
        self.log.close()


class MappedLog(CopycatLog):
    """The same with sealed segments read through a map: appends do not differ."""

    level = "mapped"


class _BareFile:
    """A file without entries: only appends can be compared."""

    file: int

    def scan(self) -> int:
        raise io.UnsupportedOperation("a plain file has no entries")

    def get(self, number: int) -> bytes:
        raise io.UnsupportedOperation("a plain file has no index")

    def force(self) -> None:
        os.fsync(self.file)

    def close(self) -> None:
        os.close(self.file)


class PlainFile(_BareFile):
    """One write and one fdatasync a batch: length-prefixed, no checksum, no recovery."""

    settings = ("write + fdatasync", "write")

    def __init__(self, path: Path, *, sync: bool) -> None:
        self.file = os.open(path / "plain", os.O_RDWR | os.O_CREAT | os.O_APPEND)
        self.sync = sync

    def append(self, items: Sequence[bytes]) -> None:
        lengths = struct.pack(f"<{len(items)}I", *map(len, items))
        os.write(self.file, lengths + b"".join(items))
        if self.sync:
            os.fdatasync(self.file)


class ZeroedFile(_BareFile):
    """The machine's limit: one pwrite and one fdatasync into a file that was zeroed ahead."""

    settings = ("pwrite + fdatasync", "pwrite")
    SIZE = scaled(256, 4) << 20

    def __init__(self, path: Path, *, sync: bool) -> None:
        self.file = os.open(path / "zeroed", os.O_RDWR | os.O_CREAT)
        block = bytes(1 << 20)
        for at in range(0, self.SIZE, len(block)):
            os.pwrite(self.file, block, at)
        os.fsync(self.file)
        self.at = 0
        self.sync = sync

    def append(self, items: Sequence[bytes]) -> None:
        data = b"".join(items)
        if self.at + len(data) > self.SIZE:
            self.at = 0
        self.at += os.pwrite(self.file, data, self.at)
        if self.sync:
            os.fdatasync(self.file)


class Lmdb:
    settings = ("sync=True", "sync=False")

    def __init__(self, path: Path, *, sync: bool) -> None:
        import lmdb

        self.env: Any = lmdb.open(str(path / "lmdb"), map_size=8 << 30, sync=sync, metasync=sync)
        self.next = 0

    def append(self, items: Sequence[bytes]) -> None:
        with self.env.begin(write=True) as txn, txn.cursor() as cursor:
            pack = struct.Struct(">Q").pack
            cursor.putmulti(
                [(pack(self.next + i), item) for i, item in enumerate(items)], append=True
            )
        self.next += len(items)

    def scan(self) -> int:
        with self.env.begin() as txn, txn.cursor() as cursor:
            return sum(1 for _ in cursor.iternext(keys=False, values=True))

    def get(self, number: int) -> bytes:
        with self.env.begin() as txn:
            return bytes(txn.get(struct.pack(">Q", number)))

    def force(self) -> None:
        self.env.sync(True)

    def close(self) -> None:
        self.env.close()


class RocksDb:
    settings = ("WriteOptions.sync", "WAL unsynced")

    def __init__(self, path: Path, *, sync: bool) -> None:
        from rocksdict import Options, Rdict, WriteOptions

        options = Options(raw_mode=True)
        options.create_if_missing(True)
        self.db: Any = Rdict(str(path / "rocks"), options)
        self.write: Any = WriteOptions()
        self.write.sync = sync
        self.next = 0

    def append(self, items: Sequence[bytes]) -> None:
        from rocksdict import WriteBatch

        batch: Any = WriteBatch(raw_mode=True)
        pack = struct.Struct(">Q").pack
        for i, item in enumerate(items):
            batch.put(pack(self.next + i), item)
        self.db.write(batch, self.write)
        self.next += len(items)

    def scan(self) -> int:
        return sum(1 for _ in self.db.values())

    def get(self, number: int) -> bytes:
        return bytes(self.db[struct.pack(">Q", number)])

    def force(self) -> None:
        self.db.flush_wal(sync=True)

    def close(self) -> None:
        self.db.close()


class Sqlite:
    settings = ("WAL, synchronous=FULL", "WAL, synchronous=OFF")

    def __init__(self, path: Path, *, sync: bool) -> None:
        self.db = sqlite3.connect(path / "sqlite.db", isolation_level=None)
        self.db.execute("PRAGMA journal_mode=WAL")
        self.db.execute(f"PRAGMA synchronous={'FULL' if sync else 'OFF'}")
        self.db.execute("CREATE TABLE IF NOT EXISTS log (id INTEGER PRIMARY KEY, data BLOB)")
        self.next = 0

    def append(self, items: Sequence[bytes]) -> None:
        first = self.next
        self.db.execute("BEGIN")
        self.db.executemany("INSERT INTO log VALUES (?, ?)", enumerate(items, first))
        self.db.execute("COMMIT")
        self.next += len(items)

    def scan(self) -> int:
        return sum(1 for _ in self.db.execute("SELECT data FROM log ORDER BY id"))

    def get(self, number: int) -> bytes:
        row: tuple[bytes] = self.db.execute(
            "SELECT data FROM log WHERE id = ?", (number,)
        ).fetchone()
        return row[0]

    def force(self) -> None:
        self.db.execute("PRAGMA wal_checkpoint(FULL)")

    def close(self) -> None:
        self.db.close()


def is_installed(module: str) -> bool:
    """True when the peer can be imported; `make bench` installs all, `make test` need not."""
    return importlib.util.find_spec(module) is not None


ENGINES: dict[str, Callable[..., Engine]] = {
    "copycat": CopycatLog,
    "plain file": PlainFile,
    "zeroed file": ZeroedFile,
    "sqlite": Sqlite,
}
if is_installed("lmdb"):
    ENGINES["lmdb"] = Lmdb
if is_installed("rocksdict"):
    ENGINES["rocksdb"] = RocksDb

READERS = tuple(name for name in ENGINES if not name.endswith("file"))
"""The engines that have entries, and not bytes alone."""

LEVELS = {"copycat": CopycatLog, "copycat mapped": MappedLog}
"""Storage level "disk", the default, and "mapped"."""
