"""Stores the unanswered commands of one session, and makes frames of them. No clock, no socket.

A frame has all commands that wait to be sent, up to `FRAME_NBYTES_MAX`. How many commands and
bytes may be sent and not answered is bounded (the window); further commands wait in order.
`rewind` moves `last_sent` back, so that the same commands are sent again with the same sequences;
the cluster answers commands that it has applied already from its reply cache (C18).
"""

from __future__ import annotations

import sys
from array import array
from bisect import bisect_right
from collections import deque
from itertools import accumulate
from typing import Any

import msgspec

from copycat.errors import require
from copycat.protocol.client import Commands

__all__ = ["FRAME_COMMANDS_MAX", "FRAME_NBYTES_MAX", "WINDOW_COMMANDS", "WINDOW_NBYTES", "Outbox"]

FRAME_NBYTES_MAX = 1 << 20
FRAME_COMMANDS_MAX = 8192
"""Bounds the time that it takes to make one frame when many large commands wait."""

WINDOW_COMMANDS = 65536
WINDOW_NBYTES = 64 << 20

_COMPACT_RATIO = 64
"""Answered commands are deleted from the list when at most so many times as many follow them."""


class _SentFrame(msgspec.Struct, frozen=True):
    """A frame: the `number`th that was sent, with the commands of these sequences."""

    number: int
    first: int
    last: int


