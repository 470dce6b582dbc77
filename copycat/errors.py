"""Every error that copycat raises. Each is a type with fields, a code and a hint.

CopycatError
├── ConfigurationError (ValueError)
│   ├── UnknownMemberError
│   └── StaleConfigurationError
├── ChangeRefusedError
│   ├── ChangeInProgressError
│   ├── ChangeSupersededError
│   ├── LastVoterError
│   ├── MajorityAtRiskError
│   ├── MemberIdReusedError
│   ├── MemberUnreachableError
│   ├── PromotionTimeoutError
│   └── TransferFirstError
├── NoLeaderError
│   ├── NotLeaderError
│   └── QuorumLostError
├── CommandError
├── QueryError
├── ApplicationError
├── IllegalMemberStateError
├── SessionError
│   ├── UnknownSessionError
│   │   └── SessionExpiredError
│   ├── ClosedSessionError
│   └── ClusterReplacedError
├── SerializationError (TypeError)
├── EntryTooLargeError (ValueError)
├── StateDivergedError
├── MemoryShortageError (MemoryError)
├── StorageError
│   ├── DirectoryInUseError
│   ├── RecoveryRefusedError
│   ├── WrongDirectoryError
│   │   └── DirectoryRefusedError
│   ├── CorruptLogError
│   ├── FormatVersionError
│   ├── SyncUnsupportedError
│   ├── DiskFullError (OSError)
│   ├── DiskError (OSError)
│   │   └── ResourceError
│   │       └── OutOfMemoryError (MemoryError)
│   └── LogPoisonedError
├── AddressInUseError (OSError)
├── VersionMismatchError
│   └── MachineMismatchError
├── ProtocolError
├── ForkedProcessError (RuntimeError)
├── OperationTimeout (TimeoutError)
├── OverloadedError
└── InternalError
    └── InvariantError
"""

from __future__ import annotations

import errno
from typing import Any, ClassVar, NoReturn

__all__ = [
    "AddressInUseError",
    "ApplicationError",
    "ChangeInProgressError",
    "ChangeRefusedError",
    "ChangeSupersededError",
    "ClosedSessionError",
    "ClusterReplacedError",
    "CommandError",
    "ConfigurationError",
    "CopycatError",
    "CorruptLogError",
    "DirectoryInUseError",
    "DirectoryRefusedError",
    "DiskError",
    "DiskFullError",
    "EntryTooLargeError",
    "ForkedProcessError",
    "FormatVersionError",
    "IllegalMemberStateError",
    "InternalError",
    "InvariantError",
    "LastVoterError",
    "LogPoisonedError",
    "MachineMismatchError",
    "MajorityAtRiskError",
    "MemberIdReusedError",
    "MemberUnreachableError",
    "MemoryShortageError",
    "NoLeaderError",
    "NotLeaderError",
    "OperationTimeout",
    "OutOfMemoryError",
    "OverloadedError",
    "PromotionTimeoutError",
    "ProtocolError",
    "QueryError",
    "QuorumLostError",
    "RecoveryRefusedError",
    "ResourceError",
    "SerializationError",
    "SessionError",
    "SessionExpiredError",
    "StaleConfigurationError",
    "StateDivergedError",
    "StorageError",
    "SyncUnsupportedError",
    "TransferFirstError",
    "UnknownMemberError",
    "UnknownSessionError",
    "VersionMismatchError",
    "WrongDirectoryError",
    "require",
    "unreachable",
]


