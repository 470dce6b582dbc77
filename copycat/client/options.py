"""The options of a client, and its states."""

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
"""How many seconds `connect` tries by default."""
TIMEOUT_S = 30.0
"""How many seconds a submission waits by default."""


class ClientState(enum.StrEnum):
    """Whether the client is connected to its cluster."""

    CONNECTED = "connected"
    SUSPENDED = "suspended"
    """No server answers now: submissions wait, and the session may expire."""
    CLOSED = "closed"


class RecoveryStrategy(enum.StrEnum):
    """What a client does when its session has expired.

    In both cases commands whose outcome is unknown fail with `SessionExpiredError`.
    """

    CLOSE = "close"
    RECOVER = "recover"
    """Open a new session. A command takes effect exactly once within one session only."""


class ServerSelection(enum.StrEnum):
    """Which servers a client prefers to connect to."""

    ANY = "any"
    LEADER = "leader"
    FOLLOWERS = "followers"


RecoveryLike: TypeAlias = RecoveryStrategy | Literal["close", "recover"]
SelectionLike: TypeAlias = ServerSelection | Literal["any", "leader", "followers"]


class Backoff(msgspec.Struct, frozen=True):
    """How long to wait between rounds of attempts to connect; a round tries every server once.

    kind: "once", "exponential" or "fibonacci". initial: seconds before the second round; maximum:
    the longest wait in seconds. give_up_after: for how many seconds `connect` tries; float("inf")
    for ever.
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
        """One round only."""
        return cls("once", 0.0, 0.0, 0.0)

    @classmethod
    def exponential(
        cls,
        initial: Duration = 0.05,
        maximum: Duration = 1.0,
        give_up_after: Duration = CONNECT_S,
    ) -> Self:
        """Each wait is twice the one before, up to `maximum` seconds."""
        return cls("exponential", seconds(initial), seconds(maximum), seconds(give_up_after))

    @classmethod
    def fibonacci(
        cls,
        initial: Duration = 0.05,
        maximum: Duration = 1.0,
        give_up_after: Duration = CONNECT_S,
    ) -> Self:
        """Waits of 1, 1, 2, 3, 5 ... times `initial` seconds, up to `maximum`."""
        return cls("fibonacci", seconds(initial), seconds(maximum), seconds(give_up_after))

    def delay(self, attempt: int) -> float:
        """Seconds to wait before round `attempt`; the first round is 0, and has no wait."""
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
    """The options of a client, checked together. Times in seconds, sizes in bytes.

    One ConfigurationError names all problems.
    """

    members: tuple[Address, ...]
    client_id: str
    cluster_name: str = ""
    """The name of the cluster to connect to; empty for any cluster."""
    session_timeout: float
    timeout: float = TIMEOUT_S
    """Of a submission without a timeout of its own; infinity: as long as the session is open."""
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
