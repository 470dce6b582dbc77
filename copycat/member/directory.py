"""A member's directory: its lock, its identity, its hard state and its log, opened in this order.

A first start creates the hard state, then the log, then the identity (F27). So the member of a
directory without an identity has never voted or acknowledged anything. A start that is refused
leaves the directory as it was. A damaged log is repaired if the member forgets no vote and no
acknowledgement by that (copycat/member/repair.py).

A member whose log is in memory has no folder `log`; its term and its vote are on the disk.
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
from copycat.member.configuration_file import (
    NOTHING_STORED,
    ConfigurationFile,
    StoredConfigurations,
    is_sole_voter,
    read_configurations,
)
from copycat.member.hard_state import HARD_STATE_FILES, FrozenHardState, HardStateCopy, best_copy
from copycat.member.identity import (
    IDENTITY_FILES,
    Identity,
    check_identity,
    read_identity,
    write_identity,
)
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
from copycat.member.new_cluster_file import refuse_unfinished
from copycat.member.repair import AnyLog, LogRepair, complete_repair
from copycat.member.time_note import TimeFile
from copycat.member.wipe import complete_wipe
from copycat.protocol.member_record import DirectoryStart
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
"""A check of the caller's, called before anything is changed, with the log opened read-only, or
with None when the log is new or cannot be opened. An exception ends the start. Unless the check
returns True for an existing log, it is called again with the log after its repair."""
_NOBODY = MemberId(0)


class MemberDirectory:
    """The files of one member, open and locked until `close`."""

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
        """True when this member has never voted or acknowledged anything (C16): its directory was
        created by this start, or was never used."""
        self.lost = lost
        """True when entries that this member acknowledged may be missing (decision 0016)."""
        self.lost_entries = lost_entries
        """Entries that damage destroyed and no leader has sent again (C12, decision 0017)."""
        self.snapshots = snapshots
        self.time_file = TimeFile(env, path)
        """The file that holds log time beside the wall clock (C25)."""
        self.configuration_file = ConfigurationFile(env, path)
        """The file that holds the newest configurations (C35)."""
        self.configurations = read_configurations(env, path, has_log=isinstance(log, NativeLog))
        """What it holds when the directory is open."""
        self.env = env
        """The access to the disk that all files of the directory are opened by."""
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
        first: StoredConfigurations = NOTHING_STORED,
        start_source: Callable[[], int] | None = None,
    ) -> Self:
        """Open `path`, or create it on a first start.

        `members`: the founding addresses, in any order; none of a member that is no founder, and
        `first` is what that one knows of the cluster. `incarnation_source`, `start_source`: give
        128 and 64 random bits. `boot`: the machine's boot id, or empty. `read_only`: create, lock
        and repair nothing. `whole`: read every entry first. `snapshots`: opens the store for a
        repair. CorruptLogError (F6, F27; F2, F3), WrongDirectoryError (F7), StorageErrors.
        """
        expected = Identity.of(cluster_name, address, members, member)
        promise = partial(write_unsynced_acks, env, path, level, durability, boot)
        with ExitStack() as resources:
            sizes = max_segment_size, max_entries_per_segment
            opened = _opener(env, path, *sizes, min_free_space, level, compress)
            if not read_only:
                look = _lock_and_tidy(env, path, resources, expected, opened, look)
            identity, missing = read_identity(env, path)
            if identity is None:
                _check_unused(env, path, opened, read_only=read_only)
                new = _started(expected.with_incarnation(incarnation_source()), start_source)
                return cls._made(env, path, resources, opened, promise, new, snapshots, first)
            check_identity(identity, expected, path)
            stored = read_configurations(env, path, has_log=_has_log(env, path))
            unsynced, copy = read_unsynced_acks(env, path), _readable_hard_state(env, path)
            checked = partial(_checked, env, path, opened, unsynced, level, whole, read_only)
            if read_only:
                frozen, log = FrozenHardState(copy), _closed_with(resources, checked())
                return cls(path, identity, frozen, log, env, resources.pop_all())
            store, alone = _maybe(snapshots), is_sole_voter(stored, identity)
            repairs = LogRepair(env, path, store, copy.current_term, sizes, is_alone=alone)
            log = _closed_with(resources, repairs.open(checked), look)
            identity, again = _rewritten(env, path, identity, missing, stored, start_source)
            loss, may_lack = repairs.remaining_loss(log, again), not stored.says_stateless(member)
            is_lost = may_lack and _may_have_lost(unsynced, again, log, boot)
            lost = is_lost or _promised(promise)
            all_open = resources.pop_all()
            return cls(path, identity, again, log, env, all_open, lost, loss, snapshots=store)

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
        first: StoredConfigurations,
    ) -> Self:
        """The directory after a first start, which writes the identity last (F27)."""
        hard_state = _first_hard_state(env, path)
        log = _closed_with(resources, opened())
        promise()
        if first.records:
            ConfigurationFile(env, path).write(first)
            identity = identity.with_cluster_incarnation(first.cluster_incarnation)
        else:
            ConfigurationFile(env, path).remove()
        write_identity(env, path, identity)
        store, owned = _maybe(snapshots), resources.pop_all()
        return cls(path, identity, hard_state, log, env, owned, made_now=True, snapshots=store)

    def record_cluster(self, incarnation: int) -> None:
        """Store which cluster this is, durably; in any thread (C41). DiskFullError, DiskError."""
        self.identity = self.identity.with_cluster_incarnation(incarnation)
        write_identity(self.env, self.path, self.identity)

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
        """The vote in `current_term`. Where the last entry raised the term, there is none (C9)."""
        return (
            _NOBODY if self._log_term > self.hard_state.current_term else self.hard_state.voted_for
        )

    def note(self, error: BaseException) -> CorruptLogError | None:
        """A running member stops because of `error`. If `error` is damage of its log, record that
        the next start must repair the log (F11), and return the damage as a CorruptLogError with
        a hint; None for any other error.
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
            state="This member stops; everything that it answered before is right.",
            hint=f"start it again: it will fetch entries {index or self.log.first_index} to"
            f" {self.log.last_index} from the other members",
            path=where,
            offset=error.offset,
            index=index,
        )
        write_note(self.env, self.path, damage)
        return damage

    def close(self, *, lost: bool = False) -> None:
        """Close the log with the mark of a clean stop, then release the lock.

        lost: the log still lacks entries that it lost, so the marker of unsynced acknowledgements
        stays for the next start. The marker also stays when this call cannot sync the log: only
        a sync proves that every acknowledged entry is durable, and a poisoned log cannot be
        synced, although its own close raises nothing (F9, decision 0016).
        DiskError, DiskFullError: the log was not closed cleanly.
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
    """Read every entry of a member's log and change nothing; CorruptLogError at the first damage.

    For the only member of a cluster: with an entry that cannot be read it must not start (F2).
    """
    if not _has_log(env, path):
        return
    log = _opener(env, path, 32 << 20, 1 << 20, 0)(read_only=True)
    try:
        deque(log.scan(log.first_index, log.last_index + 1), maxlen=0)
    finally:
        log.close()


def _sync(log: NativeLog) -> None:
    """Sync everything that was appended. LogPoisonedError after an earlier failure."""
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
    """Lock the directory, run the caller's check on it, and complete what an earlier process left
    unfinished. Returns the check if it is to run again when the log is open."""
    env.make_directory(path)
    resources.callback(env.lock(f"{path}/lock").close)
    refuse_unfinished(env, path)
    complete_wipe(env, path, expected, has_log=_has_log(env, path))
    if look is not None and _looked(env, path, expected, opened, look):
        look = None
    free_ballast(env, path)
    complete_repair(env, path)
    return look


def _looked(env: Env, path: str, expected: Identity, opened: _Opener, look: _Look) -> bool:
    """Run `look` on the log of this member's directory and return its result; True for a new
    directory."""
    identity, _ = read_identity(env, path)
    if identity is None:
        look(None)
        return True
    check_identity(identity, expected, path)
    try:
        log = opened(read_only=True)
    except (StorageError, FileNotFoundError):  # opening the log for writing reports the error
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
    """Open the log of a member that has an identity, so its log must exist, unless a leader had
    this member delete it."""
    has_log = _has_log(env, path)
    if has_log or not read_configurations(env, path, has_log=True).is_wiped:
        check_level(unsynced, level, path, has_log=has_log)
    if whole:
        read_whole(env, path)
    return opened(read_only=read_only)


def _rewritten(
    env: Env,
    path: str,
    identity: Identity,
    missing: tuple[str, ...],
    stored: StoredConfigurations,
    start_source: Callable[[], int] | None,
) -> tuple[Identity, HardState]:
    """Open the hard state and rewrite it, as C7 demands after an unclean stop. It is done at every
    start, since an earlier start may have failed between the log's recovery and this step, and
    then closed the log cleanly. The missing copies of the identity are written, too, and those of
    the list of members; a crash may have come between that list and the identity, which names
    the same cluster (C41)."""
    hard_state = open_hard_state(env, path, create=False)
    hard_state.rewrite()
    before = identity
    if stored.cluster_incarnation and not identity.cluster_incarnation:
        identity = identity.with_cluster_incarnation(stored.cluster_incarnation)
    identity = _started(identity, start_source, stored.starts_of(identity.member))
    if identity != before:  # the copy that is behind first, so they are never two starts apart
        missing = (*missing, *(name for name in IDENTITY_FILES if name not in missing))
    write_identity(env, path, identity, missing)
    ConfigurationFile(env, path).complete()
    return identity, hard_state


def _promised(promise: Callable[[], None]) -> bool:
    """Write what the member promises from here on: nothing is lost."""
    promise()
    return False


def _started(
    identity: Identity,
    start_source: Callable[[], int] | None,
    written: tuple[DirectoryStart, ...] = (),
) -> Identity:
    return identity if start_source is None else identity.with_start(start_source(), written)


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
    """A function that opens the log of the directory `path`: a new log in memory at level
    "memory" if there is none on the disk, else the log on the disk."""

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
    """Whether entries may be missing that were acknowledged before they were synced.

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
    """Check that a directory without an identity holds no entry and no vote (F27).

    CorruptLogError if it does. WrongDirectoryError if it is the directory of a bare log, which
    its program could not open any more if a member used it (F7).
    """
    if read_only:
        raise CorruptLogError(f"{path}: no identity: no member was ever started here", path=path)
    if env.exists(f"{path}/manifest"):
        raise WrongDirectoryError(
            f"{path} is the directory of a bare log: a member needs its own directory", path=path
        )
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
