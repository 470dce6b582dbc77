"""What happened, for people and for equality: the last events kept, all of them hashed."""

from __future__ import annotations

import zlib
from collections import Counter, deque
from collections.abc import Iterator

__all__ = ["Trace"]


class Trace:
    """Records of (time in µs, who, what, values). Values must have a `repr` without addresses.

    `digest` covers every record since the start, so two runs of one seed can be compared
    (G11) although only the last `keep` records are held. `marks` counts what happened by
    name: the "sometimes" assertions of a run of many seeds.
    """

    def __init__(self, keep: int = 400) -> None:
        self.digest = 0
        self.count = 0
        self.marks: Counter[str] = Counter()
        self._last: deque[tuple[object, ...]] = deque(maxlen=keep)

    def record(self, time_us: int, who: object, what: str, *values: object) -> None:
        """Add one record."""
        record = (time_us, who, what, *values)
        self._last.append(record)
        self.digest = zlib.crc32(repr(record).encode(), self.digest)
        self.count += 1

    def mark(self, name: str, times: int = 1) -> None:
        """Say that `name` happened."""
        self.marks[name] += times

    def lines(self, last: int = 60) -> Iterator[str]:
        """The newest records, oldest first, one line each."""
        records = list(self._last)[-last:]
        for time_us, who, what, *values in records:
            detail = " ".join(str(value) for value in values)
            yield f"{_seconds(time_us)} {who!s:>4} {what:<12} {detail}"


def _seconds(time_us: object) -> str:
    return f"{time_us / 1_000_000:>12.6f}" if isinstance(time_us, int) else str(time_us)
