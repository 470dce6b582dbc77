"""What a client is told, and the words for its state."""

from __future__ import annotations

import enum
from typing import Self

import msgspec

from copycat.config import Address, Duration, seconds
from copycat.errors import ConfigurationError

__all__ = ["Backoff", "ClientOptions", "ClientState", "RecoveryStrategy", "ServerSelection"]


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
    """Open a new session; exactly-once does not span the gap (B17)."""


class ServerSelection(enum.StrEnum):
    """Which servers to connect to (B4)."""

    ANY = "any"
    LEADER = "leader"
    FOLLOWERS = "followers"


class Backoff(msgspec.Struct, frozen=True):
    """How long to wait between rounds of tries to open a session; each round asks every server.

    `kind` is "once", "exponential" or "fibonacci"; times in seconds.
    """

    kind: str = "exponential"
    initial: float = 0.05
    maximum: float = 1.0
    give_up_after: float = float("inf")

    @classmethod
    def once(cls) -> Self:
        """One round, then the error."""
        return cls("once", 0.0, 0.0, 0.0)

    @classmethod
    def exponential(cls, initial: Duration = 0.05, maximum: Duration = 1.0) -> Self:
        """Doubling waits, for ever."""
        return cls("exponential", seconds(initial), seconds(maximum))

    @classmethod
    def fibonacci(cls, initial: Duration = 0.05, maximum: Duration = 1.0) -> Self:
        """Waits of 1, 1, 2, 3, 5 ... times `initial`, for ever."""
        return cls("fibonacci", seconds(initial), seconds(maximum))

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


class ClientOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a client was told, checked as a whole. Times in seconds, sizes in bytes."""

    members: tuple[Address, ...]
    client_id: str
    session_timeout: float
    backoff: Backoff
    selection: ServerSelection
    recovery: RecoveryStrategy
    max_entry_size: int
    insecure: bool

    def __post_init__(self) -> None:
        problems = []
        if not 0 < len(self.client_id.encode()) <= 255:
            problems.append(f"client_id ({self.client_id!r}) must be 1 to 255 bytes")
        if not 0.1 <= self.session_timeout <= 86400:
            problems.append(f"session_timeout ({self.session_timeout:g} s) must be 0.1 to 86400 s")
        if not 1 <= self.max_entry_size <= 16 << 20:
            problems.append(f"max_entry_size ({self.max_entry_size}) must be 1 to 16777216 bytes")
        problems += [
            f"sending to {member} in plaintext lets anybody on the network read and write: TLS"
            " is not built yet, so pass insecure=True on a network that you trust"
            for member in self.members
            if not (member.is_loopback or self.insecure)
        ]
        if problems:
            raise ConfigurationError("; ".join(problems))
