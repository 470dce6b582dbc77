"""Both sides of feeding: what this member asks, and what it answers.

Questions and answers are verified and decoded at once, and handled in the next turn in the order
of arrival.
"""

from __future__ import annotations

from copycat.errors import CorruptLogError, ProtocolError, VersionMismatchError
from copycat.protocol.codec_feeding import (
    decode_fed_entries,
    decode_fed_snapshot,
    decode_feed_answer,
    decode_feed_request,
)
from copycat.protocol.framing import Frame
from copycat.protocol.wire import FrameType
from copycat.replica.feed_client import FeedClient
from copycat.replica.feeder import NEVER_MS, Feeder
from copycat.replica.host import Inbox
from copycat.replica.known_configurations import entry_configuration
from copycat.storage import Batch
from copycat.storage.fed_bytes import frames_of
from copycat.types import MemberId

__all__ = ["FEEDING_TYPES", "Feeding"]

FEEDING_TYPES = frozenset(
    {
        FrameType.FEED_REQUEST,
        FrameType.FED_ENTRIES,
        FrameType.FEED_ANSWER,
        FrameType.FED_SNAPSHOT,
    }
)


class Feeding:
    """The feeder and the asker of one member."""

    def __init__(self, inbox: Inbox, feeder: Feeder, client: FeedClient) -> None:
        self._inbox = inbox
        self._feeder = feeder
        self._client = client
        self.due_ms = NEVER_MS
        """When `advance` next has something to do, beside what arrives."""
        self.is_idle = True
        """Nothing has arrived, and nothing is kept for anybody: `advance` has nothing to do as
        long as no feeder is named."""

    @property
    def state(self) -> tuple[MemberId, int]:
        """Whom this member asks for entries, 0 for nobody, and how many feeders it has left."""
        return self._client.feeder, self._client.left

    def advance(self, now_ms: int) -> None:
        """End of a turn: ask, and answer what waited for a commit."""
        self._client.advance(now_ms)
        self._feeder.advance(now_ms)
        self.due_ms = min(self._feeder.due_ms, self._client.due_ms)
        self.is_idle = self.due_ms == NEVER_MS

    def link_opened(self, peer: MemberId) -> None:
        """This member can write to `peer`."""
        self._client.link_opened(peer)

    def link_ended(self, peer: MemberId) -> None:
        """The link to `peer` broke."""
        self._feeder.link_ended(peer)
        self._client.link_ended(peer)

    def receive(self, peer: MemberId, frame: Frame) -> None:
        """One of the frames of FEEDING_TYPES. ProtocolError: the listener closes the connection.

        Damaged entries are no reason for that: they may lie damaged on the feeder's disk, and
        this member leaves that feeder (F17).
        """
        put = self._inbox.put
        self.is_idle = False
        if frame.type == FrameType.FEED_REQUEST:
            put(self._feeder.on_request, peer, decode_feed_request(frame))
        elif frame.type == FrameType.FEED_ANSWER:
            put(self._client.on_answer, peer, decode_feed_answer(frame))
        elif frame.type == FrameType.FED_SNAPSHOT:
            message, data = decode_fed_snapshot(frame)
            put(self._client.on_chunk, peer, message, bytes(data))
        else:
            self._receive_entries(peer, frame)

    def _receive_entries(self, peer: MemberId, frame: Frame) -> None:
        message, body = decode_fed_entries(frame)
        try:
            batch = Batch.from_wire(frames_of(body, message.raw_nbytes), message.span)
            record = entry_configuration(batch)
        except VersionMismatchError as error:
            self._inbox.put(_raise, error)
        except (ProtocolError, CorruptLogError) as error:
            self._inbox.put(self._client.damaged, peer, error.message)
        else:
            self._inbox.put(self._client.on_entries, peer, message, batch, record)


def _raise(error: VersionMismatchError) -> None:
    """C47: a committed entry that nobody may skip. The member stops here."""
    raise error
