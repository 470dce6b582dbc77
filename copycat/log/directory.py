"""A member's directory: its lock, whose it is, its hard state and its log, opened in order.

A first start makes the hard state, then the log, then the identity (F27): a directory without
an identity never held a promise. Every refusal leaves the directory as it was.

A member whose log is in memory has no `log/`, but term and vote on the disk all the same (#321).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Self, TypeAlias, cast

from copycat.errors import CorruptLogError, require
from copycat.log._native import HardState, NativeLog, open_hard_state, open_log
from copycat.log.hard_state import HARD_STATE_FILES, FrozenHardState, HardStateCopy, best_copy
from copycat.log.identity import Identity, check_identity, read_identity, write_identity
from copycat.log.interface import HardStateStore
from copycat.log.reserve import free_reserve
from copycat.log.volatile import VolatileLog
from copycat.log.weak import WeakPromises, check_level, clear_weak, read_weak, write_weak
from copycat.types import Durability, MemberId, StorageLevel

if TYPE_CHECKING:
    from copycat.log._native import Env

__all__ = ["MemberDirectory", "read_whole"]

_AnyLog: TypeAlias = NativeLog | VolatileLog
_Opener: TypeAlias = Callable[..., NativeLog | VolatileLog]
_NOBODY = MemberId(0)


class MemberDirectory:
    """What one member keeps on disk, open and locked until `close`."""

    def __init__(
        self,
        path: str,
        identity: Identity,
        hard_state: HardStateStore,
        log: _AnyLog,
        env: Env,
        held: ExitStack,
        *,
        made_now: bool = False,
        lost: bool = False,
    ) -> None:
        self.path = path
        self.identity = identity
        self.hard_state = hard_state
        self.log = log
        unused = hard_state.current_term == 0 and log.last_index == 0
        self.fresh = made_now or unused
        """True when this directory never held a promise (C16): made now, or never used."""
        self.lost = lost
        """True when entries that this member acknowledged may be missing (decision 0016)."""
        self._env = env
        self._held = held
        self._floor = log.last_entry.term

    @classmethod
    def open(
        cls,
        env: Env,
        path: str,
        *,
        cluster_name: str,
        address: str,
        members: tuple[str, ...],
        member: MemberId,
        incarnation_source: Callable[[], int],
        max_segment_size: int = 32 << 20,
        max_entries_per_segment: int = 1 << 20,
        min_free_space: int = 0,
        read_only: bool = False,
        level: StorageLevel = StorageLevel.DISK,
        compress: bool = False,
        durability: Durability = Durability.FSYNC,
        boot: str = "",
    ) -> Self:
        """Open `path`, or make it on a first start.

        `members`: the founding addresses, in any order. `incarnation_source`: 128 random bits,
        asked on a first start only. `boot`: of the machine, empty where that is not known.
        `compress`: see `open_log`. `read_only`: nothing is made, locked or repaired.
        DirectoryInUseError, CorruptLogError (F2, F3, F6, F27), WrongDirectoryError (F7),
        FormatVersionError, DiskError, DiskFullError; ConfigurationError when `level` does not fit.
        """
        expected = Identity.of(cluster_name, address, members, member)
        has_log = _has_log(env, path)
        on = None if level is StorageLevel.MEMORY and not has_log else env
        sizes = (max_segment_size, max_entries_per_segment, min_free_space)
        opened_log = _opener(on, f"{path}/log", *sizes, level, compress)
        promise = partial(write_weak, env, path, level, durability, boot)
        with ExitStack() as held:
            if not read_only:
                env.make_directory(path)
                held.callback(env.lock(f"{path}/lock").close)
                free_reserve(env, path)
            found, missing = read_identity(env, path)
            if found is None:
                _check_unused(env, path, opened_log, read_only=read_only)
                first = _first_hard_state(env, path)
                log = _kept(held, opened_log())
                promise()
                found = expected.with_incarnation(incarnation_source())
                write_identity(env, path, found)
                return cls(path, found, first, log, env, held.pop_all(), made_now=True)
            check_identity(found, expected, path)
            weak = read_weak(env, path)
            check_level(weak, level, path, has_log=has_log)
            copy = _readable_hard_state(env, path)
            log = _kept(held, opened_log(read_only=read_only))
            if read_only:
                return cls(path, found, FrozenHardState(copy), log, env, held.pop_all())
            again = _rewritten(env, path)
            write_identity(env, path, found, missing)
            lost = _may_have_lost(weak, again, log, boot)
            if not lost:
                promise()
            return cls(path, found, again, log, env, held.pop_all(), lost=lost)

    @property
    def native(self) -> NativeLog:
        """The log on disk; there is none when it is kept in memory."""
        require(isinstance(self.log, NativeLog), "this member keeps its log in memory")
        return cast("NativeLog", self.log)

    @property
    def current_term(self) -> int:
        """The hard state's term, or the last entry's where that is later (C9)."""
        return max(self.hard_state.current_term, self._floor)

    @property
    def voted_for(self) -> MemberId:
        """The vote, if it is of `current_term`: the floor of the log clears it (C9)."""
        return _NOBODY if self._floor > self.hard_state.current_term else self.hard_state.voted_for

    def close(self, *, lost: bool = False) -> None:
        """Close the log with its mark of a clean stop, then let go of the lock.

        lost: no leader has given back yet what this log lost; the next start must know.
        """
        with self._held:
            self.log.close()
            is_kept = lost or isinstance(self.log, VolatileLog)
            if not (is_kept or isinstance(self.hard_state, FrozenHardState)):
                clear_weak(self._env, self.path)


def read_whole(env: Env, path: str) -> None:
    """Read every entry of a member's log, and change nothing: CorruptLogError at the first damage.

    For a member without others: what cannot be read then must keep it from starting (F2).
    """
    if not _has_log(env, path):
        return
    log = _opener(env, f"{path}/log", 32 << 20, 1 << 20, 0)(read_only=True)
    try:
        deque(log.scan(log.first_index, log.last_index + 1), maxlen=0)
    finally:
        log.close()


def _rewritten(env: Env, path: str) -> HardState:
    """C7 asks for it after an unclean stop. Done at every start, it also covers one that failed
    between the log's recovery and here, and was then closed cleanly."""
    hard_state = open_hard_state(env, path, create=False)
    hard_state.rewrite()
    return hard_state