class CopycatError(Exception):
    """The base class. `str()` says what happened; `render()` adds code, state and hint.

    code: a stable name, also of the section in docs/reference/errors.md.
    hint: what to do, one action per line, or None.  state: more facts, one per line, or None.
    retryable: the same call may succeed later.  outcome_unknown: the call may have taken effect.
    Each class declares its fields, with the value that a field has when nothing is known. The
    constructor takes them by keyword, and refuses (TypeError) a field that was not declared.
    """

    code: ClassVar[str] = "copycat"
    default_hint: ClassVar[str | None] = None
    retryable: bool = False
    outcome_unknown: bool = False
    takes_any_field: ClassVar[bool] = False
    """Whether the constructor takes fields that were not declared: for errors of user code."""

    # An error that a client raises may have these, whatever its type.
    operation: Any = None
    """What was submitted."""
    pending: tuple[object, ...] = ()
    """Operations that were sent and have no reply: they may take effect."""
    unsent: tuple[object, ...] = ()
    """Operations that were never sent."""
    missing: tuple[str, ...] = ()
    """Addresses of members that are not reachable."""
    since: float = 0.0
    """For how many seconds they have been missing."""
    leader: str | None = None
    """Address of the leader, where a server named it."""
    refusal: int = 0
    """The code of the refusal, when a server sent one."""
    type_name: str = ""
    """The type of the exception that a state machine raised, and its text."""
    text: str = ""

    def __init__(
        self, message: str, *, hint: str | None = None, state: str | None = None, **fields: object
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint if hint is not None else self.default_hint
        self.state = state
        for name, value in fields.items():
            if not (self.takes_any_field or hasattr(type(self), name)):
                raise TypeError(f"{type(self).__name__} has no field {name!r}")
            setattr(self, name, value)
        if state:
            self.add_note(_indented(state))
        if self.hint:
            self.add_note("\n".join(f"  hint: {line}" for line in self.hint.splitlines()))

    def __str__(self) -> str:
        return self.message

    @property
    def docs_url(self) -> str:
        """Where this code is explained."""
        return f"docs/reference/errors.md#{self.code}"

    def render(self) -> str:
        """`error[code]: message`, then the state, then `hint:` lines."""
        return "\n".join([f"error[{self.code}]: {self.message}", *getattr(self, "__notes__", [])])


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())


class ConfigurationError(CopycatError, ValueError):
    code = "bad-config"
    default_hint = "correct the settings that the message names; nothing was started"
    stored: tuple[str, ...] = ()
    """The members that the directory was founded with, and those that were given now."""
    given: tuple[str, ...] = ()


class UnknownMemberError(ConfigurationError):
    code = "unknown-member"
    default_hint = "use one of the members that the message names"


class StaleConfigurationError(ConfigurationError):
    """The change was asked for by a configuration that another change has replaced."""

    code = "stale-configuration"
    default_hint = "look at the members, and ask again if the change is still what you want"
    retryable = True
    entry: tuple[int, int] = (0, 0)
    """Term and index of the entry that holds the configuration of now."""
    members: tuple[tuple[str, str], ...] = ()
    """Address and type of each member of it."""


class ChangeRefusedError(CopycatError):
    """The cluster did not make a change of its members, and nothing has changed."""

    code = "change-refused"
    default_hint = "look at the members: copycat cluster status"
    entry: tuple[int, int] = (0, 0)
    """Term and index of the entry that holds the configuration of now."""
    members: tuple[tuple[str, str], ...] = ()
    """Address and type of each member of it."""


class ChangeInProgressError(ChangeRefusedError):
    code = "change-in-progress"
    default_hint = "one change is made at a time: ask again in a second"
    retryable = True


class ChangeSupersededError(ChangeRefusedError):
    code = "change-superseded"
    default_hint = "somebody else has changed this member meanwhile: look at it before you repeat"


class LastVoterError(ChangeRefusedError):
    code = "last-voter"
    default_hint = "promote another member to active first"


class MajorityAtRiskError(ChangeRefusedError):
    """`missing`: addresses of the voters without which the change could stop the cluster."""

    code = "majority-at-risk"
    default_hint = "bring the missing voters back, or demote them first"


class MemberIdReusedError(ChangeRefusedError):
    code = "member-id-reused"
    default_hint = "join from an empty directory: the new member gets an id of its own"


