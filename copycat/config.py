"""Frozen settings, validated in one place with all problems at once. Seconds and bytes."""

from __future__ import annotations

import difflib
import enum
import functools
import hashlib
import numbers
import os
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias, TypedDict, TypeVar

import msgspec

from copycat.errors import ConfigurationError
from copycat.paths import absolute_path
from copycat.settings_file import read_table
from copycat.types import Durability, DurabilityLike, MemberId, StorageLevel, StorageLevelLike

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Unpack

__all__ = [
    "Address",
    "AddressLike",
    "CompressionName",
    "Duration",
    "LogOptions",
    "RaftOptions",
    "ServerOptions",
    "Storage",
    "StorageOptions",
    "choice",
    "member_id",
    "plaintext_problems",
    "seconds",
]

E = TypeVar("E", bound=enum.StrEnum)
SettingsT = TypeVar("SettingsT", "Storage", "RaftOptions")

Duration: TypeAlias = float | timedelta
"""Seconds, or a timedelta."""


_SIZES = frozenset({"max_segment_size", "max_entry_size", "snapshot_threshold", "min_free_space"})
"""Settings in bytes, which a settings file may write with a unit."""
_DAY = 86400.0
_YEAR = 365 * _DAY


def seconds(value: Duration, name: str = "") -> float:
    """The seconds of a public duration. ConfigurationError for what is no number of them.

    name: of the setting, for the message.
    """
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, numbers.Real) and not isinstance(value, bool):
        with suppress(OverflowError):
            return float(value)
    what = f"{name} ({value!r})" if name else repr(value)
    raise ConfigurationError(
        f"{what} is no duration", hint="give seconds as a number, or a timedelta"
    )


def choice(kind: type[E], value: Any, name: str) -> E:
    """The member of an enum of words that `value` is or names. ConfigurationError for others."""
    try:
        return kind(value)
    except ValueError:
        pass
    words = ", ".join(f'"{member.value}"' for member in kind)
    near = difflib.get_close_matches(str(value), [str(member.value) for member in kind], 1)
    raise ConfigurationError(
        f"{name} ({value!r}) must be one of {words}",
        hint=f'did you mean "{near[0]}"?' if near else None,
    )


