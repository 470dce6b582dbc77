"""The core's timers: absolute deadlines on its own clock, the sum of all `Tick.elapsed_ms`."""

from __future__ import annotations

__all__ = [
    "COMMIT_NEWS_MS",
    "NEVER_MS",
    "SLOW_TIMEOUTS",
    "TERM_JUMP_MAX",
    "TERM_MAX",
]

NEVER_MS = 1 << 62
"""The deadline of a timer that does not run."""

COMMIT_NEWS_MS = 5
"""How long the news of a commit waits for entries that carry it to the followers for free.

Under load the next entries follow within a millisecond; an empty message in between would
double the messages of a cluster that serves one command at a time.
"""

SLOW_TIMEOUTS = 10
"""For so many election timeouts a leader whose disk was too slow does not campaign (F15)."""

TERM_MAX = (1 << 63) - 1
TERM_JUMP_MAX = 1 << 32
"""A term that jumps farther than this at once is nonsense: terms would run
out, and no honest cluster holds four billion elections while one member looks away."""
