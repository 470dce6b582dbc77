"""A member's directory: its lock, whose it is, its hard state and its log, opened in order.

A first start makes the hard state, then the log, then the identity (F27): a directory without
an identity never held a promise. Every refusal leaves the directory as it was. A log that is
damaged is repaired where no promise is forgotten by that (copycat/member/repair.py).

A member whose log is in memory has no `log/`, but term and vote on the disk all the same.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import ExitStack, closing
from functools import partial
from typing import TYPE_CHECKING, Self, TypeAlias, cast

from copycat.errors import (
    CorruptLogError,
    DiskError,
    LogPoisonedError,
    StorageError,
    WrongDirectoryError,
    require,
)
from copycat.member.ballast_file import free_ballast
from copycat.member.hard_state import HARD_STATE_FILES, FrozenHardState, HardStateCopy, best_copy
from copycat.member.identity import Identity, check_identity, read_identity, write_identity
from copycat.member.markers import (
    LostEntries,
    UnsyncedAcks,
    check_level,
    clear_unsynced_acks,
    distrust_page_cache,
    read_unsynced_acks,
    write_note,
    write_unsynced_acks,
)
from copycat.member.repair import AnyLog, LogRepair, complete_repair
from copycat.member.time_note import TimeFile
from copycat.storage._native import HardState, NativeLog, open_hard_state, open_log
from copycat.storage.in_memory import InMemoryLog
from copycat.storage.interface import HardStateStore
from copycat.storage.unreadable import is_unreadable
from copycat.types import Durability, EntryId, MemberId, StorageLevel

if TYPE_CHECKING:
    from copycat.storage._native import Env
    from copycat.storage.snapshot_store import SnapshotStore

__all__ = ["MemberDirectory", "read_whole"]

_Opener: TypeAlias = Callable[..., NativeLog | InMemoryLog]
_Snapshots: TypeAlias = "Callable[[], SnapshotStore] | None"
_Look: TypeAlias = "Callable[[AnyLog | None], bool]"
"""Called before anything is changed with the log as it is, read-only, or None when it is new or
cannot be opened; what it raises ends the start. Unless it answers True for an old log, it is
called again with the log after its repair."""
_NOBODY = MemberId(0)


class MemberDirectory:
    """What one member keeps on disk, open and locked until `close`."""

    def __init__(
        self,
        path: str,
        identity: Identity,
        hard_state: HardStateStore,
        log: AnyLog,
        env: Env,
        resources: ExitStack,
        lost: bool = False,
        lost_entries: LostEntries | None = None,
        *,
        made_now: bool = False,
        snapshots: SnapshotStore | None = None,
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
        self.lost_entries = lost_entries
        """Entries that damage destroyed and no leader has sent again (C12, decision 0017)."""
        self.snapshots = snapshots
        self.time_file = TimeFile(env, path)
        """Where log time is written down beside the wall clock (C25)."""
        self.env = env
        """What its files are reached by."""
        self._resources = resources
        self._log_term = log.last_entry.term

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
        whole: bool = False,
        snapshots: _Snapshots = None,
        look: _Look | None = None,
    ) -> Self:
        """Open `path`, or make it on a first start.

        `members`: the founding addresses, in any order. `incarnation_source`: 128 random bits,
        asked on a first start only. `boot`: of the machine, or empty. `compress`: see `open_log`.
        `read_only`: nothing is made, locked or repaired. `whole`: read every entry before any
        is believed. `snapshots`: opens the member's; a repair may build on them. `look`: `_Look`.
        DirectoryInUseError, CorruptLogError (F6, F27; without others F2, F3), FormatVersionError,
        WrongDirectoryError (F7), DiskError, DiskFullError; ConfigurationError: another `level`.
        """
        expected = Identity.of(cluster_name, address, members, member)
        promise = partial(write_unsynced_acks, env, path, level, durability, boot)
        with ExitStack() as resources:
            sizes = (max_segment_size, max_entries_per_segment)
            opened = _opener(env, path, *sizes, min_free_space, level, compress)
            if not read_only:
                look = _lock_and_tidy(env, path, resources, expected, opened, look)
            identity, missing = read_identity(env, path)
            if identity is None:
                _check_unused(env, path, opened, read_only=read_only)
                identity = expected.with_incarnation(incarnation_source())
                return cls._made(env, path, resources, opened, promise, identity, snapshots)
            check_identity(identity, expected, path)
            unsynced, copy = read_unsynced_acks(env, path), _readable_hard_state(env, path)
            checked = partial(_checked, env, path, opened, unsynced, level, whole, read_only)
            if read_only:
                frozen, log = FrozenHardState(copy), _closed_with(resources, checked())
                return cls(path, identity, frozen, log, env, resources.pop_all())
            store, alone = _maybe(snapshots), len(members) == 1
            repairs = LogRepair(env, path, store, copy.current_term, sizes, is_alone=alone)
            log = _closed_with(resources, repairs.open(checked), look)
            again = _rewritten(env, path)
            write_identity(env, path, identity, missing)
            loss = repairs.remaining_loss(log, again)
            lost = _may_have_lost(unsynced, again, log, boot)
            if not lost:
                promise()
            owned = resources.pop_all()
            return cls(path, identity, again, log, env, owned, lost, loss, snapshots=store)

    @classmethod
    def _made(
        cls,
        env: Env,
        path: str,
        resources: ExitStack,
        opened: _Opener,
        promise: Callable[[], None],
        identity: Identity,
        snapshots: _Snapshots,
    ) -> Self:
        """A first start: the identity is the last file that is written (F27)."""
        first = _first_hard_state(env, path)
        log = _closed_with(resources, opened())
        promise()
        write_identity(env, path, identity)
        store, owned = _maybe(snapshots), resources.pop_all()
        return cls(path, identity, first, log, env, owned, made_now=True, snapshots=store)

    def regressed(self, lost_upto: EntryId, first_index: int, term: int) -> LostEntries:
        """The record, not yet written, that this directory is an older copy of itself (F8): it
        once held entries up to `lost_upto`, and lacks those from `first_index` on."""
        return LostEntries(
            self.env, self.path, lost_upto, first_index=first_index, term=term, is_regressed=True
        )

    @property
    def native(self) -> NativeLog:
        """The log on disk; there is none when it is kept in memory."""
        require(isinstance(self.log, NativeLog), "this member keeps its log in memory")
        return cast("NativeLog", self.log)

    @property
    def current_term(self) -> int:
        """The hard state's term, or the last entry's where that is later (C9)."""
        return max(self.hard_state.current_term, self._log_term)

    @property
    def voted_for(self) -> MemberId:
        """The vote, if it is of `current_term`: the floor of the log clears it (C9)."""
        return (
            _NOBODY if self._log_term > self.hard_state.current_term else self.hard_state.voted_for
        )

    def note(self, error: BaseException) -> CorruptLogError | None:
        """A running member stops at `error`: if that is damage of its log, the next start is to
        repair it (F11). The same error then, with what to do; None when it is another one.
        """
        path = f"{self.path}/log/"
        if not isinstance(error, CorruptLogError | DiskError):
            return None
        if isinstance(error, DiskError) and not is_unreadable(error):
            return None
        where = error.path
        if not where.startswith(path) or isinstance(self.hard_state, FrozenHardState):
            return None
        index = error.index
        damage = CorruptLogError(
            str(error),
            state="This member stops here; what it answered until now is right.",
            hint=f"start it again: it will fetch entries {index or self.log.first_index} to"
            f" {self.log.last_index} from the other members",
            path=where,
            offset=error.offset,
            index=index,
        )
        write_note(self.env, self.path, damage)
        return damage

    def close(self, *, lost: bool = False) -> None:
        """Close the log with its mark of a clean stop, then let go of the lock.

        lost: no leader has given back yet what this log lost; the next start must know. So it
        must when the disk failed under weak promises (0016): only a sync that this call makes
        ends them, and none can be made of a poisoned log, whose own close is silent (F9).
        DiskError, DiskFullError: it was not closed cleanly.
        """
        with self._resources:
            is_kept = lost or isinstance(self.log, InMemoryLog)
            is_frozen = isinstance(self.hard_state, FrozenHardState)
            if is_kept or is_frozen or read_unsynced_acks(self.env, self.path) is None:
                self.log.close()
                return
            try:
                _sync(self.native)
            except StorageError as error:
                distrust_page_cache(self.env, self.path)
                if not isinstance(error, LogPoisonedError):
                    raise
            else:
                self.log.close()
                clear_unsynced_acks(self.env, self.path)


def read_whole(env: Env, path: str) -> None:
    """Read every entry of a member's log, and change nothing: CorruptLogError at the first damage.

    For a member without others: what cannot be read then must keep it from starting (F2).
    """
    if not _has_log(env, path):
        return
    log = _opener(env, path, 32 << 20, 1 << 20, 0)(read_only=True)
    try:
        deque(log.scan(log.first_index, log.last_index + 1), maxlen=0)
    finally:
        log.close()


def _sync(log: NativeLog) -> None:
    """Everything that was appended is on the disk. LogPoisonedError after an earlier failure."""
    ticket = log.sync_in_flight() or log.begin_sync()
    ticket.run()
    log.end_sync(ticket)


def _lock_and_tidy(
    env: Env,
    path: str,
    resources: ExitStack,
    expected: Identity,
    opened: _Opener,
    look: _Look | None,
) -> _Look | None:
    """This process has the directory now, has looked at it, and puts in order what an earlier
    one left. What comes back looks again when the log is open."""
    env.make_directory(path)
    resources.callback(env.lock(f"{path}/lock").close)
    if look is not None and _looked(env, path, expected, opened, look):
        look = None
    free_ballast(env, path)
    complete_repair(env, path)
    return look


def _looked(env: Env, path: str, expected: Identity, opened: _Opener, look: _Look) -> bool:
    """What `look` says of a directory that is this member's; True for a new one."""
    identity, _ = read_identity(env, path)
    if identity is None:
        look(None)
        return True
    check_identity(identity, expected, path)
    try:
        log = opened(read_only=True)
    except (StorageError, FileNotFoundError):  # opening it to write says what is wrong
        return look(None)
    with closing(log):
        return look(log)


