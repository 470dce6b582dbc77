"""Members are added, changed and removed in the tiny network of cores: by entries of the log."""

from __future__ import annotations

from abc import ABC, abstractmethod

from copycat.raft.changes import ConfigurationChange
from copycat.raft.configuration import BOOTSTRAP, Configuration, MemberRecord
from copycat.raft.effects import (
    ChangeFinished,
    ConfigurationChanged,
    ConfigurationCommitted,
    Wipe,
)
from copycat.raft.events import ChangeRequested, Event
from copycat.types import ChangeKind, EntryId, MemberId, MemberType, Span
from tests.raft.laws import Entry, History
from tests.raft.node import Node, StoredConfigurations

__all__ = ["Changing", "is_configuration", "text_of"]

_LETTER = {MemberType.ACTIVE: "", MemberType.PASSIVE: "p", MemberType.RESERVE: "r"}


def text_of(configuration: Configuration) -> str:
    """The members in short: `1 2- p3+ r4@x p5=2`: the plus is the flag of a promotion, the minus
    the mark of who is replaced, behind the @ is a failure domain, and 5 replaces 2."""
    return " ".join(
        f"{_LETTER[each.type]}{each.member}{'+' * each.is_promotable}{'-' * each.is_leaving}"
        f"{f'@{each.failure_domain}' if each.failure_domain else ''}"
        f"{f'={each.replaces}' if each.replaces else ''}"
        for each in configuration.members
    )


def is_configuration(entry: Entry) -> bool:
    return entry.payload.startswith("[")


class Changing(ABC):
    """The part of `Cluster` that knows what the configuration entries hold."""

    nodes: dict[int, Node]
    founders: Configuration
    history: History

    def __init__(self) -> None:
        self.by_name: dict[EntryId, Configuration] = {}
        """What each configuration entry holds that was ever appended."""
        self.configuration_before_loss: Configuration | None = None
        """The newest committed one when all logs were lost."""
        self.answers: dict[int, ChangeFinished] = {}
        """By token."""
        self.tokens = 0

    @abstractmethod
    def step(self, number: int, event: Event) -> None: ...

    @abstractmethod
    def start(self, number: int, *, fresh: bool = False, lost: bool = False) -> None: ...

    # ---- what logs and snapshots hold --------------------------------------------------------

    def append_configuration(self, span: Span, configuration: Configuration) -> str:
        """The leader's entry; its payload."""
        name = EntryId(span.term, span.first)
        assert configuration.entry == name, (configuration, name)
        self.by_name[name] = configuration
        return f"[{text_of(configuration)}]"

    def configurations_in(self, log: list[Entry]) -> list[Configuration]:
        """That of each entry of a list log, oldest first."""
        return [
            self.by_name[EntryId(entry.term, index)]
            for index, entry in enumerate(log, 1)
            if is_configuration(entry)
        ]

    def configuration_at(self, log: list[Entry]) -> Configuration | None:
        """What a snapshot of exactly this log holds."""
        rows = self.configurations_in(log)
        return rows[-1] if rows else None

    @property
    def committed_configuration(self) -> Configuration:
        """The newest one that anybody committed."""
        committed = self.configuration_at(self.history.committed)
        return committed or self.configuration_before_loss or self.founders

    def is_bound_by_floor(self, node: Node) -> bool:
        """Whether a deletion floor waits for this member: it has a log, and is not joining."""
        record = self.committed_configuration.record(MemberId(node.number))
        if record is None or not record.is_stateful:
            return False
        rows = self.configurations_in(node.durable)
        mine = [row.record(record.member) for row in rows]
        return record.since == 0 or any(
            each is not None and each.is_stateful and each.since == record.since for each in mine
        )

    # ---- effects -----------------------------------------------------------------------------

    def on_membership(
        self,
        node: Node,
        effect: ChangeFinished | ConfigurationChanged | ConfigurationCommitted | Wipe,
    ) -> None:
        """The directory keeps the newest; all members agree about those that are committed."""
        match effect:
            case ChangeFinished(token=token):
                assert token not in self.answers, "a change is answered once"
                self.answers[token] = effect
            case ConfigurationChanged(configuration=configuration):
                committed = node.raft.known_configuration
                self.store(node, committed, configuration)
            case ConfigurationCommitted(configuration=configuration):
                self.history.configuration_committed(configuration)
                self.store(node, configuration, node.raft.configuration)
            case Wipe(configuration=configuration):
                assert not node.is_wiping, "one at a time"
                self.store(node, configuration, configuration)
                node.is_wiping = True

    @staticmethod
    def store(node: Node, committed: Configuration, newest: Configuration) -> None:
        """The file of a directory: the newest one counts while it is above the committed one."""
        newest = max(committed, newest, key=lambda each: each.entry)
        node.stored = StoredConfigurations(committed, newest)

    def wipe(self, number: int) -> bool:
        """It starts anew, and deletes log and state; False when nobody asked for it."""
        node = self.nodes[number]
        if not node.is_up or not node.is_wiping:
            return False
        self.start(number)
        return True

    # ---- the world's verbs -------------------------------------------------------------------

    def add_node(self, number: int) -> None:
        """A member with an empty directory, that was told the newest committed configuration."""
        node = self.nodes[number] = Node(number)
        node.first_configuration = self.committed_configuration
        if node.first_configuration.entry == BOOTSTRAP:
            node.first_configuration = self.founders
        self.start(number)

    def change(
        self,
        number: int,
        kind: ChangeKind,
        member: int,
        to: MemberType,
        base: EntryId | None = None,
        address: str = "",
    ) -> int:
        """Ask member `number` for a change, by default with what it has committed; the token."""
        raft = self.nodes[number].raft
        base = raft.committed_configuration.entry if base is None else base
        self.tokens += 1
        subject = MemberId(member)
        match kind:
            case ChangeKind.ADD:
                asked = ConfigurationChange.add(MemberRecord(subject, to, address), base)
            case ChangeKind.PROMOTE:
                asked = ConfigurationChange.promote(subject, to, base)
            case ChangeKind.DEMOTE:
                asked = ConfigurationChange.demote(subject, to, base)
            case ChangeKind.REMOVE:
                asked = ConfigurationChange.remove(subject, base)
        token = self.tokens
        self.step(number, ChangeRequested(token, asked))
        return token

    def change_by_itself(self, number: int, change: ConfigurationChange) -> None:
        """Member `number` is asked for a change that names what it has committed."""
        self.tokens += 1
        self.step(number, ChangeRequested(self.tokens, change))
