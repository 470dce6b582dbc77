"""One member of the tiny network of cores: its core, its disk, and what it sends."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from copycat.protocol.peer import PeerMessage
from copycat.raft.configuration import Configuration
from copycat.raft.core import Raft
from copycat.raft.effects import ShipSnapshot
from copycat.raft.invariants import Facts
from copycat.types import NO_ENTRY, EntryId, MemberId, TermRun
from tests.raft.laws import Entry

__all__ = ["CHUNKS", "Envelope", "Node", "StoredConfigurations", "name_of", "runs_of"]

CHUNKS = 3
"""A snapshot file has so many bytes, and each chunk is one of them."""


class Envelope(NamedTuple):
    """One message on its way, with the entries that ride in it."""

    source: int
    target: int
    message: PeerMessage
    entries: tuple[Entry, ...]
    gaps: tuple[int, int] = (0, 0)
    """As `Node.gaps` of the sender, if some of the entries are in them."""


class StoredConfigurations(NamedTuple):
    """The newest configuration that a member knows to be committed, and the newest of all."""

    committed: Configuration
    newest: Configuration


class Image(NamedTuple):
    """A copy of what one member had on its disk."""

    durable_log: list[Entry]
    durable_first: int
    snapshots: list[list[Entry]]
    hard_state: tuple[int, int]


def runs_of(log: Iterable[Entry]) -> list[TermRun]:
    """Term runs of a list log."""
    runs: list[TermRun] = []
    for index, entry in enumerate(log, 1):
        if not runs or runs[-1].term != entry.term:
            runs.append(TermRun(entry.term, index))
    return runs


class Node:
    """One member: its core, what it wrote, and what its disk would give back after a crash.

    The lists are whole: what lies below `first` is there as the snapshot has it.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.log: list[Entry] = []
        self.durable_log: list[Entry] = []
        self.durable_first = 1
        self.snapshots: list[list[Entry]] = []
        """The newest two that were saved, each as the entries that it covers."""
        self.hard_state = (0, 0)
        self.is_up = False
        self.has_lost = False
        """Its entries were lost with its memory: below the floor it has nothing that could be
        wrong, and is sent a snapshot (C23)."""
        self.lacks_acknowledged = False
        """It lost its entries, and at its last crash no leader had sent it any since."""
        self.lost_upto = NO_ENTRY
        """What its directory says that damage took (C12)."""
        self.accepted_loss = NO_ENTRY
        """The same, once an operator accepted that it is lost."""
        self.log_before_loss: list[Entry] = []
        """The log before the loss: the member votes as if it still had these entries."""
        self.required_term = 0
        """What its directory says that the hard state must have reached for it."""
        self.image: Image | None = None
        """A copy of its disk, taken earlier."""
        self.is_older_copy = False
        """Entries are missing since the disk is an older copy, not since it is damaged (F8)."""
        self.has_regressed = False
        """The member runs on an older copy of its disk, and no peer has said so yet (F8)."""
        self.is_over = False
        """A leader said that it stops for good under its id (C42)."""
        self.gaps = (0, 0)
        """(last, valid_from): entries up to `last` were released, and gaps stand for them (C22).

        Their contents stay in the lists, for the laws.
        """
        self.first_configuration: Configuration | None = None
        """What it was told when it joined; None for a founder."""
        self.stored: StoredConfigurations | None = None
        """The configurations that its directory keeps."""
        self.is_wiping = False
        """Its core asked for log and state to be deleted."""
        self.raft: Raft
        self.facts: Facts
        self.start_empty()

    def start_empty(self) -> None:
        """What a process forgets."""
        self.syncs: list[tuple[int, int]] = []
        self.first = 1
        self.is_reset = False
        """The log was reset, and no sync has reached the disk since."""
        self.requests: dict[MemberId, ShipSnapshot] = {}
        """Snapshots that its core wants to be sent."""
        self.shipping: dict[MemberId, list[Entry]] = {}
        """Files that were begun, perhaps over links that broke since."""
        self.heard: set[MemberId] = set()
        """Who acknowledged chunks since `resend_ms` was set."""
        self.resend_ms = 0
        self.part: tuple[EntryId, int] = (NO_ENTRY, 0)
        self.saves: list[tuple[int, int, int]] = []
        self.losses: list[tuple[EntryId, int]] = []
        """Losses that a peer reported and that are not written into the directory yet."""
        self.proposals: list[str] = []
        self.incoming: tuple[int, tuple[Entry, ...]] = (0, ())
        self.incoming_gaps = (0, 0)
        self.commit_index = 0

    def log_for_majority(self, entries: list[Entry]) -> list[Entry]:
        """What counts for a majority: the durable log, or the log before a loss.

        The log before a loss counts when `entries` is the beginning of it: the member votes as if
        it had that log still.
        """
        is_bound = self.has_regressed or self.lost_upto != NO_ENTRY
        votes_as_before = is_bound and self.log_before_loss[: len(entries)] == entries
        return self.log_before_loss if votes_as_before else self.durable

    def wipe(self) -> None:
        """Log, snapshots and state are deleted from memory and disk; term and vote stay (C33)."""
        self.log, self.durable_log, self.snapshots = [], [], []
        self.first = self.durable_first = 1
        self.syncs = [(ticket, 0) for ticket, _ in self.syncs]
        self.is_reset, self.is_wiping = False, False
        self.gaps, self.commit_index = (0, 0), 0
        self.part = (NO_ENTRY, 0)
        self.has_lost = False

    def take_image(self) -> None:
        """A backup of the disk as it is now."""
        snapshots = [list(snapshot) for snapshot in self.snapshots]
        first = self.durable_first
        self.image = Image(list(self.durable_log), first, snapshots, self.hard_state)

    def restore_image(self) -> None:
        """The disk is what it was when the image was taken."""
        assert self.image is not None, "no image was taken"
        self.log_before_loss = list(self.durable)
        self.durable_log = list(self.image.durable_log)
        self.durable_first = self.image.durable_first
        self.snapshots = [list(snapshot) for snapshot in self.image.snapshots]
        self.hard_state = self.image.hard_state
        self.lost_upto, self.has_regressed, self.has_lost = NO_ENTRY, True, True

    @property
    def durable(self) -> list[Entry]:
        """What a restart finds: a snapshot ahead of the log, or in conflict with it, wins."""
        newest = self.snapshots[-1] if self.snapshots else []
        end = len(newest)
        return self.durable_log if self.durable_log[end - 1 : end] == newest[-1:] else newest


def name_of(entries: list[Entry]) -> EntryId:
    """The last of them."""
    return EntryId(entries[-1].term, len(entries)) if entries else NO_ENTRY