class MemberUnreachableError(ChangeRefusedError):
    code = "member-unreachable"
    default_hint = "start the member, and check that the leader reaches its address"
    retryable = True


class PromotionTimeoutError(ChangeRefusedError):
    code = "promotion-timeout"
    default_hint = "see the log of that member: its disk or its link is slow"
    retryable = True


class TransferFirstError(ChangeRefusedError):
    code = "transfer-first"
    default_hint = "wait until another voter has caught up, and ask again"
    retryable = True


class NoLeaderError(CopycatError):
    code = "no-leader"
    default_hint = "try again after a second: the members may be electing a leader"
    retryable = True


class NotLeaderError(NoLeaderError):
    code = "not-leader"
    default_hint = "use server.client() or CopycatClient(...): a client finds the leader itself"


class QuorumLostError(NoLeaderError):
    """`missing`: addresses of the members that are not reachable; `since`: seconds of that."""

    code = "no-quorum"
    default_hint = "bring the missing members back; nothing is lost"


class CommandError(CopycatError):
    code = "command"
    default_hint = "the command may have taken effect: read the state before you repeat it"
    outcome_unknown = True


class QueryError(CopycatError):
    code = "query"
    default_hint = "the leader could not confirm its leadership: ask again"
    retryable = True


class ApplicationError(CopycatError):
    """The state machine raised: a result like any other, the same on every member (F23)."""

    code = "application"
    default_hint = "the state machine raised this exception, which is the result of the command"
    takes_any_field = True


class IllegalMemberStateError(CopycatError):
    code = "wrong-member-type"
    default_hint = "call another member, or this one when it is in the right state"


class SessionError(CopycatError):
    code = "session"
    default_hint = "open a new client"


class UnknownSessionError(SessionError):
    code = "unknown-session"
    default_hint = "open a new client: the cluster does not know this session"


class SessionExpiredError(UnknownSessionError):
    """`pending` lists the operations whose outcome is unknown."""

    code = "session-expired"
    default_hint = "move blocking work to asyncio.to_thread(), or raise session_timeout"
    outcome_unknown = True


class ClosedSessionError(SessionError):
    code = "closed-session"
    default_hint = "connect the client again, or open a new one"


class ClusterReplacedError(SessionError):
    """The servers are of a cluster with the old name that is not the session's: it has another
    incarnation. It executed nothing of the session. `pending` lists the operations whose outcome
    is unknown."""

    code = "cluster-replaced"
    default_hint = (
        "read the state of the new cluster before you repeat pending operations; then"
        " client.recover() opens a session there"
    )
    outcome_unknown = True


class SerializationError(CopycatError, TypeError):
    code = "not-serializable"
    default_hint = (
        "use plain values: str, int, float, bytes, datetime, Enum, dataclass, list, dict"
    )
    value: object = None
    """What has no encoding; or `operation`, with the field and what it was to be and is."""
    field: str = ""
    expected: str = ""
    got: str = ""
    place: str = ""
    """Where in the field."""


class EntryTooLargeError(CopycatError, ValueError):
    code = "entry-too-large"
    default_hint = "store the value elsewhere and log a reference to it, or raise max_entry_size"
    size: int = 0
    limit: int = 0


class StateDivergedError(CopycatError):
    code = "state-diverged"
    default_hint = "take time and random numbers from self.context, and sort sets"
    index: int = 0


class MemoryShortageError(CopycatError, MemoryError):
    """The state machine was refused memory that another member may have got (F23): this member
    stops before the result counts. `index` is the entry."""

    code = "memory-shortage"
    default_hint = "give the process more memory and start it again"
    index: int = 0


class StorageError(CopycatError):
    code = "storage"
    default_hint = "the message says why"
    path: str = ""


class DirectoryInUseError(StorageError):
    code = "directory-in-use"
    default_hint = "stop the process that uses the directory, or use another directory"
    pid: int = 0
    """The process that holds it; 0 when that is not known."""