class Address(msgspec.Struct, frozen=True):
    """Where a member listens: a host name or IP address, and a TCP port."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: AddressLike) -> Self:
        """Read `"host:port"`, `"[::1]:8700"`, `(host, port)` or an Address."""
        if isinstance(text, Address):
            text = (text.host, text.port)
        if isinstance(text, list | set | frozenset) or (
            isinstance(text, tuple) and any(isinstance(x, str) and ":" in x for x in text[1:])
        ):
            raise ConfigurationError(
                f"{text!r} is several addresses in one",
                hint="give each address as an argument of its own: (*addresses)",
            )
        if not isinstance(text, str | tuple):
            kind = type(text).__name__
            raise ConfigurationError(
                f"address {text!r} is of type {kind}; write it as text, host:port, or as a tuple"
            )
        try:
            host, port = msgspec.convert(
                _split(text) if isinstance(text, str) else text, tuple[str, int]
            )
        except msgspec.ValidationError as error:
            raise ConfigurationError(f"address {text!r}: {error}; write it as host:port") from None
        if not host or not host.isprintable() or any(c.isspace() for c in host):
            raise ConfigurationError(f"address {text!r} has no host: write it as host:port")
        if not 0 <= port <= 65535:
            raise ConfigurationError(f"address {text!r}: port {port} is not in 0 to 65535")
        return cls(host, port)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """True for addresses that only this machine can reach."""
        return self.host in ("localhost", "::1") or self.host.startswith("127.")

    @property
    def is_wildcard(self) -> bool:
        """True for an address that can be listened on but not dialled."""
        return self.host in ("0.0.0.0", "::")  # noqa: S104  (compared, never bound here)


AddressLike: TypeAlias = str | tuple[str, int] | Address


def plaintext_problems(verb: str, addresses: Iterable[Address], advice: str) -> list[str]:
    """Why each of these addresses may not be used in plaintext: it is not a loopback address.

    The one rule for plaintext: servers and clients call this when they are made, unless they were
    given `insecure=True`. verb: what is done with an address; advice: what to do instead.
    """
    return [
        f"{verb} {address} in plaintext lets anybody on the network read and write:"
        f" TLS is not built yet, so {advice} on a network that you trust"
        for address in addresses
        if not address.is_loopback
    ]


def _split(text: str) -> tuple[str, int]:
    if "://" in text:
        scheme, _, rest = text.partition("://")
        raise ConfigurationError(
            f"address {text!r} is a URL: write {rest.rstrip('/')!r}, without {scheme}://"
        )
    if "," in text or ";" in text:
        raise ConfigurationError(
            f"address {text!r} is several addresses in one",
            hint="give each address as an argument of its own",
        )
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ConfigurationError(f"address {text!r}: write an IPv6 host in brackets: [::1]:8700")
    if not colon or not port:
        raise ConfigurationError(f"address {text!r} has no port: write it as host:port")
    if not port.isascii() or not port.isdigit():
        raise ConfigurationError(
            f"address {text!r}: its port {port!r} is no number: write it as host:port"
        )
    if len(port) > _PORT_DIGITS:
        raise ConfigurationError(f"address {text!r}: port {port} is not in 0 to 65535")
    return host, int(port)


_PORT_DIGITS = 5
"""More of them are no port, and from 4,301 on no number that Python reads."""


CompressionName: TypeAlias = Literal["lz4", "none"]


class LogOptions(TypedDict, total=False):
    """The keywords of `Log.open`: every field of `Storage` but the directory."""

    level: StorageLevelLike
    durability: DurabilityLike
    sync_interval: float
    max_segment_size: int
    max_entries_per_segment: int
    max_entry_size: int
    entry_buffer_size: int
    compaction_threads: int
    minor_compaction_interval: float
    major_compaction_interval: float
    compaction_threshold: float
    snapshot_threshold: int
    retain_stale_snapshots: bool
    compression: CompressionName
    min_free_space: int


class StorageOptions(LogOptions, total=False):
    """The keywords of `Storage`."""

    directory: str | os.PathLike[str]


class Storage(msgspec.Struct, frozen=True, kw_only=True):
    """Where and how the log is kept. Sizes in bytes, times in seconds."""

    directory: str = "./copycat-data"
    """Absolute from the moment when the object is made; `~` is the user's home."""
    level: StorageLevel = StorageLevel.DISK
    durability: Durability = Durability.FSYNC
    sync_interval: float = 0.01
    """Longest time between two syncs with durability "interval"."""
    max_segment_size: int = 32 << 20
    max_entries_per_segment: int = 1 << 20
    max_entry_size: int = 1 << 20
    entry_buffer_size: int = 1024
    """So many of the newest entries are kept in memory, for followers and the machine."""
    compaction_threads: int = 1
    """Segments that are rewritten at the same time."""
    minor_compaction_interval: float = 60.0
    major_compaction_interval: float = 3600.0
    compaction_threshold: float = 0.5
    """A minor compaction takes a segment whose removable share times its version reaches this.

    The version counts up to 4, so above 4 no share reaches it, and only major compactions delete
    released entries."""
    snapshot_threshold: int = 64 << 20
    """A snapshot is taken when the log has grown by so many bytes since the last; 0: never."""
    retain_stale_snapshots: bool = False
    """Keep every snapshot, not only the newest two."""
    compression: str = "lz4"
    """Of snapshots and of segments that a compaction wrote: "lz4" or "none"."""
    min_free_space: int = 256 << 20
    """Appends are refused when they would leave less than this on the disk."""

    if TYPE_CHECKING:  # a field has one type; what is given may be text or a path too

        def __init__(self, **options: Unpack[StorageOptions]) -> None: ...

    @classmethod
    def from_toml(cls, path: str | os.PathLike[str]) -> Self:
        """The settings in the table `[storage]` of a TOML file, as `copycat tune` writes it.

        A size is a number of bytes or text as "32MiB"; a relative `directory` is relative to
        the folder of the file. What is not there has its default. ConfigurationError with all
        problems: unknown tables and keys, what is not a size, what does not fit.
        """
        file = absolute_path(path)
        names = {name for name, _, _ in _fields(cls)}
        settings = read_table(file, "storage", names, _SIZES)
        directory = settings.get("directory")
        if isinstance(directory, str) and directory and not directory.startswith("~"):
            settings["directory"] = str(Path(file).parent / directory)
        try:
            return cls(**settings)
        except ConfigurationError as cause:
            raise ConfigurationError(f"{file}: {cause}", hint=cause.hint) from cause

    def __post_init__(self) -> None:
        if isinstance(self.directory, os.PathLike):
            msgspec.structs.force_setattr(self, "directory", os.fspath(self.directory))
        _check_laws(self, _storage_laws, "storage.")
        msgspec.structs.force_setattr(self, "directory", absolute_path(self.directory))


