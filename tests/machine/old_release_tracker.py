"""A machine whose snapshot of commit 5da3045 stands in `golden_snapshot.txt`, as hexadecimal."""

from __future__ import annotations

import dataclasses
import enum
from collections import defaultdict, deque
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec

from copycat.machine import ServerSession, StateMachine, command
from copycat.machine.commit import Commit
from tests.machine.runs import Script

__all__ = ["Account", "Accounts", "Color", "Line", "Pair", "script_of"]


class Color(enum.Enum):
    RED = "r"
    BLUE = "b"


class Pair(NamedTuple):
    left: int
    right: str


@dataclasses.dataclass
class Account:
    owner: str
    balance: int = 0


class Line(msgspec.Struct):
    account: Account
    color: Color = Color.RED


class Accounts(StateMachine):
    """Has something of each kind in its state."""

    accounts: dict[str, Account]
    lines: list[Line]
    pair: Pair

    def __init__(self) -> None:
        self.accounts = {}
        self.lines = []
        self.pair = Pair(1, "one")
        self.names: set[str] = set()
        self.fixed = frozenset({"a"})
        self.counts: defaultdict[str, int] = defaultdict(int)
        self.recent: deque[int] = deque(maxlen=2)
        self.at: datetime | None = None
        self.owner: ServerSession | None = None
        self.commits: list[Commit[Any]] = []
        self.heard: list[str] = []

    @command
    def add(self, name: str, balance: int) -> int:
        account = self.accounts.setdefault(name, Account(name))
        account.balance += balance
        self.lines.append(Line(account, Color.BLUE))
        self.pair = Pair(balance, name)
        self.names.add(name)
        self.counts[name] += 1
        self.recent.append(balance)
        self.at = self.context.clock.now()
        self.owner = self.commit.session
        self.commits.append(self.commit)
        self.executor.schedule(60, self.ring)
        return account.balance

    @command(key="name")
    def touch(self, name: str) -> None:
        self.at = datetime(2026, 1, 2, tzinfo=UTC)

    def ring(self) -> None:
        self.heard.append("ring")


def script_of(machine: StateMachine) -> Script:
    """The commands that the golden snapshot follows from."""
    script = Script(machine)
    session = script.register()
    commands = [Accounts.add("ann", 2**40), Accounts.add("bob", 5), Accounts.add("ann", 1)]
    script.commands(session, [*commands, Accounts.touch("ann")])
    return script