class WrongDirectoryError(StorageError):
    code = "wrong-directory"
    default_hint = "give each member its own directory"
    field: str = ""
    """What of the directory's identity is another one than expected."""
    expected: object = None
    actual: object = None


class DirectoryRefusedError(WrongDirectoryError):
    """The cluster knows that the directory lacks what its member had: it is new, a copy, or an
    older copy of itself (C16, C42). No member is it any more."""

    code = "directory-refused"
    default_hint = "start it with `rejoin` (the default), and it comes back as a new member"
    acknowledged_index: int = 0
    """Up to this entry the member had the log, as the leader knows; 0: it does not say."""
    last_index: int = 0
    """Where the log in the directory ends."""


class RecoveryRefusedError(StorageError):
    """No new cluster may be made of a directory: it is not all that its member had."""

    code = "recovery-refused"
    default_hint = "take another survivor: copycat recover --show DIR says what each of them has"


class CorruptLogError(StorageError):
    """Bytes that were acknowledged fail their checksum; nothing was changed on disk."""

    code = "corrupt-log"
    default_hint = "`copycat log verify DIRECTORY` says what is damaged, and what to do about it"
    offset: int = -1
    index: int = 0


class FormatVersionError(StorageError):
    code = "format-version"
    default_hint = "open the directory with the version of copycat that wrote it"
    version: object = None
    """The version there, and those that this version of copycat reads."""
    supported: object = None


class SyncUnsupportedError(StorageError):
    code = "sync-unsupported"
    default_hint = 'use a local disk, or accept the risk with durability = "os"'
    offset: int = -1
    operation: str = ""
    errno: int = 0


class DiskFullError(StorageError, OSError):
    code = "disk-full"
    default_hint = (
        "free some space; the log is whole, and accepts entries again when there is room\n"
        "server.take_snapshot() makes a member's log smaller, and `copycat compact` a closed log"
    )
    retryable = True
    offset: int = -1
    operation: str = ""
    free: int = -1
    """Bytes that are free, and how many must stay free; -1 when that is not known."""
    limit: int = -1

    def __init__(
        self, message: str, *, hint: str | None = None, state: str | None = None, **fields: object
    ) -> None:
        if hint is None and fields.get("errno") == errno.EFBIG:
            hint = (
                "this process may not write a file of that size: raise the limit (ulimit -f,"
                " RLIMIT_FSIZE), or lower max_segment_size"
            )
        super().__init__(message, hint=hint, state=state, **fields)


_NOT_ALLOWED = "run the program as the user who owns the file: ls -l shows the owner"
_HINTS_OF_ERRNO = {
    errno.EACCES: _NOT_ALLOWED,
    errno.EPERM: _NOT_ALLOWED,
}


def _hint_for(hints: dict[int, str], fields: dict[str, object]) -> str | None:
    number = fields.get("errno")
    return hints.get(number) if isinstance(number, int) else None


class DiskError(StorageError, OSError):
    """A write, sync or read failed (F9, F10): the process must stop, not retry.

    A ResourceError is the exception: there the system, not the disk, had nothing left.
    """

    code = "disk-error"
    default_hint = "check the disk; the next start copies the entries that may not be durable"
    offset: int = -1
    index: int = 0
    operation: str = ""
    """The call that failed, as in "read"; `errno` is the system's number."""

    def __init__(
        self, message: str, *, hint: str | None = None, state: str | None = None, **fields: object
    ) -> None:
        full_hint = hint or _hint_for(_HINTS_OF_ERRNO, fields)
        super().__init__(message, hint=full_hint, state=state, **fields)


_HINTS_OF_SHORTAGE = {
    errno.EMFILE: "raise the limit of open files (ulimit -n, RLIMIT_NOFILE), or close files",
    errno.ENFILE: "the whole system has too many open files: raise fs.file-max, or close files",
    errno.ENOMEM: "free some memory, or raise the limit (ulimit -v, a cgroup's memory.max)",
    errno.ENOLCK: "the whole system has too many locks: free some memory",
    errno.EAGAIN: "raise the limit of threads (ulimit -u, a cgroup's pids.max), or end threads",
}