def _check_laws(
    settings: SettingsT, laws: Callable[[SettingsT], list[tuple[str, str, bool]]], prefix: str = ""
) -> None:
    """ConfigurationError for all settings that are wrong, each with its value and its law."""
    problems = _type_problems(settings, prefix)
    for name, law, good in laws(settings):
        if name in problems:
            problems[name] += f"; it must be {law}"
        elif not good:
            problems[name] = f"{prefix}{name} ({getattr(settings, name)!r}) must be {law}"
    if problems:
        raise ConfigurationError("; ".join(problems.values()))


def _type_problems(settings: Storage | RaftOptions, prefix: str) -> dict[str, str]:
    """Take each setting as its type (text becomes an enum's member); say which do not fit.

    One that does not is its default from then on, for the sake of the laws alone.
    """
    problems = {}
    for name, type_, default in _fields(type(settings)):
        value = getattr(settings, name)
        try:
            fit = msgspec.convert(value, type_)
        except msgspec.ValidationError as error:
            problems[name] = f"{prefix}{name} ({value!r}){_what_fits(type_, error)}"
            fit = default
        msgspec.structs.force_setattr(settings, name, fit)
    return problems


def _what_fits(type_: Any, error: Exception) -> str:
    if isinstance(type_, type) and issubclass(type_, enum.StrEnum):
        *most, last = (f'"{member}"' for member in type_)
        return f" must be {', '.join(most)} or {last}"
    return f": {error}"


@functools.cache
def _fields(type_: type[Storage | RaftOptions]) -> tuple[tuple[str, Any, Any], ...]:
    """(name, type, default) of every setting."""
    return tuple((f.name, f.type, f.default) for f in msgspec.structs.fields(type_))


def _storage_laws(storage: Storage) -> list[tuple[str, str, bool]]:
    """(field, what it must be, whether it is) of every setting that has a law.

    A law names what is good: NaN, which compares as false with all, breaks every one of them.
    """
    return [
        ("directory", "a path in UTF-8: not empty, without NUL", _is_path(storage.directory)),
        ("sync_interval", "above 0, at most 365 days", 0 < storage.sync_interval <= _YEAR),
        ("max_segment_size", "8192 to 2147483648 bytes", _in(storage.max_segment_size, 8192, 31)),
        ("max_entries_per_segment", "1 to 16777216", _in(storage.max_entries_per_segment, 1, 24)),
        ("max_entry_size", "1 to 16777216 bytes", _in(storage.max_entry_size, 1, 24)),
        ("entry_buffer_size", "1 to 16777216", _in(storage.entry_buffer_size, 1, 24)),
        ("compaction_threads", "1 to 64", 1 <= storage.compaction_threads <= 64),
        (
            "minor_compaction_interval",
            "0.001 seconds to 365 days",
            0.001 <= storage.minor_compaction_interval <= _YEAR,
        ),
        (
            "major_compaction_interval",
            "0.001 seconds to 365 days",
            0.001 <= storage.major_compaction_interval <= _YEAR,
        ),
        (
            "compaction_threshold",
            "above 0, at most 1e9 (above 4 it is never reached)",
            0 < storage.compaction_threshold <= 1e9,
        ),
        (
            "snapshot_threshold",
            "0 (never), or 65536 to 2^50 bytes",
            storage.snapshot_threshold == 0 or _in(storage.snapshot_threshold, 1 << 16, 50),
        ),
        ("compression", '"lz4" or "none"', storage.compression in {"lz4", "none"}),
        ("min_free_space", "0 to 2^50 bytes", _in(storage.min_free_space, 0, 50)),
    ]


def _is_path(text: str) -> bool:
    """True for what the system can be asked for: it would cut a path at its NUL."""
    return bool(text) and "\0" not in text and text == text.encode(errors="ignore").decode()


def _in(value: int, least: int, bits: int) -> bool:
    return least <= value <= 1 << bits


class RaftOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Timers and windows of the core, in milliseconds of its own clock."""

    election_timeout_ms: int = 750
    heartbeat_interval_ms: int = 250
    window: int = 4
    """AppendEntries with entries in flight to one peer; two already hide the round trip."""

    def __post_init__(self) -> None:
        _check_laws(self, _raft_laws)


def _raft_laws(options: RaftOptions) -> list[tuple[str, str, bool]]:
    """(field, what it must be, whether it is) of every timer and window."""
    heartbeat_ms = options.heartbeat_interval_ms
    return [
        ("heartbeat_interval_ms", "at least 1", heartbeat_ms >= 1),
        ("window", "1 to 65536", _in(options.window, 1, 16)),
        (
            "election_timeout_ms",
            f"at least 2 x heartbeat_interval_ms ({heartbeat_ms}), at most 86400000 (a day)",
            2 * heartbeat_ms <= options.election_timeout_ms <= 1000 * _DAY,
        ),
    ]


FAILURE_DOMAIN_NBYTES_MAX = 64
WEIGHT_MAX = 1000


class ServerOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a server was told, checked as a whole. Times in seconds."""

    address: Address
    bind: Address
    cluster_name: str
    name: str
    election_timeout: float
    heartbeat_interval: float
    session_timeout: float
    insecure: bool
    rejoin: bool = True
    """Whether a server whose directory is refused comes back as a new member (C43)."""
    failure_domain: str = ""
    weight: int = 0
    version: str = ""
    """Of copycat, which the member names when it is asked."""

    def __post_init__(self) -> None:
        problems = [
            *_name_problems(self),
            *_place_problems(self),
            *_address_problems(self),
            *_timer_problems(self),
        ]
        for field, value in (("insecure", self.insecure), ("rejoin", self.rejoin)):
            if not isinstance(value, bool):
                problems.append(f"{field} ({value!r}) must be True or False")
        if problems:
            raise ConfigurationError("; ".join(problems))

    def raft(self) -> RaftOptions:
        """The same timers for the core, still one at least twice the other when rounded."""
        heartbeat_ms = round(self.heartbeat_interval * 1000)
        return RaftOptions(
            election_timeout_ms=max(round(self.election_timeout * 1000), 2 * heartbeat_ms),
            heartbeat_interval_ms=heartbeat_ms,
        )


def _name_problems(options: ServerOptions) -> list[str]:
    return [
        f"{field} ({value!r}) must be 1 to 128 printable characters"
        for field, value in (("cluster_name", options.cluster_name), ("name", options.name))
        if not (isinstance(value, str) and 1 <= len(value) <= 128 and value.isprintable())
    ]


def _place_problems(options: ServerOptions) -> list[str]:
    problems = []
    domain, weight = options.failure_domain, options.weight
    is_text = isinstance(domain, str) and (not domain or domain.isprintable())
    if not is_text or len(domain.encode()) > FAILURE_DOMAIN_NBYTES_MAX:
        problems.append(
            f"failure_domain ({domain!r}) must be printable characters, of at most"
            f" {FAILURE_DOMAIN_NBYTES_MAX} bytes"
        )
    if not (type(weight) is int and abs(weight) <= WEIGHT_MAX):
        problems.append(f"weight ({weight!r}) must be from {-WEIGHT_MAX} to {WEIGHT_MAX}")
    return problems


def _address_problems(options: ServerOptions) -> list[str]:
    problems = []
    if options.address.is_wildcard:
        problems.append(
            f"address {options.address} cannot be dialled: give the address that others use,"
            f" and bind={str(options.bind)!r} (copycat serve: --bind) to listen everywhere"
        )
    if options.address.port == 0 and options.bind.port != 0:
        problems.append(f"address {options.address} needs a port, since bind has one")
    if not options.insecure:
        advice = "use a loopback address, or pass insecure=True (copycat serve: --insecure)"
        problems += plaintext_problems("listening on", [options.bind], advice)
    return problems


def _timer_problems(options: ServerOptions) -> list[str]:
    """Each law names what is good, so that NaN breaks it."""
    problems = []
    heartbeat, election = options.heartbeat_interval, options.election_timeout
    if not heartbeat >= 0.001:
        problems.append(f"heartbeat_interval ({heartbeat:g} s) must be at least 0.001 s")
    if not 2 * heartbeat <= election <= _DAY:
        problems.append(
            f"election_timeout ({election:g} s) must be at least 2 x heartbeat_interval"
            f" ({heartbeat:g} s), and at most {_DAY:g} s"
        )
    if not election < options.session_timeout <= _DAY:
        problems.append(
            f"session_timeout ({options.session_timeout:g} s) must be above election_timeout"
            f" ({election:g} s), or sessions expire at every election; and at most {_DAY:g} s"
        )
    return problems


def member_id(cluster_name: str, address: str) -> MemberId:
    """The id of a founding member: 128 bits of its cluster's name and its address (C16)."""
    text = f"copycat member\0{cluster_name}\0{address}".encode()
    return MemberId(int.from_bytes(hashlib.sha256(text).digest()[:16], "big"))
