"""Who was refused or closed, and why: logged at the first time, counted from then on."""

from __future__ import annotations

import logging

__all__ = ["RefusalLog"]

log = logging.getLogger("copycat.server")

KNOWN_MAX = 256
"""Different refusals that are remembered; the oldest is forgotten, and logged when it is back."""
REASONS_MAX = 32
"""Different reasons for one host that are told apart. A reason may hold what the stranger sent,
and that can be something else each time: all others are counted as one."""
OTHER_REASONS = "other reasons"


class RefusalLog:
    """One that comes back four times a second must not fill the log."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str, str], int] = {}

    def record(self, what: str, who: str, reason: str) -> None:
        """Log `what who: reason` at the first time, and at each tenth power of times.

        who: host and port; the port is another one each time, so it does not count.
        """
        key = self._key(what, who.rpartition(":")[0], reason)
        count = self._counts.pop(key, 0) + 1
        self._counts[key] = count
        if len(self._counts) > KNOWN_MAX:
            del self._counts[next(iter(self._counts))]
        if count == 1:
            log.warning("%s %s: %s", what, who, reason)
        elif count == 10 ** (len(str(count)) - 1):
            log.warning("%s %s: %s (%d times by now)", what, who, reason, count)

    def _key(self, what: str, host: str, reason: str) -> tuple[str, str, str]:
        key = what, host, reason
        if key in self._counts:
            return key
        known = sum(each[:2] == (what, host) for each in self._counts)
        return key if known < REASONS_MAX else (what, host, OTHER_REASONS)

    def all(self) -> list[str]:
        """Each refusal that is remembered, with its count; the newest last."""
        return [
            f"{what} {host}: {reason} ({count} times)"
            for (what, host, reason), count in self._counts.items()
        ]