def _kept(held: ExitStack, log: _AnyLog) -> _AnyLog:
    held.callback(log.close)
    return log


def _opener(
    env: Env | None,
    path: str,
    segment_size: int,
    entries: int,
    min_free_space: int,
    level: StorageLevel = StorageLevel.DISK,
    compress: bool = False,
) -> _Opener:
    """What opens the log at `path`; without an `env` it is one in memory, and new."""

    def in_memory(*, read_only: bool = False) -> VolatileLog:
        return VolatileLog(max_segment_size=segment_size, max_entries_per_segment=entries)

    def on_disk(*, read_only: bool = False) -> NativeLog:
        return open_log(
            cast("Env", env),
            path,
            max_segment_size=segment_size,
            max_entries_per_segment=entries,
            read_only=read_only,
            min_free_space=min_free_space,
            mapped=level is StorageLevel.MAPPED,
            compress=compress,
        )

    return in_memory if env is None else on_disk


def _may_have_lost(
    weak: WeakPromises | None, hard_state: HardStateStore, log: _AnyLog, boot: str
) -> bool:
    """Whether acknowledged entries may be missing after weak promises.

    If there were any, the term is raised above all that this member acknowledged, without a
    vote in it. A leader of an older term may still count entries for this member that it has
    lost; it steps down when it hears of the new one.
    """
    term = max(hard_state.current_term, log.last_entry.term)
    if weak is None or term == 0:
        return False
    ticket = hard_state.begin_save(term + 1, _NOBODY)
    ticket.run()
    hard_state.end_save(ticket)
    return weak.may_be_broken(boot)


def _has_log(env: Env, path: str) -> bool:
    return env.exists(f"{path}/log/manifest") or _has_segments(env, f"{path}/log")


def _readable_hard_state(env: Env, path: str) -> HardStateCopy:
    """F6, before anything is changed: CorruptLogError when both copies are bad or missing."""
    copy = best_copy(env, path)
    if copy is None:
        raise CorruptLogError(
            f"{path}: an identity, but neither of {' and '.join(HARD_STATE_FILES)}: "
            "without its vote this member could vote twice in one term (F6)",
            path=f"{path}/{HARD_STATE_FILES[0]}",
        )
    return copy


def _check_unused(
    env: Env,
    path: str,
    opened_log: _Opener,
    *,
    read_only: bool,
) -> None:
    """F27: without an identity there may be no entry and no vote; CorruptLogError."""
    if read_only:
        raise CorruptLogError(f"{path}: no identity: no member was ever started here", path=path)
    if _has_log(env, path):
        log = opened_log(read_only=True)
        last_index = log.last_index
        log.close()
        if last_index:
            raise CorruptLogError(
                f"{path}: a log of {last_index} entries, but no identity: it is not known whose",
                path=f"{path}/log",
                index=last_index,
            )
    try:
        copy = best_copy(env, path)
    except CorruptLogError:
        return  # half-made: _first_hard_state starts over
    if copy is not None and copy.current_term:
        raise CorruptLogError(
            f"{path}: a hard state of term {copy.current_term}, but no identity",
            path=f"{path}/{HARD_STATE_FILES[0]}",
        )


def _has_segments(env: Env, path: str) -> bool:
    return env.exists(path) and any(name.endswith(".log") for name in env.list(path))


def _first_hard_state(env: Env, path: str) -> HardState:
    try:
        best_copy(env, path)
    except CorruptLogError:
        for name in HARD_STATE_FILES:
            if env.exists(f"{path}/{name}"):
                env.remove(f"{path}/{name}")
    return open_hard_state(env, path, create=True)