def _maybe(snapshots: _Snapshots) -> SnapshotStore | None:
    return None if snapshots is None else snapshots()


def _checked(
    env: Env,
    path: str,
    opened: _Opener,
    unsynced: UnsyncedAcks | None,
    level: StorageLevel,
    whole: bool,
    read_only: bool,
) -> AnyLog:
    """The log of a member that has an identity, so that must be there."""
    check_level(unsynced, level, path, has_log=_has_log(env, path))
    if whole:
        read_whole(env, path)
    return opened(read_only=read_only)


def _rewritten(env: Env, path: str) -> HardState:
    """C7 asks for it after an unclean stop. Done at every start, it also covers one that failed
    between the log's recovery and here, and was then closed cleanly."""
    hard_state = open_hard_state(env, path, create=False)
    hard_state.rewrite()
    return hard_state


def _closed_with(resources: ExitStack, log: AnyLog, look: _Look | None = None) -> AnyLog:
    resources.callback(log.close)
    if look is not None:
        look(log)
    return log


def _opener(
    env: Env,
    path: str,
    segment_size: int,
    entries: int,
    min_free_space: int,
    level: StorageLevel = StorageLevel.DISK,
    compress: bool = False,
) -> _Opener:
    """What opens the log of the directory `path`; at level "memory" one that is in memory, and
    new, unless there is one on the disk."""

    def in_memory(*, read_only: bool = False) -> InMemoryLog:
        return InMemoryLog(max_segment_size=segment_size, max_entries_per_segment=entries)

    def on_disk(*, read_only: bool = False) -> NativeLog:
        return open_log(
            env,
            f"{path}/log",
            max_segment_size=segment_size,
            max_entries_per_segment=entries,
            read_only=read_only,
            min_free_space=min_free_space,
            mapped=level is StorageLevel.MAPPED,
            compress=compress,
        )

    return in_memory if level is StorageLevel.MEMORY and not _has_log(env, path) else on_disk


