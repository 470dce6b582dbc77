"""The laws across members (I1 to I10, I14), over list logs: history kept outside the nodes."""

from __future__ import annotations

from typing import NamedTuple

from copycat.raft.configuration import Configuration

__all__ = ["BrokenLaw", "Entry", "History"]


class Entry(NamedTuple):
    """One entry of a list log."""

    term: int
    payload: str


class BrokenLaw(AssertionError):
    """A law across members does not hold; the message names it and the values."""


def law(holds: object, name: str, **values: object) -> None:
    """Raise BrokenLaw unless `holds`."""
    if not holds:
        raise BrokenLaw(f"{name}: {values!r}")


class History:
    """What was ever said or committed by anybody."""

    def __init__(self) -> None:
        self.leaders: dict[int, int] = {}
        self.votes: dict[tuple[int, int], int] = {}
        self.entries: dict[tuple[int, int], tuple[str, int]] = {}
        self.committed: list[Entry] = []
        self.commit_max = 0
        self.read_index_min: dict[tuple[int, int], int] = {}
        self.configurations: dict[int, Configuration] = {}

    def begin_anew(self, configuration: Configuration) -> None:
        """Every log was lost; who the members are was not."""
        self.committed, self.commit_max = [], 0
        self.configurations = {0: configuration}

    def elected(self, member: int, term: int, log: list[Entry]) -> None:
        """I1, and leader completeness (I6): it holds all that was ever committed."""
        first = self.leaders.setdefault(term, member)
        law(first == member, "I1 one leader a term", term=term, first=first, second=member)
        mine = log[: len(self.committed)]
        law(mine == self.committed, "I6 a leader lacks committed entries", member=member)

    def voted(self, voter: int, term: int, candidate: int, durable: tuple[int, int]) -> None:
        """I2: at most one vote a term on the wire, and on the disk before that."""
        first = self.votes.setdefault((voter, term), candidate)
        law(first == candidate, "I2 one vote a term", voter=voter, term=term, votes=(first,))
        law(durable == (term, candidate), "I2 durable vote", voter=voter, disk=durable)

    def appended(self, index: int, entry: Entry, previous_term: int) -> None:
        """I5: same index and term, same payload and same predecessor."""
        first = self.entries.setdefault((index, entry.term), (entry.payload, previous_term))
        law(first == (entry.payload, previous_term), "I5 log matching", index=index, entry=entry)

    def acknowledged(self, member: int, match_index: int, durable_log: list[Entry]) -> None:
        """I3: what is promised is on the disk."""
        law(
            match_index <= len(durable_log),
            "I3 acks tell the truth",
            member=member,
            at=match_index,
        )

    def installed(self, member: int, entries: list[Entry]) -> None:
        """I12: a snapshot is a prefix of what was committed."""
        same = entries == self.committed[: len(entries)]
        law(entries and same, "I12 snapshot is a prefix", member=member, length=len(entries))

    def deletions_allowed(self, deletion_floor: int, member: int, durable: list[Entry]) -> None:
        """C23, I22: nobody is below a floor that anybody knows, whatever crashed."""
        law(
            deletion_floor <= len(durable),
            "C23 below the floor",
            member=member,
            deletion_floor=deletion_floor,
        )

    def commit(self, index: int, log: list[Entry], durable_logs: list[list[Entry]]) -> None:
        """I6: committed is for ever and durable on a majority (I7, Figure 8).

        durable_logs: of the voters of the configuration that the leader counts by.
        """
        before = self.committed[:index]
        mine = log[:index]
        law(mine[: len(before)] == before, "I6 committed is for ever", index=index)
        law(len(mine) == index, "I4 commit beyond the log", index=index)
        if index > len(self.committed):
            copies = sum(durable_log[:index] == mine for durable_log in durable_logs)
            law(
                2 * copies > len(durable_logs),
                "I6 durable on a majority",
                index=index,
                copies=copies,
            )
            self.committed = mine
        self.commit_max = max(self.commit_max, index)

    def configuration_committed(self, configuration: Configuration) -> None:
        """C35: one configuration at an index, and each gives one vote or takes one at most."""
        entry = configuration.entry
        first = self.configurations.setdefault(entry.index, configuration)
        law(first == configuration, "C35 two configurations are committed", first=first)
        before = [index for index in self.configurations if index < entry.index]
        if before and max(self.configurations) == entry.index:
            voters = set(self.configurations[max(before)].voters)
            changed = voters.symmetric_difference(configuration.voters)
            law(len(changed) <= 1, "C35 one vote at a time", changed=changed)

    def matched(self, match_index: int, log: list[Entry], durable_log: list[Entry]) -> None:
        """I9: a leader's match is within the common durable prefix."""
        if match_index:
            same = durable_log[match_index - 1 : match_index] == log[match_index - 1 : match_index]
            law(
                same, "I9 match is a fact", match_index=match_index, durable_index=len(durable_log)
            )

    def read_requested(self, member: int, token: int) -> None:
        """A read arrives: it must see everything that is committed now (I14)."""
        self.read_index_min[member, token] = self.commit_max

    def read_answered(self, member: int, token: int, index: int) -> None:
        """I14: one token answers all before it, so check each of them."""
        for key, least in list(self.read_index_min.items()):
            if key[0] == member and key[1] <= token:
                law(index >= least, "I14 stale read", member=member, token=key[1], least=least)
                del self.read_index_min[key]
