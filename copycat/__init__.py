"""copycat: a durable log and a replicated state machine you import.

Names are imported when they are first used: `from copycat import Log` needs neither asyncio
nor msgspec nor numpy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from copycat.client.client import (
        CopycatClient,
        Session,
        connect,
    )
    from copycat.client.healing_policy import (
        HealingPolicy,
    )
    from copycat.client.options import (
        Backoff,
        ClientState,
        RecoveryStrategy,
        ServerSelection,
    )
    from copycat.config import (
        Address,
        Storage,
    )
    from copycat.errors import (
        AddressInUseError,
        ApplicationError,
        ChangeInProgressError,
        ChangeRefusedError,
        ChangeSupersededError,
        ClosedSessionError,
        ClusterReplacedError,
        CommandError,
        ConfigurationError,
        CopycatError,
        CorruptLogError,
        DirectoryInUseError,
        DirectoryRefusedError,
        DiskError,
        DiskFullError,
        EntryTooLargeError,
        ForkedProcessError,
        FormatVersionError,
        IllegalMemberStateError,
        InternalError,
        InvariantError,
        LastVoterError,
        LogPoisonedError,
        MachineMismatchError,
        MajorityAtRiskError,
        MemberIdReusedError,
        MemberUnreachableError,
        MemoryShortageError,
        NoLeaderError,
        NotLeaderError,
        OperationTimeout,
        OutOfMemoryError,
        OverloadedError,
        PromotionTimeoutError,
        ProtocolError,
        QueryError,
        QuorumLostError,
        RecoveryRefusedError,
        ResourceError,
        SerializationError,
        SessionError,
        SessionExpiredError,
        StaleConfigurationError,
        StateDivergedError,
        StorageError,
        SyncUnsupportedError,
        TransferFirstError,
        UnknownMemberError,
        UnknownSessionError,
        VersionMismatchError,
        WrongDirectoryError,
    )
    from copycat.listeners import (
        Listener,
    )
    from copycat.log.compactor import (
        Compactor,
    )
    from copycat.log.log import (
        Entry,
        Log,
        Segment,
    )
    from copycat.machine import (
        Clock,
        Commit,
        Scheduled,
        ServerSession,
        Sessions,
        StateMachine,
        StateMachineContext,
        StateMachineExecutor,
        command,
        query,
    )
    from copycat.protocol.operations import (
        Command,
        CompactionMode,
        Operation,
        Query,
    )
    from copycat.server.cluster import (
        Cluster,
    )
    from copycat.server.member import (
        Member,
    )
    from copycat.server.server import (
        CopycatServer,
    )
    from copycat.server.snapshot import (
        Snapshot,
    )
    from copycat.types import (
        Compaction,
        CompactionReport,
        ConsistencyLevel,
        Durability,
        MemberStatus,
        MemberType,
        ServerState,
        SessionState,
        StorageLevel,
    )

__version__ = "0.1.0"

__all__ = [
    "Address",
    "AddressInUseError",
    "ApplicationError",
    "Backoff",
    "ChangeInProgressError",
    "ChangeRefusedError",
    "ChangeSupersededError",
    "ClientState",
    "Clock",
    "ClosedSessionError",
    "Cluster",
    "ClusterReplacedError",
    "Command",
    "CommandError",
    "Commit",
    "Compaction",
    "CompactionMode",
    "CompactionReport",
    "Compactor",
    "ConfigurationError",
    "ConsistencyLevel",
    "CopycatClient",
    "CopycatError",
    "CopycatServer",
    "CorruptLogError",
    "DirectoryInUseError",
    "DirectoryRefusedError",
    "DiskError",
    "DiskFullError",
    "Durability",
    "Entry",
    "EntryTooLargeError",
    "ForkedProcessError",
    "FormatVersionError",
    "HealingPolicy",
    "IllegalMemberStateError",
    "InternalError",
    "InvariantError",
    "LastVoterError",
    "Listener",
    "Log",
    "LogPoisonedError",
    "MachineMismatchError",
    "MajorityAtRiskError",
    "Member",
    "MemberIdReusedError",
    "MemberStatus",
    "MemberType",
    "MemberUnreachableError",
    "MemoryShortageError",
    "NoLeaderError",
    "NotLeaderError",
    "Operation",
    "OperationTimeout",
    "OutOfMemoryError",
    "OverloadedError",
    "PromotionTimeoutError",
    "ProtocolError",
    "Query",
    "QueryError",
    "QuorumLostError",
    "RecoveryRefusedError",
    "RecoveryStrategy",
    "ResourceError",
    "Scheduled",
    "Segment",
    "SerializationError",
    "ServerSelection",
    "ServerSession",
    "ServerState",
    "Session",
    "SessionError",
    "SessionExpiredError",
    "SessionState",
    "Sessions",
    "Snapshot",
    "StaleConfigurationError",
    "StateDivergedError",
    "StateMachine",
    "StateMachineContext",
    "StateMachineExecutor",
    "Storage",
    "StorageError",
    "StorageLevel",
    "SyncUnsupportedError",
    "TransferFirstError",
    "UnknownMemberError",
    "UnknownSessionError",
    "VersionMismatchError",
    "WrongDirectoryError",
    "command",
    "connect",
    "query",
]

_HOMES = {
    "copycat.client.client": "CopycatClient Session connect",
    "copycat.client.healing_policy": "HealingPolicy",
    "copycat.client.options": "Backoff ClientState RecoveryStrategy ServerSelection",
    "copycat.config": "Address Storage",
    "copycat.errors": (
        "AddressInUseError ApplicationError ChangeInProgressError ChangeRefusedError "
        "ChangeSupersededError ClosedSessionError ClusterReplacedError CommandError "
        "ConfigurationError CopycatError CorruptLogError DirectoryInUseError "
        "DirectoryRefusedError DiskError DiskFullError "
        "EntryTooLargeError ForkedProcessError FormatVersionError IllegalMemberStateError "
        "InternalError InvariantError LastVoterError LogPoisonedError "
        "MachineMismatchError MajorityAtRiskError MemberIdReusedError "
        "MemberUnreachableError MemoryShortageError NoLeaderError NotLeaderError "
        "OperationTimeout OutOfMemoryError OverloadedError PromotionTimeoutError "
        "ProtocolError QueryError QuorumLostError RecoveryRefusedError ResourceError "
        "SerializationError "
        "SessionError SessionExpiredError StaleConfigurationError StateDivergedError "
        "StorageError SyncUnsupportedError TransferFirstError UnknownMemberError "
        "UnknownSessionError VersionMismatchError WrongDirectoryError"
    ),
    "copycat.listeners": "Listener",
    "copycat.log.compactor": "Compactor",
    "copycat.log.log": "Entry Log Segment",
    "copycat.machine": (
        "Clock Commit Scheduled ServerSession Sessions StateMachine StateMachineContext "
        "StateMachineExecutor command query"
    ),
    "copycat.protocol.operations": "Command CompactionMode Operation Query",
    "copycat.server.cluster": "Cluster",
    "copycat.server.member": "Member",
    "copycat.server.server": "CopycatServer",
    "copycat.server.snapshot": "Snapshot",
    "copycat.types": (
        "Compaction CompactionReport ConsistencyLevel Durability MemberStatus MemberType "
        "ServerState SessionState StorageLevel"
    ),
}
"""Which module has which public names."""

_HOME_OF = {name: home for home, names in _HOMES.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The public names, and what every module has; not what this file needs to import them."""
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})