def _may_have_lost(
    unsynced: UnsyncedAcks | None, hard_state: HardStateStore, log: AnyLog, boot: str
) -> bool:
    """Whether acknowledged entries may be missing after weak promises.

    If there were any, the term is raised above all that this member acknowledged, without a
    vote in it. A leader of an older term may still count entries for this member that it has
    lost; it steps down when it hears of the new one.
    """
    term = max(hard_state.current_term, log.last_entry.term)
    if unsynced is None or term == 0:
        return False
    ticket = hard_state.begin_save(term + 1, _NOBODY)
    ticket.run()
    hard_state.end_save(ticket)
    return unsynced.may_be_broken(boot)


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
    """F27: without an identity there may be no entry and no vote; CorruptLogError.

    WrongDirectoryError where a bare log lies: its program could not open it any more (F7).
    """
    if read_only:
        raise CorruptLogError(f"{path}: no identity: no member was ever started here", path=path)
    if env.exists(f"{path}/manifest"):
        raise WrongDirectoryError(f"{path} holds a bare log; a member must not move in", path=path)
    if _has_log(env, path):
        log = opened_log(read_only=True)
        last_index = log.last_index
        log.close()
        if last_index:
            raise CorruptLogError(
                f"{path}: a log of {last_index} entries, but no identity: it is not known whose",
                path=f"{path}/log",
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