class ResourceError(DiskError):
    """The system had no descriptor, thread, map or memory left for this call (F29).

    Nothing was written, nothing is lost or half done: the same call works when there is one.
    `errno` says what was lacking.
    """

    code = "no-resources"
    default_hint = "see ulimit -a for the limits of this process"
    retryable = True

    def __init__(
        self, message: str, *, hint: str | None = None, state: str | None = None, **fields: object
    ) -> None:
        full_hint = hint or _hint_for(_HINTS_OF_SHORTAGE, fields)
        super().__init__(message, hint=full_hint, state=state, **fields)


class OutOfMemoryError(ResourceError, MemoryError):
    """As ResourceError: the process got no memory for this call."""

    code = "out-of-memory"
    default_hint = _HINTS_OF_SHORTAGE[errno.ENOMEM]


class LogPoisonedError(StorageError):
    code = "log-poisoned"
    default_hint = "an earlier write or sync failed: stop this process and look at its disk"
    errno: int = 0
    cause: BaseException | None = None


class AddressInUseError(CopycatError, OSError):
    code = "address-in-use"
    default_hint = "stop the process that uses the address, or use another address"
    address: str = ""
    pid: int | None = None


class VersionMismatchError(CopycatError):
    code = "version-mismatch"
    default_hint = "upgrade one minor version at a time, followers first"


class MachineMismatchError(VersionMismatchError):
    """The machine's code does not fit what an older or newer version of it wrote; nothing of it
    was applied, and nothing on disk was changed.

    operation: as in "Inventory.receive"; index: its entry in the log, 0 when it was not logged.
    class_name and field: what in a snapshot does not fit.
    """

    code = "machine-mismatch"
    default_hint = (
        "run the same version of the machine's class on every member and client; if a command "
        'was renamed, add `@command(name="old")` to the method with the new name'
    )
    operation: str = ""
    index: int = 0
    class_name: str = ""
    field: str = ""


class ProtocolError(CopycatError):
    """The other side broke the protocol; its connection is closed (F20, F21)."""

    code = "protocol"
    default_hint = (
        "check that the port belongs to copycat, and that both sides have compatible versions"
    )
    offset: int = -1
    index: int = 0
    length: int = 0
    limit: int = 0


class ForkedProcessError(CopycatError, RuntimeError):
    code = "forked"
    default_hint = "open the log, server or client after the fork"
    pid: int = 0


class OperationTimeout(CopycatError, TimeoutError):
    code = "timeout"
    default_hint = "the operation may still take effect: read the state before you repeat it"
    outcome_unknown = True


class OverloadedError(CopycatError):
    """A client holds as many commands and queries without an answer as it may."""

    code = "overloaded"
    default_hint = "await earlier results before you submit more"
    retryable = True


class InternalError(CopycatError):
    code = "internal"
    default_hint = "this is a bug in copycat; please report it with the traceback"


class InvariantError(InternalError):
    """An invariant of copycat does not hold. Checks of invariants are always on (house rule 7)."""

    code = "invariant"
    rule: str = ""
    """Its number in docs/internals/rules.md, where a checker of the simulator found it."""
    path: str = ""
    offset: int = -1


def require(law: object, message: str, **values: object) -> None:
    """Raise InvariantError unless `law` holds. `values` go into the message."""
    if not law:
        raise InvariantError(_with_values(message, values))


def unreachable(message: str, **values: object) -> NoReturn:
    """Raise InvariantError: this line is reached only when a law was broken."""
    raise InvariantError(_with_values(message, values))


def _with_values(message: str, values: dict[str, object]) -> str:
    detail = ", ".join(f"{name}={value!r}" for name, value in values.items())
    return f"{message} ({detail})" if detail else message
