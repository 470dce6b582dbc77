"""Logs refused and closed connections: a repeated one the first, 10th, 100th time, and so on."""

from __future__ import annotations

import logging

__all__ = ["RefusalLog"]

log = logging.getLogger("copycat.server")

KNOWN_MAX = 256
"""How many different refusals are remembered; with more, the oldest one is forgotten."""
REASONS_MAX = 32
"""How many different reasons are counted apart for one host; further ones are counted together. A
reason may contain bytes that the host sent, so each of them may be different."""
OTHER_REASONS = "other reasons"


class RefusalLog:
    """Counts refusals, so that a host that connects four times a second does not fill the log."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str, str], int] = {}

    def record(self, what: str, who: str, reason: str) -> None:
        """Log `what who: reason` the first, the 10th, the 100th time, and so on.

        what: a verb with its object, as "refused the client at". who: host and port; connections
        of one host are counted together, since each has another port.
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
        """One text for each refusal that is remembered, with its count; the newest last."""
        return [
            f"{what} {host}: {reason} ({count} times)"
            for (what, host, reason), count in self._counts.items()
        ]
