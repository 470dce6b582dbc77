"""Whether fed batches are to be compressed on the link: that is measured, and not assumed.

It depends on the entries, on the link, and on the processors at both ends. So the asker has
batches of either kind sent in turn, notes how many bytes of frames each kind brings in a
millisecond, and stays with the better kind for a while; then it measures again, for all three
change.
"""

from __future__ import annotations

__all__ = ["BATCHES_BETWEEN", "TRIAL", "CompressionChoice"]

TRIAL = 8
"""So many batches of one kind are measured in a row."""
SKIPPED = 3
"""So many before them are not: while they arrive, those of the other kind are in flight."""
BATCHES_BETWEEN = 512
"""For so many batches the better kind is used before both are measured again."""


class CompressionChoice:
    """Of one asker. Questions and answers are in the order of their numbers."""

    def __init__(self) -> None:
        self.compresses = False
        """Whether the next question asks for a compressed batch."""
        self.is_measuring = True
        self._arrived = 0
        """Batches of this kind since it was last changed."""
        self._begun_ms = 0
        self._nbytes = 0
        self._rates: dict[bool, float] = {}
        """Bytes of frames in a millisecond, by kind, of this measurement."""

    def interrupted(self) -> None:
        """The stream broke, or waits for a commit: the time until the next batch says nothing."""
        if self.is_measuring:
            self._begin(compresses=self.compresses)

    def batch_arrived(self, nbytes: int, now_ms: int) -> None:
        """A batch with `nbytes` of frames, raw, is here, and more are asked for."""
        self._arrived += 1
        if not self.is_measuring:
            if self._arrived >= BATCHES_BETWEEN:
                self.is_measuring = True
                self._rates = {}
                self._begin(compresses=False)
            return
        if self._arrived <= SKIPPED:
            self._begun_ms, self._nbytes = now_ms, 0
            return
        self._nbytes += nbytes
        if self._arrived < SKIPPED + TRIAL:
            return
        self._rates[self.compresses] = self._nbytes / max(1, now_ms - self._begun_ms)
        if self.compresses:
            is_better = self._rates[True] > self._rates[False]
            self.is_measuring = False
            self._begin(compresses=is_better)
        else:
            self._begin(compresses=True)

    def _begin(self, *, compresses: bool) -> None:
        self.compresses = compresses
        self._arrived = self._nbytes = 0
