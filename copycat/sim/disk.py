"""One member's disk: an in-memory file system with a page cache, and what it must contain.

The directory is the shipped `MemberDirectory` with the native log over `FaultEnv`. The disk
survives the member's processes; `DiskModel` knows which data a power cut may lose.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

from copycat.errors import DiskError, DiskFullError, require
from copycat.member.configuration_file import (
    CONFIGURATION_FILES,
    NOTHING_STORED,
    ConfigurationFile,
    StoredConfigurations,
)
from copycat.member.damage_scan import marks
from copycat.member.directory import MemberDirectory
from copycat.seeded_random import SimRandom
from copycat.sim.checkers.disk_model import DiskModel
from copycat.sim.checkers.log_history import contents, violated
from copycat.sim.instrumented import (
    InstrumentedHardState,
    InstrumentedLog,
    InstrumentedSnapshots,
    Seen,
)
from copycat.sim.options import DiskOptions
from copycat.sim.world import Trace
from copycat.storage import FaultEnv, snapshot_file
from copycat.storage.disk_format import DATA_OFFSET, read_manifest
from copycat.storage.interface import ReplicaLog, Rewrite
from copycat.storage.reader import SegmentReader
from copycat.storage.snapshot_store import SnapshotStore
from copycat.types import NO_ENTRY, EntryId, MemberId

__all__ = ["SimDisk"]

PATH = "/member"
SNAPSHOTS = f"{PATH}/snapshots"
CLUSTER = "sim"
SPACE = 1 << 40
NEVER = 1 << 62
"""More disk operations than a seed has: no power cut."""
PACKED_HEADER_NBYTES = 80
"""After the header come blocks and their table: damage to any of these bytes is noticed."""
CALM_THREAD_US = 30_000
MIN_FREE_SPACE = 64 << 10
"""Below this much free space nothing is appended (F12)."""


class SimDisk:
    """The disk of member `disk_model.member`."""

    def __init__(
        self,
        disk_model: DiskModel,
        address: str,
        founders: tuple[str, ...],
        member: MemberId,
        options: DiskOptions,
        random: SimRandom,
        trace: Trace,
    ) -> None:
        self.disk_model = disk_model
        self.slow_us = 0
        """Every sync and save takes this much longer now."""
        self.is_cut = False
        """`cut_power_after` armed a power cut: the next error of this disk is that power cut."""
        self.has_fault = False
        """`fail_next` armed an error, and no power cut has removed it since."""
        self.is_short = False
        """There may be too little room for another segment."""
        self._cut_at = 0
        self._cuts_install = False
        self._rewrites: list[Rewrite] = []
        """All rewrites that began: one that a crash interrupted must not delete files after the
        crash."""
        self._calm = False
        self._address = address
        self._founders = founders
        self._member = member
        self._first = NOTHING_STORED
        self._wiped_by: EntryId | None = None
        """The configuration by which the start under way deletes log and state."""
        self._options = options
        self._random = random
        self._trace = trace
        self.seen = Seen()
        self.env = FaultEnv(random.next())
        self.directory: MemberDirectory | None = None

    def move(self, address: str) -> None:
        """The member will listen at another address, from its first start on."""
        self._address = address

    # --- a process ----------------------------------------------------------------------

    def open(
        self, first: StoredConfigurations = NOTHING_STORED
    ) -> tuple[InstrumentedLog, InstrumentedHardState, MemberDirectory, InstrumentedSnapshots]:
        """Open or create the directory, and check what was recovered. The power may fail during
        that, any number of times. first: what a directory that is created now knows of the
        cluster."""
        self._first = first
        require(self.directory is None, "the disk is in use")
        stored, stale = ConfigurationFile(self.env, PATH).read_copies()
        if stored.is_wiped:  # an earlier attempt may have deleted it, and ended after that
            self._wiped_by = stored.records[0].entry
        if stored.records and not stale:
            self._rot_members()
        while not self._calm and self._random.chance(self._options.recovery_cut):
            if not self._open_cut_short():
                break
        directory = self.directory or self._open()
        self.directory = directory
        snapshots = cast("InstrumentedSnapshots", directory.snapshots)
        log = directory.log
        if self._wiped_by is not None:
            self._trace.mark("log and state deleted")
            self.disk_model.wiped(self._wiped_by)
            self._wiped_by = None
        self._repaired(directory)
        frames, gaps = contents(log.scan(log.first_index, log.last_index + 1))
        if log.valid_from != max((gap.valid_from for gap in gaps), default=0):
            raise violated("I24", "recovery found another valid_from", actual=log.valid_from)
        state = directory.hard_state
        self.disk_model.recovered(
            frames,
            (state.current_term, state.voted_for),
            gaps=gaps,
            before=log.before,
            snapshots=snapshots.entries,
        )
        if gaps and self.disk_model.most == log.before.index:  # else it begins anew at once (C24)
            self.disk_model.check_terms(log)
        if self.disk_model.loss.is_done(lacks_entries=directory.lost_entries is not None):
            self.disk_model.loss.recovered()
        if (
            snapshots.entries
            and not self._calm
            and self._random.chance(self._options.recovery_cut)
        ):
            self.cut_power_after(self._random.below(12))
        return (
            InstrumentedLog(
                log, self.disk_model, self._cleaned, self._rewrites.append, self.seen.did
            ),
            InstrumentedHardState(directory.hard_state, self.disk_model),
            directory,
            snapshots,
        )

    def _repaired(self, directory: MemberDirectory) -> None:
        """Tell the model how a start repaired the damage that was done while the member was down
        (F2, F3)."""
        log, lost_entries, disk_model = directory.log, directory.lost_entries, self.disk_model
        if disk_model.has_unseen_damage:
            lost_upto, term = (
                (NO_ENTRY, 0)
                if lost_entries is None
                else (lost_entries.lost_upto, lost_entries.term)
            )
            self._trace.mark(
                "log cut behind a snapshot" if lost_entries is None else "log cut, not whole"
            )
            disk_model.cut(log.before, log.last_index, lost_upto, term)
        elif lost_entries is not None:
            disk_model.saving.append(
                (lost_entries.term, 0)
            )  # a start raises the term before the member sends anything

    def _rot_members(self) -> None:
        """Perhaps one of the two copies of the list of members is bad at this start (F5)."""
        if self._calm or not self._random.chance(self._options.recovery_cut):
            return
        path = f"{PATH}/{self._random.pick(CONFIGURATION_FILES)}"
        self._trace.mark("list of members rotten")
        self.env.corrupt(path, self._random.below(self.env.size(path)), 0x10)

    def rot(self) -> None:
        """Bytes that were durable are damaged, or a file is lost, while the member is down.

        Only bytes that a mark or the manifest proves to have been durable are chosen: damage to
        others cannot be distinguished from a torn write (C6).
        """
        require(self.directory is None, "the disk is in use")
        if self.disk_model.older:
            return  # it is not known which of two logs the crash left
        victims = list(self._victims())
        if not victims:
            return
        self.disk_model.has_unseen_damage = True
        for _ in range(self._random.between(1, 3)):
            path, offset, nbytes = self._random.pick(victims)
            if not self.env.exists(path):
                continue
            if self._random.chance(100_000):
                self._trace.mark("file lost")
                self.env.remove(path)
            else:
                self._trace.mark("byte rotten")
                self.env.corrupt(path, offset + self._random.below(nbytes), 0x10)

    def _victims(self) -> Iterator[tuple[str, int, int]]:
        """(path, offset, bytes) of every frame that is proved to have been durable, and of packed
        segments without their headers, since a changed version there is another fault (F7)."""
        directory = f"{PATH}/log"
        rows = read_manifest(self.env.read_file(f"{directory}/manifest"), directory)
        for row in rows:
            if row.packed:
                path = f"{directory}/{row.name}"
                yield path, PACKED_HEADER_NBYTES, self.env.size(path) - PACKED_HEADER_NBYTES
                continue
            walk = SegmentReader(self.env, directory, row)
            frames = [(record.index, record.offset, len(record.frame)) for record in walk]
            if not row.sealed:
                data = self.env.read_file(walk.path)
                durable_ends = [
                    mark.durable_upto for _, mark in marks(data, DATA_OFFSET, row.uuid)
                ]
                frames = [frame for frame in frames if frame[0] <= max(durable_ends, default=0)]
            yield from ((walk.path, offset, nbytes) for _, offset, nbytes in frames)

    def _cleaned(self, entries: int) -> None:
        self._trace.mark("log rewritten")
        self._trace.mark("entry cleaned", entries)

    def again(self, seed: int) -> tuple[ReplicaLog, list[bytes]]:
        """What a restart after a power cut now would begin with: the log of a copy of this disk,
        and the snapshots that it continues from."""
        env = self.env.clone()
        env.crash(seed)
        log = self._open(env).log
        snapshots = [
            snapshot_file.load(env, f"{SNAPSHOTS}/{entry.index}-{entry.term}.snap")[1]
            for entry in SnapshotStore(env, SNAPSHOTS).entries
            if entry.index >= log.before.index
        ]
        return log, snapshots

    def _open(self, env: FaultEnv | None = None) -> MemberDirectory:
        options = self._options
        return MemberDirectory.open(
            self.env if env is None else env,
            PATH,
            cluster_name=CLUSTER,
            address=self._address,
            members=self._founders,
            member=self._member,
            incarnation_source=self._incarnation,
            max_segment_size=options.max_segment_size,
            max_entries_per_segment=options.max_entries_per_segment,
            min_free_space=MIN_FREE_SPACE,
            whole=self.disk_model.has_unseen_damage and env is None,
            snapshots=None if env is not None else self._snapshots,
            compress=self._member % 2 == 1,  # members need not agree on that
            first=self._first,
        )

    def _snapshots(self) -> InstrumentedSnapshots:
        return InstrumentedSnapshots(self.env, SNAPSHOTS, self.disk_model, self.seen.did)

    def _incarnation(self) -> int:
        return (self._random.next() << 64) | self._random.next()

    def _open_cut_short(self) -> bool:
        """Open with a power cut after a few operations. False when the open finished before."""
        self.env.stop_after(self._random.below(24))
        try:
            self.directory = self._open()
        except DiskFullError:
            self.env.stop_after(NEVER)
            raise
        except DiskError:
            self._trace.mark("power cut in recovery")
            self.env.crash(self._random.next())
            return True
        self.env.stop_after(NEVER)
        return False

    def cut_power_after(self, operations: int) -> None:
        """The power fails after a few more operations on this disk, whatever they are."""
        self.env.stop_after(operations)
        self._cut_at = self.env.operations + operations
        self.is_cut = True

    def space(self, nbytes: int = SPACE) -> None:
        """Set the free space of this disk."""
        self.env.set_free_space(nbytes)
        self.is_short = nbytes < SPACE

    def put_back(self, older: FaultEnv) -> None:
        """Replace all files by an older copy. The free space of the disk stays as it is."""
        older.set_free_space(self.env.free_space(PATH))
        self.env = older

    def fail_next(self, operation: str, error: str) -> None:
        """The next `operation` fails with an error: the member must stop (F9, F10, F12)."""
        self.env.fail(operation, 1, error)
        self.has_fault = True

    @property
    def power_is_off(self) -> bool:
        """Whether the power has failed, whether or not the member noticed."""
        return self.is_cut and self.env.operations >= self._cut_at

    def before_rewrite(self) -> None:
        """Perhaps make something fail while segments are rewritten (F13, F16)."""
        if self._calm or self.is_cut or not self._random.chance(self._options.rewrite_fault):
            return
        what = self._random.below(4)
        if what == 0:
            self._trace.mark("power cut in a rewrite")
            self.cut_power_after(self._random.below(24))
        elif what == 1:
            self._trace.mark("full disk in a rewrite")
            self.fail_next(self._random.pick(("create", "write", "allocate")), "ENOSPC")
        elif what == 2:
            self._trace.mark("error in a rewrite")
            self.fail_next(self._random.pick(("write", "sync")), "EIO")
        else:
            self._cuts_install = True

    def after_rewrite(self, *, failed: bool) -> None:
        """The rewrite has ended; its files are not part of the log yet, or not durably."""
        if failed:
            self._trace.mark("rewrite failed")
        if self._cuts_install and not self.is_cut:
            self._trace.mark("power cut at an install")
            self.cut_power_after(self._random.below(10))
        self._cuts_install = False

    def calm(self) -> None:
        """End every fault, an armed power cut too."""
        self.slow_us = 0
        self.space()
        self._calm = True
        if self.is_cut:
            self.env.stop_after(NEVER)
            self.is_cut = False

    def lose_power(self) -> None:
        """Cut the power: each write that was not synced is kept, lost or torn."""
        self.env.crash(self._random.next())
        self.has_fault = False
        self._down()

    def lose_process(self) -> None:
        """Kill the process: the page cache survives. A power cut that was armed happens now
        instead."""
        if self.is_cut:
            self.lose_power()
            return
        self.env.crash_process()
        self._down()

    def _down(self) -> None:
        self.directory = None
        self.is_cut = False
        self.disk_model.crashed()

    # --- how long things take -----------------------------------------------------------

    def sync_delay_us(self) -> int | None:
        """How long a sync takes; None: it is done before `Host.sync` returns."""
        if not self.slow_us and self._random.chance(self._options.inline):
            return None
        return self._latency_us(self._options.sync_us) + self.slow_us

    def save_delay_us(self) -> int:
        return self._latency_us(self._options.save_us) + self.slow_us

    def _latency_us(self, mean_us: int) -> int:
        """A drawn latency; in a calm never a long one, since a disk that hangs is a fault
        (F15)."""
        latency_us = self._random.around(mean_us)
        return min(latency_us, mean_us + mean_us // 2) if self._calm else latency_us

    def hold_us(self, kind: str) -> int:
        """How long the answer of finished work is held back; mostly 0."""
        options = self._options
        if (
            self._calm
            or kind not in options.late_kinds
            or not self._random.chance(options.late_chance)
        ):
            return 0
        return min(self._random.around(options.late_us), 2 * options.late_us)

    @property
    def holds_until_moved(self) -> bool:
        """Whether answers are held back only until the member has moved on (`workers.MOVES`)."""
        return self._options.late_until_moved

    def apply_delay_us(self) -> int:
        return self._random.around(self._options.apply_us)

    def aside_delay_us(self) -> int:
        return self._thread_delay_us(self._options.aside_us)

    def compact_delay_us(self) -> int:
        """How long the rewrite of one group takes."""
        return self._thread_delay_us(self._options.compact_us)

    def _thread_delay_us(self, mean_us: int) -> int:
        """A drawn latency; never a long one in a calm, since a slow thread is a fault too."""
        latency_us = self._random.around(min(mean_us, CALM_THREAD_US) if self._calm else mean_us)
        return latency_us if mean_us <= CALM_THREAD_US else min(latency_us, 2 * mean_us)