class Outbox:
    """The commands after `last_answered` up to `last_submitted`, which are encoded.

    window_commands, window_nbytes: how much may be sent and not answered.
    """

    def __init__(
        self, *, window_commands: int = WINDOW_COMMANDS, window_nbytes: int = WINDOW_NBYTES
    ) -> None:
        self._window_commands = window_commands
        self._window_nbytes = window_nbytes
        self._encoded: list[bytes] = []
        self._types: list[Any] = []
        """The types of the results, in the order of `_encoded`."""
        self._base = 1
        """The sequence of `_encoded[0]`; answered commands are deleted now and then, many at
        once."""
        self._inflight_nbytes = 0
        self._frames_sent = 0
        self._sent_frames: deque[_SentFrame] = deque(maxlen=window_commands)
        """Frames that were sent on this connection, oldest first, and not answered so far."""
        self._emptied: dict[int, int] = {}
        """By the sequence of a command that `empty` emptied: how many frames were sent before."""
        self.nbytes = 0
        """Bytes of all commands that are not answered, sent or not."""
        self.last_answered = 0
        """The sequence up to which all replies have arrived."""
        self.last_sent = 0
        """The last sequence that was sent on this connection."""
        self.last_attempted = 0
        """The last sequence that was ever sent: no later command can have taken effect."""
        self.last_submitted = 0

    @property
    def is_idle(self) -> bool:
        """True when every command was answered."""
        return self.last_answered == self.last_submitted

    def add(self, encoded: bytes, result_type: Any) -> int:
        """Add a command; returns its sequence."""
        self._encoded.append(encoded)
        self._types.append(result_type)
        self.nbytes += len(encoded)
        self.last_submitted += 1
        return self.last_submitted

    def add_many(self, encoded: list[bytes], result_types: list[Any]) -> int:
        """Add several commands; returns the sequence of the first one."""
        first = self.last_submitted
        self._encoded += encoded
        self._types += result_types
        self.nbytes += sum(map(len, encoded))
        self.last_submitted += len(encoded)
        return first + 1

    def frames(self, session: int, last: int | None = None) -> list[Commands]:
        """Frames of the commands that may be sent now, up to sequence `last`; moves
        `last_sent`."""
        frames = []
        end = self.last_submitted if last is None else min(last, self.last_submitted)
        while self.last_sent < end and self._inflight_nbytes < self._window_nbytes:
            room = min(end, self.last_answered + self._window_commands) - self.last_sent
            if room <= 0:
                break
            frames.append(self._cut(session, min(room, FRAME_COMMANDS_MAX)))
        return frames

    def _cut(self, session: int, count_max: int) -> Commands:
        start = self.last_sent + 1 - self._base
        chunk = self._encoded[start : start + count_max]
        lengths = array("I", map(len, chunk))
        nbytes = sum(lengths)
        if nbytes > FRAME_NBYTES_MAX:
            keep = max(1, bisect_right(list(accumulate(lengths)), FRAME_NBYTES_MAX))
            del chunk[keep:], lengths[keep:]
            nbytes = sum(lengths)
        if sys.byteorder == "big":
            lengths.byteswap()
        frame = Commands(
            session,
            self.last_sent + 1,
            self.last_answered,
            len(chunk),
            b"".join([lengths.tobytes(), *chunk]),
        )
        self._frames_sent += 1
        last = self.last_sent + len(chunk)
        self._sent_frames.append(_SentFrame(self._frames_sent, self.last_sent + 1, last))
        self.last_sent = last
        self.last_attempted = max(self.last_attempted, self.last_sent)
        self._inflight_nbytes += nbytes
        return frame

    def result_types(self, first: int, count: int) -> list[Any]:
        """The types of `count` results from sequence `first` on.

        The type is Any for a command that was answered before and is deleted already.
        """
        forgotten = max(0, min(count, self._base - first))
        start = first + forgotten - self._base
        return [Any] * forgotten + self._types[start : start + count - forgotten]

    def answer(self, last_sequence: int) -> None:
        """Note that all replies up to `last_sequence` have arrived; the commands may be
        deleted."""
        require(
            self.last_answered <= last_sequence <= self.last_attempted,
            "an answer to a command that was answered before, or never sent",
            last_answered=self.last_answered,
            last_sequence=last_sequence,
            attempted=self.last_attempted,
        )
        first, end = self.last_answered + 1 - self._base, last_sequence + 1 - self._base
        answered_in_flight = min(last_sequence, self.last_sent) + 1 - self._base
        nbytes = sum(map(len, self._encoded[first:answered_in_flight]))
        self._inflight_nbytes -= nbytes
        self.nbytes -= nbytes + sum(map(len, self._encoded[answered_in_flight:end]))
        self.last_answered = last_sequence
        while self._sent_frames and self._sent_frames[0].last <= last_sequence:
            self._sent_frames.popleft()
        if self._emptied:
            emptied = self._emptied.items()
            self._emptied = {
                sequence: sent for sequence, sent in emptied if sequence > last_sequence
            }
        self.last_sent = max(self.last_sent, last_sequence)
        if end * _COMPACT_RATIO >= len(self._encoded) - end:
            del self._encoded[:end], self._types[:end]
            self._base += end

    def rewind(self, next_sequence: int) -> bool:
        """Have commands sent again from `next_sequence` on; False when none of them was sent."""
        sent = max(self.last_answered, next_sequence - 1)
        if sent >= self.last_sent:
            return False
        self.last_sent = sent
        first, end = self.last_answered + 1 - self._base, sent + 1 - self._base
        self._inflight_nbytes = sum(map(len, self._encoded[first:end]))
        return True

    def connected(self) -> None:
        """Another connection was opened: no frame that was sent before is answered on it."""
        self._sent_frames.clear()
        self.rewind(self.last_answered + 1)

    def largest_refused(self, first: int) -> tuple[int, int] | None:
        """Sequence and bytes of the largest command of a frame that a server refused as too large.

        first: the first sequence of that frame. A server answers frames in the order in which they
        were sent, so the oldest frame with that first sequence is the one. None when a command of
        it was emptied after the frame had been sent: the command has failed already.
        """
        frames = self._sent_frames
        while frames and frames[0].first != first:
            frames.popleft()
        if not frames:
            return None
        frame = frames.popleft()
        unanswered = range(max(first, self.last_answered + 1), frame.last + 1)
        if not unanswered or any(
            self._emptied.get(sequence, 0) >= frame.number for sequence in unanswered
        ):
            return None
        sequence = max(unanswered, key=self._nbytes_of)
        return sequence, self._nbytes_of(sequence)

    def _nbytes_of(self, sequence: int) -> int:
        return len(self._encoded[sequence - self._base])

    def empty(self, sequence: int) -> None:
        """Replace a command that servers refuse by an empty one with the same sequence.

        A missing sequence would stop the session.
        """
        require(
            self.last_answered < sequence <= self.last_attempted,
            "a command that was not sent cannot have been refused",
            sequence=sequence,
            attempted=self.last_attempted,
        )
        self.rewind(self.last_answered + 1)
        self.nbytes -= len(self._encoded[sequence - self._base])
        self._encoded[sequence - self._base] = b""
        self._emptied[sequence] = self._frames_sent

    def drop(self, sequences: list[int]) -> None:
        """Delete these commands, none of which was ever sent; later ones get lower sequences.

        sequences: ascending.
        """
        if not sequences:
            return
        first = sequences[0]
        require(
            first > self.last_attempted, "a command was sent and cannot be dropped", first=first
        )
        dropped = set(sequences)
        start = first - self._base
        remaining = [
            at for at in range(start, len(self._encoded)) if at + self._base not in dropped
        ]
        before = sum(map(len, self._encoded[start:]))
        self._encoded[start:] = [self._encoded[at] for at in remaining]
        self.nbytes -= before - sum(map(len, self._encoded[start:]))
        self._types[start:] = [self._types[at] for at in remaining]
        self.last_submitted -= len(sequences)
