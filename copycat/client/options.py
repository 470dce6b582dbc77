"""What a client is told, and the words for its state."""

from __future__ import annotations

import enum
from typing import Literal, Self, TypeAlias, TypedDict

import msgspec

from copycat.config import Address, Duration, plaintext_problems, seconds
from copycat.errors import ConfigurationError

__all__ = [
    "Backoff",
    "ClientOptions",
    "ClientSettings",
    "ClientState",
    "RecoveryLike",
    "RecoveryStrategy",
    "SelectionLike",
    "ServerSelection",
]

CONNECT_S = 10.0
"""How long `connect` tries by default."""
TIMEOUT_S = 30.0
"""How long a submission waits by default."""


class ClientState(enum.StrEnum):
    """Whether commands reach the cluster now."""

    CONNECTED = "connected"
    SUSPENDED = "suspended"
    """No server answers at the moment; submissions wait, the session may expire."""
    CLOSED = "closed"


class RecoveryStrategy(enum.StrEnum):
    """What happens when the session expired. Unknown outcomes are reported either way."""

    CLOSE = "close"
    RECOVER = "recover"
    """Open a new session; exactly-once does not span the gap."""


class ServerSelection(enum.StrEnum):
    """Which servers to connect to."""

    ANY = "any"
    LEADER = "leader"
    FOLLOWERS = "followers"


RecoveryLike: TypeAlias = RecoveryStrategy | Literal["close", "recover"]
SelectionLike: TypeAlias = ServerSelection | Literal["any", "leader", "followers"]


class Backoff(msgspec.Struct, frozen=True):
    """How long to wait between rounds of tries to open a session; each round asks every server.

    `kind` is "once", "exponential" or "fibonacci"; times in seconds. `give_up_after`: so long
    `connect` tries, then it raises; float("inf") for ever.
    """

    kind: Literal["once", "exponential", "fibonacci"] = "exponential"
    initial: float = 0.05
    maximum: float = 1.0
    give_up_after: float = CONNECT_S

    def __post_init__(self) -> None:
        if self.kind not in ("once", "exponential", "fibonacci"):
            raise ConfigurationError(
                f'Backoff: kind ({self.kind!r}) must be "once", "exponential" or "fibonacci"'
            )
        for name in ("initial", "maximum", "give_up_after"):
            value = getattr(self, name)
            if not (isinstance(value, int | float) and value >= 0):
                raise ConfigurationError(f"Backoff: {name} ({value!r}) must be seconds, 0 or more")

    @classmethod
    def once(cls) -> Self:
        """One round, then the error."""
        return cls("once", 0.0, 0.0, 0.0)

    @classmethod
    def exponential(
        cls,
        initial: Duration = 0.05,
        maximum: Duration = 1.0,
        give_up_after: Duration = CONNECT_S,
    ) -> Self:
        """Doubling waits."""
        return cls("exponential", seconds(initial), seconds(maximum), seconds(give_up_after))

    @classmethod
    def fibonacci(
        cls,
        initial: Duration = 0.05,
        maximum: Duration = 1.0,
        give_up_after: Duration = CONNECT_S,
    ) -> Self:
        """Waits of 1, 1, 2, 3, 5 ... times `initial`."""
        return cls("fibonacci", seconds(initial), seconds(maximum), seconds(give_up_after))

    def delay(self, attempt: int) -> float:
        """Seconds before round `attempt` (the first round is 0 and waits for nothing)."""
        if attempt == 0:
            return 0.0
        if self.kind == "fibonacci":
            before, now = 0.0, self.initial
            for _ in range(attempt - 1):
                before, now = now, min(before + now, self.maximum)
            return now
        return min(self.initial * float(1 << min(attempt - 1, 32)), self.maximum)


class ClientSettings(TypedDict, total=False):
    """The keyword options of a client, asyncio or blocking: see `CopycatClient`."""

    client_id: str | None
    cluster_name: str | None
    session_timeout: Duration
    timeout: Duration
    connection_strategy: Backoff | None
    server_selection: SelectionLike
    recovery_strategy: RecoveryLike
    max_entry_size: int
    insecure: bool


_PORT_0 = ": give the port that the server prints, server.address has it"


class ClientOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a client was told, checked as a whole. Times in seconds, sizes in bytes."""

    members: tuple[Address, ...]
    client_id: str
    cluster_name: str = ""
    """Of the cluster that is meant; empty for any."""
    session_timeout: float
    timeout: float = TIMEOUT_S
    """For a submission that gives none; infinity for as long as the session lives."""
    backoff: Backoff
    selection: ServerSelection
    recovery: RecoveryStrategy
    max_entry_size: int
    insecure: bool

    def __post_init__(self) -> None:
        problems = []
        if not (
            isinstance(self.client_id, str)
            and 0 < len(self.client_id.encode(errors="replace")) <= 255
        ):
            problems.append(f"client_id ({self.client_id!r}) must be 1 to 255 bytes")
        name = self.cluster_name
        if not (isinstance(name, str) and len(name.encode(errors="replace")) <= 255):
            problems.append(f"cluster_name ({name!r}) must be at most 255 bytes")
        if not 0.1 <= self.session_timeout <= 86400:
            problems.append(f"session_timeout ({self.session_timeout:g} s) must be 0.1 to 86400 s")
        if not self.timeout > 0:
            problems.append(f"timeout ({self.timeout:g} s) must be above 0 s")
        if not isinstance(self.backoff, Backoff):
            call = ": call it" if callable(self.backoff) else ""
            problems.append(f"connection_strategy ({self.backoff!r}) must be a Backoff{call}")
        if not isinstance(self.insecure, bool):
            problems.append(f"insecure ({self.insecure!r}) must be True or False")
        size = self.max_entry_size
        if not isinstance(size, int) or isinstance(size, bool) or not 1 <= size <= 16 << 20:
            problems.append(f"max_entry_size ({size!r}) must be 1 to 16777216 bytes")
        problems += [
            f"address {member} has port 0, where nobody listens" + _PORT_0
            for member in self.members
            if member.port == 0
        ]
        if not self.insecure:
            problems += plaintext_problems("sending to", self.members, "pass insecure=True")
        if problems:
            raise ConfigurationError("; ".join(problems))
